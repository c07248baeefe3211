//! What `linearize` and `vjp` return: a linear program with the residuals that it reads.

use std::sync::{Arc, OnceLock};

use ckad_graph::{CheckpointPolicy, Error, Graph, Result, tables};
use ckad_run::Filled;
use ckad_transform::Side;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::ask::Ask;
use crate::built::{Executable, Tables, compile, evaluated, flops_of};
use crate::convert::{counted_room, value_in_layout};
use crate::errors::raise;
use crate::execute::{Donated, measure_or_run};
use crate::finish::{
    Binding, ResultSpec, bind_like, copied_bytes, float_zeros, innermost, owned_values, same_line, splice_into,
    to_python, traced, values_of,
};
use crate::kind::Kind;
use crate::limited::{Around, fitting, held};
use crate::trace::open_tapes;
use crate::value::{Snapshot, Value};
use crate::values::parse_dtype;

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
    applied: When,
}

/// What an operand or result of a linear function stands beside.
#[derive(Clone)]
pub enum Operand {
    /// A float array: how it is handed to Python, and the shape of its node.
    Float(ResultSpec, Vec<i64>),
    /// An integer array of this shape, whose tangent is nothing.
    Integer(Vec<i64>),
}

impl Operand {
    /// Bytes of such an array.
    pub fn bytes(&self) -> usize {
        match self {
            Operand::Float(spec, _) => spec.layout.elements() as usize * spec.dtype.size(),
            Operand::Integer(_) => 0,
        }
    }
}

/// When it is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After the call that made it.
    Later,
    /// In the outermost call, which was planned with these runs beside so many bytes.
    Here { held: usize },
    /// In a call that runs at once inside of a trace.
    HereInside,
}

/// The linear part of a partition, and the values of its known part.
pub struct Parts<'a> {
    pub graph: Graph,
    pub known: Vec<Binding>,
    pub residuals: usize,
    pub sides: &'a [Side],
    pub executable: Option<Arc<Executable>>,
    pub applied: When,
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
            applied: parts.applied,
        }
    }

    fn executable(&self, py: Python<'_>) -> PyResult<&Arc<Executable>> {
        if self.executable.get().is_none() {
            let built = compile(py, &self.graph, self.policy.unwrap_or(CheckpointPolicy::Auto), &self.lines)?;
            let _ = self.executable.set(Arc::new(built));
        }
        self.executable.get().ok_or_else(|| raise(Error::internal("linear", "no executable")))
    }

    /// What there is around an application to operands of which so many bytes were copied.
    fn around(&self, py: Python<'_>, copied: usize) -> PyResult<Around> {
        if let When::Here { held } = self.applied {
            return Ok(Around { enclosed: false, held });
        }
        let enclosed = !open_tapes().is_empty();
        let held = if enclosed { held(py)? } else { 0 };
        Ok(Around { enclosed, held: held + copied })
    }

    /// The program that keeps to the limit of the trace around, or to its own, beside what is held.
    fn fitted(&self, py: Python<'_>, around: Around) -> PyResult<Arc<Executable>> {
        let tables = Tables::of(&self.graph);
        let planned = Arc::clone(self.executable(py)?);
        if matches!(self.applied, When::Here { .. }) {
            return Ok(planned);
        }
        let needs = |found: &Arc<Executable>| found.peak_bytes(&tables);
        let within = |ask| evaluated(py, &self.graph, &Kind::Evaluate, ask, &self.lines);
        let by_policy = |ask| within(Ask { policy: self.policy, ..ask });
        match planned.limit.filter(|limit| !around.enclosed && around.held + needs(&planned) > *limit) {
            Some(limit) => within(Ask::beside(around.held, Some(limit), self.policy)),
            None => fitting(py, around.held, planned, needs, by_policy),
        }
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
        self.at(py, bind_like(py, &floats, &specs, |index| shapes[index].clone())?)
    }

    /// The linear function at a unit vector: that of the element at `position`, in C order, of the `leaf`-th operand.
    fn at_unit(&self, py: Python<'_>, leaf: usize, position: i64) -> PyResult<Vec<Py<PyAny>>> {
        let mut given = tables::room("linear", self.takes.len()).map_err(raise)?;
        for (index, take) in self.takes.iter().enumerate() {
            if let Operand::Float(spec, _) = take {
                let place = (index == leaf).then(|| spec.layout.offset_of(position));
                given.push(Binding::Value(unit(spec, place).map_err(raise)?));
            }
        }
        self.at(py, given)
    }

    /// Room for a part of the Jacobian, an array in C order.
    fn room<'py>(&self, py: Python<'py>, dtype: &Bound<'py, PyAny>, shape: Vec<i64>) -> PyResult<Bound<'py, PyAny>> {
        match self.applied {
            When::HereInside => counted_room(py, parse_dtype(dtype)?, &shape),
            _ => py.import("numpy")?.call_method1("empty", (shape, dtype)),
        }
    }

    /// Are its results values of a trace?
    #[getter]
    fn is_traced(&self) -> bool {
        innermost(&self.known).is_some()
    }

    /// Floating point operations of one application.
    #[getter]
    fn flops(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(flops_of(self.executable(py)?))
    }
}

/// Zeros in the memory order of an operand, but for a one at `place`.
fn unit(spec: &ResultSpec, place: Option<i64>) -> Result<Value> {
    let one = spec.dtype.bits_of_f64(1.0);
    if spec.layout.rank() == 0 {
        return Ok(Value::Scalar(if place.is_some() { one } else { spec.dtype.bits_of_f64(0.0) }));
    }
    let size = spec.dtype.size();
    let bytes = spec.layout.elements() as usize * size;
    let filled = match place {
        Some(place) => Filled::unit("linear", bytes, place as usize * size, &one.to_le_bytes()[..size])?,
        None => Filled::zeros("linear", bytes)?,
    };
    Ok(Value::Array(Arc::new(Snapshot(filled))))
}

impl LinearMap {
    /// The linear function at operands, one for each that is a float.
    fn at(&self, py: Python<'_>, given: Vec<Binding>) -> PyResult<Vec<Py<PyAny>>> {
        let residuals = self.known[self.known.len() - self.residuals..].iter().cloned();
        let mut bindings = tables::list("linear", residuals).map_err(raise)?;
        let (own, copied) = (bindings.len(), copied_bytes(&given));
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
            owned_values(&mut bindings[own..])?;
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
            let around = self.around(py, copied)?;
            let executable = self.fitted(py, around)?;
            let outputs = measure_or_run(py, &executable, &values, &read, &self.lines, around, &Donated::NONE)?;
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
