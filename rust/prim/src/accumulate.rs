//! `accumulate`: acc + g for uses far apart; a step of its own, so that no fused group holds all of them alive.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, check_same_dtype, exactly};
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "accumulate";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId]) -> Result<Inferred> {
    let [sum, addend] = exactly(NAME, operands)?;
    check_same_dtype(NAME, graph.dtype(sum), graph.dtype(addend))?;
    if graph.dtype(sum) == DType::Bool {
        return Err(Error::dtype(NAME, "it is not defined for bool").with_hint("convert with `.astype(int)` first"));
    }
    let shape = graph.shape(sum);
    if shape != graph.shape(addend) {
        let what = format!("shapes differ: {} and {}", shape_text(shape), shape_text(graph.shape(addend)));
        return Err(Error::shape(NAME, what).with_hint("broadcast them to one shape first"));
    }
    Ok((graph.dtype(sum), shape.to_vec()))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    Ok(match (at.tangents[0], at.tangents[1]) {
        (Some(sum), Some(addend)) => Some(sum.accumulate(addend)),
        (one, None) | (None, one) => one,
    })
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>) -> Result<()> {
    at.add(0, at.cotangent);
    at.add(1, at.cotangent);
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    pub fn accumulate(&self, sum: NodeId, addend: NodeId) -> Result<NodeId> {
        self.infer_and_push(Op::Accumulate, &[sum, addend], |graph| infer(graph, &[sum, addend]))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    Ok(vec![Sample::build("", |s| {
        let sum = s.input(dtype, &[3, 4], (-3.0, 3.0))?;
        let addend = s.input(dtype, &[3, 4], (-3.0, 3.0))?;
        s.builder.accumulate(sum, addend)
    })?])
}
