//! Long schedules are lowered by two threads.
//!
//! Which bytes a step reads and writes depends on all that came before, but finding that out takes a tenth of the
//! time: the second thread plays the first half without writing kernels and then writes those of the second, while the
//! first thread writes those of the first. Put together they are what one thread would have written.

use ckad_graph::{Op, Result, StartId};

use crate::lower::structural::AddedStarts;
use crate::lower::{Lowering, Script};
use crate::program::{Kernel, Step};
use crate::two_threads;

/// Plays the whole schedule; `room` is the number of steps to make room for.
pub(crate) fn in_halves<'g>(script: &Script<'g>, room: usize) -> Result<Lowering<'g>> {
    let actions = script.schedule.actions.len();
    // The second thread plays these without writing, so they may be a little more than half.
    let first = actions - actions * 7 / 15;
    let halves = two_threads::beside(
        || Lowering::of(script, 0..first, room),
        || Lowering::of(script, first..actions, room - room / 2),
    )?;
    let Some((first_half, mut lowering)) = halves else { return Lowering::of(script, 0..actions, room) };
    let Lowering { mut steps, mut starts, .. } = first_half;
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
