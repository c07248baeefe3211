//! What `linearize` and `vjp` return: a linear program with the residuals that it reads.

use std::sync::{Arc, OnceLock};

use ckad_graph::{CheckpointPolicy, Error, Graph, tables};
use ckad_transform::Side;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::convert::value_in_layout;
use crate::errors::raise;
use crate::execute::{Donated, Executable, Kind, Tables, compile, evaluated, flops_of, measure_or_run};
use crate::finish::{
    Binding, ResultSpec, bind_like, float_zeros, innermost, same_line, splice_into, to_python, traced, values_of,
};
use crate::limited::fitting;
use crate::trace::open_tapes;

/// A linear function of float arrays. It owns its residuals: what happens to the arguments later changes nothing.
#[pyclass(frozen, module = "ckad._core")]
pub struct LinearMap {
    /// Inputs: the residuals, then one per entry of `takes` that is a float.
    graph: Graph,
    executable: OnceLock<Arc<Executable>>,
    /// All outputs of the known part; the residuals are the last ones.
    known: Vec<Binding>,
    residuals: usize,
    sides: Vec<Side>,
    takes: Vec<Operand>,
    gives: Vec<Operand>,
    policy: Option<CheckpointPolicy>,
    lines: Arc<crate::lines::Lines>,
}

/// What an operand or result of a linear function stands beside.
#[derive(Clone)]
pub enum Operand {
    /// A float array: how it is handed to Python, and the shape of its node.
    Float(ResultSpec, Vec<i64>),
    /// An integer array of this shape, whose tangent is nothing.
    Integer(Vec<i64>),
}

/// The linear part of a partition, and the values of its known part.
pub struct Parts<'a> {
    pub graph: Graph,
    pub known: Vec<Binding>,
    pub residuals: usize,
    pub sides: &'a [Side],
    pub executable: Option<Arc<Executable>>,
}

impl LinearMap {
    pub fn new(
        parts: Parts<'_>,
        takes: Vec<Operand>,
        gives: Vec<Operand>,
        policy: Option<CheckpointPolicy>,
        lines: &Arc<crate::lines::Lines>,
    ) -> LinearMap {
        let executable = OnceLock::new();
        if let Some(built) = parts.executable {
            let _ = executable.set(built);
        }
        LinearMap {
            graph: parts.graph,
            executable,
            known: parts.known,
            residuals: parts.residuals,
            sides: parts.sides.to_vec(),
            takes,
            gives,
            policy,
            lines: Arc::clone(lines),
        }
    }

    fn executable(&self, py: Python<'_>) -> PyResult<&Arc<Executable>> {
        if self.executable.get().is_none() {
            let built = compile(py, &self.graph, self.policy.unwrap_or(CheckpointPolicy::Auto), &self.lines)?;
            let _ = self.executable.set(Arc::new(built));
        }
        self.executable.get().ok_or_else(|| raise(Error::internal("linear", "no executable")))
    }

    /// The result of the linear function that belongs to `side`.
    fn pick<T: Clone>(&self, side: Side, unknown: &[T], known: impl FnOnce(&Binding) -> PyResult<T>) -> PyResult<T> {
        match side {
            Side::Unknown(index) => Ok(unknown[index].clone()),
            Side::Known(index) => known(&self.known[index]),
        }
    }
}

