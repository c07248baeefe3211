//! What rows of the table mean, written the slow way: floats by std's f64 functions, integers in 128 bits.

use ckad_graph::DType;
use ckad_prim::Elementwise;

/// The row on floats by std and NumPy's definitions, written the slow way.
pub fn float_reference(row: Elementwise, single: bool, a: f64, b: f64, c: f64) -> f64 {
    use Elementwise as E;
    let truth = |value: bool| f64::from(u8::from(value));
    let next = |a: f64, b: f64| {
        if single { f64::from(next_f32(a as f32, b as f32)) } else { next_f64(a, b) }
    };
    match row {
        E::Add => a + b,
        E::Subtract => a - b,
        E::Multiply => a * b,
        E::Divide => a / b,
        E::Lmul => {
            if a == 0.0 || b == 0.0 {
                0.0
            } else {
                a * b
            }
        }
        E::Negative => -a,
        E::Absolute => a.abs(),
        E::Sign => {
            if a > 0.0 {
                1.0
            } else if a < 0.0 {
                -1.0
            } else if a == 0.0 {
                0.0
            } else {
                a
            }
        }
        E::Reciprocal => 1.0 / a,
        E::Square => a * a,
        E::Sqrt => a.sqrt(),
        E::Cbrt => a.cbrt(),
        E::Power => a.powf(b),
        E::FloorDivide => divmod(single, a, b).0,
        E::Remainder => divmod(single, a, b).1,
        E::Fmod => a % b,
        E::Floor => a.floor(),
        E::Ceil => a.ceil(),
        E::Trunc => a.trunc(),
        E::Rint => a.round_ties_even(),
        E::Maximum => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else if a > b {
                a
            } else {
                b
            }
        }
        E::Minimum => {
            if a.is_nan() || b.is_nan() {
                f64::NAN
            } else if a < b {
                a
            } else {
                b
            }
        }
        E::Fmax => {
            if b.is_nan() || a >= b {
                a
            } else {
                b
            }
        }
        E::Fmin => {
            if b.is_nan() || a <= b {
                a
            } else {
                b
            }
        }
        E::Copysign => a.copysign(b),
        E::Nextafter => next(a, b),
        E::Spacing => {
            if a.is_infinite() {
                f64::NAN
            } else {
                next(a, f64::INFINITY.copysign(a + 0.0)) - a
            }
        }
        E::Heaviside => {
            if a.is_nan() {
                a
            } else if a == 0.0 {
                b
            } else {
                truth(a > 0.0)
            }
        }
        E::Hypot => a.hypot(b),
        E::Arctan2 => a.atan2(b),
        E::Ldexp => {
            if b.is_nan() {
                b
            } else {
                scaled(a, b.trunc())
            }
        }
        E::Exponent => {
            if a == 0.0 || !a.is_finite() {
                return 0.0;
            }
            let (mut rest, mut exponent) = (a.abs(), 0.0);
            while rest >= 1.0 {
                (rest, exponent) = (rest / 2.0, exponent + 1.0);
            }
            while rest < 0.5 {
                (rest, exponent) = (rest * 2.0, exponent - 1.0);
            }
            exponent
        }
        E::Exp => a.exp(),
        E::Exp2 => a.exp2(),
        E::Expm1 => a.exp_m1(),
        E::Log => a.ln(),
        E::Log2 => a.log2(),
        E::Log10 => a.log10(),
        E::Log1p => a.ln_1p(),
        E::Logaddexp => {
            if a == b {
                a + 2f64.ln()
            } else {
                let (distance, lost) = distance(a, b);
                let exponential = (-distance).exp();
                a.max(b) + (exponential - exponential * lost).ln_1p()
            }
        }
        E::Logaddexp2 => {
            if a == b {
                a + 1.0
            } else {
                let (distance, lost) = distance(a, b);
                let exponential = (-distance).exp2();
                a.max(b) + (exponential - exponential * lost * 2f64.ln()).ln_1p() / 2f64.ln()
            }
        }
        E::Sin => a.sin(),
        E::Cos => a.cos(),
        E::Tan => a.tan(),
        E::Arcsin => a.asin(),
        E::Arccos => a.acos(),
        E::Arctan => a.atan(),
        E::Sinh => a.sinh(),
        E::Cosh => a.cosh(),
        E::Tanh => a.tanh(),
        E::Arcsinh => a.asinh(),
        E::Arccosh => a.acosh(),
        E::Arctanh => a.atanh(),
        E::Deg2rad => a * (std::f64::consts::PI / 180.0),
        E::Rad2deg => a * (180.0 / std::f64::consts::PI),
        E::Equal => truth(a == b),
        E::NotEqual => truth(a != b),
        E::Less => truth(a < b),
        E::LessEqual => truth(a <= b),
        E::Greater => truth(a > b),
        E::GreaterEqual => truth(a >= b),
        E::LogicalAnd => truth(a != 0.0 && b != 0.0),
        E::LogicalOr => truth(a != 0.0 || b != 0.0),
        E::LogicalXor => truth((a != 0.0) != (b != 0.0)),
        E::LogicalNot => truth(a == 0.0),
        E::Isnan => truth(a.is_nan()),
        E::Isinf => truth(a.is_infinite()),
        E::Isfinite => truth(a.is_finite()),
        E::Signbit => truth(a.is_sign_negative()),
        E::Select => {
            if a != 0.0 {
                b
            } else {
                c
            }
        }
        _ => unreachable!("{} is not a row of floats", row.name()),
    }
}

