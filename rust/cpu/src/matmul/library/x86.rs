//! `private-gemm-x86`, one block at a time.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

use ckad_graph::Result;
use private_gemm_x86 as library;

use crate::isa::Isa;
use crate::matmul::Matrices;
use crate::matmul::panels::DEPTH_BLOCK;
use crate::structural::number::Float;
use crate::{Environment, Memory};

/// Columns of the result whose block of B is packed at once: it should stay in L2.
const COLUMNS: usize = 384;
/// Rows of the result whose part of A is packed at once, where it has to be: beside the block of B in L2.
const ROWS: usize = 128;
/// The result is added to what is there.
const ACCUMULATE: usize = 1;

/// Whether the library has kernels for the instruction set.
pub fn has(isa: Isa) -> bool {
    isa != Isa::Scalar
}

/// Scratch bytes of one thread for panels of an (m,k)·(k,n) product whose A steps by `a_depth`.
pub fn scratch_bytes(m: usize, n: usize, k: usize, a_depth: isize, size: usize) -> usize {
    let depth = k.min(DEPTH_BLOCK);
    columns_bytes(n, depth, size)
        + if a_depth == 1 { 0 } else { m.min(ROWS).next_multiple_of(KERNEL_ROWS) * depth * size }
}

/// The columns and rows that any kernel takes at a time divide these.
const KERNEL_COLUMNS: usize = 48;
const KERNEL_ROWS: usize = 8;

fn columns_bytes(n: usize, depth: usize, size: usize) -> usize {
    (n.min(COLUMNS).next_multiple_of(KERNEL_COLUMNS) * depth * size).next_multiple_of(64)
}

type Kernel = unsafe extern "C" fn();

/// Kernel, packing routine, and the rows and columns (of the transposed product) that the kernel computes.
fn kernel(isa: Isa, size: usize, rows: usize) -> (Kernel, Kernel, usize, usize) {
    match (isa, size) {
        // Of our product half the columns and twice the rows of the library's choice: B comes half as often from L2.
        (Isa::Avx512, 4) => (library::F32_SIMD512x8[7], library::F32_SIMDpack_512[0], 48, 8),
        (Isa::Avx512, _) if rows > 48 => (library::F64_SIMD512x4[3], library::F64_SIMDpack_512[0], 48, 4),
        (Isa::Avx512, _) => (library::F64_SIMD512x8[7], library::F64_SIMDpack_512[0], 24, 8),
        (_, 4) => (library::F32_SIMD256[3], library::F32_SIMDpack_256[0], 24, 4),
        _ => (library::F64_SIMD256[3], library::F64_SIMDpack_256[0], 12, 4),
    }
}

