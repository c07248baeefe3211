//! Which outputs are written over inputs that the caller gives up: after lowering, on the program alone.
//!
//! An output may have an input's bytes if every step that reads the input is over when the first step that writes the
//! output begins. A fused kernel may also read the very elements that it writes (a parameter and its update): it then
//! computes beside them, and stores a tile once all its loads have been used (`FusedKernel::overwrites`).

use ckad_graph::{Result, interrupt};

use crate::lower::joined::results;
use crate::program::{Buffer, BufferId, FusedKernel, Kernel, Place, Program, Source, Step, Takeover, Target};
use crate::tables::{collected, filled, push};

/// Finds an input for each output that can have one. `donated` says which inputs are given up.
pub fn take_over(program: &mut Program, donated: &[bool], target: &Target) -> Result<()> {
    if !donated.contains(&true) {
        return Ok(());
    }
    let readers = Readers::of(program)?;
    let mut free: Vec<(u32, BufferId)> = Vec::new();
    let mut outputs: Vec<(u32, u32, BufferId)> = Vec::new();
    for (buffer, index) in program.buffers.iter().zip(0u32..) {
        match buffer.place {
            Place::Input(input) if donated.get(input as usize) == Some(&true) && buffer.bytes > 0 => {
                push(&mut free, (input, BufferId(index)))?;
            }
            Place::Output(output) if buffer.bytes > 0 => {
                push(&mut outputs, (buffer.first_step, output, BufferId(index)))?;
            }
            _ => {}
        }
    }
    // Whoever comes first has the fewest inputs to choose from.
    outputs.sort_unstable();
    // What is read as it is overwritten serves nobody before.
    for in_place in [true, false] {
        let mut left = Vec::new();
        for (turn, &(written, output, into)) in outputs.iter().enumerate() {
            interrupt::check_at(turn)?;
            let found = free.iter().position(|&(_, from)| {
                let last = readers.steps[from.0 as usize].last();
                (!in_place || last == Some(&written)) && fits(program, &readers, from, into)
            });
            let found = found.filter(|&at| make_room(program, free[at].1, into, target));
            let Some((input, _)) = found.map(|at| free.remove(at)) else {
                push(&mut left, (written, output, into))?;
                continue;
            };
            push(&mut program.takeovers, Takeover { output, input })?;
        }
        outputs = left;
    }
    program.takeovers.sort_unstable_by_key(|takeover| takeover.output);
    Ok(())
}

/// Where the kernel that writes `into` also reads `from`, lets it compute beside the two, with the scratch for that.
/// False where that would take more than it saves.
fn make_room(program: &mut Program, from: BufferId, into: BufferId, target: &Target) -> bool {
    let saved = program.buffers[into.0 as usize].bytes;
    let written = program.buffers[into.0 as usize].first_step as usize;
    let Some(Step { kernel: Kernel::Fused(kernel), .. }) = program.steps.get_mut(written) else { return true };
    if kernel.overwrites || kernel.loads.iter().all(|load| load.source != Source::Buffer(from)) {
        return true;
    }
    kernel.overwrites = true;
    let scratch = scratch_at(program, written, target).map(|scratch| scratch.max(program.scratch_bytes));
    match scratch.filter(|&scratch| scratch - program.scratch_bytes <= saved) {
        Some(scratch) => {
            program.scratch_bytes = scratch;
            true
        }
        None => {
            if let Kernel::Fused(kernel) = &mut program.steps[written].kernel {
                kernel.overwrites = false;
            }
            false
        }
    }
}

/// The scratch that a step needs, with those that are joined with it; None if they could not run as one.
fn scratch_at(program: &Program, step: usize, target: &Target) -> Option<usize> {
    let steps = &program.steps;
    let joined = |index: usize| steps.get(index).is_some_and(|step| step.joined);
    let first = (0..=step).rev().find(|&index| !joined(index))?;
    let end = (step + 1..steps.len()).find(|&index| !joined(index)).unwrap_or(steps.len());
    if end == first + 1 {
        return Some((target.scratch)(&steps[step].kernel, target.threads));
    }
    let unstored = |id: &BufferId| program.buffers[id.0 as usize].place == Place::Scratch;
    let unstored: Vec<BufferId> =
        steps[first..end].iter().flat_map(|step| results(&step.kernel)).filter(unstored).collect();
    let joining = (target.joining)(&steps[first..end], &unstored, target.threads)?;
    (joining.unstored.len() == unstored.len()).then_some(joining.scratch)
}

