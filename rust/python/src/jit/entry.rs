//! One recording of a jitted function: runs without Python, or is spliced into a trace around the call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ckad_graph::{Error, Graph, NodeId};
use numpy::PyUntypedArray;
use pyo3::PyTraverseError;
use pyo3::PyVisit;
use pyo3::prelude::*;

use super::call::{Call, Form, LeafPattern, LeafValue, Pattern, unflatten};
use super::captured::Watches;
use super::donation::Donation;
use crate::alive::{self, Alive};
use crate::ask::Ask;
use crate::built::{Executable, Tables, evaluated, is_looked_at};
use crate::capture::ReadArrays;
use crate::convert::{array_operand, is_array};
use crate::errors::raise;
use crate::execute::measure_or_run;
use crate::finish::{Binding, ResultSpec, innermost, splice_into, to_python, traced};
use crate::kind::{Kind, settled};
use crate::limited::{Around, fitting, held};
use crate::lines::Lines;
use crate::tape::TapeCell;
use crate::trace::{Recorded, inner_limit, open_tapes};
use crate::tracer::Tracer;
use crate::value::Value;

/// A leaf of what the function returned.
pub enum Returned {
    /// An output of the graph. `weak`: Python has a number of its own there.
    Output { index: usize, weak: bool },
    /// Anything that the arguments have no part in.
    Constant(Py<PyAny>),
}

/// What the function returned: its leaves, and how they are put together.
pub struct Returns {
    pub leaves: Vec<Returned>,
    /// None: the one leaf itself.
    pub structure: Option<Py<PyAny>>,
}

/// A recording.
pub struct Entry {
    pattern: Pattern,
    watches: Watches,
    returns: Returns,
    graph: Graph,
    specs: Vec<ResultSpec>,
    /// Values of traces around the recording that it reads, as inputs behind the arguments.
    captures: Vec<(Arc<TapeCell>, NodeId)>,
    /// Arrays that the graph reads where they lie.
    in_place: ReadArrays,
    lines: Arc<Lines>,
    /// The most bytes that a run may allocate.
    limit: Option<usize>,
    /// Results of runs while it was recorded: it may read them.
    left: Option<Arc<Alive>>,
    /// With what its limit was planned beside. None until it is run, and after the cache of programs was emptied.
    executable: Mutex<Option<(usize, Arc<Executable>)>>,
}

impl Entry {
    pub fn new(
        py: Python<'_>,
        call: &Call,
        watches: Watches,
        returns: Returns,
        recorded: Recorded,
        arrays: ReadArrays,
    ) -> PyResult<Entry> {
        let specs = recorded.output_specs()?;
        let Recorded { graph, captures: mut found, lines, limit, enclosed, .. } = recorded;
        let graph = settled(graph).map_err(raise)?;
        let arguments = call.traced().count();
        let mut captures = Vec::new();
        for index in arguments..graph.inputs.len() {
            let capture = found.remove(&(index as u32));
            let capture =
                capture.ok_or_else(|| raise(Error::internal("jit", format!("input {index} has no value"))))?;
            captures.push((capture.tape, capture.node));
        }
        let in_place = arrays.into_iter().filter(|(_, constant)| constant.owned_bytes() == 0).collect();
        Ok(Entry {
            pattern: Pattern::of(py, call)?,
            watches,
            returns,
            graph,
            specs,
            captures,
            in_place,
            lines,
            limit,
            left: alive::current().filter(|_| !enclosed),
            executable: Mutex::new(None),
        })
    }

    /// Were its arguments such?
    pub fn is_for(&self, py: Python<'_>, call: &Call) -> PyResult<bool> {
        self.pattern.matches(py, call)
    }

