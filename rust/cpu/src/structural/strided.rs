//! The walk over two strided arrays at once, and the copy built on it: transposes, broadcasts, slices, joins and
//! paddings are all this one copy with other strides.

use ckad_graph::{DType, Error, Result};

use super::number::{with_dtype, with_size};
use super::strided_add;
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

/// Who moves elements: at once, or noting down what is to be moved (`repeated`).
pub trait Mover {
    /// `target[walk] = source[walk]` for elements of `dtype`'s size.
    ///
    /// # Safety
    /// Every position of the walk is inside both arrays, target positions are distinct and not among the source's.
    unsafe fn copy(&self, dtype: DType, axes: Vec<Axis>, target: *mut u8, source: *const u8) -> Result<()>;

    /// `target[walk] += source[walk]`, where positions may repeat.
    ///
    /// # Safety
    /// Every position of the walk is inside both arrays, which do not overlap.
    unsafe fn add(&self, dtype: DType, axes: Vec<Axis>, target: *mut u8, source: *const u8) -> Result<()>;
}

impl Mover for Environment<'_> {
    unsafe fn copy(&self, dtype: DType, axes: Vec<Axis>, target: *mut u8, source: *const u8) -> Result<()> {
        // SAFETY: the caller's promises.
        unsafe { copy(self, dtype, axes, target, source) }
    }

    unsafe fn add(&self, dtype: DType, axes: Vec<Axis>, target: *mut u8, source: *const u8) -> Result<()> {
        // SAFETY: the caller's promises.
        with_dtype!(dtype, T => unsafe { strided_add::add::<T>(self, axes, target.cast(), source.cast()) })
    }
}

/// One axis of a walk; strides in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Axis {
    pub extent: usize,
    pub target: isize,
    pub source: isize,
}

/// The walk over `shape` with these strides, outermost axis first.
pub fn axes(shape: &[usize], target: &[isize], source: &[isize]) -> Vec<Axis> {
    shape
        .iter()
        .zip(target.iter().zip(source))
        .map(|(&extent, (&target, &source))| Axis { extent, target, source })
        .collect()
}

/// Drops axes of one element and joins those that are one in both arrays. The order of the elements stays.
pub fn merge(axes: &mut Vec<Axis>) {
    axes.retain(|axis| axis.extent != 1);
    let mut kept = 0;
    for next in 1..axes.len() {
        let (outer, inner) = (axes[kept], axes[next]);
        let span = inner.extent as isize;
        if outer.target == inner.target * span && outer.source == inner.source * span {
            axes[kept] = Axis { extent: outer.extent * inner.extent, ..inner };
        } else {
            kept += 1;
            axes[kept] = inner;
        }
    }
    axes.truncate(kept + 1);
}

/// Target positions of a copy are distinct, so the order is free: the one in which the target's memory lies.
pub fn in_memory_order(axes: &mut Vec<Axis>) {
    axes.sort_by_key(|axis| std::cmp::Reverse(axis.target.unsigned_abs()));
    merge(axes);
}

/// A position in a walk, in C order of its axes.
pub struct Odometer<'a> {
    axes: &'a [Axis],
    index: Vec<usize>,
    pub target: isize,
    pub source: isize,
}

