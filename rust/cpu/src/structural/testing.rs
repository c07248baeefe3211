//! What the tests of kernels share: arrays of any dtype as bits, packed and not, their arithmetic one element at a
//! time, thread pools, and a runner that tries every way of handing an array to a structural kernel.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, Op, Result, ScalarBits};
use ckad_plan::program::{ArrayRef, BufferId, Kernel, Parameters, Source};
use rayon::ThreadPool;

use super::array::elements;
use super::scratch_bytes;
use crate::team::together;
use crate::{Environment, Memory, Repeated};

/// An array in C order, an element in the low bits of each word.
#[derive(Clone, PartialEq, Debug)]
pub struct Value {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bits: Vec<ScalarBits>,
}

impl Value {
    pub fn new(dtype: DType, shape: &[usize], element: impl FnMut(usize) -> ScalarBits) -> Value {
        Value { dtype, shape: shape.to_vec(), bits: (0..elements(shape)).map(element).collect() }
    }

    pub fn floats(dtype: DType, shape: &[usize], values: &[f64]) -> Value {
        Value::new(dtype, shape, |flat| dtype.bits_of_f64(values[flat]))
    }

    pub fn indices(shape: &[usize], values: &[i64]) -> Value {
        Value::new(DType::I64, shape, |flat| values[flat] as u64)
    }

    /// Small whole numbers, negative ones among them where there are any: sums of them are exact in every order.
    pub fn whole(dtype: DType, shape: &[usize], random: &mut Random) -> Value {
        Value::new(dtype, shape, |_| dtype.bits_of_i64(random.below(9) as i64 - 4 * i64::from(dtype.is_signed())))
    }

    /// Any bits at all, NaNs and infinities included: for kernels that only move elements.
    pub fn any(dtype: DType, shape: &[usize], random: &mut Random) -> Value {
        Value::new(dtype, shape, |_| match dtype {
            DType::Bool => random.next() & 1,
            _ => random.next() >> (64 - 8 * dtype.size()),
        })
    }

    /// Floats in −1..1, integers as in `whole`.
    pub fn rough(dtype: DType, shape: &[usize], random: &mut Random) -> Value {
        if dtype.is_float() {
            return Value::new(dtype, shape, |_| dtype.bits_of_f64(random.float()));
        }
        Value::whole(dtype, shape, random)
    }

    pub fn at(&self, index: &[usize]) -> ScalarBits {
        self.bits[flat(index, &self.shape)]
    }

    pub fn f64s(&self) -> Vec<f64> {
        self.bits.iter().map(|&bits| self.dtype.f64_of_bits(bits)).collect()
    }
}

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }

    pub fn float(&mut self) -> f64 {
        self.below(1 << 24) as f64 / (1u64 << 23) as f64 - 1.0
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

pub fn flat(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |flat, (&index, &extent)| flat * extent + index)
}

/// An index of few axes: a slice that needs no allocation, since tests walk over millions.
#[derive(Clone, Copy)]
pub struct Index {
    axes: [usize; 8],
    rank: usize,
}

impl Index {
    pub fn of(entries: impl Iterator<Item = usize>) -> Index {
        let (mut axes, mut rank) = ([0; 8], 0);
        for entry in entries {
            axes[rank] = entry;
            rank += 1;
        }
        Index { axes, rank }
    }
}

impl std::ops::Deref for Index {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.axes[..self.rank]
    }
}

impl std::ops::DerefMut for Index {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.axes[..self.rank]
    }
}

/// Every index of a shape in C order.
pub fn indices(shape: &[usize]) -> impl Iterator<Item = Index> {
    let shape = shape.to_vec();
    let mut next = Index { axes: [0; 8], rank: shape.len() };
    (0..elements(&shape)).map(move |_| {
        let index = next;
        for (digit, &extent) in next.iter_mut().zip(&shape).rev() {
            *digit += 1;
            if *digit < extent {
                break;
            }
            *digit = 0;
        }
        index
    })
}

