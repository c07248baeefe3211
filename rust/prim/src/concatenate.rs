//! `concatenate`: arrays joined along an axis.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text, tables};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, axis_byte, check_axis, check_same_dtype};
use crate::shape::c_strides;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "concatenate";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], axis: usize) -> Result<Inferred> {
    let Some((&first, rest)) = operands.split_first() else {
        return Err(Error::value(NAME, "at least one array is needed").with_hint("pass a list that is not empty"));
    };
    let dtype = graph.dtype(first);
    let mut shape = graph.shape(first).to_vec();
    check_axis(NAME, axis, &shape)?;
    for &operand in rest {
        check_same_dtype(NAME, dtype, graph.dtype(operand))?;
        let other = graph.shape(operand);
        let fits = other.len() == shape.len() && (0..other.len()).all(|i| i == axis || other[i] == shape[i]);
        if !fits {
            let what =
                format!("shapes differ off axis {axis}: {} and {}", shape_text(graph.shape(first)), shape_text(other));
            return Err(Error::shape(NAME, what).with_hint("all extents but the joined axis' must be equal"));
        }
        let joined = shape[axis].checked_add(other[axis]);
        shape[axis] = joined.ok_or_else(|| {
            let what =
                format!("the joined array is too large: extents {} and {} along axis {axis}", shape[axis], other[axis]);
            Error::shape(NAME, what).with_hint("join fewer or smaller arrays")
        })?;
    }
    Ok((dtype, shape))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, axis: usize) -> Result<Option<Expr<'b>>> {
    let parts = tables::list(NAME, (0..at.tangents.len()).map(|index| at.tangent_or_zeros(index).id))?;
    Ok(Some(at.builder().expr(at.builder().concatenate(&parts, axis)?)))
}

/// Each operand gets its slice.
pub(crate) fn transpose(at: &mut Transpose<'_, '_>, axis: usize) -> Result<()> {
    let strides = c_strides(at.source.shape(at.node));
    let mut start = 0;
    for index in 0..at.linear.len() {
        let shape = at.operand_shape(index).to_vec();
        if at.is_linear(index) {
            let slice = at.cotangent.strided_read(&shape, &strides, start);
            at.add(index, slice);
        }
        start += shape[axis] * strides[axis];
    }
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    pub fn concatenate(&self, operands: &[NodeId], axis: usize) -> Result<NodeId> {
        let op = Op::Concatenate { axis: axis_byte(NAME, axis)? };
        self.infer_and_push(op, operands, |graph| infer(graph, operands, axis))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, shapes: &[&[i64]], axis: usize| {
        Sample::build(label, |s| {
            let parts = shapes.iter().map(|shape| s.input(dtype, shape, (-3.0, 3.0))).collect::<Result<Vec<_>>>()?;
            s.builder.concatenate(&parts, axis)
        })
    };
    Ok(vec![
        sample("vectors", &[&[3], &[2], &[4]], 0)?,
        sample("outer axis", &[&[2, 3], &[1, 3]], 0)?,
        sample("inner axis", &[&[2, 3], &[2, 1], &[2, 2]], 1)?,
        sample("with an empty one", &[&[0, 3], &[2, 3]], 0)?,
        sample("one", &[&[2, 3]], 1)?,
    ])
}
