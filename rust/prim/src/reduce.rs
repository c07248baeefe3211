//! `reduce`: sum, max, min, any, all over axes. Elements that tie for a maximum share its derivative evenly.

use ckad_graph::{DType, Error, Graph, ListId, NodeId, Op, ReduceKind, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, check_axis, exactly};
use crate::shape::{elements, with_ones, without_axes};
use crate::{Builder, Cost, Expr, Sample};

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], kind: ReduceKind, axes: &[usize]) -> Result<Inferred> {
    let [x] = exactly(kind.name(), operands)?;
    let (dtype, shape) = (graph.dtype(x), graph.shape(x));
    match kind {
        ReduceKind::Sum if dtype == DType::Bool => {
            return Err(
                Error::dtype("sum", "it is not defined for bool").with_hint("convert with `.astype(int)` first")
            );
        }
        ReduceKind::Any | ReduceKind::All if dtype != DType::Bool => {
            return Err(Error::dtype(kind.name(), format!("it is defined for bool, not {dtype}"))
                .with_hint("compare with 0 first"));
        }
        _ => {}
    }
    for &axis in axes {
        check_axis(kind.name(), axis, shape)?;
    }
    if !axes.is_sorted_by(|a, b| a < b) {
        return Err(Error::value(kind.name(), "an axis is named twice").with_hint("name each axis once"));
    }
    let reduced = without_axes(shape, axes);
    let has_identity = !matches!(kind, ReduceKind::Max | ReduceKind::Min);
    if !has_identity && elements(shape) == 0 && elements(&reduced) != 0 {
        return Err(Error::value(
            kind.name(),
            format!("no elements to choose from: the shape is {}", shape_text(shape)),
        )
        .with_hint("it has no identity; reduce an array that is not empty"));
    }
    Ok((dtype, reduced))
}

fn axes_of(graph: &Graph, axes: ListId) -> Vec<usize> {
    graph.lists.get(axes).iter().map(|&axis| axis as usize).collect()
}

pub(crate) fn infer_listed(graph: &Graph, operands: &[NodeId], kind: ReduceKind, axes: ListId) -> Result<Inferred> {
    infer(graph, operands, kind, &axes_of(graph, axes))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, kind: ReduceKind, axes: ListId) -> Result<Option<Expr<'b>>> {
    let Some(tangent) = at.tangents[0] else { return Ok(None) };
    let axes = axes_of(at.source, axes);
    Ok(match kind {
        ReduceKind::Sum => Some(tangent.sum(&axes)),
        ReduceKind::Max | ReduceKind::Min => Some(mean_over_extrema(at, tangent, &axes)),
        ReduceKind::Any | ReduceKind::All => None,
    })
}

/// The mean of the tangents of the elements that attain the extremum: all that equal it, or all NaNs.
fn mean_over_extrema<'b>(at: &Diff<'_, 'b>, tangent: Expr<'b>, axes: &[usize]) -> Expr<'b> {
    let x = at.operands[0];
    let extremum = at.out.reshape(&with_ones(&x.shape(), axes));
    let attains = x.equal(extremum).logical_or(x.isnan()).cast(tangent.dtype());
    attains.sum(axes).reciprocal().lmul(attains.lmul(tangent).sum(axes))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>, kind: ReduceKind, axes: ListId) -> Result<()> {
    if kind != ReduceKind::Sum {
        return Err(Error::internal(kind.name(), "it is not linear, but a tangent passes through it"));
    }
    let cotangent = at.cotangent.spread(&axes_of(at.source, axes), at.operand_shape(0));
    at.add(0, cotangent);
    Ok(())
}

/// One operation per element that is read.
pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops(graph.elements(graph.operands(node)[0]) as u64)
}

impl Builder {
    /// Reduces over `axes`, in any order, and removes them.
    pub fn reduce(&self, kind: ReduceKind, x: NodeId, axes: &[usize]) -> Result<NodeId> {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        let list = self.intern(&axes.iter().map(|&axis| axis as i64).collect::<Vec<_>>())?;
        self.infer_and_push(Op::Reduce { kind, axes: list }, &[x], |graph| infer(graph, &[x], kind, &axes))
    }
}

pub(crate) fn samples(dtype: DType, kind: ReduceKind) -> Result<Vec<Sample>> {
    let defined = match kind {
        ReduceKind::Sum => dtype != DType::Bool,
        ReduceKind::Max | ReduceKind::Min => true,
        ReduceKind::Any | ReduceKind::All => dtype == DType::Bool,
    };
    if !defined {
        return Ok(Vec::new());
    }
    let sample = |label: &str, shape: &[i64], axes: &[usize]| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-3.0, 3.0))?;
            s.builder.reduce(kind, x, axes)
        })
    };
    let mut samples = vec![
        sample("all of a vector", &[37], &[0])?,
        sample("all of a matrix", &[3, 5], &[0, 1])?,
        sample("outer axis", &[4, 3], &[0])?,
        sample("inner axis", &[3, 4], &[1])?,
        sample("middle axis", &[2, 3, 4], &[1])?,
        sample("outer and inner axis", &[2, 3, 4], &[0, 2])?,
        sample("no axis", &[2, 3], &[])?,
        sample("empty result", &[0, 3], &[1])?,
    ];
    if !matches!(kind, ReduceKind::Max | ReduceKind::Min) {
        samples.push(sample("empty operand", &[0, 3], &[0])?);
    }
    Ok(samples)
}
