//! Functions of `ckad._core` from which the Python layer composes NumPy's functions.
//!
//! Each takes traced values, arrays and scalars, records on the innermost tape among them, and returns a traced
//! value. Axes are normal (0 ≤ axis < rank) here; the Python layer has NumPy's conventions.

use std::sync::Arc;

use ckad_graph::{DType, DotAxes, Error, ErrorKind, NodeId, ReduceKind, shape_text, tables};
use ckad_prim::Elementwise;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::dot::{contract, natural_axes};
use crate::elementwise;
use crate::errors::{raise, refusal};
use crate::layout::{self, Layout, broadcast_shapes, concatenation_order, inverse};
use crate::operand::{Operand, Source, innermost, prepare, prepare_with, promote};
use crate::reductions::{self, walk_order};
use crate::shapes::normal_axes;
use crate::storage::View;
use crate::tape::TapeCell;
use crate::tracer::{Kind, Tracer, refuse_lost_gradient};
use crate::values::parse_dtype;

type Any<'a, 'py> = &'a Bound<'py, PyAny>;

fn operands<'a, 'py>(objects: &'a [Bound<'py, PyAny>]) -> PyResult<Vec<Operand<'a, 'py>>> {
    collected("operands", objects.iter().map(Operand::coerced))
}

/// What the iterator gives; there may be tens of thousands of arrays to join.
fn collected<T>(name: &str, items: impl ExactSizeIterator<Item = PyResult<T>>) -> PyResult<Vec<T>> {
    let mut list = tables::room(name, items.len()).map_err(raise)?;
    for item in items {
        list.push(item?);
    }
    Ok(list)
}

pub fn traced<'a>(name: &str, object: &'a Bound<'_, PyAny>) -> PyResult<&'a Tracer> {
    match object.cast::<Tracer>() {
        Ok(tracer) => tracer.get().check_alive(object.py()).map(|()| tracer.get()),
        Err(_) => {
            let what = format!("a traced value is needed, not {}", object.get_type().name()?);
            Err(refusal(ErrorKind::Type, name, what, "make one with np.asarray(value, like=x) of a traced x"))
        }
    }
}

/// An operand in C order of its logical shape.
fn plain<'a>(py: Python<'_>, tape: &Arc<TapeCell>, operand: &Operand<'a, '_>, dtype: DType) -> PyResult<Source<'a>> {
    prepare_with(py, tape, operand, dtype, |layout| layout)
}

/// A row of the elementwise table, with NumPy's promotion, broadcasting and layout.
#[pyfunction]
#[pyo3(signature = (row, *values, dtype = None))]
fn apply<'py>(
    py: Python<'py>,
    row: &str,
    values: &Bound<'py, PyTuple>,
    dtype: Option<Any<'_, 'py>>,
) -> PyResult<Py<PyAny>> {
    let Some(row) = Elementwise::ALL.iter().copied().find(|known| known.name() == row) else {
        let what = format!("no elementwise primitive is called {row}");
        return Err(refusal(ErrorKind::Value, "apply", what, "_core.elementwise_table() lists them"));
    };
    let objects: Vec<Bound<'py, PyAny>> = values.iter().collect();
    let operands = operands(&objects)?;
    if operands.len() != row.arity() {
        let what = format!("{} operands were given, and it takes {}", operands.len(), row.arity());
        return Err(refusal(ErrorKind::Type, row.name(), what, "see docs/primitives.md"));
    }
    if row == Elementwise::Select
        && let [condition, chosen, other] = &operands[..]
    {
        return elementwise::select(py, &[condition.duplicate(), chosen.duplicate(), other.duplicate()])?
            .into_object(py);
    }
    let dtype = dtype.map(parse_dtype).transpose()?;
    elementwise::apply(py, row, &operands, dtype)?.into_object(py)
}

/// The value in another dtype, laid out likewise.
#[pyfunction]
fn cast(py: Python<'_>, x: Any<'_, '_>, dtype: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    let x = traced("cast", x)?;
    let cast = elementwise::convert(py, &Operand::Traced(x), parse_dtype(dtype)?)?;
    if x.is_scalar() { cast.into_object(py) } else { cast.into_array(py)?.into_object(py) }
}

