//! The interpreter against a naive one that takes an element at a time, and reductions against themselves under
//! other threads, layouts, fusion and instruction sets.

use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, ErrorKind, ReduceKind};
use ckad_plan::program::{BufferId, FusedKernel, Kernel, Source, Store, TileOp};
use ckad_prim::Elementwise;

use super::testing::{Buffer, Random, SCALARS, STARTS, compute, random_kernel, reduction, results};
use super::{execute_on, scratch_bytes};
use crate::lanes;
use crate::structural::testing::pool;
use crate::team::together;
use crate::{Environment, Isa, Memory};

fn run(kernel: &FusedKernel, buffers: &mut [Buffer], isa: Isa, threads: usize) {
    let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
    let mut scratch = Buffer::zeroed(scratch_bytes(kernel, threads));
    let environment = Environment {
        buffers: &memories,
        blocks: &[],
        ahead: None,
        scalars: &SCALARS,
        starts: &STARTS,
        scratch: scratch.memory(),
        cancel: &AtomicBool::new(false),
        poll: None,
    };
    // SAFETY: each test gives buffers that fit its kernel.
    together(pool(threads), threads, || unsafe { execute_on(isa, kernel, &environment) }).unwrap();
}

fn widest() -> Isa {
    Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap()
}

/// One element at a time, in registers that hold one element.
fn naive(kernel: &FusedKernel, buffers: &mut [Buffer], isa: Isa) {
    let total: usize = kernel.extents.iter().product();
    for flat in 0..total {
        let mut index = vec![0; kernel.extents.len()];
        let mut rest = flat;
        for axis in (0..index.len()).rev() {
            index[axis] = rest % kernel.extents[axis];
            rest /= kernel.extents[axis];
        }
        let mut registers = vec![0u64; usize::from(kernel.registers)];
        for load in &kernel.loads {
            let starts: i64 = load.starts.iter().map(|start| STARTS[*start as usize]).sum();
            let along: i64 = load.strides.iter().zip(&index).map(|(stride, index)| stride * *index as i64).sum();
            let position = load.offset + starts + along;
            registers[usize::from(load.register)] = match load.source {
                Source::Buffer(id) => buffers[id.0 as usize].get(load.dtype, position as usize),
                Source::Literal(bits) => load.dtype.bits_of_f64(f64::from(f32::from_bits(bits))),
                Source::Scalar(scalar) => SCALARS[scalar as usize],
                Source::Index => load.dtype.bits_of_i64(position),
            };
        }
        for instruction in &kernel.instructions {
            let lane = match instruction.op {
                TileOp::Cast => lanes::cast(instruction.dtype, instruction.result_dtype, isa),
                TileOp::RandomBits => lanes::random_bits(instruction.result_dtype, isa).unwrap(),
                TileOp::Elementwise(id) => {
                    lanes::elementwise(Elementwise::from_id(id), instruction.dtype, isa).unwrap()
                }
            };
            let operands = instruction.operands.map(|operand| registers[usize::from(operand)]);
            let at = |position: usize| (&raw const operands[position]).cast::<u8>();
            let mut result = 0u64;
            // SAFETY: one element each, little endian, in 8 bytes.
            unsafe { lane((&raw mut result).cast(), at(0), at(1), at(2), 1) };
            registers[usize::from(instruction.result)] = result;
        }
        for store in &kernel.stores {
            buffers[store.buffer.0 as usize].set(store.dtype, flat, registers[usize::from(store.register)]);
        }
    }
}

#[test]
fn random_kernels_agree_with_one_element_at_a_time() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for _ in 0..400 {
            let (kernel, mut buffers, operands) = random_kernel(&mut random);
            naive(&kernel, &mut buffers, isa);
            let expected: Vec<Vec<u8>> = buffers.iter().map(Buffer::bytes).collect();
            buffers[operands..].iter_mut().for_each(|buffer| *buffer = Buffer::zeroed(buffer.1));
            run(&kernel, &mut buffers, isa, 2);
            let results: Vec<Vec<u8>> = buffers.iter().map(Buffer::bytes).collect();
            assert!(results == expected, "{isa:?} {kernel:#?}");
        }
    }
}

