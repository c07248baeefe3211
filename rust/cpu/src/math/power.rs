//! Powers of floats: xʸ = exp(y·ln x), the logarithm with twice a float's digits.
//!
//! y·ln x is up to 745 and its error becomes the result's relative one, so that f64 needs ln x to 2⁻⁶³ and the
//! exponential of a number in two parts; then results that are exact in exact arithmetic (3², 2⁻³) are so here. f32
//! goes through f64, where one part is enough.

use super::exponential::{exp, exp_tail, ln2_parts};
use super::float::{Float, choose, fast_two_sum, horner, two_product, two_sum};
use super::logarithm::{log, split};

/// ln 2 in three parts, the first two with so few bits that their products with an exponent are exact.
const LN2: [f64; 3] = [0.6931471803691238, 1.9082149288430703e-10, 4.275175589747649e-20];
/// ⅔ as the nearest float and what it lacks.
const TWO_THIRDS: [f64; 2] = [0.6666666666666666, 3.700743415417188e-17];
/// Beyond these |y·ln x|, the result is 0 or infinite.
const LIMIT: f64 = 800.0;

/// x to the power y, as C's `pow` has it where one of them is zero, infinite or NaN.
#[inline(always)]
pub fn power<F: Float>(x: F, y: F) -> F {
    let magnitude = if F::DOUBLE {
        positive(x.abs(), y)
    } else {
        let (base, exponent) = (x.abs().wide(), y.wide());
        F::narrow(exp(exponent * log(base)))
    };
    at_edges(x, y, magnitude)
}

/// `a` to the power y for finite a > 0, in f64.
#[inline(always)]
fn positive<F: Float>(a: F, y: F) -> F {
    let (high, low) = log_parts(a);
    let (product, lost) = two_product(y, high);
    let rest = y.mul_add(low, lost);
    let limit = F::of(LIMIT);
    let beyond = choose(product > limit, limit, -limit);
    let inside = product.abs() < limit;
    exp_of_parts(choose(inside, product, beyond), choose(inside, rest, F::of(0.0)))
}

/// `exp(x + low)`, rounded about once, for a low far below x.
#[inline(always)]
fn exp_of_parts<F: Float>(x: F, low: F) -> F {
    let (n, exponent) = (x * F::of(std::f64::consts::LOG2_E)).nearest();
    let (ln2_high, ln2_low) = ln2_parts::<F>();
    let (r, lost) = two_sum(n.mul_add(-ln2_high, x), -(n * ln2_low));
    let (sum, error) = fast_two_sum(F::of(1.0), r);
    let tail = r * r * exp_tail(r);
    (sum + (low + lost).mul_add(sum + tail, error + tail)).scale(exponent)
}

/// `ln a` for finite a > 0 as two floats, to 2⁻⁶⁴ of its size: 2·artanh s with s = f / (2 + f).
#[inline(always)]
fn log_parts<F: Float>(a: F) -> (F, F) {
    let (k, m) = split(a);
    let (one, two) = (F::of(1.0), F::of(2.0));
    let f = m - one;
    let (divisor, divisor_low) = fast_two_sum(two, f);
    let s = f / divisor;
    let (product, product_low) = two_product(s, divisor);
    let s_low = (((f - product) - product_low) - s * divisor_low) / divisor;

    // ⅔·s³ is up to 1 % of ln m, so it has to be known to 2⁻⁵⁸; what follows is no more than 2⁻¹² of it.
    let (square, square_low) = two_product(s, s);
    let square_low = (two * s).mul_add(s_low, square_low);
    let (cube, cube_low) = two_product(square, s);
    let cube_low = square.mul_add(s_low, square_low.mul_add(s, cube_low));
    let (third, third_low) = two_product(cube, F::of(TWO_THIRDS[0]));
    let third_low = cube.mul_add(F::of(TWO_THIRDS[1]), cube_low.mul_add(F::of(TWO_THIRDS[0]), third_low));
    let series = horner(
        square,
        [
            2.0 / 5.0,
            2.0 / 7.0,
            2.0 / 9.0,
            2.0 / 11.0,
            2.0 / 13.0,
            2.0 / 15.0,
            2.0 / 17.0,
            2.0 / 19.0,
            2.0 / 21.0,
            2.0 / 23.0,
        ],
    );
    let fifth = (cube * square) * series;

    let (sum, sum_low) = fast_two_sum(two * s, third);
    let low = two.mul_add(s_low, sum_low) + (third_low + fifth);
    // k·ln 2 is exact in its first two parts.
    let (whole, whole_low) = fast_two_sum(k * F::of(LN2[0]), k * F::of(LN2[1]));
    let (high, high_low) = two_sum(whole, sum);
    fast_two_sum(high, high_low + (whole_low + k.mul_add(F::of(LN2[2]), low)))
}

/// The power, signs and special values included, from that of |x|.
#[inline(always)]
fn at_edges<F: Float>(x: F, y: F, magnitude: F) -> F {
    let (zero, one) = (F::of(0.0), F::of(1.0));
    let a = x.abs();
    let half = y * F::of(0.5);
    let whole = y.trunc() == y;
    let odd = whole & (half.trunc() != half);
    // 0 and ∞ to a negative power change places.
    let edge = choose((a == zero) == (y > zero), zero, F::INFINITY);
    let magnitude = choose((a == zero) | (a == F::INFINITY), edge, magnitude);
    let magnitude = choose(a == one, one, magnitude);
    let signed = choose(odd & x.is_sign_negative(), -magnitude, magnitude);
    let no_root = (x < zero) & !whole & (a < F::INFINITY);
    let numbers = (a <= F::INFINITY) & (y.abs() <= F::INFINITY);
    let defined = choose(numbers & !no_root, signed, F::NAN);
    choose((y == zero) | (x == one), one, defined)
}
