//! From a fused kernel to steps over values: who is computed where, in how large a tile. A function of the kernel
//! alone.

use ckad_graph::{DType, Error, Result};
use ckad_plan::program::{FusedKernel, Instruction, Load, Source, TileOp};
use ckad_prim::{Elementwise, RANDOM_BITS_COST};

/// Where a value is while a tile is evaluated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Place {
    /// In memory, in the order of the iteration: load `.0`.
    Memory(usize),
    /// One number in all lanes, spread out before the first tile, at this multiple of the tile in scratch.
    Splat(usize),
    /// In scratch, at this multiple of the tile.
    Slot(usize),
    /// Where store `.0` writes it.
    Store(usize),
}

#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub dtype: DType,
    pub place: Place,
}

/// Evaluates one value of a tile.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A load that does not lie in memory in the order of the iteration; its value has the load's index.
    Gather {
        load: usize,
    },
    Compute {
        instruction: usize,
        result: usize,
        operands: [usize; 3],
    },
}

/// A kernel ready to be bound to buffers. The first values are those of the loads, in order.
#[derive(Debug)]
pub struct Prepared {
    /// Elements of the iteration.
    pub total: usize,
    /// Elements of a tile: a multiple of [`BLOCK`].
    pub tile: usize,
    /// Elements of a piece of work, when the iteration is cut without regard to axes: a multiple of the tile.
    pub piece: usize,
    pub values: Vec<Value>,
    pub steps: Vec<Step>,
    /// (value, store) where the value is not computed in place.
    pub copies: Vec<(usize, usize)>,
    /// The value that the kernel's reduction consumes.
    pub reduced: Option<usize>,
    /// Bytes of all slots for a tile of one element.
    slot_bytes: usize,
}

/// Tiles are multiples of this, the length of the runs that reductions are made of.
pub const BLOCK: usize = crate::lanes::BLOCK;

/// A tile's values should take no more than this. They are what L1 keeps; operands in memory pass through it once. On
/// an L1 of 48 KiB tiles twice as long as with half of this cost 3 % less: fewer calls, fewer ends of loops.
const TILE_BYTES: usize = 32 << 10;

/// Estimated work of one piece, in elementary operations: some tens of microseconds.
const PIECE_WORK: usize = 1 << 19;

fn broken(what: impl Into<String>) -> Error {
    Error::internal("fused kernel", what)
}

impl Prepared {
    pub fn new(kernel: &FusedKernel) -> Result<Prepared> {
        let total = kernel
            .extents
            .iter()
            .try_fold(1usize, |product, &extent| product.checked_mul(extent))
            .ok_or_else(|| broken("the iteration has more elements than memory"))?;
        let mut builder = Builder::default();
        builder.define_values(kernel, total)?;
        builder.place_stores(kernel)?;
        let reduced = match &kernel.reduce {
            None => None,
            Some(reduction) => Some(builder.value_at_end(reduction.register, reduction.dtype)?),
        };
        builder.place_slots(kernel);
        let memory_bytes: usize = kernel.stores.iter().map(|store| store.dtype.size()).sum();
        let bytes = builder.slot_bytes + memory_bytes.max(1);
        let fits = |blocks: usize| bytes * blocks * BLOCK <= TILE_BYTES;
        // Where rows are whole tiles, what is the same for all of them (a bias) is read where it lies.
        let gathers = builder.steps.iter().any(|step| matches!(step, Step::Gather { .. }));
        let row = kernel.extents.last().filter(|_| gathers);
        let in_rows = |blocks: usize| row.is_none_or(|row| row.is_multiple_of(blocks * BLOCK));
        let largest = [8, 4, 2].into_iter().find(|&blocks| fits(blocks));
        let blocks = [8, 4, 2].into_iter().find(|&blocks| fits(blocks) && in_rows(blocks)).or(largest);
        let tile = blocks.unwrap_or(1) * BLOCK;
        let piece = (PIECE_WORK / work(kernel)).next_multiple_of(tile).max(8 * tile);
        Ok(Prepared {
            total,
            tile,
            piece,
            values: builder.values,
            steps: builder.steps,
            copies: builder.copies,
            reduced,
            slot_bytes: builder.slot_bytes,
        })
    }

