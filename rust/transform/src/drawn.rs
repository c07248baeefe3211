//! Random values that both parts of a partition draw: the residual is their key, not they.
//!
//! A mask that the known part draws would be kept until the unknown part reads it. It is a function of a key and a few
//! numbers, so the nodes that make it are computed in both parts, and what crosses over is as large as a key.

use ckad_graph::{Graph, NodeId, Op, Result, interrupt, tables};

use crate::copy::table;

/// Smaller values may as well be kept.
const LEAST_BYTES: usize = 4096;
/// What has this many times fewer bytes than a value is kept for it.
const SMALL: usize = 64;
/// Most nodes that draw one value again.
const MOST_NODES: u32 = 20;

/// Of the nodes that cross over, and of what they are made of, those that are computed in both parts instead. What
/// these read crosses over in their place. `is_late` says of a node that only the unknown part computes it.
pub(crate) fn drawn_again(
    op: &str,
    graph: &Graph,
    is_late: impl Fn(NodeId) -> bool,
    crosses: &mut [bool],
) -> Result<Vec<bool>> {
    let mut again = table(op, false, graph.len())?;
    // How many nodes draw a value; 0 where it is made of other things than random bits too.
    let mut drawn = table(op, 0u32, graph.len())?;
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let makes = matches!(graph.op(id), Op::RandomBits | Op::Elementwise(_) | Op::Cast);
        if !makes || is_late(id) || graph.bytes(id) < LEAST_BYTES {
            continue;
        }
        let operands = graph.operands(id);
        let parts: u32 = operands.iter().map(|operand| drawn[operand.index()]).sum();
        let is_small = |operand: &NodeId| graph.bytes(*operand).saturating_mul(SMALL) <= graph.bytes(id);
        let made_of_little = operands.iter().all(|operand| drawn[operand.index()] > 0 || is_small(operand));
        if made_of_little && parts < MOST_NODES && (parts > 0 || graph.op(id) == Op::RandomBits) {
            drawn[id.index()] = parts + 1;
        }
    }
    let mut pending = Vec::new();
    for id in graph.ids().filter(|id| drawn[id.index()] > 0) {
        if std::mem::take(&mut crosses[id.index()]) {
            tables::push(op, &mut pending, id)?;
        }
    }
    while let Some(id) = pending.pop() {
        if std::mem::replace(&mut again[id.index()], true) {
            continue;
        }
        for operand in graph.operands(id) {
            if drawn[operand.index()] > 0 {
                tables::push(op, &mut pending, *operand)?;
            } else if !graph.op(*operand).is_leaf() || matches!(graph.op(*operand), Op::Input(_)) {
                crosses[operand.index()] = true;
            }
        }
    }
    Ok(again)
}
