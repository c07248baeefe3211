//! Reductions over axes, as functions and methods, with NumPy's result dtypes and layouts: K-order of the operand less
//! the reduced axes.

use std::sync::Arc;

use ckad_graph::{DType, Error, ErrorKind, ReduceKind, shape_text};
use ckad_prim::Elementwise;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{raise, refusal};
use crate::function::call_registered;
use crate::layout::{Layout, broadcast_strides, inverse, iteration_order};
use crate::shapes::normal_axes;
use crate::tracer::{Kind, Tracer};
use crate::values;

/// The dtype that NumPy reduces in: small integers and bools are summed in 64 bits.
pub fn reduce_dtype(kind: ReduceKind, dtype: DType) -> DType {
    match kind {
        ReduceKind::Any | ReduceKind::All => DType::Bool,
        ReduceKind::Max | ReduceKind::Min => dtype,
        ReduceKind::Sum if dtype.is_float() => dtype,
        ReduceKind::Sum if dtype.is_signed() || dtype == DType::Bool => DType::I64,
        ReduceKind::Sum => DType::U64,
    }
}

/// The order in which NumPy walks the operand of a reduction or a cumulative sum.
pub fn walk_order(this: &Tracer) -> Vec<usize> {
    match this.kind() {
        Kind::Scalar { .. } => Vec::new(),
        Kind::Array { view, .. } => {
            let (layout, _) = view.numpy();
            let rank = layout.rank();
            iteration_order(rank, &[broadcast_strides(&layout.shape, &layout.strides, rank)])
        }
    }
}

/// Does NumPy walk the axes in their order, from the first to the last? Surely where this is true.
fn lies_in_order(this: &Tracer) -> bool {
    match this.kind() {
        Kind::Scalar { .. } => true,
        Kind::Array { view, .. } => view.is_c_contiguous() && !view.layout.shape.contains(&0),
    }
}

/// Reduces over `axes` (ascending). A scalar where all axes go; with `keep_axes` they stay with length 1.
pub fn reduce(
    py: Python<'_>,
    kind: ReduceKind,
    this: &Tracer,
    axes: &[usize],
    dtype: Option<DType>,
    keep_axes: bool,
) -> PyResult<Tracer> {
    this.check_alive(py)?;
    let shape = this.shape();
    if matches!(kind, ReduceKind::Max | ReduceKind::Min) && axes.iter().any(|&axis| shape[axis] == 0) {
        return Err(raise(
            Error::new(
                ErrorKind::Value,
                kind.name(),
                format!("zero-size array of shape {} has no greatest or least element", shape_text(shape)),
            )
            .with_hint("check x.size first"),
        ));
    }
    let dtype = dtype.unwrap_or_else(|| reduce_dtype(kind, this.dtype()));
    // None where the axes are walked in their order, the commonest.
    let order = (!lies_in_order(this)).then(|| walk_order(this));
    let memory = order.as_ref().map(|order| this.layout().transposed(order));
    let reduced = order.as_ref().map(|order| {
        let places = inverse(order);
        let mut reduced: Vec<usize> = axes.iter().map(|&axis| places[axis]).collect();
        reduced.sort_unstable();
        reduced
    });
    let tape = Arc::clone(this.tape());
    // NumPy adds to +0, so that a −0 alone becomes +0; a reduction of one element only reshapes.
    let from_zero = kind == ReduceKind::Sum && dtype.is_float() && axes.iter().all(|&axis| shape[axis] == 1);
    let node = tape.record(py, |tape| {
        let node = match &memory {
            Some(memory) => this.read(tape, memory)?,
            None => this.value(tape)?,
        };
        let node = if tape.builder.dtype(node) == dtype { node } else { tape.builder.cast(node, dtype)? };
        let mut node = tape.builder.reduce(kind, node, reduced.as_deref().unwrap_or(axes))?;
        if from_zero {
            let zero = tape.builder.literal(dtype, 0.0)?;
            node = tape.builder.elementwise(Elementwise::Add, &[node, zero])?;
        }
        tape.retain(node);
        Ok(node)
    })?;
    if axes.len() == shape.len() && (!keep_axes || axes.is_empty()) {
        return Ok(Tracer::held_scalar(tape, node, dtype));
    }
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let kept_shape: Vec<i64> = kept.iter().map(|&axis| shape[axis]).collect();
    let mut layout = match order {
        None => Layout::contiguous(&kept_shape),
        Some(order) => {
            // The kept axes in memory order, each by its place among the kept ones.
            let place = |axis: &usize| kept.iter().position(|kept| kept == axis);
            Layout::ordered(&kept_shape, &order.iter().filter_map(place).collect::<Vec<_>>())
        }
    };
    if keep_axes {
        for &axis in axes {
            layout = layout.expanded(axis);
        }
    }
    Ok(Tracer::held_array(tape, node, dtype, layout))
}

/// `x.sum(axis, dtype, out, keepdims)` and its like. `further` are keywords that the Python layer's function knows.
pub fn reduced<'py>(
    py: Python<'py>,
    kind: ReduceKind,
    this: &Tracer,
    [axis, dtype, out]: [Option<&Bound<'py, PyAny>>; 3],
    keepdims: Option<&Bound<'py, PyAny>>,
    further: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let keepdims = keepdims.map_or(Ok(false), |keepdims| keepdims.is_truthy())?;
    if let Some(further) = further {
        let keywords = further.copy()?;
        for (name, value) in [("axis", axis), ("dtype", dtype), ("out", out)] {
            if let Some(value) = value {
                keywords.set_item(name, value)?;
            }
        }
        keywords.set_item("keepdims", keepdims)?;
        return call_registered(py, kind.name(), (this.alias()?.into_object(py)?,), Some(&keywords));
    }
    if out.is_some_and(|out| !out.is_none()) {
        let hint = format!("assign the result: out = x.{}(…), or out[...] = x.{}(…)", kind.name(), kind.name());
        return Err(refusal(ErrorKind::Type, kind.name(), "out= is not supported for traced values", hint));
    }
    let dtype = dtype.filter(|dtype| !dtype.is_none()).map(values::parse_dtype).transpose()?;
    let axes = normal_axes(kind.name(), axis, this.shape())?;
    reduce(py, kind, this, &axes, dtype, keepdims)?.into_object(py)
}