/// For each buffer the steps that read it, ascending, and for each step the first that is joined with it.
pub(crate) struct Readers {
    steps: Vec<Vec<u32>>,
    group: Vec<u32>,
}

impl Readers {
    /// Does the step that writes `into` first read `from`?
    pub fn reads_where_written(&self, program: &Program, from: BufferId, into: BufferId) -> bool {
        self.steps[from.0 as usize].contains(&program.buffers[into.0 as usize].first_step)
    }

    /// Of the inputs' buffers only.
    pub fn of(program: &Program) -> Result<Readers> {
        let mut steps = filled(Vec::new(), program.buffers.len())?;
        let mut group = collected(0..program.steps.len() as u32)?;
        for (index, step) in program.steps.iter().enumerate() {
            interrupt::check_at(index)?;
            if step.joined && index > 0 {
                group[index] = group[index - 1];
            }
            for id in reads(&step.kernel) {
                let of: &mut Vec<u32> = &mut steps[id.0 as usize];
                let is_input = matches!(program.buffers[id.0 as usize].place, Place::Input(_));
                if is_input && of.last() != Some(&(index as u32)) {
                    push(of, index as u32)?;
                }
            }
        }
        Ok(Readers { steps, group })
    }
}

fn reads(kernel: &Kernel) -> impl Iterator<Item = BufferId> + '_ {
    let (loads, operands) = match kernel {
        Kernel::Fused(kernel) => (kernel.loads.as_slice(), [].as_slice()),
        Kernel::Structural { operands, .. } => ([].as_slice(), operands.as_slice()),
        Kernel::Loop(kernel) => ([].as_slice(), kernel.operands.as_slice()),
    };
    let sources = loads.iter().map(|load| load.source).chain(operands.iter().map(|operand| operand.source));
    sources.filter_map(Source::buffer)
}

/// May the output's buffer `into` have the bytes of the input's buffer `from`?
pub(crate) fn fits(program: &Program, readers: &Readers, from: BufferId, into: BufferId) -> bool {
    let (source, target) = (&program.buffers[from.0 as usize], &program.buffers[into.0 as usize]);
    if source.bytes != target.bytes || source.dtype != target.dtype {
        return false;
    }
    let written = target.first_step;
    let begins = readers.group.get(written as usize).copied().unwrap_or(written);
    // In which order joined steps come to their elements is their own business.
    let in_place = |step: u32| step == written && reads_in_order(&program.steps[step as usize], from, source);
    let in_time = |&step: &u32| step < begins || in_place(step);
    let writer = match program.steps.get(written as usize).map(|step| &step.kernel) {
        Some(Kernel::Fused(kernel)) if readers.steps[from.0 as usize].contains(&written) => {
            stores_computed(kernel, into)
        }
        writer => writer.is_some(),
    };
    writer && readers.steps[from.0 as usize].iter().all(in_time)
}

/// Does the step read of the buffer, for each element of its iteration, the one in the same place, and no other?
fn reads_in_order(step: &Step, id: BufferId, buffer: &Buffer) -> bool {
    let Kernel::Fused(kernel) = &step.kernel else { return false };
    let elements = buffer.bytes / buffer.dtype.size();
    let in_order = |strides: &[i64]| {
        let mut expected = 1;
        kernel.extents.iter().zip(strides).rev().all(|(&extent, &stride)| {
            let agrees = extent == 1 || stride == expected;
            expected = expected.saturating_mul(extent as i64);
            agrees
        })
    };
    let mut loads = kernel.loads.iter().filter(|load| load.source == Source::Buffer(id));
    kernel.extents.iter().product::<usize>() == elements
        && loads.all(|load| load.offset == 0 && load.starts.is_empty() && in_order(&load.strides))
}

/// Does the kernel store an array of its iteration's shape there, and nothing that it has only loaded? (What is loaded
/// and stored or reduced again may lie where another store writes.)
fn stores_computed(kernel: &FusedKernel, into: BufferId) -> bool {
    let computed = |register| kernel.instructions.iter().any(|instruction| instruction.result == register);
    kernel.stores.iter().any(|store| store.buffer == into)
        && kernel.stores.iter().all(|store| computed(store.register))
        && kernel.reduce.as_ref().is_none_or(|reduction| computed(reduction.register))
}
