//! Clusters that end where the steps of the tape end.
//!
//! Fusion takes several steps of an elementwise loop into one kernel, and the groups of the backward part end elsewhere
//! than those of the forward part: wherever a policy divides the tape, the values of a whole group cross. So the steps
//! are read off the tape as it was recorded, each position a cluster of its own, and groups are formed again between
//! their ends.

use ckad_graph::{NodeId, Result, interrupt};

use crate::cluster::cluster_between;
use crate::cluster::fences::Fences;
use crate::policy::chain::Chain;
use crate::policy::{Material, auto};
use crate::program::Target;
use crate::schedule::ClusterKind;

/// A group with so many values that a later pass reads may hold several steps.
const CROWD: usize = 4;
/// Steps are looked for where such groups make at least one in so many bytes that later passes read.
const SHARE: u64 = 8;

/// The graph under groups of one step each, plain and with cheap values rebuilt; none where that changes nothing.
pub(crate) fn materials<'a>(plain: &Material<'a>, target: &Target) -> Result<Vec<Material<'a>>> {
    let mut found = Vec::new();
    if !is_crowded(plain)? {
        return Ok(found);
    }
    let fences = ends_of_steps(plain, target)?;
    let clustering = cluster_between(plain.graph, target, false, &fences)?;
    if clustering == *plain.clustering {
        return Ok(found);
    }
    let steps = Material::new(plain.graph, clustering)?;
    let rebuilding = auto::between(&steps, target, &fences)?;
    found.push(steps);
    found.extend(rebuilding);
    Ok(found)
}

/// Whether groups hold much that later passes read, many values each.
fn is_crowded(plain: &Material<'_>) -> Result<bool> {
    let (flow, positions) = (&plain.flow, &plain.positions);
    let (mut crowded, mut all) = (0u64, 0u64);
    for (index, cluster) in plain.clustering.clusters.iter().enumerate() {
        interrupt::check_at(index)?;
        let pass = positions.pass[index];
        let late =
            |&&value: &&u32| flow.users.get(value as usize).iter().any(|&user| positions.pass[user as usize] > pass);
        let late = || flow.results.get(index).iter().filter(late);
        let bytes = late().fold(0u64, |sum, &value| sum.saturating_add(plain.graph.bytes(NodeId(value)) as u64));
        all = all.saturating_add(bytes);
        if cluster.kind != ClusterKind::Single && late().count() >= CROWD {
            crowded = crowded.saturating_add(bytes);
        }
    }
    Ok(crowded > 0 && crowded >= all / SHARE)
}

fn ends_of_steps(plain: &Material<'_>, target: &Target) -> Result<Fences> {
    let single = Material::new(plain.graph, cluster_between(plain.graph, target, false, &Fences::Everywhere)?)?;
    let stretch = single.profile()?.stretch(0, single.positions.count as u32, &[], &[])?;
    let chain = Chain::new(&single, 0, &stretch)?;
    Ok(Fences::Before(single.positions.on_tape(&chain.borders[1..chain.steps()])?))
}
