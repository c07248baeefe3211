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

/// Operations of the recorded part, each node once.
pub fn recorded_flops(graph: &Graph, clustering: &Clustering) -> u64 {
    let mut counted = vec![false; graph.len()];
    let members = clustering.clusters.iter().flat_map(|cluster| &cluster.members);
    let recorded = members.filter(|member| graph.attributes(**member).pass == 0);
    recorded.fold(0, |sum, &member| {
        let again = std::mem::replace(&mut counted[member.index()], true);
        if again { sum } else { sum.saturating_add(node_flops(graph, member)) }
    })
}
