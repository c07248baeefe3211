//! A traced call: opens a tape, makes traced values of arguments, and turns the recorded graph into results.
//!
//! `ckad.transforms` drives it: `Trace()`, `argument(…)` for each leaf, the user's function, one of the finishing
//! methods, `close()`. What a finishing method does with the graph is in `finish.rs`.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use ckad_graph::{CheckpointPolicy, DType, Error, ErrorKind, Graph, NodeId, Region as GraphRegion, RegionId, tables};
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustc_hash::FxHashMap;

use crate::alive;
use crate::capture::ReadArrays;
use crate::convert::{Foreign, array_argument, array_operand, classify, scalar_bits, scalar_operand};
use crate::errors::{raise, refusal};
use crate::finish::{self, Applied, Pair};
use crate::graph_view::GraphView;
use crate::layout::Layout;
use crate::linear_map::LinearMap;
use crate::loops::Body;
use crate::plan_view::forget_forced;
use crate::tape::{Capture, Purpose, TapeCell};
use crate::tracer::Tracer;
use crate::value::Value;

thread_local! {
    /// The open tapes of this thread, outermost first.
    static OPEN: RefCell<Vec<Arc<TapeCell>>> = const { RefCell::new(Vec::new()) };
}

/// The tapes that record on this thread, outermost first.
pub fn open_tapes() -> Vec<Arc<TapeCell>> {
    OPEN.with(|open| open.borrow().clone())
}

/// Does a tape record on this thread?
pub fn is_recording() -> bool {
    OPEN.with_borrow(|open| !open.is_empty())
}

/// The depth of the innermost `jit` or body that records on this thread.
pub fn innermost_jit() -> Option<u32> {
    OPEN.with(|open| open.borrow().last().and_then(|tape| tape.jit_depth))
}

/// Where an array that is made like a value of `tape` belongs: to the `jit` or body that records, if the value is from
/// around it. What is computed there can then be written into it.
pub fn home_of_new(tape: &Arc<TapeCell>) -> Arc<TapeCell> {
    let body = OPEN.with_borrow(|open| {
        let depth = open.last()?.jit_depth.filter(|&depth| depth > tape.depth)?;
        open.iter().find(|tape| tape.depth == depth).map(Arc::clone)
    });
    body.unwrap_or_else(|| Arc::clone(tape))
}

/// The `jit` or body that records for others, if a value of `tape` is from around it.
pub fn recorded_once_inside(tape: &TapeCell) -> Option<Arc<TapeCell>> {
    OPEN.with_borrow(|open| {
        let depth = open.last()?.others_depth.filter(|&depth| depth > tape.depth)?;
        open.iter().find(|tape| tape.depth == depth).map(Arc::clone)
    })
}

/// The depth of the innermost one that records for others.
pub fn innermost_for_others() -> Option<u32> {
    OPEN.with(|open| open.borrow().last().and_then(|tape| tape.others_depth))
}

/// An argument of the traced call.
#[derive(Clone)]
pub struct ArgumentInfo {
    /// Its index among the graph's inputs.
    pub input: usize,
    pub differentiated: bool,
    pub dtype: DType,
    /// How its axes lie in the input's flat memory.
    pub layout: Layout,
    /// An array, even of rank 0.
    pub is_array: bool,
}

/// An output of the traced call, as a node of the graph.
#[derive(Clone)]
pub struct OutputInfo {
    pub node: NodeId,
    pub dtype: DType,
    pub layout: Layout,
    /// An array, even of rank 0.
    pub is_array: bool,
}

/// A recorded graph with what is needed to transform, run or splice it.
pub struct Recorded {
    pub graph: Graph,
    pub arguments: Vec<ArgumentInfo>,
    pub outputs: Vec<OutputInfo>,
    /// Known values of inputs, by input index.
    pub values: FxHashMap<u32, Value>,
    /// Values of enclosing traces, by input index.
    pub captures: FxHashMap<u32, Capture>,
    pub lines: Arc<crate::lines::Lines>,
    /// Bytes of copies that were made of its arguments.
    pub copied_arguments: usize,
    /// Another trace records around this one.
    pub enclosed: bool,
    /// The most bytes that a run may allocate.
    pub limit: Option<usize>,
}

