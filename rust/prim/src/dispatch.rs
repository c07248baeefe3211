//! From an `Op` to its primitive's file. No match here has a wildcard: a new operation is an error until it is placed.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, interrupt, verify_structure};

use crate::context::{Diff, Transpose};
use crate::elementwise::{self, Elementwise};
use crate::infer::Inferred;
use crate::shape::check_shape;
use crate::{
    Accumulator, Cost, Expr, accumulate, arg_reduce, argsort, broadcast, call, cast, concatenate, cumulative_sum, dot,
    gather, iota, leaf, linear_recurrence, pad, random_bits, reduce, reshape, scatter_add, scatter_set, stop_gradient,
    strided_add, strided_read, strided_write, transpose as transpose_axes,
};

/// Tangent of a node of `source`, whose operands and result are given as mapped to the derived graph, where the
/// tangents live too. A tangent has the shape and dtype of its operand; an absent one is zero, as is an absent result.
///
/// The derived graph must continue `source`'s tables (`Graph::derived`): rules reuse lists and starts by id.
pub fn diff<'b>(
    source: &Graph,
    node: NodeId,
    operands: &[Expr<'b>],
    out: Expr<'b>,
    tangents: &[Option<Expr<'b>>],
) -> Result<Option<Expr<'b>>> {
    if !source.dtype(node).is_float() || tangents.iter().all(Option::is_none) {
        return Ok(None);
    }
    let at = Diff { source, node, operands, out, tangents };
    let tangent = match source.op(node) {
        Op::Input(_) | Op::Literal(_) | Op::Scalar(_) | Op::Constant(_) | Op::Iota { .. } | Op::RandomBits => Ok(None),
        Op::Elementwise(id) => elementwise::diff(&at, Elementwise::from_id(id)),
        Op::Cast => cast::diff(&at),
        Op::StopGradient => Ok(None),
        Op::Reshape => reshape::diff(&at),
        Op::Transpose { perm } => transpose_axes::diff(&at, perm),
        Op::Broadcast => broadcast::diff(&at),
        Op::StridedRead { strides, start } => strided_read::diff(&at, strides, start),
        Op::StridedWrite { strides, start } => strided_write::diff(&at, strides, start),
        Op::StridedAdd { strides, start } => strided_add::diff(&at, strides, start),
        Op::Pad { widths } => pad::diff(&at, widths),
        Op::Concatenate { axis } => concatenate::diff(&at, axis.into()),
        Op::Gather { .. } => gather::diff(&at),
        Op::ScatterSet { .. } => scatter_set::diff(&at),
        Op::ScatterAdd { .. } => scatter_add::diff(&at),
        Op::Reduce { kind, axes } => reduce::diff(&at, kind, axes),
        Op::ArgReduce { .. } | Op::Argsort { .. } => Ok(None),
        Op::CumulativeSum { axis, reverse } => cumulative_sum::diff(&at, axis.into(), reverse),
        Op::LinearRecurrence { axis, reverse, absorb: _ } => linear_recurrence::diff(&at, axis.into(), reverse),
        Op::Dot { axes, absorb: _ } => dot::diff(&at, axes),
        Op::Accumulate => accumulate::diff(&at),
        Op::Call(_) | Op::Part(_) => Err(of_transforms(source.op(node))),
    }?;
    at.builder().take_error()?;
    Ok(tangent)
}

