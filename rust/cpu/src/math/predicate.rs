//! Comparisons and predicates: any element to a bool byte.

use super::float::Float;
use super::integer::Bool;
use super::number::Element;

#[inline(always)]
pub fn equal<T: Element>(a: T, b: T) -> Bool {
    (a == b).into()
}

#[inline(always)]
pub fn not_equal<T: Element>(a: T, b: T) -> Bool {
    (a != b).into()
}

#[inline(always)]
pub fn less<T: Element>(a: T, b: T) -> Bool {
    (a < b).into()
}

#[inline(always)]
pub fn less_equal<T: Element>(a: T, b: T) -> Bool {
    (a <= b).into()
}

#[inline(always)]
pub fn greater<T: Element>(a: T, b: T) -> Bool {
    (a > b).into()
}

#[inline(always)]
pub fn greater_equal<T: Element>(a: T, b: T) -> Bool {
    (a >= b).into()
}

#[inline(always)]
pub fn logical_and<T: Element>(a: T, b: T) -> Bool {
    (a.truth() & b.truth()).into()
}

#[inline(always)]
pub fn logical_or<T: Element>(a: T, b: T) -> Bool {
    (a.truth() | b.truth()).into()
}

#[inline(always)]
pub fn logical_xor<T: Element>(a: T, b: T) -> Bool {
    (a.truth() ^ b.truth()).into()
}

#[inline(always)]
pub fn logical_not<T: Element>(a: T) -> Bool {
    (!a.truth()).into()
}

#[inline(always)]
pub fn isnan<T: Element>(a: T) -> Bool {
    a.is_nan().into()
}

#[inline(always)]
pub fn isinf<F: Float>(a: F) -> Bool {
    (a.abs() == F::INFINITY).into()
}

#[inline(always)]
pub fn isfinite<F: Float>(a: F) -> Bool {
    (a.abs() < F::INFINITY).into()
}

#[inline(always)]
pub fn signbit<F: Float>(a: F) -> Bool {
    a.is_sign_negative().into()
}
