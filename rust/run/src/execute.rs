//! The executor: one kernel after another over memory that the program has laid out.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use ckad_cpu::{Check, Environment, Memory, Poll, alone, together};
use ckad_graph::{Error, NodeId, Result, shortage, tables};
use ckad_plan::program::{Kernel, Motion, Place, Program, Step, Transfer};

use crate::arena::lease;
use crate::bindings::Bindings;
use crate::block::ALIGNMENT;
use crate::looped;
use crate::output::{GivenUp, OutputBuffer};
use crate::separate::{AllocationHooks, Change, Separate};
use crate::short::gains_from_threads;
use crate::spill::Spill;
use crate::threads::{Share, thread_count};
use crate::trace::{MemoryTrace, TraceEntry};

/// How to run. The default is the plain way: one arena, no observer.
#[derive(Default)]
pub struct RunOptions<'a> {
    /// Set by another thread to end the run with an `Interrupted` error.
    pub cancel: Option<&'a AtomicBool>,
    /// Every buffer in an allocation of its own, poisoned before and after its life, and every step by itself.
    pub debug: bool,
    /// Filled with the bytes alive at each step of the schedule.
    pub trace: Option<&'a mut MemoryTrace>,
    /// Provides buffers in place of the arena.
    pub hooks: Option<&'a mut (dyn AllocationHooks + Send)>,
    /// The source line of a node, for errors.
    pub line: Option<&'a (dyn Fn(NodeId) -> u32 + Sync)>,
    /// Set before the first write into memory that an input gave up.
    pub overwritten: Option<&'a AtomicBool>,
}

/// Runs the program; its outputs, in order.
pub fn run(program: &Program, bindings: &Bindings<'_>, options: RunOptions<'_>) -> Result<Vec<OutputBuffer>> {
    run_polled(program, bindings, options, None)
}

/// Runs the program, and calls `poll` every 50 ms or so. An error of `poll` ends the run and is returned once nothing
/// runs any more.
pub fn run_interruptible(
    program: &Program,
    bindings: &Bindings<'_>,
    options: RunOptions<'_>,
    mut poll: impl FnMut() -> Result<()> + Send,
) -> Result<Vec<OutputBuffer>> {
    let own = AtomicBool::new(false);
    let RunOptions { cancel, debug, trace, hooks, line, overwritten } = options;
    let cancel = Some(cancel.unwrap_or(&own));
    // Taken apart, because what is borrowed from `own` lives shorter than the rest.
    let hooks = hooks.map(|hooks| hooks as &mut (dyn AllocationHooks + Send));
    let options = RunOptions { cancel, debug, trace, hooks, line, overwritten };
    let mut refused = None;
    let mut ask = || {
        refused = poll().err();
        refused.is_none()
    };
    let result = run_polled(program, bindings, options, Some(&Poll::new(&mut ask)));
    refused.map_or(result, Err)
}

/// Runs the program on this thread, and on others where that is worth waking them.
fn run_polled(
    program: &Program,
    bindings: &Bindings<'_>,
    options: RunOptions<'_>,
    poll: Option<&dyn Check>,
) -> Result<Vec<OutputBuffer>> {
    let threads = match gains_from_threads(program) {
        true => thread_count()?,
        false => 1,
    };
    if threads == 1 {
        return alone(|| guarded(program, bindings, options, poll));
    }
    let share = Share::new()?;
    together(share.pool(), share.of(threads), || guarded(program, bindings, options, poll))
}

