//! `pad`: an array with a border of one scalar.

use ckad_graph::{DType, Error, Graph, ListId, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, check_same_dtype, exactly};
use crate::shape::c_strides;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "pad";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], widths: &[i64]) -> Result<Inferred> {
    let [x, fill] = exactly(NAME, operands)?;
    check_same_dtype(NAME, graph.dtype(x), graph.dtype(fill))?;
    let shape = graph.shape(x);
    if graph.rank(fill) != 0 {
        return Err(Error::shape(NAME, format!("the fill must be a scalar, not {}", shape_text(graph.shape(fill))))
            .with_hint("give one number"));
    }
    if widths.len() != 2 * shape.len() || widths.iter().any(|&width| width < 0) {
        let what = format!("widths {} do not fit shape {}", shape_text(widths), shape_text(shape));
        return Err(Error::shape(NAME, what).with_hint("give two widths of at least 0 an axis"));
    }
    let padded = shape.iter().zip(widths.chunks_exact(2)).map(|(&extent, width)| {
        let padded = extent.checked_add(width[0]).and_then(|padded| padded.checked_add(width[1]));
        padded.ok_or_else(|| {
            Error::shape(NAME, format!("widths {} are too large", shape_text(widths))).with_hint("use smaller widths")
        })
    });
    Ok((graph.dtype(x), padded.collect::<Result<_>>()?))
}

pub(crate) fn infer_listed(graph: &Graph, operands: &[NodeId], widths: ListId) -> Result<Inferred> {
    infer(graph, operands, graph.lists.get(widths))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, widths: ListId) -> Result<Option<Expr<'b>>> {
    let pairs: Vec<(i64, i64)> = at.source.lists.get(widths).chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let fill = at.tangents[1].unwrap_or_else(|| at.operands[1].constant(0.0));
    Ok(Some(at.tangent_or_zeros(0).pad(fill, &pairs)))
}

/// The interior goes to the array; the rest, summed, to the fill.
pub(crate) fn transpose(at: &mut Transpose<'_, '_>, widths: ListId) -> Result<()> {
    let strides = c_strides(at.source.shape(at.node));
    let before = at.list(widths).chunks_exact(2).map(|pair| pair[0]);
    let start = before.zip(&strides).map(|(width, stride)| width * stride).sum();
    let interior = at.operand_shape(0).to_vec();
    let axes: Vec<usize> = (0..interior.len()).collect();
    if at.is_linear(0) {
        let cotangent = at.cotangent.strided_read(&interior, &strides, start);
        at.add(0, cotangent);
    }
    if at.is_linear(1) {
        let zeros = at.builder().expr(at.builder().zeros(at.cotangent.dtype(), &interior)?);
        let border = at.cotangent.strided_write(zeros, &strides, start);
        at.add(1, border.sum(&axes));
    }
    Ok(())
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(node) as u64)
}

impl Builder {
    /// `widths`: elements before and after, per axis.
    pub fn pad(&self, x: NodeId, fill: NodeId, widths: &[(i64, i64)]) -> Result<NodeId> {
        let flat: Vec<i64> = widths.iter().flat_map(|&(before, after)| [before, after]).collect();
        let op = Op::Pad { widths: self.intern(&flat)? };
        self.infer_and_push(op, &[x, fill], |graph| infer(graph, &[x, fill], &flat))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, shape: &[i64], widths: &[(i64, i64)]| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-3.0, 3.0))?;
            let fill = s.input(dtype, &[], (-3.0, 3.0))?;
            s.builder.pad(x, fill, widths)
        })
    };
    Ok(vec![
        sample("vector", &[4], &[(1, 2)])?,
        sample("one side of each axis", &[2, 3], &[(1, 0), (0, 2)])?,
        sample("empty array", &[0, 2], &[(1, 1), (0, 1)])?,
        sample("nothing", &[2, 2], &[(0, 0), (0, 0)])?,
    ])
}
