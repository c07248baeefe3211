//! Values that are dear and values that are cheap, in clusters of their own.
//!
//! A group that computes t = tanh(z) and x + t from the result z of a product is recomputed whole, and the product
//! with it, though the sum alone could be had again from x and t. Where both are read by a later pass, the group is
//! taken apart behind the first of them, so that a planner may keep the one and recompute the other.

use std::collections::BTreeSet;

use ckad_graph::{NodeId, Result, interrupt};

use crate::policy::Material;
use crate::schedule::{Cluster, ClusterKind, Clustering};
use crate::tables::{collected, push, room};

/// Smaller values are not worth a thought.
const LEAST_BYTES: usize = 4096;

/// The graph under clusters that are taken apart; `None` where there are none such.
pub(crate) fn material<'a>(of: &Material<'a>) -> Result<Option<Material<'a>>> {
    let clusters = &of.clustering.clusters;
    let mut parts: Vec<Cluster> = room(clusters.len())?;
    for (index, cluster) in clusters.iter().enumerate() {
        interrupt::check_at(index)?;
        let kind = cluster.kind;
        let members = |part: &[NodeId]| Ok(Cluster { kind, members: collected(part.iter().copied())? });
        match cut(of, index) {
            None => push(&mut parts, members(&cluster.members)?)?,
            Some(place) => {
                push(&mut parts, members(&cluster.members[..place])?)?;
                push(&mut parts, members(&cluster.members[place..])?)?;
            }
        }
    }
    let found = parts.len() > clusters.len();
    if found { Material::new(of.graph, Clustering { clusters: parts }).map(Some) } else { Ok(None) }
}

/// Behind how many members the cluster is taken apart.
fn cut(of: &Material<'_>, index: usize) -> Option<usize> {
    let (graph, flow, positions) = (of.graph, &of.flow, &of.positions);
    let cluster = &of.clustering.clusters[index];
    let pass = positions.pass[index];
    let is_late = |value: NodeId| {
        graph.bytes(value) >= LEAST_BYTES
            && flow.users.get(value.index()).iter().any(|&user| positions.pass[user as usize] > pass)
    };
    let late = |members: &[NodeId]| members.iter().position(|&member| is_late(member));
    let same_pass = || cluster.members.iter().all(|&member| graph.attributes(member).pass == pass);
    if cluster.kind != ClusterKind::Fused || pass + 1 >= flow.passes || !same_pass() {
        return None;
    }
    let place = late(&cluster.members)? + 1;
    let (dear, cheap) = cluster.members.split_at(place);
    late(cheap)?;
    let inside: BTreeSet<NodeId> = cheap.iter().copied().collect();
    let kept = |operand: NodeId| graph.op(operand).is_leaf() || (is_late(operand) && !inside.contains(&operand));
    let operands = |members: &[NodeId]| members.iter().flat_map(|&member| graph.operands(member)).copied().collect();
    let (of_dear, of_cheap): (Vec<NodeId>, Vec<NodeId>) = (operands(dear), operands(cheap));
    let again = of_cheap.iter().all(|operand| inside.contains(operand) || kept(*operand));
    let dearly = of_dear.iter().any(|&operand| !dear.contains(&operand) && !kept(operand));
    (again && dearly).then_some(place)
}
