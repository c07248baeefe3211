//! Small objects that a traced array hands out: its iterator and its flags.

use std::sync::atomic::{AtomicI64, Ordering};

use ckad_graph::ErrorKind;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

use crate::errors::{builtin, refusal};
use crate::indexing::get_item;
use crate::tracer::Tracer;

/// What `iter(x)` returns: the elements along the first axis, each as `x[i]` at the time it is asked for.
#[pyclass(frozen, module = "ckad")]
pub struct Elements {
    array: Py<Tracer>,
    next: AtomicI64,
    reversed: bool,
}

impl Elements {
    pub fn of(array: Bound<'_, Tracer>, reversed: bool) -> PyResult<Elements> {
        if array.get().rank() == 0 {
            return Err(refusal(
                ErrorKind::Type,
                "iter",
                "iteration over a 0-d array",
                "use x itself, or x.reshape(1)",
            ));
        }
        Ok(Elements { array: array.unbind(), next: AtomicI64::new(0), reversed })
    }
}

#[pymethods]
impl Elements {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let array = self.array.get();
        let extent = array.shape().first().copied().unwrap_or(0);
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        if index >= extent {
            return Ok(None);
        }
        let index = if self.reversed { extent - 1 - index } else { index };
        get_item(py, array, index.into_pyobject(py)?.as_any()).map(Some)
    }
}

/// `x.flags`.
#[pyclass(frozen, module = "ckad")]
pub struct Flags {
    #[pyo3(get)]
    writeable: bool,
    #[pyo3(get)]
    c_contiguous: bool,
    #[pyo3(get)]
    f_contiguous: bool,
}

impl Flags {
    pub fn new(writeable: bool, c_contiguous: bool, f_contiguous: bool) -> Flags {
        Flags { writeable, c_contiguous, f_contiguous }
    }
}

#[pymethods]
impl Flags {
    fn __getitem__(&self, name: &str) -> PyResult<bool> {
        match name {
            "WRITEABLE" | "W" => Ok(self.writeable),
            "C_CONTIGUOUS" | "C" | "CONTIGUOUS" => Ok(self.c_contiguous),
            "F_CONTIGUOUS" | "F" | "FORTRAN" => Ok(self.f_contiguous),
            _ => Err(builtin::<PyKeyError>(
                "flags",
                format!("Unknown flag {name}"),
                "use 'WRITEABLE', 'C_CONTIGUOUS' or 'F_CONTIGUOUS'",
            )),
        }
    }
}
