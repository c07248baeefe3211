//! `dot`: the general contraction of two arrays: batch axes, then free axes of each side. Matrix products, einsum and
//! tensordot are this one. Its transposes are dots too, and absorb: a linear dot treats 0·∞ as 0.

use ckad_graph::{DType, DotAxes, Error, Graph, ListId, NodeId, Op, Result, shape_text};

use crate::context::{Diff, Transpose};
use crate::infer::{Inferred, check_same_dtype, exactly};
use crate::transpose::inverse;
use crate::{Builder, Cost, Expr, Sample};

const NAME: &str = "dot";

/// Axes exist, each is named once.
fn check_side(shape: &[i64], batch: &[usize], contract: &[usize]) -> Result<()> {
    let mut axes: Vec<usize> = batch.iter().chain(contract).copied().collect();
    axes.sort_unstable();
    if axes.last().is_some_and(|&last| last >= shape.len()) || axes.windows(2).any(|pair| pair[0] == pair[1]) {
        let what = format!("batch axes {batch:?} and contracted axes {contract:?} do not fit {}", shape_text(shape));
        return Err(Error::shape(NAME, what).with_hint("name each axis once"));
    }
    Ok(())
}

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], axes: &DotAxes) -> Result<Inferred> {
    let [a, b] = exactly(NAME, operands)?;
    let dtype = graph.dtype(a);
    check_same_dtype(NAME, dtype, graph.dtype(b))?;
    if dtype == DType::Bool {
        return Err(Error::dtype(NAME, "it is not defined for bool").with_hint("convert with `.astype(int)` first"));
    }
    let (lhs, rhs) = (graph.shape(a), graph.shape(b));
    check_side(lhs, &axes.lhs_batch, &axes.lhs_contract)?;
    check_side(rhs, &axes.rhs_batch, &axes.rhs_contract)?;
    let pairs = [(&axes.lhs_batch, &axes.rhs_batch), (&axes.lhs_contract, &axes.rhs_contract)];
    for (left, right) in pairs.iter().flat_map(|(left, right)| left.iter().zip(right.iter())) {
        if lhs[*left] != rhs[*right] {
            let what = format!(
                "{} and {} do not match: axis {left} of the first has {} elements, axis {right} of the second {}",
                shape_text(lhs),
                shape_text(rhs),
                lhs[*left],
                rhs[*right]
            );
            return Err(Error::shape(NAME, what).with_hint("one of them may need `.T`"));
        }
    }
    let batch = axes.lhs_batch.iter().map(|&axis| lhs[axis]);
    let left = DotAxes::free(&axes.lhs_batch, &axes.lhs_contract, lhs.len());
    let right = DotAxes::free(&axes.rhs_batch, &axes.rhs_contract, rhs.len());
    let free = left.iter().map(|&axis| lhs[axis]).chain(right.iter().map(|&axis| rhs[axis]));
    Ok((dtype, batch.chain(free).collect()))
}

/// dtype, extents and rank of the product of vectors or matrices that fit, without lists of axes; None for the rest.
fn of_matrices(graph: &Graph, a: NodeId, b: NodeId, axes: &DotAxes) -> Option<(DType, [i64; 2], usize)> {
    let (&[left], &[right], dtype) = (axes.lhs_contract.as_slice(), axes.rhs_contract.as_slice(), graph.dtype(a))
    else {
        return None;
    };
    let (lhs, rhs) = (graph.shape(a), graph.shape(b));
    let fit = dtype == graph.dtype(b) && dtype != DType::Bool && lhs.get(left)? == rhs.get(right)?;
    if !fit || !axes.lhs_batch.is_empty() || !axes.rhs_batch.is_empty() {
        return None;
    }
    let (mut extents, mut rank) = ([1; 2], 0);
    for (shape, contracted) in [(lhs, left), (rhs, right)] {
        match (shape, contracted) {
            ([_], _) => {}
            (&[_, free], 0) | (&[free, _], 1) => {
                extents[rank] = free;
                rank += 1;
            }
            _ => return None,
        }
    }
    // What may not fit into memory is for the general case to refuse.
    (extents[0].checked_mul(extents[1])? <= i64::from(i32::MAX)).then_some((dtype, extents, rank))
}

pub(crate) fn infer_listed(graph: &Graph, operands: &[NodeId], axes: ListId) -> Result<Inferred> {
    infer(graph, operands, &DotAxes::read(&graph.lists, axes))
}

pub(crate) fn diff<'b>(at: &Diff<'_, 'b>, axes: ListId) -> Result<Option<Expr<'b>>> {
    let axes = DotAxes::read(&at.source.lists, axes);
    let left = at.tangents[0].map(|tangent| tangent.linear_dot(at.operands[1], &axes));
    let right = at.tangents[1].map(|tangent| at.operands[0].linear_dot(tangent, &axes));
    Ok(match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (one, None) | (None, one) => one,
    })
}

