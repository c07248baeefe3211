//! Exponentials: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, two-step scaling by 2ⁿ.
//!
//! Rare functions are written for f64 only; f32 goes through f64 and is then correct to half an ulp.
//! Coefficients: interpolation at Chebyshev nodes in 200-bit arithmetic, relative error below 2⁻⁵⁵ (f32: 2⁻²⁶).

use super::float::{Float, choose, horner, two_sum};

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
fn exp_tail<F: Float>(r: F) -> F {
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
    let (n, exponent) = (x * F::of(std::f64::consts::LOG2_E)).nearest();
    let (high, low) = ln2_parts::<F>();
    let r = n.mul_add(-low, n.mul_add(-high, x));
    let p = F::of(1.0) + (r * r).mul_add(exp_tail(r), r);
    (p, exponent)
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

#[inline(always)]
pub fn exp2<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(exp2(x.wide()));
    }
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
    r.mul_add(slope, F::of(1.0)).scale(exponent)
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

/// `ln(eᵃ + eᵇ)`.
#[inline(always)]
pub fn logaddexp<F: Float>(a: F, b: F) -> F {
    if !F::DOUBLE {
        return F::narrow(logaddexp(a.wide(), b.wide()));
    }
    let (high, distance) = ordered(a, b);
    let sum = high + super::log1p(exp(-distance));
    choose(a == b, a + F::of(std::f64::consts::LN_2), sum)
}

/// `log₂(2ᵃ + 2ᵇ)`.
#[inline(always)]
pub fn logaddexp2<F: Float>(a: F, b: F) -> F {
    if !F::DOUBLE {
        return F::narrow(logaddexp2(a.wide(), b.wide()));
    }
    let (high, distance) = ordered(a, b);
    let sum = super::log1p(exp2(-distance)).mul_add(F::of(std::f64::consts::LOG2_E), high);
    choose(a == b, a + F::of(1.0), sum)
}

/// The greater of two different values and their distance (NaN when one is).
#[inline(always)]
fn ordered<F: Float>(a: F, b: F) -> (F, F) {
    (choose(a > b, a, b), (a - b).abs())
}
