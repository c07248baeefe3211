//! `__array_ufunc__`: NumPy's universal functions on traced values.
//!
//! A ufunc is found by the address of its object. Most are one row of the elementwise table; a few are composed
//! here. Methods: calls, `reduce` and `outer`; keywords that change the result are honoured or refused, none is
//! ignored.

use std::sync::Arc;

use ckad_graph::{DType, Error, ErrorKind, ReduceKind};
use ckad_prim::Elementwise;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rustc_hash::FxHashMap;

use crate::convert::{array_operand, as_array};
use crate::dot::matmul;
use crate::elementwise::{apply, apply_into, convert, convert_into, float_loop};
use crate::errors::raise;
use crate::function::{call_plainly, call_registered};
use crate::layout::Layout;
use crate::operand::{Operand, innermost, promote};
use crate::reductions::reduce;
use crate::shapes::normal_axes;
use crate::storage::View;
use crate::tracer::{Kind, Tracer};
use crate::values::{parse_dtype, refuse_keywords};

/// What a ufunc is to us.
#[derive(Clone, Copy)]
enum Meaning {
    Row(Elementwise),
    /// The operand itself.
    Identity,
    /// The operand itself, bools as int8.
    Conjugate,
    /// |x| of floats alone.
    FloatAbsolute,
    /// Powers computed in float64.
    FloatPower,
    Matmul,
    /// (x // y, x % y)
    DivideWithRemainder,
    /// (fraction, whole part)
    FractionAndWhole,
    /// (x·2⁻ᵉ, e)
    MantissaAndExponent,
    /// A count of bits, as uint8.
    BitwiseCount,
    /// A function of the Python layer, under this name in the table of methods.
    Registered(&'static str),
}

/// Ufuncs that are no row under their own name, or more than one.
const OTHERS: &[(&str, Meaning)] = &[
    ("positive", Meaning::Identity),
    ("conjugate", Meaning::Conjugate),
    ("fabs", Meaning::FloatAbsolute),
    ("float_power", Meaning::FloatPower),
    ("degrees", Meaning::Row(Elementwise::Rad2deg)),
    ("radians", Meaning::Row(Elementwise::Deg2rad)),
    ("matmul", Meaning::Matmul),
    ("divmod", Meaning::DivideWithRemainder),
    ("modf", Meaning::FractionAndWhole),
    ("frexp", Meaning::MantissaAndExponent),
    ("bitwise_count", Meaning::BitwiseCount),
    ("vecdot", Meaning::Registered("vecdot")),
    ("matvec", Meaning::Registered("matvec")),
    ("vecmat", Meaning::Registered("vecmat")),
];

/// The names of NumPy's ufuncs that are recorded, for the documents.
#[pyfunction]
pub fn ufunc_names() -> Vec<&'static str> {
    let rows = Elementwise::ALL.iter().map(|row| row.numpy()).filter(|name| !name.is_empty());
    rows.chain(OTHERS.iter().map(|(name, _)| *name)).collect()
}

