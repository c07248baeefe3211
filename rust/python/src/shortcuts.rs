//! The commonest of NumPy's functions in their plainest form, without the way through the Python layer:
//! `np.sum(x, axis, keepdims=…)` and its like, `np.where(c, x, y)`, `np.dot(a, b)`, `np.reshape(x, shape)`. Any other
//! call is left, with its arguments as they were, to the handler in `ckad.numpy`. Where a plain call is wrong, the core
//! raises here what it raises under the handler.

use ckad_graph::ReduceKind;
use ckad_prim::Elementwise;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyTuple};
use rustc_hash::FxHashMap;

use crate::dot::dot;
use crate::elementwise::{apply, select};
use crate::operand::Operand;
use crate::reductions::reduce;
use crate::shapes::{Order, normal_axes, reshape, shape_of};
use crate::tracer::Tracer;

/// What a function of NumPy's is to us.
#[derive(Clone, Copy)]
pub enum Shortcut {
    Reduction(ReduceKind),
    Mean,
    Where,
    Dot,
    Reshape,
}

const SHORTCUTS: &[(&str, Shortcut)] = &[
    ("sum", Shortcut::Reduction(ReduceKind::Sum)),
    ("max", Shortcut::Reduction(ReduceKind::Max)),
    ("amax", Shortcut::Reduction(ReduceKind::Max)),
    ("min", Shortcut::Reduction(ReduceKind::Min)),
    ("amin", Shortcut::Reduction(ReduceKind::Min)),
    ("any", Shortcut::Reduction(ReduceKind::Any)),
    ("all", Shortcut::Reduction(ReduceKind::All)),
    ("mean", Shortcut::Mean),
    ("where", Shortcut::Where),
    ("dot", Shortcut::Dot),
    ("reshape", Shortcut::Reshape),
];

/// By the address of the function, which NumPy's module keeps alive.
pub fn find(py: Python<'_>, function: *mut ffi::PyObject) -> PyResult<Option<Shortcut>> {
    static FUNCTIONS: pyo3::sync::PyOnceLock<FxHashMap<usize, Shortcut>> = pyo3::sync::PyOnceLock::new();
    let functions = FUNCTIONS.get_or_try_init(py, || {
        let numpy = py.import("numpy")?;
        SHORTCUTS
            .iter()
            .map(|&(name, shortcut)| Ok((numpy.getattr(name)?.as_ptr() as usize, shortcut)))
            .collect::<PyResult<FxHashMap<_, _>>>()
    })?;
    Ok(functions.get(&(function as usize)).copied())
}

/// The result of the call; None where it is not one of the plain ones.
pub fn shortcut(
    function: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
) -> PyResult<Option<Tracer>> {
    match find(args.py(), function.as_ptr())? {
        None => Ok(None),
        Some(Shortcut::Reduction(kind)) => reduction(args, kwargs, Some(kind)),
        Some(Shortcut::Mean) => reduction(args, kwargs, None),
        Some(Shortcut::Where) => choice(args, kwargs),
        Some(Shortcut::Dot) => product(args, kwargs),
        Some(Shortcut::Reshape) => reshaped(args, kwargs),
    }
}

/// `x.dot(b)` and `x.mean(axis)` likewise: `name` of the method, x before its arguments.
pub fn shortcut_method(
    name: &str,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Option<Tracer>> {
    let none = PyDict::new(args.py());
    let kwargs = kwargs.unwrap_or(&none);
    match name {
        "dot" => product(args, kwargs),
        "mean" => reduction(args, kwargs, None),
        _ => Ok(None),
    }
}

/// `np.dot(a, b)` of arrays of one dtype.
fn product(args: &Bound<'_, PyTuple>, kwargs: &Bound<'_, PyDict>) -> PyResult<Option<Tracer>> {
    if args.len() != 2 || !kwargs.is_empty() {
        return Ok(None);
    }
    let objects = [args.get_item(0)?, args.get_item(1)?];
    let (Ok(Some(a)), Ok(Some(b))) = (Operand::new(&objects[0]), Operand::new(&objects[1])) else { return Ok(None) };
    if a.rank() == 0 || b.rank() == 0 || a.own_dtype() != b.own_dtype() {
        return Ok(None);
    }
    dot(args.py(), &[a, b])
}

/// `np.reshape(x, shape)` with a shape of integers.
fn reshaped(args: &Bound<'_, PyTuple>, kwargs: &Bound<'_, PyDict>) -> PyResult<Option<Tracer>> {
    if args.len() != 2 || !kwargs.is_empty() {
        return Ok(None);
    }
    let (array, shape) = (args.get_item(0)?, args.get_item(1)?);
    let (Ok(array), Ok(shape)) = (array.cast::<Tracer>(), shape_of("reshape", &shape)) else { return Ok(None) };
    if array.get().tape().is_closed() {
        return Ok(None);
    }
    reshape(args.py(), array.get(), &shape, Order::C).map(Some)
}

/// `np.sum(x, axis, keepdims=…)`; a mean where `kind` is None.
fn reduction(
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
    kind: Option<ReduceKind>,
) -> PyResult<Option<Tracer>> {
    let py = args.py();
    let Ok(array) = args.get_item(0).and_then(|array| Ok(array.cast_into::<Tracer>()?)) else { return Ok(None) };
    let array = array.get();
    let mut axis = if args.len() > 1 { Some(args.get_item(1)?) } else { None };
    let mut keep_axes = false;
    for (key, value) in kwargs {
        match key.extract::<&str>()? {
            "axis" if args.len() == 1 => axis = Some(value),
            "keepdims" if value.is_exact_instance_of::<PyBool>() => keep_axes = value.is_truthy()?,
            _ => return Ok(None),
        }
    }
    if args.len() > 2
        || array.tape().is_closed()
        || array.elements() == 0
        || (kind.is_none() && (!array.dtype().is_float() || (array.rank() == 0 && axis.is_some())))
    {
        return Ok(None);
    }
    let Ok(axes) = normal_axes("reduce", axis.as_ref(), array.shape()) else { return Ok(None) };
    let reduced = reduce(py, kind.unwrap_or(ReduceKind::Sum), array, &axes, None, keep_axes)?;
    if kind.is_some() {
        return Ok(Some(reduced));
    }
    let count: i64 = axes.iter().map(|&axis| array.shape()[axis]).product();
    let operands = [Operand::Traced(&reduced), Operand::PythonFloat(count as f64, None)];
    apply(py, Elementwise::Divide, &operands, None).map(Some)
}

/// `np.where(condition, x, y)`.
fn choice(args: &Bound<'_, PyTuple>, kwargs: &Bound<'_, PyDict>) -> PyResult<Option<Tracer>> {
    if args.len() != 3 || !kwargs.is_empty() {
        return Ok(None);
    }
    let objects = [args.get_item(0)?, args.get_item(1)?, args.get_item(2)?];
    let [condition, x, y] = &objects;
    let (Some(condition), Some(x), Some(y)) = (Operand::new(condition)?, Operand::new(x)?, Operand::new(y)?) else {
        return Ok(None);
    };
    if !matches!(condition, Operand::Traced(_) | Operand::Array { .. }) {
        return Ok(None);
    }
    select(args.py(), &[condition, x, y]).map(Some)
}
