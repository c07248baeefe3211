//! s₀ = b₀, s_k = a_k·s_{k−1} + b_k along an axis, from either end: cumulative products and sums, running
//! averages, and their transposes. Each product and each sum is rounded (no fused multiply-add), so that every
//! instruction set gives the same bits.

use ckad_graph::{Error, Result};

use super::array::Array;
use super::cumulative_sum::{LANES, for_each_lane};
use super::number::{Number, with_dtype};
use crate::Environment;
use crate::parallel::Shared;

pub fn linear_recurrence(
    axis: usize,
    reverse: bool,
    absorb: bool,
    a: &Array<'_>,
    b: &Array<'_>,
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    if a.elements() != out.elements() || b.elements() != out.elements() {
        return Err(Error::internal("linear_recurrence", "operands and result are of one shape"));
    }
    with_dtype!(out.dtype, T => {
        let (a, b) = (Shared::read_only(a.pointer::<T>()), Shared::read_only(b.pointer::<T>()));
        let target = Shared::new(out.pointer_mut::<T>());
        let multiply = if absorb { <T as Number>::absorb } else { <T as Number>::multiply };
        for_each_lane(axis, reverse, out.shape, environment, |lanes| {
            let mut state = [T::ZERO; LANES];
            lanes.walk(environment, |flat, k, lane| {
                // SAFETY: `flat` runs over the elements of the lanes at hand, which no other piece has.
                unsafe {
                    let flat = flat as isize;
                    let added = *b.at(flat);
                    state[lane] = if k == 0 { added } else { multiply(*a.at(flat), state[lane]).add(added) };
                    *target.at(flat) = state[lane];
                }
            })
        })
    })
}
