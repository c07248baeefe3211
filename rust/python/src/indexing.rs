//! `x[index]` and `x[index] = value`: views and strided writes, gathers and scatters.

use std::sync::Arc;

use ckad_graph::{DType, Error, NodeId, shape_text};
use ckad_prim::Elementwise;
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::elementwise::record_into;
use crate::errors::raise;
use crate::index::{Item, Positions, Selection, parse, select, shapes_do_not_broadcast, wrap};
use crate::layout::{Layout, broadcast_shapes};
use crate::operand::{Operand, Source, innermost, prepare, prepare_with, result_order};
use crate::shapes::{Order, copy};
use crate::storage::{Storage, View};
use crate::tape::{Tape, TapeCell};
use crate::tracer::{Kind, Tracer};

/// `x[index]`.
pub fn get_item(py: Python<'_>, this: &Tracer, index: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let (storage, view) = match this.kind() {
        Kind::Array { storage, view } => (storage, view),
        Kind::Scalar { .. } => return index_scalar(py, this, index),
    };
    // The commonest case, an integer, without taking the index apart.
    if index.is_exact_instance_of::<PyInt>()
        && let Some(&extent) = view.layout.shape.first()
        && let Ok(position) = index.extract::<i64>()
    {
        let position = wrap(position, 0, extent)?;
        let element = view.map(|layout| layout.indexed(0, position));
        return viewed(py, storage, element, view.layout.rank() == 1)?.into_object(py);
    }
    let selection = select(py, view, parse(index)?)?;
    if selection.positions.is_empty() {
        let viewed = viewed(py, storage, selection.view, selection.scalar)?;
        return if selection.copied { copy(py, &viewed, Order::K)? } else { viewed }.into_object(py);
    }
    gather(py, storage, &selection)?.into_object(py)
}

/// A view, or the value of its one element where NumPy gives a scalar.
fn viewed(py: Python<'_>, storage: &Arc<Storage>, view: View, scalar: bool) -> PyResult<Tracer> {
    if !scalar {
        return Ok(Tracer::view_of(Arc::clone(storage), view));
    }
    let node = storage.tape.record(py, |tape| storage.read(py, tape, &view.layout))?;
    Tracer::new_scalar(py, Arc::clone(&storage.tape), node, storage.dtype)
}

/// NumPy's scalars take `()`, `...` and `None`.
fn index_scalar(py: Python<'_>, this: &Tracer, index: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let items = parse(index)?;
    let Kind::Scalar { tape, node, dtype, .. } = this.kind() else {
        return Err(raise(Error::internal("index", "not a scalar")));
    };
    let view = View::new(Layout::contiguous(&[]), false);
    let selection = select(py, &view, items)?;
    if selection.scalar {
        return Tracer::new_scalar(py, Arc::clone(tape), *node, *dtype)?.into_object(py);
    }
    let storage = Storage::new(py, Arc::clone(tape), *dtype, *node)?;
    if selection.positions.is_empty() {
        return Tracer::view_of(storage, selection.view).into_object(py);
    }
    gather(py, &storage, &selection)?.into_object(py)
}

/// The advanced indices of a selection as operands of one shape and order.
struct Indices<'a, 'py> {
    operands: Vec<Operand<'a, 'py>>,
    /// Broadcast shape, logical.
    shape: Vec<i64>,
    /// Order of its axes in memory: that of the index arrays.
    order: Vec<usize>,
}

impl<'a, 'py> Indices<'a, 'py> {
    fn new(positions: &'a [(usize, Positions<'py>)], integers: &'a [Bound<'py, PyAny>]) -> PyResult<Self> {
        let operands = positions
            .iter()
            .zip(integers)
            .map(|((_, positions), integer)| match positions {
                Positions::Integer(_) => Ok(Operand::PythonInt(integer)),
                Positions::Fixed(array) => Operand::of_array(array.clone()),
                Positions::Traced(tracer) => Ok(Operand::Traced(tracer.get())),
            })
            .collect::<PyResult<Vec<_>>>()?;
        let shape = broadcast_shapes(operands.iter().map(Operand::shape))
            .ok_or_else(|| shapes_do_not_broadcast(&operands.iter().map(Operand::shape).collect::<Vec<_>>()))?;
        let order = result_order(shape.len(), &operands);
        Ok(Indices { operands, shape, order })
    }

    fn sources(&self, py: Python<'_>, tape: &Arc<TapeCell>) -> PyResult<Vec<Source<'a>>> {
        let rank = self.shape.len();
        self.operands.iter().map(|operand| prepare(py, tape, operand, DType::I64, rank, Some(&self.order))).collect()
    }

    fn nodes(&self, py: Python<'_>, tape: &mut Tape, sources: &[Source<'_>]) -> ckad_graph::Result<Vec<NodeId>> {
        let shape: Vec<i64> = self.order.iter().map(|&axis| self.shape[axis]).collect();
        sources
            .iter()
            .map(|source| {
                let node = index_node(py, tape, source)?;
                tape.builder.broadcast(node, &shape)
            })
            .collect()
    }
}