    /// Bytes of scratch that evaluating tiles takes on each thread.
    pub fn thread_bytes(&self) -> usize {
        self.slot_bytes * self.tile
    }
}

/// Elementary operations an element.
fn work(kernel: &FusedKernel) -> usize {
    let moved = 2 * (kernel.loads.len() + kernel.stores.len()) + usize::from(kernel.reduce.is_some());
    let computed: usize = kernel
        .instructions
        .iter()
        .map(|instruction| match instruction.op {
            TileOp::Elementwise(id) => Elementwise::from_id(id).cost() as usize,
            TileOp::Cast => 1,
            TileOp::RandomBits => RANDOM_BITS_COST as usize,
        })
        .sum();
    (moved + computed).max(1)
}

#[derive(Default)]
struct Builder {
    values: Vec<Value>,
    steps: Vec<Step>,
    copies: Vec<(usize, usize)>,
    /// The value that each register holds at this point.
    registers: Vec<Option<usize>>,
    slot_bytes: usize,
}

/// A place that is not decided yet.
const UNPLACED: Place = Place::Slot(usize::MAX);

impl Builder {
    /// One value per load and instruction, whatever registers they share.
    fn define_values(&mut self, kernel: &FusedKernel, total: usize) -> Result<()> {
        self.registers = vec![None; usize::from(kernel.registers)];
        let mut pending = vec![false; kernel.loads.len()];
        for (index, load) in kernel.loads.iter().enumerate() {
            if load.strides.len() != kernel.extents.len() {
                return Err(broken("a load needs a stride per axis"));
            }
            let place = match spread(load, &kernel.extents) {
                Spread::Scalar => Place::Splat(usize::MAX),
                Spread::InOrder if total > 0 && load.source != Source::Index => Place::Memory(index),
                _ => {
                    pending[index] = true;
                    UNPLACED
                }
            };
            self.values.push(Value { dtype: load.dtype, place });
            self.define(load.register, index)?;
        }
        for (index, instruction) in kernel.instructions.iter().enumerate() {
            let (arity, typed) = signature(instruction)?;
            let mut operands = [0; 3];
            for (position, operand) in operands.iter_mut().enumerate().take(arity) {
                let dtype = if position < typed { DType::Bool } else { instruction.dtype };
                *operand = self.value_at_end(instruction.operands[position], dtype)?;
                if pending.get(*operand) == Some(&true) {
                    pending[*operand] = false;
                    self.steps.push(Step::Gather { load: *operand });
                }
            }
            let result = self.values.len();
            self.values.push(Value { dtype: instruction.result_dtype, place: UNPLACED });
            self.define(instruction.result, result)?;
            self.steps.push(Step::Compute { instruction: index, result, operands });
        }
        // What only a store or the reduction reads.
        let unread = pending.iter().enumerate().filter(|(_, pending)| **pending);
        self.steps.extend(unread.map(|(load, _)| Step::Gather { load }));
        Ok(())
    }

    fn define(&mut self, register: u16, value: usize) -> Result<()> {
        let slot = self.registers.get_mut(usize::from(register));
        *slot.ok_or_else(|| broken(format!("register {register} of too few")))? = Some(value);
        Ok(())
    }

    /// The value that a register holds after what was defined so far.
    fn value_at_end(&self, register: u16, dtype: DType) -> Result<usize> {
        match self.registers.get(usize::from(register)).copied().flatten() {
            Some(value) if self.values[value].dtype == dtype => Ok(value),
            Some(value) => Err(broken(format!("register {register} holds {}, not {dtype}", self.values[value].dtype))),
            None => Err(broken(format!("register {register} is read before it is written"))),
        }
    }

