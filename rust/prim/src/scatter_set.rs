//! `scatter_set`: `base[i₀, …] = value` with integer arrays. Of duplicates the last wins, so the values that it
//! overwrites get no cotangent.

use ckad_graph::{DType, Graph, NodeId, Op, Result};

use crate::context::{Diff, Transpose};
use crate::indexing::{index_count, infer_scatter, last_of_duplicates};
use crate::infer::Inferred;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "scatter_set";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], indices: usize) -> Result<Inferred> {
    infer_scatter(NAME, graph, operands, indices)
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    let value = at.tangent_or_zeros(1);
    Ok(Some(at.tangent_or_zeros(0).scatter_set(value, &at.operands[2..])))
}

/// Reads the value's cotangent before it zeroes the base's: that write can then run in place.
pub(crate) fn transpose(at: &mut Transpose<'_, '_>) -> Result<()> {
    let indices = at.coefficients_from(2)?;
    if at.is_linear(1) {
        let dims = &at.operand_shape(0)[..indices.len()];
        let rest = at.operand_shape(0).len() - indices.len();
        let last = last_of_duplicates(at.builder(), &indices, dims, rest)?;
        let read = at.cotangent.gather(&indices);
        let value = last.map_or(read, |last| last.select(read, read.constant(0.0)));
        at.add(1, value);
    }
    if at.is_linear(0) {
        let zeros = at.builder().expr(at.builder().zeros(at.cotangent.dtype(), at.operand_shape(1))?);
        let base = at.cotangent.scatter_set(zeros, &indices);
        at.add(0, base);
    }
    Ok(())
}

/// The elements that are written.
pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(graph.operands(node)[1]) as u64)
}

impl Builder {
    /// The base with `base[i₀, …] = value`.
    pub fn scatter_set(&self, base: NodeId, value: NodeId, indices: &[NodeId]) -> Result<NodeId> {
        let op = Op::ScatterSet { indices: index_count(NAME, indices)? };
        let operands: Vec<NodeId> = [base, value].into_iter().chain(indices.iter().copied()).collect();
        self.infer_and_push(op, &operands, |graph| infer(graph, &operands, indices.len()))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    crate::sample::scatter_samples(dtype, |builder, base, value, indices| builder.scatter_set(base, value, indices))
}
