//! Python's operators on traced values: arithmetic, powers, comparisons, and their in-place forms.

use ckad_prim::Elementwise;
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyFloat, PyInt, PyList, PyTuple};

use crate::dot::matmul;
use crate::elementwise::{apply, apply_into, convert, convert_into};
use crate::operand::Operand;
use crate::tracer::Tracer;
use ckad_graph::DType;

/// The other operand of an operator, or None where Python should try the other object's own method. Lists and
/// tuples become arrays, as beside an ndarray.
fn other_operand<'a, 'py>(other: &'a Bound<'py, PyAny>) -> PyResult<Option<Operand<'a, 'py>>> {
    match Operand::new(other)? {
        None if other.is_instance_of::<PyList>() || other.is_instance_of::<PyTuple>() => {
            Operand::coerced(other).map(Some)
        }
        operand => Ok(operand),
    }
}

/// What an operator gives. Among Python numbers alone the result is a Python number again, and bools count as ints but
/// where bits or comparisons are asked for.
fn operate(py: Python<'_>, row: Elementwise, operands: &[Operand<'_, '_>]) -> PyResult<Tracer> {
    if !operands.iter().all(Operand::is_python_number) {
        return apply(py, row, operands, None);
    }
    let counts = !matches!(row, Elementwise::BitwiseAnd | Elementwise::BitwiseOr | Elementwise::BitwiseXor);
    let all_bools = operands.iter().all(|operand| operand.own_dtype() == DType::Bool);
    Ok(apply(py, row, operands, (counts && all_bools).then_some(DType::I64))?.weak_if(true))
}

/// `this ∘ other`, or `other ∘ this` when `reflected`.
pub fn binary(
    py: Python<'_>,
    row: Elementwise,
    this: &Tracer,
    other: &Bound<'_, PyAny>,
    reflected: bool,
) -> PyResult<Py<PyAny>> {
    let Some(other) = other_operand(other)? else { return Ok(py.NotImplemented()) };
    this.check_alive(py)?;
    let this = Operand::Traced(this);
    let operands = if reflected { [other, this] } else { [this, other] };
    operate(py, row, &operands)?.into_object(py)
}

pub fn unary(py: Python<'_>, row: Elementwise, this: &Tracer) -> PyResult<Py<PyAny>> {
    this.check_alive(py)?;
    operate(py, row, &[Operand::Traced(this)])?.into_object(py)
}

/// `+x`: a copy.
pub fn positive(py: Python<'_>, this: &Tracer) -> PyResult<Py<PyAny>> {
    convert(py, &Operand::Traced(this), this.dtype())?.weak_if(this.is_weak()).into_object(py)
}

/// The cheaper row that NumPy takes for some exponents which are Python numbers. A root is taken of arrays alone:
/// scalars are raised to the power, which at −0 and −∞ is another value.
fn special_power(this: &Tracer, exponent: &Bound<'_, PyAny>) -> Option<Elementwise> {
    let base = this.dtype();
    let value: f64 = if let Ok(value) = exponent.cast_exact::<PyFloat>() {
        if !base.is_float() {
            return None;
        }
        value.value()
    } else if exponent.is_exact_instance_of::<PyInt>() {
        exponent.extract().ok()?
    } else {
        return None;
    };
    if value == 2.0 {
        return Some(Elementwise::Square);
    }
    if value == 0.5 && base.is_float() && !this.is_scalar() {
        return Some(Elementwise::Sqrt);
    }
    (value == -1.0 && base.is_float()).then_some(Elementwise::Reciprocal)
}

fn is_one(exponent: &Bound<'_, PyAny>) -> bool {
    (exponent.is_exact_instance_of::<PyInt>() || exponent.is_exact_instance_of::<PyFloat>())
        && exponent.extract::<f64>().is_ok_and(|value| value == 1.0)
}