    /// Computes a value where its first store writes it; the others copy. Where a store writes what a load reads, all
    /// of them copy: that comes last.
    fn place_stores(&mut self, kernel: &FusedKernel) -> Result<()> {
        for (index, store) in kernel.stores.iter().enumerate() {
            let value = self.value_at_end(store.register, store.dtype)?;
            if self.values[value].place == UNPLACED && !kernel.overwrites {
                self.values[value].place = Place::Store(index);
            } else {
                self.copies.push((value, index));
            }
        }
        Ok(())
    }

    /// Gives the remaining values slots, a slot serving again once the value in it was last read.
    fn place_slots(&mut self, kernel: &FusedKernel) {
        let mut last_read = vec![0; self.values.len()];
        for (index, step) in self.steps.iter().enumerate() {
            if let Step::Compute { instruction, operands, .. } = *step {
                for &operand in &operands[..arity(kernel.instructions[instruction].op)] {
                    last_read[operand] = index;
                }
            }
        }
        let at_end = kernel.stores.iter().map(|store| store.register).chain(kernel.reduce.iter().map(|r| r.register));
        for value in at_end.filter_map(|register| self.registers[usize::from(register)]) {
            last_read[value] = usize::MAX;
        }
        for value in &mut self.values {
            if let Place::Splat(slot) = &mut value.place {
                *slot = self.slot_bytes;
                self.slot_bytes += value.dtype.size();
            }
        }
        // Free slots by log2 of the element's size.
        let mut free: [Vec<usize>; 4] = Default::default();
        for (index, step) in self.steps.iter().enumerate() {
            let result = match *step {
                Step::Gather { load } => load,
                Step::Compute { result, .. } => result,
            };
            let size = self.values[result].dtype.size();
            if self.values[result].place == UNPLACED {
                let slot = free[size.trailing_zeros() as usize].pop().unwrap_or_else(|| {
                    self.slot_bytes += size;
                    self.slot_bytes - size
                });
                self.values[result].place = Place::Slot(slot);
            }
            let Step::Compute { instruction, operands, .. } = *step else { continue };
            let operands = &operands[..arity(kernel.instructions[instruction].op)];
            for (position, &operand) in operands.iter().enumerate() {
                let Value { dtype, place } = self.values[operand];
                if let Place::Slot(slot) = place
                    && last_read[operand] == index
                    && !operands[..position].contains(&operand)
                {
                    free[dtype.size().trailing_zeros() as usize].push(slot);
                }
            }
        }
    }
}

/// Number of an instruction's operands, and how many of them are bools ahead of those of its dtype.
#[inline]
pub fn signature(instruction: &Instruction) -> Result<(usize, usize)> {
    let row = match instruction.op {
        TileOp::Elementwise(id) => Elementwise::from_id(id),
        TileOp::Cast | TileOp::RandomBits => return Ok((arity(instruction.op), 0)),
    };
    if row.result_dtype(instruction.dtype) != Some(instruction.result_dtype) {
        return Err(undefined(row, instruction.dtype));
    }
    Ok((row.arity(), row.typed_operand()))
}

#[cold]
fn undefined(row: Elementwise, dtype: DType) -> Error {
    broken(format!("{} of {dtype}", row.name()))
}

fn arity(op: TileOp) -> usize {
    match op {
        TileOp::Elementwise(id) => Elementwise::from_id(id).arity(),
        TileOp::Cast => 1,
        TileOp::RandomBits => 3,
    }
}

/// How a load's elements lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    Scalar,
    InOrder,
    Elsewhere,
}

pub fn spread(load: &Load, extents: &[usize]) -> Spread {
    let long_axes = || load.strides.iter().zip(extents).filter(|(_, extent)| **extent != 1);
    if matches!(load.source, Source::Literal(_) | Source::Scalar(_)) || long_axes().all(|(stride, _)| *stride == 0) {
        return Spread::Scalar;
    }
    let mut expected = 1i64;
    for (&stride, &extent) in long_axes().rev() {
        if stride != expected {
            return Spread::Elsewhere;
        }
        expected = expected.saturating_mul(extent as i64);
    }
    Spread::InOrder
}
