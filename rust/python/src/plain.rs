//! The commonest elementwise operations: floats of one tape and one dtype, packed arrays of one shape beside scalars.
//!
//! Nothing is promoted, broadcast or reordered there, so nothing is looked at twice. What is recorded is what
//! `elementwise::record` records for the same operands.

use std::sync::Arc;

use ckad_graph::{DType, NodeId, ScalarBits};
use ckad_prim::Elementwise;
use pyo3::prelude::*;

use crate::convert::{scalar_bits, scalar_node};
use crate::layout::Layout;
use crate::numbers::number_node;
use crate::operand::Operand;
use crate::storage::{Storage, View};
use crate::tape::TapeCell;
use crate::tracer::{Kind, Tracer};

/// No row of the table has more operands.
const MAX_OPERANDS: usize = 3;

/// What the operands have in common.
struct Common<'a> {
    tape: &'a Arc<TapeCell>,
    dtype: DType,
    /// Of the arrays; None where all operands are scalars.
    layout: Option<&'a Arc<Layout>>,
}

fn common<'a>(operands: &[Operand<'a, '_>]) -> Option<Common<'a>> {
    let mut common: Option<Common<'a>> = None;
    for operand in operands {
        let tracer = match operand {
            Operand::Traced(tracer) => *tracer,
            Operand::PythonFloat(..) | Operand::PythonInt(_) => continue,
            _ => return None,
        };
        let (tape, dtype) = (tracer.tape(), tracer.dtype());
        let layout = match tracer.kind() {
            Kind::Scalar { .. } => None,
            Kind::Array { view, .. } if view.is_plain() => Some(&view.layout),
            Kind::Array { .. } => return None,
        };
        let found = common.get_or_insert(Common { tape, dtype, layout });
        if !Arc::ptr_eq(found.tape, tape) || found.dtype != dtype {
            return None;
        }
        match (found.layout, layout) {
            (Some(one), Some(other)) if !Arc::ptr_eq(one, other) && one != other => return None,
            (None, Some(_)) => found.layout = layout,
            _ => {}
        }
    }
    common.filter(|common| common.dtype.is_float())
}

/// Records `row` where the operands are plain; None where they are not.
pub fn apply(py: Python<'_>, row: Elementwise, operands: &[Operand<'_, '_>]) -> PyResult<Option<Tracer>> {
    let Some(Common { tape, dtype, layout }) = common(operands) else { return Ok(None) };
    let Some(result) = row.result_dtype(dtype).filter(|_| row != Elementwise::Ldexp && row != Elementwise::Select)
    else {
        return Ok(None);
    };
    let mut integers: [ScalarBits; MAX_OPERANDS] = [0; MAX_OPERANDS];
    for (bits, operand) in integers.iter_mut().zip(operands) {
        if let Operand::PythonInt(object) = operand {
            *bits = scalar_bits(object, dtype)?;
        }
    }
    let node = tape.record(py, |tape| {
        let mut nodes = [NodeId(0); MAX_OPERANDS];
        for (index, operand) in operands.iter().enumerate() {
            let exponent = row == Elementwise::Power && index == 1;
            nodes[index] = match operand {
                Operand::Traced(tracer) => tracer.value(tape)?,
                Operand::PythonFloat(value, Some(object)) => {
                    number_node(tape, object, dtype, dtype.bits_of_f64(*value), exponent)?
                }
                Operand::PythonInt(object) => number_node(tape, object.as_unbound(), dtype, integers[index], exponent)?,
                Operand::PythonFloat(value, None) => scalar_node(tape, dtype, dtype.bits_of_f64(*value), exponent)?,
                _ => return Err(ckad_graph::Error::internal(row.name(), "an operand that is not plain")),
            };
        }
        let node = tape.builder.elementwise(row, &nodes[..operands.len()])?;
        tape.retain(node);
        Ok(node)
    })?;
    let tape = Arc::clone(tape);
    Ok(Some(match layout {
        None => Tracer::held_scalar(tape, node, result),
        Some(layout) => Tracer::view_of(Storage::held(tape, result, node), View::new(Arc::clone(layout), false)),
    }))
}