fn meanings(py: Python<'_>) -> PyResult<&'static FxHashMap<usize, Meaning>> {
    static MEANINGS: pyo3::sync::PyOnceLock<FxHashMap<usize, Meaning>> = pyo3::sync::PyOnceLock::new();
    MEANINGS.get_or_try_init(py, || {
        let numpy = py.import("numpy")?;
        let rows = Elementwise::ALL.iter().map(|&row| (row.numpy(), Meaning::Row(row)));
        let mut table = FxHashMap::default();
        for (name, meaning) in OTHERS.iter().copied().chain(rows.filter(|(name, _)| !name.is_empty())) {
            // Older releases lack some of them. NumPy's module keeps its ufuncs alive, so addresses stay theirs.
            if let Ok(ufunc) = numpy.getattr(name) {
                table.entry(ufunc.as_ptr() as usize).or_insert(meaning);
            }
        }
        Ok(table)
    })
}

/// The row of the table that a call of the ufunc at that address records; None where it is more, or another thing.
pub fn row_of(py: Python<'_>, ufunc: *mut pyo3::ffi::PyObject) -> PyResult<Option<Elementwise>> {
    Ok(match meanings(py)?.get(&(ufunc as usize)) {
        Some(Meaning::Row(row)) => Some(*row),
        _ => None,
    })
}

fn ufunc_name(ufunc: &Bound<'_, PyAny>) -> String {
    ufunc.getattr("__name__").and_then(|name| name.extract()).unwrap_or_else(|_| "ufunc".to_owned())
}

fn unknown(ufunc: &Bound<'_, PyAny>) -> PyErr {
    let name = ufunc_name(ufunc);
    let hint = match name.as_str() {
        "isnat" => "only dates have it, which are never traced; np.isnan(x) is for floats",
        _ => {
            "compose it from NumPy's functions, or call it on np.asarray(ckad.stop_gradient(x)) where no gradient \
             should flow"
        }
    };
    raise(
        Error::new(ErrorKind::Tracer, name.clone(), format!("the ufunc {name} is not supported on traced values"))
            .with_hint(hint),
    )
}

fn unsupported(ufunc: &Bound<'_, PyAny>, what: &str, hint: &str) -> PyErr {
    let name = ufunc_name(ufunc);
    raise(Error::new(ErrorKind::Tracer, name, format!("{what} is not supported on traced values")).with_hint(hint))
}

/// The keywords of a ufunc call that we understand.
#[derive(Default)]
struct Keywords<'py> {
    out: Vec<Option<Bound<'py, PyAny>>>,
    dtype: Option<DType>,
    /// The same as the caller gave it.
    dtype_object: Option<Bound<'py, PyAny>>,
    condition: Option<Bound<'py, PyAny>>,
}

fn parse_keywords<'py>(ufunc: &Bound<'py, PyAny>, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<Keywords<'py>> {
    let mut parsed = Keywords::default();
    let Some(keywords) = keywords else { return Ok(parsed) };
    for (key, value) in keywords.iter() {
        match key.extract::<String>()?.as_str() {
            "out" => parsed.out = outputs(ufunc, &value)?,
            "dtype" if !value.is_none() => {
                parsed.dtype = Some(parse_dtype(&value)?);
                parsed.dtype_object = Some(value);
            }
            "where" if !is_true(&value) => parsed.condition = Some(value),
            "dtype" | "where" => {}
            // Neither changes a value: dtypes are checked as same_kind does, layouts are NumPy's default.
            "casting" if value.extract::<String>().is_ok_and(|casting| casting == "same_kind") => {}
            "order" if value.extract::<String>().is_ok_and(|order| order == "K") => {}
            "subok" => {}
            other => {
                return Err(unsupported(ufunc, &format!("the keyword {other}="), keyword_hint(other)));
            }
        }
    }
    Ok(parsed)
}

fn keyword_hint(keyword: &str) -> &'static str {
    match keyword {
        "casting" | "sig" | "signature" => "leave it out, and convert with x.astype(dtype) or dtype=",
        "order" => "leave it out, and copy the result: y.copy(order='F')",
        _ => "leave it out",
    }
}

fn is_true(value: &Bound<'_, PyAny>) -> bool {
    value.extract::<bool>().unwrap_or(false) && value.is_instance_of::<pyo3::types::PyBool>()
}

/// `out=` as one entry for each output; ordinary arrays are refused, since writing to them would lose the gradient.
fn outputs<'py>(ufunc: &Bound<'py, PyAny>, out: &Bound<'py, PyAny>) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
    let entries: Vec<Bound<'py, PyAny>> = match out.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().collect(),
        Err(_) => vec![out.clone()],
    };
    entries
        .into_iter()
        .map(|entry| {
            if entry.is_none() {
                return Ok(None);
            }
            if entry.cast::<Tracer>().is_ok() {
                return Ok(Some(entry));
            }
            Err(raise(
                Error::new(
                    ErrorKind::Tracer,
                    ufunc_name(ufunc),
                    "a traced value cannot be written into an ordinary array (out=, or a += x)",
                )
                .with_hint("write a = a + x, or make the array with np.zeros(shape, like=x)"),
            ))
        })
        .collect()
}