/// A panic is a bug of ours, and no reason to take the caller's process down.
fn guarded(
    program: &Program,
    bindings: &Bindings<'_>,
    options: RunOptions<'_>,
    poll: Option<&dyn Check>,
) -> Result<Vec<OutputBuffer>> {
    catch_unwind(AssertUnwindSafe(|| run_here(program, bindings, options, poll)))
        .unwrap_or_else(|panic| Err(Error::internal("run", format!("panic: {}", panic_text(panic.as_ref())))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of no text")
}

fn run_here(
    program: &Program,
    bindings: &Bindings<'_>,
    options: RunOptions<'_>,
    poll: Option<&dyn Check>,
) -> Result<Vec<OutputBuffer>> {
    let RunOptions { cancel, debug, mut trace, hooks, line, overwritten } = options;
    let never = AtomicBool::new(false);
    let cancel = cancel.unwrap_or(&never);
    let (scalars, starts) = bindings.tables(program)?;
    // Debug mode and profilers see every buffer come to be.
    let given_up = if debug || hooks.is_some() { &[] } else { bindings.given_up };
    let outputs =
        program.outputs.iter().zip(0u32..).map(|(spec, output)| match taken_over(program, output, given_up) {
            Some(given_up) => Ok(OutputBuffer::over(given_up, spec.dtype, spec.shape.clone())),
            None => OutputBuffer::new(spec.dtype, spec.shape.clone()),
        });
    let outputs = tables::tried("run", outputs)?;
    let first_overwrite = first_overwrite(program, &outputs);
    let places: Vec<*mut u8> = tables::list("run", outputs.iter().map(OutputBuffer::pointer))?;
    let mut separate = if debug || hooks.is_some() { Some(Separate::new(program, hooks)?) } else { None };
    let scratch_at = if separate.is_some() { 0 } else { program.arena_bytes.next_multiple_of(ALIGNMENT) };
    let lease = lease(scratch_at + program.scratch_bytes)?;
    let at = |offset: usize, bytes: usize| {
        debug_assert!(offset + bytes <= lease.bytes() || bytes == 0);
        Memory { pointer: lease.pointer().wrapping_add(offset), bytes }
    };
    let scratch = at(scratch_at, program.scratch_bytes);
    let mut buffers =
        resolve(
            program,
            bindings,
            &places,
            |offset, bytes| {
                if separate.is_some() { Memory::EMPTY } else { at(offset, bytes) }
            },
        )?;
    if let Some(trace) = trace.as_deref_mut() {
        let planned = if separate.is_some() { Vec::new() } else { program.live_bytes()? };
        trace.measured = separate.is_some();
        trace.entries.clear();
        let entries = planned.iter().zip(&program.steps);
        let entries = entries.map(|(&live_bytes, step)| TraceEntry { node: step.node, live_bytes });
        tables::extend("run", &mut trace.entries, entries)?;
    }
    // The last to be made and so the first to be dropped: until then its thread may touch the run's memory.
    let transfers = match separate.is_some() || program.transfers.is_empty() {
        true => Cow::Borrowed(&program.transfers),
        false => Cow::Owned(program.transfers_beside_joined()?),
    };
    let mut file = Transfers { left: &transfers, spill: None };
    for (index, step) in program.steps.iter().enumerate() {
        if let Some(separate) = &mut separate {
            separate.begin(index, &places, |change| apply(program, &mut buffers, change))?;
            if let Some(trace) = trace.as_deref_mut() {
                let entry = TraceEntry { node: step.node, live_bytes: separate.live_bytes() };
                tables::push("run", &mut trace.entries, entry)?;
            }
        }
        file.play(index, &buffers, poll, cancel)?;
        shortage::check("run").map_err(|error| error.at_line(line.map_or(0, |line| line(step.node))))?;
        let environment = Environment {
            buffers: &buffers,
            blocks: &[],
            ahead: None,
            scalars: &scalars,
            starts: &starts,
            scratch,
            cancel,
            poll,
        };
        let joined = |step: &Step| step.joined && separate.is_none();
        if let Some(overwritten) = overwritten.filter(|_| index >= first_overwrite) {
            overwritten.store(true, Ordering::Relaxed);
        }
        // Steps that are joined run when the last of them does.
        if program.steps.get(index + 1).is_some_and(joined) {
            continue;
        }
        let first = (0..=index).rev().find(|&index| !joined(&program.steps[index])).unwrap_or(0);
        // SAFETY: `run` is given verified programs, and `resolve` laid out the buffers.
        unsafe { launch(&program.steps[first..=index], &environment) }
            .map_err(|(step, error)| error.at_line(line.map_or(0, |line| line(program.steps[first + step].node))))?;
        // What is written to the file was computed by now, and is there before its memory is another's.
        file.play_writes(index + 1, &buffers, poll, cancel)?;
        if let Some(separate) = &mut separate {
            separate.end(index, |change| apply(program, &mut buffers, change));
        }
    }
    Ok(outputs)
}

/// What is left of a program's transfers, and the file once there is one.
struct Transfers<'p> {
    left: &'p [Transfer],
    spill: Option<Spill>,
}

impl Transfers<'_> {
    /// What happens before step `gap`.
    fn play(&mut self, gap: usize, buffers: &[Memory], poll: Option<&dyn Check>, cancel: &AtomicBool) -> Result<()> {
        self.play_while(|transfer| transfer.gap as usize <= gap, buffers, poll, cancel)
    }

    /// What is written to the file before step `gap`.
    fn play_writes(
        &mut self,
        gap: usize,
        buffers: &[Memory],
        poll: Option<&dyn Check>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let written = |transfer: &Transfer| {
            transfer.gap as usize <= gap && matches!(transfer.motion, Motion::BeginWrite | Motion::EndWrite)
        };
        self.play_while(written, buffers, poll, cancel)
    }

    fn play_while(
        &mut self,
        mut wanted: impl FnMut(&Transfer) -> bool,
        buffers: &[Memory],
        poll: Option<&dyn Check>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        while let Some((transfer, rest)) = self.left.split_first().filter(|(first, _)| wanted(first)) {
            self.left = rest;
            let spill = match &mut self.spill {
                Some(spill) => spill,
                None => self.spill.insert(Spill::new()?),
            };
            spill.play(transfer, buffers[transfer.buffer.0 as usize], poll, cancel)?;
        }
        Ok(())
    }
}

