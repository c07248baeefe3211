//! The loops themselves, by number of operands. `inline(always)`: they take the caller's target features.
//!
//! Each is unsafe to call for the reasons that `Lane` gives.

use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use crate::math::{Bool, Float};

type Operands = [*const u8; 3];

#[inline(always)]
pub unsafe fn unary<E: Copy, R>(dst: *mut u8, [a, ..]: Operands, n: usize, _: PhantomData<E>, f: impl Fn(E) -> R) {
    // SAFETY: the caller promises n aligned elements that do not overlap.
    let (dst, a) = unsafe { (from_raw_parts_mut(dst.cast::<R>(), n), from_raw_parts(a.cast::<E>(), n)) };
    for (out, &a) in dst.iter_mut().zip(a) {
        *out = f(a);
    }
}

#[inline(always)]
pub unsafe fn binary<E: Copy, R>(
    dst: *mut u8,
    [a, b, _]: Operands,
    n: usize,
    _: PhantomData<E>,
    f: impl Fn(E, E) -> R,
) {
    // SAFETY: the caller promises n aligned elements that do not overlap.
    let (dst, a, b) = unsafe {
        (from_raw_parts_mut(dst.cast::<R>(), n), from_raw_parts(a.cast::<E>(), n), from_raw_parts(b.cast::<E>(), n))
    };
    for ((out, &a), &b) in dst.iter_mut().zip(a).zip(b) {
        *out = f(a, b);
    }
}

/// Select: the first operand is a bool.
#[inline(always)]
pub unsafe fn ternary<E: Copy>(
    dst: *mut u8,
    [condition, a, b]: Operands,
    n: usize,
    _: PhantomData<E>,
    f: impl Fn(Bool, E, E) -> E,
) {
    // SAFETY: the caller promises n aligned elements that do not overlap.
    let (dst, condition, a, b) = unsafe {
        (
            from_raw_parts_mut(dst.cast::<E>(), n),
            from_raw_parts(condition.cast::<Bool>(), n),
            from_raw_parts(a.cast::<E>(), n),
            from_raw_parts(b.cast::<E>(), n),
        )
    };
    for (((out, &condition), &a), &b) in dst.iter_mut().zip(condition).zip(a).zip(b) {
        *out = f(condition, a, b);
    }
}

/// As `unary` for a function that holds for |x| ≤ `limit`; lanes beyond are redone by `far`.
#[inline(always)]
pub unsafe fn unary_with_far<E: Float>(
    dst: *mut u8,
    [a, ..]: Operands,
    n: usize,
    _: PhantomData<E>,
    f: impl Fn(E) -> E,
    far: impl Fn(E) -> E,
    limit: impl Fn() -> E,
) {
    // SAFETY: the caller promises n aligned elements that do not overlap.
    let (dst, a) = unsafe { (from_raw_parts_mut(dst.cast::<E>(), n), from_raw_parts(a.cast::<E>(), n)) };
    let limit = limit();
    let mut any_far = 0u32;
    for (out, &a) in dst.iter_mut().zip(a) {
        any_far |= u32::from(a.abs() > limit);
        *out = f(a);
    }
    if any_far != 0 {
        for (out, &a) in dst.iter_mut().zip(a) {
            if a.abs() > limit {
                *out = far(a);
            }
        }
    }
}
