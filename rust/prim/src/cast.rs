//! `cast`: conversion to another dtype, as NumPy's `astype`.

use ckad_graph::{DType, Graph, NodeId, Op, Result};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, exactly};
use crate::{Builder, Cost, Expr, Sample};

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], dtype: DType) -> Result<Inferred> {
    let [x] = exactly("astype", operands)?;
    Ok((dtype, graph.shape(x).to_vec()))
}

/// Between floats; a tangent does not enter or leave integers.
pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    Ok(at.tangents[0].map(|tangent| tangent.cast(at.source.dtype(at.node))))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>) -> Result<()> {
    let dtype = at.source.dtype(at.source.operands(at.node)[0]);
    at.add(0, at.cotangent.cast(dtype));
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    pub fn cast(&self, x: NodeId, dtype: DType) -> Result<NodeId> {
        if self.dtype(x) == dtype {
            return Ok(x);
        }
        self.infer_and_push(Op::Cast, &[x], |graph| infer(graph, &[x], dtype))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    DType::ALL
        .iter()
        .filter(|&&to| to != dtype)
        .map(|&to| {
            Sample::build(&format!("to {to}"), |s| {
                let x = s.input(dtype, &[3, 5], (0.0, 100.0))?;
                s.builder.cast(x, to)
            })
        })
        .collect()
}
