//! Small overwrites: trajectories and loops over elements.
//!
//! Where writes touch at most an eighth of a storage each, keeping the storage as a checkpoint would copy it at
//! each border, and regenerating it would replay the loop: time and bytes beyond those of keeping everything.
//! So such a storage is written once, in place, and what is read from it on the way is kept.

use ckad_graph::{Graph, NodeId, Op, Result};

use crate::liveness::Flow;
use crate::schedule::Clustering;
use crate::tables::{collected, filled};

/// The largest share of a storage that a small overwrite touches: one in this many.
const SHARE: usize = 8;

fn is_small_overwrite(graph: &Graph, node: NodeId) -> bool {
    let op = graph.op(node);
    match graph.operands(node) {
        [base, value, ..] if op.overwrites_base() && op != Op::Accumulate => {
            graph.elements(*value).saturating_mul(SHARE) <= graph.elements(*base)
        }
        _ => false,
    }
}

/// For each node, whether it is a storage under small overwrites or computed from one directly.
pub(crate) fn pinned_values(graph: &Graph, clustering: &Clustering, flow: &Flow) -> Result<Vec<bool>> {
    let mut storage = filled(false, graph.len())?;
    let mut any = false;
    for cluster in &clustering.clusters {
        if let Some(&root) = cluster.members.last().filter(|&&root| is_small_overwrite(graph, root)) {
            any = true;
            storage[root.index()] = true;
            storage[graph.operands(root)[0].index()] = true;
        }
    }
    let mut pinned = collected(storage.iter().copied())?;
    if any {
        for cluster in 0..clustering.clusters.len() {
            if flow.operands.get(cluster).iter().any(|&operand| storage[operand as usize]) {
                for &result in flow.results.get(cluster) {
                    pinned[result as usize] = true;
                }
            }
        }
    }
    Ok(pinned)
}