/// The memory that the output takes over. `given_up` is in the order of inputs.
fn taken_over(program: &Program, output: u32, given_up: &[GivenUp]) -> Option<GivenUp> {
    let takeover = program.takeovers.binary_search_by_key(&output, |takeover| takeover.output).ok()?;
    let input = program.takeovers[takeover].input;
    given_up.binary_search_by_key(&input, |given_up| given_up.input).ok().map(|found| given_up[found])
}

/// The first step that may write into memory that an input gave up.
fn first_overwrite(program: &Program, outputs: &[OutputBuffer]) -> usize {
    if program.takeovers.is_empty() {
        return usize::MAX;
    }
    let written = program.buffers.iter().filter(|buffer| match buffer.place {
        Place::Output(output) => outputs.get(output as usize).is_some_and(|output| output.taken_over().is_some()),
        _ => false,
    });
    written.map(|buffer| buffer.first_step as usize).min().unwrap_or(usize::MAX)
}

/// Runs the kernel of a step, or those of steps that are joined. An error comes with the step that it belongs to.
///
/// # Safety
/// The program was verified, and `environment` is laid out as it says.
pub(crate) unsafe fn launch(steps: &[Step], environment: &Environment<'_>) -> Result<(), (usize, Error)> {
    // SAFETY: the program was verified: what a kernel names is alive, large enough, aligned, and disjoint from what
    // it writes; inputs and constants were checked against the program. One kernel runs at a time, or joined ones: what
    // one of them reads is alive, and written by none but those before it, until all are done.
    unsafe {
        match steps {
            [Step { kernel: Kernel::Loop(kernel), .. }] => looped::run(kernel, environment).map_err(|error| (0, error)),
            [step] => ckad_cpu::execute(&step.kernel, environment).map_err(|error| (0, error)),
            _ => ckad_cpu::joined::execute(steps, environment),
        }
    }
}

fn apply(program: &Program, buffers: &mut [Memory], change: Change) {
    match change {
        Change::Born { buffer, pointer } => {
            buffers[buffer] = Memory { pointer, bytes: program.buffers[buffer].bytes };
        }
        Change::Dead { buffer } => buffers[buffer] = Memory::EMPTY,
    }
}

/// Where every buffer is, by `BufferId`.
fn resolve(
    program: &Program,
    bindings: &Bindings<'_>,
    outputs: &[*mut u8],
    arena: impl Fn(usize, usize) -> Memory,
) -> Result<Vec<Memory>> {
    let mut buffers = Vec::new();
    let refused = |_| Error::memory("run", program.buffers.len() * size_of::<Memory>());
    buffers.try_reserve_exact(program.buffers.len()).map_err(refused)?;
    for buffer in &program.buffers {
        let memory = match buffer.place {
            Place::Arena(offset) => arena(offset, buffer.bytes),
            Place::Scratch => Memory::EMPTY,
            Place::Output(output) => {
                let pointer = outputs.get(output as usize).copied();
                Memory {
                    pointer: pointer.ok_or_else(|| Error::internal("run", "no such output"))?,
                    bytes: buffer.bytes,
                }
            }
            Place::Input(input) => {
                let array = bindings.inputs.get(input as usize);
                let array = array.ok_or_else(|| Error::internal("run", format!("input {input} is missing")))?;
                Memory { pointer: array.pointer().cast_mut(), bytes: array.bytes() }
            }
            Place::Constant(constant) => {
                let value = bindings.constants.get(constant as usize);
                let value = value.ok_or_else(|| Error::internal("run", format!("constant {constant} is missing")))?;
                Memory::of(value.bytes())
            }
        };
        let read_only = matches!(buffer.place, Place::Input(_) | Place::Constant(_));
        let misplaced = memory.bytes > 0 && !(memory.pointer as usize).is_multiple_of(buffer.dtype.size());
        if read_only && (memory.bytes != buffer.bytes || misplaced) {
            let what = format!(
                "{:?} has {} bytes at {:?}, the program takes {} of {}",
                buffer.place, memory.bytes, memory.pointer, buffer.bytes, buffer.dtype
            );
            return Err(Error::internal("run", what));
        }
        buffers.push(memory);
    }
    Ok(buffers)
}
