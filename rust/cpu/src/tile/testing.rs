//! What the tests of the interpreter share: memory of buffers, random numbers and kernels, and the parts of a kernel.

use ckad_graph::{DType, ReduceKind, ScalarBits};
use ckad_plan::program::{BufferId, FusedKernel, Instruction, Load, Reduction, Source, Store, TileOp};
use ckad_prim::Elementwise;

use crate::Memory;
use crate::structural::testing::pack;

/// 64-byte aligned memory of a buffer.
pub struct Buffer(Vec<[u64; 8]>, pub usize);

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

    pub fn f32s(values: &[f32]) -> Buffer {
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

    pub fn set(&mut self, dtype: DType, index: usize, bits: ScalarBits) {
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

pub static SCALARS: [ScalarBits; 2] = [0x3fc0_0000, 7];
pub static STARTS: [i64; 2] = [2, -1];

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    pub fn float(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
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
        FusedKernel {
            extents: extents.into(),
            loads,
            instructions,
            stores,
            reduce: None,
            registers: count,
            overwrites: false,
        },
        buffers,
        operands,
    )
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
        overwrites: false,
    }
}

pub fn results(extents: &[usize], reduced: &[bool]) -> usize {
    extents.iter().zip(reduced).filter(|(_, reduced)| !**reduced).map(|(extent, _)| extent).product()
}
