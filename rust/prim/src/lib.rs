//! The primitives: what each operation of a graph means, short of running it.
//!
//! Elementwise primitives are rows of one table (`elementwise/table.rs`); each structural primitive is a file with its
//! constructor and inference, derivative, transpose, cost and samples. Around them:
//!
//! * `builder`, `expr`: how nodes are made; `leaf`: those that exist before a run.
//! * `infer`, `shape`: what constructors share; `indexing` for gather and the scatters, `strided` for the strided ones.
//! * `context`: what a derivative rule is given; `dispatch`: from an `Op` to its file.
//! * `absorbed`: what a debugging user asks of derivatives. `sample`: graphs of every primitive, over which tests loop.
//!
//! There is one derivative rule per primitive, [`diff`], forward; [`transpose`] turns a linear node around. Rules are
//! written in primitives and never call a kernel. What all rules keep to:
//!
//! * Tangents are multiplied by `lmul` only (0 where either factor is exactly 0), so a zero absorbs an infinity.
//! * Integers, bools and `stop_gradient` have no tangent; an absent tangent is zero.
//! * Elements that tie for an extremum share its derivative evenly.

mod absorbed;
mod builder;
mod context;
mod dispatch;
mod elementwise;
mod expr;
mod infer;
mod sample;
mod shape;

mod accumulate;
mod arg_reduce;
mod argsort;
mod broadcast;
mod call;
mod cast;
mod concatenate;
mod cumulative_sum;
mod dot;
mod gather;
mod indexing;
mod iota;
mod leaf;
mod linear_recurrence;
mod pad;
mod random_bits;
mod reduce;
mod reshape;
mod scatter_add;
mod scatter_set;
mod stop_gradient;
mod strided;
mod strided_add;
mod strided_read;
mod strided_write;
mod transpose;

pub use absorbed::absorbed;
pub use builder::{Builder, Expr};
pub use call::call;
pub use dispatch::{cost, diff, op_name, transpose, verify};
pub use elementwise::Elementwise;
pub use random_bits::RANDOM_BITS_COST;
pub use sample::{Sample, samples, samples_of};

use ckad_graph::Op;

/// Work of one evaluation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Floating point operations, or elements moved.
    pub flops: u64,
    /// More work than memory traffic: never worth doing twice without need.
    pub heavy: bool,
}

impl Cost {
    pub const FREE: Cost = Cost { flops: 0, heavy: false };

    pub(crate) const fn flops(flops: u64) -> Cost {
        Cost { flops, heavy: false }
    }

    pub(crate) const fn heavy(flops: u64) -> Cost {
        Cost { flops, heavy: true }
    }
}

/// Where transposition puts the cotangents of a node's operands.
pub trait Accumulator<'b> {
    /// `cotangent of the operand += cotangent`, of the operand's shape and dtype.
    fn add(&mut self, operand: usize, cotangent: Expr<'b>);

    /// `cotangent of the operand -= cotangent`.
    fn subtract(&mut self, operand: usize, cotangent: Expr<'b>);

    /// `cotangent of the operand = op(cotangent of the operand, value, indices…)`, with `op` a `StridedAdd` or a
    /// `ScatterAdd`, whose lists and starts are ids of the derived graph.
    fn update(&mut self, operand: usize, op: Op, value: Expr<'b>, indices: &[Expr<'b>]);
}
