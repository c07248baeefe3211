//! The operations that a node can be. Their meaning is defined in `ckad-prim`, one file per structural case.

use crate::{CallId, Error, ListId, ListTable, Result};

/// A row of the elementwise table in `ckad-prim`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ElementwiseId(pub u8);

/// An entry of the graph's table of slice starts, in elements of the operand's flat memory. Starts are
/// inputs of a program, not part of its structure: the same program serves `x[3]` and `x[4]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StartId(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ReduceKind {
    Sum,
    Max,
    Min,
    Any,
    All,
}

impl ReduceKind {
    pub const ALL: [ReduceKind; 5] =
        [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min, ReduceKind::Any, ReduceKind::All];

    /// NumPy's name.
    pub const fn name(self) -> &'static str {
        match self {
            ReduceKind::Sum => "sum",
            ReduceKind::Max => "max",
            ReduceKind::Min => "min",
            ReduceKind::Any => "any",
            ReduceKind::All => "all",
        }
    }
}

/// An operation. Shapes are exact everywhere but in `Elementwise`, whose operands broadcast as in NumPy.
/// An array is its elements in C order of the node's shape; a "flat memory" is that sequence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// The n-th input of the graph.
    Input(u32),
    /// A scalar that is part of the program's structure (0, 1, integer exponents, ±0.5): the bits of an f32.
    Literal(u32),
    /// A scalar in `Graph::scalars`: an input of the program.
    Scalar(u32),
    /// A captured array in `Graph::constants`: an input of the program.
    Constant(u32),
    /// 0, 1, 2, … along axis `axis` of the node's shape (integers or floats).
    Iota { axis: u8 },
    /// `(key, first)`, both uint64 of rank 0: at the place i of the flat memory the block of Threefry2x32-20 of the key
    /// and the counter first + i. As an unsigned integer: both its words in 64 bits, or the low bits of their exclusive
    /// or.
    RandomBits,

    /// A row of the table over broadcast operands.
    Elementwise(ElementwiseId),
    /// Conversion to the node's dtype.
    Cast,
    /// The operand; no tangent flows through.
    StopGradient,

    /// The flat memory under the node's shape.
    Reshape,
    /// `out[i…] = x[i permuted]`, `perm` as in `np.transpose`.
    Transpose { perm: ListId },
    /// The operand broadcast to the node's shape by NumPy's rule.
    Broadcast,
    /// `out[i…] = flat(x)[start + Σ i·stride]`; strides may be zero or negative.
    StridedRead { strides: ListId, start: StartId },
    /// `(base, value)`: the base with `flat[start + Σ i·stride] = value[i…]`; positions are distinct.
    StridedWrite { strides: ListId, start: StartId },
    /// `(base, value)`: the base with `flat[start + Σ i·stride] += value[i…]`; positions may repeat.
    StridedAdd { strides: ListId, start: StartId },
    /// `(x, fill)`: x with `widths = [before₀, after₀, …]` elements of the scalar `fill` around it.
    Pad { widths: ListId },
    /// The operands joined along `axis`.
    Concatenate { axis: u8 },

    /// `(x, i₀ … i_{k−1})`, the indices int64 of one shape I: `out[I…, rest…] = x[i₀[I], …, i_{k−1}[I], rest…]`.
    /// Negative indices wrap; an index out of range is an `Index` error of the run.
    Gather { indices: u8 },
    /// `(base, value, i₀ … )`: the base with `base[i₀, …] = value`; of duplicates the last wins.
    ScatterSet { indices: u8 },
    /// `(base, value, i₀ … )`: the base with `value` added at `[i₀, …]`, duplicates in turn.
    ScatterAdd { indices: u8 },

    /// Reduction over `axes` (sorted, removed from the shape).
    Reduce { kind: ReduceKind, axes: ListId },
    /// Index (int64) of the first greatest (`max`) or least element along `axis` (removed); NaN counts as found first.
    ArgReduce { max: bool, axis: u8 },
    /// Inclusive cumulative sum along `axis`, from the far end when `reverse`.
    CumulativeSum { axis: u8, reverse: bool },
    /// `(a, b)`: the linear recurrence s₀ = b₀, s_k = a_k·s_{k−1} + b_k along `axis`, from the far end when `reverse`.
    /// `a₀` is read by nobody. With `absorb`, products are `lmul` (0 when either factor is exactly 0).
    LinearRecurrence { axis: u8, reverse: bool, absorb: bool },
    /// Indices (int64) of a stable ascending sort along `axis`, NaN last.
    Argsort { axis: u8 },
    /// `(a, b)` contracted as `axes` says ([`DotAxes`]): batch axes, then free axes of a, then of b.
    /// With `absorb` (a linear dot), a non-finite result is redone with absorbing products.
    Dot { axes: ListId, absorb: bool },
    /// `(acc, g)`: acc + g, for uses far apart; never fused with another step's.
    Accumulate,

    /// A loop or a branch ([`crate::Call`]): no elements, but parts.
    Call(CallId),
    /// A result of the call that is its operand.
    Part(u32),
}

impl Op {
    /// The literal `value`; exact for every value that an f32 holds.
    pub fn literal(value: f32) -> Op {
        Op::Literal(value.to_bits())
    }

    /// Nodes that exist before the run: inputs and constants of every kind.
    #[inline]
    pub fn is_leaf(self) -> bool {
        matches!(self, Op::Input(_) | Op::Literal(_) | Op::Scalar(_) | Op::Constant(_))
    }

    /// `(base, value, …)` operations that may run in place when their base dies.
    #[inline]
    pub fn overwrites_base(self) -> bool {
        matches!(
            self,
            Op::StridedWrite { .. }
                | Op::StridedAdd { .. }
                | Op::ScatterSet { .. }
                | Op::ScatterAdd { .. }
                | Op::Accumulate
        )
    }
}

/// The axes of a general dot product, interned as one list `[n_batch, n_contract, lhs_batch…, rhs_batch…,
/// lhs_contract…, rhs_contract…]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct DotAxes {
    pub lhs_batch: Vec<usize>,
    pub rhs_batch: Vec<usize>,
    pub lhs_contract: Vec<usize>,
    pub rhs_contract: Vec<usize>,
}

impl DotAxes {
    pub fn intern(&self, table: &mut ListTable) -> Result<ListId> {
        if self.lhs_batch.len() != self.rhs_batch.len() || self.lhs_contract.len() != self.rhs_contract.len() {
            return Err(Error::internal("dot", "both sides need as many batch and contracted axes"));
        }
        let mut list = vec![self.lhs_batch.len() as i64, self.lhs_contract.len() as i64];
        for axes in [&self.lhs_batch, &self.rhs_batch, &self.lhs_contract, &self.rhs_contract] {
            list.extend(axes.iter().map(|&axis| axis as i64));
        }
        table.intern(&list)
    }

    pub fn read(table: &ListTable, id: ListId) -> DotAxes {
        let list = table.get(id);
        let (batch, contract) = (list[0] as usize, list[1] as usize);
        let mut rest = list[2..].iter().map(|&axis| axis as usize);
        let mut take = |n: usize| rest.by_ref().take(n).collect::<Vec<_>>();
        DotAxes {
            lhs_batch: take(batch),
            rhs_batch: take(batch),
            lhs_contract: take(contract),
            rhs_contract: take(contract),
        }
    }

    /// The axes of an operand of rank `rank` that are neither batch nor contracted, ascending.
    pub fn free(batch: &[usize], contract: &[usize], rank: usize) -> Vec<usize> {
        (0..rank).filter(|axis| !batch.contains(axis) && !contract.contains(axis)).collect()
    }
}
