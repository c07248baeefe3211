//! `base[i₀, …] = value` and `base[i₀, …] += value`. Of duplicates the last wins, or each is added in its turn:
//! threads share the columns of the rows, never the index tuples, so the order is the same for any number of them.

use ckad_graph::{Error, Result};

use super::array::Array;
use super::index::Indices;
use super::number::{Number, with_dtype, with_size};
use super::offsets::RUN;
use super::views::copy_base;
use crate::Environment;
use crate::parallel::{PIECE, Shared, for_each_piece, for_each_piece_in_order};

pub fn scatter_set(
    base: &Array<'_>,
    value: &Array<'_>,
    indices: &[Array<'_>],
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    let indices = prepare("scatter", base, value, indices, out, environment)?;
    with_size!(out.dtype, T => {
        // SAFETY: `prepare` checked indices and shapes.
        unsafe { scatter(value.pointer::<T>(), &indices, out.pointer_mut::<T>(), environment, |_, value| value) }
    })
}

pub fn scatter_add(
    base: &Array<'_>,
    value: &Array<'_>,
    indices: &[Array<'_>],
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    let indices = prepare("scatter_add", base, value, indices, out, environment)?;
    with_dtype!(out.dtype, T => {
        // SAFETY: as above.
        unsafe { scatter(value.pointer::<T>(), &indices, out.pointer_mut::<T>(), environment, <T as Number>::add) }
    })
}

/// Checks before the base is touched: a run that fails has changed nothing that another may read.
fn prepare(
    op: &'static str,
    base: &Array<'_>,
    value: &Array<'_>,
    indices: &[Array<'_>],
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<Indices> {
    let indices = Indices::new(op, indices, out.shape)?;
    indices.check(environment)?;
    if value.elements() != indices.tuples * indices.row {
        return Err(Error::internal(op, "the value is of another shape"));
    }
    copy_base(base, out, environment)?;
    Ok(indices)
}

/// # Safety
/// `value` has a row for each tuple; `out` is the array that the indices were checked for.
unsafe fn scatter<T: Copy + Send + Sync>(
    value: *const T,
    indices: &Indices,
    out: *mut T,
    environment: &Environment<'_>,
    join: impl Fn(T, T) -> T + Sync,
) -> Result<()> {
    let (tuples, row) = (indices.tuples, indices.row);
    let (value, out) = (Shared::read_only(value), Shared::new(out));
    // Columns of one cache line or more per piece, and at least a few thousand elements.
    let width = (4096 / tuples.max(1)).max(64).min(row.max(1));
    let width = if tuples * row < PIECE { row } else { width };
    for_each_piece(environment, row, width, |columns| {
        let length = columns.len();
        for_each_piece_in_order(environment, tuples, (PIECE / length).clamp(1, RUN), |range| {
            indices.each_offset(range.start, range.len(), |tuple, offset| {
                // SAFETY: a part of a row in range; pieces have columns of their own.
                unsafe {
                    let value = value.at((tuple * row + columns.start) as isize);
                    let place = out.at(offset + columns.start as isize);
                    if length == 1 {
                        *place = join(*place, *value);
                        return;
                    }
                    for column in 0..length {
                        *place.add(column) = join(*place.add(column), *value.add(column));
                    }
                }
            })
        })
    })
}
