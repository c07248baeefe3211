//! Proves of a program, without its graph, that running it touches only the memory it may.
//!
//! * Buffers that are alive at the same step have disjoint bytes, inside the arena. What a product reads is alive
//!   until the step is over that is joined with it.
//! * No step reads what was not written before, or outside the life of a buffer; inputs and constants are never
//!   written; every output is written by the end.
//! * What is being written to the file is written by no step, what is being read from it is read by none; what comes
//!   back was written there, as a whole, and lies where nothing else does.
//! * An output that may have an input's memory is written where no step has that still to read.
//! * No fused load reaches outside its buffer (where a start is known only to the run, the kernel
//!   checks), and every register is written before it is read.

mod loops;
mod transfers;

use std::collections::BTreeMap;

use ckad_graph::{Error, Op, Result, interrupt};

use crate::lower::joined::{results, uses};
use crate::program::{ArrayRef, Buffer, BufferId, FusedKernel, Kernel, Load, Place, Program, Source, Takeover};
use crate::takeover::{Readers, fits};
use crate::verify::loops::verify_loop;
use crate::verify::transfers::Transfers;

/// Whether graphs and programs are verified: in debug builds, and where `CKAD_VERIFY=1`.
pub fn verifying() -> bool {
    cfg!(debug_assertions) || std::env::var_os("CKAD_VERIFY").is_some_and(|value| value == "1")
}

pub(crate) fn broken(what: String) -> Error {
    Error::internal("verify", what)
}

/// Checks the whole program.
pub fn verify_program(program: &Program) -> Result<()> {
    verify_arena(program)?;
    verify_joined(program)?;
    let written = verify_order(program, false)?;
    if !program.transfers.is_empty() {
        verify_order(program, true)?;
    }
    let mut produced = vec![false; program.outputs.len()];
    let last = program.steps.len().saturating_sub(1) as u32;
    for (index, buffer) in program.buffers.iter().enumerate() {
        let Place::Output(output) = buffer.place else { continue };
        let spec = program.outputs.get(output as usize);
        let spec = spec.ok_or_else(|| broken(format!("buffer {index} is an output that does not exist")))?;
        let bytes = spec.shape.iter().product::<usize>() * spec.dtype.size();
        let complete = bytes == buffer.bytes && (written[index] || bytes == 0) && buffer.last_step == last;
        if !complete || std::mem::replace(&mut produced[output as usize], true) {
            return Err(broken(format!("output {output} is not written once, in full, and kept")));
        }
    }
    verify_takeovers(program)?;
    match produced.iter().position(|done| !done) {
        Some(output) => Err(broken(format!("output {output} has no buffer"))),
        None => Ok(()),
    }
}

/// Plays the steps, and the transfers as they are where steps run in turn or where joined ones run as one. Which
/// buffers are written in the end.
fn verify_order(program: &Program, joined: bool) -> Result<Vec<bool>> {
    let mut written: Vec<bool> =
        program.buffers.iter().map(|buffer| matches!(buffer.place, Place::Input(_) | Place::Constant(_))).collect();
    let mut transfers = Transfers::of(program, joined)?;
    for (index, step) in program.steps.iter().enumerate() {
        interrupt::check_at(index)?;
        transfers.play(index, &mut written)?;
        if results(&step.kernel).iter().any(|id| transfers.is_under_way(id)) {
            return Err(broken(format!("step {index} writes what is being written to the file or read from it")));
        }
        verify_step(program, index, &step.kernel, &mut written)
            .map_err(|error| broken(format!("step {index} (%{}): {}", step.node.0, error.what)))?;
    }
    transfers.play(program.steps.len(), &mut written)?;
    transfers.end()?;
    Ok(written)
}

/// Steps that are joined are fused kernels, gathers and scatters, the first of them maybe a product; none writes what
/// an earlier one reads. What never lies as a whole is born and dies among steps that are joined.
fn verify_joined(program: &Program) -> Result<()> {
    let joined = |index: usize| program.steps.get(index).is_some_and(|step| step.joined);
    for (index, step) in program.steps.iter().enumerate().filter(|(_, step)| step.joined) {
        interrupt::check_at(index)?;
        let first = (0..index).rev().find(|&before| !program.steps[before].joined);
        let Some(first) = first else { return Err(broken(format!("step {index} is joined with none before it"))) };
        let by_rows = match step.kernel {
            Kernel::Fused(_) => true,
            Kernel::Structural { op, .. } => {
                matches!(op, Op::Gather { .. } | Op::ScatterSet { .. } | Op::ScatterAdd { .. })
            }
            Kernel::Loop(_) => false,
        };
        let runs = by_rows
            && matches!(program.steps[first].kernel, Kernel::Fused(_) | Kernel::Structural { op: Op::Dot { .. }, .. });
        if !runs {
            return Err(broken(format!("step {index} is joined with what cannot run by rows")));
        }
        let written = results(&step.kernel);
        if program.steps[first..index].iter().any(|step| reads(&step.kernel).any(|id| written.contains(&id))) {
            return Err(broken(format!("step {index} overwrites what is read by a step that it is joined with")));
        }
    }
    for (index, buffer) in program.buffers.iter().enumerate() {
        let (first, last) = (buffer.first_step as usize, buffer.last_step as usize);
        if buffer.place == Place::Scratch && !(first < last && (first + 1..=last).all(joined)) {
            return Err(broken(format!("buffer {index} lies nowhere, and outlives the steps that are joined")));
        }
    }
    Ok(())
}

