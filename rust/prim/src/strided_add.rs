//! `strided_add`: the base with a value added to a window of its flat memory: the transpose of a strided read.
//! Positions may repeat (a window that slides, a stride of 0).

use ckad_graph::{DType, Graph, ListId, NodeId, Op, Result, StartId};

use crate::context::{Diff, Transpose};
use crate::infer::Inferred;
use crate::strided::{infer_write, resolve};
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "strided_add";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], strides: ListId, start: StartId) -> Result<Inferred> {
    let (strides, start) = resolve(graph, strides, start)?;
    infer_write(NAME, graph, operands, strides, start, false)
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, strides: ListId, start: StartId) -> Result<Option<Expr<'b>>> {
    let strides = at.source.lists.get(strides);
    Ok(match at.tangents[1] {
        Some(value) => Some(at.tangent_or_zeros(0).strided_add_at(value, strides, start)),
        None => at.tangents[0],
    })
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>, strides: ListId, start: StartId) -> Result<()> {
    if at.is_linear(1) {
        let value = at.cotangent.strided_read_at(at.operand_shape(1), at.list(strides), start);
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
    /// The base with `flat[start + Σ i·stride] += value[i…]`.
    pub fn strided_add(&self, base: NodeId, value: NodeId, strides: &[i64], start: i64) -> Result<NodeId> {
        let start = self.graph_mut().push_start(start)?;
        self.strided_add_at(base, value, strides, start)
    }

    /// `strided_add` with a start that is in the table already.
    pub fn strided_add_at(&self, base: NodeId, value: NodeId, strides: &[i64], start: StartId) -> Result<NodeId> {
        let list = self.intern(strides)?;
        let op = Op::StridedAdd { strides: list, start };
        self.infer_and_push(op, &[base, value], |graph| infer(graph, &[base, value], list, start))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    let sample = |label: &str, base: &[i64], value: &[i64], strides: &[i64], start: i64| {
        Sample::build(label, |s| {
            let base = s.input(dtype, base, (-3.0, 3.0))?;
            let value = s.input(dtype, value, (-3.0, 3.0))?;
            s.builder.strided_add(base, value, strides, start)
        })
    };
    Ok(vec![
        sample("slice", &[10], &[4], &[2], 1)?,
        sample("element", &[3, 4], &[], &[], 7)?,
        sample("sliding window", &[7], &[5, 3], &[1, 1], 0)?,
        sample("repeated", &[4], &[3, 4], &[0, 1], 0)?,
        sample("reversed", &[3, 4], &[3, 4], &[-4, -1], 11)?,
        sample("empty", &[4], &[0], &[1], 4)?,
    ])
}
