//! The index of the first greatest or least element along an axis; a NaN counts as found first.

use ckad_graph::{DType, Error, Result};

use super::array::{Array, around};
use super::number::{Number, with_dtype};
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

/// Lanes whose best elements are kept at once.
const LANES: usize = 64;

pub fn arg_reduce(max: bool, axis: usize, x: &Array<'_>, out: &Array<'_>, environment: &Environment<'_>) -> Result<()> {
    let op = if max { "argmax" } else { "argmin" };
    let (outer, extent, inner) = around(x.shape, axis)?;
    if outer * inner != out.elements() || out.dtype != DType::I64 {
        return Err(Error::internal(op, "the result is int64, without the axis"));
    }
    if out.elements() == 0 {
        return Ok(());
    }
    if extent == 0 {
        return Err(
            Error::value(op, format!("attempt to get {op} of an empty sequence")).with_hint("check `x.size` first")
        );
    }
    with_dtype!(x.dtype, T => {
        let (source, target) = (Shared::read_only(x.pointer::<T>()), Shared::new(out.pointer_mut::<i64>()));
        let lanes = inner.min(LANES);
        let blocks = inner.div_ceil(lanes);
        for_each_piece(environment, outer * blocks, PIECE / (lanes * extent).max(1), |range| {
            for item in range {
                let (row, first) = (item / blocks, (item % blocks) * lanes);
                let count = lanes.min(inner - first);
                let source = Shared::new(source.get().wrapping_add(row * extent * inner + first));
                // SAFETY: `count` lanes of `extent` elements inside x; each item has its own part of the result.
                unsafe {
                    let target = std::slice::from_raw_parts_mut(target.get().add(row * inner + first), count);
                    best::<T>(max, source, extent, inner, target, environment)?;
                }
            }
            Ok(())
        })
    })
}

/// # Safety
/// `target.len()` adjacent lanes of `extent` elements `step` apart.
unsafe fn best<T: Number>(
    max: bool,
    source: Shared<T>,
    extent: usize,
    step: usize,
    target: &mut [i64],
    environment: &Environment<'_>,
) -> Result<()> {
    let mut best = [T::ZERO; LANES];
    for (lane, best) in best.iter_mut().enumerate().take(target.len()) {
        // SAFETY: the first element of each lane.
        *best = unsafe { *source.at(lane as isize) };
    }
    target.fill(0);
    for first in (1..extent).step_by(PIECE) {
        environment.check()?;
        for k in first..extent.min(first + PIECE) {
            for (lane, (best, place)) in best.iter_mut().zip(target.iter_mut()).enumerate() {
                // SAFETY: element k of the lane.
                let value = unsafe { *source.at((k * step + lane) as isize) };
                let ahead = if max { best.less(value) } else { value.less(*best) };
                if !best.is_nan() && (ahead || value.is_nan()) {
                    *best = value;
                    *place = k as i64;
                }
            }
        }
    }
    Ok(())
}