/// Shapes and flags that reach every way of cutting.
fn cases() -> Vec<(Vec<usize>, Vec<bool>)> {
    let (k, r) = (false, true);
    vec![
        (vec![], vec![]),
        (vec![1], vec![r]),
        (vec![1, 5], vec![r, k]),
        (vec![7], vec![r]),
        (vec![256], vec![r]),
        (vec![257], vec![r]),
        (vec![1000], vec![k]),
        (vec![5000], vec![r]),
        (vec![700_001], vec![r]),
        (vec![300, 10], vec![k, r]),
        (vec![9, 3000], vec![k, r]),
        (vec![3, 400_000], vec![k, r]),
        (vec![3000, 9], vec![r, k]),
        (vec![200_000, 3], vec![r, k]),
        (vec![37, 2500], vec![r, k]),
        (vec![20_000, 40], vec![r, k]),
        (vec![100, 4, 3], vec![k, r, k]),
        (vec![6, 90, 70], vec![k, r, k]),
        (vec![12, 30, 50], vec![r, k, r]),
        (vec![4, 5, 1, 6, 7], vec![r, k, r, k, r]),
        (vec![5, 4, 3, 2], vec![k, r, k, r]),
        (vec![3, 2, 64, 3000], vec![r, r, k, r]),
    ]
}

/// Exactly summable in any order: the naive sum must agree to the bit.
#[test]
fn reductions_of_small_integers_are_exact() {
    let mut random = Random(77);
    for (extents, reduced) in cases() {
        let total: usize = extents.iter().product();
        let values: Vec<i64> = (0..total).map(|_| random.below(7) as i64 - 3).collect();
        let count = results(&extents, &reduced);
        let positions = result_positions(&extents, &reduced);
        for dtype in [DType::F32, DType::F64, DType::I32, DType::I8, DType::U64, DType::Bool] {
            let bits = |value: i64| {
                if dtype.is_float() { dtype.bits_of_f64(value as f64) } else { dtype.bits_of_i64(value) }
            };
            // What the elements are to this dtype: U64 takes −1 for a large number, bool for true.
            let stored: Vec<i128> = (-3..=3)
                .map(|value| match dtype {
                    DType::U64 => i128::from(bits(value)),
                    _ => i128::from(dtype.i64_of_bits(bits(value))),
                })
                .collect();
            let source = Buffer::of(dtype, values.iter().map(|&value| bits(value)));
            let mut buffers = [source, Buffer::zeroed(0)];
            for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min, ReduceKind::Any, ReduceKind::All] {
                let result_dtype = if matches!(kind, ReduceKind::Any | ReduceKind::All) { DType::Bool } else { dtype };
                buffers[1] = Buffer::zeroed(count * result_dtype.size());
                run(&reduction(kind, dtype, &extents, &reduced), &mut buffers, widest(), 2);
                let elements = values.iter().map(|&value| stored[(value + 3) as usize]);
                let expected = naive_reduction(kind, elements.zip(&positions), count);
                for (index, &value) in expected.iter().enumerate() {
                    let bits = match result_dtype {
                        DType::F32 | DType::F64 => result_dtype.bits_of_f64(value as f64),
                        DType::U64 => value as u64,
                        DType::Bool => u64::from(value != 0),
                        _ => result_dtype.bits_of_i64(value as i64),
                    };
                    let got = buffers[1].get(result_dtype, index);
                    // A sum of zeros may carry either sign.
                    let same = got == bits || dtype.is_float() && result_dtype.f64_of_bits(got) == value as f64;
                    assert!(same, "{kind:?} {dtype} {extents:?} {reduced:?} [{index}]: {got:#x}, not {bits:#x}");
                }
            }
        }
    }
}

