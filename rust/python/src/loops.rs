//! Loops as primitives: what `ckad.scan` records on a tape.

use std::sync::Arc;

use ckad_graph::{Call, CallKind, Error, tables};
use ckad_transform::{Closed, Outside, closed_scan};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::raise;
use crate::finish::{ResultSpec, traced};
use crate::layout::Layout;
use crate::tape::TapeCell;
use crate::trace::{Recorded, Trace};
use crate::tracer::Tracer;

/// A value from outside that a body reads.
enum Source {
    /// A value of an enclosing trace.
    Outer(Arc<TapeCell>, ckad_graph::NodeId),
    Own(Outside),
}

/// The body of a loop, recorded and closed.
#[pyclass(frozen, module = "ckad._core")]
pub struct Body {
    call: Arc<Call>,
    consts: Vec<Source>,
}

impl Body {
    pub fn scan(
        _py: Python<'_>,
        recorded: Recorded,
        trips: u32,
        reverse: bool,
        carries: usize,
        xs: usize,
    ) -> PyResult<Body> {
        let Closed { call, consts } = closed_scan(&recorded.graph, trips, reverse, carries, xs).map_err(raise)?;
        let source = |outside| match outside {
            Outside::Input(index) => {
                let capture = recorded.captures.get(&(index as u32));
                let capture = capture.ok_or_else(|| Error::internal("scan", "an input stands for nothing"))?;
                Ok(Source::Outer(Arc::clone(&capture.tape), capture.node))
            }
            own => Ok(Source::Own(own)),
        };
        let consts = tables::tried("scan", consts.into_iter().map(source)).map_err(raise)?;
        Ok(Body { call: Arc::new(call), consts })
    }
}

/// Records a loop on the trace: `carries` and `xs` are values of it. Its last carries, arrays where `are_arrays` says
/// so, and what it stacked.
#[pyfunction]
pub fn scan(
    py: Python<'_>,
    trace: &Trace,
    body: &Body,
    carries: &Bound<'_, PyList>,
    xs: &Bound<'_, PyList>,
    are_arrays: Vec<bool>,
) -> PyResult<Vec<Py<PyAny>>> {
    let mut given = Vec::new();
    for object in carries.iter().chain(xs) {
        given.push(object.cast::<Tracer>()?.get().logical_node(py)?);
    }
    let CallKind::Scan(scan) = body.call.kind else { return Err(raise(Error::internal("scan", "no scan"))) };
    let parts = trace.tape.record(py, |tape| {
        let mut operands = tables::room("scan", body.consts.len() + given.len())?;
        for source in &body.consts {
            operands.push(match source {
                Source::Outer(outer, node) if outer.id == trace.tape.id => *node,
                Source::Outer(outer, node) => tape.capture(py, outer, *node)?,
                Source::Own(Outside::Scalar(dtype, bits)) => tape.builder.scalar(*dtype, *bits)?,
                Source::Own(Outside::Constant(dtype, shape, constant)) => {
                    let shape = tape.builder.intern(shape)?;
                    let attributes = tape.builder.attributes();
                    tape.builder.graph_mut().push_constant(*dtype, shape, Arc::clone(constant), attributes)?
                }
                Source::Own(Outside::Input(_)) => return Err(Error::internal("scan", "an input of the body")),
            });
        }
        operands.extend_from_slice(&given);
        let call = tape.builder.call(&body.call, &operands)?;
        let parts = tables::tried("scan", (0..scan.carries + scan.ys).map(|part| tape.builder.part(call, part)))?;
        Ok(parts)
    })?;
    parts
        .into_iter()
        .enumerate()
        .map(|(index, node)| {
            let (dtype, shape) = trace.tape.read(py, |tape| {
                let graph = tape.builder.graph();
                (graph.dtype(node), graph.shape(node).to_vec())
            })?;
            let is_array = are_arrays.get(index).copied().unwrap_or(true);
            let spec = ResultSpec { dtype, layout: Layout::contiguous(&shape), is_array };
            traced(py, &trace.tape, node, &spec)?.into_object(py)
        })
        .collect()
}
