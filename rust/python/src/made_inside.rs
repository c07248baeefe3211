//! Arrays that a traced function makes with functions of NumPy's own, such as `rng.random(x.shape)`: a plan lists them.
//!
//! To a trace they are captured constants like any other. They are told from arrays that were there before the call by
//! their references: when the recording ends the function has returned, and nothing but the trace holds what only the
//! function's variables held. An array that the function puts away somewhere is so not listed; one that was there
//! before never is.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ckad_graph::{DType, NodeId};
use ckad_plan::report::bytes_text;
use pyo3::prelude::*;

use crate::errors::raise;
use crate::lines::Lines;
use crate::plan_view::is_planning;
use crate::tape::Tape;

thread_local! {
    /// Line and bytes of each array that was made since the outermost trace of this thread began.
    static MADE: RefCell<Vec<(u32, usize)>> = const { RefCell::new(Vec::new()) };
}

/// An outermost trace has begun.
pub fn forget() {
    MADE.take();
}

/// Notes the arrays that the function made whose recording ends, where a plan is wanted.
pub fn note(py: Python<'_>, tape: &Tape) -> PyResult<()> {
    if !is_planning() {
        return Ok(());
    }
    let graph = tape.builder.graph();
    // A key that the function made is what the hint asks for.
    let is_key = |node: &NodeId| graph.dtype(*node) == DType::U32 && graph.shape(*node) == [2];
    let made = tape.arrays.held_by_nobody_else(py).map_err(raise)?;
    let made = made.into_iter().filter(|node| !is_key(node));
    let made = made.map(|node| (graph.attributes(node).line, graph.bytes(node)));
    MADE.with_borrow_mut(|all| all.extend(made));
    Ok(())
}

/// Line and bytes of what was noted, most first. It is forgotten.
pub fn taken(py: Python<'_>, lines: &Lines) -> Vec<(String, usize)> {
    let mut by_line: BTreeMap<String, usize> = BTreeMap::new();
    for (line, bytes) in MADE.take() {
        *by_line.entry(lines.text(py, line)).or_default() += bytes;
    }
    let mut rows: Vec<(String, usize)> = by_line.into_iter().collect();
    rows.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    rows
}

/// A table of them; empty where there are none.
pub fn text(rows: &[(String, usize)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = rows.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).max(LABEL.len());
    let rows = rows.iter().map(|(line, bytes)| format!("{line:width$}  {}\n", bytes_text(*bytes as u64)));
    format!("\n{LABEL:width$}  {:>31}\n{}\n{HINT}", "held", rows.collect::<String>())
}

const LABEL: &str = "made while traced";

const HINT: &str = "\
made while traced  an array that the function made with functions of NumPy's own, such as rng.random(x.shape), by the
                   line that reads it first. It is a constant, held until the call ends. Hint: ckad.random draws
                   numbers that are part of the program, and drawn again where they are needed again
";
