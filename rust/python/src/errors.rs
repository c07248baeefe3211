//! The one mapping from the core's errors to Python's exceptions: a class of `ckad.errors` for each kind.

use ckad_graph::{Error, ErrorKind};
use ckad_plan::within::TooSmall;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyKeyboardInterrupt, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::ask::Ask;
use crate::lines::Lines;

pyo3::import_exception!(ckad.errors, ShapeError);
pyo3::import_exception!(ckad.errors, DTypeError);
pyo3::import_exception!(ckad.errors, TracerError);
pyo3::import_exception!(ckad.errors, CkadIndexError);
pyo3::import_exception!(ckad.errors, CkadAxisError);
pyo3::import_exception!(ckad.errors, CkadValueError);
pyo3::import_exception!(ckad.errors, CkadTypeError);
pyo3::import_exception!(ckad.errors, CkadMemoryError);
pyo3::import_exception!(ckad.errors, CkadRuntimeError);
pyo3::import_exception!(ckad.errors, StorageError);
pyo3::import_exception!(ckad.errors, InternalError);
pyo3::import_exception!(ckad.errors, MemoryLimitError);

/// The Python exception for an error of the core; `location` is `file:line` of the node at fault, or empty.
pub fn to_python(error: &Error, location: &str) -> PyErr {
    let mut message = error.to_string();
    if !location.is_empty() {
        message.push_str(&format!(" (recorded at {location})"));
    }
    Python::attach(|py| {
        let class = match error.kind {
            ErrorKind::Shape => py.get_type::<ShapeError>(),
            ErrorKind::DType => py.get_type::<DTypeError>(),
            ErrorKind::Tracer => py.get_type::<TracerError>(),
            ErrorKind::Index => py.get_type::<CkadIndexError>(),
            ErrorKind::Axis => py.get_type::<CkadAxisError>(),
            ErrorKind::Value => py.get_type::<CkadValueError>(),
            ErrorKind::Type => py.get_type::<CkadTypeError>(),
            ErrorKind::Memory => py.get_type::<CkadMemoryError>(),
            ErrorKind::Storage => py.get_type::<StorageError>(),
            ErrorKind::Missing => py.get_type::<CkadRuntimeError>(),
            ErrorKind::Raised => match crate::chosen::take_raised() {
                Some(raised) => return raised,
                None => py.get_type::<InternalError>(),
            },
            ErrorKind::Interrupted => return PyKeyboardInterrupt::new_err(()),
            ErrorKind::Internal => py.get_type::<InternalError>(),
        };
        let data = PyDict::new(py);
        let filled = data.set_item("op", &error.op).and_then(|()| data.set_item("hint", &error.hint));
        if let Err(broken) = filled {
            return broken;
        }
        match class.call((message,), Some(&data)) {
            Ok(exception) => PyErr::from_value(exception),
            Err(broken) => broken,
        }
    })
}

/// The error for a limit that no plan keeps.
pub fn over_limit(py: Python<'_>, refused: &TooSmall, ask: Ask, lines: &Lines) -> PyErr {
    let places = match refused.report.by_name(&|line| lines.text(py, line)) {
        Ok(rows) => rows,
        Err(error) => return raise(error),
    };
    let peak = &refused.peak;
    let values = peak.arena.saturating_add(peak.outputs);
    // Lines hold what the schedule keeps, of which joined steps leave out some: each has its share of the values.
    let all = places.iter().fold(0, |sum: u64, (_, cost)| sum.saturating_add(cost.peak_bytes)).max(values as u64);
    let share = |bytes: u64| (u128::from(bytes) * values as u128 / u128::from(all.max(1))) as u64;
    let most = places.first().map_or(0, |(_, cost)| cost.peak_bytes);
    let counts = |bytes: u64| bytes > 0 && bytes.saturating_mul(LEAST_NAMED) >= most;
    let places = places.into_iter().filter(|(place, cost)| counts(cost.peak_bytes) && !place.is_empty());
    let places: Vec<(String, u64)> =
        places.map(|(place, cost)| (place, share(cost.peak_bytes))).take(LINES_NAMED).collect();
    let minimum = refused.minimum.saturating_add(ask.held);
    let recorded = peak.graph.saturating_add(peak.program);
    let parts = (recorded, values, peak.scratch, peak.constants, minimum.saturating_sub(peak.total()));
    // Where nothing of the limit was left, what it was is not known here.
    let known = ask.limit.filter(|&left| left > 0 || ask.held == 0);
    let limit = known.map(|left| left.saturating_add(ask.held));
    let asked = (limit, ask.policy.is_some());
    let made = py.get_type::<MemoryLimitError>().call_method1("of_plan", (minimum, places, parts, asked));
    made.map_or_else(|broken| broken, PyErr::from_value)
}

/// How many lines an error names.
const LINES_NAMED: usize = 3;
/// It names those that hold at least this part of what the first one does: one in so many bytes.
const LEAST_NAMED: u64 = 100;

/// A text that grows with a program, as Python's. PyO3 would panic where Python has no memory for it.
pub fn text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyBytes::new_with(py, text.len(), |bytes| {
        bytes.copy_from_slice(text.as_bytes());
        Ok(())
    })?;
    bytes.call_method0("decode")
}

/// An error of a builtin class that Python's own protocols ask for, in ckad's form.
pub fn builtin<Class: PyTypeInfo>(op: &str, what: impl std::fmt::Display, hint: &str) -> PyErr {
    PyErr::new::<Class, _>(format!("[{op}] {what}. Hint: {hint}"))
}

/// A TypeError of Python's own in ckad's form, with its words where `what` has no others; any other error as it is.
pub fn in_form(py: Python<'_>, op: &str, error: PyErr, what: Option<String>, hint: &str) -> PyErr {
    if !error.get_type(py).is(py.get_type::<PyTypeError>()) {
        return error;
    }
    refusal(ErrorKind::Type, op, what.unwrap_or_else(|| error.value(py).to_string()), hint)
}

/// What [`raise`] makes of an error of that kind.
pub fn refusal(kind: ErrorKind, op: &str, what: impl Into<String>, hint: impl Into<String>) -> PyErr {
    raise(Error::new(kind, op, what).with_hint(hint))
}

/// For errors raised while the user's line is on the stack: the traceback names it already.
pub fn raise(error: Error) -> PyErr {
    to_python(&error, "")
}
