//! Values that Python asks for while recording: `if x > 0`, `int(n)`, printing.
//!
//! The pending part of the tape is cut out and goes through the same planner and executor as everything else. One
//! run evaluates all that live traced values reach, and keeps those values; so a loop that looks at every step
//! runs each step once, and holds a handful of values.
//!
//! While `ckad.jit` records, its arguments and what comes from around it have no values: what it records is run for
//! others.

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, Error, ErrorKind, NodeId, Op, Result, shape_text, tables};
use pyo3::prelude::*;

use crate::built::{Executable, Tables, evaluated};
use crate::convert::leaf_value;
use crate::errors::raise;
use crate::execute::{Donated, run_inside};
use crate::kind::Kind;
use crate::limited::{fitting, held};
use crate::tape::{Tape, TapeCell};
use crate::trace::{innermost_for_others, open_tapes};
use crate::value::Value;

/// The value of a node, computed now if it is not known yet.
pub fn force(py: Python<'_>, cell: &Arc<TapeCell>, node: NodeId) -> PyResult<Value> {
    let (wanted, missing) = {
        let mut tape = cell.open(py).map_err(raise)?;
        cell.settle(py, &mut tape);
        if cell.is_around(innermost_for_others()) {
            return leaf_value(&tape, node).ok_or_else(|| unknown(&tape, node));
        }
        let known = tape.values.get(&node).cloned().or_else(|| leaf_value(&tape, node));
        let plan = if known.is_some() { Vec::new() } else { pending(&tape, node).map_err(raise)? };
        let missing = missing_inputs(&tape, &plan).map_err(raise)?;
        drop(tape);
        if let Some(value) = known {
            return Ok(value);
        }
        (plan, missing)
    };
    // Values of enclosing traces that the cone reads are forced there.
    for (input, outer, outer_node) in missing {
        let value = force(py, &outer, outer_node)?;
        let mut tape = cell.open(py).map_err(raise)?;
        tables::room_for_keys("force", &mut tape.values, 1).map_err(raise)?;
        tape.values.insert(input, value);
    }
    if let Some(value) = cell.open(py).map_err(raise)?.values.get(&node) {
        return Ok(value.clone());
    }
    let (cone, values) = {
        let tape = cell.open(py).map_err(raise)?;
        let graph = tape.builder.graph();
        let is_unknown = |id| matches!(graph.op(id), Op::Input(_)) && !tape.values.contains_key(&id);
        let known = |id| tape.values.contains_key(&id) || (cell.jit_depth.is_some() && is_unknown(id));
        let cone = ckad_transform::cone(&graph, &wanted, known).map_err(raise)?;
        if cell.jit_depth.is_some() && cone.inputs.iter().any(|&input| is_unknown(input)) {
            return Err(unknown(&tape, node));
        }
        let value =
            |input| tape.values.get(input).cloned().ok_or_else(|| Error::internal("force", "an input has no value"));
        let values: Vec<Value> = tables::tried("force", cone.inputs.iter().map(value)).map_err(raise)?;
        (cone.graph, values)
    };
    let within = |ask| evaluated(py, &cone, &Kind::Evaluate, ask, &cell.lines);
    let tables = Tables::of(&cone);
    // What the cone reads of captured arrays is held by the trace, and stands among what its run takes.
    let held = held(py)?.saturating_sub(tables.owned_constants());
    let needs = |found: &Arc<Executable>| found.peak_bytes(&tables);
    let executable = fitting(py, held, within(CheckpointPolicy::None.into())?, needs, within)?;
    let outputs = run_inside(py, &executable, &values, &tables, &cell.lines, held, &Donated::NONE)?;
    let mut tape = cell.open(py).map_err(raise)?;
    let recorded = tape.builder.graph().len() as u32;
    tape.forced_until = recorded;
    tables::room_for_keys("force", &mut tape.values, wanted.len()).map_err(raise)?;
    for (&id, output) in wanted.iter().zip(outputs) {
        let scalar = tape.builder.graph().rank(id) == 0;
        let value = output.into_value(scalar);
        tape.values.insert(id, value);
    }
    let forced = tape.values.get(&node).cloned();
    let freed = tape.take_unheld();
    drop(tape);
    // Dropped without the lock: values may run Python code.
    drop(freed);
    forced.ok_or_else(|| raise(Error::internal("force", format!("%{} was not computed", node.0))))
}

