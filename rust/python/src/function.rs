//! NumPy's functions and ndarray's methods on traced values: tables that the Python layer fills.
//!
//! `np.sum(x)` arrives in `__array_function__`, which looks the function up by identity; a method that is not
//! written here (`x.mean()`) arrives in `__getattr__`. Both tables map to plain Python functions.

use std::sync::{Mutex, PoisonError};

use ckad_graph::{Error, ErrorKind};
use pyo3::call::PyCallArgs;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use rustc_hash::FxHashMap;

use crate::errors::{builtin, raise};
use crate::shortcuts::{shortcut, shortcut_method};
use crate::tracer::Tracer;

/// Handlers by the address of the NumPy function, which the entry keeps alive.
type Handlers = Mutex<Option<FxHashMap<usize, (Py<PyAny>, Py<PyAny>)>>>;
static FUNCTIONS: Handlers = Mutex::new(None);
/// Handlers of functions that take `like=`: they get that array first, which NumPy leaves out of the arguments.
static CREATIONS: Handlers = Mutex::new(None);
static METHODS: Mutex<Option<FxHashMap<String, Py<PyAny>>>> = Mutex::new(None);
static HINTS: PyOnceLock<Hints> = PyOnceLock::new();

/// The Python layer's functions that say what to write in place of a function of NumPy's, or of an attribute's name.
struct Hints {
    function: Py<PyAny>,
    attribute: Py<PyAny>,
}

/// Makes `handler(*args, **kwargs)` what a NumPy function does on traced values.
#[pyfunction]
pub fn register_function(numpy_function: Py<PyAny>, handler: Py<PyAny>) {
    insert(&FUNCTIONS, numpy_function, handler);
}

/// Makes `handler(like, *args, **kwargs)` what a creation function with `like=x` does.
#[pyfunction]
pub fn register_creation(numpy_function: Py<PyAny>, handler: Py<PyAny>) {
    insert(&CREATIONS, numpy_function, handler);
}

fn insert(table: &Handlers, numpy_function: Py<PyAny>, handler: Py<PyAny>) {
    let address = numpy_function.as_ptr() as usize;
    let mut handlers = table.lock().unwrap_or_else(PoisonError::into_inner);
    let replaced = handlers.get_or_insert_default().insert(address, (numpy_function, handler));
    // What is replaced may run Python code when it goes: not under the lock.
    drop(handlers);
    drop(replaced);
}

fn find(py: Python<'_>, table: &Handlers, function: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    let handlers = table.lock().unwrap_or_else(PoisonError::into_inner);
    Some(handlers.as_ref()?.get(&(function.as_ptr() as usize))?.1.clone_ref(py))
}

/// Makes `function(x, *args, **kwargs)` the method `x.name` of traced values.
#[pyfunction]
pub fn register_method(name: String, function: Py<PyAny>) {
    let mut methods = METHODS.lock().unwrap_or_else(PoisonError::into_inner);
    let replaced = methods.get_or_insert_default().insert(name, function);
    drop(methods);
    drop(replaced);
}

/// Makes `function(numpy_function)` and `attribute(name)` what refusals of the two have as their hints.
#[pyfunction]
pub fn register_hints(py: Python<'_>, function: Py<PyAny>, attribute: Py<PyAny>) {
    HINTS.get_or_init(py, || Hints { function, attribute });
}

/// The hint that one of the registered functions gives. What is raised in it, as on Ctrl-C, is handed on.
fn hint<'py>(py: Python<'py>, of: fn(&Hints) -> &Py<PyAny>, subject: impl PyCallArgs<'py>) -> PyResult<String> {
    match HINTS.get(py) {
        Some(hints) => of(hints).bind(py).call1(subject)?.extract(),
        None => Ok("use NumPy's functions".to_owned()),
    }
}

fn method(py: Python<'_>, name: &str) -> Option<Py<PyAny>> {
    let methods = METHODS.lock().unwrap_or_else(PoisonError::into_inner);
    Some(methods.as_ref()?.get(name)?.clone_ref(py))
}

