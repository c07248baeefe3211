//! `cumulative_sum`: inclusive sums along an axis, from either end. Its transpose runs from the other end.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, axis_byte, check_axis, exactly};
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "cumsum";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], axis: usize) -> Result<Inferred> {
    let [x] = exactly(NAME, operands)?;
    if graph.dtype(x) == DType::Bool {
        return Err(Error::dtype(NAME, "it is not defined for bool").with_hint("convert with `.astype(int)` first"));
    }
    check_axis(NAME, axis, graph.shape(x))?;
    Ok((graph.dtype(x), graph.shape(x).to_vec()))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, axis: usize, reverse: bool) -> Result<Option<Expr<'b>>> {
    Ok(at.tangents[0].map(|tangent| tangent.cumulative_sum(axis, reverse)))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>, axis: usize, reverse: bool) -> Result<()> {
    at.add(0, at.cotangent.cumulative_sum(axis, !reverse));
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    pub fn cumulative_sum(&self, x: NodeId, axis: usize, reverse: bool) -> Result<NodeId> {
        let op = Op::CumulativeSum { axis: axis_byte(NAME, axis)?, reverse };
        self.infer_and_push(op, &[x], |graph| infer(graph, &[x], axis))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    let sample = |label: &str, shape: &[i64], axis: usize, reverse: bool| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-3.0, 3.0))?;
            s.builder.cumulative_sum(x, axis, reverse)
        })
    };
    Ok(vec![
        sample("vector", &[7], 0, false)?,
        sample("outer axis, reversed", &[4, 3], 0, true)?,
        sample("inner axis", &[3, 4], 1, false)?,
        sample("empty", &[0, 2], 0, false)?,
    ])
}
