//! NumPy arrays and Python scalars into the graph, results out of it.
//!
//! A captured array becomes a node in *memory order*: its flat memory, axes sorted by stride, so that an array in
//! Fortran order costs no copy and view-or-copy decisions agree with NumPy's. Small arrays are snapshotted; large
//! ones are read where they lie and made read-only until the trace ends.

use std::ffi::CStr;
use std::sync::Arc;

use ckad_graph::{Attributes, Constant, DType, Error, HostArray, NodeId, Op, ScalarBits, tables};
use numpy::npyffi::{self, NpyTypes, PY_ARRAY_API};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use crate::alive::Counted;
use crate::capture::is_writeable;
use crate::errors::{builtin, raise};
use crate::finish::ResultSpec;
use crate::layout::Layout;
use crate::result::Output;
use crate::tape::{Tape, TapeCell};
use crate::trace::is_recording;
use crate::value::{Borrowed, Snapshot, Value};

/// Arrays up to this size are copied when captured; larger ones are made read-only instead.
const SNAPSHOT_BYTES: usize = 64 * 1024;

/// What an operand that is not a traced value is.
pub enum Foreign {
    /// Python scalars are weak: they take the dtype of the array beside them.
    PythonBool(bool),
    PythonInt,
    PythonFloat(f64),
    NumpyScalar(DType),
    Array,
    /// A list, a tuple, None, …
    Other,
}

/// An array used as an operand.
pub struct ArrayOperand {
    /// Its packed flat memory.
    pub node: NodeId,
    /// How the caller's axes lie in that memory.
    pub layout: Layout,
}

fn unsupported(what: &str) -> PyErr {
    raise(
        Error::dtype("array", format!("{what} is not supported"))
            .with_hint("convert with .astype(np.float64) or another of float64, float32, integers, bool"),
    )
}

/// The dtype of a NumPy array, byte order aside.
pub fn array_dtype(array: &Bound<'_, PyUntypedArray>) -> PyResult<DType> {
    let descr = array.dtype();
    let dtype = match (descr.kind(), descr.itemsize()) {
        (b'b', 1) => DType::Bool,
        (b'i', 1) => DType::I8,
        (b'i', 2) => DType::I16,
        (b'i', 4) => DType::I32,
        (b'i', 8) => DType::I64,
        (b'u', 1) => DType::U8,
        (b'u', 2) => DType::U16,
        (b'u', 4) => DType::U32,
        (b'u', 8) => DType::U64,
        (b'f', 4) => DType::F32,
        (b'f', 8) => DType::F64,
        _ => return Err(unsupported(&format!("dtype {descr}"))),
    };
    Ok(dtype)
}

/// NumPy's scalar base class, for `isinstance`.
fn numpy_generic(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static GENERIC: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
    GENERIC.get_or_try_init(py, || Ok(py.import("numpy")?.getattr("generic")?.unbind())).map(|class| class.bind(py))
}

/// An exact ndarray or a memmap; other subclasses change what operations mean.
fn plain_array<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<Option<&'a Bound<'py, PyUntypedArray>>> {
    let Ok(array) = object.cast::<PyUntypedArray>() else { return Ok(None) };
    let class = object.get_type();
    if !class.is(object.py().get_type::<PyUntypedArray>()) {
        let name = class.name()?.to_string();
        if name != "memmap" {
            return Err(raise(
                Error::dtype("array", format!("ndarray subclass {name} is not supported"))
                    .with_hint("pass np.asarray(x)"),
            ));
        }
    }
    Ok(Some(array))
}

pub fn classify(object: &Bound<'_, PyAny>) -> PyResult<Foreign> {
    if let Ok(float) = object.cast_exact::<PyFloat>() {
        return Ok(Foreign::PythonFloat(float.value()));
    }
    if object.is_exact_instance_of::<PyInt>() {
        return Ok(Foreign::PythonInt);
    }
    if let Ok(boolean) = object.cast_exact::<PyBool>() {
        return Ok(Foreign::PythonBool(boolean.is_true()));
    }
    if let Some(array) = plain_array(object)? {
        array_dtype(array)?;
        return Ok(Foreign::Array);
    }
    if object.is_instance(numpy_generic(object.py())?)? {
        let array = object.call_method0("__array__")?;
        return Ok(Foreign::NumpyScalar(array_dtype(array.cast::<PyUntypedArray>()?)?));
    }
    if object.is_instance_of::<pyo3::types::PyComplex>() {
        return Err(unsupported("complex"));
    }
    if let Ok(float) = object.cast::<PyFloat>() {
        return Ok(Foreign::PythonFloat(float.value()));
    }
    if object.is_instance_of::<PyInt>() {
        return Ok(Foreign::PythonInt);
    }
    Ok(Foreign::Other)
}