/// Adds to the cotangents of the linear operands of a node of `source` what `cotangent`, that of its result, gives.
///
/// `operands` holds the other ones, mapped to the derived graph; `linear` says which are linear. The derived graph must
/// continue `source`'s tables. An error is internal: a tangent went through an operation that is not linear.
pub fn transpose<'b>(
    source: &Graph,
    node: NodeId,
    operands: &[Option<Expr<'b>>],
    linear: &[bool],
    cotangent: Expr<'b>,
    accumulator: &mut dyn Accumulator<'b>,
) -> Result<()> {
    let op = source.op(node);
    let mut at = Transpose { source, node, coefficients: operands, linear, cotangent, accumulator };
    let at = &mut at;
    match op {
        Op::Elementwise(id) => elementwise::transpose(at, Elementwise::from_id(id)),
        Op::Cast => cast::transpose(at),
        Op::Reshape => reshape::transpose(at),
        Op::Transpose { perm } => transpose_axes::transpose(at, perm),
        Op::Broadcast => broadcast::transpose(at),
        Op::StridedRead { strides, start } => strided_read::transpose(at, strides, start),
        Op::StridedWrite { strides, start } => strided_write::transpose(at, strides, start),
        Op::StridedAdd { strides, start } => strided_add::transpose(at, strides, start),
        Op::Pad { widths } => pad::transpose(at, widths),
        Op::Concatenate { axis } => concatenate::transpose(at, axis.into()),
        Op::Gather { indices } => gather::transpose(at, indices),
        Op::ScatterSet { .. } => scatter_set::transpose(at),
        Op::ScatterAdd { .. } => scatter_add::transpose(at),
        Op::Reduce { kind, axes } => reduce::transpose(at, kind, axes),
        Op::CumulativeSum { axis, reverse } => cumulative_sum::transpose(at, axis.into(), reverse),
        Op::LinearRecurrence { axis, reverse, absorb: _ } => linear_recurrence::transpose(at, axis.into(), reverse),
        Op::Dot { axes, absorb: _ } => dot::transpose(at, axes),
        Op::Accumulate => accumulate::transpose(at),
        Op::Input(_) | Op::Literal(_) | Op::Scalar(_) | Op::Constant(_) | Op::Iota { .. } | Op::RandomBits => Ok(()),
        Op::StopGradient | Op::ArgReduce { .. } | Op::Argsort { .. } => {
            Err(Error::internal(op_label(op), "it is not linear, but a tangent passes through it"))
        }
        Op::Call(_) | Op::Part(_) => Err(of_transforms(op)),
    }?;
    cotangent.builder.take_error()
}

fn of_transforms(op: Op) -> Error {
    Error::internal(op_label(op), "transforms derive it by themselves")
}

/// Work of one evaluation of a node.
#[inline]
pub fn cost(graph: &Graph, node: NodeId) -> Cost {
    match graph.op(node) {
        // Most nodes, and the planner asks often.
        Op::Elementwise(id) => elementwise::cost(graph, node, Elementwise::from_id(id)),
        op => structural_cost(graph, node, op),
    }
}

fn structural_cost(graph: &Graph, node: NodeId, op: Op) -> Cost {
    match op {
        Op::Input(_) | Op::Literal(_) | Op::Scalar(_) | Op::Constant(_) => Cost::FREE,
        // Read through strides by their users, or one copy.
        Op::StopGradient | Op::Reshape | Op::Transpose { .. } | Op::Broadcast | Op::StridedRead { .. } => Cost::FREE,
        Op::Iota { .. } => iota::cost(graph, node),
        Op::RandomBits => random_bits::cost(graph, node),
        Op::Elementwise(id) => elementwise::cost(graph, node, Elementwise::from_id(id)),
        Op::Cast => cast::cost(graph, node),
        Op::StridedWrite { .. } => strided_write::cost(graph, node),
        Op::StridedAdd { .. } => strided_add::cost(graph, node),
        Op::Pad { .. } => pad::cost(graph, node),
        Op::Concatenate { .. } => concatenate::cost(graph, node),
        Op::Gather { .. } => gather::cost(graph, node),
        Op::ScatterSet { .. } => scatter_set::cost(graph, node),
        Op::ScatterAdd { .. } => scatter_add::cost(graph, node),
        Op::Reduce { .. } => reduce::cost(graph, node),
        Op::ArgReduce { .. } => arg_reduce::cost(graph, node),
        Op::CumulativeSum { .. } => cumulative_sum::cost(graph, node),
        Op::LinearRecurrence { .. } => linear_recurrence::cost(graph, node),
        Op::Argsort { axis } => argsort::cost(graph, node, axis.into()),
        Op::Dot { axes, absorb: _ } => dot::cost(graph, node, axes),
        Op::Accumulate => accumulate::cost(graph, node),
        Op::Call(_) => call::call_cost(graph, node),
        Op::Part(_) => Cost::FREE,
    }
}

