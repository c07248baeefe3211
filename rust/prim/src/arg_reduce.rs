//! `arg_reduce`: where the first greatest or least element along an axis is.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text};

use crate::infer::{Inferred, axis_byte, check_axis, exactly};
use crate::shape::{elements, without_axes};
use crate::{Builder, Cost, Sample};

pub(crate) const fn name(max: bool) -> &'static str {
    if max { "argmax" } else { "argmin" }
}

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], max: bool, axis: usize) -> Result<Inferred> {
    let [x] = exactly(name(max), operands)?;
    let shape = graph.shape(x);
    check_axis(name(max), axis, shape)?;
    let reduced = without_axes(shape, &[axis]);
    if elements(shape) == 0 && elements(&reduced) != 0 {
        return Err(Error::value(name(max), format!("no elements to choose from: the shape is {}", shape_text(shape)))
            .with_hint("use an array that is not empty"));
    }
    Ok((DType::I64, reduced))
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(graph.operands(node)[0]) as u64)
}

impl Builder {
    pub fn arg_reduce(&self, max: bool, x: NodeId, axis: usize) -> Result<NodeId> {
        let op = Op::ArgReduce { max, axis: axis_byte(name(max), axis)? };
        self.infer_and_push(op, &[x], |graph| infer(graph, &[x], max, axis))
    }
}

pub(crate) fn samples(dtype: DType, max: bool) -> Result<Vec<Sample>> {
    let sample = |label: &str, shape: &[i64], axis: usize| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-3.0, 3.0))?;
            s.builder.arg_reduce(max, x, axis)
        })
    };
    Ok(vec![
        sample("vector", &[17], 0)?,
        sample("outer axis", &[4, 3], 0)?,
        sample("inner axis", &[3, 4], 1)?,
        sample("empty result", &[0, 3], 1)?,
    ])
}
