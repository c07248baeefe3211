//! Methods that change the shape of a traced array, view or copy exactly where NumPy makes one, and copies.

use std::sync::Arc;

use ckad_graph::{DType, Error, ErrorKind, shape_text};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyTuple};

use crate::errors::{in_form, raise, refusal};
use crate::indexing::assign;
use crate::layout::{Layout, broadcast_strides, iteration_order};
use crate::operand::Operand;
use crate::storage::{Storage, View};
use crate::tracer::{Kind, Tracer};

/// `order=` of NumPy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    C,
    F,
    /// F where the array is in F order and not in C order.
    A,
    /// The array's own.
    K,
}

impl Order {
    /// The order that a method was given; `usual` where it was given none.
    pub fn parse(given: Option<&Bound<'_, PyAny>>, usual: Order) -> PyResult<Order> {
        const HINT: &str = "write order='C', or leave it out";
        let Some(given) = given else { return Ok(usual) };
        let Ok(text) = given.extract::<&str>() else {
            let what = format!("order must be str, not {}", given.get_type().name()?);
            return Err(refusal(ErrorKind::Type, "order", what, HINT));
        };
        match text {
            "C" | "c" => Ok(Order::C),
            "F" | "f" => Ok(Order::F),
            "A" | "a" => Ok(Order::A),
            "K" | "k" => Ok(Order::K),
            _ => {
                let what = format!("order must be one of 'C', 'F', 'A', or 'K' (got '{text}')");
                Err(refusal(ErrorKind::Value, "order", what, HINT))
            }
        }
    }
}

/// Whole numbers given to `op` as `f(2, 3)`, `f((2, 3))` or `f(6)`: a shape, or axes.
pub fn parse_shape(op: &str, arguments: &Bound<'_, PyTuple>) -> PyResult<Vec<i64>> {
    if arguments.len() == 1 {
        return shape_of(op, &arguments.get_item(0)?);
    }
    arguments.iter_borrowed().map(|extent| integer(op, &extent)).collect()
}

/// What `x.reshape(…)` is given: extents, one sequence of them, or None for the shape that x has.
pub fn method_shape(this: &Tracer, arguments: &Bound<'_, PyTuple>) -> PyResult<Vec<i64>> {
    match arguments.len() {
        0 => {
            let what = "reshape() takes exactly 1 argument (0 given)";
            Err(refusal(ErrorKind::Type, "reshape", what, "give the shape: x.reshape(2, 3), or x.reshape(-1)"))
        }
        1 if arguments.get_item(0)?.is_none() => Ok(this.shape().to_vec()),
        _ => parse_shape("reshape", arguments),
    }
}

/// An int, or a sequence of them. What can be read only once is none, and is not read.
pub fn shape_of(op: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    if let Ok(extents) = object.cast::<PyTuple>() {
        return extents.iter_borrowed().map(|extent| integer(op, &extent)).collect();
    }
    match object.extract::<i64>() {
        Ok(_) => Ok(vec![integer(op, object)?]),
        Err(_) if object.len().is_ok() => object.try_iter()?.map(|extent| integer(op, &extent?)).collect(),
        Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => integer(op, object).map(|one| vec![one]),
        Err(error) => {
            let what = format!("expected a sequence of integers or a single integer, got '{object}'");
            Err(in_form(object.py(), op, error, Some(what), WHOLE_NUMBERS))
        }
    }
}

const WHOLE_NUMBERS: &str = "give whole numbers, one or a tuple of them; int(n) makes one of a float";

/// A number among the arguments of `op`, where NumPy takes a bool for one.
pub fn integer_or_bool(op: &str, object: &Bound<'_, PyAny>) -> PyResult<i64> {
    object.extract().map_err(|error| in_form(object.py(), op, error, None, WHOLE_NUMBERS))
}

/// An extent or an axis among the arguments of `op`. Bools, which Python counts as integers, are none.
fn integer(op: &str, object: &Bound<'_, PyAny>) -> PyResult<i64> {
    integer_or(op, object, WHOLE_NUMBERS)
}

/// [`integer`] with a hint of its own.
fn integer_or(op: &str, object: &Bound<'_, PyAny>, hint: &str) -> PyResult<i64> {
    if object.is_instance_of::<PyBool>() {
        let hint = "True and False are refused as extents and axes; write 1 or 0";
        return Err(refusal(ErrorKind::Type, op, "an integer is required", hint));
    }
    object.extract().map_err(|error: PyErr| {
        let py = object.py();
        if error.is_instance_of::<PyOverflowError>(py) {
            let hint = "an array has at most 2**63 - 1 elements";
            return refusal(ErrorKind::Value, op, "Maximum allowed dimension exceeded", hint);
        }
        in_form(py, op, error, None, hint)
    })
}

