//! Padding: the operand inside, one element all around. Every element of the result is written once.

use ckad_graph::{Error, Result};

use super::array::{Array, packed_strides};
use super::strided::{self, Axis, Mover};

pub fn pad(widths: &[i64], x: &Array<'_>, fill: &Array<'_>, out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    let rank = out.shape.len();
    let fits = widths.len() == 2 * rank
        && x.shape.len() == rank
        && fill.elements() == 1
        && (0..rank).all(|axis| {
            let (before, after) = (widths[2 * axis], widths[2 * axis + 1]);
            before >= 0 && after >= 0 && out.shape[axis] as i64 == x.shape[axis] as i64 + before + after
        });
    if !fits {
        return Err(Error::internal("pad", "the widths do not fit the shapes"));
    }
    let strides = packed_strides(out.shape);
    let before = |axis: usize| widths[2 * axis] as usize;
    // The region of the result that axes `0..axis` place inside x and axis `axis` in `first..first + count`.
    let slab = |axis: usize, first: usize, count: usize| -> Result<()> {
        let mut offset = first as isize * strides[axis];
        let mut region = Vec::with_capacity(rank);
        for (other, &stride) in strides.iter().enumerate() {
            let extent = match other.cmp(&axis) {
                std::cmp::Ordering::Less => {
                    offset += before(other) as isize * stride;
                    x.shape[other]
                }
                std::cmp::Ordering::Equal => count,
                std::cmp::Ordering::Greater => out.shape[other],
            };
            region.push(Axis { extent, target: stride, source: 0 });
        }
        let target = out.pointer_mut::<u8>().wrapping_offset(offset * out.dtype.size() as isize);
        // SAFETY: a box inside the result; the source is one element.
        unsafe { mover.copy(out.dtype, region, target, fill.pointer()) }
    };
    for axis in 0..rank {
        slab(axis, 0, before(axis))?;
        slab(axis, before(axis) + x.shape[axis], widths[2 * axis + 1] as usize)?;
    }
    let offset: isize = (0..rank).map(|axis| before(axis) as isize * strides[axis]).sum();
    let target = out.pointer_mut::<u8>().wrapping_offset(offset * out.dtype.size() as isize);
    let inside = strided::axes(x.shape, &strides, &packed_strides(x.shape));
    // SAFETY: the box that x fills is inside the result by the check of the widths.
    unsafe { mover.copy(out.dtype, inside, target, x.pointer()) }
}