/// The ufunc itself, or its method of that name.
fn named<'py>(ufunc: &Bound<'py, PyAny>, method: &str) -> PyResult<Bound<'py, PyAny>> {
    if method == "__call__" { Ok(ufunc.clone()) } else { ufunc.getattr(method) }
}

/// Is `out=` an ordinary array? What depends on nothing differentiated may be written there.
fn writes_ordinary(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
    let Some(out) = keywords.map(|keywords| keywords.get_item("out")).transpose()?.flatten() else {
        return Ok(false);
    };
    let ordinary = |entry: &Bound<'_, PyAny>| !entry.is_none() && entry.cast::<Tracer>().is_err();
    Ok(match out.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().any(|entry| ordinary(&entry)),
        Err(_) => ordinary(&out),
    })
}

pub fn array_ufunc<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    method: &str,
    inputs: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let meaning = meanings(py)?.get(&(ufunc.as_ptr() as usize));
    let recorded = matches!(method, "__call__" | "reduce" | "outer") && !writes_ordinary(keywords)?;
    if (meaning.is_none() || !recorded)
        && let Some(result) = call_plainly(&named(ufunc, method)?, inputs, keywords)?
    {
        return Ok(result);
    }
    let Some(&meaning) = meaning else {
        // An ordinary output raises in its own words whatever the function.
        parse_keywords(ufunc, keywords)?;
        return Err(unknown(ufunc));
    };
    match method {
        "__call__" => call(py, ufunc, meaning, inputs, keywords),
        "reduce" => reduction(py, ufunc, meaning, inputs, keywords),
        "outer" => {
            refuse_keywords("outer", keywords)?;
            outer(py, ufunc, meaning, inputs)
        }
        "at" => Err(unsupported(
            ufunc,
            "ufunc.at",
            "where no index repeats, x[i] += v does the same; else add one after the other in a loop",
        )),
        "accumulate" => Err(unsupported(
            ufunc,
            "ufunc.accumulate",
            "use np.cumsum(x, axis=0) for np.add and np.cumprod(x, axis=0) for np.multiply, or a loop over x",
        )),
        other => Err(unsupported(ufunc, &format!("the method {other}"), "call the ufunc, or its reduce or outer")),
    }
}

fn call<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    meaning: Meaning,
    inputs: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    let mut keywords = parse_keywords(ufunc, keywords)?;
    let objects: Vec<Bound<'py, PyAny>> = inputs.iter().collect();
    let operands = objects.iter().map(Operand::coerced).collect::<PyResult<Vec<_>>>()?;
    let target = keywords.out.first().cloned().flatten();
    if keywords.dtype.is_some()
        && matches!(meaning, Meaning::Matmul | Meaning::Registered(_) | Meaning::FloatPower | Meaning::BitwiseCount)
    {
        return Err(unsupported(ufunc, "the keyword dtype=", "convert the operands with .astype"));
    }
    if keywords.dtype.is_some() {
        // Whether NumPy computes this in that dtype without losing more than same_kind allows.
        let arguments = std::iter::once(ufunc.clone()).chain(keywords.dtype_object.clone()).chain(inputs.iter());
        call_registered(py, "ufunc.dtype", PyTuple::new(py, arguments.collect::<Vec<_>>())?, None)?;
        if matches!(meaning, Meaning::Row(row) if row.result_dtype(DType::F64) == Some(DType::Bool)) {
            // It is the result's, and bool anyway.
            keywords.dtype = None;
        }
    }
    if let Some(condition) = &keywords.condition {
        return call_where(py, ufunc, meaning, &operands, &keywords, condition);
    }
    if !operands.iter().any(|operand| matches!(operand, Operand::Traced(_))) && target.is_none() {
        return Err(unknown(ufunc));
    }
    let Some(target) = target else {
        return evaluate(py, ufunc, meaning, &operands, &objects, keywords.dtype);
    };
    if keywords.out.len() > 1 {
        return Err(unsupported(ufunc, "out= with two outputs", "assign the results: q[...], r[...] = divmod(a, b)"));
    }
    write(py, ufunc, meaning, &operands, &target, keywords.dtype)?;
    Ok(target.unbind())
}

