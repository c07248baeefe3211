//! Kernels of few elements against the tiles that run larger ones: the same bits, whichever takes a kernel.

use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, ErrorKind, ReduceKind, Result, ScalarBits};
use ckad_plan::program::{BufferId, FusedKernel, Instruction, Load, Source, Store, TileOp};
use ckad_prim::Elementwise;

use super::testing::{
    Buffer, Random, SCALARS, STARTS, compute, load, packed_strides, random_kernel, reduction, results,
};
use super::{execute_tiles, small, tile_scratch_bytes};
use crate::{Environment, Isa, Memory};

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// Runs a kernel that `small` takes, there or by tiles.
fn run(kernel: &FusedKernel, buffers: &mut [Buffer], isa: Isa, by_tiles: bool) -> Result<()> {
    let n = small::elements(kernel).unwrap_or_else(|| panic!("not small: {kernel:#?}"));
    let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
    let mut scratch = Buffer::zeroed(if by_tiles { tile_scratch_bytes(kernel, 1) } else { 0 });
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
    // SAFETY: each test gives buffers that fit its kernel, or that are refused before anything is touched.
    unsafe {
        if by_tiles { execute_tiles(isa, kernel, &environment) } else { small::execute(kernel, n, isa, &environment) }
    }
}

/// Asserts that both ways write the same bits to all buffers, of which those from `operands` on are results.
fn check(kernel: &FusedKernel, buffers: &mut [Buffer], operands: usize, isa: Isa) {
    let [few, tiles] = [false, true].map(|by_tiles| {
        for buffer in &mut buffers[operands..] {
            // What neither writes must not pass for equal results.
            buffer.fill(if by_tiles { 0xaa } else { 0x55 });
        }
        run(kernel, buffers, isa, by_tiles).unwrap();
        buffers.iter().map(Buffer::bytes).collect::<Vec<_>>()
    });
    assert!(few == tiles, "{isa:?} {kernel:#?}");
}

/// Ordinary numbers, and each special one.
fn random_bits(dtype: DType, random: &mut Random) -> ScalarBits {
    let special = [0.0, -0.0, 1.0, -1.0, 0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40, 3e38, -745.0];
    match dtype {
        DType::Bool => random.below(2) as u64,
        DType::F32 | DType::F64 if random.below(3) == 0 => dtype.bits_of_f64(special[random.below(special.len())]),
        DType::F32 | DType::F64 => dtype.bits_of_f64(random.below(1 << 20) as f64 / f64::from(1 << 17) - 4.0),
        _ => dtype.bits_of_i64(random.below(300) as i64 - 150),
    }
}

fn random_buffer(dtype: DType, count: usize, random: &mut Random) -> Buffer {
    Buffer::of(dtype, (0..count).map(|_| random_bits(dtype, random)))
}

/// Shapes of up to 64 elements, ranks 0 to 4, and the most that `small` takes.
const SHAPES: [&[usize]; 10] =
    [&[], &[1], &[2], &[7], &[64], &[4, 16], &[3, 1, 5], &[2, 3, 4], &[1, 1, 1], &[2, 2, 3, 5]];

/// Elements of an operand's buffer: enough for every layout below, wherever it starts.
const REACH: usize = 160;

/// Every way in which a load can lie over an iteration shape.
fn layouts(dtype: DType, buffer: u32, extents: &[usize], register: u16) -> Vec<Load> {
    let source = Source::Buffer(BufferId(buffer));
    let packed = packed_strides(extents);
    let (last, rank) = (extents.iter().product::<usize>() as i64 - 1, extents.len());
    let reversed_extents: Vec<usize> = extents.iter().rev().copied().collect();
    let transposed: Vec<i64> = packed_strides(&reversed_extents).into_iter().rev().collect();
    let scaled = |by: i64| -> Vec<i64> { packed.iter().map(|stride| stride * by).collect() };
    let without = |dropped: usize| -> Vec<i64> {
        packed.iter().enumerate().map(|(axis, &stride)| if axis == dropped { 0 } else { stride }).collect()
    };
    let mut all = vec![
        load(source, dtype, &packed, 0, register),
        load(source, dtype, &packed, 5, register),
        load(source, dtype, &scaled(2), 3, register),
        load(source, dtype, &scaled(-1), last, register),
        load(source, dtype, &transposed, 1, register),
        load(source, dtype, &vec![0; rank], 9, register),
        load(Source::Index, dtype, &packed, -2, register),
        load(Source::Index, dtype, &vec![0; rank], 3, register),
        load(Source::Literal(2.5f32.to_bits()), dtype, &vec![0; rank], 0, register),
        // The table's second entry is 7 in the low bits: a number of every dtype but bool.
        load(Source::Scalar(u32::from(dtype != DType::F32)), dtype, &vec![0; rank], 0, register),
    ];
    all.extend((0..rank).map(|axis| load(source, dtype, &without(axis), 2, register)));
    // Starts that are known at run time only: 2 and −1.
    for starts in [vec![0], vec![1], vec![0, 1]] {
        all.push(Load { starts, ..load(source, dtype, &packed, 4, register) });
    }
    if dtype == DType::Bool {
        // No bool has other bits than 0 and 1.
        all.retain(|load| matches!(load.source, Source::Buffer(_) | Source::Index));
    }
    all
}

