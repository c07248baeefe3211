//! `linear_recurrence`: s₀ = b₀, s_k = a_k·s_{k−1} + b_k along an axis. Products and cumulative products are
//! recurrences with b = (x₀, 0, 0, …), so their derivatives are exact whatever the number of zeros: nothing divides.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, axis_byte, check_axis, check_same_dtype, exactly};
use crate::shape::c_strides;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "linear_recurrence";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], axis: usize, absorb: bool) -> Result<Inferred> {
    let [a, b] = exactly(NAME, operands)?;
    let dtype = graph.dtype(b);
    check_same_dtype(NAME, graph.dtype(a), dtype)?;
    if dtype == DType::Bool || (absorb && !dtype.is_float()) {
        return Err(
            Error::dtype(NAME, format!("it is not defined for {dtype}")).with_hint("convert with `.astype(int)` first")
        );
    }
    if graph.shape(a) != graph.shape(b) {
        let what = format!("shapes differ: {} and {}", shape_text(graph.shape(a)), shape_text(graph.shape(b)));
        return Err(Error::shape(NAME, what).with_hint("broadcast them to one shape first"));
    }
    check_axis(NAME, axis, graph.shape(b))?;
    Ok((dtype, graph.shape(b).to_vec()))
}

/// `out_k = x_{k−1}` along the axis with 0 first, or `out_k = x_{k+1}` with 0 last.
fn shifted<'b>(x: Expr<'b>, axis: usize, up: bool) -> Expr<'b> {
    let shape = x.shape();
    if shape[axis] <= 1 {
        return x.zeros_like();
    }
    let strides = c_strides(&shape);
    let mut kept = shape.clone();
    kept[axis] -= 1;
    let mut widths = vec![(0, 0); shape.len()];
    widths[axis] = if up { (1, 0) } else { (0, 1) };
    let start = if up { 0 } else { strides[axis] };
    x.strided_read(&kept, &strides, start).pad(x.constant(0.0), &widths)
}

/// ds_k = a_k·ds_{k−1} + (s_{k−1}·da_k + db_k): the same recurrence with other additions.
pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, axis: usize, reverse: bool) -> Result<Option<Expr<'b>>> {
    let from_a = at.tangents[0].map(|tangent| shifted(at.out, axis, !reverse).lmul(tangent));
    let addition = match (from_a, at.tangents[1]) {
        (Some(from_a), Some(from_b)) => Some(from_a + from_b),
        (one, None) | (None, one) => one,
    };
    Ok(addition.map(|addition| at.operands[0].linear_recurrence(addition, axis, reverse)))
}

/// λ_k = a_{k+1}·λ_{k+1} + cotangent_k: the recurrence from the other end, its coefficients shifted by one.
pub(crate) fn transpose(at: &mut Transpose<'_, '_>, axis: usize, reverse: bool) -> Result<()> {
    let coefficients = shifted(at.coefficient(0)?, axis, reverse);
    at.add(1, coefficients.linear_recurrence(at.cotangent, axis, !reverse));
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(2 * graph.elements(node) as u64)
}

impl Builder {
    /// `a` and `b` of one shape; with `absorb`, the products are `lmul`s.
    pub fn linear_recurrence(&self, a: NodeId, b: NodeId, axis: usize, reverse: bool, absorb: bool) -> Result<NodeId> {
        let op = Op::LinearRecurrence { axis: axis_byte(NAME, axis)?, reverse, absorb };
        self.infer_and_push(op, &[a, b], |graph| infer(graph, &[a, b], axis, absorb))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    let sample = |label: &str, shape: &[i64], axis: usize, reverse: bool, absorb: bool| {
        Sample::build(label, |s| {
            let a = s.input(dtype, shape, (-1.5, 1.5))?;
            let b = s.input(dtype, shape, (-3.0, 3.0))?;
            s.builder.linear_recurrence(a, b, axis, reverse, absorb && dtype.is_float())
        })
    };
    Ok(vec![
        sample("vector", &[6], 0, false, false)?,
        sample("outer axis, reversed", &[4, 3], 0, true, true)?,
        sample("inner axis", &[2, 5], 1, false, true)?,
        sample("middle axis, reversed", &[2, 3, 2], 1, true, false)?,
        sample("one element", &[1], 0, false, false)?,
        sample("empty", &[0, 2], 0, false, false)?,
    ])
}
