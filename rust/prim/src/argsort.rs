//! `argsort`: the order of a stable ascending sort. Sorting itself is a gather with it, which carries the derivative.

use ckad_graph::{DType, Graph, NodeId, Op, Result};

use crate::infer::{Inferred, axis_byte, check_axis, exactly};
use crate::{Builder, Cost, Sample};

const NAME: &str = "argsort";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], axis: usize) -> Result<Inferred> {
    let [x] = exactly(NAME, operands)?;
    check_axis(NAME, axis, graph.shape(x))?;
    Ok((DType::I64, graph.shape(x).to_vec()))
}

/// n log₂ n comparisons, counted twice for the moves.
pub(crate) fn cost(graph: &Graph, node: NodeId, axis: usize) -> Cost {
    let extent = graph.shape(node)[axis].max(1) as u64;
    let rounds = u64::from(extent.next_power_of_two().trailing_zeros()).max(1);
    Cost::heavy((graph.elements(node) as u64).saturating_mul(2 * rounds))
}

impl Builder {
    pub fn argsort(&self, x: NodeId, axis: usize) -> Result<NodeId> {
        let op = Op::Argsort { axis: axis_byte(NAME, axis)? };
        self.infer_and_push(op, &[x], |graph| infer(graph, &[x], axis))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, shape: &[i64], axis: usize| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-4.0, 4.0))?;
            s.builder.argsort(x, axis)
        })
    };
    Ok(vec![
        sample("vector", &[17], 0)?,
        sample("outer axis", &[5, 3], 0)?,
        sample("inner axis", &[3, 5], 1)?,
        sample("empty", &[0], 0)?,
    ])
}
