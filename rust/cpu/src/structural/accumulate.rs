//! `acc + g` for uses of a value far apart, in place when the result is the accumulator's buffer.

use ckad_graph::{Error, Result};

use super::array::Array;
use super::number::{Number, with_dtype};
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

pub fn accumulate(base: &Array<'_>, value: &Array<'_>, out: &Array<'_>, environment: &Environment<'_>) -> Result<()> {
    let elements = out.elements();
    if base.elements() != elements || value.elements() != elements {
        return Err(Error::internal("accumulate", "operands and result are of one shape"));
    }
    with_dtype!(out.dtype, T => {
        let (base, value) = (Shared::read_only(base.pointer::<T>()), Shared::read_only(value.pointer::<T>()));
        let target = Shared::new(out.pointer_mut::<T>());
        for_each_piece(environment, elements, PIECE, |range| {
            // SAFETY: ranges of the pieces are disjoint and inside all three arrays.
            unsafe {
                let value = std::slice::from_raw_parts(value.get().add(range.start), range.len());
                let target = target.get().add(range.start);
                let base = base.get().add(range.start);
                if std::ptr::eq(target, base) {
                    let target = std::slice::from_raw_parts_mut(target, range.len());
                    for (target, &value) in target.iter_mut().zip(value) {
                        *target = target.add(value);
                    }
                } else {
                    let target = std::slice::from_raw_parts_mut(target, range.len());
                    let base = std::slice::from_raw_parts(base, range.len());
                    for (target, (&base, &value)) in target.iter_mut().zip(base.iter().zip(value)) {
                        *target = base.add(value);
                    }
                }
            }
            Ok(())
        })
    })
}
