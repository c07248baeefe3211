//! Exponentials: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, two-step scaling by 2ⁿ.
//!
//! Rare functions are written for f64 only; f32 goes through f64 and is then correct to half an ulp.
//! Coefficients: interpolation at Chebyshev nodes in 200-bit arithmetic, relative error below 2⁻⁵⁵ (f32: 2⁻²⁶).

use super::float::{Float, choose, fast_two_sum, horner, two_sum};

/// ln 2 in two parts, the first with so few bits that its product with an exponent is exact.
#[inline(always)]
pub(super) fn ln2_parts<F: Float>() -> (F, F) {
    if F::DOUBLE {
        (F::of(0.6931471804855391), F::of(7.440617110012397e-11))
    } else {
        (F::of(0.693145751953125), F::of(1.4286068203094173e-06))
    }
}

/// `(exp(r) − 1 − r) / r²` on |r| ≤ ln 2 / 2.
#[inline(always)]
pub(super) fn exp_tail<F: Float>(r: F) -> F {
    if F::DOUBLE {
        horner(
            r,
            [
                0.5,
                0.1666666666666667,
                0.04166666666666667,
                0.008333333333325544,
                0.0013888888888883327,
                0.00019841269876864356,
                2.4801587327007187e-05,
                2.755725283351691e-06,
                2.75572718102198e-07,
                2.5106274733573296e-08,
                2.0915442297780116e-09,
            ],
        )
    } else {
        horner(r, [0.5, 0.16666573286056519, 0.04166654869914055, 0.008363774046301842, 0.0013926926767453551])
    }
}

/// `(p, n)` with `exp(x) = p · 2ⁿ`, for x in a range where n stays an exponent.
#[inline(always)]
fn exp_split<F: Float>(x: F) -> (F, F::Int) {
    let (r, exponent) = exp_rest(x);
    let p = F::of(1.0) + (r * r).mul_add(exp_tail(r), r);
    (p, exponent)
}

/// `(r, n)` with `x = n·ln 2 + r`.
#[inline(always)]
fn exp_rest<F: Float>(x: F) -> (F, F::Int) {
    let (n, exponent) = (x * F::of(std::f64::consts::LOG2_E)).nearest();
    let (high, low) = ln2_parts::<F>();
    (n.mul_add(-low, n.mul_add(-high, x)), exponent)
}

/// `exp(x)` where the result is a normal number.
#[inline(always)]
pub(super) fn exp_normal<F: Float>(x: F) -> F {
    let (p, n) = exp_split(x);
    p * F::power_of_two(n)
}

/// `exp(x) / 2` for x ≥ 0; overflows only where the half does.
#[inline(always)]
pub(super) fn half_exp<F: Float>(x: F) -> F {
    let limit = F::of(720.0);
    let (p, n) = exp_split(choose(x > limit, limit, x));
    p.scale(F::int_add(n, -1))
}

#[inline(always)]
fn clamp<F: Float>(x: F, low: f64, high: f64) -> F {
    let x = choose(x > F::of(high), F::of(high), x);
    choose(x < F::of(low), F::of(low), x)
}

#[inline(always)]
pub fn exp<F: Float>(x: F) -> F {
    let (p, n) = exp_split(if F::DOUBLE { clamp(x, -746.0, 710.0) } else { clamp(x, -104.0, 89.0) });
    p.scale(n)
}

/// `exp(x + low)` for a low far below x as a float and a rest, in f64.
#[inline(always)]
pub(super) fn exp_parts<F: Float>(x: F, low: F) -> (F, F) {
    let (r, n) = exp_rest(clamp(x, -746.0, 710.0));
    let (high, lost) = fast_two_sum(F::of(1.0), (r * r).mul_add(exp_tail(r), r));
    (high.scale(n), low.mul_add(high, lost).scale(n))
}

#[inline(always)]
pub fn exp2<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(exp2(x.wide()));
    }
    let (r, slope, n) = exp2_terms(x);
    r.mul_add(slope, F::of(1.0)).scale(n)
}

/// `exp2(x + low)` for a low far below x as a float and a rest, in f64.
#[inline(always)]
pub(super) fn exp2_parts<F: Float>(x: F, low: F) -> (F, F) {
    let (r, slope, n) = exp2_terms(x);
    let (high, lost) = fast_two_sum(F::of(1.0), r * slope);
    (high.scale(n), (low * F::of(std::f64::consts::LN_2)).mul_add(high, lost).scale(n))
}

/// `(r, slope, n)` with `exp2(x) = (1 + r·slope)·2ⁿ`, in f64.
#[inline(always)]
fn exp2_terms<F: Float>(x: F) -> (F, F, F::Int) {
    let x = clamp(x, -1076.0, 1025.0);
    let (n, exponent) = x.nearest();
    let r = x - n;
    let slope = horner(
        r,
        [
            std::f64::consts::LN_2,
            0.24022650695910072,
            0.055504108664821625,
            0.00961812910762848,
            0.001333355814640647,
            0.00015403530393370734,
            1.5252733841556773e-05,
            1.3215486808705563e-06,
            1.0178057087733941e-07,
            7.0548973041554995e-09,
            4.4558179083360645e-10,
            2.5729324177362305e-11,
        ],
    );
    (r, slope, exponent)
}

#[inline(always)]
pub fn expm1<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(expm1(x.wide()));
    }
    let clamped = clamp(x, -40.0, 710.0);
    let (n, exponent) = (clamped * F::of(std::f64::consts::LOG2_E)).nearest();
    let (high, low) = ln2_parts::<F>();
    let exact = n.mul_add(-high, clamped);
    let rest = n * low;
    let r = exact - rest;
    let tail = (r * r).mul_add(exp_tail(r), (exact - r) - rest);
    // 2ⁿ·(r + tail) + (2ⁿ − 1), halved because 2¹⁰²⁴ is infinite; the first sum keeps its rounding error.
    let half = F::power_of_two(F::int_add(exponent, -1));
    let (sum, error) = two_sum(half - F::of(0.5), half * r);
    let result = F::of(2.0) * (sum + half.mul_add(tail, error));
    choose(x.abs() < F::of(1e-300), x, result)
}