    /// Is what it took from outside as it was?
    pub fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.captures.iter().all(|(tape, _)| !tape.is_closed()) && self.watches.hold(py)?)
    }

    /// May it serve another call? Not where a value of a trace around it was found in a place that is not watched.
    pub fn can_be_kept(&self, py: Python<'_>) -> PyResult<bool> {
        for (tape, node) in &self.captures {
            if !tape.read(py, |open| self.watches.covers(tape, &open.builder.graph(), *node))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The traces around it whose values it reads.
    pub fn tapes(&self) -> impl Iterator<Item = &Arc<TapeCell>> {
        self.captures.iter().map(|(tape, _)| tape)
    }

    /// The results for the arguments of a call that it is for.
    pub fn results<'py>(&self, py: Python<'py>, call: &Call) -> PyResult<Bound<'py, PyAny>> {
        // The recording's own trace has ended, so that any other one is around the call.
        if let Some(outer) = open_tapes().first().filter(|_| self.limit.is_some()) {
            return Err(inner_limit(py, "jit", outer));
        }
        let outer = call.traced().filter_map(|(_, value)| match value {
            LeafValue::Outer(tape, node) => Some(Binding::Outer(Arc::clone(tape), *node)),
            _ => None,
        });
        let captured = self.captures.iter().map(|(tape, node)| Binding::Outer(Arc::clone(tape), *node));
        let around: Vec<Binding> = outer.chain(captured).collect();
        let outputs = match innermost(&around) {
            Some(target) => self.spliced(py, call, &target)?,
            None => self.run(py, call)?,
        };
        self.returned(py, &outputs)
    }

    fn run(&self, py: Python<'_>, call: &Call) -> PyResult<Vec<Py<PyAny>>> {
        let values: Vec<Value> = call
            .traced()
            .filter_map(|(_, value)| match value {
                LeafValue::Scalar(bits) => Some(Value::Scalar(*bits)),
                LeafValue::Array(constant, _) => Some(Value::Array(Arc::clone(constant))),
                LeafValue::Outer(..) => None,
            })
            .collect();
        let tables = Tables::of(&self.graph);
        let enclosed = !open_tapes().is_empty();
        let copied: usize = values.iter().map(Value::owned_bytes).sum();
        let before = if enclosed { held(py)? } else { self.left.as_ref().map_or(0, |left| left.bytes()) };
        let around = Around { enclosed, held: before + copied };
        let executable = self.executable(py, call, around)?;
        let captured =
            self.in_place.iter().filter_map(|(array, _)| array.bind(py).cast::<PyUntypedArray>().ok().cloned());
        let donation = Donation::new(py, call, &captured.collect::<Vec<_>>())?;
        let outputs = measure_or_run(py, &executable, &values, &tables, &self.lines, around, &donation.memory());
        let results = outputs.and_then(|outputs| {
            let taken = outputs.iter().map(|output| match output.0.taken_over() {
                Some(input) => donation.owner(input, call),
                None => Ok(None),
            });
            let owners = taken.collect::<PyResult<Vec<_>>>()?;
            to_python(py, outputs, &self.specs, &owners)
        });
        donation.end(results.is_ok());
        results
    }

    fn executable(&self, py: Python<'_>, call: &Call, around: Around) -> PyResult<Arc<Executable>> {
        let kind = || match call.donated.contains(&true) {
            true => Kind::Donating(call.donated_inputs()),
            false => Kind::Evaluate,
        };
        let within = |ask| evaluated(py, &self.graph, &kind(), ask, &self.lines);
        let own = Ask::beside(around.held, self.limit, None);
        let kept = self.program().as_ref().filter(|(held, _)| *held == own.held).map(|(_, built)| Arc::clone(built));
        let built = match kept {
            _ if is_looked_at() => within(own)?,
            Some(built) => built,
            None => {
                let built = within(own)?;
                *self.program() = Some((own.held, Arc::clone(&built)));
                built
            }
        };
        // A trace around it may have a limit: what runs for it keeps to that one.
        let tables = Tables::of(&self.graph);
        fitting(py, around.held, built, |found| found.peak_bytes(&tables), within)
    }

    fn program(&self) -> MutexGuard<'_, Option<(usize, Arc<Executable>)>> {
        self.executable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the program. The recording stays.
    pub fn forget_program(&self) {
        let program = self.program().take();
        drop(program);
    }

    /// Bytes of the graph and the program.
    pub fn own_bytes(&self) -> usize {
        self.graph.own_bytes() + self.program().as_ref().map_or(0, |(_, program)| program.own_bytes())
    }

    /// The outputs as values of a trace around the call.
    fn spliced(&self, py: Python<'_>, call: &Call, target: &Arc<TapeCell>) -> PyResult<Vec<Py<PyAny>>> {
        let mut bindings = Vec::with_capacity(self.graph.inputs.len());
        for (_, value) in call.traced() {
            bindings.push(match value {
                LeafValue::Scalar(bits) => Binding::Value(Value::Scalar(*bits)),
                LeafValue::Array(_, object) => {
                    Binding::Outer(Arc::clone(target), array_operand(py, target, object.bind(py))?.node)
                }
                LeafValue::Outer(tape, node) => Binding::Outer(Arc::clone(tape), *node),
            });
        }
        bindings.extend(self.captures.iter().map(|(tape, node)| Binding::Outer(Arc::clone(tape), *node)));
        for (array, constant) in &self.in_place {
            if let Ok(array) = array.bind(py).cast::<PyUntypedArray>() {
                target.guard(array, constant)?;
            }
        }
        let nodes = {
            let line = |line| target.line_from(py, &self.lines, line);
            splice_into(py, target, &self.graph, &bindings, None, &line)?
        };
        let results = nodes.iter().zip(&self.specs);
        results.map(|(&node, spec)| traced(py, target, node, spec)?.into_object(py)).collect()
    }

    fn returned<'py>(&self, py: Python<'py>, outputs: &[Py<PyAny>]) -> PyResult<Bound<'py, PyAny>> {
        let leaf = |leaf: &Returned| match leaf {
            // Results are fresh: one array in all of them would show what a caller does with it.
            Returned::Constant(value) if is_array(value.bind(py)) => value.bind(py).call_method0("copy"),
            Returned::Constant(value) => Ok(value.bind(py).clone()),
            Returned::Output { index, weak: false } => Ok(outputs[*index].bind(py).clone()),
            Returned::Output { index, weak: true } => as_python_number(outputs[*index].bind(py)),
        };
        let mut leaves = self.returns.leaves.iter().map(leaf).collect::<PyResult<Vec<_>>>()?;
        match &self.returns.structure {
            Some(structure) => unflatten(py, structure, leaves),
            None => leaves.pop().ok_or_else(|| raise(Error::internal("jit", "the result is missing"))),
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.watches.traverse(visit)?;
        for leaf in &self.pattern.leaves {
            if let LeafPattern::Held(object, _) = leaf {
                visit.call(object)?;
            }
        }
        for form in &self.pattern.forms {
            match form {
                Form::Leaf => {}
                Form::Tree(object) | Form::Static(object) => visit.call(object)?,
            }
        }
        for leaf in &self.returns.leaves {
            if let Returned::Constant(object) = leaf {
                visit.call(object)?;
            }
        }
        self.in_place.iter().try_for_each(|(array, _)| visit.call(array))
    }
}

/// What stands for a Python number where the function computed with nothing else.
fn as_python_number<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match value.cast::<Tracer>() {
        Ok(tracer) => Ok(tracer.get().alias(value.py())?.weak_if(true).into_object(value.py())?.into_bound(value.py())),
        Err(_) => value.call_method0("item"),
    }
}
