//! `scatter_add`: the base with a value added at integer indices, duplicates in turn: the transpose of a gather.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result};

use crate::context::{Diff, Transpose};
use crate::indexing::{index_count, infer_scatter};
use crate::infer::Inferred;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "scatter_add";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], indices: usize) -> Result<Inferred> {
    let (dtype, shape) = infer_scatter(NAME, graph, operands, indices)?;
    if dtype == DType::Bool {
        return Err(Error::dtype(NAME, "it is not defined for bool").with_hint("convert with `.astype(int)` first"));
    }
    Ok((dtype, shape))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    Ok(match at.tangents[1] {
        Some(value) => Some(at.tangent_or_zeros(0).scatter_add(value, &at.operands[2..])),
        None => at.tangents[0],
    })
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>) -> Result<()> {
    if at.is_linear(1) {
        let value = at.cotangent.gather(&at.coefficients_from(2)?);
        at.add(1, value);
    }
    at.add(0, at.cotangent);
    Ok(())
}

/// The elements that are added.
pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(graph.operands(node)[1]) as u64)
}

impl Builder {
    /// The base with `value` added at `[i₀, …]`.
    pub fn scatter_add(&self, base: NodeId, value: NodeId, indices: &[NodeId]) -> Result<NodeId> {
        let op = Op::ScatterAdd { indices: index_count(NAME, indices)? };
        let operands: Vec<NodeId> = [base, value].into_iter().chain(indices.iter().copied()).collect();
        self.infer_and_push(op, &operands, |graph| infer(graph, &operands, indices.len()))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    crate::sample::scatter_samples(dtype, |builder, base, value, indices| builder.scatter_add(base, value, indices))
}
