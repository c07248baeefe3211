//! Nodes and the graph that holds them.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use crate::{Call, CallId, DType, Error, ErrorKind, ListId, ListTable, Op, Result, ScalarBits, StartId, tables};

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

impl NodeId {
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of nodes with a checkpoint policy of its own. Region 0 is the whole graph under the caller's policy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct RegionId(pub u16);

/// What `checkpoint=` can say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckpointPolicy {
    /// Keep every recorded value that the backward part needs.
    None,
    /// Never spend a heavy operation twice; rebuild cheap elementwise values where they are used.
    Auto,
    /// Segments chosen so that live checkpoints and one segment balance: one extra forward.
    Sqrt,
    /// That many segments.
    Segments(u32),
    /// Halved again and again: as many states as halvings.
    Log,
    /// So many states held, with the least work for equal steps.
    Revolve(u32),
    /// So many held, each a state or what one step computes.
    Mixed(u32),
    /// Keep only what enters the region: `ckad.checkpoint(fn)`.
    Recompute,
    /// Keep everything, values of at least so many bytes on disk until the backward part needs them.
    Offload(u32),
    /// What lies in the region is kept whatever the policy: `ckad.save(x)`.
    Keep,
    /// A policy of the user's own, by the number under which it is known.
    User(u32),
}

impl CheckpointPolicy {
    /// Whether it may ask for values to be computed again that are not cheap.
    pub fn recomputes(self) -> bool {
        use CheckpointPolicy::{Auto, Keep, None, Offload};
        !matches!(self, None | Auto | Offload(_) | Keep)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Region {
    pub policy: CheckpointPolicy,
    pub parent: RegionId,
}

/// Where a node comes from: carried from stage to stage, and part of no value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes {
    /// Source line, an id in the trace's line table; 0 is unknown.
    pub line: u32,
    /// Position on the recorded tape; derived nodes inherit that of the node they belong to.
    pub position: u32,
    /// 0 for recorded nodes; transposing a node of pass p when P passes exist gives 2P − 1 − p.
    pub pass: u16,
    pub region: RegionId,
}

impl Attributes {
    /// The same place in a graph that does not know the regions of this one.
    pub fn without_region(self) -> Attributes {
        Attributes { region: RegionId(0), ..self }
    }
}

/// One operation applied: at most 64 bytes with its operands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Node {
    pub op: Op,
    pub shape: ListId,
    pub attributes: Attributes,
    first_operand: u32,
    pub dtype: DType,
}

/// Memory that outlives the graph's use of it, in C order of its node's shape.
pub trait HostArray: Send + Sync + fmt::Debug {
    fn bytes(&self) -> &[u8];
    /// Bytes that a plan counts for it: those of a copy that was made of an array. A caller's array, which we only
    /// hold, has none, nor has a result that is counted as such.
    fn owned_bytes(&self) -> usize;

    /// May it be kept for as long as one likes? Nobody else writes to it.
    fn is_ours(&self) -> bool {
        self.owned_bytes() > 0
    }
}

/// A captured array.
pub type Constant = Arc<dyn HostArray>;

/// Nodes of a graph with several passes, copied into one that is being recorded, in their execution order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Splice {
    /// Indices of the copies.
    pub nodes: Range<u32>,
    /// The first of as many tape positions.
    pub position: u32,
}

/// A program: nodes in an order in which operands precede users. Copies are made with [`Graph::copied`], which can be
/// refused.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    operands: Vec<NodeId>,
    pub lists: ListTable,
    /// Values of `Op::Scalar`, by index.
    pub scalars: Vec<ScalarBits>,
    /// Values of `Op::Constant`, by index.
    pub constants: Vec<Constant>,
    /// Values of `StartId`, by index.
    pub starts: Vec<i64>,
    /// Loops and branches, by `CallId`.
    pub calls: Vec<Arc<Call>>,
    /// The nodes `Op::Input(0)`, `Op::Input(1)`, ….
    pub inputs: Vec<NodeId>,
    pub outputs: Vec<NodeId>,
    /// Index 0 is always the whole graph.
    pub regions: Vec<Region>,
    /// What was spliced in while recording, in order; a graph that has any is not yet in execution order.
    pub splices: Vec<Splice>,
}