/// The bits of a Python or NumPy scalar as an element of `dtype`.
pub fn scalar_bits(object: &Bound<'_, PyAny>, dtype: DType) -> PyResult<ScalarBits> {
    if dtype.is_float() {
        return Ok(dtype.bits_of_f64(object.extract::<f64>()?));
    }
    if dtype == DType::Bool {
        return Ok(u64::from(object.is_truthy()?));
    }
    let out_of_range = || {
        let text = object.str().map_or_else(|_| "integer".to_owned(), |text| text.to_string());
        let hint = "convert the array to a wider dtype with .astype first";
        builtin::<PyOverflowError>("array", format!("Python integer {text} out of bounds for {dtype}"), hint)
    };
    if dtype == DType::U64 {
        return object.extract::<u64>().map_err(|_| out_of_range());
    }
    let value = object.extract::<i64>().map_err(|_| out_of_range())?;
    let bits = dtype.bits_of_i64(value);
    if dtype.i64_of_bits(bits) == value { Ok(bits) } else { Err(out_of_range()) }
}

/// Values that belong to a program's structure: 0, 1, small whole exponents and ±0.5.
fn is_structural(value: f64, exponent: bool) -> bool {
    let whole = value.fract() == 0.0 && value.abs() <= 65536.0;
    (value == 0.0 && value.is_sign_positive()) || value == 1.0 || (exponent && (whole || value.abs() == 0.5))
}

/// A Python or NumPy scalar as a node of `dtype`. `exponent`: it is the second operand of a power.
pub fn scalar_node(tape: &mut Tape, dtype: DType, bits: ScalarBits, exponent: bool) -> ckad_graph::Result<NodeId> {
    let value = dtype.f64_of_bits(bits);
    if is_structural(value, exponent) {
        tape.builder.literal(dtype, value as f32)
    } else {
        tape.builder.scalar(dtype, bits)
    }
}

/// The memory of an array in ascending addresses: where it starts, its axes from the outermost in, and how the
/// caller's axes lie in it. `None` where the array has gaps or repeats elements and must be packed first.
struct Memory {
    data: *const u8,
    extents: Vec<i64>,
    layout: Layout,
}

/// Where its first element is.
fn data_of(array: &Bound<'_, PyUntypedArray>) -> *const u8 {
    // SAFETY: the array is alive, and its C struct is only read.
    unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr())).data }.cast_const().cast()
}

fn memory_of(array: &Bound<'_, PyUntypedArray>, itemsize: i64) -> Option<Memory> {
    let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
    let strides: Vec<i64> = array.strides().iter().map(|&stride| stride as i64).collect();
    let data = data_of(array);
    if shape.contains(&0) {
        return Some(Memory { data, extents: shape.clone(), layout: Layout::contiguous(&shape) });
    }
    let mut order: Vec<usize> = (0..shape.len()).collect();
    // Axes of extent 1 say nothing about the order; they keep their place among the others.
    order.sort_by_key(|&axis| std::cmp::Reverse(if shape[axis] == 1 { i64::MAX } else { strides[axis].abs() }));
    let mut packed = vec![0i64; shape.len()];
    let mut expected = 1i64;
    for &axis in order.iter().rev() {
        let sign = if strides[axis] < 0 && shape[axis] > 1 { -1 } else { 1 };
        if shape[axis] > 1 && strides[axis].abs() != expected * itemsize {
            return None;
        }
        packed[axis] = sign * expected;
        expected = expected.checked_mul(shape[axis].max(1))?;
    }
    let offset: i64 = packed.iter().zip(&shape).filter(|(stride, _)| **stride < 0).map(|(s, n)| -s * (n - 1)).sum();
    let extents = order.iter().map(|&axis| shape[axis]).collect();
    // SAFETY: `offset` elements before `data` is the array's lowest address: negative strides start there.
    let data = unsafe { data.offset(-(offset * itemsize) as isize) };
    Some(Memory { data, extents, layout: Layout { offset, shape, strides: packed } })
}