fn mask(dtype: DType) -> u64 {
    u64::MAX >> (64 - 8 * dtype.size())
}

pub fn add(dtype: DType, a: ScalarBits, b: ScalarBits) -> ScalarBits {
    match dtype {
        DType::F32 => u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits()),
        DType::F64 => (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        DType::Bool => a | b,
        _ => a.wrapping_add(b) & mask(dtype),
    }
}

pub fn multiply(dtype: DType, a: ScalarBits, b: ScalarBits) -> ScalarBits {
    match dtype {
        DType::F32 => u64::from((f32::from_bits(a as u32) * f32::from_bits(b as u32)).to_bits()),
        DType::F64 => (f64::from_bits(a) * f64::from_bits(b)).to_bits(),
        DType::Bool => a & b,
        _ => a.wrapping_mul(b) & mask(dtype),
    }
}

/// `thread_count` threads, the same pool for all tests.
pub fn pool(thread_count: usize) -> &'static ThreadPool {
    static POOLS: [OnceLock<ThreadPool>; 8] = [const { OnceLock::new() }; 8];
    POOLS[thread_count]
        .get_or_init(|| rayon::ThreadPoolBuilder::new().num_threads(thread_count).build().expect("a thread pool"))
}

const MARGIN: usize = 64;

/// Packed elements, an element in the low bits of each word.
pub fn pack(dtype: DType, bits: &[ScalarBits], memory: &mut [u8]) {
    // Copies of a size that the compiler knows: a call for each element is what would take the time.
    fn of<const SIZE: usize>(bits: &[ScalarBits], memory: &mut [u8]) {
        for (place, bits) in memory.as_chunks_mut::<SIZE>().0.iter_mut().zip(bits) {
            place.copy_from_slice(&bits.to_le_bytes()[..SIZE]);
        }
    }
    assert!(memory.len() >= bits.len() * dtype.size());
    match dtype.size() {
        1 => of::<1>(bits, memory),
        2 => of::<2>(bits, memory),
        4 => of::<4>(bits, memory),
        _ => of::<8>(bits, memory),
    }
}

/// The first `count` elements of packed memory.
pub fn unpack(dtype: DType, memory: &[u8], count: usize) -> Vec<ScalarBits> {
    fn of<const SIZE: usize>(memory: &[u8], count: usize) -> Vec<ScalarBits> {
        let word = |place: &[u8; SIZE]| {
            let mut bits = [0; 8];
            bits[..SIZE].copy_from_slice(place);
            u64::from_le_bytes(bits)
        };
        memory.as_chunks::<SIZE>().0[..count].iter().map(word).collect()
    }
    match dtype.size() {
        1 => of::<1>(memory, count),
        2 => of::<2>(memory, count),
        4 => of::<4>(memory, count),
        _ => of::<8>(memory, count),
    }
}

/// 64-byte aligned memory with a margin of all-one bits behind it: NaNs, for whoever reads too far.
#[derive(Clone)]
pub struct Buffer {
    words: Vec<[u64; 8]>,
    bytes: usize,
}

impl Buffer {
    pub fn of(value: &Value) -> Buffer {
        let mut buffer = Buffer::filled(value.bits.len() * value.dtype.size());
        pack(value.dtype, &value.bits, buffer.all_bytes_mut());
        buffer
    }

    /// All-one bits.
    pub fn filled(bytes: usize) -> Buffer {
        Buffer { words: vec![[u64::MAX; 8]; (bytes + MARGIN).div_ceil(64)], bytes }
    }

    pub fn memory(&mut self) -> Memory {
        Memory { pointer: self.words.as_mut_ptr().cast(), bytes: self.bytes }
    }

    fn all_bytes(&self) -> &[u8] {
        // SAFETY: the whole allocation.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.words.len() * 64) }
    }

