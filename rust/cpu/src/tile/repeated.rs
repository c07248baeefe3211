//! A kernel of few elements that runs again and again, in the body of a loop: what does not change from run to run is
//! found out once. The lanes are those of other kernels, and so are the bits.

use ckad_graph::{DType, Result};
use ckad_plan::program::{FusedKernel, Kernel, Source};

use super::bind::{first_element, first_position, lane};
use super::load::{fill, read_bits};
use super::prepare::{Spread, signature, spread};
use super::small::{broken, elements, positions, row_length};
use crate::lanes::{self, Lane};
use crate::{Environment, Memory, isa};

/// Where a load's elements come from, each time.
#[derive(Debug)]
enum Fetch {
    /// They lie in memory in the order of the iteration.
    InPlace,
    /// One element, for all.
    Spread,
    /// Elements at these distances from the first one, in bytes.
    Gather(Vec<isize>),
}

#[derive(Debug)]
struct Load {
    fetch: Fetch,
    dtype: DType,
    buffer: usize,
    /// Of the first element, in bytes.
    offset: isize,
    register: usize,
    slot: usize,
}

#[derive(Debug)]
struct Operation {
    lane: Lane,
    result: usize,
    operands: [usize; 3],
}

#[derive(Debug)]
struct Store {
    register: usize,
    buffer: usize,
    bytes: usize,
}

struct Rows {
    rows: unsafe fn(*mut u8, *const u8, usize, usize),
    register: usize,
    buffer: usize,
    length: usize,
    count: usize,
}

/// A prepared kernel. Its buffers may move between runs, and keep their sizes.
pub struct Repeated {
    n: usize,
    loads: Vec<Load>,
    operations: Vec<Operation>,
    stores: Vec<Store>,
    reduce: Option<Rows>,
    /// Room for the elements of each register and, behind them, of each load.
    slots: Vec<u64>,
    /// 8-byte words of one slot.
    words: usize,
    /// Where the elements of each register are.
    at: Vec<*const u8>,
}

