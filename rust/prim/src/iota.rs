//! `iota`: 0, 1, 2, … along one axis.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result};

use crate::infer::{Inferred, axis_byte, check_axis, exactly};
use crate::{Builder, Cost, Sample};

const NAME: &str = "arange";

pub(crate) fn infer(operands: &[NodeId], dtype: DType, shape: &[i64], axis: usize) -> Result<Inferred> {
    let [] = exactly(NAME, operands)?;
    if dtype == DType::Bool {
        return Err(Error::dtype(NAME, "a bool cannot count").with_hint("use an integer or float dtype"));
    }
    check_axis(NAME, axis, shape)?;
    Ok((dtype, shape.to_vec()))
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    /// Counts along `axis` of `shape`.
    pub fn iota(&self, dtype: DType, shape: &[i64], axis: usize) -> Result<NodeId> {
        let op = Op::Iota { axis: axis_byte(NAME, axis)? };
        self.infer_and_push(op, &[], |_| infer(&[], dtype, shape, axis))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    Ok(vec![
        Sample::build("long axis", |s| s.builder.iota(dtype, &[5], 0))?,
        Sample::build("middle axis", |s| s.builder.iota(dtype, &[2, 3, 4], 1))?,
        Sample::build("empty", |s| s.builder.iota(dtype, &[0, 3], 0))?,
    ])
}
