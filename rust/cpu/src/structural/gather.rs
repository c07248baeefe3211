//! `out[I…, rest…] = x[i₀[I], …, rest…]`.

use ckad_graph::{Error, Result};

use super::array::Array;
use super::index::Indices;
use super::number::with_size;
use super::offsets::RUN;
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece};

pub fn gather(x: &Array<'_>, indices: &[Array<'_>], out: &Array<'_>, environment: &Environment<'_>) -> Result<()> {
    let indices = Indices::new("gather", indices, x.shape)?;
    let row = indices.row;
    if indices.tuples * row != out.elements() {
        return Err(Error::internal("gather", "the result is of another shape"));
    }
    if row == 0 {
        return indices.check(environment);
    }
    with_size!(out.dtype, T => {
        let (source, target) = (Shared::read_only(x.pointer::<T>()), Shared::new(out.pointer_mut::<T>()));
        if row == 1 {
            return for_each_piece(environment, indices.tuples.div_ceil(RUN), PIECE / 4 / RUN, |runs| {
                for first in runs.map(|run| run * RUN) {
                    indices.each_offset(first, RUN.min(indices.tuples - first), |tuple, offset| {
                        // SAFETY: an offset of an index in range; each tuple has its own element of the result.
                        unsafe { *target.at(tuple as isize) = *source.at(offset) };
                    })?;
                }
                Ok(())
            });
        }
        let block = row.min(PIECE);
        let blocks = row.div_ceil(block);
        for_each_piece(environment, indices.tuples * blocks, PIECE / block, |range| {
            for item in range {
                let (tuple, first) = (item / blocks, (item % blocks) * block);
                let length = block.min(row - first);
                indices.each_offset(tuple, 1, |_, offset| {
                    // SAFETY: a part of a row in range; each item has its own part of the result.
                    unsafe {
                        let source = source.at(offset + first as isize);
                        std::ptr::copy_nonoverlapping(source, target.at((tuple * row + first) as isize), length);
                    }
                })?;
            }
            Ok(())
        })
    })
}
