//! From traced values back to Python: `bool(x)`, `int(x)`, `float(x)`, `np.asarray(x)`, formatting and printing.
//!
//! Python needs the value now, so what was recorded is run. Where a float that depends on a differentiated argument
//! would go on as an ordinary number, its gradient would be lost without a sound: there an error says what to write.

use ckad_graph::{DType, Error, ErrorKind, shape_text};
use numpy::PyUntypedArray;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::convert::{as_array, value_to_numpy};
use crate::errors::{in_form, raise, refusal};
use crate::force::force;
use crate::tracer::{Kind, Tracer};

/// The value now, as a NumPy array in C order, or a NumPy scalar for rank 0.
pub fn forced(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    let node = this.logical_node(py)?;
    let value = force(py, this.tape(), node)?;
    value_to_numpy(py, &value, this.dtype(), this.shape())
}

/// As [`forced`], an array even for rank 0.
pub fn forced_array<'py>(py: Python<'py>, this: &Tracer) -> PyResult<Bound<'py, PyUntypedArray>> {
    as_array(forced(py, this)?.bind(py))
}

/// The value of an integer scalar.
pub fn forced_integer(py: Python<'_>, this: &Tracer) -> PyResult<i64> {
    forced(py, this)?.extract(py)
}

/// Refuses where a differentiated float would become an ordinary number.
fn refuse_if_active(py: Python<'_>, this: &Tracer, name: &str, what: &str, hint: &str) -> PyResult<()> {
    if !this.is_active(py)? {
        return Ok(());
    }
    let described = format!("{} array of shape {}", this.dtype(), shape_text(this.shape()));
    let subject = if this.rank() == 0 { format!("a differentiated {}", this.dtype()) } else { described };
    Err(raise(
        Error::new(ErrorKind::Tracer, name, format!("{what}: {subject} would lose its gradient")).with_hint(hint),
    ))
}

/// The element of an array of size 1.
fn single(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    if this.elements() != 1 {
        let what = "only arrays with one element can be converted to Python scalars";
        return Err(refusal(
            ErrorKind::Type,
            "item",
            format!("{what}, not shape {}", shape_text(this.shape())),
            "take one element, x[i], or reduce the array: np.sum(x), np.max(x)",
        ));
    }
    let value = forced(py, this)?;
    if this.rank() == 0 {
        value.call_method0(py, "item")
    } else {
        as_array(value.bind(py))?.call_method0("item").map(Bound::unbind)
    }
}

pub fn truth(py: Python<'_>, this: &Tracer) -> PyResult<bool> {
    if this.elements() != 1 {
        let what = if this.elements() == 0 { "an empty array" } else { "an array with more than one element" };
        let what = format!("The truth value of {what} is ambiguous: shape {}", shape_text(this.shape()));
        return Err(refusal(ErrorKind::Value, "bool", what, "use x.any() or x.all(), or x.size > 0"));
    }
    single(py, this)?.is_truthy(py)
}

/// `int(x)`: piecewise constant, so nothing is lost.
pub fn integer(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    let value = single(py, this)?;
    Ok(py.get_type::<pyo3::types::PyInt>().call1((value,))?.unbind())
}

pub fn index(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    if !this.dtype().is_integer() || this.rank() != 0 {
        let what = "only integer scalar arrays can be converted to a scalar index";
        return Err(refusal(
            ErrorKind::Type,
            "index",
            format!("{what}, not {} of shape {}", this.dtype(), shape_text(this.shape())),
            "write int(x) for one number; an array of integers indexes an array: np.asarray(values)[x]",
        ));
    }
    single(py, this)
}

const FLOAT_HINT: &str = "where it is written into an array (y[0] = x), make that with y = np.zeros(n, like=x); use \
                          NumPy's functions (np.sin(x), not math.sin(x)) and np.stack([...]), or write \
                          ckad.stop_gradient(x) where no gradient should flow";

pub fn float(py: Python<'_>, this: &Tracer) -> PyResult<f64> {
    refuse_if_active(py, this, "float", "a number is wanted", FLOAT_HINT)?;
    single(py, this)?.extract(py)
}

/// `x.item()`, `x.item(3)`, `x.item(0, 1)`.
pub fn item(py: Python<'_>, this: &Tracer, position: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
    refuse_if_active(py, this, "item", "a Python number is wanted", FLOAT_HINT)?;
    if position.is_empty() {
        return single(py, this);
    }
    forced_array(py, this)?.call_method1("item", position).map(Bound::unbind)
}

pub fn to_list(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    refuse_if_active(py, this, "tolist", "Python numbers are wanted", FLOAT_HINT)?;
    forced_array(py, this)?.call_method0("tolist").map(Bound::unbind)
}

