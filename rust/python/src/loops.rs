//! Loops and branches as primitives: what `ckad.scan` and its relatives record on a tape.

use std::sync::Arc;

use ckad_graph::{Call, Custom, Error, NodeId, Result, tables};
use ckad_transform::{Closed, Outside};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::raise;
use crate::finish::{ResultSpec, traced};
use crate::layout::Layout;
use crate::tape::{Tape, TapeCell};
use crate::trace::{Recorded, Trace};
use crate::tracer::Tracer;
use crate::watching::is_watching;

/// A value of an enclosing trace that a body reads, or a value of its own.
enum Source {
    Outer(Arc<TapeCell>, NodeId),
    Own(Outside),
}

/// The body of a loop or branch, recorded and closed.
#[pyclass(frozen, module = "ckad._core")]
pub struct Body {
    closed: Closed,
    consts: Vec<Source>,
}

impl Body {
    pub fn new(recorded: &Recorded, own: usize) -> PyResult<Body> {
        let close = if is_watching() { Closed::keeping_zeros } else { Closed::of };
        let closed = close(&recorded.graph, own).map_err(raise)?;
        let source = |outside: &Outside| match outside {
            Outside::Input(index) => {
                let capture = recorded.captures.get(&(*index as u32));
                let capture = capture.ok_or_else(|| Error::internal("loop", "an input stands for nothing"))?;
                Ok(Source::Outer(Arc::clone(&capture.tape), capture.node))
            }
            own => Ok(Source::Own(own.clone())),
        };
        let consts = tables::tried("loop", closed.consts.iter().map(source)).map_err(raise)?;
        Ok(Body { closed, consts })
    }

    /// What it reads from outside, as nodes of a tape.
    fn nodes(&self, py: Python<'_>, cell: &TapeCell, tape: &mut Tape) -> Result<Vec<NodeId>> {
        let mut nodes = tables::room("loop", self.consts.len())?;
        for source in &self.consts {
            nodes.push(match source {
                Source::Outer(outer, node) if outer.id == cell.id => *node,
                Source::Outer(outer, node) => tape.capture(py, outer, *node)?,
                Source::Own(Outside::Scalar(dtype, bits)) => tape.builder.scalar(*dtype, *bits)?,
                Source::Own(Outside::Constant(dtype, shape, constant)) => {
                    let shape = tape.builder.intern(shape)?;
                    let attributes = tape.builder.attributes();
                    tape.builder.graph_mut().push_constant(*dtype, shape, Arc::clone(constant), attributes)?
                }
                Source::Own(Outside::Input(_)) => return Err(Error::internal("loop", "an input of the body")),
            });
        }
        Ok(nodes)
    }
}

/// Values of a trace in C order.
fn given(py: Python<'_>, objects: &Bound<'_, PyList>) -> PyResult<Vec<NodeId>> {
    objects.iter().map(|object| object.cast::<Tracer>()?.get().logical_node(py)).collect()
}

/// Records a call on the trace; its first parts, arrays where `are_arrays` says so. Operands: those that `first` names,
/// what the bodies read from outside, and `rest`.
fn record(
    py: Python<'_>,
    trace: &Trace,
    call: Call,
    bodies: &[&Body],
    (first, rest): (Vec<NodeId>, Vec<NodeId>),
    are_arrays: &[bool],
) -> PyResult<Vec<Py<PyAny>>> {
    let call = Arc::new(call);
    let parts = trace.tape.record(py, |tape| {
        let mut operands = first;
        for body in bodies {
            let nodes = body.nodes(py, &trace.tape, tape)?;
            tables::extend("loop", &mut operands, nodes)?;
        }
        tables::extend("loop", &mut operands, rest)?;
        let node = tape.builder.call(&call, &operands)?;
        tables::tried("loop", (0..are_arrays.len() as u32).map(|part| tape.builder.part(node, part)))
    })?;
    let parts = parts.into_iter().zip(are_arrays).map(|(node, &is_array)| {
        let (dtype, shape) = trace.tape.read(py, |tape| {
            let graph = tape.builder.graph();
            (graph.dtype(node), graph.shape(node).to_vec())
        })?;
        let spec = ResultSpec { dtype, layout: Layout::contiguous(&shape), is_array };
        traced(py, &trace.tape, node, &spec)?.into_object(py)
    });
    parts.collect()
}

/// The loop of a body, whose arguments are the index, the carries and the slices: its last carries, and what it
/// stacked.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the parts of a loop")]
pub fn scan(
    py: Python<'_>,
    trace: &Trace,
    body: &Body,
    carries: &Bound<'_, PyList>,
    xs: &Bound<'_, PyList>,
    trips: u32,
    reverse: bool,
    mut are_arrays: Vec<bool>,
) -> PyResult<Vec<Py<PyAny>>> {
    let call = body.closed.scan(trips, reverse, carries.len()).map_err(raise)?;
    are_arrays.resize(body.closed.outputs(), true);
    let rest = [given(py, carries)?, given(py, xs)?].concat();
    record(py, trace, call, &[body], (Vec::new(), rest), &are_arrays)
}

/// The loop of a body, whose arguments are an index that it does not read and the carries, while the test of the
/// carries holds: its last carries, and the number of iterations.
#[pyfunction]
pub fn while_loop(
    py: Python<'_>,
    trace: &Trace,
    test: &Body,
    body: &Body,
    carries: &Bound<'_, PyList>,
    mut are_arrays: Vec<bool>,
) -> PyResult<Vec<Py<PyAny>>> {
    let call = body.closed.repeated(&test.closed).map_err(raise)?;
    are_arrays.push(false);
    record(py, trace, call, &[test, body], (Vec::new(), given(py, carries)?), &are_arrays)
}

/// The results of a function whose derivative is what the body says: a function of tangents of the arguments
/// (`forward`) or of cotangents of the results. Results and arguments are values of the trace, of floats; the body says
/// nothing of the `silent` ones.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the parts of a function with a rule")]
pub fn custom(
    py: Python<'_>,
    trace: &Trace,
    body: &Body,
    results: &Bound<'_, PyList>,
    arguments: &Bound<'_, PyList>,
    silent: &Bound<'_, PyList>,
    forward: bool,
    are_arrays: Vec<bool>,
) -> PyResult<Vec<Py<PyAny>>> {
    let count = |list: &Bound<'_, PyList>| list.len() as u32;
    let kind = Custom { forward, results: count(results), arguments: count(arguments), silent: count(silent) };
    let call = body.closed.custom(kind).map_err(raise)?;
    let first = [given(py, results)?, given(py, arguments)?, given(py, silent)?].concat();
    record(py, trace, call, &[body], (first, Vec::new()), &are_arrays)
}

/// The results of the one body or the other, as the choice says.
#[pyfunction]
pub fn cond(
    py: Python<'_>,
    trace: &Trace,
    choice: &Bound<'_, Tracer>,
    bodies: (PyRef<'_, Body>, PyRef<'_, Body>),
    operands: &Bound<'_, PyList>,
    are_arrays: Vec<bool>,
) -> PyResult<Vec<Py<PyAny>>> {
    let (if_false, if_true) = (&*bodies.0, &*bodies.1);
    let call = if_false.closed.or(&if_true.closed).map_err(raise)?;
    let first = vec![choice.get().logical_node(py)?];
    record(py, trace, call, &[if_false, if_true], (first, given(py, operands)?), &are_arrays)
}
