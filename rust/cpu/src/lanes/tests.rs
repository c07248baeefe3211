//! Every row on every dtype and instruction set against naive references.

use ckad_graph::{DType, ScalarBits};
use ckad_prim::Elementwise;

use super::correct::CORRECT;
use super::reference::{float_reference, integer_reference};
use super::{cast, elementwise};
use crate::Isa;
use crate::structural::testing;

/// Elements of a dtype, from a word each to packed memory.
fn pack(dtype: DType, bits: &[ScalarBits]) -> Vec<u64> {
    let mut memory = vec![0u64; (bits.len() * dtype.size()).div_ceil(8) + 1];
    // SAFETY: the whole allocation.
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), memory.len() * 8) };
    testing::pack(dtype, bits, bytes);
    memory
}

fn unpack(dtype: DType, memory: &[u64], n: usize) -> Vec<ScalarBits> {
    // SAFETY: the whole allocation.
    testing::unpack(dtype, unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), memory.len() * 8) }, n)
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
    let mut values =
        vec![0.0, 1.0, 0.5, 1.5, 2.0, 2.5, 3.0, 10.0, 89.0, 104.0, 710.0, 745.0, 1e6, 1e10, 3e38, 1e-40, 1e-45];
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
        Elementwise::Logaddexp | Elementwise::Logaddexp2 => {
            a.is_nan() || b.is_nan() || a.max(b) < 0.0 && a.max(b) > -2.0
        }
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
        Elementwise::Exp,
        Elementwise::Log,
        Elementwise::Sin,
        Elementwise::Cos,
        Elementwise::Tanh,
        Elementwise::Tan,
        Elementwise::Expm1,
        Elementwise::Log1p,
        Elementwise::Exp2,
        Elementwise::Log2,
        Elementwise::Sinh,
        Elementwise::Cosh,
        Elementwise::Log10,
    ];
    // Every 2¹⁵th pattern and a bit, over the whole range of float32.
    let arguments = vec![(0..1u64 << 17).map(|index| (index * 32_771) & 0xffff_ffff).collect::<Vec<_>>()];
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
