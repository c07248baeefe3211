//! What runs inside of a trace with a limit keeps to what the limit leaves beside what is held.
//!
//! Such runs are those that control flow on values forces, and transforms, linear functions and jitted functions of
//! values that depend on nothing traced. Most fit as they are planned without a limit: a plan for what is left would
//! be made anew for each amount. The first that fits by no plan ends the call, for the limit is hard. Where a call is
//! only planned, it runs by its least plan, and the plan is refused in the end with what the largest of them needs:
//! so the least limit of a function whose later runs need more than the first is known without raising it step by step.
//!
//! Held beside a run are copies of arguments and of captured arrays, and what earlier runs inside of the same outermost
//! trace have left ([`crate::alive`]).

use pyo3::prelude::*;

use crate::alive;
use crate::ask::Ask;
use crate::errors::{MemoryLimitError, raise};
use crate::plan_view::{is_planning, note_refused};
use crate::trace::open_tapes;

/// What there is around a run.
#[derive(Clone, Copy)]
pub struct Around {
    /// A trace records: the run is part of the enclosing call's work.
    pub enclosed: bool,
    /// Bytes that are held beside it.
    pub held: usize,
}

/// Bytes that the open traces hold, copies of captured arrays and results that are alive included.
pub fn held(py: Python<'_>) -> PyResult<usize> {
    let mut bytes = alive::bytes();
    for tape in open_tapes() {
        // A trace that is being finished has handed its values on.
        if let Ok(mut tape) = tape.open(py) {
            bytes += tape.copied_bytes().map_err(raise)?;
        }
    }
    Ok(bytes)
}

/// What is built for a run beside `held` bytes: `free` where it fits what is left, else the cheapest of `within` that
/// does.
pub fn fitting<T>(
    py: Python<'_>,
    held: usize,
    free: T,
    peak_bytes: impl Fn(&T) -> usize,
    within: impl Fn(Ask) -> PyResult<T>,
) -> PyResult<T> {
    let Some(limit) = open_tapes().last().and_then(|tape| tape.limit) else { return Ok(free) };
    let left = limit.saturating_sub(held);
    if peak_bytes(&free) <= left {
        return Ok(free);
    }
    let ask = |limit| Ask { policy: None, limit: Some(limit), held, applied: None, leaves_room: false };
    match within(ask(left)) {
        Err(refused) if is_planning() && refused.is_instance_of::<MemoryLimitError>(py) => {
            let minimum: usize = refused.value(py).getattr("minimum")?.extract()?;
            note_refused(minimum, refused);
            within(ask(minimum.saturating_sub(held)))
        }
        found => found,
    }
}
