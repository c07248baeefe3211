//! Structural kernels: everything that is not elementwise. One file per operation; those that only move
//! elements are strided copies (`strided`), those that compute use NumPy's arithmetic of the dtype (`number`).
//!
//! Every kernel checks shapes and positions itself before it touches memory, so that a bug of an earlier stage
//! becomes an error and not a wild write.

mod accumulate;
mod arg_reduce;
mod argsort;
pub(crate) mod array;
mod concatenate;
mod cumulative_sum;
mod gather;
pub(crate) mod index;
mod iota;
mod linear_recurrence;
pub(crate) mod number;
mod offsets;
mod pad;
mod repeated;
mod scatter;
pub(crate) mod strided;
mod strided_add;
mod views;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use ckad_graph::{Error, Op, Result, tables};
use ckad_plan::program::{ArrayRef, Parameters};

use crate::{Environment, matmul};
use array::Array;
pub use repeated::Moves;
use strided::Mover;

/// Runs one structural node.
///
/// # Safety
/// As for `crate::execute`.
pub unsafe fn execute(
    op: &Op,
    parameters: &Parameters,
    operands: &[ArrayRef],
    result: &ArrayRef,
    environment: &Environment<'_>,
) -> Result<()> {
    let out = Array::resolve(result, environment)?;
    let resolved = tables::tried("run", operands.iter().map(|operand| Array::resolve(operand, environment)))?;
    let operands = resolved.as_slice();
    let list = parameters.list.as_slice();
    check_dtypes(op, operands, &out)?;
    if let Some(moved) = moved(op, parameters, operands, &out, environment, environment) {
        return moved;
    }
    match (*op, operands) {
        (Op::Iota { axis }, []) => iota::iota(usize::from(axis), &out, environment),
        (Op::Gather { .. }, [x, indices @ ..]) => gather::gather(x, indices, &out, environment),
        (Op::ScatterSet { .. }, [base, value, indices @ ..]) => {
            scatter::scatter_set(base, value, indices, &out, environment)
        }
        (Op::ScatterAdd { .. }, [base, value, indices @ ..]) => {
            scatter::scatter_add(base, value, indices, &out, environment)
        }
        (Op::ArgReduce { max, axis }, [x]) => arg_reduce::arg_reduce(max, usize::from(axis), x, &out, environment),
        (Op::CumulativeSum { axis, reverse }, [x]) => {
            cumulative_sum::cumulative_sum(usize::from(axis), reverse, x, &out, environment)
        }
        (Op::LinearRecurrence { axis, reverse, absorb }, [a, b]) => {
            linear_recurrence::linear_recurrence(usize::from(axis), reverse, absorb, a, b, &out, environment)
        }
        (Op::Argsort { axis }, [x]) => argsort::argsort(usize::from(axis), x, &out, environment),
        (Op::Dot { absorb, .. }, [a, b]) => matmul::dot(list, absorb, a, b, &out, environment),
        (Op::Accumulate, [acc, g]) => accumulate::accumulate(acc, g, &out, environment),
        _ => Err(Error::internal("run", format!("no structural kernel for {op:?} of {} operands", operands.len()))),
    }
}

/// Runs a node that only moves elements, or adds them to those that are there; None for the others.
fn moved(
    op: &Op,
    parameters: &Parameters,
    operands: &[Array<'_>],
    out: &Array<'_>,
    environment: &Environment<'_>,
    mover: &impl Mover,
) -> Option<Result<()>> {
    let list = parameters.list.as_slice();
    let at_start = |run: &dyn Fn(i64) -> Result<()>| match parameters.start {
        Some(index) => environment.start(index).and_then(run),
        None => Err(Error::internal("run", "a strided operation needs a start")),
    };
    Some(match (*op, operands) {
        (Op::Reshape | Op::StopGradient, [x]) => views::reshape(x, out, mover),
        (Op::Transpose { .. }, [x]) => views::transpose(list, x, out, mover),
        (Op::Broadcast, [x]) => views::broadcast(x, out, mover),
        (Op::StridedRead { .. }, [x]) => at_start(&|start| views::strided_read(list, start, x, out, mover)),
        (Op::StridedWrite { .. }, [base, value]) => {
            at_start(&|start| views::strided_write(list, start, base, value, out, mover))
        }
        (Op::StridedAdd { .. }, [base, value]) => {
            at_start(&|start| strided_add::strided_add(list, start, base, value, out, mover))
        }
        (Op::Pad { .. }, [x, fill]) => pad::pad(list, x, fill, out, mover),
        (Op::Concatenate { axis }, _) => concatenate::concatenate(usize::from(axis), operands, out, mover),
        _ => return None,
    })
}

/// Bytes of scratch that `execute` needs in a pool of `threads` threads.
pub fn scratch_bytes(
    op: &Op,
    parameters: &Parameters,
    operands: &[ArrayRef],
    result: &ArrayRef,
    threads: usize,
) -> usize {
    match (*op, operands) {
        (Op::Argsort { axis }, [x]) => argsort::scratch_bytes(usize::from(axis), &x.shape, threads),
        (Op::Dot { .. }, [a, b]) => {
            matmul::scratch_bytes(&parameters.list, result.dtype, &a.shape, &b.shape, &result.shape, threads)
        }
        _ => 0,
    }
}

/// Values have the result's dtype, but where the operation says otherwise.
fn check_dtypes(op: &Op, operands: &[Array<'_>], out: &Array<'_>) -> Result<()> {
    let values = match op {
        Op::ArgReduce { .. } | Op::Argsort { .. } => 0,
        Op::Gather { .. } => 1,
        Op::ScatterSet { .. } | Op::ScatterAdd { .. } => 2,
        _ => operands.len(),
    };
    if operands.iter().take(values).all(|operand| operand.dtype == out.dtype) {
        return Ok(());
    }
    Err(Error::internal("run", format!("operands of other dtypes than the result's for {op:?}")))
}
