//! The interpreter against a naive one that takes an element at a time, and reductions against themselves under
//! other threads, layouts, fusion and instruction sets.

use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, ErrorKind, ReduceKind, ScalarBits};
use ckad_plan::program::{BufferId, FusedKernel, Instruction, Kernel, Load, Reduction, Source, Store, TileOp};
use ckad_prim::Elementwise;

use super::{execute_on, scratch_bytes};
use crate::lanes;
use crate::structural::testing::{pack, pool};
use crate::{Environment, Isa, Memory};

/// 64-byte aligned memory of a buffer.
pub struct Buffer(Vec<[u64; 8]>, usize);

impl Buffer {
    pub fn zeroed(bytes: usize) -> Buffer {
        Buffer(vec![[0; 8]; bytes.div_ceil(64)], bytes)
    }

    pub fn of(dtype: DType, values: impl ExactSizeIterator<Item = ScalarBits>) -> Buffer {
        let mut buffer = Buffer::zeroed(values.len() * dtype.size());
        let values: Vec<ScalarBits> = values.collect();
        // SAFETY: the whole allocation.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.0.as_mut_ptr().cast(), buffer.0.len() * 64) };
        pack(dtype, &values, bytes);
        buffer
    }

    fn f32s(values: &[f32]) -> Buffer {
        Buffer::of(DType::F32, values.iter().map(|value| u64::from(value.to_bits())))
    }

    pub fn memory(&mut self) -> Memory {
        Memory { pointer: self.0.as_mut_ptr().cast(), bytes: self.1 }
    }

    pub fn get(&self, dtype: DType, index: usize) -> ScalarBits {
        let mut bits = [0u8; 8];
        let size = dtype.size();
        assert!((index + 1) * size <= self.1);
        // SAFETY: inside the buffer, as just checked.
        unsafe { bits.as_mut_ptr().copy_from_nonoverlapping(self.0.as_ptr().cast::<u8>().add(index * size), size) };
        u64::from_le_bytes(bits)
    }

    fn set(&mut self, dtype: DType, index: usize, bits: ScalarBits) {
        let size = dtype.size();
        assert!((index + 1) * size <= self.1);
        // SAFETY: inside the buffer, as just checked.
        unsafe {
            let target = self.0.as_mut_ptr().cast::<u8>().add(index * size);
            target.copy_from_nonoverlapping(bits.to_le_bytes().as_ptr(), size);
        }
    }

    pub fn fill(&mut self, byte: u8) {
        self.0.fill([u64::from_le_bytes([byte; 8]); 8]);
    }

    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: inside the allocation.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.1) }.to_vec()
    }
}

fn run(kernel: &FusedKernel, buffers: &mut [Buffer], isa: Isa, threads: usize) {
    let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
    let mut scratch = Buffer::zeroed(scratch_bytes(kernel, threads));
    let environment = Environment {
        buffers: &memories,
        scalars: &SCALARS,
        starts: &STARTS,
        scratch: scratch.memory(),
        cancel: &AtomicBool::new(false),
    };
    // SAFETY: each test gives buffers that fit its kernel.
    pool(threads).install(|| unsafe { execute_on(isa, kernel, &environment) }).unwrap();
}

pub static SCALARS: [ScalarBits; 2] = [0x3fc0_0000, 7];
pub static STARTS: [i64; 2] = [2, -1];

fn widest() -> Isa {
    Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap()
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn float(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

pub fn packed_strides(extents: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis] * extents[axis].max(1) as i64;
    }
    strides
}

pub fn load(source: Source, dtype: DType, strides: &[i64], offset: i64, register: u16) -> Load {
    Load { source, dtype, strides: strides.into(), offset, starts: vec![], register }
}

