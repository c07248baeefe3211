//! From a recorded graph to results: transform, then run at once, or splice into the enclosing trace.
//!
//! Whether a call runs or is spliced is decided by its inputs alone: if any is a value of an enclosing trace, the
//! result is recorded there (with the policy, where one was given, as a region of its own); otherwise the program
//! is looked up or built, and runs.

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, DType, Error, ErrorKind, Graph, NodeId, Region, Result, tables};
use ckad_run::Filled;
use ckad_transform::kept;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::alive;
use crate::boundary::enter;
use crate::built::{Built, Tables, built, refused_at};
use crate::convert::{owned, owned_to_numpy, value_to_numpy};
use crate::errors::{TracerError, raise, refusal};
use crate::execute::{Donated, leave_idle_beside, measure_or_run};
use crate::kind::{Kind, Split};
use crate::layout::Layout;
use crate::limited::{Around, held};
use crate::linear_map::{LinearMap, Operand, Parts, When};
use crate::plan_view::{PlannedRun, intercept};
use crate::result::{Output, Shared};
use crate::tape::TapeCell;
use crate::trace::{OutputInfo, Recorded};
use crate::tracer::Tracer;
use crate::value::{Snapshot, Value};

/// Values and their derivatives.
pub type Pair = (Vec<Py<PyAny>>, Vec<Py<PyAny>>);

/// What an input of a graph stands for.
#[derive(Clone)]
pub enum Binding {
    Value(Value),
    /// A value of an enclosing trace.
    Outer(Arc<TapeCell>, NodeId),
}

/// Bytes of copies that were made of values.
pub fn copied_bytes(bindings: &[Binding]) -> usize {
    let bytes = |binding: &Binding| match binding {
        Binding::Value(value) => value.owned_bytes(),
        Binding::Outer(..) => 0,
    };
    bindings.iter().map(bytes).sum()
}

/// Values that are to be spliced into a trace: read later, they must be nobody else's.
pub fn owned_values(bindings: &mut [Binding]) -> PyResult<()> {
    for binding in bindings {
        if let Binding::Value(Value::Array(array)) = binding {
            *array = owned(array).map_err(raise)?;
        }
    }
    Ok(())
}

/// How a result is handed to Python.
#[derive(Clone)]
pub struct ResultSpec {
    pub dtype: DType,
    pub layout: Layout,
    /// An array even of rank 0, where NumPy has scalars too.
    pub is_array: bool,
}

impl ResultSpec {
    /// A result as it was made, where rank 0 is a scalar, as Python gets it.
    pub fn finished(&self, py: Python<'_>, result: Py<PyAny>) -> PyResult<Py<PyAny>> {
        if !self.is_array || self.layout.rank() > 0 {
            return Ok(result);
        }
        Ok(py.import("numpy")?.call_method1("array", (result,))?.unbind())
    }
}

impl Recorded {
    /// Which inputs are differentiated.
    pub fn active(&self) -> Vec<bool> {
        let mut active = vec![false; self.graph.inputs.len()];
        for argument in self.arguments.iter().filter(|argument| argument.differentiated) {
            active[argument.input] = true;
        }
        active
    }

    /// What there is around its run, which is given `extra` values.
    fn around(&self, py: Python<'_>, extra: &[Binding]) -> PyResult<Around> {
        let copied = self.copied_arguments + copied_bytes(extra);
        let held = if self.enclosed { held(py)? } else { alive::bytes() };
        Ok(Around { enclosed: self.enclosed, held: held + copied })
    }

    pub fn bindings(&self) -> PyResult<Vec<Binding>> {
        let binding = |index| {
            if let Some(capture) = self.captures.get(&index) {
                return Ok(Binding::Outer(Arc::clone(&capture.tape), capture.node));
            }
            let missing = || Error::internal("trace", format!("input {index} has neither value nor capture"));
            self.values.get(&index).cloned().map(Binding::Value).ok_or_else(missing)
        };
        tables::tried("trace", (0..self.graph.inputs.len() as u32).map(binding)).map_err(raise)
    }

    pub fn output_specs(&self) -> PyResult<Vec<ResultSpec>> {
        let spec = |o: &OutputInfo| ResultSpec { dtype: o.dtype, layout: o.layout.clone(), is_array: o.is_array };
        tables::list("trace", self.outputs.iter().map(spec)).map_err(raise)
    }