/// The value, through which no derivative flows. What is not traced is handed back.
#[pyfunction]
fn stop_gradient(py: Python<'_>, x: Any<'_, '_>) -> PyResult<Py<PyAny>> {
    let Ok(value) = x.cast::<Tracer>() else { return Ok(x.clone().unbind()) };
    let value = value.get();
    value.check_alive(py)?;
    let dtype = value.dtype();
    let operand = [Operand::Traced(value)];
    let stopped = elementwise::record(py, "stop_gradient", &operand, &[dtype], dtype, |tape, nodes| {
        tape.builder.stop_gradient(nodes[0])
    })?;
    let Kind::Array { view, .. } = value.kind() else {
        return stopped.weak_if(value.is_weak()).into_object(py);
    };
    let stopped = stopped.into_array(py)?;
    let Kind::Array { storage, view: packed } = stopped.kind() else { return stopped.into_object(py) };
    // Outside of a trace the array itself comes back: to NumPy's rules ours lies as it does.
    let strides = view.strides_in_bytes(dtype);
    let mut alike = View::of_argument(Layout::clone(&packed.layout), &strides, dtype.size() as i64, view.read_only);
    alike.unknown_layout = view.unknown_layout;
    Tracer::view_of(Arc::clone(storage), alike).into_object(py)
}

/// The order of axes, outermost first, in which NumPy walks operands with these strides, and lays out the result.
#[pyfunction]
fn iteration_order(rank: usize, strides: Vec<Vec<i64>>) -> PyResult<Vec<usize>> {
    match strides.iter().find(|strides| strides.len() != rank) {
        Some(strides) => {
            let what = format!("{} strides for {rank} axes", strides.len());
            Err(refusal(ErrorKind::Value, "iteration_order", what, "give one stride an axis"))
        }
        None => Ok(layout::iteration_order(rank, &strides)),
    }
}

/// The axes that `axis=` of the reduction `op` names, ascending.
#[pyfunction]
fn reduction_axes(op: &str, axis: Any<'_, '_>, shape: Vec<i64>) -> PyResult<Vec<usize>> {
    normal_axes(op, Some(axis), &shape)
}

fn reduce_kind(kind: &str) -> PyResult<ReduceKind> {
    let found = ReduceKind::ALL.into_iter().find(|found| found.name() == kind);
    found.ok_or_else(|| {
        let names = ReduceKind::ALL.map(ReduceKind::name).join(", ");
        refusal(ErrorKind::Value, "reduce", format!("no reduction is called {kind}"), format!("use one of {names}"))
    })
}

/// A reduction; a scalar where all axes are reduced and none is kept.
#[pyfunction]
#[pyo3(signature = (kind, x, axes, dtype = None, keepdims = false))]
fn reduce(
    py: Python<'_>,
    kind: &str,
    x: Any<'_, '_>,
    mut axes: Vec<usize>,
    dtype: Option<Any<'_, '_>>,
    keepdims: bool,
) -> PyResult<Py<PyAny>> {
    let x = traced("reduce", x)?;
    axes.sort_unstable();
    axes.dedup();
    if axes.last().is_some_and(|&axis| axis >= x.rank()) {
        return Err(axis_error("reduce", x.shape()));
    }
    let dtype = dtype.map(parse_dtype).transpose()?;
    reductions::reduce(py, reduce_kind(kind)?, x, &axes, dtype, keepdims)?.into_object(py)
}

pub fn axis_error(name: &str, shape: &[i64]) -> PyErr {
    let what = format!("an axis is out of bounds for an array of shape {}", shape_text(shape));
    refusal(ErrorKind::Axis, name, what, format!("the array has {} axes, counted from 0", shape.len()))
}

fn check_axis(name: &str, x: &Tracer, axis: usize) -> PyResult<()> {
    if axis < x.rank() { Ok(()) } else { Err(axis_error(name, x.shape())) }
}

/// One operation on the value in C order; the result is in C order too.
fn on_logical(
    py: Python<'_>,
    x: &Tracer,
    build: impl FnOnce(&mut crate::tape::Tape, NodeId) -> ckad_graph::Result<NodeId>,
) -> PyResult<Py<PyAny>> {
    let tape = x.tape();
    let (node, dtype, shape) = tape.record(py, |tape| {
        let node = x.read(py, tape, &x.layout())?;
        let node = build(tape, node)?;
        Ok((node, tape.builder.dtype(node), tape.builder.shape(node)))
    })?;
    Tracer::result(py, tape, node, dtype, &shape)?.into_object(py)
}

