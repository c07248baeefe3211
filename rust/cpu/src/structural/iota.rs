//! 0, 1, 2, … along one axis.

use ckad_graph::Result;

use super::array::{Array, around};
use super::number::{Number, with_dtype};
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

pub fn iota(axis: usize, out: &Array<'_>, environment: &Environment<'_>) -> Result<()> {
    let (_, extent, inner) = around(out.shape, axis)?;
    with_dtype!(out.dtype, T => {
        let target = Shared::new(out.pointer_mut::<T>());
        for_each_piece(environment, out.elements(), PIECE, |range| {
            // SAFETY: the pieces' ranges lie in the result and are disjoint.
            let piece = unsafe { std::slice::from_raw_parts_mut(target.get().add(range.start), range.len()) };
            for (place, flat) in piece.iter_mut().zip(range) {
                *place = T::from_index(((flat / inner) % extent) as i64);
            }
            Ok(())
        })
    })
}
