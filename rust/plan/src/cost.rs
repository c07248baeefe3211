//! What clusters cost. The unit is the floating point operation, as each primitive counts its own.

use ckad_graph::{Graph, NodeId};

use crate::schedule::{Cluster, Clustering};

/// Operations of one node; leaves cost nothing.
pub fn node_flops(graph: &Graph, node: NodeId) -> u64 {
    ckad_prim::cost(graph, node).flops
}

/// Operations of one run of the cluster.
pub fn cluster_flops(graph: &Graph, cluster: &Cluster) -> u64 {
    cluster.members.iter().fold(0, |sum, &member| sum.saturating_add(node_flops(graph, member)))
}

/// Operations of each cluster.
pub fn clustering_flops(graph: &Graph, clustering: &Clustering) -> Vec<u64> {
    clustering.clusters.iter().map(|cluster| cluster_flops(graph, cluster)).collect()
}
