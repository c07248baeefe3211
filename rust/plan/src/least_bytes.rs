//! What the program of a schedule occupies at least, known without lowering it.
//!
//! Joined steps leave out what they make for each other alone, so what lives for longer than a group can be has bytes
//! in the arena. Where that alone is more than another program takes, nobody needs to lower the schedule to see which
//! of the two is smaller.

use ckad_graph::{Graph, Result, interrupt};

use crate::footprint::captured_bytes;
use crate::lower::joined::MOST_STEPS;
use crate::schedule::{Action, Schedule};
use crate::simulate::{Memory, base_taken};

/// No more than the bytes of the lowered schedule, where no memory is donated.
pub(crate) fn least_bytes(graph: &Graph, schedule: &Schedule) -> Result<usize> {
    let computes = schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
    let mut memory = Memory::new(graph, computes + 1)?;
    let mut step = 0;
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
        match *action {
            Action::Compute(_) => {
                let taken = base_taken(graph, schedule, index);
                schedule.stores[index].iter().try_for_each(|&value| memory.store(value, taken, step))?;
                step += 1;
            }
            Action::Free(value) => memory.free_after(value, step, MOST_STEPS),
            // What waits in a file is not compared.
            Action::Store(_) | Action::Load(_) => return Ok(0),
        }
    }
    let held = usize::try_from(memory.held().max().unwrap_or(0)).unwrap_or(usize::MAX);
    let returned = graph.outputs.iter().fold(0usize, |sum, &output| sum.saturating_add(graph.bytes(output)));
    let parts = [held, returned, captured_bytes(graph)?, graph.own_bytes()];
    Ok(parts.into_iter().fold(0, usize::saturating_add))
}
