//! `flat[start + Σ i·stride] += value[i…]`, where positions may repeat: the transpose of every strided read.
//!
//! What is added to one element is added in an order that the shape and the strides fix: axes are taken by
//! falling stride, and along an axis of stride 0 (a broadcast read) the values are summed pairwise first. Axes
//! whose positions never meet are split between threads.

use std::cmp::Reverse;

use ckad_graph::Result;

use super::array::{Array, packed_strides};
use super::number::Number;
use super::strided::{self, Axis, Mover, Odometer, axes, check_reach};
use super::views::{check_rank, copy_base};
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

pub fn strided_add(
    strides: &[i64],
    start: i64,
    base: &Array<'_>,
    value: &Array<'_>,
    out: &Array<'_>,
    mover: &impl Mover,
) -> Result<()> {
    copy_base(base, out, mover)?;
    if value.elements() == 0 {
        return Ok(());
    }
    check_rank(strides, value)?;
    check_reach("strided_add", start, value.shape, strides, out.elements())?;
    let target = out.pointer_mut::<u8>().wrapping_offset(start as isize * out.dtype.size() as isize);
    let axes = match value.elements() {
        1 => Vec::new(),
        _ => {
            let strides: Vec<isize> = strides.iter().map(|&stride| stride as isize).collect();
            axes(value.shape, &strides, &packed_strides(value.shape))
        }
    };
    // SAFETY: every position was checked.
    unsafe { mover.add(out.dtype, axes, target, value.pointer()) }
}

/// The order in which elements are added.
pub fn in_adding_order(axes: &mut Vec<Axis>) {
    axes.sort_by_key(|axis| (Reverse(axis.target.unsigned_abs()), axis.extent));
    strided::merge(axes);
}

/// # Safety
/// Every position of the walk is inside both arrays, which do not overlap.
pub unsafe fn add<T: Number>(
    environment: &Environment<'_>,
    mut axes: Vec<Axis>,
    target: *mut T,
    source: *const T,
) -> Result<()> {
    if axes.is_empty() {
        // SAFETY: one element, inside both by the caller's promise.
        unsafe { *target = (*target).add(*source) };
        return Ok(());
    }
    in_adding_order(&mut axes);
    let separable = separable(&axes);
    let (target, source) = (Shared::new(target), Shared::read_only(source));

    // The innermost loops: over the axes of stride 0, then over the smallest stride.
    let summed = axes.split_off(axes.iter().position(|axis| axis.target == 0).unwrap_or(axes.len()));
    let inner = axes.pop().unwrap_or(Axis { extent: 1, target: 1, source: 1 });
    let outer = axes;
    let separate: usize = outer.iter().take(separable).map(|axis| axis.extent).product();
    let together: usize = outer.iter().skip(separable).map(|axis| axis.extent).product();
    let depth: usize = summed.iter().map(|axis| axis.extent).product();
    // A row is cut where all its positions differ; the stack holds one block's sums.
    let block = if summed.is_empty() { PIECE } else { BLOCK };
    let cut = if separable > outer.len() { block.min(inner.extent) } else { inner.extent };
    let per_row = inner.extent.div_ceil(cut);
    let work = together * cut * depth;

    for_each_piece(environment, separate * per_row, PIECE / work.max(1), |range| {
        for item in range {
            let first = (item % per_row) * cut;
            let length = cut.min(inner.extent - first);
            let mut position = Odometer::at(&outer, (item / per_row) * together);
            for turn in 0..together {
                if turn % 64 == 63 {
                    environment.check()?;
                }
                // Pieces of a long row, for the flag's sake.
                for begin in (0..length).step_by(block) {
                    let count = block.min(length - begin);
                    let offset = (first + begin) as isize;
                    // SAFETY: positions of the walk. Items differ in separable axes (or in the block of an inner axis
                    // that is one), and there different indices are different positions.
                    unsafe {
                        let target = target.at(position.target + offset * inner.target);
                        let source = source.at(position.source + offset * inner.source);
                        if summed.is_empty() {
                            add_row(target, inner.target, source, inner.source, count);
                        } else {
                            add_sums(environment, target, inner, source, &summed, count)?;
                        }
                    }
                }
                position.advance();
            }
        }
        Ok(())
    })
}