/// An index as a node. Positions are no part of a program's structure: the same program serves `x[0, i]` and `x[1, i]`.
fn index_node(py: Python<'_>, tape: &mut Tape, source: &Source<'_>) -> ckad_graph::Result<NodeId> {
    match source {
        Source::Scalar(bits, _) => tape.builder.scalar(DType::I64, *bits),
        other => other.node(py, tape, DType::I64, false),
    }
}

/// How a selection with positions lies: which axes lead, and where NumPy puts the axes of the result.
struct Arrangement {
    /// Axes of the view: those with positions, then the others in memory order.
    axes: Vec<usize>,
    /// Shape of what is gathered: the indices' axes in memory order, then the others.
    memory_shape: Vec<i64>,
    /// For each axis of NumPy's result its axis in `memory_shape`.
    places: Vec<usize>,
}

fn arrange(selection: &Selection<'_>, indices: &Indices<'_, '_>) -> Arrangement {
    let layout = &selection.view.layout;
    let indexed: Vec<usize> = selection.positions.iter().map(|(axis, _)| *axis).collect();
    let rest: Vec<usize> = selection.view.memory_order().into_iter().filter(|axis| !indexed.contains(axis)).collect();
    let lead = indices.shape.len();
    let mut memory_shape: Vec<i64> = indices.order.iter().map(|&axis| indices.shape[axis]).collect();
    memory_shape.extend(rest.iter().map(|&axis| layout.shape[axis]));
    let mut sorted = rest.clone();
    sorted.sort_unstable();
    // `rest` and `sorted` hold the same axes, and `order` is a permutation: each is found.
    let place = |list: &[usize], axis: usize| list.iter().position(|&found| found == axis).unwrap_or(0);
    let mut places: Vec<usize> = sorted.iter().map(|&axis| lead + place(&rest, axis)).collect();
    let of_indices = (0..lead).map(|axis| place(&indices.order, axis));
    places.splice(selection.placement..selection.placement, of_indices);
    let axes = indexed.into_iter().chain(rest).collect();
    Arrangement { axes, memory_shape, places }
}

/// Positions that are single integers, as Python objects for the operands.
fn integer_objects<'py>(py: Python<'py>, selection: &Selection<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    selection
        .positions
        .iter()
        .map(|(_, positions)| {
            let value = if let Positions::Integer(value) = positions { *value } else { 0 };
            Ok(value.into_pyobject(py)?.into_any())
        })
        .collect()
}

fn gather<'py>(py: Python<'py>, storage: &Arc<Storage>, selection: &Selection<'py>) -> PyResult<Tracer> {
    let integers = integer_objects(py, selection)?;
    let indices = Indices::new(&selection.positions, &integers)?;
    let arrangement = arrange(selection, &indices);
    let source = Tracer::view_of(Arc::clone(storage), selection.view.clone());
    let mut operands = vec![Operand::Traced(&source)];
    operands.extend(selection.positions.iter().filter_map(|(_, positions)| match positions {
        Positions::Traced(tracer) => Some(Operand::Traced(tracer.get())),
        _ => None,
    }));
    let tape = innermost(&operands)?;
    let base = prepare_with(py, tape, &operands[0], storage.dtype, |layout| layout.transposed(&arrangement.axes))?;
    let sources = indices.sources(py, tape)?;
    let node = tape.record(py, |tape| {
        let base = base.node(py, tape, storage.dtype, false)?;
        let nodes = indices.nodes(py, tape, &sources)?;
        tape.builder.gather(base, &nodes)
    })?;
    if selection.scalar {
        return Tracer::new_scalar(py, Arc::clone(tape), node, storage.dtype);
    }
    let layout = Layout::contiguous(&arrangement.memory_shape).transposed(&arrangement.places);
    Tracer::array(py, Arc::clone(tape), node, layout, selection.stands_for_view)
}

/// `x[index] = value`.
pub fn set_item(py: Python<'_>, this: &Tracer, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = "setitem";
    let (storage, view) = match this.kind() {
        Kind::Array { storage, view } => (storage, view),
        Kind::Scalar { .. } => return this.writable(py, name).map(|_| ()),
    };
    let items = parse(index)?;
    if let Some(done) = set_masked(py, this, &items, value)? {
        return Ok(done);
    }
    this.writable(py, name)?;
    let selection = select(py, view, items)?;
    if selection.positions.is_empty() && writes_itself(storage, &selection.view, value) {
        return Ok(());
    }
    let value = Operand::coerced(value)?;
    this.check_owns(py, name, std::slice::from_ref(&value))?;
    if selection.positions.is_empty() {
        return assign(py, name, storage, &selection.view, &value);
    }
    scatter(py, this, storage, &selection, &value)
}

