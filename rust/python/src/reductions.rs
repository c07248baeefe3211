//! Reductions over axes, as functions and methods, with NumPy's result dtypes and layouts: K-order of the operand less
//! the reduced axes.

use std::sync::Arc;

use ckad_graph::{Attributes, DType, Error, ErrorKind, ReduceKind, shape_text};
use ckad_prim::Elementwise;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::scalar_node;
use crate::errors::{raise, refusal};
use crate::function::call_registered;
use crate::layout::{Layout, broadcast_strides, inverse, iteration_order};
use crate::repeated::{Plainly, Repeated};
use crate::shapes::normal_axes;
use crate::tape::Tape;
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
            Some(memory) => this.read(py, tape, memory)?,
            None => this.value(py, tape)?,
        };
        let node = if tape.builder.dtype(node) == dtype { node } else { tape.builder.cast(node, dtype)? };
        let mut node = tape.builder.reduce(kind, node, reduced.as_deref().unwrap_or(axes))?;
        if from_zero {
            let zero = tape.builder.literal(dtype, 0.0)?;
            node = tape.builder.elementwise(Elementwise::Add, &[node, zero])?;
        }
        tape.retain(node)?;
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

/// As [`reduce`] of packed floats in C order over all axes or one, the commonest, without looking twice at what was
/// recorded before. `mean`: divided by the number of elements. None for anything else, also where it is wrong.
pub fn reduce_plainly(
    py: Python<'_>,
    kind: ReduceKind,
    this: &Tracer,
    axis: Option<i64>,
    keep_axes: bool,
    mean: bool,
) -> PyResult<Option<Plainly>> {
    let Kind::Array { storage, view } = this.kind() else { return Ok(None) };
    let (shape, dtype) = (&view.layout.shape[..], storage.dtype);
    let rank = shape.len();
    let known = matches!(kind, ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min);
    if !known || !dtype.is_float() || !view.is_plain() || storage.tape.is_closed() || (mean && keep_axes) {
        return Ok(None);
    }
    let axis = match axis {
        None => None,
        Some(axis) => {
            let Ok(axis) = u32::try_from(if axis < 0 { axis + rank as i64 } else { axis }) else { return Ok(None) };
            if axis as usize >= rank {
                return Ok(None);
            }
            Some(axis)
        }
    };
    let count: i64 = axis.map_or_else(|| shape.iter().product(), |axis| shape[axis as usize]);
    // Of nothing, an error or a zero; of one element, a reshape that adds to +0.
    if count <= 1 || shape.contains(&0) {
        return Ok(None);
    }
    let axes = || axis.map_or_else(|| (0..rank).collect(), |axis| vec![axis as usize]);
    let (node, layout) = storage.tape.record(py, |tape| {
        let id = tape.builder.intern(shape)?;
        let operand = this.plain_value(py, tape, id)?;
        let what = Repeated::Reduction { kind, shape: id, axis, keep_axes };
        let append = |tape: &mut Tape| tape.builder.reduce(kind, operand, &axes());
        let (node, layout) =
            tape.repeat(what, &[operand], dtype, append, || reduced_layout(shape, &axes(), keep_axes))?;
        if !mean {
            tape.retain_new(node, dtype, &[operand])?;
            return Ok((node, layout));
        }
        let position = tape.builder.graph().len() as u32;
        tape.builder.set_attributes(Attributes { position, ..tape.builder.attributes() });
        let operands = [node, scalar_node(tape, dtype, dtype.bits_of_f64(count as f64), false)?];
        let shape = tape.builder.graph().node(node).shape;
        let node = tape.builder.elementwise_of_one_shape(Elementwise::Divide, &operands, dtype, shape)?;
        tape.retain_new(node, dtype, &operands)?;
        Ok((node, layout))
    })?;
    Ok(Some(Plainly { node, dtype, layout }))
}

/// How the result of a reduction over some axes of a packed array in C order lies; None for a scalar.
fn reduced_layout(shape: &[i64], axes: &[usize], keep_axes: bool) -> Option<Layout> {
    if axes.len() == shape.len() && !keep_axes {
        return None;
    }
    let kept: Vec<i64> = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    let mut layout = Layout::of_shape(kept);
    if keep_axes {
        for &axis in axes {
            layout = layout.expanded(axis);
        }
    }
    Some(layout)
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
        return call_registered(py, kind.name(), (this.alias(py)?.into_object(py)?,), Some(&keywords));
    }
    if out.is_some_and(|out| !out.is_none()) {
        let hint = format!("assign the result: out = x.{}(…), or out[...] = x.{}(…)", kind.name(), kind.name());
        return Err(refusal(ErrorKind::Type, kind.name(), "out= is not supported for traced values", hint));
    }
    let dtype = dtype.filter(|dtype| !dtype.is_none()).map(values::parse_dtype).transpose()?;
    let axes = normal_axes(kind.name(), axis, this.shape())?;
    reduce(py, kind, this, &axes, dtype, keepdims)?.into_object(py)
}
