//! Copying a finished graph into one that is being recorded: how a transform called inside a traced function becomes
//! part of the outer tape.
//!
//! Ids of lists, scalars, constants, starts and regions are those of another table and are mapped at first use, lines
//! where the caller says so. Positions become consecutive numbers from the place of the splice on, so that they compare
//! with those of the nodes recorded around it; passes stay, and [`crate::settle`] decides later what they mean in the
//! whole.

use std::sync::Arc;

use ckad_graph::{
    Attributes, Call, CallId, Constant, Error, Graph, ListId, NodeId, Op, Region, RegionId, Result, Splice, StartId,
    interrupt, shape_text, tables,
};
use ckad_prim::Builder;
use rustc_hash::FxHashMap;

use crate::copy::{Copy, passes, table};

/// Appends `graph` to what `builder` records, with the nodes `inputs` for its inputs, and returns its outputs. The
/// builder's current region becomes that of the graph as a whole. `line` is what a line of the graph is called there.
pub fn splice(builder: &Builder, graph: &Graph, inputs: &[NodeId], line: impl Fn(u32) -> u32) -> Result<Vec<NodeId>> {
    let mut target = builder.graph_mut();
    let mut copy = Copy::new("splice", graph)?;
    bind_inputs(&mut copy, &target, graph, inputs)?;
    let first = target.len() as u32;
    let positions = consecutive_positions(graph, first)?;
    let mut ids = Tables::within(&target, builder.attributes().region)?;
    let mut calls = Calls::new(&line);
    let mut operands = Vec::new();
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let node = graph.node(id);
        if matches!(node.op, Op::Input(_)) {
            continue;
        }
        operands.clear();
        for &operand in graph.operands(id) {
            tables::push("splice", &mut operands, copy.of(operand)?)?;
        }
        let attributes = Attributes {
            position: positions[node.attributes.position as usize],
            region: ids.region(&mut target, graph, node.attributes.region)?,
            line: line(node.attributes.line),
            ..node.attributes
        };
        let op = match graph.call(id).filter(|_| matches!(node.op, Op::Call(_))) {
            Some(call) => Op::Call(calls.entry(&mut target, call)?),
            None => ids.op(&mut target, graph, node.op)?,
        };
        let shape = ids.list(&mut target, graph, node.shape)?;
        copy.set(id, target.push(op, &operands, node.dtype, shape, attributes)?);
    }
    let end = target.len() as u32;
    if passes(graph) > 1 && first < end {
        target.splices.push(Splice { nodes: first..end, position: first });
    }
    copy.all(&graph.outputs)
}

/// Calls with the names that their lines have in the target. A call that is met again, at another node or in another
/// body, is one there, too.
struct Calls<'a> {
    line: &'a dyn Fn(u32) -> u32,
    relined: FxHashMap<*const Call, Arc<Call>>,
    entries: FxHashMap<*const Call, CallId>,
}

impl<'a> Calls<'a> {
    fn new(line: &'a dyn Fn(u32) -> u32) -> Calls<'a> {
        Calls { line, relined: FxHashMap::default(), entries: FxHashMap::default() }
    }

    fn entry(&mut self, target: &mut Graph, call: &Arc<Call>) -> Result<CallId> {
        if let Some(&known) = self.entries.get(&Arc::as_ptr(call)) {
            return Ok(known);
        }
        let entry = target.push_call(&self.relined(call)?)?;
        tables::room_for_keys("splice", &mut self.entries, 1)?;
        self.entries.insert(Arc::as_ptr(call), entry);
        Ok(entry)
    }

    /// The call with other names for its lines; itself where they are the same.
    fn relined(&mut self, call: &Arc<Call>) -> Result<Arc<Call>> {
        if let Some(known) = self.relined.get(&Arc::as_ptr(call)) {
            return Ok(Arc::clone(known));
        }
        let line = self.line;
        let same = |body: &Graph| body.ids().all(|id| line(body.attributes(id).line) == body.attributes(id).line);
        let relined = if call.bodies.iter().all(|body| same(body) && body.calls.is_empty()) {
            Arc::clone(call)
        } else {
            let body = |body: &Graph| {
                let mut copy = body.copied()?;
                copy.rename_lines(line);
                copy.calls = tables::tried("splice", body.calls.iter().map(|call| self.relined(call)))?;
                Ok(copy)
            };
            let bodies = tables::tried("splice", call.bodies.iter().map(body))?;
            Arc::new(Call::new(call.kind, bodies, call.work))
        };
        tables::room_for_keys("splice", &mut self.relined, 1)?;
        self.relined.insert(Arc::as_ptr(call), Arc::clone(&relined));
        Ok(relined)
    }
}

fn bind_inputs(copy: &mut Copy, target: &Graph, graph: &Graph, inputs: &[NodeId]) -> Result<()> {
    if inputs.len() != graph.inputs.len() {
        let what = format!("{} values for {} inputs", inputs.len(), graph.inputs.len());
        return Err(Error::internal("splice", what));
    }
    for (&input, &value) in graph.inputs.iter().zip(inputs) {
        if graph.dtype(input) != target.dtype(value) || graph.shape(input) != target.shape(value) {
            let text = |graph: &Graph, id| format!("{}{}", graph.dtype(id), shape_text(graph.shape(id)));
            let what = format!("{} given for an input of {}", text(target, value), text(graph, input));
            return Err(Error::internal("splice", what));
        }
        copy.set(input, value);
    }
    Ok(())
}

/// For each position of the graph, its rank among those that occur, counted from `first`.
fn consecutive_positions(graph: &Graph, first: u32) -> Result<Vec<u32>> {
    let greatest = graph.ids().map(|id| graph.attributes(id).position).max().unwrap_or(0);
    let mut positions = table("splice", 0u32, greatest as usize + 1)?;
    for id in graph.ids().filter(|&id| !graph.op(id).is_leaf()) {
        positions[graph.attributes(id).position as usize] = 1;
    }
    let mut next = first;
    for position in &mut positions {
        let occurs = *position;
        *position = next;
        next = next.saturating_add(occurs);
    }
    Ok(positions)
}

/// What the ids of one graph are in another, as far as they were met.
#[derive(Default)]
pub(crate) struct Tables {
    lists: FxHashMap<ListId, ListId>,
    scalars: FxHashMap<u32, u32>,
    constants: FxHashMap<u32, u32>,
    starts: FxHashMap<StartId, StartId>,
    regions: FxHashMap<RegionId, RegionId>,
}

impl Tables {
    /// Tables in which the graph as a whole is `region` of the target.
    pub fn within(target: &Graph, region: RegionId) -> Result<Tables> {
        if region.0 as usize >= target.regions.len() {
            return Err(Error::internal("splice", "unknown region"));
        }
        Ok(Tables { regions: FxHashMap::from_iter([(RegionId(0), region)]), ..Tables::default() })
    }