/// Position of the first greatest (`greatest`) or least element along an axis.
#[pyfunction]
fn arg_reduce(py: Python<'_>, greatest: bool, x: Any<'_, '_>, axis: usize) -> PyResult<Py<PyAny>> {
    let x = traced("argmax", x)?;
    check_axis("argmax", x, axis)?;
    on_logical(py, x, |tape, node| tape.builder.arg_reduce(greatest, node, axis))
}

#[pyfunction]
fn argsort(py: Python<'_>, x: Any<'_, '_>, axis: usize) -> PyResult<Py<PyAny>> {
    let x = traced("argsort", x)?;
    check_axis("argsort", x, axis)?;
    on_logical(py, x, |tape, node| tape.builder.argsort(node, axis))
}

/// Cumulative sum along an axis, laid out as a ufunc of x.
#[pyfunction]
#[pyo3(signature = (x, axis, reverse = false))]
fn cumulative_sum(py: Python<'_>, x: Any<'_, '_>, axis: usize, reverse: bool) -> PyResult<Py<PyAny>> {
    let x = traced("cumsum", x)?;
    check_axis("cumsum", x, axis)?;
    let order = walk_order(x);
    let place = inverse(&order)[axis];
    let memory = x.layout().transposed(&order);
    let tape = x.tape();
    let node = tape.record(py, |tape| {
        let node = x.read(py, tape, &memory)?;
        tape.builder.cumulative_sum(node, place, reverse)
    })?;
    Tracer::new_array(py, Arc::clone(tape), node, x.dtype(), Layout::ordered(x.shape(), &order))?.into_object(py)
}

/// s₀ = b₀, s_k = a_k·s_{k−1} + b_k along an axis of two arrays of one shape.
#[pyfunction]
#[pyo3(signature = (a, b, axis, reverse = false))]
fn linear_recurrence<'py>(
    py: Python<'py>,
    a: Any<'_, 'py>,
    b: Any<'_, 'py>,
    axis: usize,
    reverse: bool,
) -> PyResult<Py<PyAny>> {
    let pair = [Operand::coerced(a)?, Operand::coerced(b)?];
    let (dtype, rank) = (promote(&pair), pair[0].rank().max(pair[1].rank()));
    if axis >= rank {
        return Err(axis_error("linear_recurrence", pair[0].shape()));
    }
    let order = crate::operand::result_order(rank, &pair);
    let place = inverse(&order)[axis];
    let result = elementwise::record(py, "linear_recurrence", &pair, &[dtype; 2], dtype, |tape, nodes| {
        let builder = &tape.builder;
        let shape =
            broadcast_shapes([&builder.shape(nodes[0])[..], &builder.shape(nodes[1])].into_iter()).unwrap_or_default();
        let (a, b) = (builder.broadcast(nodes[0], &shape)?, builder.broadcast(nodes[1], &shape)?);
        builder.linear_recurrence(a, b, place, reverse, false)
    })?;
    result.into_object(py)
}

/// The general product: batch axes, then the free axes of a, then of b; in C order.
#[pyfunction]
fn dot_general<'py>(
    py: Python<'py>,
    a: Any<'_, 'py>,
    b: Any<'_, 'py>,
    lhs_batch: Vec<usize>,
    rhs_batch: Vec<usize>,
    lhs_contract: Vec<usize>,
    rhs_contract: Vec<usize>,
) -> PyResult<Py<PyAny>> {
    let pair = [Operand::coerced(a)?, Operand::coerced(b)?];
    let axes = DotAxes { lhs_batch, rhs_batch, lhs_contract, rhs_contract };
    let shapes = [pair[0].shape().to_vec(), pair[1].shape().to_vec()];
    let matched = |left: &[usize], right: &[usize]| {
        left.len() == right.len()
            && left.iter().zip(right).all(|(&i, &j)| {
                shapes[0].get(i).is_some_and(|extent| shapes[1].get(j).is_some_and(|other| extent == other))
            })
    };
    if !matched(&axes.lhs_batch, &axes.rhs_batch) || !matched(&axes.lhs_contract, &axes.rhs_contract) {
        return Err(raise(
            Error::shape(
                "dot",
                format!("shapes do not fit: {} and {}", shape_text(&shapes[0]), shape_text(&shapes[1])),
            )
            .with_hint("axes that are summed or matched must have equal extents"),
        ));
    }
    let wanted = natural_axes(&axes, [shapes[0].len(), shapes[1].len()]);
    let shape: Vec<i64> = wanted.iter().map(|&(side, axis)| shapes[side][axis]).collect();
    contract(py, &pair, &axes, &wanted, &shape)?.into_object(py)
}