/// Writes the panel `rows` × `columns` of C. `packed` says, and learns, whether the scratch holds B packed.
///
/// # Safety
/// The processor has `isa`; operands are inside their memory; the panel and the scratch are nobody else's. Where
/// `packed` is true, the scratch is as an earlier call for the same columns and the same B has left it.
pub unsafe fn panel<T: Float>(
    isa: Isa,
    matrices: &Matrices<T>,
    rows: Range<usize>,
    columns: Range<usize>,
    packed: Option<&AtomicBool>,
    scratch: Memory,
    environment: &Environment<'_>,
) -> Result<()> {
    let &Matrices { n, k, a, a_row, a_depth, b, b_depth, b_column, c, .. } = matrices;
    let size = size_of::<T>();
    let bytes = |stride: isize| stride * size as isize;
    let packed_columns = scratch.pointer;
    let packed_rows = scratch.pointer.wrapping_add(columns_bytes(n, k.min(DEPTH_BLOCK), size));
    // More than one block of B lie in the scratch one after the other.
    let packed = packed.filter(|_| k <= DEPTH_BLOCK && columns.len() <= COLUMNS);
    let one = if size == 4 { u64::from(1f32.to_bits()) } else { 1f64.to_bits() };
    for first in (0..k).step_by(DEPTH_BLOCK) {
        let depth = DEPTH_BLOCK.min(k - first);
        for column in columns.clone().step_by(COLUMNS) {
            environment.check()?;
            let width = COLUMNS.min(columns.end - column);
            let (kernel, pack, mr, nr) = kernel(isa, size, width);
            // In the library's terms: rows are our columns, and its left operand is our right one.
            let left = b.get().wrapping_offset(first as isize * b_depth + column as isize * b_column);
            let pack_left = b_column != 1 || rows.len() > 3 * nr;
            // Rows that are not contiguous along the depth are a cache line per number: they are packed first, where
            // they are read often enough.
            let pack_right = a_depth != 1 && width > mr / 2;
            let height = if pack_right { ROWS } else { rows.len() };
            for row in rows.clone().step_by(height) {
                let is_packed = row != rows.start || packed.is_some_and(|packed| packed.load(Ordering::Relaxed));
                let rows = row..rows.end.min(row + height);
                let source = a.get().wrapping_offset(row as isize * a_row + first as isize * a_depth);
                let (right, right_depth, right_row) = if pack_right {
                    // SAFETY: the rows and depth are inside A; the scratch holds `ROWS` (whole strips) times the depth.
                    unsafe { pack_rows(nr, rows.len(), depth, source, a_row, a_depth, packed_rows.cast()) };
                    (packed_rows.cast(), nr as isize, 1)
                } else {
                    (source, a_depth, a_row)
                };
                let strip = if pack_right { depth as isize } else { a_row } * nr as isize;
                let block = library::MillikernelInfo {
                    lhs_rs: bytes(b_column) * mr as isize,
                    packed_lhs_rs: if pack_left { (size * mr * depth) as isize } else { bytes(b_column) * mr as isize },
                    rhs_cs: bytes(strip),
                    packed_rhs_cs: bytes(strip),
                    micro: library::MicrokernelInfo {
                        flags: if first == 0 { 0 } else { ACCUMULATE },
                        depth,
                        lhs_rs: bytes(b_column),
                        lhs_cs: bytes(b_depth),
                        rhs_rs: bytes(right_depth),
                        rhs_cs: bytes(right_row),
                        alpha: (&raw const one).cast(),
                        ptr: c.get().wrapping_add(row * n + column).cast(),
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
                        // Rows after the first find B packed, and so do panels after the first.
                        if pack_left && is_packed { null() } else { left.cast() },
                        if pack_left { packed_columns.cast() } else { left.cast() },
                        right.cast(),
                        right.cast(),
                        width,
                        rows.len(),
                        &block,
                        &mut library::Position { row: 0, col: 0 },
                    );
                }
                if let Some(packed) = packed.filter(|_| pack_left) {
                    packed.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}

/// Copies `rows` of A into strips of `nr` rows, each strip in the order (depth, row) in which a kernel reads it.
///
/// # Safety
/// The rows, `depth` long, are readable from `source`; `target` has room for them, `rows` rounded up to strips.
unsafe fn pack_rows<T: Float>(
    nr: usize,
    rows: usize,
    depth: usize,
    source: *const T,
    row_stride: isize,
    depth_stride: isize,
    target: *mut T,
) {
    /// Steps of the depth that are read before they are written, so that both sides see whole cache lines in order.
    const STEPS: usize = 4;
    /// Steps of the depth that are fetched ahead: the processor does not foresee them by itself.
    const AHEAD: usize = 32;
    let mut lines = [[T::ZERO; ROWS]; STEPS];
    for first in (0..depth).step_by(STEPS) {
        let steps = STEPS.min(depth - first);
        for (step, line) in lines.iter_mut().enumerate().take(steps) {
            // SAFETY: a step of the rows, inside the source; fetching ahead reads nothing.
            unsafe {
                let from = source.offset((first + step) as isize * depth_stride);
                if row_stride == 1 {
                    let ahead = from.wrapping_offset(AHEAD as isize * depth_stride);
                    for row in (0..rows).step_by(64 / size_of::<T>()) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(row).cast());
                    }
                    std::ptr::copy_nonoverlapping(from, line.as_mut_ptr(), rows);
                } else {
                    for (row, value) in line.iter_mut().enumerate().take(rows) {
                        *value = *from.offset(row as isize * row_stride);
                    }
                }
            }
        }
        for row in (0..rows).step_by(nr) {
            for (step, line) in lines.iter().enumerate().take(steps) {
                // SAFETY: the strip has room for `depth` times `nr`; the line for as many after its last row as `nr`.
                unsafe {
                    let from = line.as_ptr().add(row);
                    let to = target.add(row * depth + (first + step) * nr);
                    if nr == 4 {
                        to.cast::<[T; 4]>().write_unaligned(from.cast::<[T; 4]>().read_unaligned());
                    } else {
                        to.cast::<[T; 8]>().write_unaligned(from.cast::<[T; 8]>().read_unaligned());
                    }
                }
            }
        }
    }
}