/// One traced call.
#[pyclass(frozen, module = "ckad._core")]
pub struct Trace {
    pub tape: Arc<TapeCell>,
    arguments: Mutex<Vec<ArgumentInfo>>,
}

#[pymethods]
impl Trace {
    /// `transform`: who asks. `jitted`: arguments have no values, and what is recorded is run later.
    /// `memory_limit`: the most bytes that a run may allocate. `body`: it is that of a loop, and arguments are symbols.
    /// `rule`: it is that of a derivative, which is recorded for this call.
    #[new]
    #[pyo3(signature = (transform, jitted=false, memory_limit=None, body=false, rule=false))]
    fn new(
        py: Python<'_>,
        transform: String,
        jitted: bool,
        memory_limit: Option<usize>,
        body: bool,
        rule: bool,
    ) -> PyResult<Trace> {
        let outermost = OPEN.with_borrow(|open| open.first().map(Arc::clone));
        if let Some(outer) = outermost.filter(|_| memory_limit.is_some()) {
            return Err(inner_limit(py, &transform, &outer));
        }
        let purpose = Purpose { transform, jitted, body, rule, limit: memory_limit };
        let tape = OPEN.with(|open| {
            let mut open = open.borrow_mut();
            if open.is_empty() {
                forget_forced();
                alive::forget();
            }
            let tape = TapeCell::new(open.last(), purpose);
            open.push(Arc::clone(&tape));
            tape
        });
        Ok(Trace { tape, arguments: Mutex::new(Vec::new()) })
    }

    /// A leaf of an argument as a traced value.
    fn argument(&self, py: Python<'_>, leaf: &Bound<'_, PyAny>, differentiated: bool) -> PyResult<Py<PyAny>> {
        let index = self.tape.read(py, |tape| tape.builder.graph().inputs.len())?;
        let (tracer, dtype, layout) = if let Ok(outer) = leaf.cast::<Tracer>() {
            self.outer_argument(py, outer.get(), differentiated)?
        } else {
            match classify(leaf)? {
                Foreign::Array => {
                    let argument = array_argument(&self.tape, leaf, differentiated)?;
                    if !differentiated {
                        self.tape.keep_original(argument.node, leaf)?;
                    }
                    let tracer = Tracer::argument(
                        py,
                        &self.tape,
                        argument.node,
                        argument.layout.clone(),
                        argument.numpy_strides,
                        argument.read_only,
                    )?;
                    (tracer, argument.dtype, argument.layout)
                }
                Foreign::PythonFloat(_) => {
                    let (tracer, dtype, layout) = self.scalar_argument(leaf, DType::F64, differentiated)?;
                    (tracer.weak_if(true), dtype, layout)
                }
                Foreign::NumpyScalar(dtype) => self.scalar_argument(leaf, dtype, differentiated)?,
                _ => {
                    let what = format!("an argument of type {} cannot be traced", leaf.get_type().name()?);
                    return Err(refusal(ErrorKind::Type, "trace", what, "pass floats and arrays"));
                }
            }
        };
        let info = ArgumentInfo { input: index, differentiated, dtype, layout, is_array: !tracer.is_scalar() };
        let mut arguments = self.arguments.lock().unwrap_or_else(PoisonError::into_inner);
        tables::push("trace", &mut arguments, info).map_err(raise)?;
        drop(arguments);
        tracer.into_object(py)
    }

    /// An argument without a value, of that dtype and shape. `weak`: a number of Python's.
    fn symbol(
        &self,
        py: Python<'_>,
        dtype: &Bound<'_, PyAny>,
        shape: Vec<i64>,
        is_array: bool,
        weak: bool,
    ) -> PyResult<Py<PyAny>> {
        let dtype = crate::values::parse_dtype(dtype)?;
        let mut tape = self.tape.open(py).map_err(raise)?;
        tape.builder.set_attributes(ckad_graph::Attributes::default());
        let node = tape.input(dtype, &shape, true, None).map_err(raise)?;
        drop(tape);
        let tracer = match is_array {
            true => Tracer::array(py, Arc::clone(&self.tape), node, Layout::contiguous(&shape), false)?,
            false => Tracer::scalar(py, Arc::clone(&self.tape), node)?.weak_if(weak),
        };
        tracer.into_object(py)
    }