/// An output has the bytes of one input, which is read by none but the steps before, or in the same place.
fn verify_takeovers(program: &Program) -> Result<()> {
    let readers = Readers::of(program)?;
    let buffer_at = |place: Place| {
        let found = program.buffers.iter().position(|buffer| buffer.place == place);
        found.map(|index| BufferId(index as u32)).ok_or_else(|| broken(format!("no buffer is {place:?}")))
    };
    for (index, takeover) in program.takeovers.iter().enumerate() {
        let twice = |other: &Takeover| other.input == takeover.input || other.output == takeover.output;
        let (from, into) = (buffer_at(Place::Input(takeover.input))?, buffer_at(Place::Output(takeover.output))?);
        let unsafe_there = readers.reads_where_written(program, from, into) && !overwrites(program, into);
        if program.takeovers[..index].iter().any(twice) || !fits(program, &readers, from, into) || unsafe_there {
            return Err(broken(format!("{takeover:?} overwrites what is still to be read")));
        }
    }
    Ok(())
}

/// Does the kernel that writes `into` first store nothing of a tile before all of it is loaded?
fn overwrites(program: &Program, into: BufferId) -> bool {
    let step = program.steps.get(program.buffers[into.0 as usize].first_step as usize);
    matches!(step.map(|step| &step.kernel), Some(Kernel::Fused(kernel)) if kernel.overwrites)
}

/// The buffers that a kernel reads.
fn reads(kernel: &Kernel) -> Box<dyn Iterator<Item = BufferId> + '_> {
    let buffer = |source: Source| match source {
        Source::Buffer(id) => Some(id),
        _ => None,
    };
    match kernel {
        Kernel::Fused(kernel) => Box::new(kernel.loads.iter().filter_map(move |load| buffer(load.source))),
        Kernel::Structural { operands, .. } => {
            Box::new(operands.iter().filter_map(move |operand| buffer(operand.source)))
        }
        Kernel::Loop(kernel) => Box::new(kernel.operands.iter().filter_map(move |operand| buffer(operand.source))),
    }
}

/// Sweeps the steps with the live ranges of the arena.
fn verify_arena(program: &Program) -> Result<()> {
    let mut births: Vec<(u32, usize, usize)> = Vec::new();
    let mut deaths: Vec<(u32, usize)> = Vec::new();
    let uses = uses(&program.steps, &program.buffers)?;
    for (index, buffer) in program.buffers.iter().enumerate() {
        if buffer.first_step > buffer.last_step {
            return Err(broken(format!("buffer {index} ends before it begins")));
        }
        let Place::Arena(offset) = buffer.place else { continue };
        let inside = offset.checked_add(buffer.bytes).is_some_and(|end| end <= program.arena_bytes);
        if !inside || offset % 64 != 0 {
            return Err(broken(format!("buffer {index} is misplaced in the arena")));
        }
        if buffer.bytes > 0 {
            births.push((uses[index].0, offset, buffer.bytes));
            deaths.push((uses[index].1, offset));
        }
    }
    births.sort_unstable();
    deaths.sort_unstable();
    let mut deaths = deaths.into_iter().peekable();
    let mut live: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, (step, offset, bytes)) in births.into_iter().enumerate() {
        interrupt::check_at(index)?;
        while let Some((_, dead)) = deaths.next_if(|&(last, _)| last < step) {
            live.remove(&dead);
        }
        let below = live.range(..=offset).next_back().is_some_and(|(&start, &bytes)| start + bytes > offset);
        let above = live.range(offset..).next().is_some_and(|(&start, _)| start < offset + bytes);
        if below || above {
            return Err(broken(format!("bytes {offset}..{} have two owners at step {step}", offset + bytes)));
        }
        live.insert(offset, bytes);
    }
    Ok(())
}