fn write(
    py: Python<'_>,
    ufunc: &Bound<'_, PyAny>,
    meaning: Meaning,
    operands: &[Operand<'_, '_>],
    target: &Bound<'_, PyAny>,
    dtype: Option<DType>,
) -> PyResult<()> {
    let target = target.cast::<Tracer>()?.get();
    match meaning {
        Meaning::Row(row) => apply_into(py, row, operands, target, dtype),
        Meaning::Identity | Meaning::Conjugate => {
            let dtype = copy_dtype(meaning, operands, dtype)?;
            convert_into(py, "positive", &operands[0], dtype, target)
        }
        Meaning::FloatPower => apply_into(py, Elementwise::Power, operands, target, Some(DType::F64)),
        Meaning::FloatAbsolute => {
            apply_into(py, Elementwise::Absolute, operands, target, Some(float_dtype(ufunc, operands)?))
        }
        Meaning::Matmul => {
            let [a, b] = operands else { return Err(unknown(ufunc)) };
            let pair = [a.duplicate(), b.duplicate()];
            let product = matmul(py, &pair)?;
            let dtype = product.dtype();
            convert_into(py, "matmul", &Operand::Traced(&product), dtype, target)
        }
        _ => Err(unsupported(ufunc, "out=", "assign the result: x[...] = f(y)")),
    }
}

fn float_dtype(ufunc: &Bound<'_, PyAny>, operands: &[Operand<'_, '_>]) -> PyResult<DType> {
    float_loop(&ufunc_name(ufunc), operands)
}

/// The dtype of a copy: `positive` refuses bools, `conjugate` makes int8 of them.
fn copy_dtype(meaning: Meaning, operands: &[Operand<'_, '_>], dtype: Option<DType>) -> PyResult<DType> {
    let dtype = dtype.unwrap_or_else(|| promote(operands));
    match (meaning, dtype) {
        (Meaning::Conjugate, DType::Bool) => Ok(DType::I8),
        (Meaning::Identity, DType::Bool) => {
            Err(raise(Error::dtype("positive", "it is not defined for bool").with_hint("use x.copy()")))
        }
        _ => Ok(dtype),
    }
}

