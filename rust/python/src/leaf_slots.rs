//! The hand-written slots and methods of the leaf classes: each does the commonest case at once, and hands anything
//! else on, also what is wrong. They are called with the interpreter's lock held, and let go of no Python object.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Arc;

use ckad_graph::{ErrorKind, ReduceKind};
use ckad_prim::Elementwise;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::boundary::panicked;
use crate::dot::{Factor, product};
use crate::errors::{raise, refusal};
use crate::function::array_function;
use crate::layout::Layout;
use crate::leaf::{Classes, Object, classes, recorded_object};
use crate::plain::{Plain, Recorded, record};
use crate::reductions::reduce_plainly;
use crate::repeated::Plainly;
use crate::shortcuts::{Shortcut, find};
use crate::tape::TapeCell;
use crate::tracer::{Kind, Tracer};
use crate::ufunc::{array_ufunc, row_of};

/// For who calls NumPy's protocols by hand.
const PROTOCOL: &str = "NumPy calls it: write np.sin(x), np.sum(x)";

/// What a slot returns; panics become errors.
#[inline]
fn answered(py: Python<'_>, slot: impl FnOnce() -> PyResult<Object>) -> Object {
    let answer = catch_unwind(AssertUnwindSafe(slot)).unwrap_or_else(|panic| Err(raise(panicked("record", &*panic))));
    answer.unwrap_or_else(|error| {
        error.restore(py);
        null_mut()
    })
}

