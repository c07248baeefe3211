//! The loops themselves, by number of operands. `inline(always)`: they take the caller's target features.
//!
//! Each is unsafe to call for the reasons that `Lane` gives. They index slices of one length, which costs no check,
//! rather than zip them: a `zip` that is not inlined takes as long as a tile of additions.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use crate::math::{Bool, Float};

type Operands = [*const u8; 3];

#[inline(always)]
pub unsafe fn unary<E: Copy, R>(dst: *mut u8, [a, ..]: Operands, n: usize, _: PhantomData<E>, f: impl Fn(E) -> R) {
    // SAFETY: the caller promises n aligned elements that do not overlap.
    let (dst, a) = unsafe { (from_raw_parts_mut(dst.cast::<R>(), n), from_raw_parts(a.cast::<E>(), n)) };
    for i in 0..n {
        dst[i] = f(a[i]);
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
    for i in 0..n {
        dst[i] = f(a[i], b[i]);
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
    for i in 0..n {
        dst[i] = f(condition[i], a[i], b[i]);
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
    for i in 0..n {
        any_far |= u32::from(a[i].abs() > limit);
        dst[i] = f(a[i]);
    }
    if any_far != 0 {
        for i in 0..n {
            if a[i].abs() > limit {
                dst[i] = far(a[i]);
            }
        }
    }
}

/// As `binary`; lanes of which `is_far` holds, by operands and result, are redone by `far`.
#[inline(always)]
pub unsafe fn binary_with_far<E: Float>(
    dst: *mut u8,
    [a, b, _]: Operands,
    n: usize,
    _: PhantomData<E>,
    f: impl Fn(E, E) -> E,
    far: impl Fn(E, E) -> E,
    is_far: impl Fn(E, E, E) -> bool,
) {
    // SAFETY: the caller promises n aligned elements that do not overlap.
    let (dst, a, b) = unsafe {
        (from_raw_parts_mut(dst.cast::<E>(), n), from_raw_parts(a.cast::<E>(), n), from_raw_parts(b.cast::<E>(), n))
    };
    let mut any_far = 0u32;
    for i in 0..n {
        let result = f(a[i], b[i]);
        any_far |= u32::from(is_far(a[i], b[i], result));
        dst[i] = result;
    }
    if any_far != 0 {
        for i in 0..n {
            if is_far(a[i], b[i], dst[i]) {
                dst[i] = far(a[i], b[i]);
            }
        }
    }
}
