//! `stop_gradient`: its operand, without a tangent.

use ckad_graph::{DType, Graph, NodeId, Op, Result};

use crate::infer::{Inferred, exactly};
use crate::{Builder, Sample};

pub(crate) fn infer(graph: &Graph, operands: &[NodeId]) -> Result<Inferred> {
    let [x] = exactly("stop_gradient", operands)?;
    Ok((graph.dtype(x), graph.shape(x).to_vec()))
}

impl Builder {
    pub fn stop_gradient(&self, x: NodeId) -> Result<NodeId> {
        self.infer_and_push(Op::StopGradient, &[x], |graph| infer(graph, &[x]))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    Ok(vec![Sample::build("", |s| {
        let x = s.input(dtype, &[3, 2], (-3.0, 3.0))?;
        s.builder.stop_gradient(x)
    })?])
}
