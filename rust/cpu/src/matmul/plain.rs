//! Products by blocked loops: integers (which wrap), bools (or of ands), and floats on a processor for which
//! the library has no kernel.

use std::ops::Range;

use ckad_graph::Result;

use super::Matrices;
use super::isa_dispatch::per_isa;
use crate::Environment;
use crate::isa::Isa;
use crate::structural::number::Number;

const ROWS: usize = 4;
const COLUMNS: usize = 64;
/// Depth after which partial sums are added up.
const DEPTH: usize = 512;

/// # Safety
/// The operands are inside their memory; the panel is nobody else's.
pub unsafe fn panel<T: Number>(
    isa: Isa,
    matrices: &Matrices<T>,
    rows: Range<usize>,
    columns: Range<usize>,
    environment: &Environment<'_>,
) -> Result<()> {
    for first_depth in (0..matrices.k).step_by(DEPTH) {
        let depth = first_depth..matrices.k.min(first_depth + DEPTH);
        for row in rows.clone().step_by(ROWS) {
            environment.check()?;
            let rows = row..rows.end.min(row + ROWS);
            // SAFETY: the caller's promises.
            unsafe { strip(isa, matrices, rows, columns.clone(), depth.clone()) };
        }
    }
    Ok(())
}

per_isa! {
    /// Adds the products over `depth` to some rows of the panel (writes them, for the first depths).
    strip = strip_body<T: Number>(
        matrices: &Matrices<T>,
        rows: Range<usize>,
        columns: Range<usize>,
        depth: Range<usize>,
    )
}

#[inline(always)]
unsafe fn strip_body<T: Number, const FUSED: bool>(
    matrices: &Matrices<T>,
    rows: Range<usize>,
    columns: Range<usize>,
    depth: Range<usize>,
) {
    let &Matrices { a, a_row, a_depth, b, b_depth, b_column, c, n, .. } = matrices;
    for column in columns.clone().step_by(COLUMNS) {
        let width = COLUMNS.min(columns.end - column);
        let mut sums = [[T::ZERO; COLUMNS]; ROWS];
        let mut line = [T::ZERO; COLUMNS];
        for k in depth.clone() {
            // SAFETY: indices inside the operands, by the caller's promise.
            unsafe {
                let from = b.at(k as isize * b_depth + column as isize * b_column);
                if b_column == 1 && width == COLUMNS {
                    line.copy_from_slice(std::slice::from_raw_parts(from, COLUMNS));
                } else {
                    for (j, place) in line.iter_mut().enumerate().take(width) {
                        *place = *from.offset(j as isize * b_column);
                    }
                }
                for (row, sums) in rows.clone().zip(&mut sums) {
                    let factor = *a.at(row as isize * a_row + k as isize * a_depth);
                    for (sum, &value) in sums.iter_mut().zip(&line) {
                        *sum = sum.add(factor.multiply(value));
                    }
                }
            }
        }
        for (row, sums) in rows.clone().zip(&sums) {
            for (j, &sum) in sums.iter().enumerate().take(width) {
                // SAFETY: inside the panel.
                unsafe {
                    let place = c.at((row * n + column + j) as isize);
                    *place = if depth.start == 0 { sum } else { (*place).add(sum) };
                }
            }
        }
    }
}
