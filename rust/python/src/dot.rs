//! Products of arrays: `@` and the general contraction behind `dot`, `tensordot` and `einsum`.
//!
//! Operands are read in their own memory order and the axes named accordingly, so that `x.T @ w` records one product
//! and no transposition.

use std::sync::Arc;

use ckad_graph::{DType, DotAxes, Error, ListId, NodeId, shape_text};
use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;

use crate::capture::{CapturedMatrix, is_turned};
use crate::convert::{ArrayOperand, array_operand};
use crate::errors::raise;
use crate::layout::{Layout, inverse, is_identity};
use crate::operand::{Operand, innermost, prepare_with, promote};
use crate::repeated::{Plainly, Repeated};
use crate::storage::read_layout;
use crate::tape::{Tape, TapeCell};
use crate::tracer::{Kind, Tracer};

/// An axis of the result by where it comes from: which operand, and which axis of it.
pub type ResultAxis = (usize, usize);

/// Axes of the result as the contraction is defined: batch, then the free axes of each operand.
pub fn natural_axes(axes: &DotAxes, ranks: [usize; 2]) -> Vec<ResultAxis> {
    let mut result: Vec<ResultAxis> = axes.lhs_batch.iter().map(|&axis| (0, axis)).collect();
    result.extend(DotAxes::free(&axes.lhs_batch, &axes.lhs_contract, ranks[0]).iter().map(|&axis| (0, axis)));
    result.extend(DotAxes::free(&axes.rhs_batch, &axes.rhs_contract, ranks[1]).iter().map(|&axis| (1, axis)));
    result
}

/// Contracts over logical axes; the result is in C order with axes in the order `wanted`, then reshaped to `shape`
/// (which only adds or drops axes of length 1).
pub fn contract(
    py: Python<'_>,
    operands: &[Operand<'_, '_>; 2],
    axes: &DotAxes,
    wanted: &[ResultAxis],
    shape: &[i64],
) -> PyResult<Tracer> {
    let dtype = promote(operands);
    // Of bools, whether any pair is true in both: the count of such pairs is not 0.
    let counted = if dtype == DType::Bool { DType::I64 } else { dtype };
    let tape = innermost(operands)?;
    let mut orders: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
    let mut sources = Vec::with_capacity(2);
    for (operand, order) in operands.iter().zip(&mut orders) {
        sources.push(prepare_with(py, tape, operand, dtype, |layout| {
            *order = layout.memory_order(1);
            layout.transposed(order)
        })?);
    }
    // Where each logical axis is in memory order.
    let places = [inverse(&orders[0]), inverse(&orders[1])];
    let placed = |side: usize, logical: &[usize]| logical.iter().map(|&axis| places[side][axis]).collect::<Vec<_>>();
    let in_memory = DotAxes {
        lhs_batch: placed(0, &axes.lhs_batch),
        rhs_batch: placed(1, &axes.rhs_batch),
        lhs_contract: placed(0, &axes.lhs_contract),
        rhs_contract: placed(1, &axes.rhs_contract),
    };
    let ranks = [operands[0].rank(), operands[1].rank()];
    let produced: Vec<ResultAxis> =
        natural_axes(&in_memory, ranks).iter().map(|&(side, axis)| (side, orders[side][axis])).collect();
    let permutation = wanted
        .iter()
        .map(|axis| produced.iter().position(|found| found == axis))
        .collect::<Option<Vec<usize>>>()
        .ok_or_else(|| raise(Error::internal("dot", "an axis of the result comes from nowhere")))?;
    let node = tape.record(py, |tape| {
        let a = sources[0].node(py, tape, counted, false)?;
        let b = sources[1].node(py, tape, counted, false)?;
        let product = tape.builder.dot(a, b, &in_memory, false)?;
        let product =
            if is_identity(&permutation) { product } else { tape.builder.transpose(product, &permutation)? };
        let product = tape.builder.reshape(product, shape)?;
        if counted == dtype { Ok(product) } else { tape.builder.cast(product, dtype) }
    })?;
    Tracer::result(py, &Arc::clone(tape), node, dtype, shape)
}

