//! Indices of a stable ascending sort along an axis, NaN last. Ties are broken by the index itself, so that an
//! in-place unstable sort is stable. Long lanes are sorted in runs and merged; both are split between threads
//! at places that the data and the length fix.

use std::cmp::Ordering;

use ckad_graph::{DType, Error, Result};

use super::array::{Array, around};
use super::number::{Number, with_dtype};
use crate::parallel::{PIECE, Shared, for_each_piece};
use crate::{Environment, Memory};

/// Length of the runs that are sorted before merging.
const RUN: usize = 1 << 13;

/// Scratch bytes: two lanes of indices, shared for long lanes, one for each thread for short ones.
pub fn scratch_bytes(axis: usize, shape: &[usize], threads: usize) -> usize {
    match around(shape, axis) {
        Ok((_, extent, inner)) if extent > RUN => lane_bytes(extent) * if inner == 1 { 1 } else { 2 },
        Ok((_, extent, inner)) if inner > 1 => lane_bytes(extent) * threads,
        _ => 0,
    }
}

fn lane_bytes(extent: usize) -> usize {
    (extent * size_of::<i64>()).next_multiple_of(64)
}

pub fn argsort(axis: usize, x: &Array<'_>, out: &Array<'_>, environment: &Environment<'_>) -> Result<()> {
    let (outer, extent, inner) = around(x.shape, axis)?;
    if x.elements() != out.elements() || out.dtype != DType::I64 {
        return Err(Error::internal("argsort", "the result is int64 of the operand's shape"));
    }
    if x.elements() == 0 {
        return Ok(());
    }
    let lanes = outer * inner;
    let first = |lane: usize| lane / inner * extent * inner + lane % inner;
    let target = Shared::new(out.pointer_mut::<i64>());
    with_dtype!(x.dtype, T => {
        let source = Shared::read_only(x.pointer::<T>());
        let lane_at = |lane: usize| Lane { source: Shared::new(source.get().wrapping_add(first(lane))), step: inner };
        if extent > RUN {
            let shared = environment.shared_scratch(lane_bytes(extent) * if inner == 1 { 1 } else { 2 })?;
            for lane in 0..lanes {
                // SAFETY: the scratch holds the lane once, or twice where the result's lane is not contiguous.
                unsafe {
                    let spare = shared.pointer.cast::<i64>();
                    let target = target.get().add(first(lane));
                    let room = if inner == 1 { target } else { spare.add(lane_bytes(extent) / size_of::<i64>()) };
                    let sorted = merge_sort(lane_at(lane), extent, room, spare, environment)?;
                    for_each_piece(environment, extent, PIECE, {
                        let (sorted, target) = (Shared::new(sorted), Shared::new(target));
                        move |range| {
                            if sorted.get() != target.get() {
                                for k in range {
                                    *target.at((k * inner) as isize) = *sorted.at(k as isize);
                                }
                            }
                            Ok(())
                        }
                    })?;
                }
            }
            return Ok(());
        }
        for_each_piece(environment, lanes, PIECE / 16 / extent, |range| {
            for lane in range {
                let values = lane_at(lane);
                if inner == 1 {
                    // SAFETY: each lane of the result is one piece's.
                    let indices = unsafe { std::slice::from_raw_parts_mut(target.get().add(first(lane)), extent) };
                    sort_run(values, indices, 0);
                    continue;
                }
                let Memory { pointer, .. } = environment.thread_scratch(0, lane_bytes(extent))?;
                // SAFETY: this thread's scratch holds a lane; nothing else runs on the thread meanwhile.
                let indices = unsafe { std::slice::from_raw_parts_mut(pointer.cast::<i64>(), extent) };
                sort_run(values, indices, 0);
                for (k, &index) in indices.iter().enumerate() {
                    // SAFETY: an element of this lane.
                    unsafe { *target.at((first(lane) + k * inner) as isize) = index };
                }
            }
            Ok(())
        })
    })
}

/// The elements that are sorted.
#[derive(Debug)]
struct Lane<T> {
    source: Shared<T>,
    step: usize,
}

impl<T> Clone for Lane<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Lane<T> {}

impl<T: Number> Lane<T> {
    #[inline(always)]
    fn value(self, index: i64) -> T {
        // SAFETY: indices come from 0..extent, the lane's elements.
        unsafe { *self.source.at(index as isize * self.step as isize) }
    }

    /// The order of the elements at two indices; never equal for different indices.
    #[inline(always)]
    fn compare(self, i: i64, j: i64) -> Ordering {
        let (a, b) = (self.value(i), self.value(j));
        if a.less(b) {
            Ordering::Less
        } else if b.less(a) {
            Ordering::Greater
        } else {
            a.is_nan().cmp(&b.is_nan()).then(i.cmp(&j))
        }
    }
}

/// Fills `indices` with `first..` in sorted order.
fn sort_run<T: Number>(lane: Lane<T>, indices: &mut [i64], first: usize) {
    for (place, index) in indices.iter_mut().zip(first..) {
        *place = index as i64;
    }
    indices.sort_unstable_by(|&i, &j| lane.compare(i, j));
}

/// Sorts the indices `0..extent` into `a` or `b`, whichever is returned.
///
/// # Safety
/// Both hold `extent` indices; nobody else uses them meanwhile.
unsafe fn merge_sort<T: Number>(
    lane: Lane<T>,
    extent: usize,
    a: *mut i64,
    b: *mut i64,
    environment: &Environment<'_>,
) -> Result<*mut i64> {
    let (mut from, mut to) = (Shared::new(a), Shared::new(b));
    for_each_piece(environment, extent, RUN, |range| {
        // SAFETY: the pieces are disjoint.
        let run = unsafe { std::slice::from_raw_parts_mut(from.get().add(range.start), range.len()) };
        sort_run(lane, run, range.start);
        Ok(())
    })?;
    let mut run = RUN;
    while run < extent {
        for_each_piece(environment, extent, 2 * RUN, |range| {
            // A piece of 2·RUN results never straddles two pairs of runs.
            let start = range.start / (2 * run) * (2 * run);
            let middle = extent.min(start + run);
            let end = extent.min(middle + run);
            // SAFETY: this pass only reads `from`; pieces write disjoint parts of `to`.
            unsafe {
                let left = std::slice::from_raw_parts(from.get().add(start), middle - start);
                let right = std::slice::from_raw_parts(from.get().add(middle), end - middle);
                let target = std::slice::from_raw_parts_mut(to.get().add(range.start), range.len());
                merge(lane, left, right, range.start - start, target);
            }
            Ok(())
        })?;
        std::mem::swap(&mut from, &mut to);
        run *= 2;
    }
    Ok(from.get())
}

/// Elements `skip..` of the merge of two sorted runs, as many as `target` takes.
fn merge<T: Number>(lane: Lane<T>, left: &[i64], right: &[i64], skip: usize, target: &mut [i64]) {
    // How many of the first `skip` come from the left: binary search along the merge's diagonal.
    let (mut low, mut high) = (skip.saturating_sub(right.len()), skip.min(left.len()));
    while low < high {
        let middle = (low + high) / 2;
        if lane.compare(left[middle], right[skip - middle - 1]) == Ordering::Less {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let (mut i, mut j) = (low, skip - low);
    for place in target {
        let from_left = j == right.len() || (i < left.len() && lane.compare(left[i], right[j]) == Ordering::Less);
        *place = if from_left { left[i] } else { right[j] };
        if from_left { i += 1 } else { j += 1 }
    }
}
