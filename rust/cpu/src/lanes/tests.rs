//! Every row on every dtype and instruction set against naive references.

use ckad_graph::{DType, ScalarBits};
use ckad_prim::Elementwise;

use super::correct::CORRECT;
use super::{cast, elementwise};
use crate::Isa;

/// Elements of any dtype, 8 bytes apart in value and packed in memory.
fn pack(dtype: DType, bits: &[ScalarBits]) -> Vec<u64> {
    let mut memory = vec![0u64; (bits.len() * dtype.size()).div_ceil(8) + 1];
    let bytes = memory.as_mut_ptr().cast::<u8>();
    for (index, value) in bits.iter().enumerate() {
        let source = value.to_le_bytes();
        // SAFETY: the memory has that many elements.
        unsafe { bytes.add(index * dtype.size()).copy_from_nonoverlapping(source.as_ptr(), dtype.size()) };
    }
    memory
}

fn unpack(dtype: DType, memory: &[u64], n: usize) -> Vec<ScalarBits> {
    let bytes = memory.as_ptr().cast::<u8>();
    (0..n)
        .map(|index| {
            let mut value = [0u8; 8];
            // SAFETY: the memory has that many elements.
            unsafe { value.as_mut_ptr().copy_from_nonoverlapping(bytes.add(index * dtype.size()), dtype.size()) };
            u64::from_le_bytes(value)
        })
        .collect()
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn run(row: Elementwise, dtype: DType, isa: Isa, operands: &[Vec<ScalarBits>]) -> Vec<ScalarBits> {
    let n = operands[0].len();
    let typed = row.typed_operand();
    let packed: Vec<Vec<u64>> = operands
        .iter()
        .enumerate()
        .map(|(index, bits)| pack(if index < typed { DType::Bool } else { dtype }, bits))
        .collect();
    let result = row.result_dtype(dtype).unwrap();
    let mut out = pack(result, &vec![0; n]);
    let at = |index: usize| packed.get(index).unwrap_or(&packed[0]).as_ptr().cast::<u8>();
    let lane = elementwise(row, dtype, isa).unwrap();
    // SAFETY: n packed elements each, and an instruction set that the CPU has.
    unsafe { lane(out.as_mut_ptr().cast(), at(0), at(1), at(2), n) };
    unpack(result, &out, n)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Special values and values of all magnitudes.
fn floats(dtype: DType) -> Vec<f64> {
    let mut values = vec![0.0, 1.0, 0.5, 1.5, 2.0, 2.5, 3.0, 10.0, 89.0, 104.0, 710.0, 745.0, 1e6, 1e10, 3e38, 1e-40, 1e-45];
    if dtype == DType::F64 {
        values.extend([5e-324, 1e-310, f64::MIN_POSITIVE, f64::MAX, 1e100]);
    }
    values.push(f64::INFINITY);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    values.extend((0..60).map(|_| random.uniform(0.0, 4.0)));
    values.extend((0..60).map(|_| random.uniform(-40.0, 30.0).exp2()));
    let negative: Vec<f64> = values.iter().map(|value| -value).collect();
    values.extend(negative);
    values.push(f64::NAN);
    values
}

fn operands(row: Elementwise, dtype: DType) -> Vec<Vec<ScalarBits>> {
    let values: Vec<ScalarBits> = match dtype {
        DType::F32 | DType::F64 => floats(dtype).into_iter().map(|value| dtype.bits_of_f64(value)).collect(),
        DType::Bool => vec![0, 1],
        _ => [0, 1, 2, 3, 5, 7, 8, 12, 63, 64, 100, 127, -1, -2, -3, -7, -12, -100, -128, i64::MIN, i64::MAX, 255]
            .into_iter()
            .map(|value: i64| dtype.bits_of_i64(value))
            .collect(),
    };
    match row.arity() {
        1 => vec![values],
        2 => {
            let pairs = || values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b)));
            vec![pairs().map(|(a, _)| a).collect(), pairs().map(|(_, b)| b).collect()]
        }
        _ => {
            let n = values.len();
            vec![(0..n as u64).map(|i| i % 2).collect(), values.clone(), values.into_iter().rev().collect()]
        }
    }
}