/// For each element in C order, which result it goes into.
fn result_positions(extents: &[usize], reduced: &[bool]) -> Vec<u32> {
    (0..extents.iter().product())
        .map(|flat: usize| {
            let (mut rest, mut position, mut step) = (flat, 0, 1);
            for (&extent, &reduced) in extents.iter().zip(reduced).rev() {
                if !reduced {
                    position += rest % extent * step;
                    step *= extent;
                }
                rest /= extent;
            }
            position as u32
        })
        .collect()
}

fn naive_reduction<'a>(kind: ReduceKind, elements: impl Iterator<Item = (i128, &'a u32)>, count: usize) -> Vec<i128> {
    let mut sums: Vec<Option<i128>> = vec![None; count];
    for (value, &position) in elements {
        let truth = i128::from(value != 0);
        let sum = &mut sums[position as usize];
        *sum = Some(match (kind, *sum) {
            (ReduceKind::Any | ReduceKind::All, None) => truth,
            (_, None) => value,
            (ReduceKind::Sum, Some(sum)) => sum + value,
            (ReduceKind::Max, Some(sum)) => sum.max(value),
            (ReduceKind::Min, Some(sum)) => sum.min(value),
            (ReduceKind::Any, Some(sum)) => sum | truth,
            (ReduceKind::All, Some(sum)) => sum & truth,
        });
    }
    sums.into_iter().map(|sum| sum.unwrap_or_default()).collect()
}

/// The reduction in a kernel that negates twice, keeps many values alive and stores one: smaller tiles, other places.
fn fused(kernel: &FusedKernel) -> FusedKernel {
    let mut kernel = kernel.clone();
    let dtype = kernel.loads[0].dtype;
    let live = 24;
    kernel.instructions.push(compute(Elementwise::Negative, dtype, 1, [0; 3]));
    kernel.instructions.extend((2..live).map(|register| compute(Elementwise::Negative, dtype, register, [0; 3])));
    kernel
        .instructions
        .extend((2..live).map(|register| compute(Elementwise::Add, dtype, live + register, [register, 0, 0])));
    kernel.instructions.push(compute(Elementwise::Negative, dtype, live, [1, 0, 0]));
    kernel.stores.push(Store { buffer: BufferId(2), dtype, register: 2 * live - 1 });
    kernel.registers = 2 * live;
    if let Some(reduction) = &mut kernel.reduce {
        reduction.register = live;
    }
    kernel
}

#[test]
fn a_reduction_has_the_same_bits_whatever_runs_it() {
    let mut random = Random(5);
    for (extents, reduced) in cases() {
        let total: usize = extents.iter().product();
        let values = random.floats(total);
        let bytes = 4 * results(&extents, &reduced);
        let kernel = reduction(ReduceKind::Sum, DType::F32, &extents, &reduced);
        let mut buffers = [Buffer::f32s(&values), Buffer::zeroed(bytes), Buffer::zeroed(4 * total)];
        run(&kernel, &mut buffers, widest(), 1);
        let expected = buffers[1].bytes();
        let check = |what: &str, kernel: &FusedKernel, isa: Isa, threads: usize, source: &[f32]| {
            let mut buffers = [Buffer::f32s(source), Buffer::zeroed(bytes), Buffer::zeroed(4 * total)];
            run(kernel, &mut buffers, isa, threads);
            assert!(buffers[1].bytes() == expected, "{what}: {extents:?} {reduced:?}");
        };
        check("two threads", &kernel, widest(), 2, &values);
        check("five threads", &kernel, widest(), 5, &values);
        check("fused", &fused(&kernel), widest(), 2, &values);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            check(isa.name(), &kernel, isa, 2, &values);
            check(isa.name(), &fused(&kernel), isa, 1, &values);
        }
        // The same values with two others between neighbours, and backwards.
        let mut spread = kernel.clone();
        spread.loads[0].strides.iter_mut().for_each(|stride| *stride *= -3);
        spread.loads[0].offset = 3 * (total as i64 - 1);
        let mut loose = vec![f32::NAN; 3 * total];
        for (index, &value) in values.iter().enumerate() {
            loose[3 * (total - 1 - index)] = value;
        }
        check("strided", &spread, widest(), 2, &loose);
    }
}