/// Which axes there are.
#[pyfunction]
pub fn axes_hint(rank: usize) -> String {
    match rank {
        0 => "the value has no axes; leave axis= out".to_owned(),
        1 => "the one axis is 0, or -1".to_owned(),
        _ => format!("its axes are 0 to {}, or -{rank} to -1", rank - 1),
    }
}

/// An axis counted from either end, which `op` is to find in that shape.
pub fn normal_axis(op: &str, axis: i64, shape: &[i64]) -> PyResult<usize> {
    let rank = shape.len();
    let normal = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(normal).ok().filter(|&normal| normal < rank).ok_or_else(|| {
        let shape = shape_text(shape);
        let what = format!("axis {axis} is out of bounds for array of dimension {rank}: shape {shape}");
        refusal(ErrorKind::Axis, op, what, axes_hint(rank))
    })
}

/// Axes given as None (all), an int or a tuple; ascending. As in NumPy, axis 0 or -1 of a value of rank 0 is none.
pub fn normal_axes(op: &str, axis: Option<&Bound<'_, PyAny>>, shape: &[i64]) -> PyResult<Vec<usize>> {
    const HINT: &str = "name one axis by its number, or several in a tuple: axis=(0, 1)";
    let rank = shape.len();
    let number = |axis: &Bound<'_, PyAny>| integer_or(op, axis, HINT);
    let Some(axis) = axis.filter(|axis| !axis.is_none()) else { return Ok((0..rank).collect()) };
    let Ok(several) = axis.cast::<PyTuple>() else {
        let axis = number(axis)?;
        let none = rank == 0 && matches!(axis, 0 | -1);
        return if none { Ok(Vec::new()) } else { Ok(vec![normal_axis(op, axis, shape)?]) };
    };
    let mut axes = Vec::with_capacity(several.len());
    for axis in several {
        let axis = normal_axis(op, number(&axis)?, shape)?;
        if axes.contains(&axis) {
            let what = format!("duplicate value in 'axis': axis {axis} of shape {}", shape_text(shape));
            return Err(refusal(ErrorKind::Value, op, what, "name each axis once"));
        }
        axes.push(axis);
    }
    axes.sort_unstable();
    Ok(axes)
}

/// Storage and view of an array; a scalar's value becomes a 0-d array of its own.
fn as_parts(py: Python<'_>, this: &Tracer) -> PyResult<(Arc<Storage>, View)> {
    match this.kind() {
        Kind::Array { storage, view } => Ok((Arc::clone(storage), view.clone())),
        Kind::Scalar { tape, node, dtype, .. } => {
            let storage = Storage::new(py, Arc::clone(tape), *dtype, *node)?;
            Ok((storage, View::new(Layout::contiguous(&[]), false)))
        }
    }
}

/// The shape with −1 filled in.
fn filled(elements: i64, shape: &[i64]) -> PyResult<Vec<i64>> {
    let refused = || {
        raise(
            Error::shape(
                "reshape",
                format!("cannot reshape array of size {elements} into shape {}", shape_text(shape)),
            )
            .with_hint("the product of the extents must be the array's size; one may be -1"),
        )
    };
    let unknown: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis] < 0).collect();
    let known = shape
        .iter()
        .filter(|extent| **extent >= 0)
        .try_fold(1i64, |product, &extent| product.checked_mul(extent))
        .ok_or_else(refused)?;
    let mut filled = shape.to_vec();
    match unknown[..] {
        [] if known == elements => {}
        [axis] if shape[axis] == -1 && known != 0 && elements % known == 0 => filled[axis] = elements / known,
        _ => return Err(refused()),
    }
    Ok(filled)
}

pub fn reshape(py: Python<'_>, this: &Tracer, shape: &[i64], order: Order) -> PyResult<Tracer> {
    let shape = filled(this.elements(), shape)?;
    let (storage, view) = as_parts(py, this)?;
    let fortran = match order {
        Order::C => false,
        Order::F => true,
        Order::A => view.is_f_contiguous() && !view.is_c_contiguous(),
        Order::K => {
            return Err(refusal(ErrorKind::Value, "reshape", "order 'K' is not permitted", "use 'C', 'F' or 'A'"));
        }
    };
    if fortran {
        // Reading and writing the first axis fastest is the same with the axes turned round.
        let reversed: Vec<i64> = shape.iter().rev().copied().collect();
        let turned = Tracer::view_of(storage, reversed_axes(&view));
        return transpose(py, &reshape_c(py, turned, &reversed)?, None);
    }
    reshape_c(py, Tracer::view_of(storage, view), &shape)
}