#[pymethods]
impl LinearMap {
    /// The linear function at `operands`, one per operand; operands that stand beside integers are ignored.
    fn __call__(&self, py: Python<'_>, operands: &Bound<'_, PyList>) -> PyResult<Vec<Py<PyAny>>> {
        let floats = PyList::empty(py);
        let (mut specs, mut shapes) = (Vec::new(), Vec::new());
        for (object, take) in operands.iter().zip(&self.takes) {
            if let Operand::Float(spec, shape) = take {
                floats.append(object)?;
                specs.push(spec.clone());
                shapes.push(shape.clone());
            }
        }
        let residuals = self.known[self.known.len() - self.residuals..].iter().cloned();
        let mut bindings = tables::list("linear", residuals).map_err(raise)?;
        let given = bind_like(py, &floats, &specs, |index| shapes[index].clone())?;
        tables::extend("linear", &mut bindings, given).map_err(raise)?;
        let result_specs: Vec<&ResultSpec> = self
            .gives
            .iter()
            .filter_map(|give| match give {
                Operand::Float(spec, _) => Some(spec),
                Operand::Integer(_) => None,
            })
            .collect();
        // A result may be known and still belong to a trace, where the function does not depend on its argument.
        let picked = self.sides.iter().filter_map(|&side| match side {
            Side::Known(index) => Some(self.known[index].clone()),
            Side::Unknown(_) => None,
        });
        let all = tables::list("linear", bindings.iter().cloned().chain(picked)).map_err(raise)?;
        let results: Vec<Py<PyAny>> = if let Some(target) = innermost(&all) {
            let nodes = splice_into(py, &target, &self.graph, &bindings, self.policy, &same_line)?;
            let mut results = Vec::new();
            for (&side, spec) in self.sides.iter().zip(&result_specs) {
                let node = self.pick(side, &nodes, |binding| match binding {
                    Binding::Outer(tape, node) if tape.id == target.id => Ok(*node),
                    Binding::Outer(tape, node) => target.record(py, |open| open.capture(py, tape, *node)),
                    Binding::Value(value) => crate::convert::value_node(py, &target, value, spec),
                })?;
                results.push(traced(py, &target, node, spec)?.into_object(py)?);
            }
            results
        } else {
            let values = values_of(bindings)?;
            let read = Tables::of(&self.graph);
            let enclosed = !open_tapes().is_empty();
            let within = |ask| evaluated(py, &self.graph, &Kind::Evaluate, ask, &self.lines);
            let executable = fitting(py, Arc::clone(self.executable(py)?), |found| found.peak_bytes(), within)?;
            let outputs = measure_or_run(py, &executable, &values, &read, &self.lines, enclosed, &Donated::NONE)?;
            let unknown_specs = self.unknown_specs(&result_specs);
            let unknown = to_python(py, outputs, &unknown_specs, &[])?;
            let mut results = Vec::new();
            for (&side, spec) in self.sides.iter().zip(&result_specs) {
                results.push(match side {
                    Side::Unknown(index) => unknown[index].clone_ref(py),
                    Side::Known(index) => match &self.known[index] {
                        Binding::Value(value) => {
                            spec.finished(py, value_in_layout(py, value, spec.dtype, &spec.layout)?)?
                        }
                        Binding::Outer(..) => {
                            return Err(raise(Error::internal("linear", "a traced value reached a run")));
                        }
                    },
                });
            }
            results
        };
        let mut results = results.into_iter();
        self.gives
            .iter()
            .map(|give| match give {
                Operand::Float(..) => {
                    results.next().ok_or_else(|| raise(Error::internal("linear", "a result is missing")))
                }
                Operand::Integer(shape) => float_zeros(py, shape),
            })
            .collect()
    }

    /// Floating point operations of one application.
    #[getter]
    fn flops(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(flops_of(self.executable(py)?))
    }
}

impl LinearMap {
    /// Specs of the unknown graph's outputs, in its own order.
    fn unknown_specs(&self, results: &[&ResultSpec]) -> Vec<ResultSpec> {
        let mut found: Vec<(usize, ResultSpec)> = self
            .sides
            .iter()
            .zip(results)
            .filter_map(|(side, spec)| match side {
                Side::Unknown(index) => Some((*index, (*spec).clone())),
                Side::Known(_) => None,
            })
            .collect();
        found.sort_by_key(|(index, _)| *index);
        found.dedup_by_key(|(index, _)| *index);
        found.into_iter().map(|(_, spec)| spec).collect()
    }
}
