//! A prepared kernel on the buffers of one run: addresses, scalars, lanes.

use ckad_graph::{DType, Error, Result, ScalarBits};
use ckad_plan::program::{BufferId, FusedKernel, Instruction, Load, Source, TileOp};
use ckad_prim::Elementwise;

use super::load::{Gather, read_bits};
use super::prepare::{Place, Prepared, Step};
use crate::lanes::{self, Lane};
use crate::{Environment, Isa};

/// What a load turned out to be.
#[derive(Debug)]
pub enum Origin {
    Memory(*mut u8),
    Splat(ScalarBits),
    Gather(Gather),
}

#[derive(Debug)]
pub struct Bound {
    /// By load.
    pub origins: Vec<Origin>,
    /// By store: the first byte.
    pub stores: Vec<*mut u8>,
    /// By instruction.
    pub lanes: Vec<Lane>,
}

// SAFETY: addresses; what is done with them is justified where it is done.
unsafe impl Sync for Bound {}

fn broken(what: impl Into<String>) -> Error {
    Error::internal("fused kernel", what)
}

impl Bound {
    pub fn new(kernel: &FusedKernel, prepared: &Prepared, isa: Isa, environment: &Environment<'_>) -> Result<Bound> {
        let origins = kernel
            .loads
            .iter()
            .enumerate()
            .map(|(index, load)| origin(load, prepared.values[index].place, kernel, prepared, isa, environment))
            .collect::<Result<_>>()?;
        let mut stores = Vec::with_capacity(kernel.stores.len());
        for store in &kernel.stores {
            let memory = environment.buffer(store.buffer)?;
            if memory.bytes < prepared.total * store.dtype.size() {
                return Err(broken("a store is larger than its buffer"));
            }
            stores.push(memory.pointer);
        }
        let lanes = prepared
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Gather { .. } => None,
                Step::Compute { instruction, .. } => Some(&kernel.instructions[*instruction]),
            })
            .map(|instruction| lane(instruction, isa))
            .collect::<Result<_>>()?;
        Ok(Bound { origins, stores, lanes })
    }
}

/// The loop of an instruction.
#[inline]
pub fn lane(instruction: &Instruction, isa: Isa) -> Result<Lane> {
    match instruction.op {
        TileOp::Cast => Ok(lanes::cast(instruction.dtype, instruction.result_dtype, isa)),
        TileOp::RandomBits => lanes::random_bits(instruction.result_dtype, isa)
            .ok_or_else(|| broken(format!("random bits of {}", instruction.result_dtype))),
        TileOp::Elementwise(id) => {
            let row = Elementwise::from_id(id);
            match lanes::elementwise(row, instruction.dtype, isa) {
                Some(lane) => Ok(lane),
                None => Err(undefined(row, instruction.dtype)),
            }
        }
    }
}

#[cold]
fn undefined(row: Elementwise, dtype: DType) -> Error {
    broken(format!("{} of {dtype}", row.name()))
}

fn origin(
    load: &Load,
    place: Place,
    kernel: &FusedKernel,
    prepared: &Prepared,
    isa: Isa,
    environment: &Environment<'_>,
) -> Result<Origin> {
    if let Some(bits) = environment.scalar(load.source, load.dtype)? {
        return Ok(Origin::Splat(bits));
    }
    let Source::Buffer(buffer) = load.source else {
        let first = first_position(load, environment)?;
        return match place {
            Place::Splat(_) => Ok(Origin::Splat(load.dtype.bits_of_i64(first))),
            _ => Ok(Origin::Gather(Gather::of_index(first, load.dtype, &kernel.extents, &load.strides, isa)?)),
        };
    };
    if prepared.total == 0 {
        return Ok(Origin::Splat(0));
    }
    let first = first_element(load, buffer, &kernel.extents, environment)?;
    Ok(match place {
        Place::Memory(_) => Origin::Memory(first),
        // SAFETY: an element of an operand, which the caller promises to be readable and aligned.
        Place::Splat(_) => Origin::Splat(unsafe { read_bits(first, load.dtype) }),
        _ => Origin::Gather(Gather::from_memory(first, load.dtype, &kernel.extents, &load.strides, isa)?),
    })
}

/// The load's position at the origin of the iteration.
pub fn first_position(load: &Load, environment: &Environment<'_>) -> Result<i64> {
    load.starts.iter().try_fold(load.offset, |offset, &start| Ok(offset.wrapping_add(environment.start(start)?)))
}

/// The load's element at the origin of an iteration that is not empty, all of which lies inside the buffer.
pub fn first_element(
    load: &Load,
    buffer: BufferId,
    extents: &[usize],
    environment: &Environment<'_>,
) -> Result<*mut u8> {
    let memory = environment.buffer(buffer)?;
    let offset = first_position(load, environment)?;
    let size = load.dtype.size();
    let (mut lowest, mut highest) = (i128::from(offset), i128::from(offset));
    for (&extent, &stride) in extents.iter().zip(&load.strides) {
        let reach = (extent as i128 - 1) * i128::from(stride);
        lowest += reach.min(0);
        highest += reach.max(0);
    }
    if lowest < 0 || (highest + 1) * size as i128 > memory.bytes as i128 {
        let what = format!("a load of elements {lowest} to {highest} from a buffer of {} bytes", memory.bytes);
        return Err(broken(what));
    }
    // Inside the buffer, as just checked; of a block of rows, maybe not inside what there is of it.
    Ok(memory.pointer.wrapping_offset(offset as isize * size as isize))
}