    fn all_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the whole allocation.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 64) }
    }

    /// Whether the contents are the same, bit by bit.
    pub fn equals(&self, other: &Buffer) -> bool {
        self.all_bytes()[..self.bytes] == other.all_bytes()[..other.bytes]
    }

    pub fn check_margin(&self) {
        assert!(self.all_bytes()[self.bytes..].iter().all(|&byte| byte == 0xff), "written behind the end");
    }

    pub fn value(&self, dtype: DType, shape: &[usize]) -> Value {
        self.check_margin();
        Value { dtype, shape: shape.to_vec(), bits: unpack(dtype, self.all_bytes(), elements(shape)) }
    }
}

/// A structural node and where it starts, with a graph's lists resolved.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub list: Vec<i64>,
    pub start: Option<i64>,
}

impl Node {
    pub fn new(op: Op) -> Node {
        Node { op, list: Vec::new(), start: None }
    }

    pub fn with(op: Op, list: &[i64]) -> Node {
        Node { op, list: list.to_vec(), start: None }
    }

    pub fn strided(op: Op, strides: &[i64], start: i64) -> Node {
        Node { op, list: strides.to_vec(), start: Some(start) }
    }

    /// Runs on operands in buffers, into a result of its own.
    pub fn run(&self, operands: &[&Value], dtype: DType, shape: &[usize], threads: usize) -> Result<Value> {
        self.run_as(&Operands::of(operands), dtype, shape, threads, Way::PLAIN, false)
            .map(|result| result.value(dtype, shape))
    }

    /// The error of a run whose result is its base: the base must not have changed.
    pub fn refusal(&self, operands: &[&Value], dtype: DType, shape: &[usize]) -> ckad_graph::Error {
        let way = Way { in_place: self.op.overwrites_base(), ..Way::PLAIN };
        self.run_as(&Operands::of(operands), dtype, shape, 1, way, false).err().expect("a refusal")
    }

    /// A run that was cancelled before it began.
    pub fn cancelled(&self, operands: &[&Value], dtype: DType, shape: &[usize]) -> Result<()> {
        self.run_as(&Operands::of(operands), dtype, shape, 2, Way::PLAIN, true).map(drop)
    }

    /// Asserts the result's bits in every way of running: in place and not, prepared and not, scalars in buffers,
    /// tables and as literals, on several numbers of threads where there is work for them.
    pub fn check(&self, operands: &[&Value], expected: &Value) {
        let threads: &[usize] =
            if expected.bits.len().max(operands.iter().map(|x| x.bits.len()).sum()) < 4000 { &[1] } else { &[1, 2, 5] };
        let in_place: &[bool] = if self.op.overwrites_base() { &[false, true] } else { &[false] };
        let scalars: &[Scalars] = if operands.iter().any(|operand| operand.bits.len() == 1) {
            &[Scalars::Buffers, Scalars::Table, Scalars::Literals]
        } else {
            &[Scalars::Buffers]
        };
        let (operands, packed) = (Operands::of(operands), Buffer::of(expected));
        for (&threads, repeated) in threads.iter().flat_map(|threads| [(threads, false), (threads, true)]) {
            for &in_place in in_place {
                for &scalars in scalars {
                    let way = Way { in_place, scalars, repeated };
                    let result = self.run_as(&operands, expected.dtype, &expected.shape, threads, way, false);
                    let result = result.unwrap_or_else(|error| panic!("{self:?}: {error}"));
                    if !result.equals(&packed) {
                        let result = result.value(expected.dtype, &expected.shape);
                        let wrong = (0..result.bits.len()).find(|&flat| result.bits[flat] != expected.bits[flat]);
                        let shapes: Vec<_> = operands.values.iter().map(|operand| &operand.shape).collect();
                        panic!(
                            "{self:?} of {shapes:?} → {} {:?}, {way:?}, {threads} threads: \
                             element {wrong:?} is {:?}, not {:?}",
                            expected.dtype,
                            expected.shape,
                            wrong.map(|flat| result.bits[flat]),
                            wrong.map(|flat| expected.bits[flat]),
                        );
                    }
                }
            }
        }
    }