/// An array's memory as a constant, and how its axes lie in it.
pub struct Taken {
    pub constant: Constant,
    pub extents: Vec<i64>,
    pub layout: Layout,
    /// It is read where it lies: the array must not change.
    pub in_place: bool,
    /// It is a copy with other bytes than the array's: without gaps and repeats, in native byte order.
    pub packed: bool,
}

/// Which packed arrays are copied. The others are read where they lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyOf {
    All,
    Small,
    None,
}

/// Packs, converts the byte order and snapshots as needed.
fn take_array(array: &Bound<'_, PyUntypedArray>, copy: CopyOf) -> PyResult<Taken> {
    let py = array.py();
    let dtype = array_dtype(array)?;
    let itemsize = dtype.size() as i64;
    let native = array.dtype().is_native_byteorder().unwrap_or(true);
    let bytes = array.len() * dtype.size();
    let in_place = if native && array.is_aligned() { memory_of(array, itemsize) } else { None };
    if let Some(memory) = in_place {
        let borrowed = Borrowed { _array: array.clone().into_any().unbind(), data: memory.data, bytes };
        if copy == CopyOf::All || (copy == CopyOf::Small && bytes <= SNAPSHOT_BYTES) {
            let constant = Snapshot::shared(borrowed.bytes()).map_err(raise)?;
            return Ok(Taken {
                constant,
                extents: memory.extents,
                layout: memory.layout,
                in_place: false,
                packed: false,
            });
        }
        let constant: Constant = Arc::new(borrowed);
        return Ok(Taken { constant, extents: memory.extents, layout: memory.layout, in_place: true, packed: false });
    }
    // Gaps, repeats, foreign byte order: a packed copy in the caller's axis order, which nobody else can change.
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("order", "K")?;
    kwargs.set_item("copy", true)?;
    let packed = array.call_method("astype", (dtype.name(),), Some(&kwargs))?;
    let packed = packed.cast_into::<PyUntypedArray>()?;
    let memory = memory_of(&packed, itemsize)
        .ok_or_else(|| raise(Error::internal("array", "a K-order copy that is not packed")))?;
    let copy = Borrowed { _array: packed.into_any().unbind(), data: memory.data, bytes };
    let constant: Constant = Arc::new(OwnedCopy(copy));
    Ok(Taken { constant, extents: memory.extents, layout: memory.layout, in_place: false, packed: true })
}

/// The same bytes in memory of ours, unless they are ours already.
pub fn owned(constant: &Constant) -> ckad_graph::Result<Constant> {
    if constant.is_ours() { Ok(Arc::clone(constant)) } else { Snapshot::shared(constant.bytes()) }
}

/// A packed copy that NumPy made for us: its bytes count as ours.
#[derive(Debug)]
struct OwnedCopy(Borrowed);

impl HostArray for OwnedCopy {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn owned_bytes(&self) -> usize {
        self.0.bytes
    }
}

/// Does an array of the dtype, shape and strides of what was captured hold the same elements? `packed`: the constant is
/// a rearranged copy.
pub fn array_bytes_equal(
    array: &Bound<'_, PyUntypedArray>,
    captured: &Constant,
    layout: &Layout,
    packed: bool,
) -> bool {
    if packed {
        return take_array(array, CopyOf::All).is_ok_and(|now| now.constant.bytes() == captured.bytes());
    }
    let itemsize = array.dtype().itemsize() as isize;
    // SAFETY: the lowest address of an array that lies as the layout says, as in `memory_of`.
    let data = unsafe { data_of(array).offset(-(layout.offset as isize) * itemsize) };
    let now = Borrowed { _array: array.clone().into_any().unbind(), data, bytes: captured.bytes().len() };
    now.bytes() == captured.bytes()
}

fn strides_of(array: &Bound<'_, PyUntypedArray>) -> Vec<i64> {
    array.strides().iter().map(|&stride| stride as i64).collect()
}

