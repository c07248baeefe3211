//! Functions of `ckad._core` for making arrays, viewing them otherwise, and asking what they are. See `primitives.rs`.

use std::sync::Arc;

use ckad_graph::{Error, shape_text};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::convert::classify;
use crate::errors::raise;
use crate::layout::Layout;
use crate::operand::{Operand, prepare};
use crate::primitives::{axis_error, traced};
use crate::shapes::fresh;
use crate::storage::View;
use crate::tracer::{Kind, Tracer};
use crate::values::parse_dtype;

type Any<'a, 'py> = &'a Bound<'py, PyAny>;

/// 0, 1, 2, … along an axis, on the tape of `like`.
#[pyfunction]
fn iota(py: Python<'_>, like: Any<'_, '_>, dtype: Any<'_, '_>, shape: Vec<i64>, axis: usize) -> PyResult<Py<PyAny>> {
    let tape = traced("iota", like)?.tape();
    let dtype = parse_dtype(dtype)?;
    let node = tape.record(py, |tape| tape.builder.iota(dtype, &shape, axis))?;
    Tracer::new_array(Arc::clone(tape), node, dtype, Layout::contiguous(&shape))?.into_object(py)
}

/// An array of zeros on the tape of `like`; `order` lists its axes as they lie in memory, outermost first.
#[pyfunction]
#[pyo3(signature = (like, shape, dtype, order = None))]
fn zeros(
    py: Python<'_>,
    like: Any<'_, '_>,
    shape: Vec<i64>,
    dtype: Any<'_, '_>,
    order: Option<Vec<usize>>,
) -> PyResult<Py<PyAny>> {
    let tape = traced("zeros", like)?.tape();
    let dtype = parse_dtype(dtype)?;
    let order = order.unwrap_or_else(|| (0..shape.len()).collect());
    if !(0..shape.len()).all(|axis| order.contains(&axis)) || order.len() != shape.len() {
        return Err(PyValueError::new_err("zeros: order must name each axis once"));
    }
    let layout = Layout::ordered(&shape, &order);
    let memory: Vec<i64> = order.iter().map(|&axis| shape[axis]).collect();
    let node = tape.record(py, |tape| tape.builder.zeros(dtype, &memory))?;
    Tracer::new_array(Arc::clone(tape), node, dtype, layout)?.into_object(py)
}

/// An array or scalar as a traced value on the tape of `like`, of its own dtype and layout.
#[pyfunction]
fn lift(py: Python<'_>, x: Any<'_, '_>, like: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    if x.cast::<Tracer>().is_ok() {
        return Ok(x.clone().unbind());
    }
    let tape = traced("lift", like)?.tape();
    let operand = Operand::coerced(x)?;
    let dtype = operand.own_dtype();
    let order = operand.numpy_layout().memory_order(operand.unit());
    let source = prepare(py, tape, &operand, dtype, operand.rank(), Some(&order))?;
    let node = tape.record(py, |tape| source.node(tape, dtype, false))?;
    let layout = Layout::ordered(operand.shape(), &order);
    if matches!(operand, Operand::Array { .. }) {
        Tracer::new_array(Arc::clone(tape), node, dtype, layout)?.into_object(py)
    } else {
        Tracer::new_scalar(Arc::clone(tape), node, dtype)?.into_object(py)
    }
}

fn view(name: &str, x: &Tracer, change: impl FnOnce(&View) -> View) -> PyResult<Tracer> {
    x.with_view(change).ok_or_else(|| PyTypeError::new_err(format!("[{name}] a traced array is needed")))
}

/// A view by strides and offset, in elements of x's packed memory. Elements outside of it raise.
#[pyfunction]
fn strided_view(
    py: Python<'_>,
    x: Any<'_, '_>,
    shape: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
    read_only: bool,
) -> PyResult<Py<PyAny>> {
    let x = traced("strided_view", x)?;
    let Kind::Array { storage, .. } = x.kind() else {
        return Err(PyTypeError::new_err("[strided_view] a traced array is needed"));
    };
    let layout = Layout { offset, shape, strides };
    let node = storage.node();
    let elements = storage.tape.read(|tape| tape.builder.graph().elements(node) as i64)?;
    let reach = |sign: i64| -> i64 {
        let steps = layout.shape.iter().zip(&layout.strides);
        steps.filter(|(_, stride)| stride.signum() == sign).map(|(extent, stride)| (extent - 1) * stride).sum()
    };
    let inside = offset + reach(-1) >= 0 && offset + reach(1) < elements;
    if layout.shape.len() != layout.strides.len() || (layout.elements() > 0 && !inside) {
        return Err(PyValueError::new_err("[strided_view] the view reaches outside of the array's memory"));
    }
    let read_only = read_only || layout.overlaps_itself();
    Tracer::view_of(Arc::clone(storage), View::new(layout, read_only)).into_object(py)
}

/// Offset and strides of x in elements of its packed memory: what `strided_view` takes.
#[pyfunction]
fn memory_layout(x: Any<'_, '_>) -> PyResult<(i64, Vec<i64>)> {
    let layout = traced("memory_layout", x)?.layout();
    Ok((layout.offset, layout.strides))
}

