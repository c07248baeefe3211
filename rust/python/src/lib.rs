//! The Python boundary: the module `ckad._core`. Only this crate knows Python.

mod errors;
mod lines;
mod tape;
mod value;

use pyo3::prelude::*;

#[pymodule(gil_used = true)]
fn _core(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