    /// Specs of what has the shape of the differentiated arguments.
    pub fn gradient_specs(&self) -> PyResult<Vec<ResultSpec>> {
        let differentiated = self.arguments.iter().filter(|argument| argument.differentiated);
        let specs = differentiated.map(|argument| ResultSpec {
            dtype: argument.dtype,
            layout: argument.layout.clone(),
            is_array: argument.is_array,
        });
        tables::list("trace", specs).map_err(raise)
    }
}

/// The innermost enclosing trace among the inputs.
pub fn innermost(bindings: &[Binding]) -> Option<Arc<TapeCell>> {
    bindings
        .iter()
        .filter_map(|binding| match binding {
            Binding::Outer(tape, _) => Some(tape),
            Binding::Value(_) => None,
        })
        .max_by_key(|tape| tape.depth)
        .map(Arc::clone)
}

/// Copies a transformed graph onto an enclosing tape; a policy makes it a region. `line` says what a line of the graph
/// is in the tape's table.
pub fn splice_into(
    py: Python<'_>,
    target: &Arc<TapeCell>,
    graph: &Graph,
    bindings: &[Binding],
    policy: Option<CheckpointPolicy>,
    line: &dyn Fn(u32) -> u32,
) -> PyResult<Vec<NodeId>> {
    if let Some(CheckpointPolicy::User(_)) = policy {
        let outer = &target.transform;
        let what = format!("a policy object of a transform under ckad.{outer}, which plans the whole run");
        let named: String = py.import("ckad.transforms.policy")?.getattr("NAMED")?.extract()?;
        let hint = format!("give it to ckad.{outer}, or use {named} here");
        return Err(refusal(ErrorKind::Value, "checkpoint", what, hint));
    }
    target.record(py, |tape| {
        let mut inputs = tables::room("splice", bindings.len())?;
        for (binding, &input) in bindings.iter().zip(&graph.inputs) {
            inputs.push(match binding {
                Binding::Outer(outer, node) if outer.id == target.id => *node,
                Binding::Outer(outer, node) => tape.capture(py, outer, *node)?,
                Binding::Value(Value::Scalar(bits)) => tape.builder.scalar(graph.dtype(input), *bits)?,
                Binding::Value(Value::Array(array)) => {
                    let shape = tape.builder.intern(graph.shape(input))?;
                    let attributes = tape.builder.attributes();
                    tape.builder.graph_mut().push_constant(graph.dtype(input), shape, Arc::clone(array), attributes)?
                }
            });
        }
        let mut attributes = tape.builder.attributes();
        attributes.position = tape.builder.graph().len() as u32;
        if let Some(policy) = policy {
            let region = Region { policy, parent: attributes.region };
            attributes.region = tape.builder.graph_mut().push_region(region)?;
        }
        tape.builder.set_attributes(attributes);
        ckad_transform::splice(&tape.builder, graph, &inputs, line)
    })
}

/// A trace and those nested in it have one table of lines.
pub fn same_line(line: u32) -> u32 {
    line
}

/// A node of an enclosing tape as a traced value.
pub fn traced(py: Python<'_>, tape: &Arc<TapeCell>, node: NodeId, spec: &ResultSpec) -> PyResult<Tracer> {
    if spec.layout.rank() == 0 && !spec.is_array {
        Tracer::scalar(py, Arc::clone(tape), node)
    } else {
        Tracer::array(py, Arc::clone(tape), node, spec.layout.clone(), false)
    }
}

/// A transform of a graph, without the GIL.
pub fn transformed<R: Send>(
    py: Python<'_>,
    recorded: &Recorded,
    transform: impl FnOnce(&Graph) -> Result<R> + Send,
) -> PyResult<R> {
    let graph = &recorded.graph;
    enter(py, || transform(graph))?
        .map_err(|error| crate::errors::to_python(&error, &refused_at(py, graph, &error, &recorded.lines)))
}

/// Runs or splices one transformed graph. `extra` are bindings beyond the recorded inputs.
fn realise(
    py: Python<'_>,
    recorded: &Recorded,
    kind: Kind,
    policy: Option<CheckpointPolicy>,
    extra: Vec<Binding>,
    specs: &[ResultSpec],
) -> PyResult<Vec<Py<PyAny>>> {
    let around = recorded.around(py, &extra)?;
    let mut bindings = recorded.bindings()?;
    let own = bindings.len();
    tables::extend("trace", &mut bindings, extra).map_err(raise)?;
    if let Some(target) = innermost(&bindings) {
        owned_values(&mut bindings[own..])?;
        let graph = transformed(py, recorded, |graph| kind.transform(graph))?;
        let nodes = splice_into(py, &target, &graph, &bindings, policy, &same_line)?;
        return nodes.iter().zip(specs).map(|(&node, spec)| traced(py, &target, node, spec)?.into_object(py)).collect();
    }
    let executable = built(py, recorded, kind, policy, around, None)?;
    let Built::One(executable) = executable.as_ref() else {
        return Err(raise(Error::internal("run", "a transform of one graph built two")));
    };
    let values = values_of(bindings)?;
    let tables = Tables::of(&recorded.graph);
    let outputs = measure_or_run(py, executable, &values, &tables, &recorded.lines, around, &Donated::NONE)?;
    to_python(py, outputs, specs, &[])
}

