//! What constructors and `verify` share: inference gives a dtype and a shape, or an error that names the operation.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result};

use crate::Builder;
use crate::dispatch::op_label;
use crate::shape::check_shape;

pub(crate) type Inferred = (DType, Vec<i64>);

/// The operands as an array of the length that the operation has.
pub(crate) fn exactly<const N: usize>(name: &str, operands: &[NodeId]) -> Result<[NodeId; N]> {
    operands.try_into().map_err(|_| Error::internal(name, format!("{} operands instead of {N}", operands.len())))
}

/// An axis of `shape`, or a shape error.
pub(crate) fn check_axis(name: &str, axis: usize, shape: &[i64]) -> Result<()> {
    if axis < shape.len() {
        return Ok(());
    }
    Err(Error::shape(name, format!("axis {axis} does not exist in shape {}", ckad_graph::shape_text(shape)))
        .with_hint(format!("the array has {} axes, counted from 0", shape.len())))
}

/// Axes that are recorded in a byte.
pub(crate) fn axis_byte(name: &str, axis: usize) -> Result<u8> {
    u8::try_from(axis).map_err(|_| {
        Error::shape(name, format!("axis {axis} does not exist"))
            .with_hint("an array has at most 64 axes, counted from 0")
    })
}

/// An error unless both dtypes are the same.
pub(crate) fn check_same_dtype(name: &str, first: DType, second: DType) -> Result<()> {
    if first == second {
        return Ok(());
    }
    Err(Error::dtype(name, format!("operands of one dtype are needed, not {first} and {second}"))
        .with_hint("convert with `.astype` first"))
}

impl Builder {
    /// Infers, then appends; an error carries the line that is being recorded.
    pub(crate) fn infer_and_push(
        &self,
        op: Op,
        operands: &[NodeId],
        infer: impl FnOnce(&Graph) -> Result<Inferred>,
    ) -> Result<NodeId> {
        let inferred = infer(&self.graph()).and_then(|inferred| {
            check_shape(op_label(op), &inferred.1)?;
            Ok(inferred)
        });
        let (dtype, shape) = inferred.map_err(|error| error.at_line(self.attributes().line))?;
        self.push(op, operands, dtype, &shape)
    }
}
