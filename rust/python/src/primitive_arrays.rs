//! Functions of `ckad._core` for making arrays, viewing them otherwise, and asking what they are. See `primitives.rs`.

use std::sync::Arc;

use ckad_graph::{Error, ErrorKind, shape_text};
use pyo3::prelude::*;

use crate::convert::classify;
use crate::elementwise::convert;
use crate::errors::{raise, refusal};
use crate::layout::Layout;
use crate::operand::{Operand, prepare};
use crate::primitives::{axis_error, traced};
use crate::storage::View;
use crate::trace::home_of_new;
use crate::tracer::Tracer;
use crate::values::parse_dtype;

type Any<'a, 'py> = &'a Bound<'py, PyAny>;

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
    let tape = home_of_new(traced("zeros", like)?.tape());
    let dtype = parse_dtype(dtype)?;
    let order = order.unwrap_or_else(|| (0..shape.len()).collect());
    if !(0..shape.len()).all(|axis| order.contains(&axis)) || order.len() != shape.len() {
        let what = format!("order {order:?} does not name each of {} axes once", shape.len());
        return Err(refusal(ErrorKind::Value, "zeros", what, "leave it out for C order"));
    }
    let layout = Layout::ordered(&shape, &order);
    let memory: Vec<i64> = order.iter().map(|&axis| shape[axis]).collect();
    let node = tape.record(py, |tape| tape.builder.zeros(dtype, &memory))?;
    Tracer::new_array(py, tape, node, dtype, layout)?.into_object(py)
}

fn view(name: &str, x: &Tracer, change: impl FnOnce(&View) -> View) -> PyResult<Tracer> {
    x.with_view(change).ok_or_else(|| {
        refusal(ErrorKind::Type, name, "a traced array is needed, not a scalar", "index it with x[None] first")
    })
}

/// A read-only view of x repeated to a shape; NumPy's `broadcast_to`.
#[pyfunction]
fn broadcast_view(py: Python<'_>, x: Any<'_, '_>, shape: Vec<i64>) -> PyResult<Py<PyAny>> {
    let x = traced("broadcast_to", x)?.alias(py)?.into_array(py)?;
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
        None => x.alias(py)?.into_object(py),
    }
}

/// x itself, which must not be an array or scalar of a kind that cannot be recorded.
#[pyfunction]
fn supported(x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    if x.cast::<Tracer>().is_err() {
        classify(x)?;
    }
    Ok(x.clone().unbind())
}

/// An array or scalar as a traced value on the tape of `like`, of its own dtype and layout.
#[pyfunction]
fn lift(py: Python<'_>, x: Any<'_, '_>, like: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    if x.cast::<Tracer>().is_ok() {
        return Ok(x.clone().unbind());
    }
    let tape = &home_of_new(traced("lift", like)?.tape());
    let operand = Operand::coerced(x)?;
    let dtype = operand.own_dtype();
    let order = operand.numpy_layout().memory_order(operand.unit());
    let source = prepare(py, tape, &operand, dtype, operand.rank(), Some(&order))?;
    let node = tape.record(py, |tape| source.node(py, tape, dtype, false))?;
    let layout = Layout::ordered(operand.shape(), &order);
    if matches!(operand, Operand::Array { .. }) {
        Tracer::new_array(py, Arc::clone(tape), node, dtype, layout)?.into_object(py)
    } else {
        Tracer::new_scalar(py, Arc::clone(tape), node, dtype)?.into_object(py)
    }
}

/// The value as an array with a storage of its own: a scalar becomes a 0-d array.
#[pyfunction]
fn as_array(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    let x = traced("array", x)?;
    convert(py, &Operand::Traced(x), x.dtype())?.into_array(py)?.into_object(py)
}

/// The value as NumPy's functions read it: what stands for a Python number as NumPy's scalar.
#[pyfunction]
fn strong(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    match x.cast::<Tracer>() {
        Ok(tracer) if tracer.get().is_weak() => tracer.get().alias(py)?.weak_if(false).into_object(py),
        _ => Ok(x.clone().unbind()),
    }
}

/// Is x an immutable traced scalar (what NumPy would return as a scalar)?
#[pyfunction]
fn is_scalar(x: Any<'_, '_>) -> bool {
    x.cast::<Tracer>().is_ok_and(|tracer| tracer.get().is_scalar())
}

/// Does x stand for a number of Python's?
#[pyfunction]
fn is_weak(x: Any<'_, '_>) -> bool {
    x.cast::<Tracer>().is_ok_and(|tracer| tracer.get().is_weak())
}

/// Does x depend on a differentiated argument?
#[pyfunction]
fn is_active(x: Any<'_, '_>) -> PyResult<bool> {
    x.cast::<Tracer>().map_or(Ok(false), |tracer| tracer.get().is_active(x.py()))
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! add {
        ($($function:path),* $(,)?) => { $(module.add_function(wrap_pyfunction!($function, module)?)?;)* };
    }
    add!(
        zeros,
        broadcast_view,
        diagonal_view,
        with_unknown_layout,
        lift,
        as_array,
        supported,
        strong,
        is_scalar,
        is_weak,
        is_active
    );
    Ok(())
}
