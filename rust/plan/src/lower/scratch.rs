//! The scratch that steps need, each by itself: the most of all of them.
//!
//! To say how much a kernel needs, the target prepares it as if it were to run. Steps of a loop are the same again and
//! again but for where their bytes are, so who looks like one of the last ones is not asked about.

use std::mem::discriminant;

use ckad_graph::{Op, StartId};

use crate::program::{ArrayRef, FusedKernel, Kernel, Load, Reduction, Source, Step, Store, Target};

/// So many of the last kernels that differ are remembered: about as many as the body of a loop has.
const REMEMBERED: usize = 24;

/// The most scratch that one of the steps needs.
pub(crate) fn scratch_alone(steps: &[Step], target: &Target) -> usize {
    let mut seen: Vec<&Kernel> = Vec::new();
    let (mut most, mut oldest) = (0, 0);
    for Step { kernel, .. } in steps {
        if seen.iter().any(|other| alike(kernel, other)) {
            continue;
        }
        most = most.max((target.scratch)(kernel, target.threads));
        if seen.len() < REMEMBERED {
            seen.push(kernel);
        } else {
            seen[oldest] = kernel;
            oldest = (oldest + 1) % REMEMBERED;
        }
    }
    most
}

/// Whether the kernels differ in nothing but the buffers, and where they are read from on.
fn alike(one: &Kernel, other: &Kernel) -> bool {
    match (one, other) {
        (
            Kernel::Structural { op, parameters, operands, result },
            Kernel::Structural { op: other, parameters: others, operands: of_other, result: its_result },
        ) => {
            let array = |one: &ArrayRef, other: &ArrayRef| one.dtype == other.dtype && one.shape == other.shape;
            discriminant(op) == discriminant(other)
                && (without_start(*op), &parameters.list) == (without_start(*other), &others.list)
                && array(result, its_result)
                && operands.len() == of_other.len()
                && operands.iter().zip(of_other).all(|(one, other)| array(one, other))
        }
        (Kernel::Fused(one), Kernel::Fused(other)) => fused_alike(one, other),
        // Their bodies are as large as programs.
        _ => false,
    }
}

fn without_start(op: Op) -> Op {
    let start = StartId(0);
    match op {
        Op::StridedRead { strides, .. } => Op::StridedRead { strides, start },
        Op::StridedWrite { strides, .. } => Op::StridedWrite { strides, start },
        Op::StridedAdd { strides, .. } => Op::StridedAdd { strides, start },
        op => op,
    }
}

fn fused_alike(one: &FusedKernel, other: &FusedKernel) -> bool {
    let load = |(one, other): (&Load, &Load)| {
        let kind = |source: &Source| discriminant(source);
        (one.dtype, one.register, kind(&one.source)) == (other.dtype, other.register, kind(&other.source))
            && one.strides == other.strides
    };
    let store = |(one, other): (&Store, &Store)| (one.dtype, one.register) == (other.dtype, other.register);
    let reduced = |one: &Reduction, other: &Reduction| {
        (one.kind, one.dtype, one.register) == (other.kind, other.dtype, other.register) && one.reduced == other.reduced
    };
    (one.registers, one.overwrites, one.loads.len(), one.stores.len())
        == (other.registers, other.overwrites, other.loads.len(), other.stores.len())
        && one.extents == other.extents
        && one.instructions == other.instructions
        && one.loads.iter().zip(&other.loads).all(load)
        && one.stores.iter().zip(&other.stores).all(store)
        && match (&one.reduce, &other.reduce) {
            (None, None) => true,
            (Some(one), Some(other)) => reduced(one, other),
            _ => false,
        }
}
