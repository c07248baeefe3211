//! A general dot product seen as a batch of strided matrix products.
//!
//! The free axes of an operand must be one axis in memory, and so must its contracted axes; where they are not,
//! the operand is copied into scratch in the order (batch, free, contracted) first.

use ckad_graph::{Error, Result};

use super::Matrices;
use crate::parallel::Shared;
use crate::structural::array::packed_strides;
use crate::structural::strided::{self, Axis, Odometer};

#[derive(Debug)]
pub struct Contraction {
    /// Batch axes; `target` is the stride in a, `source` the stride in b.
    batch: Vec<Axis>,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Side,
    pub b: Side,
}

/// Strides of one operand, of its packed copy where there is one.
#[derive(Debug)]
pub struct Side {
    pub free: isize,
    pub depth: isize,
    pub packing: Option<Packing>,
}

/// The copy that packs an operand.
#[derive(Debug)]
pub struct Packing {
    pub axes: Vec<Axis>,
}

impl Packing {
    pub fn elements(&self) -> usize {
        self.axes.iter().map(|axis| axis.extent).product()
    }
}

/// Extent and stride.
type Extent = (usize, isize);

impl Contraction {
    pub fn new(list: &[i64], a: &[usize], b: &[usize], out: &[usize]) -> Result<Contraction> {
        let wrong = || Error::internal("dot", format!("axes {list:?} do not fit shapes {a:?} and {b:?} → {out:?}"));
        let list =
            list.iter().map(|&entry| usize::try_from(entry)).collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
        let (&[batch, contract], axes) = list.split_first_chunk::<2>().ok_or_else(wrong)?;
        if axes.len() != 2 * (batch + contract) {
            return Err(wrong());
        }
        let (a_batch, rest) = axes.split_at(batch);
        let (b_batch, rest) = rest.split_at(batch);
        let (a_contract, b_contract) = rest.split_at(contract);
        let a_free = free(a_batch, a_contract, a.len()).ok_or_else(wrong)?;
        let b_free = free(b_batch, b_contract, b.len()).ok_or_else(wrong)?;
        let extents = |shape: &[usize], axes: &[usize]| axes.iter().map(|&axis| shape[axis]).collect::<Vec<_>>();
        let expected = [extents(a, a_batch), extents(a, &a_free), extents(b, &b_free)].concat();
        if extents(a, a_batch) != extents(b, b_batch)
            || extents(a, a_contract) != extents(b, b_contract)
            || expected != out
        {
            return Err(wrong());
        }

        let (a_strides, b_strides) = (packed_strides(a), packed_strides(b));
        // The pairs of contracted axes may be taken in any order: that of a, or that of b where b then needs no copy.
        let mut pairs: Vec<(usize, usize)> = a_contract.iter().copied().zip(b_contract.iter().copied()).collect();
        pairs.sort_by_key(|pair| pair.0);
        let plans = [pairs.clone(), {
            pairs.sort_by_key(|pair| pair.1);
            pairs
        }]
        .map(|pairs| {
            let (a_depth, b_depth): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            let left = Layout::new(a, &a_strides, a_batch, &a_free, &a_depth);
            let right = Layout::new(b, &b_strides, b_batch, &b_free, &b_depth);
            (left, right)
        });
        let cost = |plan: &(Layout, Layout)| plan.0.copied() + plan.1.copied();
        let [first, second] = plans;
        let (left, right) = if cost(&second) < cost(&first) { (second.0, second.1) } else { (first.0, first.1) };

        let count = |shape: &[usize], axes: &[usize]| axes.iter().map(|&axis| shape[axis]).product::<usize>();
        let (m, n, k) = (count(a, &a_free), count(b, &b_free), count(a, a_contract));
        let (left, right) = (left.finish(m, k, true), right.finish(n, k, false));
        let mut batch = strided::axes(&extents(a, a_batch), &left.1, &right.1);
        strided::merge(&mut batch);
        Ok(Contraction { batch, m, n, k, a: left.0, b: right.0 })
    }

    pub fn batches(&self) -> usize {
        self.batch.iter().map(|axis| axis.extent).product()
    }

    /// The `index`-th product, given the first.
    pub fn product_at<T>(&self, first: &Matrices<T>, index: usize) -> Matrices<T>
    where
        Matrices<T>: Copy,
    {
        if index == 0 {
            return *first;
        }
        let position = Odometer::at(&self.batch, index);
        Matrices {
            a: Shared::new(first.a.get().wrapping_offset(position.target)),
            b: Shared::new(first.b.get().wrapping_offset(position.source)),
            c: Shared::new(first.c.get().wrapping_add(index * first.m * first.n)),
            ..*first
        }
    }
}

/// The axes that are neither batch nor contracted; None where an axis is named twice or does not exist.
fn free(batch: &[usize], contract: &[usize], rank: usize) -> Option<Vec<usize>> {
    let mut used = vec![false; rank];
    for &axis in batch.iter().chain(contract) {
        if std::mem::replace(used.get_mut(axis)?, true) {
            return None;
        }
    }
    Some((0..rank).filter(|&axis| !used[axis]).collect())
}

/// An operand's axes, grouped.
#[derive(Debug)]
struct Layout {
    batch: Vec<Extent>,
    free: Vec<Extent>,
    depth: Vec<Extent>,
    /// The stride of the joined free and contracted axes, where they can be joined.
    joined: Option<(isize, isize)>,
}

impl Layout {
    fn new(shape: &[usize], strides: &[isize], batch: &[usize], free: &[usize], depth: &[usize]) -> Layout {
        let group = |axes: &[usize]| axes.iter().map(|&axis| (shape[axis], strides[axis])).collect::<Vec<Extent>>();
        let (batch, free, depth) = (group(batch), group(free), group(depth));
        let joined = join(&free).zip(join(&depth));
        Layout { batch, free, depth, joined }
    }

    /// Elements that have to be copied.
    fn copied(&self) -> usize {
        let elements = [&self.batch, &self.free, &self.depth].into_iter().flatten().map(|extent| extent.0).product();
        if self.joined.is_some() { 0 } else { elements }
    }

    /// The side, and its strides over the batch axes. A packed copy has the contracted axes last for the left
    /// operand, the free axes last for the right one.
    fn finish(self, free: usize, depth: usize, left: bool) -> (Side, Vec<isize>) {
        if let Some((free, depth)) = self.joined {
            let batch = self.batch.iter().map(|extent| extent.1).collect();
            return (Side { free, depth, packing: None }, batch);
        }
        let batches = self.batch.len();
        let (inner_first, inner_last) = if left { (self.free, self.depth) } else { (self.depth, self.free) };
        let order = [self.batch, inner_first, inner_last].concat();
        let shape: Vec<usize> = order.iter().map(|extent| extent.0).collect();
        let source: Vec<isize> = order.iter().map(|extent| extent.1).collect();
        let target = packed_strides(&shape);
        let packing = Some(Packing { axes: strided::axes(&shape, &target, &source) });
        let (free, depth) = if left { (depth as isize, 1) } else { (1, free as isize) };
        (Side { free, depth, packing }, target[..batches].to_vec())
    }
}

/// The stride of several axes as one; 1 where they hold one element.
fn join(axes: &[Extent]) -> Option<isize> {
    let mut joined: Option<Extent> = None;
    for &(extent, stride) in axes.iter().rev().filter(|extent| extent.0 != 1) {
        joined = match joined {
            None => Some((extent, stride)),
            Some((inner, step)) if stride == step * inner as isize => Some((inner * extent, step)),
            Some(_) => return None,
        };
    }
    Some(joined.map_or(1, |extent| extent.1))
}
