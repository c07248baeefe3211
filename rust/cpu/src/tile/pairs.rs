//! Finds arithmetic whose result only one other instruction reads, and has both computed by one loop.

use ckad_graph::DType;
use ckad_plan::program::{FusedKernel, TileOp};
use ckad_prim::Elementwise;

use super::prepare::{Compute, Place, Step, Value};
use crate::isa::Isa;
use crate::lanes;

/// Joins steps to pairs. `at_end`: values that stores and reductions read.
pub fn join(kernel: &FusedKernel, values: &[Value], at_end: &[usize], steps: &mut Vec<Step>) {
    let mut reads = vec![0u32; values.len()];
    // Where each value is computed.
    let mut computed = vec![None; values.len()];
    for (index, step) in steps.iter().enumerate() {
        if let Step::Compute(compute) = step {
            compute.operands().iter().for_each(|&operand| reads[operand] += 1);
            computed[compute.result] = Some(index);
        }
    }
    at_end.iter().for_each(|&value| reads[value] += 1);
    let mut taken = vec![false; steps.len()];
    for index in 0..steps.len() {
        let Some((first, pair)) = found(kernel, values, &reads, &computed, steps, index) else { continue };
        taken[first] = true;
        steps[index] = Step::Compute(pair);
    }
    let mut taken = taken.iter();
    steps.retain(|_| !taken.next().is_some_and(|taken| *taken));
}

/// The step that is to be computed within step `index`, and what that becomes.
fn found(
    kernel: &FusedKernel,
    values: &[Value],
    reads: &[u32],
    computed: &[Option<usize>],
    steps: &[Step],
    index: usize,
) -> Option<(usize, Compute)> {
    let Step::Compute(second) = steps[index] else { return None };
    let [left, right] = *second.operands() else { return None };
    [(left, right, true), (right, left, false)].into_iter().find_map(|(value, other, on_left)| {
        let first = computed[value].filter(|_| reads[value] == 1 && values[value].place == Place::Nowhere)?;
        let Step::Compute(inner) = steps[first] else { return None };
        let [a, b] = *inner.operands() else { return None };
        let dtype = arithmetic(kernel, &inner, &second, on_left)?;
        debug_assert!(values[value].dtype == dtype);
        Some((
            first,
            Compute { first: Some((inner.instruction, on_left)), operands: [a, b, other], arity: 3, ..second },
        ))
    })
}

/// The dtype of two instructions that a lane computes at once.
fn arithmetic(kernel: &FusedKernel, inner: &Compute, second: &Compute, on_left: bool) -> Option<DType> {
    if inner.first.is_some() || second.first.is_some() {
        return None;
    }
    let [inner, second] = [inner, second].map(|compute| &kernel.instructions[compute.instruction]);
    let (TileOp::Elementwise(first_row), TileOp::Elementwise(second_row)) = (inner.op, second.op) else { return None };
    let rows = (Elementwise::from_id(first_row), Elementwise::from_id(second_row));
    // Whether there is one does not depend on the instruction set.
    let lane = lanes::pair(rows.0, rows.1, on_left, inner.dtype, Isa::Scalar);
    lane.filter(|_| inner.dtype == second.dtype).map(|_| inner.dtype)
}
