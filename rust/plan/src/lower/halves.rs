//! Long schedules are lowered by two threads.
//!
//! Which bytes a step reads and writes depends on all that came before, but finding that out takes a tenth of the
//! time: the second thread plays the first half without writing kernels and then writes those of the second, while the
//! first thread writes those of the first. Put together they are what one thread would have written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ckad_graph::working::Held;
use ckad_graph::{Op, Result, StartId, interrupt, threads, working};

use crate::lower::structural::AddedStarts;
use crate::lower::{Lowering, Script};
use crate::program::{Kernel, Step};

/// Number of steps from which on the second thread saves more than it costs to start.
pub(crate) const WORTH_A_THREAD: usize = 2048;

/// How long to wait for the other thread at a time; when it is done it says so.
const PATIENCE: Duration = Duration::from_millis(5);

/// Plays the whole schedule; `room` is the number of steps to make room for.
pub(crate) fn in_halves<'g>(script: &Script<'g>, room: usize) -> Result<Lowering<'g>> {
    let actions = script.schedule.actions.len();
    // The second thread plays these without writing, so they may be a little more than half.
    let first = actions - actions * 7 / 15;
    let stop = Arc::new(AtomicBool::new(false));
    let measured = working::is_measured();
    let waiting = thread::current();
    let (first_half, second_half) = thread::scope(|scope| {
        let later = || {
            let asked = Arc::clone(&stop);
            let _listening = interrupt::listen(move || asked.load(Ordering::Relaxed));
            let write = || Lowering::of(script, first..actions, room - room / 2);
            let written = if measured { working::measure(write) } else { (write(), Held::default()) };
            waiting.unpark();
            written
        };
        // Where no thread is to be had, this one does it all.
        let builder = thread::Builder::new().name("ckad-lower".into()).stack_size(threads::STACK);
        let thread = threads::can_start(1).then(|| builder.spawn_scoped(scope, later));
        let Some(Ok(thread)) = thread else { return (None, Lowering::of(script, 0..actions, room)) };
        let mut first_half = Lowering::of(script, 0..first, room);
        while !thread.is_finished() {
            // Waiting is work too, as far as Ctrl-C goes.
            first_half = first_half.and_then(|half| interrupt::check().map(|()| half));
            stop.store(first_half.is_err(), Ordering::Relaxed);
            thread::park_timeout(PATIENCE);
        }
        let (second_half, held) = thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked));
        working::add(held);
        (Some(first_half), second_half)
    });
    let Some(first_half) = first_half.transpose()? else { return second_half };
    let Lowering { mut steps, mut starts, .. } = first_half;
    let mut lowering = second_half?;
    let of_graph = script.graph.starts.len();
    for mut step in lowering.steps.drain(..) {
        renumber(&mut step, of_graph, &lowering.starts, |value| starts.index(script.graph, value))?;
        steps.push(step);
    }
    lowering.steps = steps;
    lowering.starts = starts;
    Ok(lowering)
}

/// Gives the start of a step that lowering added the number that `number` says.
fn renumber(
    step: &mut Step,
    of_graph: usize,
    added: &AddedStarts,
    number: impl FnOnce(i64) -> Result<u32>,
) -> Result<()> {
    let Kernel::Structural { op: Op::StridedRead { start, .. }, parameters, .. } = &mut step.kernel else {
        return Ok(());
    };
    let value = (start.0 as usize).checked_sub(of_graph).and_then(|index| added.values.get(index));
    if let Some(&value) = value {
        let index = number(value)?;
        *start = StartId(index);
        parameters.start = Some(index);
    }
    Ok(())
}