/// The error for a value that `jit` does not know.
fn unknown(tape: &Tape, node: NodeId) -> PyErr {
    let graph = tape.builder.graph();
    let of_shape = match graph.shape(node) {
        [] => String::new(),
        shape => format!(" array of shape {}", shape_text(shape)),
    };
    let dtype = graph.dtype(node);
    let tapes = open_tapes();
    let body = tapes.iter().rev().find(|tape| tape.is_body || tape.is_rule);
    if let Some(rule) = body.filter(|tape| tape.is_rule) {
        let name = rule.transform.clone();
        let of = if name == "custom_jvp" { "tangents" } else { "cotangents" };
        let what = format!(
            "the value of a traced {dtype}{of_shape} is wanted in the rule of a ckad.{name}, which is recorded once: \
             there {of} have no values, nor has what ckad.jit or a loop records around it"
        );
        let hint = "np.where(condition, a, b) or ckad.cond in place of an if";
        return raise(Error::new(ErrorKind::Tracer, name, what).with_hint(hint));
    }
    if let Some(name) = body.map(|tape| tape.transform.clone()) {
        let what = format!(
            "the value of a traced {dtype}{of_shape} is wanted in a function that ckad.{name} records once: there it \
             stands for the values of all iterations"
        );
        let hint = "np.where(condition, a, b) or ckad.cond in place of an if, an ordinary array that it indexes as xs \
                    or in the carry; or a loop in Python, whose steps are recorded one by one";
        return raise(Error::new(ErrorKind::Tracer, name, what).with_hint(hint));
    }
    let what = format!(
        "the value of a traced {dtype}{of_shape} is wanted while ckad.jit records: there it stands for any value"
    );
    let hint = "np.where(condition, a, b) in place of an if; static_argnums= for an argument that Python itself needs \
                (a size, a flag, a number of steps); or call the function without ckad.jit, which records every call";
    raise(Error::new(ErrorKind::Tracer, "jit", what).with_hint(hint))
}

/// The node, and everything recorded since the last force that Python still holds.
fn pending(tape: &Tape, node: NodeId) -> Result<Vec<NodeId>> {
    if tape.jit_depth.is_some() {
        // Others may have none.
        return Ok(vec![node]);
    }
    let graph = tape.builder.graph();
    let others = (tape.forced_until..graph.len() as u32)
        .map(NodeId)
        .filter(|&id| id != node && tape.is_live(id) && !graph.op(id).is_leaf() && !tape.values.contains_key(&id));
    tables::list("force", std::iter::once(node).chain(others))
}

/// Inputs in the cone of `wanted` whose values are known only to an enclosing trace, or not yet.
fn missing_inputs(tape: &Tape, wanted: &[NodeId]) -> Result<Vec<(NodeId, Arc<TapeCell>, NodeId)>> {
    if wanted.is_empty() || tape.captures.is_empty() {
        return Ok(Vec::new());
    }
    let graph = tape.builder.graph();
    let missing = tape
        .captures
        .iter()
        .map(|(&index, capture)| (graph.inputs[index as usize], capture))
        .filter(|(input, _)| !tape.values.contains_key(input) && matches!(graph.op(*input), Op::Input(_)))
        .map(|(input, capture)| (input, Arc::clone(&capture.tape), capture.node));
    if tape.jit_depth.is_none() {
        return tables::list("force", missing);
    }
    // Others may have none.
    let known = |id| tape.values.contains_key(&id) || matches!(graph.op(id), Op::Input(_));
    let cone = ckad_transform::cone(&graph, wanted, known)?;
    tables::list("force", missing.filter(|(input, ..)| cone.inputs.contains(input)))
}
