//! `private-gemm-x86`, one block at a time.

use std::ops::Range;
use std::ptr::{null, null_mut};

use ckad_graph::Result;
use private_gemm_x86 as library;

use crate::isa::Isa;
use crate::matmul::Matrices;
use crate::structural::number::Float;
use crate::{Environment, Memory};

/// Depth of a block: the library's own, so that our sums are its sums.
const DEPTH: usize = 512;
/// Columns of the result whose block of B is packed at once: it should stay in L2.
const COLUMNS: usize = 384;
/// Rows that the library takes at a time, at most.
const ROWS: usize = 8;
/// The result is added to what is there.
const ACCUMULATE: usize = 1;

/// Whether the library has kernels for the instruction set.
pub fn has(isa: Isa) -> bool {
    isa != Isa::Scalar
}

/// Scratch bytes of one thread for panels of an n-column product of depth k.
pub fn scratch_bytes(n: usize, k: usize, size: usize) -> usize {
    let depth = k.min(DEPTH);
    (columns_bytes(n, depth, size)) + (ROWS * depth * size).next_multiple_of(64)
}

fn columns_bytes(n: usize, depth: usize, size: usize) -> usize {
    (n.min(COLUMNS).next_multiple_of(96) * depth * size).next_multiple_of(64)
}

type Kernel = unsafe extern "C" fn();

/// Kernel, packing routine, and the rows and columns (of the transposed product) that the kernel computes.
fn kernel(isa: Isa, size: usize, rows: usize) -> (Kernel, Kernel, usize, usize) {
    match (isa, size) {
        (Isa::Avx512, 4) => (library::F32_SIMD512x4[3], library::F32_SIMDpack_512[0], 96, 4),
        (Isa::Avx512, _) if rows > 48 => (library::F64_SIMD512x4[3], library::F64_SIMDpack_512[0], 48, 4),
        (Isa::Avx512, _) => (library::F64_SIMD512x8[7], library::F64_SIMDpack_512[0], 24, 8),
        (_, 4) => (library::F32_SIMD256[3], library::F32_SIMDpack_256[0], 24, 4),
        _ => (library::F64_SIMD256[3], library::F64_SIMDpack_256[0], 12, 4),
    }
}

/// Writes the panel `rows` × `columns` of C.
///
/// # Safety
/// The processor has `isa`; operands are inside their memory; the panel and the scratch are nobody else's.
pub unsafe fn panel<T: Float>(
    isa: Isa,
    matrices: &Matrices<T>,
    rows: Range<usize>,
    columns: Range<usize>,
    scratch: Memory,
    environment: &Environment<'_>,
) -> Result<()> {
    let &Matrices { n, k, a, a_row, a_depth, b, b_depth, b_column, c, .. } = matrices;
    let size = size_of::<T>();
    let bytes = |stride: isize| stride * size as isize;
    let packed_columns = scratch.pointer;
    let packed_rows = scratch.pointer.wrapping_add(columns_bytes(n, k.min(DEPTH), size));
    let one = if size == 4 { u64::from(1f32.to_bits()) } else { 1f64.to_bits() };
    for first in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - first);
        for column in columns.clone().step_by(COLUMNS) {
            environment.check()?;
            let width = COLUMNS.min(columns.end - column);
            let (kernel, pack, mr, nr) = kernel(isa, size, width);
            // In the library's terms: rows are our columns, and its left operand is our right one.
            let left = b.get().wrapping_offset(first as isize * b_depth + column as isize * b_column);
            let right = a.get().wrapping_offset(rows.start as isize * a_row + first as isize * a_depth);
            let pack_left = b_column != 1 || rows.len() > 3 * nr;
            // Where our rows are not contiguous along the depth and several kernels read them, a strip of them is
            // packed; each strip overwrites the last.
            let pack_right = a_depth != 1 && width > mr;
            let block = library::MillikernelInfo {
                lhs_rs: bytes(b_column) * mr as isize,
                packed_lhs_rs: if pack_left { (size * mr * depth) as isize } else { bytes(b_column) * mr as isize },
                rhs_cs: bytes(a_row) * nr as isize,
                packed_rhs_cs: if pack_right { 0 } else { bytes(a_row) * nr as isize },
                micro: library::MicrokernelInfo {
                    flags: if first == 0 { 0 } else { ACCUMULATE },
                    depth,
                    lhs_rs: bytes(b_column),
                    lhs_cs: bytes(b_depth),
                    rhs_rs: bytes(a_depth),
                    rhs_cs: bytes(a_row),
                    alpha: (&raw const one).cast(),
                    ptr: c.get().wrapping_add(rows.start * n + column).cast(),
                    rs: size as isize,
                    cs: (n * size) as isize,
                    row_idx: null_mut::<()>(),
                    col_idx: null_mut::<()>(),
                    diag_ptr: null(),
                    diag_stride: 0,
                },
            };
            // SAFETY: strides, extents and pointers describe parts of the operands and the panel; the packing
            // buffers hold `COLUMNS` rounded up to whole kernels and `ROWS`, times the depth.
            unsafe {
                library::millikernel_colmajor(
                    kernel,
                    pack,
                    mr,
                    nr,
                    size,
                    left.cast(),
                    if pack_left { packed_columns.cast() } else { left.cast() },
                    right.cast(),
                    if pack_right { packed_rows.cast() } else { right.cast() },
                    width,
                    rows.len(),
                    &block,
                    &mut library::Position { row: 0, col: 0 },
                );
            }
        }
    }
    Ok(())
}
