//! `transpose`: axes in another order.

use ckad_graph::{DType, Error, Graph, ListId, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, exactly};
use crate::{Builder, Expr, Sample};

const NAME: &str = "transpose";

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], perm: &[usize]) -> Result<Inferred> {
    let [x] = exactly(NAME, operands)?;
    let shape = graph.shape(x);
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..shape.len()) {
        let axes = perm.iter().map(|&axis| axis as i64).collect::<Vec<_>>();
        let what = format!("axes {} are no permutation of the axes of {}", shape_text(&axes), shape_text(shape));
        return Err(Error::shape(NAME, what).with_hint("name each axis once"));
    }
    Ok((graph.dtype(x), perm.iter().map(|&axis| shape[axis]).collect()))
}

fn permutation(list: &[i64]) -> Vec<usize> {
    list.iter().map(|&axis| axis as usize).collect()
}

pub(crate) fn infer_listed(graph: &Graph, operands: &[NodeId], perm: ListId) -> Result<Inferred> {
    infer(graph, operands, &permutation(graph.lists.get(perm)))
}

/// The permutation that undoes `perm`.
pub(crate) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (to, &from) in perm.iter().enumerate() {
        inverse[from] = to;
    }
    inverse
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, perm: ListId) -> Result<Option<Expr<'b>>> {
    Ok(at.tangents[0].map(|tangent| tangent.transpose(&permutation(at.source.lists.get(perm)))))
}

pub(crate) fn transpose(at: &mut Transpose<'_, '_>, perm: ListId) -> Result<()> {
    let cotangent = at.cotangent.transpose(&inverse(&permutation(at.list(perm))));
    at.add(0, cotangent);
    Ok(())
}

impl Builder {
    /// `perm` as in `np.transpose`.
    pub fn transpose(&self, x: NodeId, perm: &[usize]) -> Result<NodeId> {
        if perm.iter().copied().eq(0..self.graph().rank(x)) {
            return Ok(x);
        }
        let list = self.intern(&perm.iter().map(|&axis| axis as i64).collect::<Vec<_>>())?;
        self.infer_and_push(Op::Transpose { perm: list }, &[x], |graph| infer(graph, &[x], perm))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    let sample = |label: &str, shape: &[i64], perm: &[usize]| {
        Sample::build(label, |s| {
            let x = s.input(dtype, shape, (-3.0, 3.0))?;
            s.builder.transpose(x, perm)
        })
    };
    Ok(vec![
        sample("matrix", &[3, 5], &[1, 0])?,
        sample("cycle", &[2, 3, 4], &[2, 0, 1])?,
        sample("swap of inner axes", &[2, 3, 4], &[0, 2, 1])?,
        sample("empty", &[0, 3], &[1, 0])?,
    ])
}