/// The values behind bindings of which none is traced.
pub fn values_of(bindings: Vec<Binding>) -> PyResult<Vec<Value>> {
    let values = bindings.into_iter().map(|binding| match binding {
        Binding::Value(value) => Ok(value),
        Binding::Outer(..) => Err(Error::internal("run", "a traced value reached a run")),
    });
    tables::tried("run", values).map_err(raise)
}

/// Results as NumPy arrays in their own layouts; scalars where the program has scalars. `owners` are the objects that
/// keep the memory of those alive that were written over arguments.
pub fn to_python(
    py: Python<'_>,
    outputs: Vec<Output>,
    specs: &[ResultSpec],
    owners: &[Option<Bound<'_, PyAny>>],
) -> PyResult<Vec<Py<PyAny>>> {
    let mut arrays = tables::room("run", outputs.len()).map_err(raise)?;
    for (index, (output, spec)) in outputs.into_iter().zip(specs).enumerate() {
        let owner = owners.get(index).and_then(Option::as_ref);
        arrays.push(spec.finished(py, owned_to_numpy(py, output, spec.dtype, &spec.layout, owner)?)?);
    }
    Ok(arrays)
}

/// All outputs.
pub fn evaluate(py: Python<'_>, recorded: &Recorded) -> PyResult<Vec<Py<PyAny>>> {
    realise(py, recorded, Kind::Evaluate, None, Vec::new(), &recorded.output_specs()?)
}

/// All outputs, and the gradients of the first by the differentiated arguments.
pub fn value_and_grad(py: Python<'_>, recorded: &Recorded, policy: Option<CheckpointPolicy>) -> PyResult<Pair> {
    let mut specs = recorded.output_specs()?;
    let count = specs.len();
    tables::extend("grad", &mut specs, recorded.gradient_specs()?).map_err(raise)?;
    let kind = Kind::ValueAndGrad(recorded.active());
    let mut results = realise(py, recorded, kind, policy, Vec::new(), &specs)?;
    let gradients = tables::list("grad", results.drain(count..)).map_err(raise)?;
    Ok((results, gradients))
}

/// All outputs, and their tangents: zeros for integer outputs.
pub fn jvp(
    py: Python<'_>,
    recorded: &Recorded,
    tangents: &Bound<'_, PyList>,
    policy: Option<CheckpointPolicy>,
) -> PyResult<Pair> {
    let extra = bind_like(py, tangents, &recorded.gradient_specs()?, |i| {
        let argument = recorded.arguments.iter().filter(|argument| argument.differentiated).nth(i);
        argument.map_or_else(Vec::new, |a| recorded.graph.shape(recorded.graph.inputs[a.input]).to_vec())
    })?;
    let mut specs = recorded.output_specs()?;
    let count = specs.len();
    let floats: Vec<usize> = (0..count).filter(|&i| specs[i].dtype.is_float()).collect();
    let tangents = tables::list("jvp", floats.iter().map(|&i| specs[i].clone())).map_err(raise)?;
    tables::extend("jvp", &mut specs, tangents).map_err(raise)?;
    let mut results = realise(py, recorded, Kind::Jvp(recorded.active()), policy, extra, &specs)?;
    let mut found = results.split_off(count).into_iter();
    let tangents = (0..count)
        .map(|i| match (floats.contains(&i), &recorded.outputs[i]) {
            (true, _) => found.next().ok_or_else(|| raise(Error::internal("jvp", "a tangent is missing"))),
            (false, output) => float_zeros(py, &output.layout.shape),
        })
        .collect::<PyResult<Vec<_>>>()?;
    Ok((results, tangents))
}

/// What stands for the tangent of an integer output.
pub fn float_zeros(py: Python<'_>, shape: &[i64]) -> PyResult<Py<PyAny>> {
    let elements = shape.iter().product::<i64>().max(1) as usize;
    let zeros = Filled::zeros("jvp", elements * size_of::<f64>()).map_err(raise)?;
    let value = Value::Array(Arc::new(Snapshot(zeros)));
    value_to_numpy(py, &value, DType::F64, shape)
}

/// Python values as bindings for inputs of given layouts: reordered into the memory order of what they stand beside.
pub fn bind_like(
    py: Python<'_>,
    objects: &Bound<'_, PyList>,
    specs: &[ResultSpec],
    memory_shape: impl Fn(usize) -> Vec<i64>,
) -> PyResult<Vec<Binding>> {
    if objects.len() != specs.len() {
        return Err(raise(Error::internal("bind", format!("{} values for {}", objects.len(), specs.len()))));
    }
    let mut bindings = tables::room("bind", specs.len()).map_err(raise)?;
    for (index, (object, spec)) in objects.iter().zip(specs).enumerate() {
        bindings.push(bind_one(py, &object, spec, &memory_shape(index))?);
    }
    Ok(bindings)
}

fn bind_one(py: Python<'_>, object: &Bound<'_, PyAny>, spec: &ResultSpec, memory_shape: &[i64]) -> PyResult<Binding> {
    let in_order = in_memory_order(object, &spec.layout)?;
    if let Ok(tracer) = in_order.cast::<Tracer>() {
        let shaped = in_order.call_method1("reshape", (memory_shape.to_vec(),))?;
        let tracer = shaped.cast::<Tracer>().unwrap_or(tracer).get();
        return Ok(Binding::Outer(Arc::clone(tracer.tape()), tracer.logical_node(py)?));
    }
    if spec.layout.rank() == 0 {
        return Ok(Binding::Value(Value::Scalar(crate::convert::scalar_bits(&in_order, spec.dtype)?)));
    }
    let array = crate::convert::packed(&in_order, spec.dtype)?;
    Ok(Binding::Value(Value::Array(array)))
}

/// The array with its axes in the order of `layout`'s memory, ascending addresses.
fn in_memory_order<'py>(object: &Bound<'py, PyAny>, layout: &Layout) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let mut array = object.clone();
    if layout.strides.iter().any(|&stride| stride < 0) {
        let flips = layout.strides.iter().map(|&stride| {
            let step = (stride < 0).then_some(-1isize);
            py.get_type::<pyo3::types::PySlice>().call1((py.None(), py.None(), step))
        });
        array = array.get_item(pyo3::types::PyTuple::new(py, flips.collect::<PyResult<Vec<_>>>()?)?)?;
    }
    let mut order: Vec<usize> = (0..layout.rank()).collect();
    order.sort_by_key(|&axis| std::cmp::Reverse(layout.strides[axis].abs()));
    if order.iter().enumerate().all(|(i, &axis)| i == axis) {
        return Ok(array);
    }
    array.call_method1("transpose", (order,))
}

