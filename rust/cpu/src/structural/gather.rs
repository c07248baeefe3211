//! `out[I…, rest…] = x[i₀[I], …, rest…]`.

use ckad_graph::{Error, Result};

use super::array::Array;
use super::index::Indices;
use super::number::with_size;
use super::parallel::{PIECE, Shared, for_each_piece};
use crate::Environment;

pub fn gather(x: &Array<'_>, indices: &[Array<'_>], out: &Array<'_>, environment: &Environment<'_>) -> Result<()> {
    let indices = Indices::check("gather", indices, x.shape, environment)?;
    let row = indices.row;
    if indices.tuples * row != out.elements() {
        return Err(Error::internal("gather", "the result is of another shape"));
    }
    if row == 0 {
        return Ok(());
    }
    with_size!(out.dtype, T => {
        let (source, target) = (Shared::read_only(x.pointer::<T>()), Shared::new(out.pointer_mut::<T>()));
        if row == 1 {
            return for_each_piece(environment, indices.tuples, PIECE / 4, |range| {
                for tuple in range {
                    // SAFETY: offsets of checked indices; each tuple has its own element of the result.
                    unsafe { *target.at(tuple as isize) = *source.at(indices.offset(tuple)) };
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
                // SAFETY: a part of a checked row; each item has its own part of the result.
                unsafe {
                    let source = source.at(indices.offset(tuple) + first as isize);
                    std::ptr::copy_nonoverlapping(source, target.at((tuple * row + first) as isize), length);
                }
            }
            Ok(())
        })
    })
}