/// The cotangent's axes are batch, free of a, free of b. For `a` it is contracted with b over b's free axes, for `b`
/// with a over a's, in the order (a, cotangent), so that neither side of a matrix product needs its result transposed.
pub(crate) fn transpose(at: &mut Transpose<'_, '_>, axes: ListId) -> Result<()> {
    let DotAxes { lhs_batch, rhs_batch, lhs_contract, rhs_contract } = DotAxes::read(&at.source.lists, axes);
    let lhs_free = DotAxes::free(&lhs_batch, &lhs_contract, at.operand_shape(0).len());
    let rhs_free = DotAxes::free(&rhs_batch, &rhs_contract, at.operand_shape(1).len());
    let batch: Vec<usize> = (0..lhs_batch.len()).collect();
    let (first, second) = (batch.len(), batch.len() + lhs_free.len());
    let partner = |from: &[usize], to: &[usize]| {
        let mut pairs: Vec<(usize, usize)> = from.iter().copied().zip(to.iter().copied()).collect();
        pairs.sort_unstable();
        pairs.into_iter().map(|(_, to)| to).collect::<Vec<_>>()
    };
    if at.is_linear(0) {
        let product = DotAxes {
            lhs_batch: batch.clone(),
            rhs_batch: rhs_batch.clone(),
            lhs_contract: (second..second + rhs_free.len()).collect(),
            rhs_contract: rhs_free.clone(),
        };
        // Axes of the result, as axes of a.
        let found = [&lhs_batch[..], &lhs_free, &partner(&rhs_contract, &lhs_contract)].concat();
        let cotangent = at.cotangent.linear_dot(at.coefficient(1)?, &product).transpose(&inverse(&found));
        at.add(0, cotangent);
    }
    if at.is_linear(1) {
        let product = DotAxes {
            lhs_batch: lhs_batch.clone(),
            rhs_batch: batch,
            lhs_contract: lhs_free,
            rhs_contract: (first..second).collect(),
        };
        // Axes of the result, as axes of b.
        let found = [&rhs_batch[..], &partner(&lhs_contract, &rhs_contract), &rhs_free].concat();
        let cotangent = at.coefficient(0)?.linear_dot(at.cotangent, &product).transpose(&inverse(&found));
        at.add(1, cotangent);
    }
    Ok(())
}

/// A multiplication and an addition per contracted element.
pub(crate) fn cost(graph: &Graph, node: NodeId, axes: ListId) -> Cost {
    let shape = graph.shape(graph.operands(node)[0]);
    let contracted = DotAxes::read(&graph.lists, axes).lhs_contract.iter().map(|&axis| shape[axis] as u64).product();
    Cost::heavy((graph.elements(node) as u64).saturating_mul(contracted).saturating_mul(2))
}

impl Builder {
    /// Contracts `a` with `b`; `absorb` for a dot that is linear in one side's tangent or cotangent.
    pub fn dot(&self, a: NodeId, b: NodeId, axes: &DotAxes, absorb: bool) -> Result<NodeId> {
        let list = axes.intern(&mut self.graph_mut().lists)?;
        let op = Op::Dot { axes: list, absorb };
        {
            let mut graph = self.graph_mut();
            if let Some((dtype, extents, rank)) = of_matrices(&graph, a, b, axes) {
                let shape = graph.lists.intern(&extents[..rank])?;
                return graph.push(op, &[a, b], dtype, shape, self.attributes());
            }
        }
        self.infer_and_push(op, &[a, b], |graph| infer(graph, &[a, b], axes))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if dtype == DType::Bool {
        return Ok(Vec::new());
    }
    let sample = |label: &str, lhs: &[i64], rhs: &[i64], batch: [&[usize]; 2], contract: [&[usize]; 2]| {
        Sample::build(label, |s| {
            let a = s.input(dtype, lhs, (-3.0, 3.0))?;
            let b = s.input(dtype, rhs, (-3.0, 3.0))?;
            let axes = DotAxes {
                lhs_batch: batch[0].to_vec(),
                rhs_batch: batch[1].to_vec(),
                lhs_contract: contract[0].to_vec(),
                rhs_contract: contract[1].to_vec(),
            };
            s.builder.dot(a, b, &axes, label == "absorbing")
        })
    };
    Ok(vec![
        sample("matrices", &[3, 4], &[4, 5], [&[], &[]], [&[1], &[0]])?,
        sample("absorbing", &[3, 4], &[4, 5], [&[], &[]], [&[1], &[0]])?,
        sample("both transposed", &[4, 3], &[5, 4], [&[], &[]], [&[0], &[1]])?,
        sample("vectors", &[6], &[6], [&[], &[]], [&[0], &[0]])?,
        sample("matrix and vector", &[3, 4], &[4], [&[], &[]], [&[1], &[0]])?,
        sample("vector and matrix", &[3], &[3, 2], [&[], &[]], [&[0], &[0]])?,
        sample("outer product", &[3], &[4], [&[], &[]], [&[], &[]])?,
        sample("batched", &[2, 3, 4], &[2, 4, 5], [&[0], &[0]], [&[2], &[1]])?,
        sample("batch axes inside", &[3, 2, 4], &[4, 5, 2], [&[1], &[2]], [&[2], &[0]])?,
        sample("two axes, crossed", &[2, 3, 4], &[4, 5, 2], [&[], &[]], [&[0, 2], &[2, 0]])?,
        sample("batch alone", &[2, 3], &[3, 2], [&[0, 1], &[1, 0]], [&[], &[]])?,
        sample("nothing contracted", &[2, 0], &[0, 3], [&[], &[]], [&[1], &[0]])?,
    ])
}