pub fn compute(row: Elementwise, dtype: DType, result: u16, operands: [u16; 3]) -> Instruction {
    let result_dtype = row.result_dtype(dtype).unwrap();
    Instruction { op: TileOp::Elementwise(row.id()), dtype, result_dtype, result, operands }
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

/// A random kernel over f32, i32 and bool with every kind of load, registers used again, and several stores.
pub fn random_kernel(random: &mut Random) -> (FusedKernel, Vec<Buffer>, usize) {
    let extents: Vec<usize> = match random.below(12) {
        0 => vec![0, 3],
        1 => vec![1, 1],
        2 => vec![5000 + random.below(3000)],
        _ => (0..random.below(4)).map(|_| [1, 2, 3, 7, 20, 33][random.below(6)]).collect(),
    };
    let total: usize = extents.iter().product();
    let reach = total.max(1) * 3 + 10;
    let floats: Vec<f32> = random.floats(reach);
    let ints: Vec<u64> = (0..reach).map(|_| random.below(200) as u64).collect();
    let bools: Vec<u64> = (0..reach).map(|_| random.below(2) as u64).collect();
    let mut buffers = vec![
        Buffer::f32s(&floats),
        Buffer::of(DType::I32, ints.into_iter()),
        Buffer::of(DType::Bool, bools.into_iter()),
    ];
    let operands = buffers.len();
    let mut registers: Vec<DType> = Vec::new();
    let mut loads = Vec::new();
    for (number, dtype) in
        [DType::F32, DType::F32, DType::I32, DType::Bool, DType::F32, DType::I32].into_iter().enumerate()
    {
        let id = match dtype {
            DType::F32 => 0,
            DType::I32 => 1,
            _ => 2,
        };
        let mut strides = packed_strides(&extents);
        let mut offset = random.below(3) as i64;
        let mut source = Source::Buffer(BufferId(id));
        match random.below(6) {
            0 => strides.iter_mut().for_each(|stride| *stride *= 2),
            1 => {
                // Backwards along one axis.
                if let Some(axis) = (!strides.is_empty()).then(|| random.below(strides.len())) {
                    offset += strides[axis] * (extents[axis] as i64 - 1);
                    strides[axis] *= -1;
                }
            }
            2 => {
                // Broadcast along some axes.
                strides.iter_mut().for_each(|stride| *stride *= random.below(2) as i64);
            }
            3 => {
                let reversed: Vec<usize> = extents.iter().rev().copied().collect();
                strides = packed_strides(&reversed).into_iter().rev().collect();
            }
            4 if dtype == DType::F32 => {
                source = [Source::Literal(2.5f32.to_bits()), Source::Scalar(0)][random.below(2)]
            }
            4 if dtype == DType::I32 => source = Source::Index,
            _ => {}
        }
        let mut load = load(source, dtype, &strides, offset.max(0), number as u16);
        if offset >= 1 && source == Source::Buffer(BufferId(id)) {
            load.starts = vec![0, 1];
        }
        loads.push(load);
        registers.push(dtype);
    }
    let mut instructions = Vec::new();
    for _ in 0..random.below(12) {
        let pick = |random: &mut Random, wanted: DType| {
            let of_dtype: Vec<u16> =
                (0..registers.len()).filter(|register| registers[*register] == wanted).map(|r| r as u16).collect();
            (!of_dtype.is_empty()).then(|| of_dtype[random.below(of_dtype.len())])
        };
        let dtype = [DType::F32, DType::F32, DType::I32, DType::Bool][random.below(4)];
        let row = [
            Elementwise::Add,
            Elementwise::Multiply,
            Elementwise::Maximum,
            Elementwise::Less,
            Elementwise::Select,
            Elementwise::Tanh,
            Elementwise::Exp,
            Elementwise::Sin,
        ][random.below(8)];
        if row.result_dtype(dtype).is_none() {
            continue;
        }
        let operands: Option<Vec<u16>> = (0..row.arity())
            .map(|position| pick(random, if position < row.typed_operand() { DType::Bool } else { dtype }))
            .collect();
        let Some(operands) = operands else { continue };
        let mut instruction = compute(row, dtype, 0, [0; 3]);
        if row.typed_operand() == 0 && random.below(5) == 0 {
            instruction.op = TileOp::Cast;
            instruction.result_dtype = [DType::F32, DType::I32, DType::Bool][random.below(3)];
        }
        instruction.operands[..operands.len()].copy_from_slice(&operands);
        // A new register or one that is no operand.
        let used = &instruction.operands[..operands.len()];
        let mut result = random.below(registers.len() + 3).min(registers.len()) as u16;
        if used.contains(&result) {
            result = registers.len() as u16;
        }
        instruction.result = result;
        match registers.get_mut(usize::from(result)) {
            Some(register) => *register = instruction.result_dtype,
            None => registers.push(instruction.result_dtype),
        }
        instructions.push(instruction);
    }
    let mut stores = Vec::new();
    for _ in 0..1 + random.below(4) {
        let register = random.below(registers.len());
        let dtype = registers[register];
        stores.push(Store { buffer: BufferId(buffers.len() as u32), dtype, register: register as u16 });
        buffers.push(Buffer::zeroed(total * dtype.size()));
    }
    let count = registers.len() as u16;
    (
        FusedKernel { extents: extents.into(), loads, instructions, stores, reduce: None, registers: count },
        buffers,
        operands,
    )
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

/// The reduction of buffer 0 (of `dtype`, packed) into buffer 1.
pub fn reduction(kind: ReduceKind, dtype: DType, extents: &[usize], reduced: &[bool]) -> FusedKernel {
    FusedKernel {
        extents: extents.into(),
        loads: vec![load(Source::Buffer(BufferId(0)), dtype, &packed_strides(extents), 0, 0)],
        instructions: vec![],
        stores: vec![],
        reduce: Some(Reduction { kind, reduced: reduced.into(), dtype, register: 0, buffer: BufferId(1) }),
        registers: 1,
    }
}

pub fn results(extents: &[usize], reduced: &[bool]) -> usize {
    extents.iter().zip(reduced).filter(|(_, reduced)| !**reduced).map(|(extent, _)| extent).product()
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
        scalars: &[],
        starts: &[],
        scratch: scratch.memory(),
        cancel: &AtomicBool::new(true),
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
            scalars: &[],
            starts: &[],
            scratch: scratch.memory(),
            cancel: &AtomicBool::new(false),
        };
        // SAFETY: what does not fit is refused before anything is touched.
        let error = unsafe { execute_on(Isa::Scalar, &kernel, &environment) }.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
    }
}
