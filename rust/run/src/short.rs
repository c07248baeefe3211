//! Which programs are over before another thread has woken up, or leave it nothing to do: they run on the thread that
//! calls.

use ckad_graph::Op;
use ckad_plan::program::{Kernel, Program, Step};

/// Longest estimate of a program that runs on one thread, ns: about what it takes to wake the others and be rid of
/// them.
const SHORT: u64 = 60_000;
/// Longest estimate of a step that is not split to any gain, ns.
const SHORT_STEP: u64 = 5_000;
/// Operations a ns on one thread: of the matrix library and of other kernels; and elements that these move.
const PRODUCT_FLOPS: u64 = 50;
const FLOPS: u64 = 10;
const ELEMENTS: u64 = 4;

/// Whether several threads are likely to be done before one would be.
pub fn gains_from_threads(program: &Program) -> bool {
    split_nanoseconds(program) > SHORT
}

/// The estimate of all steps that are split, as far as it matters, ns.
fn split_nanoseconds(program: &Program) -> u64 {
    // Steps that are joined are split together; they are no small ones.
    let split = program.steps.iter().map(|step| match &step.kernel {
        Kernel::Loop(kernel) => {
            let bodies = kernel.bodies.iter().enumerate();
            let split =
                bodies.map(|(index, body)| split_nanoseconds(&body.program).saturating_mul(kernel.kind.times(index)));
            split.fold(0, u64::saturating_add)
        }
        _ => Some(nanoseconds(step)).filter(|&step| step > SHORT_STEP).unwrap_or(0),
    });
    let mut sum = 0u64;
    for step in split {
        sum = sum.saturating_add(step);
        if sum > SHORT {
            break;
        }
    }
    sum
}

fn nanoseconds(step: &Step) -> u64 {
    match &step.kernel {
        // Looked at alone where possible: a program may have a million steps.
        Kernel::Fused(_) if step.flops > 0 => step.flops / FLOPS,
        Kernel::Fused(kernel) => kernel.extents.iter().product::<usize>() as u64 / ELEMENTS,
        Kernel::Structural { op: Op::Dot { .. }, .. } => step.flops / PRODUCT_FLOPS,
        Kernel::Structural { operands, result, .. } => {
            let arrays = operands.iter().chain([result]);
            let elements = arrays.map(|array| array.shape.iter().product::<usize>()).max();
            step.flops / FLOPS + elements.unwrap_or(0) as u64 / ELEMENTS
        }
        Kernel::Loop(_) => step.flops / FLOPS,
    }
}
