//! `broadcast`: repetition to a larger shape by NumPy's rule.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, exactly};
use crate::shape::{check_shape, repeated_axes};
use crate::{Builder, Expr, Sample};

const NAME: &str = "broadcast_to";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], shape: &[i64]) -> Result<Inferred> {
    let [x] = exactly(NAME, operands)?;
    check_shape(NAME, shape)?;
    let from = graph.shape(x);
    if repeated_axes(shape, from).is_none() {
        return Err(Error::shape(NAME, format!("{} does not broadcast to {}", shape_text(from), shape_text(shape)))
            .with_hint("from the last axis backwards, extents must be equal, or 1 to be repeated"));
    }
    Ok((graph.dtype(x), shape.to_vec()))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    Ok(at.tangents[0].map(|tangent| tangent.broadcast(at.shape())))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>) -> Result<()> {
    at.add_summed(0, at.cotangent);
    Ok(())
}

impl Builder {
    pub fn broadcast(&self, x: NodeId, shape: &[i64]) -> Result<NodeId> {
        if self.graph().shape(x) == shape {
            return Ok(x);
        }
        self.infer_and_push(Op::Broadcast, &[x], |graph| infer(graph, &[x], shape))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, from: &[i64], to: &[i64]| {
        Sample::build(label, |s| {
            let x = s.input(dtype, from, (-3.0, 3.0))?;
            s.builder.broadcast(x, to)
        })
    };
    Ok(vec![
        sample("new axis", &[3], &[2, 3])?,
        sample("inner axis", &[2, 1, 3], &[2, 4, 3])?,
        sample("scalar", &[], &[2, 2])?,
        sample("both", &[3, 1], &[2, 3, 4])?,
        sample("to empty", &[1], &[0])?,
    ])
}
