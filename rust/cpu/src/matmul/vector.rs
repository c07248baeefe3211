//! Matrix-vector and dot products, for which the library has no good kernel.
//!
//! The depth is cut into spans of `SPAN`; within a span an element is summed in `LANES` interleaved sums (rows
//! contiguous along the depth) or in chunks of `CHUNK` (rows contiguous along the result), and spans are added in
//! order. This order depends on the shape and the operand's layout alone. Few rows of great depth are split
//! between threads by spans, whose sums then wait in scratch.

use std::ops::Range;

use ckad_graph::Result;

use super::contraction::Contraction;
use super::isa_dispatch::{multiply_add, per_isa};
use super::{Call, Matrices, absorb};
use crate::parallel::{PIECE, Shared, for_each_piece};
use crate::structural::number::Float;

/// Depth of a span.
const SPAN: usize = 8192;
/// Depth after which the sums of the axpy form are added up.
const CHUNK: usize = 512;
/// Rows computed at once.
const TILE: usize = 512;
/// Row pieces from which on the depth is not split.
const ENOUGH: usize = 8;

/// y = M·v; strides in elements, y contiguous.
#[derive(Clone, Copy, Debug)]
struct MatrixVector<T> {
    rows: usize,
    depth: usize,
    matrix: Shared<T>,
    row: isize,
    step: isize,
    vector: Shared<T>,
    vector_step: isize,
    result: Shared<T>,
}

impl<T> MatrixVector<T> {
    fn new(matrices: &Matrices<T>) -> MatrixVector<T> {
        let &Matrices { m, n, k: depth, a, a_row, a_depth, b, b_depth, b_column, c: result } = matrices;
        if n == 1 {
            let (matrix, row, step, vector, vector_step) = (a, a_row, a_depth, b, b_depth);
            return MatrixVector { rows: m, depth, matrix, row, step, vector, vector_step, result };
        }
        let (matrix, row, step, vector, vector_step) = (b, b_column, b_depth, a, a_depth);
        MatrixVector { rows: n, depth, matrix, row, step, vector, vector_step, result }
    }
}

/// Rows of one piece: they hold at least `PIECE` elements where the depth does not.
fn rows_per_piece(depth: usize) -> usize {
    (PIECE / depth.max(1)).max(1).next_multiple_of(64).min(TILE)
}

/// Whether the depth is split between threads, given the number of products.
fn splits_depth(rows: usize, depth: usize, batches: usize) -> bool {
    batches == 1 && depth >= 2 * SPAN && rows.div_ceil(rows_per_piece(depth)) < ENOUGH
}

/// Bytes for the spans' sums, and each thread's bytes for a packed span of the vector.
pub fn scratch_bytes(contraction: &Contraction, size: usize) -> (usize, usize) {
    let (rows, depth) = (contraction.m.max(contraction.n), contraction.k);
    let vector_step = if contraction.n == 1 { contraction.b.depth } else { contraction.a.depth };
    let partial = if splits_depth(rows, depth, contraction.batches()) {
        (rows * depth.div_ceil(SPAN) * size).next_multiple_of(64)
    } else {
        0
    };
    (partial, if vector_step == 1 { 0 } else { SPAN * size })
}

pub fn product<T: Float>(call: &Call<'_>, first: &Matrices<T>) -> Result<()> {
    let contraction = &call.plan.contraction;
    let shape = MatrixVector::new(first);
    if splits_depth(shape.rows, shape.depth, contraction.batches()) {
        by_spans(call, &shape)?;
    } else {
        let per_piece = rows_per_piece(shape.depth);
        let pieces = shape.rows.div_ceil(per_piece);
        let work = per_piece.min(shape.rows) * shape.depth;
        for_each_piece(call.environment, contraction.batches() * pieces, PIECE / work, |range| {
            for item in range {
                let product = MatrixVector::new(&contraction.product_at(first, item / pieces));
                let row = item % pieces * per_piece;
                by_rows(call, &product, row..product.rows.min(row + per_piece))?;
            }
            Ok(())
        })?;
    }
    if !call.absorb {
        return Ok(());
    }
    call.each_product(*first, |matrices| {
        // SAFETY: the products are computed and nobody else's.
        unsafe { absorb::repair(call.isa, &matrices, 0..matrices.m, 0..matrices.n, call.environment) }
    })
}