/// `__array__` is not told who asks.
const ARRAY_HINT: &str = "np.zeros(n, like=x) for an array to write into, np.stack([...]) or np.concatenate([...]) in \
                          place of np.array([...]), x * np.ones(n) in place of np.full(n, x), x in place of \
                          np.float64(x), x + s * rng.normal(size=n) in place of rng.normal(x, s, n), \
                          x * np.arange(n) in place of np.arange(0, n * x, x), A @ x in place of A.dot(x), or \
                          ckad.stop_gradient(x) where no gradient should flow";

/// `np.asarray(x)`. An argument that nothing differentiated reaches gives back the caller's very array.
pub fn to_array(
    py: Python<'_>,
    this: &Tracer,
    dtype: Option<&Bound<'_, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Py<PyAny>> {
    refuse_if_active(py, this, "asarray", "an ordinary array is wanted", ARRAY_HINT)?;
    let plain = dtype.is_none_or(|dtype| dtype.is_none());
    if plain
        && copy != Some(true)
        && let Some(original) = original(py, this)?
    {
        return Ok(original);
    }
    if copy == Some(false) {
        let what = "a traced value cannot become an array without a copy";
        return Err(refusal(ErrorKind::Value, "asarray", what, "leave copy= out: np.asarray(x)"));
    }
    let array = forced_array(py, this)?;
    if plain {
        return Ok(array.into_any().unbind());
    }
    Ok(array.call_method1("astype", (dtype,))?.unbind())
}

/// The caller's array, where this is an unchanged argument.
fn original(py: Python<'_>, this: &Tracer) -> PyResult<Option<Py<PyAny>>> {
    let Kind::Array { storage, view } = this.kind() else { return Ok(None) };
    let Some(array) = storage.tape.original(py, storage.node()) else { return Ok(None) };
    let shape: Vec<i64> = array.getattr(py, "shape")?.extract(py)?;
    let strides: Vec<i64> = array.getattr(py, "strides")?.extract(py)?;
    // Within one memory, equal shape and strides leave room for one place only.
    let whole = shape == view.layout.shape && strides == view.strides_in_bytes(storage.dtype);
    Ok(whole.then_some(array))
}

pub fn format(py: Python<'_>, this: &Tracer, spec: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
    forced(py, this)?.call_method1(py, "__format__", (spec,))
}

pub fn string(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    forced(py, this)?.call_method0(py, "__str__")
}

/// What it is, without running anything: debuggers call this.
pub fn representation(this: &Tracer) -> String {
    let shape = this.shape().iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    format!("<traced {}[{shape}]>", this.dtype())
}

/// `round(x)` is an int; `round(x, n)` a traced value.
pub fn round(py: Python<'_>, this: &Tracer, digits: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    match digits.filter(|digits| !digits.is_none()) {
        None => Ok(single(py, this)?.call_method0(py, "__round__")?),
        Some(digits) => {
            let rounded = crate::function::call_method(py, "round", this, (digits,), None)?;
            rounded.bind(py).cast::<Tracer>()?.get().alias(py)?.weak_if(this.is_weak()).into_object(py)
        }
    }
}

/// NumPy's dtype object.
pub fn dtype_object(py: Python<'_>, dtype: DType) -> PyResult<Py<PyAny>> {
    static OBJECTS: pyo3::sync::PyOnceLock<Vec<Py<PyAny>>> = pyo3::sync::PyOnceLock::new();
    let objects = OBJECTS.get_or_try_init(py, || {
        let class = py.import("numpy")?.getattr("dtype")?;
        DType::ALL.iter().map(|dtype| Ok(class.call1((dtype.name(),))?.unbind())).collect::<PyResult<Vec<_>>>()
    })?;
    Ok(objects[dtype as usize].clone_ref(py))
}

/// The dtype that a `dtype=` argument names.
pub fn parse_dtype(object: &Bound<'_, PyAny>) -> PyResult<DType> {
    let py = object.py();
    const HINT: &str = "name one of float64, float32, an integer dtype and bool";
    let dtype = py.import("numpy")?.getattr("dtype")?.call1((object,));
    let dtype = dtype.map_err(|error| in_form(py, "dtype", error, None, HINT))?;
    let name: String = dtype.getattr("name")?.extract()?;
    DType::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
        raise(
            Error::dtype("dtype", format!("{name} is not supported"))
                .with_hint("use float64, float32, an integer dtype or bool"),
        )
    })
}

/// Refuses keyword arguments that nobody handles: none is ignored.
pub fn refuse_keywords(name: &str, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    match keywords.and_then(|keywords| keywords.keys().iter().next()) {
        None => Ok(()),
        Some(key) => {
            let what = format!("the keyword {key} is not supported for traced values");
            Err(refusal(
                ErrorKind::Type,
                name,
                what,
                "leave it out; convert with .astype(dtype), and assign the result in place of out=",
            ))
        }
    }
}