fn evaluate<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    meaning: Meaning,
    operands: &[Operand<'_, 'py>],
    objects: &[Bound<'py, PyAny>],
    dtype: Option<DType>,
) -> PyResult<Py<PyAny>> {
    let pair = |first: Tracer, second: Tracer| -> PyResult<Py<PyAny>> {
        Ok(PyTuple::new(py, [first.into_object(py)?, second.into_object(py)?])?.into_any().unbind())
    };
    match meaning {
        Meaning::Row(row) => apply(py, row, operands, dtype)?.into_object(py),
        Meaning::Identity | Meaning::Conjugate => {
            convert(py, &operands[0], copy_dtype(meaning, operands, dtype)?)?.into_object(py)
        }
        Meaning::FloatAbsolute => {
            let dtype = dtype.map_or_else(|| float_dtype(ufunc, operands), Ok)?;
            apply(py, Elementwise::Absolute, operands, Some(dtype))?.into_object(py)
        }
        Meaning::FloatPower => apply(py, Elementwise::Power, operands, Some(DType::F64))?.into_object(py),
        Meaning::Matmul => {
            let [a, b] = operands else { return Err(unknown(ufunc)) };
            matmul(py, &[a.duplicate(), b.duplicate()])?.into_object(py)
        }
        Meaning::DivideWithRemainder => pair(
            apply(py, Elementwise::FloorDivide, operands, dtype)?,
            apply(py, Elementwise::Remainder, operands, dtype)?,
        ),
        Meaning::FractionAndWhole => {
            let [x] = operands else { return Err(unknown(ufunc)) };
            let float = Some(dtype.map_or_else(|| float_dtype(ufunc, operands), Ok)?);
            let whole = apply(py, Elementwise::Trunc, operands, float)?;
            let rest = apply(py, Elementwise::Subtract, &[x.duplicate(), Operand::Traced(&whole)], float)?;
            // The fraction of an infinity is a zero; every fraction has the sign of its number.
            let infinite = apply(py, Elementwise::Isinf, operands, float)?;
            let chosen = [Operand::Traced(&infinite), Operand::PythonFloat(0.0, None), Operand::Traced(&rest)];
            let finite = crate::elementwise::select(py, &chosen)?;
            let fraction = apply(py, Elementwise::Copysign, &[Operand::Traced(&finite), x.duplicate()], float)?;
            pair(fraction, whole)
        }
        Meaning::MantissaAndExponent => {
            let [x] = operands else { return Err(unknown(ufunc)) };
            let float = dtype.map_or_else(|| float_dtype(ufunc, operands), Ok)?;
            let exponent = apply(py, Elementwise::Exponent, operands, Some(float))?;
            let negative = apply(py, Elementwise::Negative, &[Operand::Traced(&exponent)], None)?;
            let mantissa = apply(py, Elementwise::Ldexp, &[x.duplicate(), Operand::Traced(&negative)], Some(float))?;
            pair(mantissa, convert(py, &Operand::Traced(&exponent), DType::I32)?)
        }
        Meaning::BitwiseCount => {
            let count = apply(py, Elementwise::BitwiseCount, operands, None)?;
            convert(py, &Operand::Traced(&count), DType::U8)?.into_object(py)
        }
        Meaning::Registered(name) => {
            let arguments = PyTuple::new(py, objects)?;
            call_registered(py, name, arguments, None)
        }
    }
}

/// `where=`: defined only where there is an array to keep the other elements of.
fn call_where<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    meaning: Meaning,
    operands: &[Operand<'_, 'py>],
    keywords: &Keywords<'py>,
    condition: &Bound<'py, PyAny>,
) -> PyResult<Py<PyAny>> {
    let (Meaning::Row(row), [Some(target)]) = (meaning, &keywords.out[..]) else {
        let hint = "write np.where(condition, f(x), y); without out= the other elements are undefined";
        return Err(unsupported(ufunc, "where= without out=", hint));
    };
    let computed = apply(py, row, operands, keywords.dtype)?;
    let destination = target.cast::<Tracer>()?.get();
    let mask = Operand::coerced(condition)?;
    let dtype = destination.dtype();
    let chosen = [mask, Operand::Traced(&computed), Operand::Traced(destination)];
    crate::elementwise::record_into(
        py,
        row.name(),
        &chosen,
        &[DType::Bool, dtype, dtype],
        computed.dtype(),
        destination,
        |tape, nodes| tape.builder.elementwise(Elementwise::Select, nodes),
    )?;
    Ok(target.clone().unbind())
}

fn reduction<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    meaning: Meaning,
    inputs: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Py<PyAny>> {
    if let Some(result) = plain_reduction(py, ufunc, meaning, inputs, keywords)? {
        return result.into_object(py);
    }
    // Any other binary ufunc and keyword is the Python layer's.
    let arguments: Vec<Bound<'py, PyAny>> = std::iter::once(ufunc.clone()).chain(inputs.iter()).collect();
    call_registered(py, "ufunc.reduce", PyTuple::new(py, arguments)?, keywords)
}

