//! Dear values kept, cheap ones recomputed: on the later part of the tape, in several sizes of it.
//!
//! Where a later pass reads both what products compute and what a few elementwise operations make of it, segments
//! recompute the products with the rest. Here values that many operations make, per byte, are kept like pinned ones
//! behind a place on the tape; the planners then divide the tape as if there were only the others.

use std::sync::Arc;

use ckad_graph::{Result, interrupt};

use crate::policy::Material;
use crate::tables::{collected, filled, push};

/// Operations for each byte from which on a value is dear.
const DEAR: u64 = 8;

/// Shares of the dear bytes, in hundredths, at the beginning of the tape that are not kept.
const SHARES: &[u64] = &[0, 2, 5, 7, 10, 12, 15, 17, 20, 25, 30, 35, 40, 50, 65];

/// The graph with more values pinned; none where all that later passes read is dear, or all is cheap.
pub(crate) fn materials<'a>(of: &Material<'a>) -> Result<Vec<Material<'a>>> {
    let (graph, flow, positions) = (of.graph, &of.flow, &of.positions);
    // Of each value the operations that make it from what later passes read anyway.
    let mut work = filled(0u64, graph.len())?;
    let mut dear = Vec::new();
    let (mut dear_bytes, mut cheap_bytes) = (0u64, 0u64);
    for cluster in 0..of.clustering.clusters.len() {
        interrupt::check_at(cluster)?;
        let pass = positions.pass[cluster];
        if pass + 1 >= flow.passes {
            continue;
        }
        let needed = flow.operands.get(cluster).iter().map(|&operand| work[operand as usize]);
        let made = needed.fold(flow.flops[cluster], u64::saturating_add);
        for &result in flow.results.get(cluster) {
            let late = flow.users.get(result as usize).iter().any(|&user| positions.pass[user as usize] > pass);
            let bytes = graph.bytes(ckad_graph::NodeId(result)) as u64;
            let is_dear = late && made >= DEAR.saturating_mul(bytes);
            work[result as usize] = if is_dear { 0 } else { made };
            if is_dear && !of.pinned[result as usize] {
                push(&mut dear, (positions.of[cluster], result, bytes))?;
                dear_bytes += bytes;
            } else if late && !of.pinned[result as usize] {
                cheap_bytes += bytes;
            }
        }
    }
    let mut materials = Vec::new();
    if cheap_bytes < (dear_bytes + cheap_bytes) / 10 || dear.is_empty() {
        return Ok(materials);
    }
    dear.sort_unstable();
    for &share in SHARES {
        let mut pinned = collected(of.pinned.iter().copied())?;
        let mut before = 0u64;
        for &(_, value, bytes) in &dear {
            pinned[value as usize] |= 100 * u128::from(before) >= u128::from(share) * u128::from(dear_bytes);
            before += bytes;
        }
        let (clustering, flow, positions) =
            (Arc::clone(&of.clustering), Arc::clone(&of.flow), Arc::clone(&of.positions));
        push(&mut materials, Material { graph, clustering, flow, pinned, positions })?;
    }
    Ok(materials)
}
