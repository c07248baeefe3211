//! Keep every value until its last use; run clusters in the graph's own order.

use ckad_graph::Result;

use crate::policy::Material;
use crate::policy::cells::Cells;

pub(crate) fn cells(material: &Material<'_>) -> Result<Cells> {
    Cells::whole(material.positions.count)
}
