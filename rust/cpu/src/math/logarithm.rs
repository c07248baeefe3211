//! Logarithms: x = m·2ᵏ with √½ ≤ m < √2, f = m − 1, and ln(1 + f) from a polynomial.
//!
//! f32 uses a polynomial in f (no division); f64 one in s = f / (2 + f), as Tang (1990) and fdlibm do.

use super::exponential::ln2_parts;
use super::float::{Float, choose, horner, two_sum};

/// `(k, m)` with `x = m · 2ᵏ` for positive finite x, subnormal ones included.
#[inline(always)]
pub(super) fn split<F: Float>(x: F) -> (F, F) {
    let subnormal = x < F::SMALLEST_NORMAL;
    let (k, m) = choose(subnormal, x * F::of(18_014_398_509_481_984.0), x).split_exponent();
    (choose(subnormal, k - F::of(54.0), k), m)
}

/// The values where a logarithm is none: 0, negative, infinite, NaN.
#[inline(always)]
fn at_edges<F: Float>(x: F, result: F) -> F {
    let finite = choose(x == F::INFINITY, x, result);
    choose(x > F::of(0.0), finite, choose(x == F::of(0.0), -F::INFINITY, F::NAN))
}

/// What `ln(1 + f)` is above `f − f²/2`: in f64 `s·(f²/2 + R)` with `s = f / (2 + f)`, in f32 `f³·P(f)`.
#[inline(always)]
fn log1p_rest<F: Float>(f: F, half_square: F) -> F {
    if !F::DOUBLE {
        let cubic = horner(
            f,
            [
                0.3333333134651184,
                -0.2499999701976776,
                0.20000715553760529,
                -0.1666780263185501,
                0.14249058067798615,
                -0.12425687164068222,
                0.11685419827699661,
                -0.11479733884334564,
                0.06971611827611923,
            ],
        );
        return f * f * f * cubic;
    }
    let s = f / (F::of(2.0) + f);
    let z = s * s;
    let series = horner(
        z,
        [
            0.666666666666667,
            0.3999999999989931,
            0.2857142862606338,
            0.22222211120449298,
            0.1818289017031397,
            0.15331686868638428,
            0.14616878919029822,
        ],
    );
    s * z.mul_add(series, half_square)
}

#[inline(always)]
pub fn log<F: Float>(x: F) -> F {
    let (k, m) = split(x);
    let f = m - F::of(1.0);
    let half_square = F::of(0.5) * f * f;
    let (high, low) = ln2_parts::<F>();
    let rest = k.mul_add(low, log1p_rest(f, half_square));
    at_edges(x, k.mul_add(high, f - (half_square - rest)))
}

#[inline(always)]
pub fn log1p<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return log1p_single(x);
    }
    let one = F::of(1.0);
    let sum = one + x;
    let (k, m) = sum.split_exponent();
    let near_one = k == F::of(0.0);
    let f = choose(near_one, x, m - one);
    // What 1 + x lost to rounding, as a share of the sum.
    let lost = choose(x > one, one - (sum - x), x - (sum - one)) / sum;
    let correction = choose(near_one, F::of(0.0), lost);
    let half_square = F::of(0.5) * f * f;
    let (high, low) = ln2_parts::<F>();
    let rest = log1p_rest(f, half_square) + k.mul_add(low, correction);
    let result = k.mul_add(high, f - (half_square - rest));
    choose(x.abs() < F::of(1e-300), x, at_edges(sum, result))
}

/// `log1p` in f32, where f = x·2⁻ᵏ + (2⁻ᵏ − 1) is rounded once and so needs no correction (and no division).
#[inline(always)]
fn log1p_single<F: Float>(x: F) -> F {
    let one = F::of(1.0);
    let sum = one + x;
    let (k, m) = sum.split_exponent();
    // Beyond 2³⁰ the one is nothing, and 2⁻ᵏ need not be a normal number.
    let inside = k < F::of(30.0);
    let (_, exponent) = choose(inside, -k, F::of(0.0)).nearest();
    let power = F::power_of_two(exponent);
    let f = choose(inside, x.mul_add(power, power - one), m - one);
    let half_square = F::of(0.5) * f * f;
    let (high, low) = ln2_parts::<F>();
    let rest = k.mul_add(low, log1p_rest(f, half_square));
    let result = k.mul_add(high, f - (half_square - rest));
    choose(x.abs() < F::of(1e-30), x, at_edges(sum, result))
}

/// `log1p(x + low)` for 0 ≤ x ≤ 1 and a low far below it, as two numbers to be added, in f64.
#[inline(always)]
pub(super) fn log1p_parts<F: Float>(x: F, low: F) -> (F, F) {
    let one = F::of(1.0);
    let sum = one + x;
    let (k, m) = sum.split_exponent();
    let near_one = k == F::of(0.0);
    let f = choose(near_one, x, m - one);
    let correction = choose(near_one, low, (x - (sum - one)) + low) / sum;
    let half_square = F::of(0.5) * f * f;
    let (ln2_high, ln2_low) = ln2_parts::<F>();
    let rest = log1p_rest(f, half_square) + k.mul_add(ln2_low, correction);
    let (leading, lost) = two_sum(k * ln2_high, f);
    (leading, lost - (half_square - rest))
}

/// `ln(x) · C + k · scale`, where `C` = (first, second) and `scale` = (first, second) have products that are exact
/// in the first part: log2 and log10.
#[inline(always)]
fn scaled_log<F: Float>(x: F, factor: (f64, f64), scale: (f64, f64)) -> F {
    let (k, m) = split(x);
    let f = m - F::of(1.0);
    let half_square = F::of(0.5) * f * f;
    let rest = log1p_rest(f, half_square);
    let high = (f - half_square).upper_half();
    let low = ((f - high) - half_square) + rest;
    let (first, second) = (F::of(factor.0), F::of(factor.1));
    let small = (low + high).mul_add(second, low.mul_add(first, k * F::of(scale.1)));
    let (sum, error) = two_sum(k * F::of(scale.0), high * first);
    at_edges(x, sum + (error + small))
}

#[inline(always)]
pub fn log2<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(log2(x.wide()));
    }
    scaled_log(x, (1.4426946640014648, 3.768874985636099e-07), (1.0, 0.0))
}

#[inline(always)]
pub fn log10<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(log10(x.wide()));
    }
    scaled_log(x, (0.4342944622039795, 1.9699272335463627e-08), (0.30102999560767785, 5.630334806675098e-11))
}
