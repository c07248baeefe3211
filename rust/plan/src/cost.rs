//! What clusters cost. The unit is the floating point operation, as each primitive counts its own.

use ckad_graph::{DotAxes, Graph, NodeId, Op};

use crate::schedule::{Cluster, Clustering};

/// Operations of one node; leaves cost nothing.
pub fn node_flops(graph: &Graph, node: NodeId) -> u64 {
    let elements = graph.elements(node) as u64;
    match graph.op(node) {
        op if op.is_leaf() => 0,
        Op::Dot { axes, .. } => {
            let axes = DotAxes::read(&graph.lists, axes);
            let lhs = graph.operands(node)[0];
            let depth: i64 = axes.lhs_contract.iter().map(|&axis| graph.shape(lhs)[axis]).product();
            2 * elements * depth as u64
        }
        Op::Reduce { .. } => graph.elements(graph.operands(node)[0]) as u64,
        Op::Reshape | Op::Transpose { .. } | Op::Broadcast | Op::StridedRead { .. } => 0,
        _ => elements,
    }
}

/// Operations of one run of the cluster.
pub fn cluster_flops(graph: &Graph, cluster: &Cluster) -> u64 {
    cluster.members.iter().fold(0, |sum, &member| sum.saturating_add(node_flops(graph, member)))
}

/// Operations of each cluster.
pub fn clustering_flops(graph: &Graph, clustering: &Clustering) -> Vec<u64> {
    clustering.clusters.iter().map(|cluster| cluster_flops(graph, cluster)).collect()
}
