//! `strided_read`: a window of the operand's flat memory: slices, reversals, diagonals, sliding windows.
//! Its transpose adds into one accumulator, never pads and adds: a loop over slices stays linear.

use ckad_graph::{DType, Graph, ListId, NodeId, Op, Result, StartId};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, exactly};
use crate::shape::elements;
use crate::strided::{Window, resolve};
use crate::{Builder, Expr, Sample};

const NAME: &str = "strided_read";

fn infer_resolved(graph: &Graph, operands: &[NodeId], shape: &[i64], strides: &[i64], start: i64) -> Result<Inferred> {
    let [x] = exactly(NAME, operands)?;
    Window { shape, strides, start }.check(NAME, elements(graph.shape(x)))?;
    Ok((graph.dtype(x), shape.to_vec()))
}

pub(crate) fn infer(
    graph: &Graph,
    operands: &[NodeId],
    shape: &[i64],
    strides: ListId,
    start: StartId,
) -> Result<Inferred> {
    let (strides, start) = resolve(graph, strides, start)?;
    infer_resolved(graph, operands, shape, strides, start)
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, strides: ListId, start: StartId) -> Result<Option<Expr<'b>>> {
    let strides = at.source.lists.get(strides);
    Ok(at.tangents[0].map(|tangent| tangent.strided_read_at(at.shape(), strides, start)))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>, strides: ListId, start: StartId) -> Result<()> {
    at.update(0, Op::StridedAdd { strides, start }, at.cotangent, &[]);
    Ok(())
}

impl Builder {
    /// `out[i…] = flat(x)[start + Σ i·stride]`.
    pub fn strided_read(&self, x: NodeId, shape: &[i64], strides: &[i64], start: i64) -> Result<NodeId> {
        let start = self.graph_mut().push_start(start)?;
        self.strided_read_at(x, shape, strides, start)
    }

    /// `strided_read` with a start that is in the table already.
    pub fn strided_read_at(&self, x: NodeId, shape: &[i64], strides: &[i64], start: StartId) -> Result<NodeId> {
        let list = self.intern(strides)?;
        let op = Op::StridedRead { strides: list, start };
        self.infer_and_push(op, &[x], |graph| infer(graph, &[x], shape, list, start))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, from: &[i64], shape: &[i64], strides: &[i64], start: i64| {
        Sample::build(label, |s| {
            let x = s.input(dtype, from, (-3.0, 3.0))?;
            s.builder.strided_read(x, shape, strides, start)
        })
    };
    Ok(vec![
        sample("slice", &[10], &[4], &[2], 1)?,
        sample("element", &[3, 4], &[], &[], 7)?,
        sample("row", &[3, 4], &[4], &[1], 4)?,
        sample("both axes reversed", &[3, 4], &[3, 4], &[-4, -1], 11)?,
        sample("diagonal", &[4, 4], &[4], &[5], 0)?,
        sample("sliding window", &[7], &[5, 3], &[1, 1], 0)?,
        sample("transposed block", &[4, 5], &[3, 2], &[1, 5], 6)?,
        sample("repeated", &[4], &[3, 4], &[0, 1], 0)?,
        sample("empty", &[4], &[0], &[1], 4)?,
    ])
}