/// A row of the table, where its operands are plain; None where they are not.
#[inline]
fn row<const N: usize>(
    py: Python<'_>,
    row: Elementwise,
    operands: [Option<Plain<'_>>; N],
    is_operator: bool,
) -> PyResult<Option<Object>> {
    let mut plain = [Plain::Number(0.0, None); N];
    // Operators among Python numbers alone give a Python number again, NumPy's functions a scalar of NumPy's.
    let mut weak = is_operator;
    for (plain, operand) in plain.iter_mut().zip(operands) {
        let Some(operand) = operand else { return Ok(None) };
        weak = weak && operand.is_python_number();
        *plain = operand;
    }
    match record(py, row, &plain)? {
        Some(recorded) => recorded_object(py, &recorded, weak).map(Some),
        None => Ok(None),
    }
}

macro_rules! operator {
    ($name:ident($($operand:ident),*) $row:ident) => {
        unsafe extern "C" fn $name($($operand: Object),*) -> Object {
            // SAFETY: Python calls slots with its lock held, and with operands that are alive.
            unsafe {
                let (py, classes) = (Python::assume_attached(), classes());
                answered(py, || {
                    match row(py, Elementwise::$row, [$(classes.plain(&$operand)),*], true)? {
                        Some(result) => Ok(result),
                        None => Ok((classes.$name)($($operand),*)),
                    }
                })
            }
        }
    };
}
operator!(add(left, right) Add);
operator!(subtract(left, right) Subtract);
operator!(multiply(left, right) Multiply);
operator!(divide(left, right) Divide);
operator!(negative(operand) Negative);

/// `base ** exponent`: squares, and exponents without a row of their own.
unsafe extern "C" fn power(base: Object, exponent: Object, modulus: Object) -> Object {
    // SAFETY: as for the operators.
    unsafe {
        let (py, classes) = (Python::assume_attached(), classes());
        answered(py, || {
            if modulus == ffi::Py_None() {
                let operands = [classes.plain(&base), classes.plain(&exponent)];
                let result = match operands[1] {
                    Some(Plain::Number(2.0, _)) => row(py, Elementwise::Square, [operands[0]], true)?,
                    Some(Plain::Number(0.5 | 1.0 | -1.0, _)) => None,
                    _ => row(py, Elementwise::Power, operands, true)?,
                };
                if let Some(result) = result {
                    return Ok(result);
                }
            }
            Ok((classes.power)(base, exponent, modulus))
        })
    }
}

/// `left < right` and its like.
unsafe extern "C" fn compare(left: Object, right: Object, operator: c_int) -> Object {
    // SAFETY: as for the operators.
    unsafe {
        let (py, classes) = (Python::assume_attached(), classes());
        answered(py, || {
            let known = match operator {
                ffi::Py_LT => Some(Elementwise::Less),
                ffi::Py_LE => Some(Elementwise::LessEqual),
                ffi::Py_EQ => Some(Elementwise::Equal),
                ffi::Py_NE => Some(Elementwise::NotEqual),
                ffi::Py_GT => Some(Elementwise::Greater),
                ffi::Py_GE => Some(Elementwise::GreaterEqual),
                _ => None,
            };
            if let Some(known) = known
                && let Some(result) = row(py, known, [classes.plain(&left), classes.plain(&right)], true)?
            {
                return Ok(result);
            }
            Ok((classes.compare)(left, right, operator))
        })
    }
}

/// The object of a value that was just recorded.
fn plainly(py: Python<'_>, tape: &Arc<TapeCell>, found: Option<Plainly>) -> PyResult<Option<Object>> {
    let Some(Plainly { node, dtype, layout }) = found else { return Ok(None) };
    recorded_object(py, &Recorded { tape, node, dtype, layout: layout.as_ref() }, false).map(Some)
}

/// A product of traced or captured vectors and matrices, where it is a plain one.
///
/// # Safety
/// The operands are alive.
unsafe fn plain_product(py: Python<'_>, classes: &Classes, operands: [Object; 2]) -> PyResult<Option<Object>> {
    // SAFETY: the operands are alive while Python waits.
    let traced = operands.map(|operand| unsafe {
        (ffi::Py_TYPE(operand) == classes.array).then(|| &*classes.value(operand).cast_const())
    });
    let Some(tape) = traced.iter().flatten().map(|tracer: &&Tracer| tracer.tape()).next() else { return Ok(None) };
    let mut factors = [None; 2];
    for ((factor, tracer), operand) in factors.iter_mut().zip(traced).zip(operands) {
        *factor = match tracer {
            Some(tracer) if Arc::ptr_eq(tracer.tape(), tape) => Some(Factor::Traced(tracer)),
            Some(_) => None,
            None => tape.captured_matrix(py, operand).map(Factor::Captured),
        };
    }
    let [Some(a), Some(b)] = factors else { return Ok(None) };
    plainly(py, tape, product(py, tape, [a, b])?)
}

unsafe extern "C" fn matrix_product(left: Object, right: Object) -> Object {
    // SAFETY: Python calls slots with its lock held, and with operands that are alive.
    unsafe {
        let (py, classes) = (Python::assume_attached(), classes());
        answered(py, || {
            Ok(match plain_product(py, classes, [left, right])? {
                Some(result) => result,
                None => (classes.matrix_product)(left, right),
            })
        })
    }
}

/// A Python int of 64 bits.
///
/// # Safety
/// The object is alive.
#[inline]
unsafe fn integer(classes: &Classes, object: Object) -> Option<i64> {
    // SAFETY: the object is alive, and an int where it is read.
    unsafe {
        if ffi::Py_TYPE(object) != classes.int {
            return None;
        }
        let mut overflow: c_int = 0;
        let whole = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
        (overflow == 0).then_some(whole)
    }
}

/// `x[i]` of a vector, i an int within its bounds; None for anything else.
fn vector_element(py: Python<'_>, vector: &Tracer, index: i64) -> PyResult<Option<Object>> {
    let Kind::Array { storage, view } = vector.kind() else { return Ok(None) };
    let (&[extent], &[stride]) = (&view.layout.shape[..], &view.layout.strides[..]) else { return Ok(None) };
    let position = if index < 0 { index + extent } else { index };
    if !(0..extent).contains(&position) || storage.tape.is_closed() {
        return Ok(None);
    }
    let element = Layout { offset: view.layout.offset + position * stride, shape: Vec::new(), strides: Vec::new() };
    let tape = &storage.tape;
    let node = tape.record(py, |tape| {
        let node = storage.read(py, tape, &element)?;
        tape.retain(node)?;
        Ok(node)
    })?;
    recorded_object(py, &Recorded { tape, node, dtype: storage.dtype, layout: None }, false).map(Some)
}

unsafe extern "C" fn element(this: Object, index: Object) -> Object {
    // SAFETY: Python calls slots with its lock held, with an object of the class and a key that is alive.
    unsafe {
        let (py, classes) = (Python::assume_attached(), classes());
        answered(py, || {
            if let Some(index) = integer(classes, index)
                && let Some(element) = vector_element(py, &*classes.value(this), index)?
            {
                return Ok(element);
            }
            Ok((classes.element)(this, index))
        })
    }
}

/// `__array_ufunc__(ufunc, method, *inputs, **keywords)`.
unsafe extern "C" fn ufunc(_this: Object, args: *const Object, count: ffi::Py_ssize_t, names: Object) -> Object {
    // SAFETY: Python's calling convention: `count` positional arguments, then one for each name; all are alive.
    unsafe {
        let (py, classes) = (Python::assume_attached(), classes());
        let positional = std::slice::from_raw_parts(args, count as usize);
        answered(py, || {
            if names.is_null()
                && let &[ufunc, method, ref inputs @ ..] = positional
                && is_call(method)
                && let Some(found) = row_of(py, ufunc)?
            {
                let result = match inputs {
                    [x] => row(py, found, [classes.plain(x)], false)?,
                    [x, y] => row(py, found, [classes.plain(x), classes.plain(y)], false)?,
                    _ => None,
                };
                if let Some(result) = result {
                    return Ok(result);
                }
            }
            // Attached in earnest: whatever is called there may let go of objects.
            Python::attach(|py| {
                let object = |object: &Object| Borrowed::from_ptr(py, *object).to_owned();
                let [ufunc, method, inputs @ ..] = positional else {
                    let what = "__array_ufunc__ takes a ufunc, the name of a method and operands";
                    return Err(refusal(ErrorKind::Type, "ufunc", what, PROTOCOL));
                };
                let inputs = PyTuple::new(py, inputs.iter().map(object))?;
                let keywords = keywords(py, names, args.add(count as usize))?;
                let method = object(method).cast_into::<PyString>()?;
                array_ufunc(py, &object(ufunc), method.to_str()?, &inputs, keywords.as_ref()).map(Py::into_ptr)
            })
        })
    }
}

/// Is it "__call__"? Of the methods that NumPy names here, that alone begins with an underscore.
unsafe fn is_call(method: Object) -> bool {
    // SAFETY: the object is alive; what is no text gives an error, which is taken back.
    unsafe {
        if ffi::PyUnicode_Check(method) == 0 {
            return false;
        }
        let first = ffi::PyUnicode_ReadChar(method, 0);
        if first == u32::MAX {
            ffi::PyErr_Clear();
        }
        first == u32::from('_')
    }
}

/// Keyword arguments of Python's calling convention as a dictionary; None where there are none.
unsafe fn keywords<'py>(py: Python<'py>, names: Object, values: *const Object) -> PyResult<Option<Bound<'py, PyDict>>> {
    if names.is_null() {
        return Ok(None);
    }
    // SAFETY: `names` is a tuple, with as many values behind the positional arguments.
    unsafe {
        let names = Borrowed::from_ptr(py, names).to_owned().cast_into::<PyTuple>()?;
        let keywords = PyDict::new(py);
        for (place, name) in names.iter().enumerate() {
            keywords.set_item(name, Borrowed::from_ptr(py, *values.add(place)))?;
        }
        Ok(Some(keywords))
    }
}

