//! `strided_write`: the base with a window of its flat memory replaced: `x[i] = v` for every basic index.

use ckad_graph::{DType, Graph, ListId, NodeId, Op, Result, StartId};

use crate::context::{Diff, Transpose};
use crate::infer::Inferred;
use crate::strided::{infer_write, resolve};
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "strided_write";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], strides: ListId, start: StartId) -> Result<Inferred> {
    let (strides, start) = resolve(graph, strides, start)?;
    infer_write(NAME, graph, operands, strides, start, true)
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, strides: ListId, start: StartId) -> Result<Option<Expr<'b>>> {
    let strides = at.source.lists.get(strides);
    let (base, value) = (at.tangent_or_zeros(0), at.tangent_or_zeros(1));
    Ok(Some(base.strided_write_at(value, strides, start)))
}

/// Reads the value's cotangent before it zeroes the base's: that write can then run in place.
pub(crate) fn transpose(at: &mut Transpose<'_, '_>, strides: ListId, start: StartId) -> Result<()> {
    let (list, shape) = (at.list(strides).to_vec(), at.operand_shape(1).to_vec());
    if at.is_linear(1) {
        let value = at.cotangent.strided_read_at(&shape, &list, start);
        at.add(1, value);
    }
    if at.is_linear(0) {
        let zeros = at.cotangent.builder.zeros(at.cotangent.dtype(), &shape)?;
        let base = at.cotangent.strided_write_at(at.builder().expr(zeros), &list, start);
        at.add(0, base);
    }
    Ok(())
}

/// The elements that are written; a copy of the base is a matter of placement.
pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(graph.operands(node)[1]) as u64)
}

impl Builder {
    /// The base with `flat[start + Σ i·stride] = value[i…]`; positions are distinct.
    pub fn strided_write(&self, base: NodeId, value: NodeId, strides: &[i64], start: i64) -> Result<NodeId> {
        let start = self.graph_mut().push_start(start)?;
        self.strided_write_at(base, value, strides, start)
    }

    /// `strided_write` with a start that is in the table already.
    pub fn strided_write_at(&self, base: NodeId, value: NodeId, strides: &[i64], start: StartId) -> Result<NodeId> {
        let list = self.intern(strides)?;
        let op = Op::StridedWrite { strides: list, start };
        self.infer_and_push(op, &[base, value], |graph| infer(graph, &[base, value], list, start))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, base: &[i64], value: &[i64], strides: &[i64], start: i64| {
        Sample::build(label, |s| {
            let base = s.input(dtype, base, (-3.0, 3.0))?;
            let value = s.input(dtype, value, (-3.0, 3.0))?;
            s.builder.strided_write(base, value, strides, start)
        })
    };
    Ok(vec![
        sample("slice", &[10], &[4], &[2], 1)?,
        sample("element", &[3, 4], &[], &[], 7)?,
        sample("reversed column", &[3, 4], &[3], &[-4], 9)?,
        sample("diagonal", &[4, 4], &[4], &[5], 0)?,
        sample("transposed block", &[4, 5], &[3, 2], &[1, 5], 6)?,
        sample("empty", &[4], &[0], &[1], 4)?,
    ])
}
