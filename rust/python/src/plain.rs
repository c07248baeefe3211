//! The commonest elementwise operations: floats of one tape and one dtype, packed arrays of one shape beside scalars.
//!
//! Nothing is promoted, broadcast or reordered there, so nothing is looked at twice. What is recorded is what
//! `elementwise::record` records for the same operands.

use std::sync::Arc;

use ckad_graph::{DType, ListId, NodeId};
use ckad_prim::Elementwise;
use pyo3::prelude::*;

use crate::convert::scalar_node;
use crate::layout::Layout;
use crate::numbers::number_node;
use crate::operand::Operand;
use crate::storage::{Storage, View};
use crate::tape::TapeCell;
use crate::tracer::{Kind, Tracer};

/// No row of the table has more operands.
const MAX_OPERANDS: usize = 3;

/// An operand that may be plain.
#[derive(Clone, Copy)]
pub enum Plain<'a> {
    Traced(&'a Tracer),
    /// A Python float or int, with the object where a program has one.
    Number(f64, Option<&'a Py<PyAny>>),
}

impl<'a> Plain<'a> {
    fn of(operand: &Operand<'a, '_>) -> Option<Plain<'a>> {
        Some(match operand {
            Operand::Traced(tracer) => Plain::Traced(tracer),
            Operand::PythonFloat(value, object) => Plain::Number(*value, *object),
            // One that is no float is refused where operands of all kinds are known.
            Operand::PythonInt(object) => Plain::Number(object.extract().ok()?, Some(object.as_unbound())),
            _ => return None,
        })
    }

    /// A Python number, or a traced value that stands for one.
    #[inline]
    pub fn is_python_number(&self) -> bool {
        match self {
            Plain::Traced(tracer) => tracer.is_weak(),
            Plain::Number(..) => true,
        }
    }
}

/// What the operands have in common.
struct Common<'a> {
    tape: &'a Arc<TapeCell>,
    dtype: DType,
    /// Of the arrays; None where all operands are scalars.
    layout: Option<&'a Arc<Layout>>,
}

#[inline]
fn common<'a>(operands: &[Plain<'a>]) -> Option<Common<'a>> {
    let mut common: Option<Common<'a>> = None;
    for operand in operands {
        let Plain::Traced(tracer) = operand else { continue };
        let (tape, dtype, array) = match tracer.kind() {
            Kind::Scalar { tape, dtype, .. } => (tape, *dtype, None),
            Kind::Array { storage, view } => (&storage.tape, storage.dtype, Some(view)),
        };
        let Some(found) = &mut common else {
            let layout = match array {
                None => None,
                Some(view) if view.is_plain() => Some(&view.layout),
                Some(_) => return None,
            };
            common = Some(Common { tape, dtype, layout });
            continue;
        };
        if !Arc::ptr_eq(found.tape, tape) || found.dtype != dtype {
            return None;
        }
        let Some(view) = array else { continue };
        match found.layout {
            Some(one) if Arc::ptr_eq(one, &view.layout) && view.lies_as_numpys() => {}
            Some(one) if view.is_plain() && **one == *view.layout => {}
            None if view.is_plain() => found.layout = Some(&view.layout),
            _ => return None,
        }
    }
    common.filter(|common| common.dtype.is_float())
}

/// A value that was recorded, and that Python is about to hold: its layout, or None for a scalar.
pub struct Recorded<'a> {
    pub tape: &'a Arc<TapeCell>,
    pub node: NodeId,
    pub dtype: DType,
    pub layout: Option<&'a Arc<Layout>>,
}

/// Records `row` where the operands are plain; None where they are not.
#[inline]
pub fn record<'a>(py: Python<'_>, row: Elementwise, operands: &[Plain<'a>]) -> PyResult<Option<Recorded<'a>>> {
    let Some(Common { tape, dtype, layout }) = common(operands) else { return Ok(None) };
    let Some(result) = row.result_dtype(dtype) else { return Ok(None) };
    if matches!(row, Elementwise::Ldexp | Elementwise::Select) || row.arity() != operands.len() || tape.is_closed() {
        return Ok(None);
    }
    let node = tape.record(py, |tape| {
        let shape = match layout {
            None => ListId::EMPTY,
            Some(layout) => tape.builder.intern(&layout.shape)?,
        };
        let mut nodes = [NodeId(0); MAX_OPERANDS];
        for (index, (node, operand)) in nodes.iter_mut().zip(operands).enumerate() {
            let exponent = row == Elementwise::Power && index == 1;
            *node = match operand {
                Plain::Traced(tracer) => tracer.plain_value(py, tape, shape)?,
                Plain::Number(value, Some(object)) => {
                    number_node(py, tape, object, dtype, dtype.bits_of_f64(*value), exponent)?
                }
                Plain::Number(value, None) => scalar_node(tape, dtype, dtype.bits_of_f64(*value), exponent)?,
            };
        }
        let nodes = &nodes[..operands.len()];
        let node = tape.builder.elementwise_of_one_shape(row, nodes, result, shape)?;
        tape.retain_new(node, result, nodes)?;
        Ok(node)
    })?;
    Ok(Some(Recorded { tape, node, dtype: result, layout }))
}

/// As [`record`], the value as a traced one.
pub fn apply(py: Python<'_>, row: Elementwise, operands: &[Operand<'_, '_>]) -> PyResult<Option<Tracer>> {
    let mut plain = [Plain::Number(0.0, None); MAX_OPERANDS];
    if operands.len() > MAX_OPERANDS {
        return Ok(None);
    }
    for (plain, operand) in plain.iter_mut().zip(operands) {
        let Some(found) = Plain::of(operand) else { return Ok(None) };
        *plain = found;
    }
    let Some(recorded) = record(py, row, &plain[..operands.len()])? else { return Ok(None) };
    let Recorded { tape, node, dtype, layout } = recorded;
    let tape = Arc::clone(tape);
    Ok(Some(match layout {
        None => Tracer::held_scalar(tape, node, dtype),
        Some(layout) => Tracer::view_of(Storage::held(tape, dtype, node), View::new(Arc::clone(layout), false)),
    }))
}
