//! Keep what is not cheap: the clustering in which later passes rebuild cheap values themselves.

use ckad_graph::Result;

use crate::cluster::cluster;
use crate::policy::Material;
use crate::program::Target;

/// The graph under the clustering called auto; `None` where that is the plain one.
pub(crate) fn material<'a>(plain: &Material<'a>, target: &Target) -> Result<Option<Material<'a>>> {
    let clustering = cluster(plain.graph, target, true)?;
    if clustering == plain.clustering { Ok(None) } else { Material::new(plain.graph, clustering).map(Some) }
}
