//! The part of a recorded graph between known values and wanted ones, as a graph of its own.
//!
//! Forcing a value in a loop extracts one step of a tape that keeps growing, so the work is that of the cone alone,
//! never of the tape: tables are maps, and only what the cone uses is copied.

use ckad_graph::{Error, Graph, NodeId, Op, Result, interrupt};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::splice::Tables;

/// A cone and the nodes of the source that its inputs stand for.
#[derive(Debug)]
pub struct Cone {
    pub graph: Graph,
    pub inputs: Vec<NodeId>,
}

/// What computes `wanted` from the nodes for which `known` holds. Inputs of the source must be known.
pub fn cone(source: &Graph, wanted: &[NodeId], known: impl Fn(NodeId) -> bool) -> Result<Cone> {
    let mut seen: FxHashSet<NodeId> = wanted.iter().copied().collect();
    let mut nodes: Vec<NodeId> = seen.iter().copied().collect();
    let mut next = 0;
    while next < nodes.len() {
        interrupt::check_at(next)?;
        let id = nodes[next];
        next += 1;
        if known(id) {
            continue;
        }
        if matches!(source.op(id), Op::Input(_)) {
            return Err(Error::internal("force", format!("input %{} has no value", id.0)));
        }
        nodes.extend(source.operands(id).iter().copied().filter(|&operand| seen.insert(operand)));
    }
    nodes.sort_unstable();

    let mut target = Graph::new();
    let mut tables = Tables::default();
    let mut map: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    let mut inputs = Vec::new();
    let mut operands = Vec::new();
    for (index, &id) in nodes.iter().enumerate() {
        interrupt::check_at(index)?;
        let node = source.node(id);
        let shape = tables.list(&mut target, source, node.shape)?;
        // One policy, none, runs a cone: regions have nothing to say.
        let attributes = ckad_graph::Attributes { region: ckad_graph::RegionId(0), ..node.attributes };
        let copy = if known(id) && !node.op.is_leaf() || matches!(node.op, Op::Input(_)) {
            inputs.push(id);
            target.push_input(node.dtype, shape, attributes)?
        } else {
            operands.clear();
            operands.extend(source.operands(id).iter().map(|operand| map[operand]));
            let op = tables.op(&mut target, source, node.op)?;
            target.push(op, &operands, node.dtype, shape, attributes)?
        };
        map.insert(id, copy);
    }
    target.outputs = wanted.iter().map(|id| map[id]).collect();
    Ok(Cone { graph: target, inputs })
}
