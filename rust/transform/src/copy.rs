//! What all transforms share: liveness, tables over nodes, and copying a node into a derived graph, whose ids of
//! lists, scalars, constants and starts continue the source's.

use ckad_graph::{Attributes, Error, Graph, NodeId, Op, Result, interrupt, tables};

pub(crate) use ckad_graph::tables::filled as table;

/// An empty graph that continues the tables of `source`, with room for `times` as many nodes.
pub(crate) fn derived(source: &Graph, times: usize) -> Result<Graph> {
    let mut target = source.derived()?;
    target.reserve(times * source.len(), times * source.operand_count())?;
    Ok(target)
}

/// The nodes that `outputs` reach.
pub(crate) fn reached(op: &str, graph: &Graph, outputs: impl IntoIterator<Item = NodeId>) -> Result<Vec<bool>> {
    let mut live = table(op, false, graph.len())?;
    for output in outputs {
        live[output.index()] = true;
    }
    for id in graph.ids().rev() {
        interrupt::check_at(id.index())?;
        if live[id.index()] {
            for operand in graph.operands(id) {
                live[operand.index()] = true;
            }
        }
    }
    Ok(live)
}

/// For each flag, how many before it are set: its rank among those, if it is set itself.
pub(crate) fn set_before(op: &str, flags: impl IntoIterator<Item = bool>) -> Result<Vec<usize>> {
    let mut set = 0;
    let before = |flag| {
        let before = set;
        set += usize::from(flag);
        before
    };
    tables::list(op, flags.into_iter().map(before))
}

/// For each node of a graph a node of another one, or none, in four bytes.
pub(crate) struct NodeTable(Vec<NodeId>);

/// No graph has as many nodes: `Graph::push` refuses ids that do not fit.
pub(crate) const NO_NODE: NodeId = NodeId(u32::MAX);

impl NodeTable {
    pub fn new(op: &str, len: usize) -> Result<NodeTable> {
        table(op, NO_NODE, len).map(NodeTable)
    }

    #[inline]
    pub fn get(&self, id: NodeId) -> Option<NodeId> {
        Some(self.0[id.index()]).filter(|&found| found != NO_NODE)
    }

    pub fn set(&mut self, id: NodeId, value: NodeId) {
        self.0[id.index()] = value;
    }
}

/// A copy under construction: where each node of the source went.
pub(crate) struct Copy {
    op: &'static str,
    map: NodeTable,
}

impl Copy {
    pub fn new(op: &'static str, source: &Graph) -> Result<Copy> {
        Ok(Copy { op, map: NodeTable::new(op, source.len())? })
    }

    pub fn set(&mut self, id: NodeId, copy: NodeId) {
        self.map.set(id, copy);
    }

    pub fn get(&self, id: NodeId) -> Option<NodeId> {
        self.map.get(id)
    }

    #[inline]
    pub fn of(&self, id: NodeId) -> Result<NodeId> {
        match self.map.get(id) {
            Some(copy) => Ok(copy),
            None => Err(self.missing(id)),
        }
    }

    #[cold]
    fn missing(&self, id: NodeId) -> Error {
        Error::internal(self.op, format!("%{} was not copied", id.0))
    }

    pub fn all(&self, ids: &[NodeId]) -> Result<Vec<NodeId>> {
        tables::tried(self.op, ids.iter().map(|&id| self.of(id)))
    }

    /// Appends a copy of the node `input` as the next input of `target`.
    pub fn input(&mut self, target: &mut Graph, source: &Graph, input: NodeId) -> Result<NodeId> {
        let node = source.node(input);
        let copy = target.push_input(node.dtype, node.shape, node.attributes)?;
        self.set(input, copy);
        Ok(copy)
    }

    /// All inputs of the source, in order.
    pub fn inputs(&mut self, target: &mut Graph, source: &Graph) -> Result<()> {
        source.inputs.iter().try_for_each(|&input| self.input(target, source, input).map(drop))
    }

    /// Appends a copy of a node whose operands were copied. Inputs are copied by [`Copy::inputs`].
    pub fn node(&mut self, target: &mut Graph, source: &Graph, id: NodeId, attributes: Attributes) -> Result<NodeId> {
        let node = source.node(id);
        if matches!(node.op, Op::Input(_)) {
            return self.of(id);
        }
        let mut push = |operands: &[NodeId]| target.push(node.op, operands, node.dtype, node.shape, attributes);
        let copy = match *source.operands(id) {
            [] => push(&[])?,
            [a] => push(&[self.of(a)?])?,
            [a, b] => push(&[self.of(a)?, self.of(b)?])?,
            ref operands => push(&self.all(operands)?)?,
        };
        self.set(id, copy);
        Ok(copy)
    }
}

/// One more than the greatest pass of a graph.
pub(crate) fn passes(graph: &Graph) -> u32 {
    graph.ids().map(|id| u32::from(graph.attributes(id).pass)).max().unwrap_or(0) + 1
}
