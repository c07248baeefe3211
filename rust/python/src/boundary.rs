//! The one way from Python into long work: the GIL released, Ctrl-C heard, panics turned into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ckad_graph::{Error, ErrorKind, Result, interrupt};
use pyo3::prelude::*;

/// How long an interrupt may go unheard.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Whether a job may take long enough for a user to want to interrupt it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Well under the time in which Ctrl-C must work: runs on the calling thread.
    Short,
    /// Runs on a thread of its own while the caller listens for signals.
    Long,
}

fn guarded<R>(job: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic".to_owned());
        Err(Error::internal("run", text))
    })
}

/// Runs `job` without the GIL. The outer result is Python's (a signal handler that raised), the inner the job's.
pub fn enter<R: Send>(py: Python<'_>, length: Length, job: impl FnOnce() -> Result<R> + Send) -> PyResult<Result<R>> {
    if length == Length::Short {
        return Ok(py.detach(|| guarded(job)));
    }
    std::thread::scope(|scope| {
        let (done, finished) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancel);
        let spawned = std::thread::Builder::new().name("ckad-job".to_owned()).spawn_scoped(scope, move || {
            let listening = interrupt::listen(flag);
            // The receiver lives until this scope ends, so the send cannot fail while anyone listens.
            let _ = done.send(guarded(job));
            drop(listening);
        });
        if let Err(error) = spawned {
            return Ok(Err(Error::new(ErrorKind::Memory, "run", format!("cannot start a thread: {error}"))));
        }
        let mut raised = None;
        let finished = AssertUnwindSafe(std::sync::Mutex::new(finished));
        loop {
            let waited = py.detach(|| {
                let finished = finished.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                finished.recv_timeout(SIGNAL_INTERVAL)
            });
            match waited {
                Ok(result) => return raised.map_or(Ok(result), Err),
                Err(RecvTimeoutError::Disconnected) => {
                    return raised.map_or_else(|| Ok(Err(Error::internal("run", "the job vanished"))), Err);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(signal) = py.check_signals() {
                        cancel.store(true, Ordering::Relaxed);
                        raised.get_or_insert(signal);
                    }
                }
            }
        }
    })
}
