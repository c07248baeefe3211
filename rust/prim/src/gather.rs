//! `gather`: `x[i₀, …, i_{k−1}]` with integer arrays of one shape. Its transpose adds into one accumulator.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result};

use crate::context::{Diff, Transpose};
use crate::indexing::{index_count, selection_shape};
use crate::infer::Inferred;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "gather";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], indices: usize) -> Result<Inferred> {
    if operands.len() != indices + 1 {
        return Err(Error::internal(NAME, format!("{} operands for {indices} indices", operands.len())));
    }
    Ok((graph.dtype(operands[0]), selection_shape(NAME, graph, operands[0], &operands[1..])?))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    Ok(at.tangents[0].map(|tangent| tangent.gather(&at.operands[1..])))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>, indices: u8) -> Result<()> {
    let list = at.coefficients_from(1)?;
    at.update(0, Op::ScatterAdd { indices }, at.cotangent, &list);
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    /// `out[I…, rest…] = x[i₀[I], …, rest…]`; the indices are int64 arrays of one shape.
    pub fn gather(&self, x: NodeId, indices: &[NodeId]) -> Result<NodeId> {
        let op = Op::Gather { indices: index_count(NAME, indices)? };
        let operands: Vec<NodeId> = std::iter::once(x).chain(indices.iter().copied()).collect();
        self.infer_and_push(op, &operands, |graph| infer(graph, &operands, indices.len()))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, shape: &[i64], count: usize, index_shape: &[i64]| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-3.0, 3.0))?;
            let indices = s.indices(&shape[..count], index_shape)?;
            s.builder.gather(x, &indices)
        })
    };
    Ok(vec![
        sample("vector with duplicates", &[4], 1, &[7])?,
        sample("rows", &[5, 3], 1, &[2, 2])?,
        sample("elements", &[3, 4], 2, &[6])?,
        sample("one row", &[3, 2], 1, &[])?,
        sample("none", &[3, 2], 1, &[0])?,
    ])
}
