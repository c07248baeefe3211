//! Whether signal handlers run on this thread: only then is there anything to ask Python for while a program runs.

use std::cell::Cell;

use pyo3::prelude::*;

thread_local! {
    static MAIN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Whether this is Python's main thread, the only one that signal handlers run on.
pub fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    if let Some(main) = MAIN.get() {
        return Ok(main);
    }
    let threading = py.import("threading")?;
    let here = threading.call_method0("get_ident")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?.eq(here)?;
    MAIN.set(Some(main));
    Ok(main)
}
