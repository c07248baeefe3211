//! Operands of one operation: traced values, arrays and scalars, brought onto one tape, one dtype and one order of
//! axes.
//!
//! An operation belongs to the innermost trace among its operands; values of enclosing traces enter it as captures.
//! Operands are read in the order in which the result will lie in memory, so that arrays which share a layout need
//! no transposition.

use std::sync::Arc;

use ckad_graph::{DType, DTypeKind, Error, NodeId, ScalarBits, shape_text};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::convert::{Foreign, array_dtype, array_operand, as_array, classify, scalar_bits, scalar_node};
use crate::errors::raise;
use crate::layout::{Layout, broadcast_shapes, broadcast_strides, is_identity, iteration_order};
use crate::numbers::number_node;
use crate::storage::read_layout;
use crate::tape::{Tape, TapeCell};
use crate::tracer::{Kind, Tracer};

/// One operand as the user gave it.
pub enum Operand<'a, 'py> {
    Traced(&'a Tracer),
    Array {
        array: Bound<'py, PyUntypedArray>,
        shape: Vec<i64>,
        strides: Vec<i64>,
        dtype: DType,
    },
    NumpyScalar(&'a Bound<'py, PyAny>, DType),
    /// Weak: they take the dtype of what they meet.
    PythonInt(&'a Bound<'py, PyAny>),
    /// With the object, where a program has one.
    PythonFloat(f64, Option<&'a Py<PyAny>>),
    PythonBool(bool),
}

impl<'a, 'py> Operand<'a, 'py> {
    /// None for objects that are neither numbers nor arrays.
    pub fn new(object: &'a Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        if let Ok(tracer) = object.cast::<Tracer>() {
            tracer.get().check_alive(object.py())?;
            return Ok(Some(Operand::Traced(tracer.get())));
        }
        Ok(Some(match classify(object)? {
            Foreign::PythonFloat(value) => Operand::PythonFloat(value, Some(object.as_unbound())),
            Foreign::PythonInt => Operand::PythonInt(object),
            Foreign::PythonBool(value) => Operand::PythonBool(value),
            Foreign::NumpyScalar(dtype) => Operand::NumpyScalar(object, dtype),
            Foreign::Array => Self::of_array(object.cast::<PyUntypedArray>()?.clone())?,
            Foreign::Other => return Ok(None),
        }))
    }

    /// Also takes lists and tuples, through `np.asarray`.
    pub fn coerced(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        match Self::new(object)? {
            Some(operand) => Ok(operand),
            None => Self::of_array(as_array(object)?),
        }
    }

    pub fn of_array(array: Bound<'py, PyUntypedArray>) -> PyResult<Self> {
        let dtype = array_dtype(&array)?;
        let shape = array.shape().iter().map(|&extent| extent as i64).collect();
        let strides = array.strides().iter().map(|&stride| stride as i64).collect();
        Ok(Operand::Array { array, shape, strides, dtype })
    }

    pub fn shape(&self) -> &[i64] {
        match self {
            Operand::Traced(tracer) => tracer.shape(),
            Operand::Array { shape, .. } => shape,
            _ => &[],
        }
    }

    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// The same operand once more.
    pub fn duplicate(&self) -> Operand<'a, 'py> {
        match self {
            Operand::Traced(tracer) => Operand::Traced(tracer),
            Operand::Array { array, shape, strides, dtype } => {
                Operand::Array { array: array.clone(), shape: shape.clone(), strides: strides.clone(), dtype: *dtype }
            }
            Operand::NumpyScalar(object, dtype) => Operand::NumpyScalar(object, *dtype),
            Operand::PythonInt(object) => Operand::PythonInt(object),
            Operand::PythonFloat(value, object) => Operand::PythonFloat(*value, *object),
            Operand::PythonBool(value) => Operand::PythonBool(*value),
        }
    }

    /// The dtype that the operand brings along; weak scalars bring none.
    pub fn strong_dtype(&self) -> Option<DType> {
        match self {
            Operand::Traced(tracer) if tracer.is_weak() && tracer.dtype() != DType::Bool => None,
            Operand::Traced(tracer) => Some(tracer.dtype()),
            Operand::Array { dtype, .. } | Operand::NumpyScalar(_, dtype) => Some(*dtype),
            Operand::PythonBool(_) => Some(DType::Bool),
            Operand::PythonInt(_) | Operand::PythonFloat(..) => None,
        }
    }

    /// The dtype that the operand has by itself.
    pub fn own_dtype(&self) -> DType {
        match self {
            Operand::Traced(tracer) => tracer.dtype(),
            Operand::Array { dtype, .. } | Operand::NumpyScalar(_, dtype) => *dtype,
            Operand::PythonBool(_) => DType::Bool,
            Operand::PythonInt(_) => DType::I64,
            Operand::PythonFloat(..) => DType::F64,
        }
    }

    /// A Python number, or a traced value that stands for one.
    pub fn is_python_number(&self) -> bool {
        match self {
            Operand::Traced(tracer) => tracer.is_weak(),
            Operand::Array { .. } | Operand::NumpyScalar(..) => false,
            Operand::PythonInt(_) | Operand::PythonFloat(..) | Operand::PythonBool(_) => true,
        }
    }

    fn tape(&self) -> Option<&Arc<TapeCell>> {
        match self {
            Operand::Traced(tracer) => Some(tracer.tape()),
            _ => None,
        }
    }

    /// The layout that NumPy sees, in the unit `unit`.
    pub fn numpy_layout(&self) -> Layout {
        match self {
            Operand::Traced(tracer) => match tracer.kind() {
                Kind::Scalar { .. } => Layout::contiguous(&[]),
                Kind::Array { view, .. } => view.numpy().0.clone(),
            },
            Operand::Array { shape, strides, .. } => {
                Layout { offset: 0, shape: shape.clone(), strides: strides.clone() }
            }
            _ => Layout::contiguous(&[]),
        }
    }

    /// The stride of adjacent elements in `numpy_layout`.
    pub fn unit(&self) -> i64 {
        match self {
            Operand::Traced(tracer) => match tracer.kind() {
                Kind::Scalar { .. } => 1,
                Kind::Array { view, .. } => view.numpy().1,
            },
            Operand::Array { dtype, .. } => dtype.size() as i64,
            _ => 1,
        }
    }

    /// NumPy's strides (in whatever unit: only their order matters), 0 where the operand repeats.
    fn order_strides(&self, rank: usize) -> Option<Vec<i64>> {
        match self {
            Operand::Traced(tracer) => match tracer.kind() {
                Kind::Scalar { .. } => None,
                Kind::Array { view, .. } => {
                    let (layout, _) = view.numpy();
                    Some(broadcast_strides(&layout.shape, &layout.strides, rank))
                }
            },
            Operand::Array { shape, strides, .. } => Some(broadcast_strides(shape, strides, rank)),
            _ => None,
        }
    }

    fn is_c_contiguous(&self) -> bool {
        match self {
            Operand::Traced(tracer) => match tracer.kind() {
                Kind::Scalar { .. } => true,
                Kind::Array { view, .. } => view.is_c_contiguous(),
            },
            Operand::Array { array, .. } => array.is_c_contiguous(),
            _ => true,
        }
    }

    /// The object, where the operand is a number.
    fn number(&self) -> Option<&'a Py<PyAny>> {
        match self {
            Operand::PythonFloat(_, object) => *object,
            Operand::PythonInt(object) | Operand::NumpyScalar(object, _) => Some(object.as_unbound()),
            _ => None,
        }
    }

