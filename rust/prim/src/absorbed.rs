//! Whether an absorbing product had anything to absorb, written in primitives: 0 that met a number which is not
//! finite. `ckad.debug_nans` asks.

use ckad_graph::{DType, DotAxes, Graph, NodeId, Op, ReduceKind};

use crate::shape::c_strides;
use crate::{Elementwise, Expr};

/// A bool: did this node of `source` absorb anywhere? `operands` and `out` are its copies. None where it is not an
/// absorbing product.
pub fn absorbed<'b>(source: &Graph, node: NodeId, operands: &[Expr<'b>], out: Expr<'b>) -> Option<Expr<'b>> {
    match (source.op(node), operands) {
        (Op::Elementwise(id), &[a, b]) if id == Elementwise::Lmul.id() => Some(met(a, b)),
        (Op::LinearRecurrence { axis, reverse, absorb: true }, &[a, _]) => {
            // Each coefficient, the first one aside, is multiplied by the result before it.
            let axis = usize::from(axis);
            (a.shape()[axis] > 1).then(|| met(without_end(a, axis, reverse), without_end(out, axis, !reverse)))
        }
        (Op::Dot { axes, absorb: true }, &[a, b]) => {
            let axes = DotAxes::read(&source.lists, axes);
            // How often they met, as a sum of ones.
            let count = |a: Expr<'b>, b: Expr<'b>| {
                any(a.cast(DType::F32).linear_dot(b.cast(DType::F32), &axes).cast(DType::Bool))
            };
            Some(count(is_zero(a), is_wild(b)).logical_or(count(is_wild(a), is_zero(b))))
        }
        _ => None,
    }
}

fn is_zero(x: Expr<'_>) -> Expr<'_> {
    x.equal(x.constant(0.0))
}

fn is_wild(x: Expr<'_>) -> Expr<'_> {
    x.isfinite().logical_not()
}

fn met<'b>(a: Expr<'b>, b: Expr<'b>) -> Expr<'b> {
    any(is_zero(a).logical_and(is_wild(b)).logical_or(is_wild(a).logical_and(is_zero(b))))
}

fn any(x: Expr<'_>) -> Expr<'_> {
    let axes: Vec<usize> = (0..x.shape().len()).collect();
    if axes.is_empty() { x } else { x.reduce(ReduceKind::Any, &axes) }
}

/// All but the last element along an axis, or all but the first.
fn without_end(x: Expr<'_>, axis: usize, last: bool) -> Expr<'_> {
    let mut shape = x.shape();
    let strides = c_strides(&shape);
    shape[axis] -= 1;
    x.strided_read(&shape, &strides, if last { 0 } else { strides[axis] })
}