fn reshape_c(py: Python<'_>, this: Tracer, shape: &[i64]) -> PyResult<Tracer> {
    let (storage, view) = as_parts(py, &this)?;
    if view.unknown_layout && view.layout.rank() > 1 && view.layout.shape != shape {
        storage.mark_undecided_alias(py);
    }
    if let Some(view) = view.reshaped(shape) {
        return Ok(Tracer::view_of(storage, view));
    }
    let node = this.logical_node(py)?;
    let copy = Tracer::new_array(py, Arc::clone(&storage.tape), node, storage.dtype, Layout::contiguous(shape))?;
    if let Kind::Array { storage: copied, .. } = copy.kind()
        && storage.has_undecided_alias(py)
    {
        copied.mark_undecided_alias(py);
    }
    Ok(copy)
}

/// `x.ravel()`: a view only of what is contiguous; `x.reshape(-1)` of a strided view is one, this is not.
pub fn ravel(py: Python<'_>, this: &Tracer, order: Order) -> PyResult<Tracer> {
    let (storage, view) = as_parts(py, this)?;
    let flat = [view.layout.elements()];
    let view = match order {
        Order::C => view,
        Order::F => reversed_axes(&view),
        Order::A if view.is_f_contiguous() && !view.is_c_contiguous() => reversed_axes(&view),
        Order::A => view,
        Order::K => {
            let order = view.memory_order();
            view.map(|layout| layout.transposed(&order))
        }
    };
    if view.is_c_contiguous() {
        return reshape_c(py, Tracer::view_of(storage, view), &flat);
    }
    let view = if order == Order::K { in_walking_order(&as_parts(py, this)?.1) } else { view };
    copied(py, &storage, &view, &flat)
}

/// The view with its axes as `np.nditer` walks them, which a flat copy in K order follows: unlike `x.copy("K")`, it
/// leaves repeated axes where they are.
fn in_walking_order(view: &View) -> View {
    let (layout, _) = view.numpy();
    let rank = layout.rank();
    let order = iteration_order(rank, &[broadcast_strides(&layout.shape, &layout.strides, rank)]);
    view.map(|layout| layout.transposed(&order))
}

/// `x.flatten()`: always a copy.
pub fn flatten(py: Python<'_>, this: &Tracer, order: Order) -> PyResult<Tracer> {
    let (storage, view) = as_parts(py, this)?;
    let fortran = order == Order::F || (order == Order::A && view.is_f_contiguous() && !view.is_c_contiguous());
    let view = if fortran {
        reversed_axes(&view)
    } else if order == Order::K {
        in_walking_order(&view)
    } else {
        view
    };
    copied(py, &storage, &view, &[view.layout.elements()])
}

/// A new array of the view's elements in C order, under `shape`.
fn copied(py: Python<'_>, storage: &Arc<Storage>, view: &View, shape: &[i64]) -> PyResult<Tracer> {
    let node = storage.tape.record(py, |tape| storage.read(py, tape, &view.layout))?;
    Tracer::new_array(py, Arc::clone(&storage.tape), node, storage.dtype, Layout::contiguous(shape))
}

fn reversed_axes(view: &View) -> View {
    let order: Vec<usize> = (0..view.layout.rank()).rev().collect();
    view.map(|layout| layout.transposed(&order))
}

/// `x.T`, `x.transpose(axes)`.
pub fn transpose(py: Python<'_>, this: &Tracer, axes: Option<&[usize]>) -> PyResult<Tracer> {
    let Some(view) = this.with_view(|view| match axes {
        Some(axes) => view.map(|layout| layout.transposed(axes)),
        None => reversed_axes(view),
    }) else {
        return this.alias(py);
    };
    Ok(view)
}

/// The axes of `x.transpose(...)`, None where they are left out.
pub fn transpose_axes(arguments: &Bound<'_, PyTuple>, shape: &[i64]) -> PyResult<Option<Vec<usize>>> {
    let rank = shape.len();
    if arguments.is_empty() || (arguments.len() == 1 && arguments.get_item(0)?.is_none()) {
        return Ok(None);
    }
    let axes = parse_shape("transpose", arguments)?;
    if axes.len() != rank {
        let what = format!("axes don't match array: {} axes for shape {}", axes.len(), shape_text(shape));
        return Err(refusal(ErrorKind::Value, "transpose", what, "name every axis of the array once, or use x.T"));
    }
    let given = axes;
    let axes = given.iter().map(|&axis| normal_axis("transpose", axis, shape)).collect::<PyResult<Vec<usize>>>()?;
    if (0..rank).any(|axis| !axes.contains(&axis)) {
        let what = format!("repeated axis in transpose: {}", shape_text(&given));
        return Err(refusal(ErrorKind::Value, "transpose", what, "name every axis of the array once, or use x.T"));
    }
    Ok(Some(axes))
}