    /// The body of a loop or branch: the graph of these outputs, closed. The first `own` inputs are its arguments.
    fn body(&self, py: Python<'_>, outputs: &Bound<'_, PyList>, own: usize) -> PyResult<Body> {
        let mut found = tables::room("loop", outputs.len()).map_err(raise)?;
        for object in outputs {
            found.push(self.logical_output(py, &object)?);
        }
        Body::new(&self.take_outputs(py, found)?, own)
    }

    /// Does another trace record around it?
    #[getter]
    fn is_enclosed(&self) -> bool {
        self.tape.depth > 0
    }

    /// The values of the outputs.
    fn evaluate(&self, py: Python<'_>, outputs: &Bound<'_, PyList>) -> PyResult<Vec<Py<PyAny>>> {
        finish::evaluate(py, &self.take(py, outputs)?)
    }

    /// The values of the outputs, and the gradients of the first by the differentiated arguments.
    fn value_and_grad(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyList>,
        policy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Pair> {
        let policy = parse_policy(policy)?;
        finish::value_and_grad(py, &self.take(py, outputs)?, policy)
    }

    /// The values of the outputs and their tangents.
    fn jvp(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyList>,
        tangents: &Bound<'_, PyList>,
        policy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Pair> {
        let policy = parse_policy(policy)?;
        finish::jvp(py, &self.take(py, outputs)?, tangents, policy)
    }

    /// The values of the outputs and the derivative as a function of tangents.
    fn linearize(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyList>,
        policy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Vec<Py<PyAny>>, LinearMap)> {
        let policy = parse_policy(policy)?;
        finish::linear(py, &self.take(py, outputs)?, true, policy, Applied::Later)
    }

    /// The values of the outputs and the transposed derivative as a function of cotangents.
    fn vjp(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyList>,
        policy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(Vec<Py<PyAny>>, LinearMap)> {
        let policy = parse_policy(policy)?;
        finish::linear(py, &self.take(py, outputs)?, false, policy, Applied::Later)
    }

    /// The mode (`mode`, or the cheaper one where that is neither) and the linear function that a Jacobian of so many
    /// columns and rows applies.
    fn jacobian(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyList>,
        mode: &str,
        columns: u64,
        rows: u64,
        policy: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(&'static str, LinearMap)> {
        let policy = parse_policy(policy)?;
        let recorded = self.take(py, outputs)?;
        let forward = match mode {
            "forward" => true,
            "reverse" => false,
            _ => finish::forward_is_cheaper(py, &recorded, columns, rows)?,
        };
        let (_, map) = finish::linear(py, &recorded, forward, policy, Applied::Here { columns, rows })?;
        Ok((if forward { "forward" } else { "reverse" }, map))
    }

    /// The mode in which a Jacobian of so many columns and rows costs less; nothing is run.
    fn jacobian_mode(
        &self,
        py: Python<'_>,
        outputs: &Bound<'_, PyList>,
        columns: u64,
        rows: u64,
    ) -> PyResult<&'static str> {
        let forward = finish::forward_is_cheaper(py, &self.take(py, outputs)?, columns, rows)?;
        Ok(if forward { "forward" } else { "reverse" })
    }

    /// The recorded graph.
    fn graph(&self, py: Python<'_>, outputs: &Bound<'_, PyList>) -> PyResult<GraphView> {
        GraphView::new(py, self.take(py, outputs)?)
    }

    /// Frees the tape; traced values that survive raise from now on.
    fn close(&self, py: Python<'_>) {
        self.end(py);
    }
}

impl Drop for Trace {
    /// Ctrl-C can come between any two lines of Python, also those that open and close a trace.
    fn drop(&mut self) {
        if !self.tape.is_closed() {
            Python::try_attach(|py| self.end(py));
        }
    }
}

impl Trace {
    /// Closes the tape.
    pub fn end(&self, py: Python<'_>) {
        // The thread's list is gone where a trace is dropped with its thread.
        let parent = OPEN.try_with(|open| {
            let mut open = open.borrow_mut();
            open.retain(|tape| tape.id != self.tape.id);
            open.last().map(Arc::clone)
        });
        // What was spliced into the enclosing trace may still read arrays that this one made read-only.
        if let Ok(Some(parent)) = parent {
            self.tape.hand_guards_to(py, &parent);
        }
        self.tape.close(py);
    }

    fn scalar_argument(
        &self,
        leaf: &Bound<'_, PyAny>,
        dtype: DType,
        differentiated: bool,
    ) -> PyResult<(Tracer, DType, Layout)> {
        let bits = scalar_bits(leaf, dtype)?;
        let py = leaf.py();
        let mut tape = self.tape.open(py).map_err(raise)?;
        let node = tape.input(dtype, &[], differentiated, Some(Value::Scalar(bits))).map_err(raise)?;
        drop(tape);
        Ok((Tracer::scalar(py, Arc::clone(&self.tape), node)?, dtype, Layout::contiguous(&[])))
    }

    /// An argument that is a value of an enclosing trace: an input of its own, even where the value is also captured.
    fn outer_argument(
        &self,
        py: Python<'_>,
        outer: &Tracer,
        differentiated: bool,
    ) -> PyResult<(Tracer, DType, Layout)> {
        let (outer_node, layout) = outer.memory_node(py)?;
        let outer_tape = outer.tape();
        let (dtype, shape, active, value) = outer_tape.read(py, |tape| {
            let graph = tape.builder.graph();
            let value = tape.values.get(&outer_node).filter(|_| !outer_tape.is_around(self.tape.others_depth));
            (graph.dtype(outer_node), graph.shape(outer_node).to_vec(), tape.is_active(outer_node), value.cloned())
        })?;
        let mut tape = self.tape.open(py).map_err(raise)?;
        let node = tape.input(dtype, &shape, differentiated || active, value).map_err(raise)?;
        let index = tape.builder.graph().inputs.len() as u32 - 1;
        tables::room_for_keys("trace", &mut tape.captures, 1).map_err(raise)?;
        tape.captures.insert(index, Capture { tape: Arc::clone(outer_tape), node: outer_node });
        drop(tape);
        let tracer = if outer.is_scalar() {
            Tracer::scalar(py, Arc::clone(&self.tape), node)?.weak_if(outer.is_weak())
        } else {
            Tracer::array(py, Arc::clone(&self.tape), node, layout.clone(), outer.is_read_only())?
        };
        Ok((tracer, dtype, layout))
    }

    /// An output of the traced function as a node of this tape, in the memory order of its array.
    fn output(&self, py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<OutputInfo> {
        let mut is_array = false;
        let (node, layout) = if let Ok(tracer) = object.cast::<Tracer>() {
            let tracer = tracer.get();
            is_array = !tracer.is_scalar();
            let (node, layout) = tracer.memory_node(py)?;
            if tracer.tape().id == self.tape.id {
                (node, layout)
            } else {
                let outer = Arc::clone(tracer.tape());
                (self.tape.record(py, |tape| tape.capture(py, &outer, node))?, layout)
            }
        } else {
            let dtype = match classify(object)? {
                Foreign::PythonFloat(_) => DType::F64,
                Foreign::PythonInt => DType::I64,
                Foreign::PythonBool(_) => DType::Bool,
                Foreign::NumpyScalar(dtype) => dtype,
                Foreign::Array => {
                    let operand = array_operand(py, &self.tape, object)?;
                    return self.output_info(py, operand.node, operand.layout, true);
                }
                Foreign::Other => {
                    let kind = object.get_type().name()?.to_string();
                    return Err(raise(
                        Error::dtype("output", format!("the function returned a leaf of type {kind}"))
                            .with_hint("return numbers and arrays, or use has_aux=True for anything else"),
                    ));
                }
            };
            (scalar_operand(py, &self.tape, object, dtype)?, Layout::contiguous(&[]))
        };
        self.output_info(py, node, layout, is_array)
    }

    /// As `output`, in C order.
    fn logical_output(&self, py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<OutputInfo> {
        let OutputInfo { node, layout, is_array, .. } = self.output(py, object)?;
        let tracer = match layout.rank() {
            0 => return self.output_info(py, node, layout, is_array),
            _ => Tracer::array(py, Arc::clone(&self.tape), node, layout.clone(), false)?,
        };
        let node = tracer.logical_node(py)?;
        self.output_info(py, node, Layout::contiguous(&layout.shape), is_array)
    }

    fn output_info(&self, py: Python<'_>, node: NodeId, layout: Layout, is_array: bool) -> PyResult<OutputInfo> {
        let dtype = self.tape.read(py, |tape| tape.builder.dtype(node))?;
        Ok(OutputInfo { node, dtype, layout, is_array })
    }

    /// As [`Trace::take`], with the arrays that were read from outside.
    pub fn take_with_arrays(&self, py: Python<'_>, outputs: &Bound<'_, PyList>) -> PyResult<(Recorded, ReadArrays)> {
        let recorded = self.take(py, outputs)?;
        let arrays = self.tape.read(py, |tape| tape.arrays.captured(py))?;
        Ok((recorded, arrays))
    }

    /// The recorded graph with these outputs. The tape is empty afterwards: one finishing call per trace.
    pub fn take(&self, py: Python<'_>, outputs: &Bound<'_, PyList>) -> PyResult<Recorded> {
        let mut found = tables::room("trace", outputs.len()).map_err(raise)?;
        for object in outputs {
            found.push(self.output(py, &object)?);
        }
        self.take_outputs(py, found)
    }

    fn take_outputs(&self, py: Python<'_>, outputs: Vec<OutputInfo>) -> PyResult<Recorded> {
        let mut tape = self.tape.open(py).map_err(raise)?;
        tape.arrays.check_unchanged().map_err(raise)?;
        crate::made_inside::note(py, &tape)?;
        self.tape.note_survivors(py, &mut tape);
        let mut graph = tape.take_graph();
        graph.outputs = tables::list("trace", outputs.iter().map(|output| output.node)).map_err(raise)?;
        // Values that were forced are not needed any more, and would be held beside the run.
        let mut known = std::mem::take(&mut tape.values);
        let mut values = FxHashMap::default();
        tables::room_for_keys("trace", &mut values, graph.inputs.len()).map_err(raise)?;
        let inputs = graph.inputs.iter().enumerate();
        values.extend(inputs.filter_map(|(index, node)| Some((index as u32, known.remove(node)?))));
        let arguments = self.arguments.lock().unwrap_or_else(PoisonError::into_inner);
        let arguments = tables::list("trace", arguments.iter().cloned()).map_err(raise)?;
        let captures = std::mem::take(&mut tape.captures);
        let numbers = std::mem::take(&mut tape.numbers);
        let copied_arguments = std::mem::take(&mut tape.copied_arguments);
        drop(tape);
        drop((known, numbers));
        Ok(Recorded {
            graph,
            arguments,
            outputs,
            values,
            captures,
            lines: Arc::clone(&self.tape.lines),
            copied_arguments,
            enclosed: self.tape.depth > 0,
            limit: self.tape.limit,
        })
    }
}

/// The error for a limit of a transform under another one.
pub fn inner_limit(py: Python<'_>, transform: &str, outer: &TapeCell) -> PyErr {
    let outer = &outer.transform;
    let takes_limit =
        || -> PyResult<bool> { py.import("ckad.transforms.limit")?.call_method1("takes_limit", (outer,))?.extract() };
    let what = format!("memory_limit= of a transform under ckad.{outer}, which is recorded as a whole");
    let hint = match takes_limit() {
        Ok(true) => format!("give it to ckad.{outer}: memory_limit= of the outermost transform counts"),
        Ok(false) => {
            "give it to the transform around all of this: memory_limit= of the outermost one counts".to_owned()
        }
        Err(broken) => return broken,
    };
    refusal(ErrorKind::Value, transform, what, hint)
}

/// The policy that Python's `policy.parse` returned, which has looked at it; None inherits.
pub fn parse_policy(policy: Option<&Bound<'_, PyAny>>) -> PyResult<Option<CheckpointPolicy>> {
    let Some(policy) = policy.filter(|policy| !policy.is_none()) else { return Ok(None) };
    if let Ok(segments) = policy.extract::<u32>() {
        return Ok(Some(CheckpointPolicy::Segments(segments)));
    }
    let (name, number) = match policy.extract::<(String, u32)>() {
        Ok((name, number)) => (name, Some(number)),
        Err(_) => (policy.extract::<String>()?, None),
    };
    let parsed = match (name.as_str(), number) {
        ("none", None) => CheckpointPolicy::None,
        ("auto", None) => CheckpointPolicy::Auto,
        ("sqrt", None) => CheckpointPolicy::Sqrt,
        ("log", None) => CheckpointPolicy::Log,
        ("revolve", Some(slots)) => CheckpointPolicy::Revolve(slots),
        ("mixed", Some(slots)) => CheckpointPolicy::Mixed(slots),
        ("offload", Some(least)) => CheckpointPolicy::Offload(least),
        ("user", Some(policy)) => CheckpointPolicy::User(policy),
        _ => return Err(raise(Error::internal("checkpoint", format!("unknown policy {name:?}")))),
    };
    Ok(Some(parsed))
}

/// The values, if one is traced, those of enclosing traces as values of the innermost trace among them, or of the `jit`
/// or body that records inside of that: a function that is given them computes there, whatever it reads. What it
/// writes into them is its own.
#[pyfunction]
pub fn together(py: Python<'_>, values: Vec<Bound<'_, PyAny>>) -> PyResult<Vec<Py<PyAny>>> {
    let tapes = values.iter().filter_map(|value| Some(value.cast::<Tracer>().ok()?.get().tape()));
    let Some(tape) = tapes.max_by_key(|tape| tape.depth).map(home_of_new) else {
        return Ok(values.into_iter().map(Bound::unbind).collect());
    };
    let entered = |value: Bound<'_, PyAny>| match value.cast::<Tracer>() {
        Ok(tracer) if tracer.get().tape().depth < tape.depth => tracer.get().within(py, &tape)?.into_object(py),
        _ => Ok(value.unbind()),
    };
    values.into_iter().map(entered).collect()
}

/// Marks the value that a traced value has now as one that every policy keeps.
#[pyfunction]
pub fn keep(py: Python<'_>, value: &Bound<'_, Tracer>) -> PyResult<()> {
    let tracer = value.get();
    let (node, _) = tracer.memory_node(py)?;
    tracer.tape().record(py, |tape| {
        let is_leaf = tape.builder.graph().op(node).is_leaf();
        if is_leaf { Ok(()) } else { tape.builder.graph_mut().keep(node) }
    })
}

/// A context in which everything recorded belongs to a new region that keeps only its inputs.
#[pyclass(frozen, module = "ckad._core")]
pub struct Region {
    entered: Mutex<Vec<(Arc<TapeCell>, RegionId)>>,
}

#[pymethods]
impl Region {
    #[new]
    fn new() -> Region {
        Region { entered: Mutex::new(Vec::new()) }
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<()> {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in open_tapes() {
            let mut tape = cell.open(py).map_err(raise)?;
            let outer = tape.region;
            let id = {
                let mut graph = tape.builder.graph_mut();
                let region = GraphRegion { policy: CheckpointPolicy::Recompute, parent: outer };
                graph.push_region(region).map_err(raise)?
            };
            tape.region = id;
            drop(tape);
            entered.push((cell, outer));
        }
        Ok(())
    }

    fn __exit__(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) -> bool {
        for (cell, outer) in self.entered.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Ok(mut tape) = cell.open(kind.py()) {
                tape.region = outer;
            }
        }
        false
    }
}
