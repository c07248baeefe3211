//! Leaves: values that exist before the run. Inputs and constants are appended by whoever owns the values
//! (`Graph::push_input`, `Graph::push_constant`); scalars and literals here.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, ScalarBits};

use crate::dispatch::op_label;
use crate::infer::{Inferred, exactly};
use crate::{Builder, Expr};

/// A leaf is what its node says; scalars are shapeless, and literals fit their dtype.
pub(crate) fn infer(graph: &Graph, node: NodeId) -> Result<Inferred> {
    let [] = exactly(op_label(graph.op(node)), graph.operands(node))?;
    let dtype = graph.dtype(node);
    match graph.op(node) {
        Op::Literal(bits) => {
            check_literal(dtype, f32::from_bits(bits))?;
            Ok((dtype, Vec::new()))
        }
        Op::Scalar(_) => Ok((dtype, Vec::new())),
        _ => Ok((dtype, graph.shape(node).to_vec())),
    }
}

fn check_literal(dtype: DType, value: f32) -> Result<()> {
    if !dtype.is_float() && dtype.f64_of_bits(dtype.bits_of_f64(f64::from(value))) != f64::from(value) {
        return Err(Error::internal("literal", format!("{value} is no {dtype}")));
    }
    Ok(())
}

impl Builder {
    /// A scalar that is part of the program's structure.
    pub fn literal(&self, dtype: DType, value: f32) -> Result<NodeId> {
        check_literal(dtype, value)?;
        self.push(Op::literal(value), &[], dtype, &[])
    }

    /// A scalar that is an input of the program.
    pub fn scalar(&self, dtype: DType, bits: ScalarBits) -> Result<NodeId> {
        self.graph_mut().push_scalar(dtype, bits, self.attributes())
    }

    /// An array of zeros: a literal 0, broadcast.
    pub fn zeros(&self, dtype: DType, shape: &[i64]) -> Result<NodeId> {
        let zero = self.literal(dtype, 0.0)?;
        self.broadcast(zero, shape)
    }

    pub(crate) fn constant(&self, dtype: DType, value: f64, stand_in: NodeId) -> Expr<'_> {
        let exact = dtype != DType::F64 || f64::from(value as f32) == value;
        let node = if exact { self.literal(dtype, value as f32) } else { self.scalar(dtype, dtype.bits_of_f64(value)) };
        self.settle(node, stand_in)
    }

    pub(crate) fn same_shape(&self, a: NodeId, b: NodeId) -> bool {
        let graph = self.graph();
        graph.node(a).shape == graph.node(b).shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_literals_where_an_f32_holds_them() {
        let builder = Builder::new(Graph::new());
        let x = builder.expr(builder.literal(DType::F64, 1.0).unwrap());
        let (half, tenth) = (x.constant(0.5).id, x.constant(0.1).id);
        assert_eq!(builder.graph().op(half), Op::literal(0.5));
        assert_eq!(builder.graph().op(tenth), Op::Scalar(0));
        assert_eq!(builder.graph().scalars, [0.1f64.to_bits()]);
        assert!(builder.literal(DType::U8, 300.0).is_err());
        assert!(builder.literal(DType::Bool, 1.0).is_ok());
    }
}
