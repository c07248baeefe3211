//! Policies of the user's own: Python objects that the planner asks.
//!
//! An object is known to the core by a number (`register_policy`), which is part of what a program is found again by.
//! `ckad.transforms.user_policy.ask` makes Python's data of the clusters and reads the answer; an exception there,
//! also one of the object's own, waits here until the planner has unwound.

use std::cell::RefCell;
use std::sync::Arc;

use ckad_graph::{Error, ErrorKind, Result};
use ckad_plan::liveness::Lists;
use ckad_plan::policy::user::{Answer, Chooser, Shown, register};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;
use crate::lines::Lines;

thread_local! {
    /// What the object raised, while the planner unwinds.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
    /// The lines of the program that is being planned.
    static LINES: RefCell<Option<Arc<Lines>>> = const { RefCell::new(None) };
}

/// The exception behind an error of kind `Raised`.
pub fn take_raised() -> Option<PyErr> {
    RAISED.take()
}

/// Runs a job of the planner whose source lines are these.
pub fn with_lines<R>(lines: &Arc<Lines>, job: impl FnOnce() -> R) -> R {
    let before = LINES.replace(Some(Arc::clone(lines)));
    let result = job();
    LINES.set(before);
    result
}

/// A number for the object, which lives from now on.
#[pyfunction]
pub fn register_policy(policy: Py<PyAny>, name: String) -> PyResult<u32> {
    register(Arc::new(Asked { policy, name })).map_err(raise)
}

struct Asked {
    policy: Py<PyAny>,
    name: String,
}

impl Chooser for Asked {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn choose(&self, shown: &Shown) -> Result<Answer> {
        Python::attach(|py| self.asked(py, shown)).map_err(|raised| {
            RAISED.set(Some(raised));
            let what = format!("the policy {} raised", self.name);
            Error::new(ErrorKind::Raised, "checkpoint", what).with_hint("see the exception of its own")
        })
    }
}

impl Asked {
    fn asked(&self, py: Python<'_>, shown: &Shown) -> PyResult<Answer> {
        let lines = LINES.with_borrow(Option::clone);
        let line = |&line: &u32| lines.as_ref().map_or_else(String::new, |lines| lines.text(py, line));
        let data = PyDict::new(py);
        data.set_item("flops", &shown.flops)?;
        data.set_item("passes", &shown.pass)?;
        data.set_item("position", &shown.position)?;
        data.set_item("line", shown.line.iter().map(line).collect::<Vec<_>>())?;
        data.set_item("operands", lists(&shown.operands))?;
        data.set_item("results", lists(&shown.results))?;
        data.set_item("bytes", &shown.bytes)?;
        data.set_item("producer", &shown.producer)?;
        data.set_item("users", lists(&shown.users))?;
        data.set_item("output", &shown.output)?;
        data.set_item("pinned", &shown.pinned)?;
        data.set_item("positions", shown.positions)?;
        let ask = py.import("ckad.transforms.user_policy")?.getattr("ask")?;
        let (key, numbers): (String, Vec<i64>) = ask.call1((&self.policy, data))?.extract()?;
        match key.as_str() {
            "borders" => Ok(Answer::Borders(numbers)),
            "keep" => Ok(Answer::Keep(numbers)),
            _ => Ok(Answer::Compute(numbers)),
        }
    }
}

fn lists(lists: &Lists) -> Vec<Vec<u32>> {
    (0..lists.len()).map(|list| lists.get(list).to_vec()).collect()
}