    pub fn list(&mut self, target: &mut Graph, graph: &Graph, id: ListId) -> Result<ListId> {
        match self.lists.get(&id) {
            Some(&list) => Ok(list),
            None => {
                tables::room_for_keys("splice", &mut self.lists, 1)?;
                let list = target.lists.intern(graph.lists.get(id))?;
                self.lists.insert(id, list);
                Ok(list)
            }
        }
    }

    fn start(&mut self, target: &mut Graph, graph: &Graph, id: StartId) -> Result<StartId> {
        match self.starts.get(&id) {
            Some(&start) => Ok(start),
            None => {
                tables::room_for_keys("splice", &mut self.starts, 1)?;
                let start = target.push_start(graph.starts[id.0 as usize])?;
                self.starts.insert(id, start);
                Ok(start)
            }
        }
    }

    fn scalar(&mut self, target: &mut Graph, graph: &Graph, index: u32) -> Result<u32> {
        if let Some(&known) = self.scalars.get(&index) {
            return Ok(known);
        }
        tables::room_for_keys("splice", &mut self.scalars, 1)?;
        tables::push("splice", &mut target.scalars, graph.scalars[index as usize])?;
        let copy = target.scalars.len() as u32 - 1;
        self.scalars.insert(index, copy);
        Ok(copy)
    }

    fn constant(&mut self, target: &mut Graph, graph: &Graph, index: u32) -> Result<u32> {
        if let Some(&known) = self.constants.get(&index) {
            return Ok(known);
        }
        tables::room_for_keys("splice", &mut self.constants, 1)?;
        tables::push("splice", &mut target.constants, Constant::clone(&graph.constants[index as usize]))?;
        let copy = target.constants.len() as u32 - 1;
        self.constants.insert(index, copy);
        Ok(copy)
    }

    /// A region and, before it, the regions around it.
    fn region(&mut self, target: &mut Graph, graph: &Graph, id: RegionId) -> Result<RegionId> {
        let mut missing = Vec::new();
        let mut at = id;
        let mut parent = loop {
            match self.regions.get(&at) {
                Some(&known) => break known,
                None => missing.push(at),
            }
            at = graph.regions[at.0 as usize].parent;
        };
        while let Some(inner) = missing.pop() {
            let policy = graph.regions[inner.0 as usize].policy;
            parent = target.push_region(Region { policy, parent })?;
            self.regions.insert(inner, parent);
        }
        Ok(parent)
    }

    /// The operation with its ids in the target's tables.
    pub fn op(&mut self, target: &mut Graph, graph: &Graph, op: Op) -> Result<Op> {
        Ok(match op {
            Op::Scalar(index) => Op::Scalar(self.scalar(target, graph, index)?),
            Op::Constant(index) => Op::Constant(self.constant(target, graph, index)?),
            Op::Transpose { perm } => Op::Transpose { perm: self.list(target, graph, perm)? },
            Op::StridedRead { strides, start } => Op::StridedRead {
                strides: self.list(target, graph, strides)?,
                start: self.start(target, graph, start)?,
            },
            Op::StridedWrite { strides, start } => Op::StridedWrite {
                strides: self.list(target, graph, strides)?,
                start: self.start(target, graph, start)?,
            },
            Op::StridedAdd { strides, start } => {
                Op::StridedAdd { strides: self.list(target, graph, strides)?, start: self.start(target, graph, start)? }
            }
            Op::Pad { widths } => Op::Pad { widths: self.list(target, graph, widths)? },
            Op::Reduce { kind, axes } => Op::Reduce { kind, axes: self.list(target, graph, axes)? },
            Op::Dot { axes, absorb } => Op::Dot { axes: self.list(target, graph, axes)?, absorb },
            Op::Call(id) => {
                let call = graph.calls.get(id.0 as usize);
                let call = call.ok_or_else(|| Error::internal("splice", "a call that is not in the table"))?;
                Op::Call(target.push_call(call)?)
            }
            Op::Input(_)
            | Op::Literal(_)
            | Op::Iota { .. }
            | Op::RandomBits
            | Op::Elementwise(_)
            | Op::Cast
            | Op::StopGradient
            | Op::Reshape
            | Op::Broadcast
            | Op::Concatenate { .. }
            | Op::Gather { .. }
            | Op::ScatterSet { .. }
            | Op::ScatterAdd { .. }
            | Op::ArgReduce { .. }
            | Op::CumulativeSum { .. }
            | Op::LinearRecurrence { .. }
            | Op::Argsort { .. }
            | Op::Accumulate
            | Op::Part(_) => op,
        })
    }
}
