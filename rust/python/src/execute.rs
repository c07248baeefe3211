//! Running programs on behalf of a Python call.
//!
//! A run gets the values of this call: inputs, captured arrays, scalars and slice starts. It happens without the GIL,
//! hears Ctrl-C on the main thread, and names the user's line where something fails; whoever plans or profiles on this
//! thread is handed it instead.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ckad_graph::{Error, Graph, NodeId, tables};
use ckad_run::{Bindings, GivenUp, InputArray, RunOptions};
use pyo3::prelude::*;

use crate::built::{Executable, Tables, refused_at};
use crate::errors::{raise, to_python};
use crate::limited::Around;
use crate::lines::Lines;
use crate::main_thread::is_main_thread;
use crate::plan_view::{PlannedRun, intercept, note_forced};
use crate::result::Output;
use crate::trace::open_tapes;
use crate::value::Value;
use crate::watching::note;

/// The memory of arguments that a run may write its results to, in the order of inputs.
pub struct Donated<'a> {
    pub memory: &'a [GivenUp],
    /// Set once some of it may have been written.
    pub overwritten: &'a AtomicBool,
}

impl Donated<'_> {
    pub const NONE: Donated<'static> = Donated { memory: &[], overwritten: &NEVER };
}

/// Where nothing is given up nothing is overwritten.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Runs a program. `values` are its inputs in order.
pub fn run(
    py: Python<'_>,
    executable: &Executable,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
) -> PyResult<Vec<Output>> {
    run_with(py, executable, values, tables, lines, &Donated::NONE, None)
}

/// [`run`] with a profiler that provides the buffers.
fn run_with(
    py: Python<'_>,
    executable: &Executable,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
    given_up: &Donated<'_>,
    hooks: Option<&mut (dyn ckad_run::AllocationHooks + Send)>,
) -> PyResult<Vec<Output>> {
    // A line is only looked up when something fails; until then a step is known by its tape position.
    let position = |node: NodeId| executable.positions[node.index()] + 1;
    let inputs = values.iter().zip(&executable.compiled.program.inputs).map(|(value, spec)| match value {
        Value::Scalar(_) => InputArray::from_bytes(&value.bytes()[..spec.dtype.size()]),
        Value::Array(array) => InputArray::from_bytes(array.bytes()),
    });
    let inputs = tables::list("run", inputs).map_err(raise)?;
    // A derived graph's tables go on behind the recorded values; the program carries those itself.
    let program = &executable.compiled.program;
    let bindings = Bindings {
        inputs: &inputs,
        scalars: &tables.scalars[..program.scalars_added.0],
        starts: &tables.starts[..program.starts_added.0],
        constants: tables.constants,
        given_up: given_up.memory,
    };
    let mut options =
        RunOptions { line: Some(&position), overwritten: Some(given_up.overwritten), ..RunOptions::default() };
    if let Some(hooks) = hooks {
        options.hooks = Some(hooks);
    }
    let mut signal = None;
    let asks = is_main_thread(py)?;
    let outputs = py.detach(|| {
        if !asks {
            return ckad_run::run(program, &bindings, options);
        }
        ckad_run::run_interruptible(program, &bindings, options, || {
            Python::attach(|py| py.check_signals()).map_err(|raised| {
                signal = Some(raised);
                Error::interrupted("run")
            })
        })
    });
    if let Some(raised) = signal {
        return Err(raised);
    }
    let outputs = outputs.map_err(|error| located(py, tables.graph, &error, lines))?;
    tables::list("run", outputs.into_iter().map(Output::new)).map_err(raise)
}

/// The error with the line of the operation at fault: a step's line is its tape position plus one.
fn located(py: Python<'_>, graph: &Graph, error: &Error, lines: &Arc<Lines>) -> PyErr {
    let place = match error.line.checked_sub(1) {
        Some(position) if error.within.is_empty() => line_at(py, graph, position, lines),
        Some(position) => line_within(py, graph, position, &error.within, lines),
        None => refused_at(py, graph, error, lines),
    };
    to_python(error, &place)
}

/// The line of the operation that was recorded at a tape position; "" where there is none.
pub fn line_at(py: Python<'_>, graph: &Graph, position: u32, lines: &Arc<Lines>) -> String {
    let there = graph.ids().map(|id| graph.attributes(id)).find(|attributes| attributes.position == position);
    there.map_or_else(String::new, |attributes| lines.text(py, attributes.line))
}

/// The line of the operation at these positions in the bodies of a loop, the outermost first.
fn line_within(py: Python<'_>, graph: &Graph, position: u32, within: &[u32], lines: &Arc<Lines>) -> String {
    let Some((&next, inner)) = within.split_first() else { return line_at(py, graph, position, lines) };
    let mut calls = graph.ids().filter(|&id| graph.attributes(id).position == position).filter_map(|id| graph.call(id));
    let found = calls.find_map(|call| {
        let bodies = call.bodies.iter().map(|body| line_within(py, body, next, inner, lines));
        bodies.into_iter().find(|line| !line.is_empty())
    });
    found.unwrap_or_else(|| line_at(py, graph, position, lines))
}

/// Runs a program, or hands it to whoever is planning or profiling on this thread. Its outputs take over what is
/// donated.
///
/// A call that runs at once while an enclosing trace records (none of its inputs is traced there) is part of the
/// enclosing call's work, as a forced run is.
pub fn measure_or_run(
    py: Python<'_>,
    executable: &Arc<Executable>,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
    around: Around,
    donated: &Donated<'_>,
) -> PyResult<Vec<Output>> {
    if !around.enclosed {
        let run = PlannedRun::of(executable, tables, around.held, 1);
        intercept(py, vec![run], tables, lines)?;
        leave_idle_beside(executable, tables, executable.limit, around.held);
        return profile_or_run(py, executable, values, tables, lines, donated);
    }
    run_inside(py, executable, values, tables, lines, around.held, donated)
}

/// Frees memory that earlier runs left idle where a limit leaves no room for it beside the run.
pub fn leave_idle_beside(executable: &Executable, tables: &Tables<'_>, limit: Option<usize>, held: usize) {
    if let Some(limit) = limit {
        let needed = executable.peak_bytes(tables).saturating_add(held);
        ckad_run::leave_idle(&executable.compiled.program, limit.saturating_sub(needed));
    }
}

/// Runs a program while a trace records, beside `held` bytes: as part of the work of the call around it.
pub fn run_inside(
    py: Python<'_>,
    executable: &Arc<Executable>,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
    held: usize,
    donated: &Donated<'_>,
) -> PyResult<Vec<Output>> {
    note_forced(held + executable.peak_bytes(tables), executable);
    let limit = open_tapes().last().and_then(|tape| tape.limit);
    leave_idle_beside(executable, tables, limit, held);
    let mut outputs = profile_or_run(py, executable, values, tables, lines, donated)?;
    outputs.iter_mut().for_each(Output::count);
    Ok(outputs)
}

/// Runs a program, with buffers from whoever is profiling on this thread.
fn profile_or_run(
    py: Python<'_>,
    executable: &Arc<Executable>,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Lines>,
    donated: &Donated<'_>,
) -> PyResult<Vec<Output>> {
    note(py, executable, values, tables, lines)?;
    match crate::profile::current(py) {
        Some(profiler) => crate::profile::run(py, &profiler, executable, tables, lines, |hooks| {
            run_with(py, executable, values, tables, lines, donated, Some(hooks))
        }),
        None => run_with(py, executable, values, tables, lines, donated, None),
    }
}
