//! Functions too rare for an approximation of our own: std's f64 functions, lane by lane.

use super::float::Float;

#[inline(always)]
pub fn cbrt<F: Float>(x: F) -> F {
    F::of(x.to_f64().cbrt())
}

#[inline(always)]
pub fn hypot<F: Float>(x: F, y: F) -> F {
    F::of(x.to_f64().hypot(y.to_f64()))
}

#[inline(always)]
pub fn arcsin<F: Float>(x: F) -> F {
    F::of(x.to_f64().asin())
}

#[inline(always)]
pub fn arccos<F: Float>(x: F) -> F {
    F::of(x.to_f64().acos())
}

#[inline(always)]
pub fn arctan<F: Float>(x: F) -> F {
    F::of(x.to_f64().atan())
}

#[inline(always)]
pub fn arctan2<F: Float>(y: F, x: F) -> F {
    F::of(y.to_f64().atan2(x.to_f64()))
}

#[inline(always)]
pub fn arcsinh<F: Float>(x: F) -> F {
    // Not std's: it loses digits for tiny arguments on some targets.
    let y = x.to_f64().abs();
    let value = if y > 1e9 {
        y.ln() + std::f64::consts::LN_2
    } else {
        let square = y * y;
        (y + square / (1.0 + (square + 1.0).sqrt())).ln_1p()
    };
    F::of(value).copysign(x)
}

#[inline(always)]
pub fn arccosh<F: Float>(x: F) -> F {
    let x = x.to_f64();
    let value = if x < 1.0 {
        f64::NAN
    } else if x > 1e9 {
        x.ln() + std::f64::consts::LN_2
    } else {
        let above = x - 1.0;
        (above + (above * (above + 2.0)).sqrt()).ln_1p()
    };
    F::of(value)
}

#[inline(always)]
pub fn arctanh<F: Float>(x: F) -> F {
    let y = x.to_f64().abs();
    let twice = 2.0 * y;
    // 2y / (1 − y); below ½, where 1 − y is rounded, as a small correction to 2y.
    let ratio = if y < 0.5 { twice + twice * y / (1.0 - y) } else { twice / (1.0 - y) };
    F::of(0.5 * ratio.ln_1p()).copysign(x)
}

/// `x · 2^exponent`, rounded once; the exponent is an integer given as a float (truncated).
#[inline(always)]
pub fn ldexp<F: Float>(x: F, exponent: F) -> F {
    let (mut value, exponent) = (x.to_f64(), exponent.to_f64());
    if exponent.is_nan() {
        return F::of(f64::NAN);
    }
    let power_of_two = |n: i64| f64::from_bits(((n + 1023) as u64) << 52);
    let mut left = exponent.clamp(-2200.0, 2200.0) as i64;
    while left > 1023 {
        value *= power_of_two(1023);
        left -= 1023;
    }
    // Steps down keep 53 bits to spare, so that only the last one can round.
    while left < -1022 {
        value *= power_of_two(-1022 + 53);
        left += 1022 - 53;
    }
    F::of(value * power_of_two(left))
}

/// The exponent e of `frexp`, for which 0.5 ≤ |x|/2ᵉ < 1; 0 where there is none.
#[inline(always)]
pub fn exponent<F: Float>(x: F) -> F {
    let value = x.to_f64();
    if value == 0.0 || !value.is_finite() {
        return F::of(0.0);
    }
    // Subnormal numbers have no exponent in their bits until they are scaled up.
    let subnormal = value.abs() < f64::MIN_POSITIVE;
    let normal = if subnormal { value * (1u64 << 54) as f64 } else { value };
    let biased = (normal.to_bits() >> 52) & 0x7ff;
    F::of(biased as f64 - if subnormal { 1022.0 + 54.0 } else { 1022.0 })
}
