//! How a product's result is cut into panels, the unit that one thread computes.

use std::ops::Range;

use ckad_graph::Result;

use super::{Call, Matrices};
use crate::structural::number::Number;
use crate::structural::parallel::for_each_piece;

/// Multiply-adds that a panel should hold at least, some ten microseconds.
const PANEL_WORK: usize = 1 << 19;
/// Panels of one product beyond which no finer cut is made.
const PANELS: usize = 32;
/// The cuts (rows, columns), coarse to fine. Packing costs as many elements per panel as it has columns times depth,
/// so few rows are dear; more columns than the library packs at once gain nothing.
const CUTS: [(usize, usize); 8] =
    [(512, usize::MAX), (512, 768), (512, 384), (256, 384), (128, 384), (128, 192), (128, 128), (128, 64)];

/// The extents of the panels of an (m,k)·(k,n) product.
pub fn panel(m: usize, n: usize, k: usize) -> (usize, usize) {
    let wanted = (m.saturating_mul(n).saturating_mul(k) / PANEL_WORK).clamp(1, PANELS);
    let cut = CUTS.iter().find(|cut| m.div_ceil(cut.0) * n.div_ceil(cut.1) >= wanted);
    let (rows, columns) = *cut.unwrap_or(&CUTS[CUTS.len() - 1]);
    (rows.min(m), columns.min(n))
}

/// Runs `work` on the panels of all products of the batch, in parallel.
pub fn split<T: Number>(
    call: &Call<'_>,
    first: Matrices<T>,
    work: impl Fn(&Matrices<T>, Range<usize>, Range<usize>) -> Result<()> + Sync,
) -> Result<()> {
    let (m, n, k) = (first.m, first.n, first.k);
    let (height, width) = panel(m, n, k);
    let across = n.div_ceil(width);
    let panels = m.div_ceil(height) * across;
    let each = (height * width).saturating_mul(k).max(1);
    for_each_piece(call.environment, call.plan.contraction.batches() * panels, PANEL_WORK / each, |range| {
        for item in range {
            let matrices = call.plan.contraction.product_at(&first, item / panels);
            let (down, along) = (item % panels / across, item % panels % across);
            let rows = down * height..m.min((down + 1) * height);
            let columns = along * width..n.min((along + 1) * width);
            work(&matrices, rows, columns)?;
        }
        Ok(())
    })
}