pub fn swap_axes(py: Python<'_>, this: &Tracer, first: i64, second: i64) -> PyResult<Tracer> {
    let shape = this.shape();
    let (first, second) = (normal_axis("swapaxes", first, shape)?, normal_axis("swapaxes", second, shape)?);
    let mut order: Vec<usize> = (0..shape.len()).collect();
    order.swap(first, second);
    transpose(py, this, Some(&order))
}

/// None where there is nothing to squeeze: NumPy then returns the array itself.
pub fn squeeze(this: &Tracer, axis: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Tracer>> {
    let shape = this.shape();
    let given = axis.is_some_and(|axis| !axis.is_none());
    let axes: Vec<usize> =
        normal_axes("squeeze", axis, shape)?.into_iter().filter(|&axis| given || shape[axis] == 1).collect();
    if let Some(&axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        let what = "cannot select an axis to squeeze out which has size not equal to one";
        return Err(refusal(
            ErrorKind::Value,
            "squeeze",
            format!("{what}: axis {axis} of {}", shape_text(shape)),
            "leave axis= out to drop all axes of length 1, or index: x[0]",
        ));
    }
    if axes.is_empty() {
        return Ok(None);
    }
    Ok(this.with_view(|view| view.map(|layout| layout.squeezed(|axis| axes.contains(&axis)))))
}

/// A read-only view, as NumPy returns it.
pub fn diagonal(this: &Tracer, shift: i64, first: i64, second: i64) -> PyResult<Tracer> {
    let rank = this.rank();
    if rank < 2 {
        let what = format!("diag requires an array of at least two dimensions, not shape {}", shape_text(this.shape()));
        return Err(refusal(ErrorKind::Value, "diagonal", what, "np.diag(x) makes a matrix of a vector"));
    }
    let (first, second) =
        (normal_axis("diagonal", first, this.shape())?, normal_axis("diagonal", second, this.shape())?);
    if first == second {
        let what = format!("axis1 and axis2 cannot be the same: both are {first}");
        return Err(refusal(ErrorKind::Value, "diagonal", what, "name two axes, or leave them out"));
    }
    let view = this.with_view(|view| {
        let mut diagonal = view.map(|layout| layout.diagonal(shift, first, second));
        diagonal.read_only = true;
        diagonal
    });
    view.ok_or_else(|| raise(Error::internal("diagonal", "an array without a view")))
}

/// `x.copy(order)`.
pub fn copy(py: Python<'_>, this: &Tracer, order: Order) -> PyResult<Tracer> {
    let Kind::Array { storage, view } = this.kind() else { return this.alias(py) };
    let rank = view.layout.rank();
    let fortran = order == Order::F || (order == Order::A && view.is_f_contiguous() && !view.is_c_contiguous());
    let order: Vec<usize> = match order {
        Order::K => view.memory_order(),
        _ if fortran => (0..rank).rev().collect(),
        _ => (0..rank).collect(),
    };
    let memory = view.layout.transposed(&order);
    let node = storage.tape.record(py, |tape| storage.read(py, tape, &memory))?;
    let layout = Layout::ordered(&view.layout.shape, &order);
    Tracer::new_array(py, Arc::clone(&storage.tape), node, storage.dtype, layout)
}

/// `x.astype(dtype)`, always a copy.
pub fn as_type(py: Python<'_>, this: &Tracer, dtype: DType, order: Order) -> PyResult<Tracer> {
    let copied = copy(py, this, order)?;
    if copied.dtype() == dtype {
        return Ok(copied.weak_if(false));
    }
    let tape = Arc::clone(copied.tape());
    let node = copied.current_node();
    let node = tape.record(py, |tape| tape.builder.cast(node, dtype))?;
    match copied.kind() {
        Kind::Scalar { .. } => Tracer::new_scalar(py, tape, node, dtype),
        Kind::Array { view, .. } => Tracer::new_array(py, tape, node, dtype, Layout::clone(&view.layout)),
    }
}

/// `x.fill(value)`.
pub fn fill(py: Python<'_>, this: &Tracer, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let (storage, view) = this.writable(py, "fill")?;
    let Some(value) = Operand::new(value)? else {
        let what = format!("the value must be a number, not {}", value.get_type().name()?);
        return Err(refusal(ErrorKind::Type, "fill", what, "write x[...] = values to fill an array from a list"));
    };
    this.check_owns(py, "fill", std::slice::from_ref(&value))?;
    assign(py, "fill", storage, view, &value)
}