/// A kernel of one instruction whose operands lie as given, stored and, where it can be, stored twice.
fn single(instruction: Instruction, extents: &[usize], loads: Vec<Load>) -> FusedKernel {
    let store =
        |buffer: u32| Store { buffer: BufferId(buffer), dtype: instruction.result_dtype, register: instruction.result };
    FusedKernel {
        extents: extents.into(),
        loads,
        instructions: vec![instruction],
        stores: vec![store(3), store(4)],
        reduce: None,
        registers: 4,
        overwrites: false,
    }
}

#[test]
fn every_row_dtype_and_layout() {
    let mut random = Random(0x51a1);
    for &row in Elementwise::ALL {
        for dtype in DType::ALL.into_iter().filter(|&dtype| row.result_dtype(dtype).is_some()) {
            let instruction = compute(row, dtype, 3, [0, 1, 2]);
            every_layout(instruction, row.arity(), row.typed_operand(), &mut random);
        }
    }
}

#[test]
fn every_cast_and_layout() {
    let mut random = Random(0xca57);
    for from in DType::ALL {
        for to in DType::ALL {
            let cast = Instruction { op: TileOp::Cast, dtype: from, result_dtype: to, result: 3, operands: [0; 3] };
            every_layout(cast, 1, 0, &mut random);
        }
    }
}

#[test]
fn random_bits_of_every_shape() {
    let mut random = Random(0xb175);
    for result_dtype in [DType::U8, DType::U16, DType::U32, DType::U64] {
        let (op, dtype) = (TileOp::RandomBits, DType::U64);
        let instruction = Instruction { op, dtype, result_dtype, result: 3, operands: [0, 1, 2] };
        for extents in SHAPES {
            let (total, still) = (extents.iter().product::<usize>(), vec![0; extents.len()]);
            let mut buffers: Vec<Buffer> = (0..3).map(|_| random_buffer(dtype, REACH, &mut random)).collect();
            buffers.extend([0, 1].map(|_| Buffer::zeroed(total * result_dtype.size())));
            for first in [Source::Buffer(BufferId(2)), Source::Literal(0), Source::Scalar(1)] {
                let index = load(Source::Index, dtype, &packed_strides(extents), 0, 0);
                let key = load(Source::Buffer(BufferId(1)), dtype, &still, 9, 1);
                let kernel = single(instruction, extents, vec![index, key, load(first, dtype, &still, 0, 2)]);
                for isa in available() {
                    check(&kernel, &mut buffers, 3, isa);
                }
            }
        }
    }
}

/// An instruction on every shape, with the layouts of its operands in turn.
fn every_layout(instruction: Instruction, arity: usize, typed: usize, random: &mut Random) {
    for extents in SHAPES {
        let total: usize = extents.iter().product();
        let dtypes: Vec<DType> =
            (0..3).map(|position| if position < typed { DType::Bool } else { instruction.dtype }).collect();
        let mut buffers: Vec<Buffer> = dtypes.iter().map(|&dtype| random_buffer(dtype, REACH, random)).collect();
        buffers.extend([0, 1].map(|_| Buffer::zeroed(total * instruction.result_dtype.size())));
        let choices: Vec<Vec<Load>> =
            (0..arity).map(|position| layouts(dtypes[position], position as u32, extents, position as u16)).collect();
        // Each layout of each operand at least once, beside different ones of the others.
        for turn in 0..choices.iter().map(Vec::len).max().unwrap_or(0) {
            let loads = choices.iter().enumerate();
            let loads = loads.map(|(position, all)| all[(turn * (1 + position) + position) % all.len()].clone());
            let kernel = single(instruction, extents, loads.collect());
            for isa in available() {
                check(&kernel, &mut buffers, 3, isa);
            }
        }
    }
}

/// Loads of every kind, registers used again, chains of instructions, several stores.
#[test]
fn random_kernels() {
    let mut random = Random(0x0dd5);
    let mut found = 0;
    while found < 1500 {
        let (kernel, mut buffers, operands) = random_kernel(&mut random);
        if small::elements(&kernel).is_some() {
            found += 1;
            for isa in available() {
                check(&kernel, &mut buffers, operands, isa);
            }
        }
    }
}