/// A read-only view of x repeated to a shape; NumPy's `broadcast_to`.
#[pyfunction]
fn broadcast_view(py: Python<'_>, x: Any<'_, '_>, shape: Vec<i64>) -> PyResult<Py<PyAny>> {
    let x = traced("broadcast_to", x)?.alias()?.into_array()?;
    if x.layout().broadcast(&shape).is_none() {
        return Err(raise(
            Error::shape(
                "broadcast_to",
                format!("an array of shape {} does not broadcast to {}", shape_text(x.shape()), shape_text(&shape)),
            )
            .with_hint("from the last axis backwards, extents must be equal or 1"),
        ));
    }
    view("broadcast_to", &x, |view| {
        let mut repeated = view.map(|layout| layout.broadcast(&shape).unwrap_or(layout));
        repeated.read_only = true;
        repeated
    })?
    .into_object(py)
}

/// A view of a diagonal; `np.diagonal`'s is read-only, `einsum('ii->i')`'s is not.
#[pyfunction]
fn diagonal_view(
    py: Python<'_>,
    x: Any<'_, '_>,
    shift: i64,
    axis1: usize,
    axis2: usize,
    read_only: bool,
) -> PyResult<Py<PyAny>> {
    let x = traced("diagonal", x)?;
    if axis1 >= x.rank() || axis2 >= x.rank() || axis1 == axis2 {
        return Err(axis_error("diagonal", x.shape()));
    }
    view("diagonal", x, |view| {
        let mut diagonal = view.map(|layout| layout.diagonal(shift, axis1, axis2));
        diagonal.read_only |= read_only;
        diagonal
    })?
    .into_object(py)
}

/// A read-only view of windows sliding along axes; the windows' axes come last.
#[pyfunction]
fn windows_view(py: Python<'_>, x: Any<'_, '_>, axes: Vec<usize>, lengths: Vec<i64>) -> PyResult<Py<PyAny>> {
    let x = traced("sliding_window_view", x)?;
    let mut remaining = x.shape().to_vec();
    for (&axis, &length) in axes.iter().zip(&lengths) {
        if axis >= remaining.len() || length < 0 || remaining[axis] - length + 1 < 0 || axes.len() != lengths.len() {
            return Err(raise(Error::shape(
                "sliding_window_view",
                format!("windows {} do not fit into shape {}", shape_text(&lengths), shape_text(x.shape())),
            )));
        }
        remaining[axis] -= length - 1;
    }
    view("sliding_window_view", x, |view| {
        let mut windows = view.map(|layout| layout.windows(&axes, &lengths));
        windows.read_only = true;
        windows
    })?
    .into_object(py)
}

/// Says of a result of the Python layer that NumPy might have laid it out otherwise: a write after a reshape raises.
#[pyfunction]
fn with_unknown_layout(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    let x = traced("layout", x)?;
    let mark = |view: &View| {
        let mut marked = view.clone();
        marked.unknown_layout = true;
        marked
    };
    match x.with_view(mark) {
        Some(marked) => marked.into_object(py),
        None => x.alias()?.into_object(py),
    }
}

/// The value as an array with a storage of its own: a scalar becomes a 0-d array.
#[pyfunction]
fn as_array(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    let x = traced("array", x)?;
    fresh(py, &Operand::Traced(x), x.dtype())?.into_object(py)
}

/// The one element of an array of rank 0 as NumPy's scalar.
#[pyfunction]
fn as_scalar(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    let x = traced("scalar", x)?;
    if x.rank() != 0 {
        return Err(PyValueError::new_err("as_scalar takes an array of rank 0"));
    }
    let node = x.logical_node(py)?;
    Tracer::new_scalar(Arc::clone(x.tape()), node, x.dtype())?.into_object(py)
}

/// x itself, which must not be an array or scalar of a kind that cannot be recorded.
#[pyfunction]
fn supported(x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    if x.cast::<Tracer>().is_err() {
        classify(x)?;
    }
    Ok(x.clone().unbind())
}

#[pyfunction]
fn is_traced(x: Any<'_, '_>) -> bool {
    x.cast::<Tracer>().is_ok()
}

/// The value as NumPy's functions read it: what stands for a Python number as NumPy's scalar.
#[pyfunction]
fn strong(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    match x.cast::<Tracer>() {
        Ok(tracer) if tracer.get().is_weak() => tracer.get().alias()?.weak_if(false).into_object(py),
        _ => Ok(x.clone().unbind()),
    }
}

/// Is x an immutable traced scalar (what NumPy would return as a scalar)?
#[pyfunction]
fn is_scalar(x: Any<'_, '_>) -> bool {
    x.cast::<Tracer>().is_ok_and(|tracer| tracer.get().is_scalar())
}

/// Does x depend on a differentiated argument?
#[pyfunction]
fn is_active(x: Any<'_, '_>) -> PyResult<bool> {
    x.cast::<Tracer>().map_or(Ok(false), |tracer| tracer.get().is_active())
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! add {
        ($($function:path),* $(,)?) => { $(module.add_function(wrap_pyfunction!($function, module)?)?;)* };
    }
    add!(
        iota,
        zeros,
        lift,
        strided_view,
        memory_layout,
        broadcast_view,
        diagonal_view,
        windows_view,
        with_unknown_layout,
        as_array,
        as_scalar,
        supported,
        is_traced,
        strong,
        is_scalar,
        is_active,
    );
    Ok(())
}