    fn scalar_bits(&self, dtype: DType) -> PyResult<Option<ScalarBits>> {
        Ok(Some(match self {
            Operand::PythonFloat(value, _) => dtype.bits_of_f64(*value),
            Operand::PythonBool(value) => dtype.bits_of_i64(i64::from(*value)),
            Operand::PythonInt(object) => scalar_bits(object, dtype)?,
            Operand::NumpyScalar(object, own) => strong_scalar_bits(object, *own, dtype)?,
            _ => return Ok(None),
        }))
    }
}

/// A NumPy scalar converted to `dtype` as `astype` does it.
fn strong_scalar_bits(object: &Bound<'_, PyAny>, own: DType, dtype: DType) -> PyResult<ScalarBits> {
    let item = object.call_method0("item")?;
    let bits = scalar_bits(&item, own)?;
    Ok(if own == dtype {
        bits
    } else if own.is_float() || dtype.is_float() {
        dtype.bits_of_f64(own.f64_of_bits(bits))
    } else {
        dtype.bits_of_i64(own.i64_of_bits(bits))
    })
}

/// NumPy 2's `result_type`: arrays and NumPy scalars are strong, Python's ints and floats weak.
pub fn promote(operands: &[Operand<'_, '_>]) -> DType {
    let strong = operands.iter().filter_map(Operand::strong_dtype).reduce(DType::promote);
    let weak = operands.iter().filter(|operand| operand.strong_dtype().is_none()).map(Operand::own_dtype);
    weak.fold(strong, |dtype, weak| {
        Some(match dtype {
            Some(dtype) if dtype.kind() >= weak.kind() => dtype,
            _ => weak,
        })
    })
    .unwrap_or(DType::F64)
}