/// A NumPy array (or scalar, or anything `np.asarray` takes) as an operand on `tape`.
pub fn array_operand(py: Python<'_>, tape: &Arc<TapeCell>, object: &Bound<'_, PyAny>) -> PyResult<ArrayOperand> {
    let array = match plain_array(object)? {
        Some(array) => array.clone(),
        None => as_array(object)?,
    };
    let dtype = array_dtype(&array)?;
    if let Some((node, layout)) = tape.captured_array(py, object, &array)? {
        return Ok(ArrayOperand { node, layout });
    }
    let taken = take_array(&array, CopyOf::Small)?;
    let (constant, layout) = (&taken.constant, taken.layout.clone());
    if taken.in_place {
        tape.guard(&array, constant)?;
    }
    let node = tape.record(py, |tape| {
        let shape = tape.builder.intern(&taken.extents)?;
        let attributes = tape.builder.attributes();
        let node = tape.builder.graph_mut().push_constant(dtype, shape, Arc::clone(constant), attributes)?;
        tables::room_for_keys("capture", &mut tape.values, 1)?;
        tape.values.insert(node, Value::Array(Arc::clone(constant)));
        Ok(node)
    })?;
    tape.note_captured(object, &array, node, taken)?;
    Ok(ArrayOperand { node, layout })
}

/// `np.asarray(object)`: lists, tuples, NumPy scalars.
pub fn as_array<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let array = object.py().import("numpy")?.call_method1("asarray", (object,))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// A Python or NumPy scalar as a node of `dtype` on `tape`.
pub fn scalar_operand(
    py: Python<'_>,
    tape: &Arc<TapeCell>,
    object: &Bound<'_, PyAny>,
    dtype: DType,
) -> PyResult<NodeId> {
    let bits = scalar_bits(object, dtype)?;
    tape.record(py, |tape| scalar_node(tape, dtype, bits, false))
}

/// An argument of a transform: a node in memory order that is an input of the graph.
pub struct Argument {
    pub node: NodeId,
    pub layout: Layout,
    pub dtype: DType,
    pub numpy_strides: Vec<i64>,
    pub read_only: bool,
}

/// Makes `array` the next input of `tape`. What is copied of it counts until the recording ends.
pub fn array_argument(tape: &Arc<TapeCell>, object: &Bound<'_, PyAny>, active: bool) -> PyResult<Argument> {
    let array = match plain_array(object)? {
        Some(array) => array.clone(),
        None => as_array(object)?,
    };
    let dtype = array_dtype(&array)?;
    let Taken { constant, extents, layout, in_place, .. } = take_array(&array, CopyOf::Small)?;
    if in_place {
        tape.guard(&array, &constant)?;
    }
    let mut open = tape.open(object.py()).map_err(raise)?;
    open.builder.set_attributes(Attributes::default());
    open.copied_arguments += constant.owned_bytes();
    let node = open.input(dtype, &extents, active, Some(Value::Array(constant))).map_err(raise)?;
    drop(open);
    Ok(Argument { node, layout, dtype, numpy_strides: strides_of(&array), read_only: !is_writeable(&array) })
}

/// An array as it lies now, for a reader that runs at once. As with NumPy's own functions, what another thread writes
/// meanwhile may be read.
pub struct TakenArgument {
    pub constant: Constant,
    pub extents: Vec<i64>,
    pub layout: Layout,
    pub dtype: DType,
    /// The array's own strides in bytes, where they are not those of the packed memory.
    pub strides: Option<Vec<i64>>,
    pub read_only: bool,
}

pub fn array_in_place(object: &Bound<'_, PyAny>) -> PyResult<TakenArgument> {
    let array = plain_array(object)?.ok_or_else(|| raise(Error::internal("array", "not an array")))?;
    let dtype = array_dtype(array)?;
    let Taken { constant, extents, layout, .. } = take_array(array, CopyOf::None)?;
    let itemsize = dtype.size() as i64;
    let strides = strides_of(array);
    let packed = layout.strides.iter().zip(&strides).all(|(ours, theirs)| ours * itemsize == *theirs);
    let strides = (!packed).then_some(strides);
    Ok(TakenArgument { constant, extents, layout, dtype, strides, read_only: !is_writeable(array) })
}

/// Is it an ndarray, of whatever class and dtype?
pub fn is_array(object: &Bound<'_, PyAny>) -> bool {
    object.cast::<PyUntypedArray>().is_ok()
}

/// The NumPy type number of a dtype.
fn type_number(dtype: DType) -> npyffi::NPY_TYPES {
    use npyffi::NPY_TYPES as T;
    match dtype {
        DType::Bool => T::NPY_BOOL,
        DType::I8 => T::NPY_BYTE,
        DType::I16 => T::NPY_SHORT,
        DType::I32 => T::NPY_INT,
        DType::I64 => T::NPY_LONG,
        DType::U8 => T::NPY_UBYTE,
        DType::U16 => T::NPY_USHORT,
        DType::U32 => T::NPY_UINT,
        DType::U64 => T::NPY_ULONG,
        DType::F32 => T::NPY_FLOAT,
        DType::F64 => T::NPY_DOUBLE,
    }
}