fn infer(graph: &Graph, node: NodeId) -> Result<Inferred> {
    let (operands, dtype, shape) = (graph.operands(node), graph.dtype(node), graph.shape(node));
    match graph.op(node) {
        Op::Input(_) | Op::Literal(_) | Op::Scalar(_) | Op::Constant(_) => leaf::infer(graph, node),
        Op::Iota { axis } => iota::infer(operands, dtype, shape, axis.into()),
        Op::RandomBits => random_bits::infer(graph, operands, dtype, shape),
        Op::Elementwise(id) => elementwise::infer(graph, Elementwise::from_id(id), operands),
        Op::Cast => cast::infer(graph, operands, dtype),
        Op::StopGradient => stop_gradient::infer(graph, operands),
        Op::Reshape => reshape::infer(graph, operands, shape),
        Op::Transpose { perm } => transpose_axes::infer_listed(graph, operands, perm),
        Op::Broadcast => broadcast::infer(graph, operands, shape),
        Op::StridedRead { strides, start } => strided_read::infer(graph, operands, shape, strides, start),
        Op::StridedWrite { strides, start } => strided_write::infer(graph, operands, strides, start),
        Op::StridedAdd { strides, start } => strided_add::infer(graph, operands, strides, start),
        Op::Pad { widths } => pad::infer_listed(graph, operands, widths),
        Op::Concatenate { axis } => concatenate::infer(graph, operands, axis.into()),
        Op::Gather { indices } => gather::infer(graph, operands, indices.into()),
        Op::ScatterSet { indices } => scatter_set::infer(graph, operands, indices.into()),
        Op::ScatterAdd { indices } => scatter_add::infer(graph, operands, indices.into()),
        Op::Reduce { kind, axes } => reduce::infer_listed(graph, operands, kind, axes),
        Op::ArgReduce { max, axis } => arg_reduce::infer(graph, operands, max, axis.into()),
        Op::CumulativeSum { axis, reverse: _ } => cumulative_sum::infer(graph, operands, axis.into()),
        Op::LinearRecurrence { axis, reverse: _, absorb } => {
            linear_recurrence::infer(graph, operands, axis.into(), absorb)
        }
        Op::Argsort { axis } => argsort::infer(graph, operands, axis.into()),
        Op::Dot { axes, absorb: _ } => dot::infer_listed(graph, operands, axes),
        Op::Accumulate => accumulate::infer(graph, operands),
        Op::Call(_) => call::infer_listed(graph, node),
        Op::Part(part) => call::infer_part(graph, operands, part),
    }
}

/// Checks the graph's structure, and that each node has the dtype and shape that inference gives it.
pub fn verify(graph: &Graph) -> Result<()> {
    verify_structure(graph)?;
    for node in graph.ids() {
        interrupt::check_at(node.index())?;
        let name = op_label(graph.op(node));
        let found = infer(graph, node).and_then(|found| check_shape(name, &found.1).map(|()| found));
        let wrong = match found {
            Ok((dtype, shape)) if dtype == graph.dtype(node) && shape == graph.shape(node) => continue,
            Ok((dtype, shape)) => {
                let text = |dtype: DType, shape: &[i64]| format!("{dtype}{}", ckad_graph::shape_text(shape));
                format!("is {} instead of {}", text(graph.dtype(node), graph.shape(node)), text(dtype, &shape))
            }
            Err(error) => error.to_string(),
        };
        let error = Error::internal("verify", format!("%{} ({name}) {wrong}", node.0));
        return Err(error.at_line(graph.attributes(node).line));
    }
    Ok(())
}

/// Name in printed graphs and errors: NumPy's where NumPy has the operation.
pub fn op_name(op: Op) -> String {
    op_label(op).to_owned()
}

pub(crate) fn op_label(op: Op) -> &'static str {
    match op {
        Op::Input(_) => "input",
        Op::Literal(_) => "literal",
        Op::Scalar(_) => "scalar",
        Op::Constant(_) => "constant",
        Op::Iota { .. } => "arange",
        Op::RandomBits => "random_bits",
        Op::Elementwise(id) => Elementwise::from_id(id).name(),
        Op::Cast => "astype",
        Op::StopGradient => "stop_gradient",
        Op::Reshape => "reshape",
        Op::Transpose { .. } => "transpose",
        Op::Broadcast => "broadcast_to",
        Op::StridedRead { .. } => "strided_read",
        Op::StridedWrite { .. } => "strided_write",
        Op::StridedAdd { .. } => "strided_add",
        Op::Pad { .. } => "pad",
        Op::Concatenate { .. } => "concatenate",
        Op::Gather { .. } => "gather",
        Op::ScatterSet { .. } => "scatter_set",
        Op::ScatterAdd { .. } => "scatter_add",
        Op::Reduce { kind, .. } => kind.name(),
        Op::ArgReduce { max, .. } => arg_reduce::name(max),
        Op::CumulativeSum { .. } => "cumsum",
        Op::LinearRecurrence { .. } => "linear_recurrence",
        Op::Argsort { .. } => "argsort",
        Op::Dot { .. } => "dot",
        Op::Accumulate => "accumulate",
        Op::Call(_) => "call",
        Op::Part(_) => "part",
    }
}
