//! The part of a recorded graph between known values and wanted ones, as a graph of its own.
//!
//! Forcing a value in a loop extracts one step of a tape that keeps growing, so the work is that of the cone alone,
//! never of the tape: tables are maps, and only what the cone uses is copied.

use ckad_graph::{Error, Graph, NodeId, Op, Result, interrupt, tables};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::splice::Tables;

/// The operation whose errors these are.
const OP: &str = "force";

/// A cone and the nodes of the source that its inputs stand for.
#[derive(Debug)]
pub struct Cone {
    pub graph: Graph,
    pub inputs: Vec<NodeId>,
}

/// What computes `wanted` from the nodes for which `known` holds. Inputs of the source must be known.
pub fn cone(source: &Graph, wanted: &[NodeId], known: impl Fn(NodeId) -> bool) -> Result<Cone> {
    let mut seen: FxHashSet<NodeId> = FxHashSet::default();
    let mut nodes: Vec<NodeId> = Vec::new();
    let mut meet = |nodes: &mut Vec<NodeId>, id: NodeId| {
        seen.try_reserve(1).map_err(|_| Error::memory(OP, (seen.len() + 1) * size_of::<NodeId>()))?;
        if seen.insert(id) { tables::push(OP, nodes, id) } else { Ok(()) }
    };
    wanted.iter().try_for_each(|&id| meet(&mut nodes, id))?;
    let mut next = 0;
    while next < nodes.len() {
        interrupt::check_at(next)?;
        let id = nodes[next];
        next += 1;
        if known(id) {
            continue;
        }
        if matches!(source.op(id), Op::Input(_)) {
            return Err(Error::internal(OP, format!("input %{} has no value", id.0)));
        }
        source.operands(id).iter().try_for_each(|&operand| meet(&mut nodes, operand))?;
    }
    nodes.sort_unstable();

    let mut target = Graph::new();
    let mut tables = Tables::default();
    let mut map: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    tables::room_for_keys(OP, &mut map, nodes.len())?;
    let mut inputs = Vec::new();
    let mut operands = Vec::new();
    for (index, &id) in nodes.iter().enumerate() {
        interrupt::check_at(index)?;
        let node = source.node(id);
        let shape = tables.list(&mut target, source, node.shape)?;
        // One policy, none, runs a cone: regions have nothing to say.
        let attributes = node.attributes.without_region();
        let copy = if known(id) && !node.op.is_leaf() || matches!(node.op, Op::Input(_)) {
            tables::push(OP, &mut inputs, id)?;
            target.push_input(node.dtype, shape, attributes)?
        } else {
            operands.clear();
            tables::extend(OP, &mut operands, source.operands(id).iter().map(|operand| map[operand]))?;
            let op = tables.op(&mut target, source, node.op)?;
            target.push(op, &operands, node.dtype, shape, attributes)?
        };
        map.insert(id, copy);
    }
    target.outputs = tables::list(OP, wanted.iter().map(|id| map[id]))?;
    Ok(Cone { graph: target, inputs })
}
