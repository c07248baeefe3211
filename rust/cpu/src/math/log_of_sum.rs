//! logaddexp and logaddexp2: the greater operand h, and the logarithm t of 1 + eˡ⁻ʰ.
//!
//! Where h is negative and about −t, the sum h + t cancels, in the worst case to 2⁻¹⁰⁷ of its terms. Such lanes are
//! redone in fixed point by the `…_far` functions.

use super::exponential::{exp_parts, exp2_parts};
use super::fixed::Fixed;
use super::float::{Float, choose, two_product, two_sum};
use super::logarithm::{log1p, log1p_parts};

/// log₂ e is this and `LOG2_E`.
const LOG2_E_REST: f64 = 2.0355273740931033e-17;

/// `ln(eᵃ + eᵇ)`.
#[inline(always)]
pub fn logaddexp<F: Float>(a: F, b: F) -> F {
    if !F::DOUBLE {
        return F::narrow(logaddexp(a.wide(), b.wide()));
    }
    let (high, distance, lost) = ordered(a, b);
    let (exponential, low) = exp_parts(-distance, -lost);
    let (leading, rest) = log1p_parts(exponential, low);
    choose(a == b, a + F::of(std::f64::consts::LN_2), sum_of(high, leading, rest))
}

/// `log₂(2ᵃ + 2ᵇ)`.
#[inline(always)]
pub fn logaddexp2<F: Float>(a: F, b: F) -> F {
    if !F::DOUBLE {
        return F::narrow(logaddexp2(a.wide(), b.wide()));
    }
    let (high, distance, lost) = ordered(a, b);
    let (exponential, low) = exp2_parts(-distance, -lost);
    let (leading, rest) = log1p_parts(exponential, low);
    let factor = F::of(std::f64::consts::LOG2_E);
    let (leading, error) = two_product(leading, factor);
    let rest = rest.mul_add(factor, leading.mul_add(F::of(LOG2_E_REST / std::f64::consts::LOG2_E), error));
    choose(a == b, a + F::of(1.0), sum_of(high, leading, rest))
}

/// The sum of three, the last far below the second.
#[inline(always)]
fn sum_of<F: Float>(high: F, leading: F, rest: F) -> F {
    let (sum, error) = two_sum(high, leading);
    // Of an infinite sum nothing is lost, and NaN by the formula.
    sum + choose(sum.abs() < F::INFINITY, error + rest, rest)
}

/// The greater of two different values, their distance (NaN when one is), and what its rounding lost.
#[inline(always)]
fn ordered<F: Float>(a: F, b: F) -> (F, F, F) {
    let above = a > b;
    let (high, low) = (choose(above, a, b), choose(above, b, a));
    let (distance, lost) = two_sum(high, -low);
    // Beyond, and between infinities, what is lost is no small part of an exponent, or NaN.
    (high, distance, choose(distance < F::of(2000.0), lost, F::of(0.0)))
}

/// Whether the terms of a [`logaddexp`] cancelled so much that it is to be computed anew.
#[inline(always)]
pub fn sum_cancels<F: Float>(a: F, b: F, result: F) -> bool {
    let high = choose(a > b, a, b);
    if F::DOUBLE {
        // |h + t| < t / 2.
        high < F::of(0.0) && F::of(3.0) * result > high && result < -high
    } else {
        // f32 has the digits of f64 to lose.
        result.abs() < F::of(-1e-8) * high
    }
}

/// As [`sum_cancels`] for [`logaddexp2`], which is exact for equal operands, 0 for two of −1.
#[inline(always)]
pub fn sum2_cancels<F: Float>(a: F, b: F, result: F) -> bool {
    a != b && sum_cancels(a, b, result)
}

/// [`logaddexp`] where its terms cancel.
pub fn logaddexp_far<F: Float>(a: F, b: F) -> F {
    let (a, b) = (a.to_f64(), b.to_f64());
    let (high, low) = (-a.max(b), -a.min(b));
    let n = whole_above(low * std::f64::consts::LOG2_E);
    let rest = Fixed::LN2.times_whole(n).minus(Fixed::of(low, 0));
    let (sum, left) = sum_minus_one(rest, Fixed::of(high, 0), Fixed::of(high, i32::from(n)), n);
    let sum = F::Wide::of(sum);
    let one = F::Wide::of(1.0);
    F::narrow(log1p(sum) + F::Wide::of(left) / (one + sum))
}

/// [`logaddexp2`] where its terms cancel.
pub fn logaddexp2_far<F: Float>(a: F, b: F) -> F {
    let (a, b) = (a.to_f64(), b.to_f64());
    let (high, low) = (-a.max(b), -a.min(b));
    let n = whole_above(low);
    let rest = Fixed::whole(n).minus(Fixed::of(low, 0)).times(Fixed::LN2);
    let scaled = |shift| Fixed::of(high, shift).times(Fixed::LN2);
    let (sum, left) = sum_minus_one(rest, scaled(0), scaled(i32::from(n)), n);
    let sum = F::Wide::of(sum);
    let logarithm = log1p(sum);
    let rest = F::Wide::of(left) / (F::Wide::of(1.0) + sum);
    // log₂ e in two parts.
    let small = logarithm.mul_add(F::Wide::of(LOG2_E_REST), rest * F::Wide::of(std::f64::consts::LOG2_E));
    F::narrow(logarithm.mul_add(F::Wide::of(std::f64::consts::LOG2_E), small))
}

/// The least whole number above x, or the one after it where x is almost whole; at most 1100, for the logarithms of
/// floats.
fn whole_above(x: f64) -> u16 {
    (x.min(1100.0) + 1.001) as u16
}

/// `2⁻ⁿ·e^rest + e^−y − 1` as a float and what that leaves, from y and 2ⁿ·y.
fn sum_minus_one(rest: Fixed, y: Fixed, scaled: Fixed, n: u16) -> (f64, f64) {
    let exponential = Fixed::ONE.plus(rest.times(exponential_slope(rest, Fixed::plus)));
    let below = scaled.times(exponential_slope(y, Fixed::minus));
    if exponential.below(below) {
        let (sum, left) = below.minus(exponential).parts(i32::from(n));
        return (-sum, -left);
    }
    exponential.minus(below).parts(i32::from(n))
}

/// `(eˣ − 1) / x`, and with `step` a difference `(1 − e⁻ˣ) / x`, for x up to 1.1.
#[inline(always)]
fn exponential_slope(x: Fixed, step: impl Fn(Fixed, Fixed) -> Fixed) -> Fixed {
    INVERSE_FACTORIALS.iter().rev().skip(1).fold(INVERSE_FACTORIALS[TERMS - 1], |sum, &c| step(c, x.times(sum)))
}

const TERMS: usize = 44;

/// 1/1!, 1/2!, 1/3!, …
const INVERSE_FACTORIALS: [Fixed; TERMS] = {
    let mut terms = [Fixed::ONE; TERMS];
    let mut index = 1;
    while index < TERMS {
        terms[index] = terms[index - 1].divided_by(index as u64 + 1);
        index += 1;
    }
    terms
};