/// All spans of some rows, one after another.
fn by_rows<T: Float>(call: &Call<'_>, product: &MatrixVector<T>, rows: Range<usize>) -> Result<()> {
    let mut sums = [T::ZERO; TILE];
    let sums = &mut sums[..rows.len()];
    // SAFETY: the piece's rows of the result, which are nobody else's.
    let result = unsafe { std::slice::from_raw_parts_mut(product.result.get().add(rows.start), rows.len()) };
    for first in (0..product.depth).step_by(SPAN) {
        call.environment.check()?;
        let depth = first..product.depth.min(first + SPAN);
        span_of(call, product, rows.clone(), depth, sums)?;
        for (result, &sum) in result.iter_mut().zip(&*sums) {
            *result = if first == 0 { sum } else { result.add(sum) };
        }
    }
    Ok(())
}

/// All spans at once; their sums are added in order afterwards.
fn by_spans<T: Float>(call: &Call<'_>, product: &MatrixVector<T>) -> Result<()> {
    let (rows, spans) = (product.rows, product.depth.div_ceil(SPAN));
    let partial = Shared::new(call.partial::<T>()?);
    let per_piece = rows_per_piece(product.depth);
    let across = rows.div_ceil(per_piece);
    for_each_piece(call.environment, spans * across, 1, |range| {
        for item in range {
            let (span, row) = (item / across, item % across * per_piece);
            let rows_here = row..rows.min(row + per_piece);
            // SAFETY: inside the scratch, a part of its own for each item.
            let sums = unsafe { std::slice::from_raw_parts_mut(partial.get().add(span * rows + row), rows_here.len()) };
            let depth = span * SPAN..product.depth.min((span + 1) * SPAN);
            span_of(call, product, rows_here, depth, sums)?;
        }
        Ok(())
    })?;
    for row in 0..rows {
        // SAFETY: all sums are written; the result is ours.
        unsafe {
            let mut total = *partial.at(row as isize);
            for span in 1..spans {
                total = total.add(*partial.at((span * rows + row) as isize));
            }
            *product.result.at(row as isize) = total;
        }
    }
    Ok(())
}

/// The sums of one span for some rows.
fn span_of<T: Float>(
    call: &Call<'_>,
    product: &MatrixVector<T>,
    rows: Range<usize>,
    depth: Range<usize>,
    sums: &mut [T],
) -> Result<()> {
    // SAFETY: elements of the operands.
    unsafe {
        let matrix = product.matrix.at(rows.start as isize * product.row + depth.start as isize * product.step);
        let mut vector: *const T = product.vector.at(depth.start as isize * product.vector_step);
        if product.vector_step != 1 {
            let scratch = call.environment.thread_scratch(call.plan.shared_bytes(), call.plan.thread_bytes)?;
            let packed = scratch.pointer.cast::<T>();
            for k in 0..depth.len() {
                *packed.add(k) = *vector.offset(k as isize * product.vector_step);
            }
            vector = packed;
        }
        let vector = std::slice::from_raw_parts(vector, depth.len());
        span(call.isa, matrix, product.row, product.step, vector, sums);
    }
    Ok(())
}

per_isa! {
    /// `sums = M·vector` for one span; `matrix` is its first element.
    ///
    /// # Safety
    /// `sums.len()` rows of `vector.len()` elements with these strides.
    span = span_body<T: Float>(matrix: *const T, row: isize, step: isize, vector: &[T], sums: &mut [T])
}

#[inline(always)]
unsafe fn span_body<T: Float, const FUSED: bool>(
    matrix: *const T,
    row: isize,
    step: isize,
    vector: &[T],
    sums: &mut [T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if step == 1 {
            for (i, sum) in sums.iter_mut().enumerate() {
                let line = std::slice::from_raw_parts(matrix.offset(i as isize * row), vector.len());
                *sum = dot::<T, FUSED>(line, vector);
            }
        } else if row == 1 {
            axpy::<T, FUSED>(matrix, step, vector, sums);
        } else {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = strided_dot::<T, FUSED>(matrix.offset(i as isize * row), step, vector);
            }
        }
    }
}