    fn run_as(
        &self,
        operands: &Operands<'_>,
        dtype: DType,
        shape: &[usize],
        threads: usize,
        way: Way,
        cancelled: bool,
    ) -> Result<Buffer> {
        let mut buffers = operands.packed.clone();
        let mut table = Vec::new();
        let references: Vec<ArrayRef> = operands
            .values
            .iter()
            .enumerate()
            .map(|(position, operand)| {
                let is_scalar = operand.bits.len() == 1 && !(way.in_place && position == 0);
                let source = match way.scalars {
                    Scalars::Table if is_scalar => {
                        table.push(operand.bits[0]);
                        Source::Scalar(table.len() as u32 - 1)
                    }
                    Scalars::Literals if is_scalar && literal(operand).is_some() => {
                        Source::Literal(literal(operand).unwrap_or_default())
                    }
                    _ => Source::Buffer(BufferId(position as u32)),
                };
                ArrayRef { source, dtype: operand.dtype, shape: operand.shape.as_slice().into() }
            })
            .collect();
        buffers.push(Buffer::filled(elements(shape) * dtype.size()));
        let out = if way.in_place { 0 } else { operands.packed.len() };
        // Prepared kernels learn only when they run that two buffers are one.
        let named = if way.repeated { operands.packed.len() } else { out };
        let result = ArrayRef { source: Source::Buffer(BufferId(named as u32)), dtype, shape: shape.into() };
        let parameters = Parameters { list: self.list.clone(), start: self.start.map(|_| 0) };
        let scratch_size = scratch_bytes(&self.op, &parameters, &references, &result, threads);
        let mut scratch = Buffer::filled(scratch_size);
        let mut memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
        memories[named] = memories[out];
        let starts: Vec<i64> = self.start.into_iter().collect();
        let environment = Environment {
            buffers: &memories,
            blocks: &[],
            ahead: None,
            scalars: &table,
            starts: &starts,
            scratch: scratch.memory(),
            cancel: &AtomicBool::new(cancelled),
            poll: None,
        };
        let elsewhere: Vec<Memory> =
            memories.iter().map(|memory| Memory { bytes: memory.bytes, ..Memory::EMPTY }).collect();
        let kernel = Kernel::Structural { op: self.op, parameters, operands: references, result };
        let prepared = match way.repeated && !cancelled {
            true => Repeated::new(&kernel, &Environment { buffers: &elsewhere, ..environment })?,
            false => None,
        };
        // SAFETY: buffers hold their arrays, the scratch as much as was asked for.
        let outcome = together(pool(threads), threads, || unsafe {
            match prepared {
                Some(mut prepared) => prepared.run(&environment),
                None => crate::execute(&kernel, &environment),
            }
        });
        scratch.check_margin();
        for (position, operand) in operands.packed.iter().enumerate() {
            if position != out || outcome.is_err() {
                assert!(buffers[position].equals(operand), "{self:?} changed operand {position}");
            }
            buffers[position].check_margin();
        }
        buffers[out].check_margin();
        outcome.map(|()| buffers.swap_remove(out))
    }
}

/// Operands, and what their buffers hold before a run.
struct Operands<'a> {
    values: &'a [&'a Value],
    packed: Vec<Buffer>,
}

impl<'a> Operands<'a> {
    fn of(values: &'a [&'a Value]) -> Operands<'a> {
        Operands { values, packed: values.iter().map(|value| Buffer::of(value)).collect() }
    }
}

#[derive(Clone, Copy, Debug)]
struct Way {
    in_place: bool,
    scalars: Scalars,
    repeated: bool,
}

impl Way {
    const PLAIN: Way = Way { in_place: false, scalars: Scalars::Buffers, repeated: false };
}

/// Where operands of one element are.
#[derive(Clone, Copy, Debug)]
enum Scalars {
    Buffers,
    Table,
    Literals,
}

/// The bits of the f32 that is exactly the array's one element.
fn literal(operand: &Value) -> Option<u32> {
    let value = operand.dtype.f64_of_bits(operand.bits[0]) as f32;
    (operand.dtype.bits_of_f64(f64::from(value)) == operand.bits[0]).then_some(value.to_bits())
}