/// The arrays joined along an axis, in the layout that `np.concatenate` gives.
#[pyfunction]
fn concatenate<'py>(py: Python<'py>, arrays: &Bound<'py, PyList>, axis: usize) -> PyResult<Py<PyAny>> {
    let arrays = collected("concatenate", (0..arrays.len()).map(|index| arrays.get_item(index)))?;
    let operands = operands(&arrays)?;
    let first = operands.first().map(|operand| operand.shape().to_vec()).unwrap_or_default();
    let fits =
        |shape: &[i64]| shape.len() == first.len() && (0..first.len()).all(|at| at == axis || shape[at] == first[at]);
    if axis >= first.len() || !operands.iter().all(|operand| fits(operand.shape())) {
        let shapes = operands.iter().map(|operand| shape_text(operand.shape())).collect::<Vec<_>>().join(", ");
        return Err(raise(
            Error::shape("concatenate", format!("arrays cannot be joined along axis {axis}: shapes {shapes}"))
                .with_hint(
                    "all extents but the one along the axis must be equal; zero-dimensional arrays need np.stack",
                ),
        ));
    }
    let dtype = promote(&operands);
    let tape = innermost(&operands)?;
    let rank = first.len();
    let layouts = tables::list("concatenate", operands.iter().map(Operand::numpy_layout)).map_err(raise)?;
    let order = concatenation_order(rank, &layouts);
    let place = inverse(&order)[axis];
    let prepared = operands.iter().map(|operand| prepare(py, tape, operand, dtype, rank, Some(&order)));
    let sources = collected("concatenate", prepared)?;
    let node = tape.record(py, |tape| {
        let nodes = tables::tried("concatenate", sources.iter().map(|source| source.node(py, tape, dtype, false)))?;
        tape.builder.concatenate(&nodes, place)
    })?;
    let mut shape = first;
    shape[axis] = operands.iter().map(|operand| operand.shape()[axis]).sum();
    Tracer::new_array(py, Arc::clone(tape), node, dtype, Layout::ordered(&shape, &order))?.into_object(py)
}

/// x with `widths[axis] = (before, after)` elements of the scalar `fill` around it.
#[pyfunction]
fn pad<'py>(py: Python<'py>, x: Any<'_, 'py>, fill: Any<'_, 'py>, widths: Vec<(i64, i64)>) -> PyResult<Py<PyAny>> {
    let pair = [Operand::coerced(x)?, Operand::coerced(fill)?];
    if widths.len() != pair[0].rank() || pair[1].rank() != 0 {
        let what = format!(
            "{} pairs of widths and a fill of {} axes for {} axes",
            widths.len(),
            pair[1].rank(),
            pair[0].rank()
        );
        return Err(refusal(ErrorKind::Value, "pad", what, "give one pair an axis, and a scalar to fill with"));
    }
    let dtype = pair[0].own_dtype();
    if let Operand::Traced(fill) = &pair[1] {
        refuse_lost_gradient(py, "pad", dtype, fill)?;
    }
    let tape = innermost(&pair)?;
    // F order stays F, anything else becomes C.
    let layout = pair[0].numpy_layout();
    let fortran = layout.is_f_contiguous(pair[0].unit()) && !layout.is_c_contiguous(pair[0].unit());
    let rank = widths.len();
    let order: Vec<usize> = if fortran { (0..rank).rev().collect() } else { (0..rank).collect() };
    let source = prepare(py, tape, &pair[0], dtype, rank, Some(&order))?;
    let filling = plain(py, tape, &pair[1], dtype)?;
    let in_memory: Vec<(i64, i64)> = order.iter().map(|&axis| widths[axis]).collect();
    let node = tape.record(py, |tape| {
        let node = source.node(py, tape, dtype, false)?;
        let fill = filling.node(py, tape, dtype, false)?;
        tape.builder.pad(node, fill, &in_memory)
    })?;
    let shape: Vec<i64> =
        pair[0].shape().iter().zip(&widths).map(|(extent, (before, after))| extent + before + after).collect();
    Tracer::new_array(py, Arc::clone(tape), node, dtype, Layout::ordered(&shape, &order))?.into_object(py)
}

