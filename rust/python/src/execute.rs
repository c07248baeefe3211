//! Building, caching and running programs on behalf of a Python call.
//!
//! A recorded graph is looked up by its structure together with the transform and the policy. A hit skips transform,
//! plan and lower; a miss builds without the GIL. A run gets the values of this call: inputs, captured arrays,
//! scalars and slice starts.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use ckad_graph::{CheckpointPolicy, Constant, Error, Graph, HostArray, Result, ScalarBits};
use ckad_plan::Compiled;
use ckad_plan::program::Target;
use ckad_run::{Bindings, OutputBuffer, ProgramCache, RunOptions};
use ckad_transform::Side;
use pyo3::prelude::*;

use crate::boundary::{Length, enter};
use crate::errors::to_python;
use crate::lines::LineTable;
use crate::trace::Recorded;
use crate::value::Value;

/// What becomes of a recorded graph. The flags say which inputs are differentiated.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Evaluate,
    ValueAndGrad(Vec<bool>),
    Jvp(Vec<bool>),
    Linearize(Vec<bool>),
    Vjp(Vec<bool>),
}

/// What a cached program was built from, beside the graph.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    kind: Kind,
    policy: CheckpointPolicy,
}

/// A program with what a run of it needs to know.
pub struct Executable {
    pub compiled: Compiled,
    /// Tape position of each node: names the line of a step in whatever trace runs it.
    pub positions: Vec<u32>,
    length: Length,
}

/// What one recorded graph was built into.
pub enum Built {
    One(Arc<Executable>),
    /// A linearisation: the part that is known at the point, and the linear rest.
    Two { known: Arc<Executable>, unknown: Arc<Executable>, graph: Graph, sides: Vec<Side>, residuals: usize },
}

/// The values of a graph that are inputs of its program.
pub struct Tables<'a> {
    scalars: &'a [ScalarBits],
    starts: &'a [i64],
    constants: &'a [Constant],
}

