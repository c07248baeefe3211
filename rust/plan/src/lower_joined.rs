//! Which products run together with the step that reads them, block of rows by block of rows.
//!
//! A matrix product directly followed by a fused kernel that reads it element by element is *joined* with it where the
//! target can run the two as one. A product that nobody else reads then never lies in memory: its buffer has the
//! place `Place::Scratch`, and no bytes in the arena.
//!
//! It has two prices. What the product reads must stay until the kernel after it is done, whose results are written
//! meanwhile: where that would take more bytes than the two steps in turn, they stay two. And blocks of rows are
//! scratch, which with many threads can exceed what the products would take in the arena: then nothing is joined
//! (`lower`).

use ckad_graph::{Op, Result, interrupt};

use crate::program::{Buffer, BufferId, FusedKernel, Kernel, Place, Source, Step, Target};
use crate::tables::collected;

/// Joins what can be. Lifetimes of buffers are known, places in the arena not yet. The most scratch that a joined pair
/// needs.
pub(crate) fn join(steps: &mut [Step], buffers: &mut [Buffer], target: &Target) -> Result<usize> {
    let mut most = 0;
    for index in 1..steps.len() {
        interrupt::check_at(index)?;
        let [product, consumer] = &steps[index - 1..=index] else { continue };
        let Some((result, saved)) = joinable(product, consumer, index as u32, buffers) else { continue };
        let kept = saved == 0;
        let scratch = (target.joined_scratch)(&product.kernel, &consumer.kernel, kept, target.threads);
        let Some(scratch) = scratch else { continue };
        most = most.max(scratch);
        steps[index].joined = true;
        if !kept {
            buffers[result.0 as usize].place = Place::Scratch;
        }
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

/// The buffer of a product that the step at `index` may consume as it is computed, and the bytes of the arena that are
/// saved if it never lies there: none where it is read later, or returned.
fn joinable(product: &Step, consumer: &Step, index: u32, buffers: &[Buffer]) -> Option<(BufferId, usize)> {
    let Kernel::Structural { op: Op::Dot { .. }, operands, result, .. } = &product.kernel else { return None };
    let (Kernel::Fused(kernel), Source::Buffer(id)) = (&consumer.kernel, result.source) else { return None };
    if !kernel.loads.iter().any(|load| load.source == result.source) {
        return None;
    }
    let in_arena = |id: &BufferId| Some(&buffers[id.0 as usize]).filter(|of| matches!(of.place, Place::Arena(_)));
    let saved = in_arena(&id).filter(|product| product.last_step == index).map_or(0, |product| product.bytes);
    let mut read: Vec<BufferId> = Vec::new();
    for operand in operands {
        match operand.source {
            Source::Buffer(id) if !read.contains(&id) => read.push(id),
            _ => {}
        }
    }
    let dying = read.iter().filter_map(in_arena).filter(|buffer| buffer.last_step + 1 == index);
    let born = results(kernel).collect::<Vec<_>>();
    let born = born.iter().filter_map(in_arena).filter(|buffer| buffer.first_step == index);
    // In turn, the one kind dies before the other is born, and the product is there with either.
    let longer = dying.map(|buffer| buffer.bytes).sum::<usize>().min(born.map(|buffer| buffer.bytes).sum());
    (longer <= saved).then_some((id, saved))
}

fn results(kernel: &FusedKernel) -> impl Iterator<Item = BufferId> + '_ {
    kernel.stores.iter().map(|store| store.buffer).chain(kernel.reduce.as_ref().map(|reduction| reduction.buffer))
}

/// For each buffer the last step during which its bytes are touched: the last of its life, but for what a product
/// reads that is computed in the step after its own.
pub(crate) fn last_uses(steps: &[Step], buffers: &[Buffer]) -> Result<Vec<u32>> {
    let mut last = collected(buffers.iter().map(|buffer| buffer.last_step))?;
    for (index, _) in steps.iter().enumerate().filter(|(_, step)| step.joined) {
        let Some(Kernel::Structural { operands, .. }) = index.checked_sub(1).map(|before| &steps[before].kernel) else {
            continue;
        };
        for operand in operands {
            if let Source::Buffer(id) = operand.source
                && let Some(last) = last.get_mut(id.0 as usize)
            {
                *last = (*last).max(index as u32);
            }
        }
    }
    Ok(last)
}