/// The product of the last axis of `a` with the first of `b`, vectors or matrices of one tape and dtype that lie in C
/// or F order, one of them maybe an ordinary array: what [`contract`] records for them, found without sorting axes.
/// None for anything else.
pub fn plain_product(py: Python<'_>, operands: &[Operand<'_, '_>; 2]) -> PyResult<Option<Tracer>> {
    let tape = match operands {
        [Operand::Traced(a), Operand::Traced(b)] if a.tape().id == b.tape().id => a.tape(),
        [Operand::Traced(x), Operand::Array { .. }] | [Operand::Array { .. }, Operand::Traced(x)] => x.tape(),
        _ => return Ok(None),
    };
    let [a, b] = operands;
    let (lhs, rhs, dtype) = (a.shape(), b.shape(), a.own_dtype());
    let (Some(a_turned), Some(b_turned)) = (turned(a), turned(b)) else { return Ok(None) };
    if lhs.last() != rhs.first() || dtype != b.own_dtype() || dtype == DType::Bool {
        return Ok(None);
    }
    let captured = |operand: &Operand<'_, '_>| match operand {
        Operand::Array { array, .. } => array_operand(py, tape, array.as_any()).map(Some),
        _ => Ok(None),
    };
    let (a_captured, b_captured) = (captured(a)?, captured(b)?);
    // A captured one is as its node says, as in `product`: a column lies in both orders.
    let as_captured = |captured: &Option<ArrayOperand>, turned: bool| match captured {
        Some(array) => {
            let found = tape.read(py, |tape| is_turned(tape.builder.graph().shape(array.node), &array.layout))?;
            Ok::<bool, PyErr>(found.unwrap_or(turned))
        }
        None => Ok(turned),
    };
    let (a_turned, b_turned) = (as_captured(&a_captured, a_turned)?, as_captured(&b_captured, b_turned)?);
    let axes = DotAxes {
        lhs_contract: vec![if a_turned { 0 } else { lhs.len() - 1 }],
        rhs_contract: vec![usize::from(b_turned)],
        ..DotAxes::default()
    };
    let in_memory = |operand: &Operand<'_, '_>, captured: Option<ArrayOperand>, turned: bool, tape: &mut Tape| {
        let upright = |layout: Layout| if turned { layout.transposed(&[1, 0]) } else { layout };
        match (operand, captured) {
            (_, Some(array)) => read_layout(tape, array.node, &upright(array.layout)),
            (Operand::Traced(x), _) if !turned => x.value(py, tape),
            (Operand::Traced(x), _) => x.read(py, tape, &upright(x.layout())),
            _ => Err(Error::internal("dot", "an operand that is not plain")),
        }
    };
    let tape = Arc::clone(tape);
    let node = tape.record(py, |tape| {
        let left = in_memory(a, a_captured, a_turned, tape)?;
        let right = in_memory(b, b_captured, b_turned, tape)?;
        let node = tape.builder.dot(left, right, &axes, false)?;
        tape.retain(node)?;
        Ok(node)
    })?;
    if lhs.len() + rhs.len() == 2 {
        return Ok(Some(Tracer::held_scalar(tape, node, dtype)));
    }
    let shape = [&lhs[..lhs.len() - 1], &rhs[1..]].concat();
    Ok(Some(Tracer::held_array(tape, node, dtype, Layout::contiguous(&shape))))
}

/// An operand of [`product`].
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    Traced(&'a Tracer),
    Captured(CapturedMatrix),
}

impl Factor<'_> {
    /// Of a vector or matrix of floats in C order, or a captured one in F order: its shape, dtype and whether it is
    /// turned.
    fn parts(&self) -> Option<(&[i64], DType, bool)> {
        match self {
            Factor::Captured(matrix) => Some((matrix.shape(), matrix.dtype, matrix.turned)),
            Factor::Traced(tracer) => match tracer.kind() {
                Kind::Array { storage, view } if view.layout.is_plain() => {
                    Some((&view.layout.shape, storage.dtype, false))
                }
                _ => None,
            },
        }
    }
}

/// As [`plain_product`] of operands of one tape, the commonest of them, without looking twice at what was recorded
/// before; None for others.
pub fn product(py: Python<'_>, tape: &Arc<TapeCell>, factors: [Factor<'_>; 2]) -> PyResult<Option<Plainly>> {
    let (Some((lhs, dtype, a_turned)), Some((rhs, b_dtype, b_turned))) = (factors[0].parts(), factors[1].parts())
    else {
        return Ok(None);
    };
    let fits = (1..=2).contains(&lhs.len()) && (1..=2).contains(&rhs.len()) && lhs.last() == rhs.first();
    if !fits || dtype != b_dtype || !dtype.is_float() || tape.is_closed() {
        return Ok(None);
    }
    let (node, layout) = tape.record(py, |tape| {
        let mut nodes = [NodeId(0); 2];
        let mut shapes = [ListId::EMPTY; 2];
        for ((node, shape), factor) in nodes.iter_mut().zip(&mut shapes).zip(&factors) {
            match factor {
                Factor::Captured(matrix) => {
                    *node = matrix.node;
                    *shape = tape.builder.graph().node(*node).shape;
                }
                Factor::Traced(tracer) => {
                    *shape = tape.builder.intern(tracer.shape())?;
                    *node = tracer.plain_value(py, tape, *shape)?;
                }
            }
        }
        let append = |tape: &mut Tape| {
            let axes = DotAxes {
                lhs_contract: vec![if a_turned { 0 } else { lhs.len() - 1 }],
                rhs_contract: vec![usize::from(b_turned)],
                ..DotAxes::default()
            };
            tape.builder.dot(nodes[0], nodes[1], &axes, false)
        };
        let layout = || {
            let shape = [&lhs[..lhs.len() - 1], &rhs[1..]].concat();
            (!shape.is_empty()).then(|| Layout::of_shape(shape))
        };
        let what = Repeated::Product { shapes, turned: [a_turned, b_turned] };
        let (node, layout) = tape.repeat(what, &nodes, dtype, append, layout)?;
        tape.retain_new(node, dtype, &nodes)?;
        Ok((node, layout))
    })?;
    Ok(Some(Plainly { node, dtype, layout }))
}

