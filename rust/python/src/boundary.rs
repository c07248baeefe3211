//! The one way from Python into work on graphs: the GIL released, Ctrl-C heard, panics turned into errors.
//!
//! The work stays on the caller's thread, where signal handlers must run and where the graph is in the cache; plans of
//! long tapes are tried and lowered with the help of a second one, which the first looks after. Every few thousand
//! nodes a walk asks whether to stop, and from time to time the answer is Python's.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ckad_graph::{Error, Result, interrupt};
use pyo3::prelude::*;

/// How long an interrupt may go unheard, beside the time of a few thousand nodes.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(25);

fn guarded<R, E: From<Error>>(job: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| Err(panicked("run", &*panic).into()))
}

/// The error for a panic in the operation `op`.
pub fn panicked(op: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".to_owned());
    Error::internal(op, text)
}

/// Runs `job` without the GIL. The outer result is Python's (a signal handler that raised), the inner the job's.
pub fn enter<R: Send, E: Send + From<Error>>(
    py: Python<'_>,
    job: impl FnOnce() -> Result<R, E> + Send,
) -> PyResult<Result<R, E>> {
    let raised = Arc::new(Mutex::new(None));
    let listening = interrupt::listen({
        let (raised, asked) = (Arc::clone(&raised), Cell::new(Instant::now()));
        move || {
            if asked.get().elapsed() < SIGNAL_INTERVAL {
                return false;
            }
            // Not locked here: a signal handler may run anything.
            let signal = Python::attach(|py| py.check_signals());
            asked.set(Instant::now());
            let Err(signal) = signal else { return false };
            *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
            true
        }
    });
    let result = py.detach(|| guarded(job));
    drop(listening);
    match raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(signal) => Err(signal),
        None => Ok(result),
    }
}
