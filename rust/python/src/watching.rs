//! Where derivatives absorbed numbers that are not finite, collected while a `Watching` context is open on a thread.
//!
//! Programs are then built with a second one beside them, whose results say where (`ckad_transform::absorbed`); it
//! runs first, on the same inputs.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;

use crate::built::{Executable, Tables};
use crate::execute::run;
use crate::lines::Lines;
use crate::value::Value;

thread_local! {
    /// The contexts that are open on this thread, the innermost last.
    static WATCHING: RefCell<Vec<Arc<Mutex<Vec<String>>>>> = const { RefCell::new(Vec::new()) };
}

/// A context in which runs note the source lines where an absorbing product met 0 and a number that is not finite.
#[pyclass(frozen, module = "ckad._core")]
pub struct Watching {
    found: Arc<Mutex<Vec<String>>>,
}

#[pymethods]
impl Watching {
    #[new]
    fn new() -> Watching {
        Watching { found: Arc::default() }
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        WATCHING.with_borrow_mut(|open| open.push(Arc::clone(&this.get().found)));
        this
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) -> bool {
        WATCHING.with_borrow_mut(Vec::pop);
        false
    }

    /// The lines found so far, each once.
    #[getter]
    fn lines(&self) -> Vec<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Is somebody watching on this thread?
pub fn is_watching() -> bool {
    WATCHING.with_borrow(|open| !open.is_empty())
}

/// Runs what was built beside a program for whoever is watching.
pub fn note(
    py: Python<'_>,
    executable: &Executable,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
) -> PyResult<()> {
    let (Some(watch), Some(found)) = (&executable.watch, WATCHING.with_borrow(|open| open.last().cloned())) else {
        return Ok(());
    };
    let outputs = run(py, &watch.executable, values, tables, lines)?;
    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
    for (output, &line) in outputs.iter().zip(&watch.lines) {
        if output.0.bytes().first() == Some(&1) {
            let line = lines.text(py, line);
            if !found.contains(&line) {
                found.push(line);
            }
        }
    }
    Ok(())
}
