//! What clusters cost. The unit is the floating point operation, as each primitive counts its own.

use ckad_graph::{Graph, NodeId, Result};

use crate::schedule::{Cluster, Clustering};
use crate::tables::collected;

/// Operations of one node; leaves cost nothing.
pub fn node_flops(graph: &Graph, node: NodeId) -> u64 {
    ckad_prim::cost(graph, node).flops
}

/// Operations of one run of the cluster.
pub fn cluster_flops(graph: &Graph, cluster: &Cluster) -> u64 {
    cluster.members.iter().fold(0, |sum, &member| sum.saturating_add(node_flops(graph, member)))
}

/// Operations of each cluster.
pub fn clustering_flops(graph: &Graph, clustering: &Clustering) -> Result<Vec<u64>> {
    collected(clustering.clusters.iter().map(|cluster| cluster_flops(graph, cluster)))
}

/// Operations of the forward part, each node once. Turning a program round doubles its passes, so the forward part is
/// the first half of them: the recorded pass, and with gradients inside the function those of the function. `flops` are
/// those of the clusters, which have only nodes in common that cost nothing.
pub fn forward_flops(graph: &Graph, clustering: &Clustering, flops: &[u64], passes: usize) -> u64 {
    let until = (passes / 2).max(1);
    let is_forward = |member: &&NodeId| usize::from(graph.attributes(**member).pass) < until;
    clustering.clusters.iter().zip(flops).fold(0, |sum: u64, (cluster, &flops)| {
        let forward = cluster.members.iter().filter(is_forward);
        sum.saturating_add(match forward.clone().count() {
            count if count == cluster.members.len() => flops,
            _ => forward.fold(0, |sum, &member| sum.saturating_add(node_flops(graph, member))),
        })
    })
}