fn grow<T>(list: &mut Vec<T>, extra: usize) -> Result<()> {
    list.try_reserve(extra).map_err(|_| Error::memory("record", (list.len() + extra) * size_of::<T>()))
}

impl Graph {
    pub fn new() -> Graph {
        Graph { regions: vec![Region { policy: CheckpointPolicy::None, parent: RegionId(0) }], ..Graph::default() }
    }

    /// An empty graph whose ids of lists, scalars, constants, starts and regions continue this one's.
    pub fn derived(&self) -> Result<Graph> {
        Ok(Graph {
            lists: self.lists.copied()?,
            scalars: tables::list("copy", self.scalars.iter().copied())?,
            constants: tables::list("copy", self.constants.iter().cloned())?,
            starts: tables::list("copy", self.starts.iter().copied())?,
            calls: tables::list("copy", self.calls.iter().cloned())?,
            regions: tables::list("copy", self.regions.iter().copied())?,
            ..Graph::default()
        })
    }

    /// A copy, or the error that there is no memory for it.
    pub fn copied(&self) -> Result<Graph> {
        Ok(Graph {
            nodes: tables::list("copy", self.nodes.iter().copied())?,
            operands: tables::list("copy", self.operands.iter().copied())?,
            inputs: tables::list("copy", self.inputs.iter().copied())?,
            outputs: tables::list("copy", self.outputs.iter().copied())?,
            splices: tables::list("copy", self.splices.iter().cloned())?,
            ..self.derived()?
        })
    }

    /// Makes room for that many more nodes and operands.
    pub fn reserve(&mut self, nodes: usize, operands: usize) -> Result<()> {
        grow(&mut self.nodes, nodes)?;
        grow(&mut self.operands, operands)
    }

    /// Number of operands of all nodes together.
    pub fn operand_count(&self) -> usize {
        self.operands.len()
    }

    /// An empty graph with the tables of `like`, in the memory of this one.
    pub fn recycled(mut self, like: &Graph) -> Result<Graph> {
        self.nodes.clear();
        self.operands.clear();
        Ok(Graph { nodes: self.nodes, operands: self.operands, ..like.derived()? })
    }

    /// Appends a node without inference; `ckad_prim::Builder` is the caller that knows dtype and shape.
    #[inline]
    pub fn push(
        &mut self,
        op: Op,
        operands: &[NodeId],
        dtype: DType,
        shape: ListId,
        attributes: Attributes,
    ) -> Result<NodeId> {
        if self.nodes.len() == self.nodes.capacity() || self.operands.capacity() - self.operands.len() < operands.len()
        {
            self.make_room(operands.len()).map_err(|error| error.at_line(attributes.line))?;
        }
        // `make_room` has refused whatever an id does not reach.
        let id = NodeId(self.nodes.len() as u32);
        let first_operand = self.operands.len() as u32;
        debug_assert!(operands.iter().all(|operand| operand.0 < id.0));
        // A copy of two or three is not worth a call.
        for &operand in operands {
            self.operands.push(operand);
        }
        self.nodes.push(Node { op, shape, attributes, first_operand, dtype });
        Ok(id)
    }

    /// Room for a node with that many operands, never for more than ids can name.
    #[cold]
    fn make_room(&mut self, operands: usize) -> Result<()> {
        self.reserve(1, operands)?;
        if self.nodes.capacity().max(self.operands.capacity()) > u32::MAX as usize {
            return Err(Error::new(ErrorKind::Memory, "record", "more than 2³² nodes or operands")
                .with_hint("record less in one transform: array operations in place of loops over elements"));
        }
        Ok(())
    }

    /// Appends the next `Op::Input`.
    pub fn push_input(&mut self, dtype: DType, shape: ListId, attributes: Attributes) -> Result<NodeId> {
        grow(&mut self.inputs, 1)?;
        let id = self.push(Op::Input(self.inputs.len() as u32), &[], dtype, shape, attributes)?;
        self.inputs.push(id);
        Ok(id)
    }