/// When a linear function is applied.
#[derive(Clone, Copy)]
pub enum Applied {
    /// After the call, to what the caller likes.
    Later,
    /// In the same call, to the unit vectors of a Jacobian of so many columns and rows.
    Here { columns: u64, rows: u64 },
}

impl Applied {
    /// How often it runs, and bytes that are held beside: the Jacobian, of the arguments' dtypes, and a unit vector.
    fn size(self, forward: bool, arguments: &[Operand], outputs: &[Operand]) -> Option<(u64, usize)> {
        let Applied::Here { columns, rows } = self else { return None };
        let bytes = |operands: &[Operand]| operands.iter().map(Operand::bytes).sum::<usize>();
        let whole = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(bytes(arguments));
        let (times, unit) = if forward { (columns, bytes(arguments)) } else { (rows, bytes(outputs)) };
        Some((times, whole.saturating_add(unit)))
    }
}

/// The linearised program (`forward`) or its transpose, ready to be applied.
pub fn linear(
    py: Python<'_>,
    recorded: &Recorded,
    forward: bool,
    policy: Option<CheckpointPolicy>,
    applied: Applied,
) -> PyResult<(Vec<Py<PyAny>>, LinearMap)> {
    let kind = if forward { Kind::Linearize(recorded.active()) } else { Kind::Vjp(recorded.active()) };
    let bindings = recorded.bindings()?;
    let specs = recorded.output_specs()?;
    let count = specs.len();
    let memory = |node| recorded.graph.shape(node).to_vec();
    let of_arguments: Vec<Operand> = recorded
        .gradient_specs()?
        .into_iter()
        .zip(recorded.arguments.iter().filter(|a| a.differentiated))
        .map(|(spec, a)| Operand::Float(spec, memory(recorded.graph.inputs[a.input])))
        .collect();
    let of_outputs: Vec<Operand> = recorded
        .outputs
        .iter()
        .zip(&specs)
        .map(|(output, spec)| match spec.dtype.is_float() {
            true => Operand::Float(spec.clone(), memory(output.node)),
            false => Operand::Integer(spec.layout.shape.clone()),
        })
        .collect();
    let size = applied.size(forward, &of_arguments, &of_outputs);
    let (takes, gives) = if forward { (of_arguments, of_outputs) } else { (of_outputs, of_arguments) };

    if let Some(target) = innermost(&bindings) {
        let parts = transformed(py, recorded, |graph| kind.partition(graph, Split::Whole))?;
        let nodes = splice_into(py, &target, &parts.known, &bindings, policy, &same_line)?;
        let values = nodes[..count]
            .iter()
            .zip(&specs)
            .map(|(&node, spec)| traced(py, &target, node, spec)?.into_object(py))
            .collect::<PyResult<Vec<_>>>()?;
        let known: Vec<Binding> = nodes.iter().map(|&node| Binding::Outer(Arc::clone(&target), node)).collect();
        let linear = Parts {
            graph: parts.unknown,
            known,
            residuals: parts.residuals,
            sides: &parts.outputs[count..],
            executable: None,
            applied: When::Later,
        };
        return Ok((values, LinearMap::new(linear, takes, gives, policy, &recorded.lines)));
    }
    let around = recorded.around(py, &[])?;
    let built = built(py, recorded, kind, policy, around, size.map(|(_, bytes)| bytes))?;
    let Built::Two { known, unknown, graph, sides, residuals, owned } = built.as_ref() else {
        return Err(raise(Error::internal("run", "a linearisation built one graph")));
    };
    let values = Tables::of(&recorded.graph);
    let inputs = values_of(bindings)?;
    let mut applied = if size.is_some() { When::HereInside } else { When::Later };
    if let Some((times, bytes)) = size.filter(|_| !around.enclosed) {
        let held = bytes + owned;
        applied = When::Here { held };
        let of_function = PlannedRun::of(known, &values, around.held, 1);
        let of_derivative = PlannedRun::of(unknown, &values, held, times);
        intercept(py, vec![of_function, of_derivative], &values, &recorded.lines)?;
    }
    let outputs = measure_or_run(py, known, &inputs, &values, &recorded.lines, around, &Donated::NONE)?;
    drop(inputs);
    // Of the function's values only those are kept that the linear function returns.
    let mut known_values = tables::filled("linear", Binding::Value(Value::Scalar(0)), outputs.len()).map_err(raise)?;
    for index in kept(&sides[count..], outputs.len(), *residuals) {
        let shared = Shared(Arc::clone(&outputs[index].0));
        known_values[index] = Binding::Value(Value::Array(Arc::new(shared)));
    }
    let mut outputs = outputs;
    outputs.truncate(count);
    let results = to_python(py, outputs, &specs, &[])?;
    if let When::Here { held } = applied {
        leave_idle_beside(unknown, &values, unknown.limit, held);
    }
    let linear = Parts {
        graph: values.applied_to(graph, size.is_none()).map_err(raise)?,
        known: known_values,
        residuals: *residuals,
        sides: &sides[count..],
        executable: Some(Arc::clone(unknown)),
        applied,
    };
    Ok((results, LinearMap::new(linear, takes, gives, policy, &recorded.lines)))
}

/// Prices both modes on the recorded graph: flops of one application times the number of applications.
pub fn forward_is_cheaper(py: Python<'_>, recorded: &Recorded, columns: u64, rows: u64) -> PyResult<bool> {
    if ckad_transform::is_for_reverse_mode(&recorded.graph) {
        return Ok(false);
    }
    let price = |kind: Kind, times: u64| {
        transformed(py, recorded, move |graph| {
            let unknown = kind.partition(graph, Split::Whole)?.unknown;
            let flops: u64 = unknown.ids().map(|id| ckad_prim::cost(&unknown, id).flops).sum();
            Ok(u128::from(flops) * u128::from(times))
        })
    };
    let forward = price(Kind::Linearize(recorded.active()), columns)?;
    match price(Kind::Vjp(recorded.active()), rows) {
        Ok(reverse) => Ok(forward <= reverse),
        // Reverse mode does not go the way back through a loop of unknown length.
        Err(refused) if refused.is_instance_of::<TracerError>(py) => Ok(true),
        Err(error) => Err(error),
    }
}
