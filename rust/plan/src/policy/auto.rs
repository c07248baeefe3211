//! Keep what is not cheap: the clustering in which later passes rebuild cheap values themselves.

use ckad_graph::{NodeId, Result};

use crate::cluster::auto::LEAST_BYTES;
use crate::cluster::cluster_between;
use crate::cluster::fences::Fences;
use crate::policy::Material;
use crate::program::Target;

/// The graph under the clustering called auto; `None` where that is the plain one.
pub(crate) fn material<'a>(plain: &Material<'a>, target: &Target) -> Result<Option<Material<'a>>> {
    between(plain, target, &Fences::Nowhere)
}

/// The same where the plain clustering has fences.
pub(crate) fn between<'a>(plain: &Material<'a>, target: &Target, fences: &Fences) -> Result<Option<Material<'a>>> {
    let flow = &plain.flow;
    let late = |value: NodeId| {
        let pass = plain.positions.pass[flow.producer[value.index()] as usize];
        flow.users.get(value.index()).iter().any(|&user| plain.positions.pass[user as usize] > pass)
    };
    let any = flow.values().any(|value| plain.graph.bytes(value) >= LEAST_BYTES && late(value));
    if !any {
        return Ok(None);
    }
    let clustering = cluster_between(plain.graph, target, true, fences)?;
    if clustering == *plain.clustering { Ok(None) } else { Material::new(plain.graph, clustering).map(Some) }
}