/// Interleaved sums: 256 bytes' worth, added pairwise.
#[inline(always)]
fn dot<T: Float, const FUSED: bool>(a: &[T], b: &[T]) -> T {
    let lanes = const { 256 / size_of::<T>() };
    let mut sums = [T::ZERO; 64];
    let mut first = 0;
    while a.len() - first >= lanes {
        let (a, b) = (&a[first..first + lanes], &b[first..first + lanes]);
        for lane in 0..lanes {
            sums[lane] = multiply_add::<FUSED, T>(a[lane], b[lane], sums[lane]);
        }
        first += lanes;
    }
    let (a, b) = (&a[first..], &b[first..a.len()]);
    for lane in 0..a.len().min(lanes) {
        sums[lane] = multiply_add::<FUSED, T>(a[lane], b[lane], sums[lane]);
    }
    // Rows may be short: then this is most of the work, and widths that the compiler knows make it some instructions.
    if lanes > 32 {
        halve::<T, 32>(&mut sums);
    }
    halve::<T, 16>(&mut sums);
    halve::<T, 8>(&mut sums);
    halve::<T, 4>(&mut sums);
    halve::<T, 2>(&mut sums);
    halve::<T, 1>(&mut sums);
    sums[0]
}

/// Adds the second half of twice as many sums to the first one.
#[inline(always)]
fn halve<T: Float, const WIDTH: usize>(sums: &mut [T; 64]) {
    for lane in 0..WIDTH {
        sums[lane] = sums[lane].add(sums[lane + WIDTH]);
    }
}

#[inline(always)]
unsafe fn strided_dot<T: Float, const FUSED: bool>(line: *const T, step: isize, vector: &[T]) -> T {
    let mut total = T::ZERO;
    for (chunk, vector) in vector.chunks(CHUNK).enumerate() {
        let mut sum = T::ZERO;
        for (k, &factor) in vector.iter().enumerate() {
            // SAFETY: the caller's promise.
            let value = unsafe { *line.offset((chunk * CHUNK + k) as isize * step) };
            sum = multiply_add::<FUSED, T>(factor, value, sum);
        }
        total = total.add(sum);
    }
    total
}

/// Eight scaled lines at a time onto a tile of sums.
#[inline(always)]
unsafe fn axpy<T: Float, const FUSED: bool>(matrix: *const T, step: isize, vector: &[T], sums: &mut [T]) {
    let count = sums.len();
    sums.fill(T::ZERO);
    let mut tile = [T::ZERO; TILE];
    let tile = &mut tile[..count];
    for (chunk, vector) in vector.chunks(CHUNK).enumerate() {
        tile.fill(T::ZERO);
        // SAFETY: the caller's promise.
        let line =
            |k: usize| unsafe { std::slice::from_raw_parts(matrix.offset((chunk * CHUNK + k) as isize * step), count) };
        let whole = vector.len() / 8 * 8;
        for k in (0..whole).step_by(8) {
            let (l0, l1, l2, l3) = (line(k), line(k + 1), line(k + 2), line(k + 3));
            let (l4, l5, l6, l7) = (line(k + 4), line(k + 5), line(k + 6), line(k + 7));
            let v = &vector[k..k + 8];
            for (j, place) in tile.iter_mut().enumerate() {
                let mut sum = *place;
                sum = multiply_add::<FUSED, T>(v[0], l0[j], sum);
                sum = multiply_add::<FUSED, T>(v[1], l1[j], sum);
                sum = multiply_add::<FUSED, T>(v[2], l2[j], sum);
                sum = multiply_add::<FUSED, T>(v[3], l3[j], sum);
                sum = multiply_add::<FUSED, T>(v[4], l4[j], sum);
                sum = multiply_add::<FUSED, T>(v[5], l5[j], sum);
                sum = multiply_add::<FUSED, T>(v[6], l6[j], sum);
                sum = multiply_add::<FUSED, T>(v[7], l7[j], sum);
                *place = sum;
            }
        }
        for (k, &factor) in vector.iter().enumerate().skip(whole) {
            for (place, &value) in tile.iter_mut().zip(line(k)) {
                *place = multiply_add::<FUSED, T>(factor, value, *place);
            }
        }
        for (sum, &part) in sums.iter_mut().zip(&*tile) {
            *sum = sum.add(part);
        }
    }
}