/// Calls a registered method.
pub fn call_method<'py>(
    py: Python<'py>,
    name: &str,
    this: &Tracer,
    args: (&Bound<'py, PyAny>,),
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let this = this.alias(py)?.into_object(py)?;
    call_registered(py, name, (this, args.0), kwargs)
}

pub fn call_registered<'py>(
    py: Python<'py>,
    name: &str,
    args: impl PyCallArgs<'py>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let function = method(py, name).ok_or_else(|| unknown_attribute(py, name))?;
    function.bind(py).call(args, kwargs).map(Bound::unbind)
}

/// `x.name(*args, **kwargs)`: without the Python layer where the call is a plain one.
pub fn plain_or_registered<'py>(
    this: &Bound<'py, Tracer>,
    name: &str,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let py = this.py();
    let whole: Vec<Bound<'py, PyAny>> = std::iter::once(this.clone().into_any()).chain(args).collect();
    let whole = PyTuple::new(py, whole)?;
    match shortcut_method(name, &whole, kwargs)? {
        Some(result) => result.into_object(py),
        None => call_registered(py, name, whole, kwargs),
    }
}

/// Names of protocols (`__array_interface__`) are asked for by libraries that look at any object, and nobody reads
/// their errors: they cost no hint of their own.
fn unknown_attribute(py: Python<'_>, name: &str) -> PyErr {
    let what = format!("a traced array has no attribute '{name}'");
    let found = if name.starts_with('_') {
        Ok("use NumPy's functions".to_owned())
    } else {
        hint(py, |hints| &hints.attribute, (name,))
    };
    match found {
        Ok(hint) => builtin::<PyAttributeError>("attribute", what, &hint),
        Err(raised) => raised,
    }
}

/// `x.name` for names that the class itself lacks: a bound method from the table.
pub fn attribute<'py>(this: &Bound<'py, Tracer>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let function = method(py, name).ok_or_else(|| unknown_attribute(py, name))?;
    static METHOD_TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class =
        METHOD_TYPE.get_or_try_init(py, || PyResult::Ok(py.import("types")?.getattr("MethodType")?.unbind()))?;
    class.bind(py).call1((function, this))
}

/// `__array_function__`.
pub fn array_function<'py>(
    like: &Bound<'py, Tracer>,
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<Py<PyAny>> {
    let py = like.py();
    if let Some(result) = shortcut(function, args, kwargs)? {
        return result.into_object(py);
    }
    if let Some(handler) = find(py, &FUNCTIONS, function) {
        return handler.bind(py).call(args, Some(kwargs)).map(Bound::unbind);
    }
    if let Some(handler) = find(py, &CREATIONS, function) {
        let with_like =
            PyTuple::new(py, std::iter::once(like.clone().into_any()).chain(args.iter()).collect::<Vec<_>>())?;
        return handler.bind(py).call(with_like, Some(kwargs)).map(Bound::unbind);
    }
    match call_plainly(function, args, Some(kwargs))? {
        Some(result) => Ok(result),
        None => Err(unknown_function(function)),
    }
}

/// NumPy's own function on ordinary values, where the traced ones among its arguments depend on nothing differentiated;
/// the Python layer knows. None where one does.
pub fn call_plainly<'py>(
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Py<PyAny>>> {
    let py = function.py();
    let kwargs = kwargs.map_or_else(|| PyDict::new(py), Clone::clone);
    let result = call_registered(py, "call on ordinary values", (function, args, kwargs), None)?;
    Ok((!result.is(py.NotImplemented())).then_some(result))
}

fn unknown_function(function: &Bound<'_, PyAny>) -> PyErr {
    let text = |name: &str| function.getattr(name).and_then(|found| found.extract::<String>()).unwrap_or_default();
    let (module, name) = (text("__module__"), text("__name__"));
    let module = if module.starts_with("numpy") { module.replacen("numpy", "np", 1) } else { module };
    match hint(function.py(), |hints| &hints.function, (function,)) {
        Ok(hint) => {
            let what = format!("{module}.{name} is not supported on traced values");
            raise(Error::new(ErrorKind::Tracer, name, what).with_hint(hint))
        }
        Err(raised) => raised,
    }
}