/// How many of the leading axes (by falling stride) reach elements of their own at each index.
fn separable(axes: &[Axis]) -> usize {
    let mut reach: u128 = axes.iter().map(span).sum();
    for (place, axis) in axes.iter().enumerate() {
        reach -= span(axis);
        if (axis.target.unsigned_abs() as u128) <= reach || axis.target == 0 {
            return place;
        }
    }
    axes.len()
}

fn span(axis: &Axis) -> u128 {
    (axis.extent as u128 - 1) * axis.target.unsigned_abs() as u128
}

/// # Safety
/// `length` positions inside both arrays, which do not overlap.
pub unsafe fn add_row<T: Number>(target: *mut T, step: isize, source: *const T, source_step: isize, length: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if (step, source_step) == (1, 1) {
            let target = std::slice::from_raw_parts_mut(target, length);
            let source = std::slice::from_raw_parts(source, length);
            for (target, &source) in target.iter_mut().zip(source) {
                *target = target.add(source);
            }
            return;
        }
        for i in 0..length as isize {
            let place = target.offset(i * step);
            *place = (*place).add(*source.offset(i * source_step));
        }
    }
}

/// Columns summed at once.
const BLOCK: usize = 64;
/// Rows added one after another at the leaves of the pairwise tree.
const LEAF: usize = 32;

/// Adds to each of at most `BLOCK` targets the pairwise sum over the `summed` axes.
///
/// # Safety
/// All positions inside both arrays, which do not overlap.
unsafe fn add_sums<T: Number>(
    environment: &Environment<'_>,
    target: *mut T,
    inner: Axis,
    source: *const T,
    summed: &[Axis],
    count: usize,
) -> Result<()> {
    let total: usize = summed.iter().map(|axis| axis.extent).product();
    let mut position = Odometer::at(summed, 0);
    // SAFETY: the caller's promise.
    let sums = unsafe {
        if total <= LEAF {
            leaf(&mut position, source, inner.source, total, count)
        } else {
            tree(environment, &mut position, source, inner.source, total, count)?
        }
    };
    for (column, &sum) in sums.iter().enumerate().take(count) {
        // SAFETY: the caller's promise.
        unsafe {
            let place = target.offset(column as isize * inner.target);
            *place = (*place).add(sum);
        }
    }
    Ok(())
}

/// Sums of the next `rows` rows, one after another.
///
/// # Safety
/// Their `count` columns are inside the source.
unsafe fn leaf<T: Number>(
    position: &mut Odometer<'_>,
    source: *const T,
    step: isize,
    rows: usize,
    count: usize,
) -> [T; BLOCK] {
    let mut sums = [T::ZERO; BLOCK];
    for row in 0..rows {
        for (column, sum) in sums.iter_mut().enumerate().take(count) {
            // SAFETY: the caller's promise.
            let value = unsafe { *source.offset(position.source + column as isize * step) };
            *sum = if row == 0 { value } else { sum.add(value) };
        }
        position.advance();
    }
    sums
}

/// Pairwise sums of `total` rows over leaves of `LEAF`.
///
/// # Safety
/// As for `leaf`.
unsafe fn tree<T: Number>(
    environment: &Environment<'_>,
    position: &mut Odometer<'_>,
    source: *const T,
    step: isize,
    total: usize,
    count: usize,
) -> Result<[T; BLOCK]> {
    let join = |left: &[T; BLOCK], right: &mut [T; BLOCK]| {
        for (right, left) in right.iter_mut().zip(left) {
            *right = left.add(*right);
        }
    };
    // Sums of 2^level leaves that wait for their partners: a binary counter. 2^48 elements fill no memory.
    let mut waiting = [[T::ZERO; BLOCK]; 44];
    let leaves = total.div_ceil(LEAF);
    for nth in 0..leaves {
        if nth % 1024 == 1023 {
            environment.check()?;
        }
        // SAFETY: the caller's promise.
        let mut sums = unsafe { leaf(position, source, step, LEAF.min(total - nth * LEAF), count) };
        let mut level = 0;
        while (nth >> level) & 1 == 1 {
            join(&waiting[level], &mut sums);
            level += 1;
        }
        waiting[level] = sums;
    }
    let lowest = leaves.trailing_zeros() as usize;
    let mut sums = waiting[lowest];
    for (level, waiting) in waiting.iter().enumerate().skip(lowest + 1) {
        if (leaves >> level) & 1 == 1 {
            join(waiting, &mut sums);
        }
    }
    Ok(sums)
}
