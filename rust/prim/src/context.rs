//! What derivative rules are given: the node, its operands in the derived graph, and the tangents or the cotangent.

use ckad_graph::{Error, Graph, ListId, NodeId, Op, Result};

use crate::dispatch::op_label;
use crate::{Accumulator, Builder, Expr};

/// Forward: a node of `source`, with operands and result mapped to the derived graph.
pub(crate) struct Diff<'a, 'b> {
    pub source: &'a Graph,
    pub node: NodeId,
    pub operands: &'a [Expr<'b>],
    pub out: Expr<'b>,
    /// Of each operand, of its shape and dtype; absent means zero. At least one is present.
    pub tangents: &'a [Option<Expr<'b>>],
}

impl<'b> Diff<'_, 'b> {
    pub fn builder(&self) -> &'b Builder {
        self.out.builder
    }

    /// The tangent of an operand, zeros where it is absent.
    pub fn tangent_or_zeros(&self, index: usize) -> Expr<'b> {
        self.tangents[index].unwrap_or_else(|| self.operands[index].zeros_like())
    }

    /// Shape of the node.
    pub fn shape(&self) -> &[i64] {
        self.source.shape(self.node)
    }
}

/// Reverse: a linear node of `source`, with its coefficients mapped to the derived graph.
pub(crate) struct Transpose<'a, 'b> {
    pub source: &'a Graph,
    pub node: NodeId,
    pub coefficients: &'a [Option<Expr<'b>>],
    pub linear: &'a [bool],
    pub cotangent: Expr<'b>,
    pub accumulator: &'a mut dyn Accumulator<'b>,
}

impl<'b> Transpose<'_, 'b> {
    pub fn builder(&self) -> &'b Builder {
        self.cotangent.builder
    }

    pub fn is_linear(&self, index: usize) -> bool {
        self.linear.get(index).copied().unwrap_or(false)
    }

    /// An operand that the node is not linear in.
    pub fn coefficient(&self, index: usize) -> Result<Expr<'b>> {
        match self.coefficients.get(index) {
            Some(Some(coefficient)) if !self.is_linear(index) => Ok(*coefficient),
            _ => Err(Error::internal(
                op_label(self.source.op(self.node)),
                format!("it is not linear in operand {index}, but a tangent passes through it"),
            )),
        }
    }

    /// Operands `from` onwards, all coefficients.
    pub fn coefficients_from(&self, from: usize) -> Result<Vec<Expr<'b>>> {
        (from..self.coefficients.len()).map(|index| self.coefficient(index)).collect()
    }

    pub fn operand_shape(&self, index: usize) -> &[i64] {
        self.source.shape(self.source.operands(self.node)[index])
    }

    /// A list that the node's operation refers to.
    pub fn list(&self, list: ListId) -> &[i64] {
        self.source.lists.get(list)
    }

    /// Adds to the operand's cotangent, where the operand is linear.
    pub fn add(&mut self, index: usize, cotangent: Expr<'b>) {
        if self.is_linear(index) {
            self.accumulator.add(index, cotangent);
        }
    }

    /// `add`, after summing over the axes along which the operand was broadcast.
    pub fn add_summed(&mut self, index: usize, cotangent: Expr<'b>) {
        if self.is_linear(index) {
            let summed = self.summed(index, cotangent);
            self.accumulator.add(index, summed);
        }
    }

    /// The cotangent summed over the axes along which the operand was broadcast.
    fn summed(&self, index: usize, cotangent: Expr<'b>) -> Expr<'b> {
        let operand = self.source.operands(self.node)[index];
        // Derived graphs share the lists of their source.
        let same = self.builder().graph().node(cotangent.id).shape == self.source.node(operand).shape;
        if same { cotangent } else { cotangent.sum_to(self.source.shape(operand)) }
    }

    /// `add_summed` with a minus.
    pub fn subtract_summed(&mut self, index: usize, cotangent: Expr<'b>) {
        if self.is_linear(index) {
            let summed = self.summed(index, cotangent);
            self.accumulator.subtract(index, summed);
        }
    }

    /// `operand's cotangent (op)= value`, where the operand is linear.
    pub fn update(&mut self, index: usize, op: Op, value: Expr<'b>, indices: &[Expr<'b>]) {
        if self.is_linear(index) {
            self.accumulator.update(index, op, value, indices);
        }
    }
}