#[test]
fn sums_are_accurate() {
    let mut random = Random(99);
    for (extents, reduced) in cases() {
        let total: usize = extents.iter().product();
        let values: Vec<f32> = random.floats(total).iter().map(|value| value.abs() + 0.1).collect();
        let count = results(&extents, &reduced);
        let mut buffers = [Buffer::f32s(&values), Buffer::zeroed(4 * count)];
        run(&reduction(ReduceKind::Sum, DType::F32, &extents, &reduced), &mut buffers, widest(), 2);
        let all: f64 = (0..count).map(|index| DType::F32.f64_of_bits(buffers[1].get(DType::F32, index))).sum();
        let exact: f64 = values.iter().map(|value| f64::from(*value)).sum();
        assert!((all - exact).abs() <= 3e-7 * exact, "{extents:?} {reduced:?}: {all} {exact}");
    }
}

#[test]
fn a_nan_anywhere_wins_max_and_min() {
    for position in [0, 1, 255, 256, 999] {
        for kind in [ReduceKind::Max, ReduceKind::Min] {
            for (extents, reduced) in [(vec![1000], vec![true]), (vec![500, 2], vec![true, false])] {
                let mut values = vec![1f32; 1000];
                values[position] = f32::NAN;
                let count = results(&extents, &reduced);
                let mut buffers = [Buffer::f32s(&values), Buffer::zeroed(4 * count)];
                run(&reduction(kind, DType::F32, &extents, &reduced), &mut buffers, widest(), 1);
                assert!(DType::F32.f64_of_bits(buffers[1].get(DType::F32, position % count)).is_nan());
            }
        }
    }
}

#[test]
fn empty_reductions_give_the_neutral_element() {
    let expected =
        [(ReduceKind::Sum, 0.0), (ReduceKind::Max, f64::NEG_INFINITY), (ReduceKind::Any, 0.0), (ReduceKind::All, 1.0)];
    for (kind, value) in expected {
        let result = if matches!(kind, ReduceKind::Any | ReduceKind::All) { DType::Bool } else { DType::F32 };
        let mut buffers = [Buffer::zeroed(0), Buffer::of(result, [9, 9, 9].into_iter())];
        run(&reduction(kind, DType::F32, &[3, 0], &[false, true]), &mut buffers, widest(), 1);
        for index in 0..3 {
            let got = result.f64_of_bits(buffers[1].get(result, index));
            assert!(got == value && got.is_sign_negative() == value.is_sign_negative(), "{kind:?}: {got}");
        }
    }
}

#[test]
fn a_cancelled_kernel_is_interrupted() {
    let kernel = reduction(ReduceKind::Sum, DType::F32, &[5000], &[true]);
    let mut buffers = [Buffer::zeroed(20_000), Buffer::zeroed(4)];
    let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
    let mut scratch = Buffer::zeroed(scratch_bytes(&kernel, 1));
    let environment = Environment {
        buffers: &memories,
        blocks: &[],
        ahead: None,
        scalars: &[],
        starts: &[],
        scratch: scratch.memory(),
        cancel: &AtomicBool::new(true),
        poll: None,
    };
    // SAFETY: the buffers fit the kernel.
    let error = unsafe { crate::execute(&Kernel::Fused(kernel), &environment) }.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Interrupted);
}

#[test]
fn kernels_that_do_not_fit_their_buffers_are_refused() {
    let kernel = reduction(ReduceKind::Sum, DType::F32, &[5000], &[true]);
    for (operand, result) in [(19_996, 4), (20_000, 3)] {
        let mut buffers = [Buffer::zeroed(operand), Buffer::zeroed(result)];
        let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
        let mut scratch = Buffer::zeroed(scratch_bytes(&kernel, 1));
        let environment = Environment {
            buffers: &memories,
            blocks: &[],
            ahead: None,
            scalars: &[],
            starts: &[],
            scratch: scratch.memory(),
            cancel: &AtomicBool::new(false),
            poll: None,
        };
        // SAFETY: what does not fit is refused before anything is touched.
        let error = unsafe { execute_on(Isa::Scalar, &kernel, &environment) }.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
    }
}
