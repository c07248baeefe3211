//! What stays whatever the policy: values that the user saves, and small overwrites, which are trajectories and loops
//! over elements.
//!
//! Where many writes touch at most an eighth of a storage each, keeping the storage as a checkpoint would copy it at
//! each border, and regenerating it would replay the loop: time and bytes beyond those of keeping everything.
//! So such a storage is written once, in place, and what is read from it on the way is kept.
//!
//! Few such writes are no loop: a boundary condition follows the update of a field and is recomputed with it. A
//! storage's *life* is what lies between two writes that are not small, each of which makes a new value; lives of few
//! small writes are planned as all else.

use ckad_graph::{CallKind, CheckpointPolicy, Graph, NodeId, Op, Result};

use crate::liveness::{Flow, NONE};
use crate::schedule::{Cluster, ClusterKind, Clustering};
use crate::tables::{collected, filled};
use crate::view::is_view;

/// The largest share of a storage that a small overwrite touches: one in this many.
const SHARE: usize = 8;

/// The most small overwrites of one life that are recomputed with it: together they touch two storages at most.
const FEW: u32 = 2 * SHARE as u32;

fn is_small_overwrite(graph: &Graph, node: NodeId) -> bool {
    let op = graph.op(node);
    match graph.operands(node) {
        [base, value, ..] if op.overwrites_base() && op != Op::Accumulate => {
            graph.elements(*value).saturating_mul(SHARE) <= graph.elements(*base)
        }
        _ => false,
    }
}

/// Pins what the user saves; of a view that readers load through, what it is a view of.
fn pin_kept(graph: &Graph, flow: &Flow, pinned: &mut [bool]) {
    if !graph.regions.iter().any(|region| region.policy == CheckpointPolicy::Keep) {
        return;
    }
    for id in graph.ids().filter(|&id| graph.is_kept(id)) {
        let mut value = id;
        while flow.producer[value.index()] == NONE && is_view(graph.op(value)) {
            value = graph.operands(value)[0];
        }
        pinned[value.index()] |= flow.producer[value.index()] != NONE;
    }
}

/// For each node, whether the user saves it, or it is a storage under small overwrites or computed from one directly,
/// or holds the states that a loop keeps: what these spare is spent already, and would be spent once more.
pub(crate) fn pinned_values(graph: &Graph, clustering: &Clustering, flow: &Flow) -> Result<Vec<bool>> {
    let mut pinned = pinned_storage(graph, clustering, flow)?;
    if !graph.calls.is_empty() {
        for id in graph.ids() {
            let Op::Part(part) = graph.op(id) else { continue };
            pinned[id.index()] |= match graph.call(id).map(|call| call.kind) {
                Some(CallKind::Scan(scan)) => scan.slots > 0 && part >= scan.states(0),
                Some(CallKind::While(looped)) => part >= looped.kept(),
                _ => false,
            };
        }
    }
    Ok(pinned)
}

fn pinned_storage(graph: &Graph, clustering: &Clustering, flow: &Flow) -> Result<Vec<bool>> {
    let overwriting = |cluster: &Cluster| {
        let root = cluster.members.last().copied().filter(|_| cluster.kind == ClusterKind::Single);
        root.filter(|&root| is_small_overwrite(graph, root))
    };
    // Most programs have few of them, or none.
    if clustering.clusters.iter().filter_map(overwriting).take(FEW as usize + 1).count() <= FEW as usize {
        let mut pinned = filled(false, graph.len())?;
        pin_kept(graph, flow, &mut pinned);
        return Ok(pinned);
    }
    // Of each value in a life, the first one.
    let mut life = filled(NONE, graph.len())?;
    let mut overwrites = filled(0u32, graph.len())?;
    for cluster in &clustering.clusters {
        if let Some(root) = overwriting(cluster) {
            let base = graph.operands(root)[0];
            let first = if life[base.index()] == NONE { base.0 } else { life[base.index()] };
            life[base.index()] = first;
            life[root.index()] = first;
            overwrites[first as usize] += 1;
        }
    }
    let is_long = |&first: &u32| first != NONE && overwrites[first as usize] > FEW;
    let storage = collected(life.iter().map(is_long))?;
    let mut pinned = collected(storage.iter().copied())?;
    pin_kept(graph, flow, &mut pinned);
    if storage.contains(&true) {
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