impl<'a> Odometer<'a> {
    /// The position of element `flat`.
    pub fn at(axes: &'a [Axis], mut flat: usize) -> Odometer<'a> {
        let mut odometer = Odometer { axes, index: vec![0; axes.len()], target: 0, source: 0 };
        for (place, axis) in odometer.index.iter_mut().zip(axes).rev() {
            *place = flat % axis.extent;
            flat /= axis.extent;
            odometer.target += *place as isize * axis.target;
            odometer.source += *place as isize * axis.source;
        }
        odometer
    }

    /// The index along axis `axis`.
    pub fn index(&self, axis: usize) -> usize {
        self.index[axis]
    }

    #[inline]
    pub fn advance(&mut self) {
        for (place, axis) in self.index.iter_mut().zip(self.axes).rev() {
            *place += 1;
            self.target += axis.target;
            self.source += axis.source;
            if *place < axis.extent {
                return;
            }
            *place = 0;
            self.target -= axis.extent as isize * axis.target;
            self.source -= axis.extent as isize * axis.source;
        }
    }
}

/// An axis cut into blocks: the axis over the blocks.
fn blocks(axis: Axis, block: usize) -> Axis {
    let step = block as isize;
    Axis { extent: axis.extent.div_ceil(block), target: axis.target * step, source: axis.source * step }
}

/// An error unless every position `start + Σ i·stride` lies in an array of `elements`.
pub fn check_reach(op: &str, start: i64, shape: &[usize], strides: &[i64], elements: usize) -> Result<()> {
    if shape.contains(&0) {
        return Ok(());
    }
    let (mut least, mut greatest) = (i128::from(start), i128::from(start));
    for (&extent, &stride) in shape.iter().zip(strides) {
        let span = (extent as i128 - 1) * i128::from(stride);
        least += span.min(0);
        greatest += span.max(0);
    }
    if least < 0 || greatest >= elements as i128 {
        let what = format!("positions {least} to {greatest} of a memory of {elements} elements");
        return Err(Error::internal(op, what));
    }
    Ok(())
}

/// `target[walk] = source[walk]` for elements of `dtype`'s size, in parallel.
///
/// # Safety
/// Every position of the walk is inside both arrays, target positions are distinct and not among the source's.
pub unsafe fn copy(
    environment: &Environment<'_>,
    dtype: DType,
    axes: Vec<Axis>,
    target: *mut u8,
    source: *const u8,
) -> Result<()> {
    // SAFETY: the caller's promises.
    with_size!(dtype, T => unsafe { copy_elements::<T>(environment, axes, target.cast(), source.cast()) })
}

/// # Safety
/// As for `copy`.
pub unsafe fn copy_elements<T: Copy + Send + Sync>(
    environment: &Environment<'_>,
    mut axes: Vec<Axis>,
    target: *mut T,
    source: *const T,
) -> Result<()> {
    if axes.iter().any(|axis| axis.extent == 0) {
        return Ok(());
    }
    in_memory_order(&mut axes);
    let Some(inner) = axes.pop() else {
        // SAFETY: one element, inside both by the caller's promise.
        unsafe { *target = *source };
        return Ok(());
    };
    let (target, source) = (Shared::new(target), Shared::read_only(source));
    let partner = (0..axes.len())
        .filter(|&axis| axes[axis].source != 0 && axes[axis].source.unsigned_abs() < inner.source.unsigned_abs())
        .min_by_key(|&axis| axes[axis].source.unsigned_abs());
    match partner {
        // SAFETY: as promised for the whole walk.
        Some(partner) => unsafe { transpose(environment, axes, partner, inner, target, source) },
        // SAFETY: as above.
        None => unsafe { copy_rows(environment, axes, inner, target, source) },
    }
}

/// Row after row along `inner`.
unsafe fn copy_rows<T: Copy + Send + Sync>(
    environment: &Environment<'_>,
    mut outer: Vec<Axis>,
    inner: Axis,
    target: Shared<T>,
    source: Shared<T>,
) -> Result<()> {
    let block = inner.extent.min(PIECE);
    outer.push(blocks(inner, block));
    let (outer, last) = (&outer, outer.len() - 1);
    let items = outer.iter().map(|axis| axis.extent).product();
    for_each_piece(environment, items, PIECE / block, |range| {
        let mut position = Odometer::at(outer, range.start);
        for _ in range {
            let length = block.min(inner.extent - position.index(last) * block);
            // SAFETY: positions of the walk; pieces write distinct ones.
            unsafe {
                copy_row(target.at(position.target), inner.target, source.at(position.source), inner.source, length);
            }
            position.advance();
        }
        Ok(())
    })
}

/// # Safety
/// As for `copy`.
#[inline(always)]
pub unsafe fn copy_row<T: Copy>(
    target: *mut T,
    target_step: isize,
    source: *const T,
    source_step: isize,
    length: usize,
) {
    // SAFETY: by the caller's promise all positions are inside and the arrays do not overlap.
    unsafe {
        match (target_step, source_step) {
            (1, 1) => std::ptr::copy_nonoverlapping(source, target, length),
            (1, 0) => std::slice::from_raw_parts_mut(target, length).fill(*source),
            (1, _) => {
                for i in 0..length as isize {
                    *target.offset(i) = *source.offset(i * source_step);
                }
            }
            _ => {
                for i in 0..length as isize {
                    *target.offset(i * target_step) = *source.offset(i * source_step);
                }
            }
        }
    }
}

/// In square tiles, where the source's memory runs along another axis (`partner`) than the target's.
unsafe fn transpose<T: Copy + Send + Sync>(
    environment: &Environment<'_>,
    mut outer: Vec<Axis>,
    partner: usize,
    inner: Axis,
    target: Shared<T>,
    source: Shared<T>,
) -> Result<()> {
    // A tile's rows and columns touch as many cache lines each as there are elements in two lines.
    let side = (128 / size_of::<T>()).min(32);
    let crossing = outer.remove(partner);
    outer.push(blocks(crossing, side));
    outer.push(blocks(inner, side));
    let (outer, last) = (&outer, outer.len() - 1);
    let items = outer.iter().map(|axis| axis.extent).product();
    for_each_piece(environment, items, PIECE / (side * side), |range| {
        let mut position = Odometer::at(outer, range.start);
        for _ in range {
            let rows = side.min(crossing.extent - position.index(last - 1) * side);
            let length = side.min(inner.extent - position.index(last) * side);
            for row in 0..rows as isize {
                // SAFETY: positions of the walk; pieces write distinct ones.
                unsafe {
                    let target = target.at(position.target + row * crossing.target);
                    let source = source.at(position.source + row * crossing.source);
                    copy_row(target, inner.target, source, inner.source, length);
                }
            }
            position.advance();
        }
        Ok(())
    })
}
