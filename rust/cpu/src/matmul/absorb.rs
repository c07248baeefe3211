//! The second look at a linear product: elements that are not finite are computed again with products that are
//! 0 when either factor is exactly 0, so that an infinite coefficient of an absent tangent does no harm.

use std::ops::Range;

use ckad_graph::Result;

use super::Matrices;
use super::isa_dispatch::per_isa;
use crate::structural::number::Float;
use crate::{Environment, Isa};

const COLUMNS: usize = 32;
/// Depth after which partial sums are added up.
const DEPTH: usize = 512;

/// # Safety
/// The processor has `isa`; the operands are inside their memory; the panel is written and nobody else's.
pub unsafe fn repair<T: Float>(
    isa: Isa,
    matrices: &Matrices<T>,
    rows: Range<usize>,
    columns: Range<usize>,
    environment: &Environment<'_>,
) -> Result<()> {
    for row in rows {
        // SAFETY: a row of the panel.
        let line = unsafe {
            let first = matrices.c.at((row * matrices.n + columns.start) as isize);
            std::slice::from_raw_parts_mut(first, columns.len())
        };
        if all_finite(isa, line) {
            continue;
        }
        for (block, results) in line.chunks_mut(COLUMNS).enumerate() {
            if !all_finite(isa, results) {
                environment.check()?;
                // SAFETY: columns of the panel.
                unsafe { redo(matrices, row, columns.start + block * COLUMNS, results, environment)? };
            }
        }
    }
    Ok(())
}

fn all_finite<T: Float>(isa: Isa, values: &[T]) -> bool {
    let mut finite = true;
    // SAFETY: `isa` is one that the processor has.
    unsafe { look(isa, values, &mut finite) };
    finite
}

per_isa! {
    /// Clears `finite` where a value is not.
    look = look_body<T: Float>(values: &[T], finite: &mut bool)
}

/// Free of branches, so that it is a few vector instructions per cache line.
#[inline(always)]
unsafe fn look_body<T: Float, const FUSED: bool>(values: &[T], finite: &mut bool) {
    *finite &= values.iter().fold(true, |finite, &value| finite & value.is_finite());
}

/// # Safety
/// `results` are the elements of `row` from `column` on.
unsafe fn redo<T: Float>(
    matrices: &Matrices<T>,
    row: usize,
    column: usize,
    results: &mut [T],
    environment: &Environment<'_>,
) -> Result<()> {
    let &Matrices { a, a_row, a_depth, b, b_depth, b_column, k, .. } = matrices;
    let mut totals = [T::ZERO; COLUMNS];
    for first in (0..k).step_by(DEPTH) {
        if first % (DEPTH * 64) == DEPTH * 63 {
            environment.check()?;
        }
        let mut sums = [T::ZERO; COLUMNS];
        for depth in first..k.min(first + DEPTH) {
            // SAFETY: inside both operands.
            unsafe {
                let factor = *a.at(row as isize * a_row + depth as isize * a_depth);
                let line = b.at(depth as isize * b_depth + column as isize * b_column);
                for (j, sum) in sums.iter_mut().enumerate().take(results.len()) {
                    *sum = sum.add(factor.absorb(*line.offset(j as isize * b_column)));
                }
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = total.add(sum);
        }
    }
    for (result, total) in results.iter_mut().zip(totals) {
        if !result.is_finite() {
            *result = total;
        }
    }
    Ok(())
}