/// The row on floats by std and NumPy's definitions, written the slow way; None for rows tested elsewhere.
fn float_reference(row: Elementwise, single: bool, a: f64, b: f64, c: f64) -> f64 {
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
        E::Lmul => if a == 0.0 || b == 0.0 { 0.0 } else { a * b },
        E::Negative => -a,
        E::Absolute => a.abs(),
        E::Sign => if a > 0.0 { 1.0 } else if a < 0.0 { -1.0 } else if a == 0.0 { 0.0 } else { a },
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
        E::Maximum => if a.is_nan() || b.is_nan() { f64::NAN } else if a >= b { a } else { b },
        E::Minimum => if a.is_nan() || b.is_nan() { f64::NAN } else if a <= b { a } else { b },
        E::Fmax => if b.is_nan() || a >= b { a } else { b },
        E::Fmin => if b.is_nan() || a <= b { a } else { b },
        E::Copysign => a.copysign(b),
        E::Nextafter => next(a, b),
        E::Spacing => if a.is_infinite() { f64::NAN } else { next(a, f64::INFINITY.copysign(a)) - a },
        E::Heaviside => if a.is_nan() { a } else if a == 0.0 { b } else { truth(a > 0.0) },
        E::Hypot => a.hypot(b),
        E::Arctan2 => a.atan2(b),
        E::Ldexp => if b.is_nan() { b } else { scaled(a, b.trunc()) },
        E::Exp => a.exp(),
        E::Exp2 => a.exp2(),
        E::Expm1 => a.exp_m1(),
        E::Log => a.ln(),
        E::Log2 => a.log2(),
        E::Log10 => a.log10(),
        E::Log1p => a.ln_1p(),
        E::Logaddexp => if a == b { a + 2f64.ln() } else { a.max(b) + (-(a - b).abs()).exp().ln_1p() + (a * 0.0 + b * 0.0).abs().min(0.0) },
        E::Logaddexp2 => if a == b { a + 1.0 } else { a.max(b) + (-(a - b).abs()).exp2().ln_1p() / 2f64.ln() },
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
        E::Select => if a != 0.0 { b } else { c },
        _ => unreachable!("{} is not a row of floats", row.name()),
    }
}

fn next_f32(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else if a == b { b } else if b > a { a.next_up() } else { a.next_down() }
}