/// The axis and keepdims of `np.sum(x, axis=…, keepdims=…)` and its like; None where there is more.
///
/// # Safety
/// `arguments` is a tuple, `keywords` a dictionary.
unsafe fn axis_and_keepdims(
    classes: &Classes,
    arguments: Object,
    given: isize,
    keywords: Object,
) -> Option<(Option<i64>, bool)> {
    // SAFETY: what the containers hold is alive as long as they, and nobody changes them meanwhile.
    unsafe {
        let (mut axis, mut keep_axes) = (None, false);
        let none = ffi::Py_None();
        if given == 2 {
            let object = ffi::PyTuple_GetItem(arguments, 1);
            axis = if object == none { None } else { Some(integer(classes, object)?) };
        }
        if ffi::PyDict_Size(keywords) == 0 {
            return Some((axis, keep_axes));
        }
        let (mut place, mut key, mut value): (isize, Object, Object) = (0, null_mut(), null_mut());
        while ffi::PyDict_Next(keywords, &mut place, &mut key, &mut value) != 0 {
            if key == classes.axis && given == 1 {
                axis = if value == none { None } else { Some(integer(classes, value)?) };
            } else if key == classes.keepdims && (value == ffi::Py_True() || value == ffi::Py_False()) {
                keep_axes = value == ffi::Py_True();
            } else {
                return None;
            }
        }
        Some((axis, keep_axes))
    }
}