/// Of a vector or matrix in C or F order: does it lie in F order alone?
fn turned(operand: &Operand<'_, '_>) -> Option<bool> {
    let (in_c_order, in_f_order) = match operand {
        Operand::Traced(x) => match x.kind() {
            Kind::Array { view, .. } => (view.layout.is_c_contiguous(1), view.layout.is_f_contiguous(1)),
            Kind::Scalar { .. } => return None,
        },
        Operand::Array { array, .. } => (array.is_c_contiguous(), array.is_fortran_contiguous()),
        _ => return None,
    };
    match operand.rank() {
        1 | 2 if in_c_order => Some(false),
        2 if in_f_order => Some(true),
        _ => None,
    }
}

/// `np.dot` of arrays: the last axis of `a` with the last but one of `b`. None where they do not fit.
pub fn dot(py: Python<'_>, operands: &[Operand<'_, '_>; 2]) -> PyResult<Option<Tracer>> {
    if let Some(product) = plain_product(py, operands)? {
        return Ok(Some(product));
    }
    let (a, b) = (operands[0].shape(), operands[1].shape());
    let ranks = [a.len(), b.len()];
    if ranks.contains(&0) || a[ranks[0] - 1] != b[ranks[1].saturating_sub(2)] {
        return Ok(None);
    }
    let axes = DotAxes {
        lhs_contract: vec![ranks[0] - 1],
        rhs_contract: vec![ranks[1].saturating_sub(2)],
        ..DotAxes::default()
    };
    let wanted = natural_axes(&axes, ranks);
    let shape: Vec<i64> = wanted.iter().map(|&(side, axis)| [a, b][side][axis]).collect();
    contract(py, operands, &axes, &wanted, &shape).map(Some)
}

fn misfit(name: &str, a: &[i64], b: &[i64], what: &str, hint: &str) -> PyErr {
    let shapes = format!("{what}: {} @ {}", shape_text(a), shape_text(b));
    raise(Error::shape(name, shapes).with_hint(hint.to_owned()))
}

/// `a @ b` with NumPy's rules for one, two and more axes.
pub fn matmul(py: Python<'_>, operands: &[Operand<'_, '_>; 2]) -> PyResult<Tracer> {
    if let Some(product) = plain_product(py, operands)? {
        return Ok(product);
    }
    let name = "matmul";
    let (a, b) = (operands[0].shape(), operands[1].shape());
    if a.is_empty() || b.is_empty() {
        return Err(misfit(name, a, b, "both operands need at least one axis", "multiply by a scalar with *"));
    }
    let a_contract = a.len() - 1;
    let b_contract = b.len().saturating_sub(2);
    if a[a_contract] != b[b_contract] {
        let hint = "the last axis of the first must equal the first of the last two of the second";
        return Err(misfit(name, a, b, "inner sizes differ", hint));
    }
    let (a_stack, b_stack) = (a.len().saturating_sub(2), b.len().saturating_sub(2));
    let stack = a_stack.max(b_stack);
    let mut axes = DotAxes { lhs_contract: vec![a_contract], rhs_contract: vec![b_contract], ..DotAxes::default() };
    let (mut wanted, mut extra, mut shape) = (Vec::new(), Vec::new(), Vec::new());
    for position in 0..stack {
        let in_a = (position + a_stack).checked_sub(stack);
        let in_b = (position + b_stack).checked_sub(stack);
        match (in_a, in_b) {
            (Some(i), Some(j)) if a[i] == b[j] => {
                axes.lhs_batch.push(i);
                axes.rhs_batch.push(j);
                wanted.push((0, i));
                shape.push(a[i]);
            }
            // An axis of length 1 beside a longer one is left over, and dropped by the reshape.
            (Some(i), Some(j)) if b[j] == 1 => {
                wanted.push((0, i));
                extra.push((1, j));
                shape.push(a[i]);
            }
            (Some(i), Some(j)) if a[i] == 1 => {
                wanted.push((1, j));
                extra.push((0, i));
                shape.push(b[j]);
            }
            (Some(i), None) => {
                wanted.push((0, i));
                shape.push(a[i]);
            }
            (None, Some(j)) => {
                wanted.push((1, j));
                shape.push(b[j]);
            }
            _ => return Err(misfit(name, a, b, "the stacks of matrices do not broadcast", "check the leading axes")),
        }
    }
    if a.len() > 1 {
        wanted.push((0, a.len() - 2));
        shape.push(a[a.len() - 2]);
    }
    if b.len() > 1 {
        wanted.push((1, b.len() - 1));
        shape.push(b[b.len() - 1]);
    }
    wanted.extend(extra);
    contract(py, operands, &axes, &wanted, &shape)
}