fn next_f64(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else if a == b { b } else if b > a { a.next_up() } else { a.next_down() }
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

/// Distance in units of the last place of the exact result's float, infinite where one is NaN and the other is not.
fn ulps(dtype: DType, bits: ScalarBits, exact: f64) -> f64 {
    let value = dtype.f64_of_bits(bits);
    if exact.is_nan() || value.is_nan() {
        return if exact.is_nan() && value.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = dtype.f64_of_bits(dtype.bits_of_f64(exact));
    if value == rounded {
        let same_sign = value != 0.0 || value.is_sign_negative() == exact.is_sign_negative();
        return if same_sign { 0.0 } else { f64::INFINITY };
    }
    let (digits, lowest) = if dtype == DType::F32 { (23, -149) } else { (52, -1074) };
    let largest = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
    let exponent = (exact.abs().min(largest).log2().floor() as i32 - digits).max(lowest);
    let unit = f64::from_bits(1).max(2f64.powi(exponent.max(-1022)) * 2f64.powi((exponent + 1022).min(0)));
    // An infinity is as far as the largest number.
    ((value.clamp(-largest, largest) - exact.clamp(-largest, largest)) / unit).abs()
}

#[test]
fn lanes_exist_exactly_where_the_table_allows() {
    for &row in Elementwise::ALL {
        for dtype in DType::ALL {
            assert_eq!(elementwise(row, dtype, Isa::Scalar).is_some(), row.result_dtype(dtype).is_some(), "{row:?}");
        }
    }
}

#[test]
fn floats_agree_with_std() {
    for dtype in [DType::F32, DType::F64] {
        for &row in Elementwise::ALL.iter().filter(|row| row.result_dtype(dtype).is_some()) {
            let operands = operands(row, dtype);
            for isa in available() {
                let results = run(row, dtype, isa, &operands);
                let result_dtype = row.result_dtype(dtype).unwrap();
                for (index, &bits) in results.iter().enumerate() {
                    let operand = |position: usize| match operands.get(position) {
                        Some(bits) if position < row.typed_operand() => bits[index] as f64,
                        Some(bits) => dtype.f64_of_bits(bits[index]),
                        None => 0.0,
                    };
                    let (a, b, c) = (operand(0), operand(1), operand(2));
                    if ill_conditioned(row, a, b) {
                        continue;
                    }
                    let exact = float_reference(row, dtype == DType::F32, a, b, c);
                    if result_dtype == DType::Bool {
                        assert_eq!(bits as f64, exact, "{row:?} {isa:?} of {a:e}, {b:e}");
                        continue;
                    }
                    // std's own error in f64 comes on top of ours; `correct` has no such doubt.
                    let allowed = if dtype == DType::F32 { 2.0 } else { 3.0 };
                    let error = ulps(dtype, bits, exact);
                    assert!(
                        error <= allowed,
                        "{row:?} {dtype} {isa:?} of {a:e}, {b:e}: {:e}, not {exact:e} ({error} ulp)",
                        dtype.f64_of_bits(bits)
                    );
                }
            }
        }
    }
}

/// Where the reference is no better than what it should judge.
fn ill_conditioned(row: Elementwise, a: f64, b: f64) -> bool {
    match row {
        // std loses digits for tiny and huge arguments of its inverse hyperbolics.
        Elementwise::Arcsinh | Elementwise::Arctanh => a.abs() < 0.1 || a.abs() > 1e9,
        Elementwise::Arccosh => !(1.1..1e9).contains(&a),
        // Near a + log(…) = 0 the sum cancels.
        Elementwise::Logaddexp | Elementwise::Logaddexp2 => a.is_nan() || b.is_nan() || a.max(b) < 0.0 && a.max(b) > -2.0,
        _ => false,
    }
}

#[test]
fn doubles_are_within_two_ulp_of_the_correct_result() {
    for &(row, table) in CORRECT {
        let arguments = vec![table.iter().map(|(x, _)| *x).collect::<Vec<_>>()];
        for isa in available() {
            for (&bits, &(x, correct)) in run(row, DType::F64, isa, &arguments).iter().zip(table) {
                let distance = (bits as i64).wrapping_sub(correct as i64).abs();
                let x = f64::from_bits(x);
                assert!(distance <= 2, "{row:?} {isa:?} of {x:e}: off by {distance}");
            }
        }
    }
}

#[test]
fn singles_are_within_two_ulp_on_dense_samples() {
    let rows = [
        Elementwise::Exp, Elementwise::Log, Elementwise::Sin, Elementwise::Cos, Elementwise::Tanh, Elementwise::Tan,
        Elementwise::Expm1, Elementwise::Log1p, Elementwise::Exp2, Elementwise::Log2, Elementwise::Sinh,
        Elementwise::Cosh, Elementwise::Log10,
    ];
    // Every 2¹⁵th pattern and a bit, over the whole range of float32.
    let arguments = vec![(0..1u64 << 17).map(|index| index * 32_771 & 0xffff_ffff).collect::<Vec<_>>()];
    for row in rows {
        for isa in available() {
            for (&bits, &x) in run(row, DType::F32, isa, &arguments).iter().zip(&arguments[0]) {
                let x = DType::F32.f64_of_bits(x);
                let error = ulps(DType::F32, bits, float_reference(row, true, x, 0.0, 0.0));
                assert!(error <= 2.0, "{row:?} {isa:?} of {x:e}: {error} ulp");
            }
        }
    }
}

#[test]
fn instruction_sets_agree_bit_by_bit() {
    let wide: Vec<Isa> = available().filter(|isa| *isa != Isa::Scalar).collect();
    for &row in Elementwise::ALL {
        for dtype in DType::ALL.into_iter().filter(|dtype| row.result_dtype(*dtype).is_some()) {
            let operands = operands(row, dtype);
            let results: Vec<_> = wide.iter().map(|isa| run(row, dtype, *isa, &operands)).collect();
            let normal = |bits: &ScalarBits| {
                let dtype = row.result_dtype(dtype).unwrap();
                if dtype.is_float() && dtype.f64_of_bits(*bits).is_nan() { u64::MAX } else { *bits }
            };
            for pair in results.windows(2) {
                assert!(pair[0].iter().map(normal).eq(pair[1].iter().map(normal)), "{row:?} {dtype}");
            }
            if !dtype.is_float() {
                assert!(results.iter().all(|result| *result == run(row, dtype, Isa::Scalar, &operands)), "{row:?}");
            }
        }
    }
}

/// The row on integers and bools, in 128 bits; wrapped to the dtype by the caller.
fn integer_reference(row: Elementwise, dtype: DType, a: i128, b: i128, c: i128) -> i128 {
    use Elementwise as E;
    let boolean = dtype == DType::Bool;
    let bits = 8 * dtype.size() as i128;
    let floor = |a: i128, b: i128| a.div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b) != 0);
    match row {
        E::Add => if boolean { a | b } else { a + b },
        E::Subtract => a - b,
        E::Multiply => a.wrapping_mul(b),
        E::Negative => -a,
        E::Absolute => a.abs(),
        E::Sign => a.signum(),
        E::Square => a.wrapping_mul(a),
        E::Power if b < 0 => match a {
            1 => 1,
            -1 => if b % 2 == 0 { 1 } else { -1 },
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
        E::FloorDivide => if b == 0 { 0 } else { floor(a, b) },
        E::Remainder => if b == 0 { 0 } else { a - floor(a, b) * b },
        E::Fmod => if b == 0 { 0 } else { a % b },
        E::Maximum | E::Fmax => a.max(b),
        E::Minimum | E::Fmin => a.min(b),
        E::BitwiseAnd => a & b,
        E::BitwiseOr => a | b,
        E::BitwiseXor => a ^ b,
        E::Invert => if boolean { 1 - a } else { !a },
        E::LeftShift => if (0..bits).contains(&b) { a << b } else { 0 },
        E::RightShift => if (0..bits).contains(&b) { a >> b } else { if a < 0 { -1 } else { 0 } },
        E::Gcd => gcd(a.abs(), b.abs()),
        E::Lcm => if a == 0 || b == 0 { 0 } else { (a.abs() / gcd(a.abs(), b.abs())).wrapping_mul(b.abs()) },
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
        E::Select => if a != 0 { b } else { c },
        _ => unreachable!("{} is not a row of integers", row.name()),
    }
}

fn gcd(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn as_i128(dtype: DType, bits: ScalarBits) -> i128 {
    if dtype == DType::U64 { i128::from(bits) } else { i128::from(dtype.i64_of_bits(bits)) }
}

fn wrapped(dtype: DType, value: i128) -> ScalarBits {
    if dtype == DType::Bool { value as u64 } else { dtype.bits_of_i64(value as i64) }
}

#[test]
fn integers_and_bools_agree_with_arithmetic_in_128_bits() {
    for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
        for &row in Elementwise::ALL.iter().filter(|row| row.result_dtype(dtype).is_some()) {
            let operands = operands(row, dtype);
            let results = run(row, dtype, Isa::Scalar, &operands);
            for (index, &bits) in results.iter().enumerate() {
                let operand = |position: usize| match operands.get(position) {
                    Some(bits) if position < row.typed_operand() => i128::from(bits[index]),
                    Some(bits) => as_i128(dtype, bits[index]),
                    None => 0,
                };
                let (a, b, c) = (operand(0), operand(1), operand(2));
                let exact = wrapped(row.result_dtype(dtype).unwrap(), integer_reference(row, dtype, a, b, c));
                assert_eq!(bits, exact, "{row:?} {dtype} of {a}, {b}");
            }
        }
    }
}

#[test]
fn casts_convert_as_c_does() {
    for from in DType::ALL {
        for to in DType::ALL {
            let values: Vec<ScalarBits> = match from {
                DType::Bool => vec![0, 1],
                DType::F32 | DType::F64 => {
                    [0.0, -0.0, 1.0, 1.9, 100.5, 0.25].into_iter().map(|value| from.bits_of_f64(value)).collect()
                }
                _ => [0, 1, 77, -1, -5, i64::MIN, i64::MAX].into_iter().map(|value| from.bits_of_i64(value)).collect(),
            };
            let source = pack(from, &values);
            for isa in available() {
                let mut out = pack(to, &vec![0; values.len()]);
                let at = source.as_ptr().cast::<u8>();
                // SAFETY: packed elements, and an instruction set that the CPU has.
                unsafe { cast(from, to, isa)(out.as_mut_ptr().cast(), at, at, at, values.len()) };
                for (&bits, &value) in unpack(to, &out, values.len()).iter().zip(&values) {
                    let expected = match (from.is_float(), to) {
                        (_, DType::F32 | DType::F64) if from == DType::U64 && to == DType::F32 => {
                            u64::from((value as f32).to_bits())
                        }
                        (false, DType::F32) => u64::from((from.i64_of_bits(value) as f32).to_bits()),
                        (true, _) | (_, DType::F64) => to.bits_of_f64(from.f64_of_bits(value)),
                        (false, DType::Bool) => u64::from(value != 0),
                        (false, _) => wrapped(to, as_i128(from, value)),
                    };
                    assert_eq!(bits, expected, "{from} to {to} of {value:#x} on {isa:?}");
                }
            }
        }
    }
}