/// |a − b|, and what its rounding lost where that is a small part of an exponent.
fn distance(a: f64, b: f64) -> (f64, f64) {
    let (high, low) = (a.max(b), a.min(b));
    let distance = high - low;
    let part = high - distance;
    let lost = (high - (distance + part)) + (part - low);
    (distance, if distance < 2000.0 { lost } else { 0.0 })
}

fn next_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        f32::NAN
    } else if a == b {
        b
    } else if b > a {
        a.next_up()
    } else {
        a.next_down()
    }
}

fn next_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == b {
        b
    } else if b > a {
        a.next_up()
    } else {
        a.next_down()
    }
}

fn scaled(a: f64, exponent: f64) -> f64 {
    // 2^e in three factors; exact but for results that are subnormal, where the test allows 2 ulp.
    let third = (exponent.clamp(-2400.0, 2400.0) / 3.0).trunc();
    a * third.exp2() * third.exp2() * (exponent.clamp(-2400.0, 2400.0) - 2.0 * third).exp2()
}

/// npy_divmod.
fn divmod(single: bool, a: f64, b: f64) -> (f64, f64) {
    let round = |value: f64| if single { f64::from(value as f32) } else { value };
    if b == 0.0 {
        return (round(a / b), a % b);
    }
    let mut rest = a % b;
    let mut quotient = round(round(a - rest) / b);
    if rest == 0.0 {
        rest = 0f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest = round(rest + b);
        quotient = round(quotient - 1.0);
    }
    let floor = if quotient == 0.0 { 0f64.copysign(a / b) } else { quotient.floor() };
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

/// The row on integers and bools, in 128 bits; wrapped to the dtype by the caller.
pub fn integer_reference(row: Elementwise, dtype: DType, a: i128, b: i128, c: i128) -> i128 {
    use Elementwise as E;
    let boolean = dtype == DType::Bool;
    let bits = 8 * dtype.size() as i128;
    let floor = |a: i128, b: i128| a.div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b) != 0);
    match row {
        E::Add => {
            if boolean {
                a | b
            } else {
                a + b
            }
        }
        E::Subtract => a - b,
        E::Multiply => a.wrapping_mul(b),
        E::Negative => -a,
        E::Absolute => a.abs(),
        E::Sign => a.signum(),
        E::Square => a.wrapping_mul(a),
        E::Power if b < 0 => match a {
            1 => 1,
            -1 => {
                if b % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        },
        // Wrapping in 128 bits and then to the dtype is wrapping in the dtype.
        E::Power => {
            let (mut base, mut left, mut product) = (a, b, 1i128);
            while left > 0 {
                if left % 2 == 1 {
                    product = product.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                left /= 2;
            }
            product
        }
        E::FloorDivide => {
            if b == 0 {
                0
            } else {
                floor(a, b)
            }
        }
        E::Remainder => {
            if b == 0 {
                0
            } else {
                a - floor(a, b) * b
            }
        }
        E::Fmod => {
            if b == 0 {
                0
            } else {
                a % b
            }
        }
        E::Maximum | E::Fmax => a.max(b),
        E::Minimum | E::Fmin => a.min(b),
        E::BitwiseAnd => a & b,
        E::BitwiseOr => a | b,
        E::BitwiseXor => a ^ b,
        E::Invert => {
            if boolean {
                1 - a
            } else {
                !a
            }
        }
        E::LeftShift => {
            if (0..bits).contains(&b) {
                a << b
            } else {
                0
            }
        }
        E::RightShift => {
            if (0..bits).contains(&b) {
                a >> b
            } else {
                if a < 0 { -1 } else { 0 }
            }
        }
        E::BitwiseCount => i128::from(a.unsigned_abs().count_ones()),
        E::Gcd => gcd(a.abs(), b.abs()),
        E::Lcm => {
            if a == 0 || b == 0 {
                0
            } else {
                (a.abs() / gcd(a.abs(), b.abs())).wrapping_mul(b.abs())
            }
        }
        E::Equal => (a == b).into(),
        E::NotEqual => (a != b).into(),
        E::Less => (a < b).into(),
        E::LessEqual => (a <= b).into(),
        E::Greater => (a > b).into(),
        E::GreaterEqual => (a >= b).into(),
        E::LogicalAnd => (a != 0 && b != 0).into(),
        E::LogicalOr => (a != 0 || b != 0).into(),
        E::LogicalXor => ((a != 0) != (b != 0)).into(),
        E::LogicalNot => (a == 0).into(),
        E::Select => {
            if a != 0 {
                b
            } else {
                c
            }
        }
        _ => unreachable!("{} is not a row of integers", row.name()),
    }
}

fn gcd(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