    /// Appends a scalar that is an input of the program.
    pub fn push_scalar(&mut self, dtype: DType, bits: ScalarBits, attributes: Attributes) -> Result<NodeId> {
        grow(&mut self.scalars, 1)?;
        self.scalars.push(bits);
        self.push(Op::Scalar(self.scalars.len() as u32 - 1), &[], dtype, ListId::EMPTY, attributes)
    }

    pub fn push_constant(
        &mut self,
        dtype: DType,
        shape: ListId,
        value: Constant,
        attributes: Attributes,
    ) -> Result<NodeId> {
        grow(&mut self.constants, 1)?;
        self.constants.push(value);
        self.push(Op::Constant(self.constants.len() as u32 - 1), &[], dtype, shape, attributes)
    }

    /// A checkpointing region inside its parent.
    pub fn push_region(&mut self, region: Region) -> Result<RegionId> {
        let id = u16::try_from(self.regions.len()).map_err(|_| {
            Error::value("checkpoint", "more than 65535 regions in one trace")
                .with_hint("mark larger parts of the program with ckad.checkpoint, and fewer of them")
        })?;
        self.regions.push(region);
        Ok(RegionId(id))
    }

    /// Marks a node as one that every policy keeps: it and what derives from it move to a region for that, inside
    /// their own.
    pub fn keep(&mut self, id: NodeId) -> Result<()> {
        let own = self.attributes(id).region;
        if self.regions[own.0 as usize].policy == CheckpointPolicy::Keep {
            return Ok(());
        }
        let region = Region { policy: CheckpointPolicy::Keep, parent: own };
        // Those of inner regions are the last ones.
        let found = self.regions.iter().rposition(|other| *other == region);
        let id_of = |index: usize| RegionId(index as u16);
        self.nodes[id.index()].attributes.region =
            found.map_or_else(|| self.push_region(region), |at| Ok(id_of(at)))?;
        Ok(())
    }

    /// Whether every policy keeps the value of the node: what was marked, and its tangents.
    pub fn is_kept(&self, id: NodeId) -> bool {
        let Attributes { region, pass, .. } = self.attributes(id);
        pass == 0 && self.regions[region.0 as usize].policy == CheckpointPolicy::Keep
    }

    pub fn push_start(&mut self, start: i64) -> Result<StartId> {
        grow(&mut self.starts, 1)?;
        self.starts.push(start);
        Ok(StartId(self.starts.len() as u32 - 1))
    }

    /// Adds a loop or branch to the table, unless it was added last.
    pub fn push_call(&mut self, call: &Arc<Call>) -> Result<CallId> {
        if self.calls.last().is_some_and(|last| Arc::ptr_eq(call, last)) {
            return Ok(CallId(self.calls.len() as u32 - 1));
        }
        grow(&mut self.calls, 1)?;
        self.calls.push(Arc::clone(call));
        Ok(CallId(self.calls.len() as u32 - 1))
    }

    /// Gives each node the line that its line is called elsewhere.
    pub fn rename_lines(&mut self, line: &dyn Fn(u32) -> u32) {
        for node in &mut self.nodes {
            node.attributes.line = line(node.attributes.line);
        }
    }

