//! Kernels that only move elements: reshape, transpose, broadcast, strided read and strided write.

use ckad_graph::{Error, Result};

use super::array::{Array, packed_strides};
use super::strided::{Axis, Mover, axes, check_reach};

/// The same flat memory in a place of its own.
pub fn reshape(x: &Array<'_>, out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    check_elements("reshape", x, out)?;
    if out.is_at(x) {
        return Ok(());
    }
    let axes = vec![Axis { extent: out.elements(), target: 1, source: 1 }];
    // SAFETY: both arrays have that many elements and do not overlap.
    unsafe { mover.copy(out.dtype, axes, out.pointer_mut(), x.pointer()) }
}

/// Where the result is the base's buffer there is nothing to do; otherwise the base is copied into it.
pub fn copy_base(base: &Array<'_>, out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    reshape(base, out, mover)
}

pub fn transpose(permutation: &[i64], x: &Array<'_>, out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    let strides = packed_strides(x.shape);
    let fits = permutation.len() == out.shape.len()
        && x.shape.len() == out.shape.len()
        && permutation.iter().zip(out.shape).all(|(&axis, &extent)| x.shape.get(axis as usize) == Some(&extent));
    if !fits || x.elements() != out.elements() {
        return Err(Error::internal("transpose", "the permutation does not fit the shapes"));
    }
    let source: Vec<isize> = permutation.iter().map(|&axis| strides[axis as usize]).collect();
    let axes = axes(out.shape, &packed_strides(out.shape), &source);
    // SAFETY: a permutation of the operand's axes reaches its elements only.
    unsafe { mover.copy(out.dtype, axes, out.pointer_mut(), x.pointer()) }
}

pub fn broadcast(x: &Array<'_>, out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    let Some(missing) = out.shape.len().checked_sub(x.shape.len()) else {
        return Err(Error::internal("broadcast_to", "the operand has more axes than the result"));
    };
    let mut source = vec![0; missing];
    for ((&extent, &result), stride) in x.shape.iter().zip(&out.shape[missing..]).zip(packed_strides(x.shape)) {
        if extent != result && extent != 1 {
            return Err(Error::internal("broadcast_to", "the shapes do not broadcast"));
        }
        source.push(if extent == 1 { 0 } else { stride });
    }
    let axes = axes(out.shape, &packed_strides(out.shape), &source);
    // SAFETY: axes of one element are read with stride 0, the others have the result's extents.
    unsafe { mover.copy(out.dtype, axes, out.pointer_mut(), x.pointer()) }
}

pub fn strided_read(strides: &[i64], start: i64, x: &Array<'_>, out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    if out.elements() == 0 {
        return Ok(());
    }
    check_rank(strides, out)?;
    check_reach("strided_read", start, out.shape, strides, x.elements())?;
    let size = out.dtype.size();
    let source = x.pointer::<u8>().wrapping_add(start as usize * size);
    if out.elements() == 1 {
        // SAFETY: `start` was checked; the arrays do not overlap.
        return unsafe { mover.copy(out.dtype, Vec::new(), out.pointer_mut(), source) };
    }
    let strides: Vec<isize> = strides.iter().map(|&stride| stride as isize).collect();
    let axes = axes(out.shape, &packed_strides(out.shape), &strides);
    // SAFETY: every position was checked.
    unsafe { mover.copy(out.dtype, axes, out.pointer_mut(), source) }
}

pub fn strided_write(
    strides: &[i64],
    start: i64,
    base: &Array<'_>,
    value: &Array<'_>,
    out: &Array<'_>,
    mover: &impl Mover,
) -> Result<()> {
    copy_base(base, out, mover)?;
    if value.elements() == 0 {
        return Ok(());
    }
    check_rank(strides, value)?;
    check_reach("strided_write", start, value.shape, strides, out.elements())?;
    let size = out.dtype.size();
    let target = out.pointer_mut::<u8>().wrapping_add(start as usize * size);
    if value.elements() == 1 {
        // SAFETY: `start` was checked; the arrays do not overlap.
        return unsafe { mover.copy(out.dtype, Vec::new(), target, value.pointer()) };
    }
    let strides: Vec<isize> = strides.iter().map(|&stride| stride as isize).collect();
    let axes = axes(value.shape, &strides, &packed_strides(value.shape));
    // SAFETY: every position was checked; they are distinct by the definition of the operation.
    unsafe { mover.copy(out.dtype, axes, target, value.pointer()) }
}

pub fn check_elements(op: &str, x: &Array<'_>, out: &Array<'_>) -> Result<()> {
    if x.elements() == out.elements() {
        return Ok(());
    }
    Err(Error::internal(op, "as many elements on both sides"))
}

pub fn check_rank(strides: &[i64], walked: &Array<'_>) -> Result<()> {
    if strides.len() == walked.shape.len() {
        return Ok(());
    }
    Err(Error::internal("run", format!("{} strides for an array of rank {}", strides.len(), walked.shape.len())))
}