/// Reductions of rows: those over trailing axes, whatever axes of one element lie between.
#[test]
fn every_reduction() {
    let (k, r) = (false, true);
    let cases: [(&[usize], &[bool]); 14] = [
        (&[1], &[k]),
        (&[7], &[r]),
        (&[64], &[r]),
        (&[33], &[r]),
        (&[8, 8], &[k, r]),
        (&[2, 32], &[k, r]),
        (&[5, 12], &[k, r]),
        (&[64, 1], &[k, r]),
        (&[4, 16], &[r, r]),
        (&[3, 1, 5], &[k, r, r]),
        (&[3, 1, 5], &[k, k, r]),
        (&[1, 9, 1], &[r, r, k]),
        (&[2, 3, 4], &[k, k, r]),
        (&[2, 2, 3, 5], &[k, k, r, r]),
    ];
    let mut random = Random(0x5eed);
    let mut taken = 0;
    for (extents, reduced) in cases {
        let total: usize = extents.iter().product();
        for kind in [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min, ReduceKind::Any, ReduceKind::All] {
            for dtype in DType::ALL {
                let is_truth = matches!(kind, ReduceKind::Any | ReduceKind::All);
                let size = if is_truth { 1 } else { dtype.size() };
                let mut kernel = reduction(kind, dtype, extents, reduced);
                if small::elements(&kernel).is_none() {
                    continue;
                }
                taken += 1;
                let mut buffers =
                    vec![random_buffer(dtype, REACH, &mut random), Buffer::zeroed(size * results(extents, reduced))];
                for load in layouts(dtype, 0, extents, 0) {
                    kernel.loads = vec![load];
                    for isa in available() {
                        check(&kernel, &mut buffers, 1, isa);
                    }
                }
                // The last of several instructions, with a store of what goes into it.
                if Elementwise::Add.result_dtype(dtype) == Some(dtype) {
                    let mut kernel = kernel.clone();
                    kernel.instructions = vec![compute(Elementwise::Add, dtype, 1, [0, 0, 0])];
                    kernel.stores = vec![Store { buffer: BufferId(2), dtype, register: 1 }];
                    kernel.registers = 2;
                    buffers.push(Buffer::zeroed(total * dtype.size()));
                    kernel.reduce.as_mut().unwrap().register = 1;
                    for isa in available() {
                        check(&kernel, &mut buffers, 1, isa);
                    }
                }
            }
        }
    }
    // All cases but two that combine nothing.
    assert_eq!(taken, 12 * 5 * DType::ALL.len());
}

/// What is left to the tiles.
#[test]
fn only_few_elements_are_taken() {
    let copy = |extents: &[usize], registers: u16| FusedKernel {
        extents: extents.into(),
        loads: vec![load(Source::Buffer(BufferId(0)), DType::F32, &packed_strides(extents), 0, 0)],
        instructions: vec![],
        stores: vec![Store { buffer: BufferId(1), dtype: DType::F32, register: 0 }],
        reduce: None,
        registers,
        overwrites: false,
    };
    for (extents, registers, expected) in [
        (&[64][..], 32, Some(64)),
        (&[], 1, Some(1)),
        (&[0, 50], 1, Some(0)),
        (&[8, 8], 1, Some(64)),
        (&[65], 1, None),
        (&[13, 5], 1, None),
        (&[64], 33, None),
        (&[0, 65], 1, None),
        (&[usize::MAX, usize::MAX], 1, None),
    ] {
        assert_eq!(small::elements(&copy(extents, registers)), expected, "{extents:?} {registers}");
    }
    // Columns, and rows of nothing, have results of their own.
    for (extents, reduced) in [(&[8, 8][..], &[true, false][..]), (&[3, 0], &[false, true]), (&[0, 3], &[false, true])]
    {
        assert_eq!(small::elements(&reduction(ReduceKind::Sum, DType::F32, extents, reduced)), None, "{extents:?}");
    }
}

#[test]
fn kernels_that_do_not_fit_their_buffers_are_refused() {
    for (operand, result) in [(4 * 30 - 1, 12), (4 * 30, 11)] {
        let kernel = reduction(ReduceKind::Sum, DType::F32, &[3, 10], &[false, true]);
        let mut buffers = [Buffer::zeroed(operand), Buffer::zeroed(result)];
        assert_eq!(run(&kernel, &mut buffers, Isa::Scalar, false).unwrap_err().kind, ErrorKind::Internal);
    }
    let negate = single(
        compute(Elementwise::Negative, DType::F64, 3, [0; 3]),
        &[6],
        vec![load(Source::Buffer(BufferId(0)), DType::F64, &[1], 0, 0)],
    );
    let buffers = || [48, 0, 0, 48, 48].map(Buffer::zeroed);
    assert!(run(&negate, &mut buffers(), Isa::Scalar, false).is_ok());
    for (buffer, bytes) in [(0, 47), (3, 47), (4, 40)] {
        let mut buffers = buffers();
        buffers[buffer] = Buffer::zeroed(bytes);
        assert_eq!(run(&negate, &mut buffers, Isa::Scalar, false).unwrap_err().kind, ErrorKind::Internal);
    }
    // Registers that hold another dtype, or nothing yet, and operands that are overwritten.
    let mut wrong = [negate.clone(), negate.clone(), negate.clone()];
    wrong[0].loads[0].dtype = DType::I64;
    wrong[1].instructions[0].operands[0] = 2;
    wrong[2].instructions[0].result = 0;
    for kernel in &wrong {
        assert_eq!(run(kernel, &mut buffers(), Isa::Scalar, false).unwrap_err().kind, ErrorKind::Internal);
    }
}
