//! `reshape`: the same elements in C order under another shape.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, exactly};
use crate::shape::{check_shape, elements};
use crate::{Builder, Expr, Sample};

const NAME: &str = "reshape";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], shape: &[i64]) -> Result<Inferred> {
    let [x] = exactly(NAME, operands)?;
    check_shape(NAME, shape)?;
    let from = graph.shape(x);
    if elements(from) != elements(shape) {
        return Err(Error::shape(NAME, format!("{} does not fit {}", shape_text(from), shape_text(shape)))
            .with_hint(format!("{} elements cannot become {}", elements(from), elements(shape))));
    }
    Ok((graph.dtype(x), shape.to_vec()))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>) -> Result<Option<Expr<'b>>> {
    Ok(at.tangents[0].map(|tangent| tangent.reshape(at.shape())))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>) -> Result<()> {
    let cotangent = at.cotangent.reshape(at.operand_shape(0));
    at.add(0, cotangent);
    Ok(())
}

impl Builder {
    pub fn reshape(&self, x: NodeId, shape: &[i64]) -> Result<NodeId> {
        if self.graph().shape(x) == shape {
            return Ok(x);
        }
        self.infer_and_push(Op::Reshape, &[x], |graph| infer(graph, &[x], shape))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, from: &[i64], to: &[i64]| {
        Sample::build(label, |s| {
            let x = s.input(dtype, from, (-3.0, 3.0))?;
            s.builder.reshape(x, to)
        })
    };
    Ok(vec![
        sample("join", &[2, 3, 4], &[6, 4])?,
        sample("split", &[12], &[3, 1, 4])?,
        sample("to a scalar", &[1, 1], &[])?,
        sample("empty", &[0, 3], &[2, 0])?,
    ])
}
