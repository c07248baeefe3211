//! `gemm`, for processors that `private-gemm-x86` does not know.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ckad_graph::Result;

use crate::isa::Isa;
use crate::matmul::Matrices;
use crate::structural::number::Float;
use crate::{Environment, Memory};

/// Depth of a block, after which the cancel flag is looked at.
const DEPTH: usize = 2048;

/// Whether the library has kernels for the instruction set: it chooses them itself.
pub fn has(_isa: Isa) -> bool {
    true
}

/// The library packs into a buffer of its own, one per thread, of about the size of the L2 cache.
pub fn scratch_bytes(_m: usize, _n: usize, _k: usize, _a_depth: isize, _size: usize) -> usize {
    0
}

/// Writes the panel `rows` × `columns` of C.
///
/// # Safety
/// Operands are inside their memory; the panel is nobody else's.
pub unsafe fn panel<T: Float>(
    _isa: Isa,
    matrices: &Matrices<T>,
    rows: Range<usize>,
    columns: Range<usize>,
    _packed: Option<&AtomicBool>,
    _scratch: Memory,
    environment: &Environment<'_>,
) -> Result<()> {
    let &Matrices { n, k, a, a_row, a_depth, b, b_depth, b_column, c, .. } = matrices;
    let one = T::from_index(1);
    for first in (0..k).step_by(DEPTH) {
        environment.check()?;
        let start = first as isize;
        // SAFETY: strides and extents describe parts of the operands and the panel.
        unsafe {
            gemm::gemm(
                rows.len(),
                columns.len(),
                DEPTH.min(k - first),
                c.at((rows.start * n + columns.start) as isize),
                1,
                n as isize,
                first > 0,
                a.at(rows.start as isize * a_row + start * a_depth),
                a_depth,
                a_row,
                b.at(start * b_depth + columns.start as isize * b_column),
                b_column,
                b_depth,
                one,
                one,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
    Ok(())
}