/// The last step of `x[i] += 1`: the view that was changed in place is assigned to where it already is.
fn writes_itself(storage: &Arc<Storage>, view: &View, value: &Bound<'_, PyAny>) -> bool {
    let Ok(value) = value.cast::<Tracer>() else { return false };
    match value.get().kind() {
        Kind::Array { storage: other, view: other_view } => Arc::ptr_eq(storage, other) && view.same_place(other_view),
        Kind::Scalar { .. } => false,
    }
}

fn misfit(name: &str, value: &[i64], target: &[i64]) -> PyErr {
    raise(
        Error::shape(
            name,
            format!(
                "could not broadcast input array from shape {} into shape {}",
                shape_text(value),
                shape_text(target)
            ),
        )
        .with_hint("the value's extents must be equal to the target's or 1"),
    )
}

/// How many leading axes of length 1 the value has beyond the target's rank; an error where it does not fit.
fn surplus_axes(name: &str, value: &[i64], target: &[i64]) -> PyResult<usize> {
    let surplus = value.len().saturating_sub(target.len());
    let fits = value[..surplus].iter().all(|&extent| extent == 1)
        && Layout::contiguous(&value[surplus..]).broadcast(target).is_some();
    if fits { Ok(surplus) } else { Err(misfit(name, value, target)) }
}

/// The value's source in the order `order` of the target's axes.
fn assigned<'a>(
    py: Python<'_>,
    name: &str,
    storage: &Storage,
    value: &Operand<'a, '_>,
    target: &[i64],
    order: &[usize],
) -> PyResult<Source<'a>> {
    let surplus = surplus_axes(name, value.shape(), target)?;
    let missing = target.len() - (value.rank() - surplus);
    prepare_with(py, &storage.tape, value, storage.dtype, |layout| {
        let mut layout = layout;
        for _ in 0..surplus {
            layout = layout.indexed(0, 0);
        }
        for _ in 0..missing {
            layout = layout.expanded(0);
        }
        layout.transposed(order)
    })
}

/// `view[...] = value`, with the conversion that assignment does.
pub fn assign(
    py: Python<'_>,
    name: &str,
    storage: &Arc<Storage>,
    view: &View,
    value: &Operand<'_, '_>,
) -> PyResult<()> {
    let order = view.layout.memory_order(1);
    let destination = view.layout.transposed(&order);
    let source = assigned(py, name, storage, value, &view.layout.shape, &order)?;
    storage.write(py, &destination, |tape| {
        let node = source.node(py, tape, storage.dtype, false)?;
        tape.builder.broadcast(node, &destination.shape)
    })
}

fn scatter<'py>(
    py: Python<'py>,
    this: &Tracer,
    storage: &Arc<Storage>,
    selection: &Selection<'py>,
    value: &Operand<'_, '_>,
) -> PyResult<()> {
    let name = "setitem";
    let integers = integer_objects(py, selection)?;
    let indices = Indices::new(&selection.positions, &integers)?;
    this.check_owns(py, name, &indices.operands)?;
    let arrangement = arrange(selection, &indices);
    let base = selection.view.layout.transposed(&arrangement.axes);
    let target: Vec<i64> = arrangement.places.iter().map(|&place| arrangement.memory_shape[place]).collect();
    let order = crate::layout::inverse(&arrangement.places);
    let source = assigned(py, name, storage, value, &target, &order)?;
    let sources = indices.sources(py, &storage.tape)?;
    storage.write(py, &base, |tape| {
        let before = storage.read(py, tape, &base)?;
        let nodes = indices.nodes(py, tape, &sources)?;
        let node = source.node(py, tape, storage.dtype, false)?;
        let node = tape.builder.broadcast(node, &arrangement.memory_shape)?;
        tape.builder.scatter_set(before, node, &nodes)
    })
}

/// `x[mask] = scalar` with a mask of x's shape is a selection, which needs no positions and forces nothing.
fn set_masked(py: Python<'_>, this: &Tracer, items: &[Item<'_>], value: &Bound<'_, PyAny>) -> PyResult<Option<()>> {
    let mask = match items {
        [Item::Mask(mask)] if matches_shape(mask, this.shape()) => Operand::of_array(mask.clone())?,
        [Item::TracedMask(mask)] if mask.get().shape() == this.shape() => Operand::Traced(mask.get()),
        _ => return Ok(None),
    };
    let Some(value) = Operand::new(value)? else { return Ok(None) };
    if value.rank() > 0 || this.rank() == 0 {
        return Ok(None);
    }
    let dtype = this.dtype();
    let operands = [mask, value, Operand::Traced(this)];
    record_into(py, "setitem", &operands, &[DType::Bool, dtype, dtype], dtype, this, |tape, nodes| {
        tape.builder.elementwise(Elementwise::Select, nodes)
    })?;
    Ok(Some(()))
}

fn matches_shape(mask: &Bound<'_, PyUntypedArray>, shape: &[i64]) -> bool {
    mask.ndim() == shape.len() && mask.shape().iter().zip(shape).all(|(&a, &b)| a as i64 == b)
}