impl<'a> Tables<'a> {
    pub fn of(graph: &'a Graph) -> Tables<'a> {
        Tables { scalars: &graph.scalars, starts: &graph.starts, constants: &graph.constants }
    }

    /// A copy of a derived graph with these values in front of those that rules added.
    pub fn applied_to(&self, derived: &Graph) -> Graph {
        let mut graph = derived.clone();
        graph.scalars[..self.scalars.len()].copy_from_slice(self.scalars);
        graph.starts[..self.starts.len()].copy_from_slice(self.starts);
        graph.constants = self.constants.to_vec();
        graph
    }
}

/// A result of a run.
pub struct Output(pub Arc<OutputBuffer>);

impl Output {
    /// The result as a value that traces can use.
    pub fn into_value(self, scalar: bool) -> Value {
        if scalar {
            let mut bits = [0u8; 8];
            let bytes = self.0.bytes();
            let length = bytes.len().min(8);
            bits[..length].copy_from_slice(&bytes[..length]);
            return Value::Scalar(u64::from_le_bytes(bits));
        }
        Value::Array(Arc::new(Shared(self.0)))
    }
}

/// A result that serves as a captured array.
#[derive(Debug)]
pub struct Shared(pub Arc<OutputBuffer>);

impl HostArray for Shared {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn owned_bytes(&self) -> usize {
        self.0.bytes().len()
    }
}

static CACHE: ProgramCache<Key, Built> = ProgramCache::new();

/// Floating point operations of one run.
pub fn flops_of(executable: &Executable) -> u64 {
    executable.compiled.planned.flops
}

/// A job that may take longer than Ctrl-C may go unheard: about a tenth of a second of work.
fn length_of(compiled: &Compiled) -> Length {
    let bytes: usize = compiled.program.buffers.iter().map(|buffer| buffer.bytes).sum();
    let work = compiled.planned.flops + 4 * bytes as u64 + 2_000 * compiled.program.steps.len() as u64;
    if work > 50_000_000 { Length::Long } else { Length::Short }
}

fn finished(graph: &Graph, policy: CheckpointPolicy, recorded: (usize, usize)) -> Result<Executable> {
    let target = target();
    let mut compiled = ckad_plan::compile(graph, policy, &target)?;
    compiled.program.set_recorded(graph, recorded.0, recorded.1)?;
    let positions = graph.ids().map(|id| graph.attributes(id).position).collect();
    let length = length_of(&compiled);
    Ok(Executable { compiled, positions, length })
}

fn target() -> Target {
    ckad_run::target()
}

/// A program for a graph that was transformed already.
pub fn compile(py: Python<'_>, graph: &Graph, policy: CheckpointPolicy) -> PyResult<Executable> {
    let recorded = (graph.scalars.len(), graph.starts.len());
    build(py, graph.len(), || finished(graph, policy, recorded))
}

fn build<R: Send>(py: Python<'_>, nodes: usize, job: impl FnOnce() -> Result<R> + Send) -> PyResult<R> {
    let length = if nodes > 5_000 { Length::Long } else { Length::Short };
    enter(py, length, move |_| job())?.map_err(|error| to_python(&error, ""))
}

/// The program for a recorded graph under a transform and a policy, from the cache or newly built.
pub fn built(py: Python<'_>, recorded: &Recorded, kind: Kind, policy: CheckpointPolicy) -> PyResult<Arc<Built>> {
    cached(py, &recorded.graph, kind, policy)
}

/// The program that computes a graph's outputs as they are.
pub fn evaluated(
    py: Python<'_>,
    graph: &Graph,
    kind: &Kind,
    policy: CheckpointPolicy,
) -> PyResult<Arc<Executable>> {
    match cached(py, graph, kind.clone(), policy)?.as_ref() {
        Built::One(executable) => Ok(Arc::clone(executable)),
        Built::Two { known, .. } => Ok(Arc::clone(known)),
    }
}

fn cached(py: Python<'_>, graph: &Graph, kind: Kind, policy: CheckpointPolicy) -> PyResult<Arc<Built>> {
    let key = Key { kind, policy };
    if let Some(found) = CACHE.get(graph, &key) {
        return Ok(found);
    }
    let made = build(py, graph.len(), || make(graph, &key))?;
    let made = Arc::new(made);
    // What is kept must not keep the caller's arrays alive.
    let mut structure = graph.clone();
    structure.constants = Vec::new();
    CACHE.insert(structure, key, Arc::clone(&made), bytes_of(&made));
    Ok(made)
}

fn make(graph: &Graph, key: &Key) -> Result<Built> {
    let recorded = (graph.scalars.len(), graph.starts.len());
    if matches!(key.kind, Kind::Linearize(_) | Kind::Vjp(_)) {
        let parts = key.kind.partition(graph)?;
        let known = Arc::new(finished(&parts.known, key.policy, recorded)?);
        let unknown = Arc::new(finished(&parts.unknown, key.policy, recorded)?);
        let mut graph = parts.unknown;
        graph.constants = Vec::new();
        return Ok(Built::Two { known, unknown, graph, sides: parts.outputs, residuals: parts.residuals });
    }
    let derived = key.kind.transform(graph)?;
    Ok(Built::One(Arc::new(finished(&derived, key.policy, recorded)?)))
}

fn bytes_of(built: &Built) -> usize {
    match built {
        Built::One(one) => one.own_bytes(),
        Built::Two { known, unknown, graph, .. } => known.own_bytes() + unknown.own_bytes() + graph.own_bytes(),
    }
}

impl Executable {
    /// Bytes that the program itself occupies.
    fn own_bytes(&self) -> usize {
        self.compiled.own_bytes() + self.positions.len() * size_of::<u32>()
    }

    /// What a run allocates.
    pub fn peak_bytes(&self) -> usize {
        self.compiled.peak_bytes()
    }
}

/// Runs a program. `values` are its inputs in order.
pub fn run(
    py: Python<'_>,
    executable: &Executable,
    values: &[Value],
    tables: &Tables<'_>,
    lines: &Arc<Mutex<LineTable>>,
) -> PyResult<Vec<Output>> {
    let outputs = enter(py, executable.length, |cancel: &AtomicBool| {
        let inputs: Vec<&[u8]> = values.iter().map(Value::bytes).collect();
        let bindings =
            Bindings { inputs: &inputs, scalars: tables.scalars, starts: tables.starts, constants: tables.constants };
        ckad_run::run(&executable.compiled.program, &bindings, RunOptions { cancel: Some(cancel), ..RunOptions::default() })
    })?;
    let outputs = outputs.map_err(|error| located(py, executable, &error, lines))?;
    Ok(outputs.into_iter().map(|output| Output(Arc::new(output))).collect())
}

/// The error with the line of the operation at fault.
fn located(py: Python<'_>, executable: &Executable, error: &Error, lines: &Arc<Mutex<LineTable>>) -> PyErr {
    let _ = executable;
    let lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    to_python(error, &lines.text(py, error.line))
}