/// A reduction that is one operation of the core, with keywords that need no more; None for anything else.
fn plain_reduction<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    meaning: Meaning,
    inputs: &Bound<'py, PyTuple>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<Tracer>> {
    let kind = match meaning {
        Meaning::Row(Elementwise::Add) => ReduceKind::Sum,
        Meaning::Row(Elementwise::Maximum) => ReduceKind::Max,
        Meaning::Row(Elementwise::Minimum) => ReduceKind::Min,
        Meaning::Row(Elementwise::LogicalAnd) => ReduceKind::All,
        Meaning::Row(Elementwise::LogicalOr) => ReduceKind::Any,
        _ => return Ok(None),
    };
    let object = inputs.get_item(0)?;
    let Ok(value) = object.cast::<Tracer>() else { return Ok(None) };
    let mut axis: Option<Bound<'py, PyAny>> = Some(0i64.into_pyobject(py)?.into_any());
    let (mut dtype, mut keep_axes) = (None, false);
    for (key, given) in keywords.into_iter().flat_map(|keywords| keywords.iter()) {
        match key.extract::<String>()?.as_str() {
            "axis" => axis = (!given.is_none()).then_some(given),
            "dtype" if given.is_none() => {}
            // Of bools there is but one, and the Python layer asks NumPy.
            "dtype" if matches!(kind, ReduceKind::All | ReduceKind::Any) => return Ok(None),
            "dtype" => dtype = Some(parse_dtype(&given)?),
            "keepdims" => keep_axes = given.is_truthy()?,
            "out" if outputs(ufunc, &given)?.iter().all(Option::is_none) => {}
            "where" if is_true(&given) => {}
            "initial" if given.is(no_value(py)?) => {}
            _ => return Ok(None),
        }
    }
    // What is wrong with an axis, the handler says in the name of the ufunc.
    let Ok(axes) = normal_axes("reduce", axis.as_ref(), value.get().shape()) else { return Ok(None) };
    reduce(py, kind, value.get(), &axes, dtype, keep_axes).map(Some)
}

/// NumPy's mark for a keyword that was left out.
pub fn no_value(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static NO_VALUE: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
    NO_VALUE
        .get_or_try_init(py, || PyResult::Ok(py.import("numpy")?.getattr("_NoValue")?.unbind()))
        .map(|value| value.bind(py))
}

/// The operand as `np.asarray` gives it: no Python number is weak any more.
fn strong<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match object.cast::<Tracer>() {
        Ok(tracer) if tracer.get().is_weak() => {
            Ok(tracer.get().alias(object.py())?.weak_if(false).into_object(object.py())?.into_bound(object.py()))
        }
        Ok(_) => Ok(object.clone()),
        Err(_) => Ok(as_array(object)?.into_any()),
    }
}

/// `ufunc.outer(a, b)`: a with as many axes of length 1 behind as b has.
fn outer<'py>(
    py: Python<'py>,
    ufunc: &Bound<'py, PyAny>,
    meaning: Meaning,
    inputs: &Bound<'py, PyTuple>,
) -> PyResult<Py<PyAny>> {
    let objects = inputs.iter().map(|object| strong(&object)).collect::<PyResult<Vec<_>>>()?;
    let [first, second] = &objects[..] else { return Err(unknown(ufunc)) };
    let extra = Operand::coerced(second)?.rank();
    let operands = [Operand::coerced(first)?, Operand::coerced(second)?];
    let tape = Arc::clone(innermost(&operands)?);
    let widened = match &operands[0] {
        Operand::Traced(tracer) => {
            let widen = |view: &View| {
                view.map(|mut layout| {
                    for _ in 0..extra {
                        let rank = layout.rank();
                        layout = layout.expanded(rank);
                    }
                    layout
                })
            };
            match tracer.kind() {
                Kind::Array { .. } => tracer.with_view(widen),
                Kind::Scalar { .. } => None,
            }
        }
        Operand::Array { array, .. } => {
            let placed = array_operand(py, &tape, array.as_any())?;
            let mut layout: Layout = placed.layout;
            for _ in 0..extra {
                let rank = layout.rank();
                layout = layout.expanded(rank);
            }
            Some(Tracer::array(py, tape, placed.node, layout, true)?)
        }
        _ => None,
    };
    let [left, right] = operands;
    let left = widened.as_ref().map_or(left, Operand::Traced);
    evaluate(py, ufunc, meaning, &[left, right], &objects, None)
}
