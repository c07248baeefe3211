//! Which steps run together, block of rows by block of rows.
//!
//! Steps after each other that make and read the same rows (a matrix product, its bias and activation; the maximum,
//! exponentials and sum of a softmax) are *joined* where the target can run them as one. What they make for each other
//! then never lies in memory: its buffers have the place `Place::Scratch`, and no bytes in the arena.
//!
//! It has two prices. All that the steps read must stay, and all that they write be there, until the last is done:
//! where that would take more bytes than the steps in turn, fewer are joined. And blocks of rows are scratch, which
//! with many threads can exceed what is saved in the arena: then nothing is joined (`lower`).

use ckad_graph::{Result, interrupt};

use crate::lower::transfers::Asked;
use crate::program::{Buffer, BufferId, Joining, Kernel, Place, Source, Step, Target};
use crate::tables::{collected, filled};

/// Most steps of a group.
pub(crate) const MOST_STEPS: usize = 32;

/// Joins what can be. Lifetimes of buffers are known, places in the arena not yet. `asked` is what transfers to
/// a file ask for. The most scratch that joined steps need.
pub(crate) fn join(steps: &mut [Step], buffers: &mut [Buffer], asked: &Asked, target: &Target) -> Result<usize> {
    let live = arena_bytes(steps.len(), buffers)?;
    let (mut start, mut most) = (0, 0);
    while start + 1 < steps.len() {
        interrupt::check_at(start)?;
        let ahead = &steps[start..steps.len().min(start + MOST_STEPS)];
        let longest = (target.joined)(ahead);
        let groups = (2..=longest).rev().map(|len| (len, &ahead[..len]));
        let found =
            groups.filter_map(|(len, group)| Some((len, joined(group, start, buffers, asked, &live, target)?))).next();
        let Some((len, Joining { scratch, unstored })) = found else {
            start += 1;
            continue;
        };
        most = most.max(scratch);
        steps[start + 1..start + len].iter_mut().for_each(|step| step.joined = true);
        for buffer in unstored {
            buffers[buffer.0 as usize].place = Place::Scratch;
        }
        start += len;
    }
    Ok(most)
}

/// Parts again what was joined, before places in the arena are chosen.
pub(crate) fn part(steps: &mut [Step], buffers: &mut [Buffer]) {
    steps.iter_mut().for_each(|step| step.joined = false);
    for buffer in buffers.iter_mut().filter(|buffer| buffer.place == Place::Scratch) {
        buffer.place = Place::Arena(0);
    }
}

/// Bytes of buffers in the arena that are alive at each step.
fn arena_bytes(steps: usize, buffers: &[Buffer]) -> Result<Vec<usize>> {
    let mut live = filled(0usize, steps + 1)?;
    for buffer in buffers.iter().filter(|buffer| matches!(buffer.place, Place::Arena(_))) {
        live[buffer.first_step as usize] = live[buffer.first_step as usize].wrapping_add(buffer.bytes);
        let end = (buffer.last_step as usize + 1).min(steps);
        live[end] = live[end].wrapping_sub(buffer.bytes);
    }
    let mut now = 0usize;
    for bytes in &mut live {
        now = now.wrapping_add(*bytes);
        *bytes = now;
    }
    Ok(live)
}

/// What the steps take as a group; None if that is more bytes than in turn.
fn joined(
    group: &[Step],
    start: usize,
    buffers: &[Buffer],
    asked: &Asked,
    live: &[usize],
    target: &Target,
) -> Option<Joining> {
    let end = start + group.len() - 1;
    if !asked.allows(start, end) {
        return None;
    }
    let (mut dying, mut born) = (Vec::new(), 0usize);
    for (step, index) in group.iter().zip(start..) {
        for id in results(&step.kernel) {
            let buffer = buffers.get(id.0 as usize)?;
            if matches!(buffer.place, Place::Arena(_)) && buffer.first_step as usize == index {
                born += if index > start { buffer.bytes } else { 0 };
                if buffer.last_step as usize <= end && !asked.lies_whole(id) {
                    dying.push(id);
                }
            }
        }
    }
    let joining = (target.joining)(group, &dying, target.threads)?;
    let saved: usize = joining.unstored.iter().map(|id| buffers[id.0 as usize].bytes).sum();
    let in_turn = live[start..=end].iter().copied().max()?;
    (live[start] + born <= in_turn + saved).then_some(joining)
}

/// The buffers that a kernel writes.
pub(crate) fn results(kernel: &Kernel) -> Vec<BufferId> {
    match kernel {
        Kernel::Fused(kernel) => {
            let reduced = kernel.reduce.as_ref().map(|reduction| reduction.buffer);
            kernel.stores.iter().map(|store| store.buffer).chain(reduced).collect()
        }
        Kernel::Structural { result, .. } => match result.source {
            Source::Buffer(id) => vec![id],
            _ => Vec::new(),
        },
        Kernel::Loop(kernel) => {
            let sources = kernel.results.iter().flatten().map(|result| result.source);
            sources.filter_map(Source::buffer).collect()
        }
    }
}

/// For each buffer the first and the last step during which its bytes are its own: those of its life, and of all steps
/// that are joined with these.
pub(crate) fn uses(steps: &[Step], buffers: &[Buffer]) -> Result<Vec<(u32, u32)>> {
    let mut uses = collected(buffers.iter().map(|buffer| (buffer.first_step, buffer.last_step)))?;
    if steps.iter().all(|step| !step.joined) {
        return Ok(uses);
    }
    let mut starts = collected(0..steps.len() as u32)?;
    for index in 1..steps.len() {
        if steps[index].joined {
            starts[index] = starts[index - 1];
        }
    }
    let mut ends = collected(0..steps.len() as u32)?;
    for index in (1..steps.len()).rev() {
        if steps[index].joined {
            ends[index - 1] = ends[index];
        }
    }
    for (first, last) in &mut uses {
        *first = starts.get(*first as usize).copied().unwrap_or(*first);
        *last = ends.get(*last as usize).copied().unwrap_or(*last);
    }
    Ok(uses)
}
