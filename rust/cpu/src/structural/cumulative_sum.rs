//! Inclusive sums along an axis, from either end. Floats are summed in float64, so that in float32 each result
//! is as good as rounded once from the sum.

use ckad_graph::{Error, Result};

use super::array::{Array, around};
use super::number::{Number, with_dtype};
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

/// Lanes that run side by side.
pub const LANES: usize = 64;

pub fn cumulative_sum(
    axis: usize,
    reverse: bool,
    x: &Array<'_>,
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    if x.elements() != out.elements() {
        return Err(Error::internal("cumsum", "the result is of another shape"));
    }
    with_dtype!(out.dtype, T => {
        let (source, target) = (Shared::read_only(x.pointer::<T>()), Shared::new(out.pointer_mut::<T>()));
        for_each_lane(axis, reverse, out.shape, environment, |lanes| {
            let mut sums = [T::ZERO.widen(); LANES];
            lanes.walk(environment, |flat, k, lane| {
                // SAFETY: `flat` runs over the elements of the lanes at hand, which no other piece has.
                unsafe {
                    let value = *source.at(flat as isize);
                    sums[lane] = if k == 0 { value.widen() } else { T::add_wide(sums[lane], value) };
                    *target.at(flat as isize) = T::narrow(sums[lane]);
                }
            })
        })
    })
}

/// Adjacent lanes along an axis.
pub struct Lanes {
    first: usize,
    count: usize,
    extent: usize,
    step: usize,
    reverse: bool,
}

impl Lanes {
    /// Calls `visit(flat index, position along the axis, lane)`, all lanes abreast, in the direction asked for.
    #[inline(always)]
    pub fn walk(&self, environment: &Environment<'_>, mut visit: impl FnMut(usize, usize, usize)) -> Result<()> {
        for first in (0..self.extent).step_by(PIECE / LANES * 16) {
            environment.check()?;
            for k in first..self.extent.min(first + PIECE / LANES * 16) {
                let row = self.first + (if self.reverse { self.extent - 1 - k } else { k }) * self.step;
                for lane in 0..self.count {
                    visit(row + lane, k, lane);
                }
            }
        }
        Ok(())
    }
}

/// Runs `work` for blocks of at most `LANES` adjacent lanes along `axis` that together are the array.
pub fn for_each_lane(
    axis: usize,
    reverse: bool,
    shape: &[usize],
    environment: &Environment<'_>,
    work: impl Fn(Lanes) -> Result<()> + Sync,
) -> Result<()> {
    let (outer, extent, inner) = around(shape, axis)?;
    if outer * extent * inner == 0 {
        return Ok(());
    }
    let width = inner.min(LANES);
    let blocks = inner.div_ceil(width);
    for_each_piece(environment, outer * blocks, PIECE / (width * extent).max(1), |range| {
        for item in range {
            let first = (item % blocks) * width;
            let count = width.min(inner - first);
            work(Lanes { first: item / blocks * extent * inner + first, count, extent, step: inner, reverse })?;
        }
        Ok(())
    })
}
