//! sin, cos, tan: x = n·π/2 + r by Cody and Waite's reduction in several parts of π/2, polynomials on |r| ≤ π/4.
//!
//! Beyond [`NEAR`] the products n·part are no longer exact; such lanes (rare) are redone by the `…_far` functions.

use super::float::{Float, choose, fast_two_sum, horner, two_product, two_sum};

/// Greatest |x| for which the branch-free functions hold.
#[inline(always)]
pub fn near<F: Float>() -> F {
    if F::DOUBLE { F::of(1_048_576.0) } else { F::of(131_072.0) }
}

/// `(r, what r's rounding lost, n)`.
#[inline(always)]
fn reduce<F: Float>(x: F) -> (F, F, F::Int) {
    let (n, quadrant) = (x * F::of(std::f64::consts::FRAC_2_PI)).nearest();
    if !F::DOUBLE {
        let r = n.mul_add(F::of(-1.5707963705062866), x);
        let r = n.mul_add(F::of(4.371138828673793e-08), r);
        return (n.mul_add(F::of(1.7151245100058819e-15), r), F::of(0.0), quadrant);
    }
    // Three parts of 33 bits and a rest: 152 bits of π/2, enough for the worst cancellation.
    let first = n.mul_add(F::of(-1.5707963267341256), x);
    let (high, low) = two_sum(first, n * F::of(-6.077100506303966e-11));
    let (high, lower) = two_sum(high, n * F::of(-2.0222662487111665e-21));
    let rest = n.mul_add(F::of(-8.4784276603689e-32), low + lower);
    let (r, lost) = fast_two_sum(high, rest);
    (r, lost, quadrant)
}

/// `sin(r + lost)` as the leading term r and the rest.
#[inline(always)]
fn sin_terms<F: Float>(r: F, lost: F) -> (F, F) {
    let z = r * r;
    if !F::DOUBLE {
        let tail = horner(z, [-0.166666641831398, 0.008332747966051102, -0.000195878412341699]);
        return (r, r * z * tail);
    }
    let tail = horner(
        z,
        [
            -0.16666666666666666,
            0.008333333333330946,
            -0.0001984126983675497,
            2.755731610068303e-06,
            -2.5051131455427946e-08,
            1.591810123027412e-10,
        ],
    );
    let slope = z.mul_add(F::of(-0.5), F::of(1.0));
    (r, (r * z).mul_add(tail, lost * slope))
}

/// `cos(r + lost)` as a leading term and the rest.
#[inline(always)]
fn cos_terms<F: Float>(r: F, lost: F) -> (F, F) {
    let one = F::of(1.0);
    let z = r * r;
    let half = F::of(0.5) * z;
    let leading = one - half;
    let rounding = (one - leading) - half;
    if !F::DOUBLE {
        let tail = horner(z, [0.0416666641831398, -0.001388830249197781, 2.454789137118496e-05]);
        return (leading, (z * z).mul_add(tail, rounding));
    }
    let tail = horner(
        z,
        [
            0.041666666666666664,
            -0.0013888888888887395,
            2.4801587298763433e-05,
            -2.7557317270560326e-07,
            2.0876146024689747e-09,
            -1.1382614868556325e-11,
        ],
    );
    (leading, (z * z).mul_add(tail, rounding - r * lost))
}

#[inline(always)]
fn sum<F: Float>((leading, rest): (F, F)) -> F {
    leading + rest
}

#[inline(always)]
pub fn sin<F: Float>(x: F) -> F {
    let (r, lost, n) = reduce(x);
    let value = choose(F::bit(n, 0), sum(cos_terms(r, lost)), sum(sin_terms(r, lost)));
    choose(x == F::of(0.0), x, choose(F::bit(n, 1), -value, value))
}

#[inline(always)]
pub fn cos<F: Float>(x: F) -> F {
    let (r, lost, n) = reduce(x);
    let value = choose(F::bit(n, 0), sum(sin_terms(r, lost)), sum(cos_terms(r, lost)));
    choose(F::bit(n, 0) != F::bit(n, 1), -value, value)
}

#[inline(always)]
pub fn tan<F: Float>(x: F) -> F {
    if !F::DOUBLE {
        return F::narrow(tan(x.wide()));
    }
    let (r, lost, n) = reduce(x);
    let (sine, cosine) = (sin_terms(r, lost), cos_terms(r, lost));
    let (sine, cosine) = (fast_two_sum(sine.0, sine.1), fast_two_sum(cosine.0, cosine.1));
    let odd = F::bit(n, 0);
    let above = (choose(odd, -cosine.0, sine.0), choose(odd, -cosine.1, sine.1));
    let below = (choose(odd, sine.0, cosine.0), choose(odd, sine.1, cosine.1));
    // A quotient of two sums, corrected once: two rounded sines would add up to more than 2 ulp.
    let quotient = above.0 / below.0;
    let (product, error) = two_product(quotient, below.0);
    let remainder = (((above.0 - product) - error) + above.1) - quotient * below.1;
    let value = quotient + remainder / below.0;
    choose(x.abs() < F::of(1e-150), x, value)
}

#[inline(always)]
pub fn sin_far<F: Float>(x: F) -> F {
    F::of(x.to_f64().sin())
}

#[inline(always)]
pub fn cos_far<F: Float>(x: F) -> F {
    F::of(x.to_f64().cos())
}

#[inline(always)]
pub fn tan_far<F: Float>(x: F) -> F {
    F::of(x.to_f64().tan())
}

#[inline(always)]
pub fn deg2rad<F: Float>(x: F) -> F {
    x * F::of(std::f64::consts::PI / 180.0)
}

#[inline(always)]
pub fn rad2deg<F: Float>(x: F) -> F {
    x * F::of(180.0 / std::f64::consts::PI)
}