/// An array of the caller's layout over packed memory that `owner` keeps alive.
fn array_over<'py>(
    py: Python<'py>,
    dtype: DType,
    layout: &Layout,
    data: *mut u8,
    owner: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let itemsize = dtype.size() as i64;
    let mut extents: Vec<npyffi::npy_intp> = layout.shape.iter().map(|&n| n as npyffi::npy_intp).collect();
    let mut strides: Vec<npyffi::npy_intp> =
        layout.strides.iter().map(|&stride| (stride * itemsize) as npyffi::npy_intp).collect();
    // SAFETY: descriptor, extents and strides are valid; NewFromDescr steals the descriptor; the elements that the
    // layout names lie within memory which `owner` keeps alive; SetBaseObject steals the owner.
    unsafe {
        let descr = PY_ARRAY_API.PyArray_DescrFromType(py, type_number(dtype) as std::ffi::c_int);
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, NpyTypes::PyArray_Type),
            descr,
            extents.len() as std::ffi::c_int,
            extents.as_mut_ptr(),
            strides.as_mut_ptr(),
            data.offset((layout.offset * itemsize) as isize).cast(),
            npyffi::NPY_ARRAY_WRITEABLE | npyffi::NPY_ARRAY_ALIGNED,
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        if PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_ptr().cast(), owner.into_ptr()) != 0 {
            return Err(PyErr::fetch(py));
        }
        PY_ARRAY_API.PyArray_UpdateFlags(
            py,
            array.as_ptr().cast(),
            npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_F_CONTIGUOUS,
        );
        Ok(array)
    }
}

/// A fresh packed array in C order.
fn fresh_array<'py>(py: Python<'py>, dtype: DType, shape: &[i64]) -> PyResult<(Bound<'py, PyAny>, *mut u8)> {
    let mut extents: Vec<npyffi::npy_intp> = shape.iter().map(|&n| n as npyffi::npy_intp).collect();
    // SAFETY: descriptor and extents are valid; NewFromDescr steals the descriptor and allocates the data.
    unsafe {
        let descr = PY_ARRAY_API.PyArray_DescrFromType(py, type_number(dtype) as std::ffi::c_int);
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            npyffi::get_type_object(py, NpyTypes::PyArray_Type),
            descr,
            extents.len() as std::ffi::c_int,
            extents.as_mut_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        let data = (*npyffi::_PyArray_GET_ITEM_DATA(array.as_ptr().cast())).data;
        Ok((array, data.cast()))
    }
}

/// An array in C order to be written, whose bytes are counted among what runs inside of a trace have left.
pub fn counted_room<'py>(py: Python<'py>, dtype: DType, shape: &[i64]) -> PyResult<Bound<'py, PyAny>> {
    let (array, data) = fresh_array(py, dtype, shape)?;
    counted(py, array, data, dtype, &Layout::contiguous(shape))
}

/// A fresh array in a layout over its packed memory, so counted.
fn counted<'py>(
    py: Python<'py>,
    array: Bound<'py, PyAny>,
    data: *mut u8,
    dtype: DType,
    layout: &Layout,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = Counted::new(layout.elements() as usize * dtype.size());
    let owner = pyo3::types::PyCapsule::new_with_value(py, (array.unbind(), bytes), MEMORY)?;
    array_over(py, dtype, layout, data, owner.into_any())
}

/// A NumPy array of that layout with a copy of `bytes`, which are its packed memory; a NumPy scalar for rank 0.
/// `is_left`: it counts among what runs inside of a trace have left.
fn copied(py: Python<'_>, bytes: &[u8], dtype: DType, layout: &Layout, is_left: bool) -> PyResult<Py<PyAny>> {
    let elements = layout.elements();
    let length = elements as usize * dtype.size();
    if bytes.len() < length {
        return Err(raise(Error::internal("array", format!("{} bytes for {length}", bytes.len()))));
    }
    let plain = *layout == Layout::contiguous(&layout.shape);
    let shape = if plain { layout.shape.clone() } else { vec![elements] };
    let (array, data) = fresh_array(py, dtype, &shape)?;
    // SAFETY: the array is fresh, packed and holds `length` bytes; `bytes` holds as many.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, length) };
    if layout.rank() == 0 {
        return Ok(array.get_item(())?.unbind());
    }
    if is_left {
        return Ok(counted(py, array, data, dtype, layout)?.unbind());
    }
    if plain { Ok(array.unbind()) } else { Ok(array_over(py, dtype, layout, data, array)?.unbind()) }
}