impl Repeated {
    /// The kernel prepared, if it is one of few elements. `environment` has the buffers' sizes; they may lie anywhere.
    pub fn new(kernel: &Kernel, environment: &Environment<'_>) -> Result<Option<Repeated>> {
        match kernel {
            Kernel::Fused(kernel) => match elements(kernel) {
                Some(n) if n > 0 => Repeated::of(kernel, n, environment).map(Some),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn of(kernel: &FusedKernel, n: usize, environment: &Environment<'_>) -> Result<Repeated> {
        let isa = isa()?;
        let registers = usize::from(kernel.registers);
        let words = n;
        let mut prepared = Repeated {
            n,
            loads: Vec::new(),
            operations: Vec::with_capacity(kernel.instructions.len()),
            stores: Vec::with_capacity(kernel.stores.len()),
            reduce: None,
            slots: vec![0; words * (registers + kernel.loads.len())],
            words,
            at: vec![std::ptr::null(); registers],
        };
        let mut held: Vec<Option<DType>> = vec![None; registers];
        let hold = |held: &mut Vec<Option<DType>>, register: usize, dtype: DType| match held.get_mut(register) {
            Some(known) => {
                *known = Some(dtype);
                Ok(())
            }
            None => Err(broken(format!("register {register} of too few"))),
        };
        let holds = |held: &[Option<DType>], register: usize, dtype: DType| match held.get(register) {
            Some(&Some(known)) if known == dtype => Ok(register),
            _ => Err(broken(format!("register {register} does not hold {dtype}"))),
        };
        for (index, load) in kernel.loads.iter().enumerate() {
            if load.strides.len() != kernel.extents.len() {
                return Err(broken("a load needs a stride per axis"));
            }
            let (register, slot) = (usize::from(load.register), registers + index);
            hold(&mut held, register, load.dtype)?;
            let size = load.dtype.size();
            let room = prepared.slot(slot);
            if let Some(bits) = environment.scalar(load.source, load.dtype)? {
                // SAFETY: a slot has 8 bytes for each element.
                unsafe { fill(room, load.dtype, bits, n) };
                prepared.at[register] = room;
                prepared.loads.push(prepared.fixed(load.dtype, register, slot));
                continue;
            }
            let Source::Buffer(buffer) = load.source else {
                let first = first_position(load, environment)?;
                for (flat, position) in positions(&kernel.extents, &load.strides, n).enumerate() {
                    let bits = load.dtype.bits_of_i64(first.wrapping_add(position));
                    // SAFETY: as above.
                    unsafe { fill(room.add(flat * size), load.dtype, bits, 1) };
                }
                prepared.loads.push(prepared.fixed(load.dtype, register, slot));
                continue;
            };
            // Checks that all elements lie inside the buffer, wherever that is.
            first_element(load, buffer, &kernel.extents, environment)?;
            let fetch = match spread(load, &kernel.extents) {
                Spread::InOrder => Fetch::InPlace,
                Spread::Scalar if n == 1 => Fetch::InPlace,
                Spread::Scalar => Fetch::Spread,
                Spread::Elsewhere => {
                    let bytes = |position: i64| position as isize * size as isize;
                    Fetch::Gather(positions(&kernel.extents, &load.strides, n).map(bytes).collect())
                }
            };
            let offset = first_position(load, environment)? as isize * size as isize;
            prepared.loads.push(Load { fetch, dtype: load.dtype, buffer: buffer.0 as usize, offset, register, slot });
        }
        for instruction in &kernel.instructions {
            let (arity, typed) = signature(instruction)?;
            let mut operands = [0; 3];
            for (position, operand) in operands.iter_mut().enumerate().take(arity) {
                let dtype = if position < typed { DType::Bool } else { instruction.dtype };
                *operand = holds(&held, usize::from(instruction.operands[position]), dtype)?;
            }
            let result = usize::from(instruction.result);
            if operands[..arity].contains(&result) {
                return Err(broken("an instruction writes its operand"));
            }
            // A lane of fewer operands does not look at the others.
            let first = operands[0];
            operands[arity..].fill(first);
            hold(&mut held, result, instruction.result_dtype)?;
            prepared.operations.push(Operation { lane: lane(instruction, isa)?, result, operands });
        }
        for store in &kernel.stores {
            let bytes = n * store.dtype.size();
            if environment.buffer(store.buffer)?.bytes < bytes {
                return Err(broken("a store is larger than its buffer"));
            }
            let register = holds(&held, usize::from(store.register), store.dtype)?;
            prepared.stores.push(Store { register, buffer: store.buffer.0 as usize, bytes });
        }
        if let Some(reduction) = &kernel.reduce {
            let length = row_length(&kernel.extents, reduction).ok_or_else(|| broken("not a reduction of rows"))?;
            let lanes = lanes::reduce(reduction.kind, reduction.dtype, isa);
            let count = n / length;
            if environment.buffer(reduction.buffer)?.bytes < count * lanes.dtype.size() {
                return Err(broken("a reduction is larger than its buffer"));
            }
            let register = holds(&held, usize::from(reduction.register), reduction.dtype)?;
            let buffer = reduction.buffer.0 as usize;
            prepared.reduce = Some(Rows { rows: lanes.rows, register, buffer, length, count });
        }
        Ok(prepared)
    }

    fn slot(&mut self, slot: usize) -> *mut u8 {
        self.slots[slot * self.words..].as_mut_ptr().cast()
    }

    /// A load whose elements are in its slot for good.
    fn fixed(&self, dtype: DType, register: usize, slot: usize) -> Load {
        Load { fetch: Fetch::Spread, dtype, buffer: usize::MAX, offset: 0, register, slot }
    }

    /// Runs the kernel on buffers that are where `buffers` says.
    ///
    /// # Safety
    /// As for `crate::execute`; the buffers have the sizes that they had when the kernel was prepared.
    pub unsafe fn run(&mut self, buffers: &[Memory]) {
        let (n, words) = (self.n, self.words);
        let slots = self.slots.as_mut_ptr();
        let slot = |index: usize| slots.wrapping_add(index * words).cast::<u8>();
        for load in &self.loads {
            let room = slot(load.slot);
            if load.buffer == usize::MAX {
                self.at[load.register] = room;
                continue;
            }
            let first = buffers[load.buffer].pointer.wrapping_offset(load.offset);
            // SAFETY: all elements lie inside the buffer, as was checked; a slot has room for them.
            unsafe {
                self.at[load.register] = match &load.fetch {
                    Fetch::InPlace => first,
                    Fetch::Spread => {
                        fill(room, load.dtype, read_bits(first, load.dtype), n);
                        room
                    }
                    Fetch::Gather(distances) => {
                        let size = load.dtype.size();
                        for (flat, &distance) in distances.iter().enumerate() {
                            fill(room.add(flat * size), load.dtype, read_bits(first.offset(distance), load.dtype), 1);
                        }
                        room
                    }
                };
            }
        }
        for operation in &self.operations {
            let [a, b, c] = operation.operands.map(|register| self.at[register]);
            let result = slot(operation.result);
            // SAFETY: each address holds n elements of the dtype that was checked, the result's is none of theirs, and
            // the lane is one of an instruction set that the CPU has.
            unsafe { (operation.lane)(result, a, b, c, n) };
            self.at[operation.result] = result;
        }
        for store in &self.stores {
            // SAFETY: both have room for n elements; a result that lies where a load does holds what is written there.
            unsafe { std::ptr::copy(self.at[store.register], buffers[store.buffer].pointer, store.bytes) };
        }
        if let Some(rows) = &self.reduce {
            // SAFETY: the source holds n elements, the target the result of each row; results overlap no operands.
            unsafe { (rows.rows)(buffers[rows.buffer].pointer, self.at[rows.register], rows.length, rows.count) };
        }
    }
}