/// May a ufunc's result of dtype `from` be written to an array of dtype `to` (`casting="same_kind"`)?
pub fn same_kind(from: DType, to: DType) -> bool {
    let rank = |dtype: DType| match dtype.kind() {
        DTypeKind::Bool => 0,
        DTypeKind::Integer => 1 + i32::from(dtype.is_signed()),
        DTypeKind::Float => 3,
    };
    rank(from) <= rank(to)
}

/// The innermost tape among the operands.
pub fn innermost<'a>(operands: &'a [Operand<'_, '_>]) -> PyResult<&'a Arc<TapeCell>> {
    operands
        .iter()
        .filter_map(Operand::tape)
        .max_by_key(|tape| tape.depth)
        .ok_or_else(|| raise(Error::internal("record", "no operand is traced")))
}

/// The broadcast shape of the operands, or the error that shows their shapes.
pub fn broadcast(name: &str, operands: &[Operand<'_, '_>]) -> PyResult<Vec<i64>> {
    // Equal shapes, and scalars beside an array.
    let longest = operands.iter().map(Operand::shape).max_by_key(|shape| shape.len()).unwrap_or_default();
    if operands.iter().all(|operand| operand.rank() == 0 || operand.shape() == longest) {
        return Ok(longest.to_vec());
    }
    broadcast_shapes(operands.iter().map(Operand::shape)).ok_or_else(|| {
        let shapes = operands.iter().map(|operand| shape_text(operand.shape())).collect::<Vec<_>>().join(" and ");
        raise(Error::shape(name, format!("operands could not be broadcast together: {shapes}")).with_hint(
            "from the last axis backwards, extents must be equal or 1; insert axes of length 1 with x[:, None]",
        ))
    })
}

/// The order of axes, outermost first, in which NumPy lays out the result of an elementwise operation.
pub fn result_order(rank: usize, operands: &[Operand<'_, '_>]) -> Vec<usize> {
    result_order_unless_c(rank, operands).unwrap_or_else(|| (0..rank).collect())
}

/// As [`result_order`]; None is C order, the commonest.
pub fn result_order_unless_c(rank: usize, operands: &[Operand<'_, '_>]) -> Option<Vec<usize>> {
    if rank < 2 || operands.iter().all(Operand::is_c_contiguous) {
        return None;
    }
    let strides: Vec<Vec<i64>> = operands.iter().filter_map(|operand| operand.order_strides(rank)).collect();
    Some(iteration_order(rank, &strides)).filter(|order| !is_identity(order))
}

