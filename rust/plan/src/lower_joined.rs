//! Which products run together with the step that reads them, block of rows by block of rows.
//!
//! A matrix product directly followed by a fused kernel that reads it element by element is *joined* with it where the
//! target can run the two as one. A product that nobody else reads then never lies in memory: its buffer has the
//! place `Place::Scratch`, and no bytes in the arena.
//!
//! The one price is that what the product reads must stay until the kernel after it is done, whose results are
//! written meanwhile. Where that would take more bytes than the two steps in turn, they stay two.

use ckad_graph::{Op, Result, interrupt};

use crate::program::{Buffer, BufferId, FusedKernel, Kernel, Place, Source, Step, Target};
use crate::tables::collected;

/// Joins what can be. Lifetimes of buffers are known, places in the arena not yet.
pub(crate) fn join(steps: &mut [Step], buffers: &mut [Buffer], target: &Target) -> Result<()> {
    for index in 1..steps.len() {
        interrupt::check_at(index)?;
        let [product, consumer] = &steps[index - 1..=index] else { continue };
        let Some(result) = joinable(product, consumer, index as u32, buffers) else { continue };
        if (target.joined_scratch)(&product.kernel, &consumer.kernel, target.threads).is_none() {
            continue;
        }
        steps[index].joined = true;
        let result = &mut buffers[result.0 as usize];
        if matches!(result.place, Place::Arena(_)) && result.last_step == index as u32 {
            result.place = Place::Scratch;
        }
    }
    Ok(())
}

/// The buffer of a product that the step at `index` may consume as it is computed.
fn joinable(product: &Step, consumer: &Step, index: u32, buffers: &[Buffer]) -> Option<BufferId> {
    let Kernel::Structural { op: Op::Dot { .. }, operands, result, .. } = &product.kernel else { return None };
    let (Kernel::Fused(kernel), Source::Buffer(id)) = (&consumer.kernel, result.source) else { return None };
    if !kernel.loads.iter().any(|load| load.source == result.source) {
        return None;
    }
    let bytes = |id: BufferId, counts: &dyn Fn(&Buffer) -> bool| {
        let buffer = &buffers[id.0 as usize];
        if matches!(buffer.place, Place::Arena(_)) && counts(buffer) { buffer.bytes } else { 0 }
    };
    let mut dying = 0;
    for (position, operand) in operands.iter().enumerate() {
        match operand.source {
            Source::Buffer(id) if operands[..position].iter().all(|other| other.source != operand.source) => {
                dying += bytes(id, &|buffer| buffer.last_step + 1 == index);
            }
            _ => {}
        }
    }
    let born: usize = results(kernel).map(|id| bytes(id, &|buffer| buffer.first_step == index)).sum();
    let lying = bytes(id, &|_| true);
    let kept = bytes(id, &|buffer| buffer.last_step > index);
    (dying + born + kept <= lying + dying.max(born)).then_some(id)
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
            if let Source::Buffer(id) = operand.source {
                let last = &mut last[id.0 as usize];
                *last = (*last).max(index as u32);
            }
        }
    }
    Ok(last)
}