/// The innermost tape and int64 sources of one shape for `x[i₀, …]` on leading axes.
struct Scattered<'a, 'py> {
    values: Vec<Operand<'a, 'py>>,
    indices: Vec<Operand<'a, 'py>>,
    shape: Vec<i64>,
}

impl<'a, 'py> Scattered<'a, 'py> {
    fn new(values: &'a [Bound<'py, PyAny>], indices: &'a [Bound<'py, PyAny>]) -> PyResult<Self> {
        let (values, indices) = (operands(values)?, operands(indices)?);
        let shape = crate::operand::broadcast("index", &indices)?;
        Ok(Scattered { values, indices, shape })
    }

    fn record(
        &self,
        py: Python<'py>,
        dtype: DType,
        build: impl FnOnce(&mut crate::tape::Tape, &[NodeId], &[NodeId]) -> ckad_graph::Result<NodeId>,
    ) -> PyResult<Py<PyAny>> {
        let all: Vec<Operand<'_, '_>> = self.values.iter().chain(&self.indices).map(Operand::duplicate).collect();
        let tape = innermost(&all)?;
        let values = self.values.iter().map(|value| plain(py, tape, value, dtype)).collect::<PyResult<Vec<_>>>()?;
        let indices =
            self.indices.iter().map(|index| plain(py, tape, index, DType::I64)).collect::<PyResult<Vec<_>>>()?;
        let (node, shape) = tape.record(py, |tape| {
            let values = values
                .iter()
                .map(|value| value.node(py, tape, dtype, false))
                .collect::<ckad_graph::Result<Vec<_>>>()?;
            let mut positions = Vec::with_capacity(indices.len());
            for index in &indices {
                let node = index.node(py, tape, DType::I64, false)?;
                positions.push(tape.builder.broadcast(node, &self.shape)?);
            }
            let node = build(tape, &values, &positions)?;
            Ok((node, tape.builder.shape(node)))
        })?;
        Tracer::result(py, &Arc::clone(tape), node, dtype, &shape)?.into_object(py)
    }
}

/// `out[I…, rest…] = x[i₀[I], …, rest…]`, the indices on x's leading axes.
#[pyfunction]
fn gather<'py>(py: Python<'py>, x: Any<'_, 'py>, indices: Vec<Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
    let values = [x.clone()];
    let scattered = Scattered::new(&values, &indices)?;
    let dtype = scattered.values[0].own_dtype();
    scattered.record(py, dtype, |tape, values, indices| tape.builder.gather(values[0], indices))
}

/// A new array: x with `value` added at the indices, duplicates in turn.
#[pyfunction]
fn scatter_add<'py>(
    py: Python<'py>,
    x: Any<'_, 'py>,
    value: Any<'_, 'py>,
    indices: Vec<Bound<'py, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let values = [x.clone(), value.clone()];
    let scattered = Scattered::new(&values, &indices)?;
    let dtype = scattered.values[0].own_dtype();
    let mut target = scattered.shape.clone();
    target.extend(scattered.values[0].shape().get(indices.len()..).unwrap_or_default());
    scattered.record(py, dtype, |tape, values, indices| {
        let value = tape.builder.broadcast(values[1], &target)?;
        tape.builder.scatter_add(values[0], value, indices)
    })
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    macro_rules! add {
        ($($function:path),* $(,)?) => { $(module.add_function(wrap_pyfunction!($function, module)?)?;)* };
    }
    add!(
        apply,
        cast,
        stop_gradient,
        iteration_order,
        reduction_axes,
        crate::shapes::axes_hint,
        reduce,
        arg_reduce,
        argsort,
        cumulative_sum,
        linear_recurrence,
        dot_general,
        concatenate,
        pad,
        gather,
        scatter_add,
        crate::function::register_function,
        crate::function::register_method,
        crate::function::register_creation,
        crate::function::register_hints,
    );
    // Arrays are a subclass that needs no name of its own: `isinstance(x, Tracer)` holds for both.
    module.add_class::<Tracer>()
}