    /// The call that a node is, or is a part of.
    pub fn call(&self, id: NodeId) -> Option<&Arc<Call>> {
        match self.op(id) {
            Op::Call(call) => self.calls.get(call.0 as usize),
            Op::Part(_) => self.operands(id).first().and_then(|&call| self.call(call)),
            _ => None,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[inline]
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + Clone + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    #[inline]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    #[inline]
    pub fn op(&self, id: NodeId) -> Op {
        self.nodes[id.index()].op
    }

    #[inline]
    pub fn dtype(&self, id: NodeId) -> DType {
        self.nodes[id.index()].dtype
    }

    #[inline]
    pub fn attributes(&self, id: NodeId) -> Attributes {
        self.nodes[id.index()].attributes
    }

    #[inline]
    pub fn operands(&self, id: NodeId) -> &[NodeId] {
        let index = id.index();
        let end = self.nodes.get(index + 1).map_or(self.operands.len(), |next| next.first_operand as usize);
        &self.operands[self.nodes[index].first_operand as usize..end]
    }

    /// Extents of the node's axes.
    #[inline]
    pub fn shape(&self, id: NodeId) -> &[i64] {
        self.lists.get(self.nodes[id.index()].shape)
    }

    #[inline]
    pub fn rank(&self, id: NodeId) -> usize {
        self.shape(id).len()
    }

    /// Number of elements. Products were checked when the node was inferred.
    #[inline]
    pub fn elements(&self, id: NodeId) -> usize {
        self.lists.product(self.nodes[id.index()].shape) as usize
    }

    /// Bytes of the node's value.
    #[inline]
    pub fn bytes(&self, id: NodeId) -> usize {
        self.elements(id) * self.dtype(id).size()
    }

    /// Bytes that the graph itself occupies.
    pub fn own_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.operands.capacity() * size_of::<NodeId>()
            + self.scalars.capacity() * size_of::<ScalarBits>()
            + self.starts.capacity() * size_of::<i64>()
            + self.calls.capacity() * size_of::<Arc<Call>>()
            + self.calls.iter().map(|call| call.own_bytes()).sum::<usize>()
    }

    /// Hash of everything but lines, positions, passes and the values of scalars, constants and starts. Takes a walk
    /// over the graph.
    pub fn structure_hash(&self) -> u64 {
        let mut hasher = FxBuildHasher.build_hasher();
        for node in &self.nodes {
            node.op.hash(&mut hasher);
            // Few wide words: graphs are large.
            let small = u64::from(node.attributes.region.0) << 16 | node.dtype as u64;
            hasher.write_u64(u64::from(node.shape.0) << 32 | small);
        }
        for pair in self.operands.chunks(2) {
            let second = pair.get(1).map_or(0, |operand| u64::from(operand.0));
            hasher.write_u64(second << 32 | u64::from(pair[0].0));
        }
        hasher.write_u64(self.lists.hash());
        self.outputs.hash(&mut hasher);
        self.regions.hash(&mut hasher);
        for call in &self.calls {
            hasher.write_u64(call.structure_hash());
        }
        hasher.finish()
    }

    /// A copy of what `same_structure` compares: without captured arrays and other values.
    pub fn structure(&self) -> Result<Graph> {
        let mut copy = Graph {
            lists: self.lists.copied()?,
            outputs: tables::list("copy", self.outputs.iter().copied())?,
            regions: tables::list("copy", self.regions.iter().copied())?,
            calls: tables::list("copy", self.calls.iter().cloned())?,
            ..Graph::default()
        };
        copy.reserve(self.nodes.len(), self.operands.len())?;
        copy.nodes.extend_from_slice(&self.nodes);
        copy.operands.extend_from_slice(&self.operands);
        Ok(copy)
    }

    /// Equality of what `structure_hash` covers, lines left aside.
    pub fn same_structure(&self, other: &Graph) -> bool {
        self.nodes.len() == other.nodes.len()
            && self.outputs == other.outputs
            && self.operands == other.operands
            && self.regions == other.regions
            && self.lists == other.lists
            && self.calls.len() == other.calls.len()
            && self.calls.iter().zip(&other.calls).all(|(one, other)| one.same_structure(other))
            && self.nodes.iter().zip(&other.nodes).all(|(a, b)| {
                a.op == b.op
                    && a.dtype == b.dtype
                    && a.shape == b.shape
                    && a.first_operand == b.first_operand
                    && a.attributes.region == b.attributes.region
            })
    }
}

/// `(2, 3)`, as NumPy prints a shape.
pub fn shape_text(shape: &[i64]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => format!("({})", shape.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        // With two operands and the recorder's two words beside it, a node stays within 64 bytes.
        assert!(size_of::<Node>() + 2 * size_of::<NodeId>() + 2 * size_of::<u32>() <= 64);
    }
}
