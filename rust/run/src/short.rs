//! Which programs are over before another thread would have woken up: they run on the thread that calls.
//!
//! Handing a run to the pool and hearing of its end costs two wake-ups, some 80 µs. A program of a product of 64 × 64
//! matrices or of a few vectors takes less than that on one thread.

use ckad_graph::Op;
use ckad_plan::program::{Kernel, Program, Step};

/// Longest estimate, ns. What half the threads' help would save by then is about what waking them costs.
const SHORT: u64 = 100_000;
/// What a step costs however small it is, ns.
const STEP: u64 = 300;
/// Operations a ns on one thread: of the matrix library and of other kernels; and elements that these move.
const PRODUCT_FLOPS: u64 = 50;
const FLOPS: u64 = 10;
const ELEMENTS: u64 = 4;

/// Whether one thread is likely to be done within 100 µs. Looks at no more steps than that would take.
pub fn is_short(program: &Program) -> bool {
    let left = program.steps.iter().try_fold(SHORT, |left, step| left.checked_sub(nanoseconds(step)));
    left.is_some()
}

fn nanoseconds(step: &Step) -> u64 {
    let rate = match step.kernel {
        Kernel::Structural { op: Op::Dot { .. }, .. } => PRODUCT_FLOPS,
        _ => FLOPS,
    };
    (step.flops / rate).saturating_add(elements(&step.kernel) / ELEMENTS).saturating_add(STEP)
}

/// Elements that the largest array of a kernel has.
fn elements(kernel: &Kernel) -> u64 {
    let count = match kernel {
        Kernel::Fused(kernel) => kernel.extents.iter().product(),
        Kernel::Structural { operands, result, .. } => {
            let arrays = operands.iter().chain([result]);
            arrays.map(|array| array.shape.iter().product()).max().unwrap_or(0)
        }
    };
    count as u64
}