/// A function of NumPy's in its plainest form; None for anything else.
///
/// # Safety
/// `arguments` is a tuple, `keywords` a dictionary.
unsafe fn plain_function(
    py: Python<'_>,
    classes: &Classes,
    function: Object,
    arguments: Object,
    keywords: Object,
) -> PyResult<Option<Object>> {
    let (kind, mean) = match find(py, function)? {
        Some(Shortcut::Reduction(kind)) => (kind, false),
        Some(Shortcut::Mean) => (ReduceKind::Sum, true),
        Some(Shortcut::Dot) => {
            // SAFETY: what the tuple holds is alive as long as it.
            return unsafe {
                if ffi::PyTuple_Size(arguments) != 2 || ffi::PyDict_Size(keywords) != 0 {
                    return Ok(None);
                }
                let operands = [ffi::PyTuple_GetItem(arguments, 0), ffi::PyTuple_GetItem(arguments, 1)];
                plain_product(py, classes, operands)
            };
        }
        _ => return Ok(None),
    };
    // SAFETY: as above.
    unsafe {
        let given = ffi::PyTuple_Size(arguments);
        if !(1..=2).contains(&given) {
            return Ok(None);
        }
        let operand = ffi::PyTuple_GetItem(arguments, 0);
        if ffi::Py_TYPE(operand) != classes.array {
            return Ok(None);
        }
        let Some((axis, keep_axes)) = axis_and_keepdims(classes, arguments, given, keywords) else { return Ok(None) };
        let operand = &*classes.value(operand);
        plainly(py, operand.tape(), reduce_plainly(py, kind, operand, axis, keep_axes, mean)?)
    }
}

/// `__array_function__(function, types, arguments, keywords)`.
unsafe extern "C" fn function(this: Object, args: *const Object, count: ffi::Py_ssize_t, names: Object) -> Object {
    // SAFETY: as for `ufunc`.
    unsafe {
        let (py, classes) = (Python::assume_attached(), classes());
        answered(py, || {
            let given = std::slice::from_raw_parts(args, count as usize);
            let (&[function, _, arguments, keywords], true) = (given, names.is_null()) else {
                let what = "__array_function__ takes a function, types, arguments and keywords";
                return Err(refusal(ErrorKind::Type, "function", what, PROTOCOL));
            };
            if ffi::PyTuple_Check(arguments) == 0 || ffi::PyDict_Check(keywords) == 0 {
                let what = "__array_function__ takes a tuple of arguments and a dictionary of keywords";
                return Err(refusal(ErrorKind::Type, "function", what, PROTOCOL));
            }
            if let Some(result) = plain_function(py, classes, function, arguments, keywords)? {
                return Ok(result);
            }
            Python::attach(|py| {
                let object = |object: Object| Borrowed::from_ptr(py, object).to_owned();
                let this = object(this).cast_into::<Tracer>()?;
                let arguments = object(arguments).cast_into::<PyTuple>()?;
                let keywords = object(keywords).cast_into::<PyDict>()?;
                array_function(&this, &object(function), &arguments, &keywords).map(Py::into_ptr)
            })
        })
    }
}

/// The slots of both leaves, but for those that have to do with memory.
pub fn all() -> Vec<ffi::PyType_Slot> {
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let method = |name: &'static std::ffi::CStr, called: ffi::PyCFunctionFastWithKeywords| ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: called },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: std::ptr::null(),
    };
    // The class refers to the table of its methods for ever.
    let methods = Box::leak(Box::new([
        method(c"__array_ufunc__", ufunc),
        method(c"__array_function__", function),
        ffi::PyMethodDef::zeroed(),
    ]));
    vec![
        slot(ffi::Py_nb_add, add as ffi::binaryfunc as *mut c_void),
        slot(ffi::Py_nb_subtract, subtract as ffi::binaryfunc as *mut c_void),
        slot(ffi::Py_nb_multiply, multiply as ffi::binaryfunc as *mut c_void),
        slot(ffi::Py_nb_true_divide, divide as ffi::binaryfunc as *mut c_void),
        slot(ffi::Py_nb_matrix_multiply, matrix_product as ffi::binaryfunc as *mut c_void),
        slot(ffi::Py_nb_power, power as ffi::ternaryfunc as *mut c_void),
        slot(ffi::Py_tp_richcompare, compare as ffi::richcmpfunc as *mut c_void),
        // A class that compares inherits no hash; these, like those below, have none.
        slot(ffi::Py_tp_hash, ffi::PyObject_HashNotImplemented as ffi::hashfunc as *mut c_void),
        slot(ffi::Py_nb_negative, negative as ffi::unaryfunc as *mut c_void),
        slot(ffi::Py_mp_subscript, element as ffi::binaryfunc as *mut c_void),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
    ]
}