/// The name of the capsules that own results.
pub const MEMORY: &CStr = c"ckad.memory";

/// Results up to this size are cheaper copied than handed over. Those that are counted while they live are never
/// copied.
const COPY_BYTES: usize = 1024;

/// A result as a NumPy array in its own layout: handed over without a copy, or copied where it is small. `owner` keeps
/// its memory alive where that is not its own.
pub fn owned_to_numpy(
    py: Python<'_>,
    output: Output,
    dtype: DType,
    layout: &Layout,
    owner: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let bytes = output.0.bytes();
    if layout.rank() == 0 || (bytes.len() <= COPY_BYTES && !output.0.is_counted()) {
        return copied(py, bytes, dtype, layout, false);
    }
    let data = bytes.as_ptr().cast_mut();
    if let Some(owner) = owner {
        return Ok(array_over(py, dtype, layout, data, owner.clone())?.unbind());
    }
    let capsule = pyo3::types::PyCapsule::new_with_value(py, output.0, MEMORY)?;
    Ok(array_over(py, dtype, layout, data, capsule.into_any())?.unbind())
}

/// A known value as a NumPy array (a copy) in C order, or a NumPy scalar for rank 0.
pub fn value_to_numpy(py: Python<'_>, value: &Value, dtype: DType, shape: &[i64]) -> PyResult<Py<PyAny>> {
    value_in_layout(py, value, dtype, &Layout::contiguous(shape))
}

/// A known value as a NumPy array (a copy) in a layout over its packed memory.
pub fn value_in_layout(py: Python<'_>, value: &Value, dtype: DType, layout: &Layout) -> PyResult<Py<PyAny>> {
    match value {
        Value::Scalar(bits) => copied(py, &bits.to_le_bytes(), dtype, layout, false),
        Value::Array(array) => copied(py, array.bytes(), dtype, layout, is_recording()),
    }
}

/// Anything array-like, packed in C order, of that dtype. An array that is so already is read where it lies: it is not
/// to change until the run is over.
pub fn packed(object: &Bound<'_, PyAny>, dtype: DType) -> PyResult<Constant> {
    let packed = object.py().import("numpy")?.call_method1("ascontiguousarray", (object, dtype.name()))?;
    let packed = packed.cast_into::<PyUntypedArray>()?;
    let memory = memory_of(&packed, dtype.size() as i64)
        .ok_or_else(|| raise(Error::internal("array", "a contiguous copy that is not packed")))?;
    let bytes = packed.len() * dtype.size();
    let original = object.cast::<PyUntypedArray>().ok().map(data_of);
    let found = Borrowed { _array: packed.into_any().unbind(), data: memory.data, bytes };
    Ok(if original == Some(memory.data) { Arc::new(found) } else { Arc::new(OwnedCopy(found)) })
}

/// A known value as a node of a tape.
pub fn value_node(py: Python<'_>, tape: &Arc<TapeCell>, value: &Value, spec: &ResultSpec) -> PyResult<NodeId> {
    let extents = if spec.layout.rank() == 0 { Vec::new() } else { vec![spec.layout.elements()] };
    tape.record(py, |tape| match value {
        Value::Scalar(bits) => scalar_node(tape, spec.dtype, *bits, false),
        Value::Array(array) => {
            let shape = tape.builder.intern(&extents)?;
            let attributes = tape.builder.attributes();
            tape.builder.graph_mut().push_constant(spec.dtype, shape, Arc::clone(array), attributes)
        }
    })
}

/// The value of a leaf that needs no run: a literal or a scalar of the tape.
pub fn leaf_value(tape: &Tape, node: NodeId) -> Option<Value> {
    let graph = tape.builder.graph();
    match graph.op(node) {
        Op::Literal(bits) => Some(Value::Scalar(graph.dtype(node).bits_of_f64(f64::from(f32::from_bits(bits))))),
        Op::Scalar(index) => Some(Value::Scalar(graph.scalars[index as usize])),
        _ => None,
    }
}