/// An operand ready to be read inside `TapeCell::record`.
pub enum Source<'a> {
    /// A value of this tape, read as it is or through a layout.
    Own(&'a Tracer, Option<Layout>),
    /// A node of an enclosing tape.
    Outer(Arc<TapeCell>, NodeId),
    /// A node of this tape, read through a layout.
    Node(NodeId, Layout),
    /// A number, with the object that it was where it is one of the program's.
    Scalar(ScalarBits, Option<&'a Py<PyAny>>),
}

/// How the operand's axes are read when the result has `rank` axes in memory order `order`: permuted likewise,
/// without the leading axes that the operand lacks.
fn aligned(layout: &Layout, rank: usize, order: &[usize]) -> Layout {
    let missing = rank - layout.rank();
    let mut padded = layout.clone();
    for _ in 0..missing {
        padded = padded.expanded(0);
    }
    let mut axes = order;
    while let Some((&first, rest)) = axes.split_first()
        && first < missing
    {
        axes = rest;
    }
    padded.transposed(axes)
}

/// Everything about an operand that must happen before its tape is locked. `order` as in [`aligned`]; None is C
/// order.
pub fn prepare<'a>(
    py: Python<'_>,
    tape: &Arc<TapeCell>,
    operand: &Operand<'a, '_>,
    dtype: DType,
    rank: usize,
    order: Option<&[usize]>,
) -> PyResult<Source<'a>> {
    let Some(order) = order else {
        return match operand {
            Operand::Traced(tracer) if tracer.tape().id == tape.id => Ok(Source::Own(tracer, None)),
            _ => prepare_with(py, tape, operand, dtype, |layout| layout),
        };
    };
    prepare_with(py, tape, operand, dtype, |layout| aligned(&layout, rank, order))
}

/// As [`prepare`], read through any change of layout.
pub fn prepare_with<'a>(
    py: Python<'_>,
    tape: &Arc<TapeCell>,
    operand: &Operand<'a, '_>,
    dtype: DType,
    change: impl FnOnce(Layout) -> Layout,
) -> PyResult<Source<'a>> {
    if let Some(bits) = operand.scalar_bits(dtype)? {
        return Ok(Source::Scalar(bits, operand.number()));
    }
    match operand {
        Operand::Traced(tracer) => {
            let layout = change(tracer.layout());
            if tracer.tape().id == tape.id {
                return Ok(Source::Own(tracer, Some(layout)));
            }
            let outer = tracer.tape();
            let node = outer.record(py, |tape| tracer.read(py, tape, &layout))?;
            Ok(Source::Outer(Arc::clone(outer), node))
        }
        Operand::Array { array, .. } => {
            let placed = array_operand(py, tape, array.as_any())?;
            Ok(Source::Node(placed.node, change(placed.layout)))
        }
        _ => Err(raise(Error::internal("record", "an operand without a value"))),
    }
}

impl Source<'_> {
    /// The operand's node, of dtype `dtype`. `exponent`: it is the second operand of a power.
    pub fn node(&self, py: Python<'_>, tape: &mut Tape, dtype: DType, exponent: bool) -> ckad_graph::Result<NodeId> {
        let node = match self {
            Source::Own(tracer, None) => tracer.value(py, tape)?,
            Source::Own(tracer, Some(layout)) => tracer.read(py, tape, layout)?,
            Source::Outer(outer, node) => tape.capture(py, outer, *node)?,
            Source::Node(node, layout) => read_layout(tape, *node, layout)?,
            Source::Scalar(bits, Some(object)) => return number_node(py, tape, object, dtype, *bits, exponent),
            Source::Scalar(bits, None) => return scalar_node(tape, dtype, *bits, exponent),
        };
        if tape.builder.dtype(node) == dtype { Ok(node) } else { tape.builder.cast(node, dtype) }
    }
}
