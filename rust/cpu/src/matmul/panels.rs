//! How a product is cut into panels of its result, the unit that one thread computes. A deep product with a small
//! result (a weight's gradient) is cut along its depth too, or few threads would read each operand several times.

use std::ops::Range;

use ckad_graph::Result;

use super::{Call, Matrices};
use crate::parallel::{Shared, for_each_piece};
use crate::structural::number::Number;

/// Multiply-adds that a panel should hold at least, some ten microseconds.
const PANEL_WORK: usize = 1 << 19;
/// Panels of one product beyond which no finer cut is made.
const PANELS: usize = 16;
/// The cuts (rows, columns), coarse to fine. Packing costs as many elements per panel as it has columns times depth,
/// so few rows are dear; more columns than the library packs at once gain nothing.
const CUTS: [(usize, usize); 8] =
    [(512, usize::MAX), (512, 768), (512, 384), (256, 384), (128, 384), (128, 192), (128, 128), (128, 64)];

/// Panels below which a deep product is cut along its depth as well, and pieces that it then has at most.
const FEW_PANELS: usize = 8;
const DEPTH_PIECES: usize = 16;
/// Depth of a block of `private-gemm-x86`: sums of whole blocks are its own sums, so a piece of the depth is some of
/// them.
pub const DEPTH_BLOCK: usize = 512;
/// The panels of one piece of the depth: each operand is then read about once.
const DEEP_CUT: (usize, usize) = (128, 384);

/// How the products of a batch are cut; a function of the shape alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    pub rows: usize,
    pub columns: usize,
    /// Pieces of the depth, whose results are added up afterwards, and the depth of one.
    pub depth_pieces: usize,
    pub depth: usize,
}

impl Cut {
    pub fn new(m: usize, n: usize, k: usize, batches: usize) -> Cut {
        let work = m.saturating_mul(n).saturating_mul(k) / PANEL_WORK;
        let deep = m.div_ceil(DEEP_CUT.0) * n.div_ceil(DEEP_CUT.1);
        if batches == 1 && deep < FEW_PANELS && k >= 2 * DEPTH_BLOCK && work > 1 {
            let blocks = k.div_ceil(DEPTH_BLOCK);
            let depth = blocks.div_ceil(blocks.min(work).min(DEPTH_PIECES / deep)) * DEPTH_BLOCK;
            let (rows, columns) = (DEEP_CUT.0.min(m), DEEP_CUT.1.min(n));
            return Cut { rows, columns, depth_pieces: k.div_ceil(depth), depth };
        }
        let wanted = work.clamp(1, PANELS);
        let cut = CUTS.iter().find(|cut| m.div_ceil(cut.0) * n.div_ceil(cut.1) >= wanted);
        let (rows, columns) = *cut.unwrap_or(&CUTS[CUTS.len() - 1]);
        Cut { rows: rows.min(m), columns: columns.min(n), depth_pieces: 1, depth: k }
    }

    /// Bytes for the sums of all pieces of the depth but the first, which is summed in the result itself.
    pub fn partial_bytes(&self, m: usize, n: usize, size: usize) -> usize {
        ((self.depth_pieces - 1) * m * n * size).next_multiple_of(64)
    }
}

/// Runs `work` on the panels of all products of the batch, in parallel.
pub fn split<T: Number>(
    call: &Call<'_>,
    first: Matrices<T>,
    work: impl Fn(&Matrices<T>, Range<usize>, Range<usize>) -> Result<()> + Sync,
) -> Result<()> {
    let (m, n) = (first.m, first.n);
    let cut = call.plan.cut;
    let panels = count(&cut, m, n);
    let each = (cut.rows * cut.columns).saturating_mul(first.k).max(1);
    for_each_piece(call.environment, call.plan.contraction.batches() * panels, PANEL_WORK / each, |range| {
        for item in range {
            let matrices = call.plan.contraction.product_at(&first, item / panels);
            let (rows, columns) = panel(&cut, m, n, item % panels);
            work(&matrices, rows, columns)?;
        }
        Ok(())
    })
}

/// The same for one product whose depth is cut: `work` on the panels of each piece of the depth, as a product of its
/// own, then `finish` on panels whose sums are complete. The pieces' sums wait in `partial`, and are added in order.
pub fn split_depth<T: Number>(
    call: &Call<'_>,
    whole: Matrices<T>,
    partial: *mut T,
    work: impl Fn(&Matrices<T>, Range<usize>, Range<usize>) -> Result<()> + Sync,
    finish: impl Fn(Range<usize>, Range<usize>) -> Result<()> + Sync,
) -> Result<()> {
    let cut = call.plan.cut;
    let (m, n, k) = (whole.m, whole.n, whole.k);
    let panels = count(&cut, m, n);
    let partial = Shared::new(partial);
    let sums_at = |piece: usize| partial.get().wrapping_add((piece - 1) * m * n);
    for_each_piece(call.environment, cut.depth_pieces * panels, 1, |range| {
        for item in range {
            let (piece, first) = (item / panels, item / panels * cut.depth);
            let along = first as isize;
            let matrices = Matrices {
                k: cut.depth.min(k - first),
                a: Shared::read_only(whole.a.get().wrapping_offset(along * whole.a_depth)),
                b: Shared::read_only(whole.b.get().wrapping_offset(along * whole.b_depth)),
                c: if piece == 0 { whole.c } else { Shared::new(sums_at(piece)) },
                ..whole
            };
            let (rows, columns) = panel(&cut, m, n, item % panels);
            work(&matrices, rows, columns)?;
        }
        Ok(())
    })?;
    split(call, whole, |_, rows, columns| {
        for row in rows.clone() {
            let first = row * n + columns.start;
            // SAFETY: the panel's part of a row, in the result and in the sums; panels are disjoint.
            let result = unsafe { std::slice::from_raw_parts_mut(whole.c.get().add(first), columns.len()) };
            for piece in 1..cut.depth_pieces {
                // SAFETY: as above; the sums are complete.
                let sums = unsafe { std::slice::from_raw_parts(sums_at(piece).add(first), columns.len()) };
                for (result, &sum) in result.iter_mut().zip(sums) {
                    *result = result.add(sum);
                }
            }
        }
        finish(rows, columns)
    })
}

/// Number of panels of an m × n result.
pub fn count(cut: &Cut, m: usize, n: usize) -> usize {
    m.div_ceil(cut.rows) * n.div_ceil(cut.columns)
}

/// The rows and columns of the `index`-th panel.
fn panel(cut: &Cut, m: usize, n: usize, index: usize) -> (Range<usize>, Range<usize>) {
    let across = n.div_ceil(cut.columns);
    let (row, column) = (index / across * cut.rows, index % across * cut.columns);
    (row..m.min(row + cut.rows), column..n.min(column + cut.columns))
}
