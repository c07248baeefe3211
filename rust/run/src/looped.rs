//! Loops: the steps of a body, run again and again over buffers of which a few move.
//!
//! Everything is laid out in the kernel's scratch before the first iteration (`ckad_plan::loops`): between two of them
//! only addresses change, those of slices and of carries. A carry whose states are kept lies in their stack; another
//! one is written over itself where the body can do that, or else goes back and forth between two places, so that the
//! last one is where it is to be.

use ckad_cpu::{Environment, Memory};
use ckad_graph::{Error, Result};
use ckad_plan::loops::{CarryLayout, Piece};
use ckad_plan::program::{ArrayRef, LoopKernel, Place, Source, Step};

use crate::execute::launch;

/// A buffer that is a slice of an array: where the first one is, and how far they are apart.
struct Moving {
    buffer: usize,
    first: *mut u8,
    stride: usize,
}

/// The places of a carry, all of `bytes`.
struct Carry {
    input: usize,
    output: usize,
    bytes: usize,
    first: *mut u8,
    /// The stack of states.
    states: Option<*mut u8>,
    last: *mut u8,
    /// Where every other one is.
    other: *mut u8,
}

/// Runs a loop.
///
/// # Safety
/// As for `ckad_cpu::execute`, and the kernel was verified.
pub(crate) unsafe fn run(kernel: &LoopKernel, environment: &Environment<'_>) -> Result<()> {
    let (scan, body) = (kernel.scan, &*kernel.body);
    let mut places: Vec<CarryLayout> = Vec::with_capacity(scan.carries as usize);
    let layout = kernel.layout(|carry| places.push(carry));
    if layout.bytes > environment.scratch.bytes {
        return Err(Error::internal("run", format!("a loop needs {} bytes of scratch", layout.bytes)));
    }
    let at = |piece: Piece| environment.scratch.pointer.wrapping_add(piece.offset);
    let (consts, carries) = (scan.consts as usize, scan.carries as usize);
    let mut scalars = 0;
    let mut operand = |array: &ArrayRef| -> Result<Memory> {
        let Some(bits) = environment.scalar(array.source, array.dtype)? else {
            let Source::Buffer(id) = array.source else {
                return Err(Error::internal("run", "a loop's operand is no array"));
            };
            return environment.buffer(id);
        };
        let pointer = at(layout.scalars).wrapping_add(8 * scalars);
        scalars += 1;
        // SAFETY: the layout has 8 bytes for each operand that is a number.
        unsafe { std::ptr::copy_nonoverlapping(bits.to_le_bytes().as_ptr(), pointer, 8) };
        Ok(Memory { pointer, bytes: array.dtype.size() })
    };
    let operands = ckad_graph::tables::tried("run", kernel.operands.iter().map(&mut operand))?;
    let result = |part: u32| match kernel.results.get(part as usize) {
        Some(Some(ArrayRef { source: Source::Buffer(id), .. })) => environment.buffer(*id).map(Some),
        _ => Ok(None),
    };

    let program = &body.program;
    let count = program.buffers.len();
    let table = at(layout.table).cast::<Memory>();
    for (index, buffer) in program.buffers.iter().enumerate() {
        let memory = match buffer.place {
            Place::Arena(offset) => Memory { pointer: at(layout.arena).wrapping_add(offset), bytes: buffer.bytes },
            Place::Input(_) | Place::Output(_) => Memory { bytes: buffer.bytes, ..Memory::EMPTY },
            Place::Scratch => Memory::EMPTY,
            Place::Constant(_) => return Err(Error::internal("run", "a loop's body has a constant of its own")),
        };
        // SAFETY: the layout has an entry for each buffer.
        unsafe { table.add(index).write(memory) };
    }
    let place = |buffer: usize, pointer: *mut u8| {
        debug_assert!(buffer < count);
        // SAFETY: one of the entries that were written above; nobody looks at the table now.
        unsafe { (*table.add(buffer)).pointer = pointer };
    };
    let input = |operand: usize| body.inputs[operand + 1].0 as usize;
    let bytes = |buffer: usize| program.buffers[buffer].bytes;
    let index = at(layout.index).cast::<i64>();
    place(body.inputs[0].0 as usize, index.cast());
    for (constant, memory) in operands[..consts].iter().enumerate() {
        place(input(constant), memory.pointer);
    }
    let mut moving = Vec::with_capacity(scan.xs as usize + scan.ys as usize);
    for (x, memory) in operands.iter().enumerate().skip(consts + carries) {
        moving.push(Moving { buffer: input(x), first: memory.pointer, stride: bytes(input(x)) });
    }
    for y in 0..scan.ys as usize {
        let buffer = body.outputs[carries + y].0 as usize;
        match result((carries + y) as u32)? {
            Some(memory) => moving.push(Moving { buffer, first: memory.pointer, stride: bytes(buffer) }),
            None => place(buffer, at(layout.unread)),
        }
    }
    let mut carried = Vec::with_capacity(carries);
    for (carry, place) in places.into_iter().enumerate() {
        let last = match (result(carry as u32)?, place.last) {
            (Some(memory), _) => memory.pointer,
            (None, Some(piece)) => at(piece),
            (None, None) => return Err(Error::internal("run", "a carry without a place")),
        };
        let output = body.outputs[carry].0 as usize;
        carried.push(Carry {
            input: input(consts + carry),
            output,
            bytes: bytes(output),
            first: operands[consts + carry].pointer,
            states: result(scan.states(carry))?.map(|memory| memory.pointer),
            last,
            other: place.other.map_or(last, at),
        });
    }

    let trips = scan.trips as usize;
    let number = |turn: usize| if scan.reverse { trips - 1 - turn } else { turn };
    for carry in &carried {
        let into = match (trips, carry.states) {
            (0, _) => carry.last,
            (_, Some(states)) => states.wrapping_add(number(0) * carry.bytes),
            (_, None) => continue,
        };
        // SAFETY: an operand and a place of as many bytes, which do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(carry.first, into, carry.bytes) };
    }
    let inner = Environment {
        buffers: &[],
        blocks: &[],
        scalars: &program.scalars_added.1,
        starts: &program.starts_added.1,
        scratch: Memory { pointer: at(layout.scratch), bytes: layout.scratch.bytes },
        ..*environment
    };
    for turn in 0..trips {
        let now = number(turn);
        // SAFETY: the layout has room for it.
        unsafe { index.write(now as i64) };
        for slice in &moving {
            place(slice.buffer, slice.first.wrapping_add(now * slice.stride));
        }
        for carry in &carried {
            let is_last = turn + 1 == trips;
            let (from, into) = match carry.states {
                Some(states) => {
                    let state = |turn: usize| states.wrapping_add(number(turn) * carry.bytes);
                    (state(turn), if is_last { carry.last } else { state(turn + 1) })
                }
                None => {
                    // The last one is written to `last`, the one before to `other`, and so on.
                    let (even, odd) = (carry.last, carry.other);
                    let left = trips - 1 - turn;
                    let (from, into) = if left.is_multiple_of(2) { (odd, even) } else { (even, odd) };
                    (if turn == 0 { carry.first } else { from }, into)
                }
            };
            place(carry.input, from);
            place(carry.output, into);
        }
        // SAFETY: written above, of that many entries, and not changed while the steps run.
        let buffers = unsafe { std::slice::from_raw_parts(table, count) };
        // SAFETY: the body was verified with the kernel; its buffers are laid out as it says.
        unsafe { iterate(kernel, &Environment { buffers, ..inner })? };
    }
    Ok(())
}

/// The steps of a body, once.
///
/// # Safety
/// As for [`launch`].
unsafe fn iterate(kernel: &LoopKernel, environment: &Environment<'_>) -> Result<()> {
    let steps = kernel.body.program.steps.as_slice();
    let mut start = 0;
    while start < steps.len() {
        let joined = |step: &&Step| step.joined;
        let end = start + 1 + steps[start + 1..].iter().take_while(joined).count();
        // SAFETY: the caller's promises.
        unsafe { launch(&steps[start..end], environment) }.map_err(|(step, mut error)| {
            error.within.insert(0, kernel.body.positions.get(start + step).copied().unwrap_or(0));
            error
        })?;
        start = end;
    }
    Ok(())
}