/// `this ** exponent`.
pub fn power(py: Python<'_>, this: &Tracer, exponent: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    if let Some(row) = special_power(this, exponent) {
        return unary(py, row, this);
    }
    if this.dtype().is_float() && is_one(exponent) {
        return positive(py, this);
    }
    binary(py, Elementwise::Power, this, exponent, false)
}

fn comparison(op: CompareOp) -> Elementwise {
    match op {
        CompareOp::Lt => Elementwise::Less,
        CompareOp::Le => Elementwise::LessEqual,
        CompareOp::Eq => Elementwise::Equal,
        CompareOp::Ne => Elementwise::NotEqual,
        CompareOp::Gt => Elementwise::Greater,
        CompareOp::Ge => Elementwise::GreaterEqual,
    }
}

pub fn compare(py: Python<'_>, op: CompareOp, this: &Tracer, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let far = other;
    let Some(other) = other_operand(other)? else { return Ok(py.NotImplemented()) };
    let operands = [Operand::Traced(this), other];
    let row = comparison(op);
    let result = match operate(py, row, &operands) {
        // A Python int outside the range of the array's dtype compares by value: with integers always in the same way.
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => {
            if this.dtype().is_float() || !far.is_exact_instance_of::<PyInt>() {
                apply(py, row, &operands, Some(DType::F64))
            } else {
                let greater = far.gt(0)?;
                let always = match op {
                    CompareOp::Lt | CompareOp::Le => greater,
                    CompareOp::Gt | CompareOp::Ge => !greater,
                    CompareOp::Eq => false,
                    CompareOp::Ne => true,
                };
                let row = if always { Elementwise::Equal } else { Elementwise::NotEqual };
                apply(py, row, &[Operand::Traced(this), Operand::Traced(this)], None)
            }
        }
        result => result,
    };
    result?.into_object(py)
}

/// `this ∘= other`, for arrays.
pub fn in_place(py: Python<'_>, row: Elementwise, this: &Tracer, other: &Bound<'_, PyAny>) -> PyResult<()> {
    this.check_alive(py)?;
    let other = Operand::coerced(other)?;
    apply_into(py, row, &[Operand::Traced(this), other], this, None)
}

pub fn in_place_power(py: Python<'_>, this: &Tracer, exponent: &Bound<'_, PyAny>) -> PyResult<()> {
    this.check_alive(py)?;
    if let Some(row) = special_power(this, exponent) {
        return apply_into(py, row, &[Operand::Traced(this)], this, None);
    }
    in_place(py, Elementwise::Power, this, exponent)
}

/// `this @ other`, or `other @ this`.
pub fn matrix_product(py: Python<'_>, this: &Tracer, other: &Bound<'_, PyAny>, reflected: bool) -> PyResult<Py<PyAny>> {
    let Some(other) = other_operand(other)? else { return Ok(py.NotImplemented()) };
    this.check_alive(py)?;
    let this = Operand::Traced(this);
    let operands = if reflected { [other, this] } else { [this, other] };
    matmul(py, &operands)?.into_object(py)
}

/// `this @= other`.
pub fn in_place_matrix_product(py: Python<'_>, this: &Tracer, other: &Bound<'_, PyAny>) -> PyResult<()> {
    this.check_alive(py)?;
    let product = matmul(py, &[Operand::Traced(this), Operand::coerced(other)?])?;
    convert_into(py, "matmul", &Operand::Traced(&product), product.dtype(), this)
}

/// `divmod(a, b)`.
pub fn divide_with_remainder(
    py: Python<'_>,
    this: &Tracer,
    other: &Bound<'_, PyAny>,
    reflected: bool,
) -> PyResult<Py<PyAny>> {
    let quotient = binary(py, Elementwise::FloorDivide, this, other, reflected)?;
    if quotient.is(py.NotImplemented()) {
        return Ok(quotient);
    }
    let remainder = binary(py, Elementwise::Remainder, this, other, reflected)?;
    Ok(PyTuple::new(py, [quotient, remainder])?.into_any().unbind())
}