fn verify_step(program: &Program, step: usize, kernel: &Kernel, written: &mut [bool]) -> Result<()> {
    let alive = |id: BufferId| -> Result<&Buffer> {
        let buffer = program.buffers.get(id.0 as usize).ok_or_else(|| broken(format!("no buffer {}", id.0)))?;
        if (buffer.first_step as usize..=buffer.last_step as usize).contains(&step) {
            Ok(buffer)
        } else {
            Err(broken(format!("buffer {} is not alive", id.0)))
        }
    };
    let mut results: Vec<BufferId> = Vec::new();
    let mut result = |id: BufferId, bytes: usize, read: &[BufferId]| -> Result<()> {
        let buffer = alive(id)?;
        if buffer.bytes != bytes || matches!(buffer.place, Place::Input(_) | Place::Constant(_)) {
            return Err(broken(format!("buffer {} cannot take the result", id.0)));
        }
        if read.contains(&id) || results.contains(&id) {
            return Err(broken(format!("buffer {} is written beside another use", id.0)));
        }
        results.push(id);
        Ok(())
    };
    let mut reads: Vec<BufferId> = Vec::new();
    let mut read = |id: BufferId, written: &[bool]| -> Result<usize> {
        let bytes = alive(id)?.bytes;
        if bytes > 0 && !written[id.0 as usize] {
            return Err(broken(format!("buffer {} is read before it is written", id.0)));
        }
        reads.push(id);
        Ok(bytes)
    };
    match kernel {
        Kernel::Fused(fused) => {
            for load in &fused.loads {
                if let Source::Buffer(id) = load.source {
                    let bytes = read(id, written)?;
                    check_reach(load, &fused.extents, bytes)?;
                }
            }
            check_registers(fused)?;
            let elements: usize = fused.extents.iter().product();
            for store in &fused.stores {
                result(store.buffer, elements * store.dtype.size(), &reads)?;
            }
            if let Some(reduction) = &fused.reduce {
                let kept = fused.extents.iter().zip(&reduction.reduced).filter(|(_, reduced)| !**reduced);
                let elements: usize = kept.map(|(extent, _)| extent).product();
                result(reduction.buffer, elements * reduction.dtype.size(), &reads)?;
            }
        }
        Kernel::Structural { op, operands, result: out, .. } => {
            for operand in operands {
                if let Source::Buffer(id) = operand.source
                    && read(id, written)? < array_bytes(operand)
                {
                    return Err(broken(format!("buffer {} is smaller than its array", id.0)));
                }
            }
            let Source::Buffer(id) = out.source else { return Err(broken("a result without a buffer".into())) };
            // Only the base may be where the result is, and only once.
            if op.overwrites_base() && reads.first() == Some(&id) && operands[0].source == out.source {
                reads.remove(0);
            }
            result(id, array_bytes(out), &reads)?;
        }
        Kernel::Loop(kernel) => {
            for operand in &kernel.operands {
                if let Source::Buffer(id) = operand.source
                    && read(id, written)? != array_bytes(operand)
                {
                    return Err(broken(format!("buffer {} is not as large as its array", id.0)));
                }
            }
            for out in kernel.results.iter().flatten() {
                let Source::Buffer(id) = out.source else { return Err(broken("a result without a buffer".into())) };
                result(id, array_bytes(out), &reads)?;
            }
            verify_loop(program, step, kernel)?;
        }
    }
    for id in results {
        written[id.0 as usize] = true;
    }
    Ok(())
}

pub(crate) fn array_bytes(array: &ArrayRef) -> usize {
    array.shape.iter().product::<usize>() * array.dtype.size()
}

fn check_registers(kernel: &FusedKernel) -> Result<()> {
    let rank = kernel.extents.len();
    let mut known = vec![false; usize::from(kernel.registers)];
    let define = |register: u16, known: &mut [bool]| match known.get_mut(usize::from(register)) {
        Some(slot) => {
            *slot = true;
            Ok(())
        }
        None => Err(broken(format!("register {register} does not exist"))),
    };
    let used = |register: u16, known: &[bool]| {
        if known.get(usize::from(register)) == Some(&true) {
            Ok(())
        } else {
            Err(broken(format!("register {register} is read before it is written")))
        }
    };
    for load in &kernel.loads {
        if load.strides.len() != rank || known.get(usize::from(load.register)) == Some(&true) {
            return Err(broken("a load of another rank, or into a register that is taken".into()));
        }
        define(load.register, &mut known)?;
    }
    for instruction in &kernel.instructions {
        for &operand in &instruction.operands {
            used(operand, &known)?;
        }
        if instruction.operands.contains(&instruction.result) {
            return Err(broken("an instruction overwrites its operand".into()));
        }
        define(instruction.result, &mut known)?;
    }
    for store in &kernel.stores {
        used(store.register, &known)?;
    }
    match &kernel.reduce {
        Some(reduction) if reduction.reduced.len() != rank => Err(broken("a reduction of another rank".into())),
        Some(reduction) => used(reduction.register, &known),
        None => Ok(()),
    }
}

/// The least and the greatest element that a load touches before starts are added; `None` where it touches none.
fn reach(load: &Load, extents: &[usize]) -> Option<(i128, i128)> {
    if extents.contains(&0) {
        return None;
    }
    let (mut low, mut high) = (i128::from(load.offset), i128::from(load.offset));
    for (&extent, &stride) in extents.iter().zip(&load.strides) {
        let far = (extent as i128 - 1) * i128::from(stride);
        low += far.min(0);
        high += far.max(0);
    }
    Some((low, high))
}

fn check_reach(load: &Load, extents: &[usize], bytes: usize) -> Result<()> {
    let elements = (bytes / load.dtype.size()) as i128;
    match reach(load, extents) {
        Some((low, high)) if load.starts.is_empty() && (low < 0 || high >= elements) => {
            Err(broken(format!("a load reaches elements {low}..={high} of {elements}")))
        }
        _ => Ok(()),
    }
}
