//! What runs inside of a trace with a limit keeps to what the limit leaves beside the values that are held.
//!
//! Such runs are those that control flow on values forces, and transforms, linear functions and jitted functions of
//! values that depend on nothing traced. Most fit as they are planned without a limit: a plan for what is left would
//! be made anew for each amount. The first that fits by no plan ends the call, for the limit is hard. Where a call is
//! only planned, it runs by its least plan, and the plan is refused in the end with what the largest of them needs:
//! so the least limit of a function whose later runs need more than the first is known without raising it step by step.

use pyo3::prelude::*;

use crate::errors::MemoryLimitError;
use crate::execute::Ask;
use crate::plan_view::{is_planning, note_refused};
use crate::trace::open_tapes;

/// Bytes that the open traces hold for later.
pub fn held(py: Python<'_>) -> usize {
    // A trace that is being finished has handed its values on.
    open_tapes().iter().filter_map(|tape| tape.open(py).ok().map(|tape| tape.held_bytes())).sum()
}

/// What is built for a run: `free` where it fits what the open traces leave, else the cheapest of `within` that does.
pub fn fitting<T>(
    py: Python<'_>,
    free: T,
    peak_bytes: impl Fn(&T) -> usize,
    within: impl Fn(Ask) -> PyResult<T>,
) -> PyResult<T> {
    let Some(limit) = open_tapes().last().and_then(|tape| tape.limit) else { return Ok(free) };
    let held = held(py);
    let left = limit.saturating_sub(held);
    if peak_bytes(&free) <= left {
        return Ok(free);
    }
    let ask = |limit| Ask { policy: None, limit: Some(limit), held };
    match within(ask(left)) {
        Err(refused) if is_planning() && refused.is_instance_of::<MemoryLimitError>(py) => {
            let minimum: usize = refused.value(py).getattr("minimum")?.extract()?;
            note_refused(minimum, refused);
            within(ask(minimum.saturating_sub(held)))
        }
        found => found,
    }
}
