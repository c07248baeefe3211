//! Runs whose buffers a Python object provides, so that a memory profiler sees each at the user's source line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ckad_graph::{Error, NodeId, Result};
use ckad_run::AllocationHooks;
use pyo3::prelude::*;

use crate::built::{Executable, Tables};
use crate::errors::raise;
use crate::lines::Lines;
use crate::result::Output;

thread_local! {
    /// The contexts that are open on this thread, the innermost last.
    static PROFILING: RefCell<Vec<Py<Profiling>>> = const { RefCell::new(Vec::new()) };
}

/// A context in which runs take their buffers from `allocator`: `begin()` as each run starts,
/// `allocate(file, line, bytes) -> address`, `free(address)`, and `output(file, line, bytes)` for results that outlive
/// the run.
#[pyclass(frozen, module = "ckad._core")]
pub struct Profiling {
    allocator: Py<PyAny>,
    planned_bytes: Mutex<u64>,
    /// By file and line, the most bytes planned at once in one run.
    planned_lines: Mutex<BTreeMap<(Arc<str>, u32), u64>>,
}

#[pymethods]
impl Profiling {
    #[new]
    fn new(allocator: Py<PyAny>) -> Profiling {
        Profiling { allocator, planned_bytes: Mutex::default(), planned_lines: Mutex::default() }
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        PROFILING.with_borrow_mut(|open| open.push(this.clone().unbind()));
        this
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) -> bool {
        PROFILING.with_borrow_mut(Vec::pop);
        false
    }

    /// The largest planned live bytes of a run in this context.
    #[getter]
    fn planned_bytes(&self) -> u64 {
        *self.planned_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// (file, line, bytes): the most bytes that a run in this context was planned to hold of each line at once.
    #[getter]
    fn planned_lines(&self) -> Vec<(String, u32, u64)> {
        let lines = self.planned_lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|((file, line), &bytes)| (file.to_string(), *line, bytes)).collect()
    }
}

/// The profiler of this thread.
pub fn current(py: Python<'_>) -> Option<Py<Profiling>> {
    PROFILING.with_borrow(|open| open.last().map(|profiling| profiling.clone_ref(py)))
}

struct Hooks<'a> {
    allocator: Py<PyAny>,
    /// File and line by node.
    places: &'a dyn Fn(NodeId) -> (Arc<str>, u32),
    /// What the allocator raised.
    raised: Option<PyErr>,
}

// SAFETY: the run calls the hooks from one thread at a time, with the GIL taken for each call; `places` reads data
// that nobody changes meanwhile.
unsafe impl Send for Hooks<'_> {}

// SAFETY: the Python allocator returns 64-byte aligned memory that it keeps until `free`.
unsafe impl AllocationHooks for Hooks<'_> {
    fn on_allocate(&mut self, node: NodeId, bytes: usize) -> Result<*mut u8> {
        let (file, line) = (self.places)(node);
        let address = Python::attach(|py| {
            self.allocator.call_method1(py, "allocate", (&*file, line, bytes))?.extract::<usize>(py)
        });
        match address {
            Ok(address) => Ok(address as *mut u8),
            Err(raised) => {
                self.raised = Some(raised);
                Err(Error::memory("profile", bytes))
            }
        }
    }

    fn on_free(&mut self, _node: NodeId, pointer: *mut u8, _bytes: usize) {
        let freed = Python::attach(|py| self.allocator.call_method1(py, "free", (pointer as usize,)).map(drop));
        if let Err(raised) = freed {
            self.raised.get_or_insert(raised);
        }
    }

    fn on_output(&mut self, node: NodeId, _pointer: *mut u8, bytes: usize) {
        let (file, line) = (self.places)(node);
        let noted = Python::attach(|py| self.allocator.call_method1(py, "output", (&*file, line, bytes)).map(drop));
        if let Err(raised) = noted {
            self.raised.get_or_insert(raised);
        }
    }
}

/// Runs under a profiler.
pub fn run(
    py: Python<'_>,
    profiler: &Py<Profiling>,
    executable: &Arc<Executable>,
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
    go: impl FnOnce(&mut (dyn AllocationHooks + Send)) -> PyResult<Vec<Output>>,
) -> PyResult<Vec<Output>> {
    let profiling = profiler.get();
    profiling.allocator.call_method0(py, "begin")?;
    {
        let mut planned = profiling.planned_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *planned = (*planned).max(executable.compiled.planned.live_peak);
    }
    let known = executable.places(py, tables.graph, lines).map_err(raise)?;
    note_planned(profiling, executable, &known).map_err(raise)?;
    let places = move |node: NodeId| known[node.index()].clone();
    let mut hooks = Hooks { allocator: profiling.allocator.clone_ref(py), places: &places, raised: None };
    let outputs = go(&mut hooks);
    match hooks.raised.take() {
        Some(raised) => Err(raised),
        None => outputs,
    }
}

/// Adds what a run is planned to hold of each line.
fn note_planned(profiling: &Profiling, executable: &Executable, known: &[(Arc<str>, u32)]) -> Result<()> {
    let mut rows: BTreeMap<(Arc<str>, u32), usize> = BTreeMap::new();
    for place in known {
        let next = rows.len();
        if !rows.contains_key(place) {
            rows.insert(place.clone(), next);
        }
    }
    let row = |node: NodeId| rows.get(&known[node.index()]).copied().unwrap_or(0);
    let most = executable.compiled.program.most_held(&row, rows.len())?;
    let mut planned = profiling.planned_lines.lock().unwrap_or_else(PoisonError::into_inner);
    for (place, &row) in rows.iter().filter(|&(_, &row)| most[row] > 0) {
        let bytes = planned.entry(place.clone()).or_default();
        *bytes = (*bytes).max(most[row]);
    }
    Ok(())
}
