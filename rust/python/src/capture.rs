//! Arrays that a traced function takes from outside: one constant per array and content, and large ones made
//! read-only until the trace ends, so that changing one raises at the user's line instead of corrupting a result
//! that has yet to be computed.

use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};

use ckad_graph::{Constant, DType, Error, ErrorKind, NodeId, Result, tables};
use numpy::npyffi;
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::convert::{Taken, array_bytes_equal, array_dtype};
use crate::errors::raise;
use crate::layout::Layout;
use crate::tape::TapeCell;

/// How a NumPy array lies in memory: what its owner can change of it beside its elements.
struct Lying {
    /// NumPy's object for the dtype, held so that no other has its address.
    descr: Py<PyAny>,
    data: usize,
    shape: Vec<npyffi::npy_intp>,
    strides: Vec<npyffi::npy_intp>,
}

impl Lying {
    fn of(array: &Bound<'_, PyUntypedArray>) -> Lying {
        // SAFETY: the array is alive, and its C struct is only read.
        let data = unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr())).data } as usize;
        let list = |items: &[usize]| items.iter().map(|&item| item as npyffi::npy_intp).collect();
        let strides = array.strides().iter().map(|&stride| stride as npyffi::npy_intp).collect();
        Lying { descr: array.dtype().into_any().unbind(), data, shape: list(array.shape()), strides }
    }

    /// Are shape, strides and dtype of an array these? What steps along an axis of extent 1 would be says nothing.
    fn is_of(&self, array: &npyffi::objects::PyArrayObject_fields) -> bool {
        let rank = self.shape.len();
        if array.descr.cast() != self.descr.as_ptr() || array.nd as usize != rank || rank == 0 {
            return array.descr.cast() == self.descr.as_ptr() && array.nd == 0 && rank == 0;
        }
        // SAFETY: an array of that many axes, more than none, has as many extents and strides.
        let (shape, strides) = unsafe {
            let list = |items: *mut npyffi::npy_intp| std::slice::from_raw_parts(items, rank);
            (list(array.dimensions), list(array.strides))
        };
        let steps = strides.iter().zip(&self.strides);
        // Item by item: these lists are too short for memcmp.
        shape.iter().zip(&self.shape).all(|(now, then)| now == then)
            && steps.zip(shape).all(|((now, then), &extent)| now == then || extent <= 1)
    }
}

/// A captured array as it was when it was captured.
struct CapturedArray {
    object: Py<PyAny>,
    lying: Lying,
    constant: Constant,
    node: NodeId,
    layout: Layout,
    /// The constant's bytes are not the array's own, but a copy that was rearranged.
    packed: bool,
    /// What it is where it is an array itself, of the commonest kinds: a vector, or a matrix in C or F order.
    matrix: Option<CapturedMatrix>,
}

/// A captured vector or matrix whose memory is its node's.
#[derive(Clone, Copy)]
pub struct CapturedMatrix {
    pub node: NodeId,
    pub dtype: DType,
    extents: [i64; 2],
    rank: usize,
    /// Its node has its axes the other way around.
    pub turned: bool,
}

impl CapturedMatrix {
    fn new(node: NodeId, dtype: DType, extents: &[i64], layout: &Layout) -> Option<CapturedMatrix> {
        let shape = &layout.shape;
        if shape.is_empty() || shape.len() > 2 || shape.contains(&0) {
            return None;
        }
        let turned = is_turned(extents, layout)?;
        let extents = [shape[0], shape.get(1).copied().unwrap_or(1)];
        Some(CapturedMatrix { node, dtype, extents, rank: shape.len(), turned })
    }

    pub fn shape(&self) -> &[i64] {
        &self.extents[..self.rank]
    }
}

/// Of a vector or matrix over the whole memory of a node of these extents, from its start: has the node its axes the
/// other way around? None for anything else.
///
/// Strides alone do not tell: a column is in both orders, and its node has the shape (1, n).
pub fn is_turned(extents: &[i64], layout: &Layout) -> Option<bool> {
    if layout.offset != 0 || layout.rank() > 2 || extents.len() != layout.rank() {
        return None;
    }
    if layout.shape.iter().eq(extents) && layout.is_c_contiguous(1) {
        return Some(false);
    }
    (layout.shape.iter().eq(extents.iter().rev()) && layout.is_f_contiguous(1)).then_some(true)
}

impl CapturedArray {
    /// What it is now, where it is a vector or matrix in C or F order that was not changed since it was captured.
    fn as_matrix(&self) -> Option<CapturedMatrix> {
        let matrix = self.matrix?;
        let bytes = self.constant.bytes();
        // SAFETY: where there is a matrix, the object is an array. It is held, and its C struct, which NumPy changes
        // under the interpreter's lock alone, is read. With the shape, strides and dtype that it had, it has as many
        // bytes from its first element on as the constant.
        let same = unsafe {
            let array = &*npyffi::_PyArray_GET_ITEM_DATA(self.object.as_ptr().cast());
            self.lying.is_of(array)
                && match self.constant.owned_bytes() {
                    0 => array.data as usize == self.lying.data,
                    _ => *bytes == *std::slice::from_raw_parts(array.data.cast::<u8>(), bytes.len()),
                }
        };
        same.then_some(matrix)
    }

    /// Is the array, which the object is or was made into again, what was captured?
    fn is_now(&self, array: &Bound<'_, PyUntypedArray>) -> bool {
        // SAFETY: the array is alive, and its C struct is only read.
        let now = unsafe { &*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr()) };
        if !self.lying.is_of(now) {
            return false;
        }
        let in_place = self.constant.owned_bytes() == 0;
        // An array that is read in place is read-only, so it holds what it held where it is.
        if in_place && (now.data as usize == self.lying.data || self.object.as_ptr() == array.as_ptr()) {
            return now.data as usize == self.lying.data;
        }
        array_bytes_equal(array, &self.constant, &self.layout, self.packed)
    }
}

/// Arrays that a function reads from outside, and what of them it read.
pub type ReadArrays = Vec<(Py<PyAny>, Constant)>;

/// What a tape has captured, by the address of the Python object.
#[derive(Default)]
pub struct CapturedArrays {
    known: FxHashMap<usize, Vec<CapturedArray>>,
    guards: Vec<Py<PyAny>>,
    /// Arrays that are read where they lie, with a fingerprint of what they held: a read-only flag does not stop a
    /// write through another view of the memory.
    watched: Vec<(Constant, u64)>,
}

/// How many words of a watched array are looked at.
const FINGERPRINT_WORDS: usize = 64;

/// A hash of words spread evenly over an array, its first and last included: notices a refilled buffer at the price
/// of a few cache misses, not every write.
fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    let last = bytes.len().saturating_sub(8);
    for word in 0..FINGERPRINT_WORDS {
        let start = last / (FINGERPRINT_WORDS - 1) * word;
        let start = if word == FINGERPRINT_WORDS - 1 { last } else { start & !7 };
        hasher.write(&bytes[start..bytes.len().min(start + 8)]);
    }
    hasher.finish()
}

/// How many open traces hold an array read-only. Only arrays whose flag we cleared are listed.
static GUARDED: Mutex<Option<FxHashMap<usize, usize>>> = Mutex::new(None);

fn with_guarded<R>(look: impl FnOnce(&mut FxHashMap<usize, usize>) -> R) -> R {
    let mut guarded = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
    look(guarded.get_or_insert_default())
}

fn flags(array: &Bound<'_, PyAny>) -> *mut std::ffi::c_int {
    // SAFETY: callers pass arrays only; the struct stays where it is while the array lives.
    unsafe { &raw mut (*npyffi::_PyArray_GET_ITEM_DATA(array.as_ptr().cast())).flags }
}

/// May the caller write to the array? Asked before or after it was made read-only for a trace.
pub fn is_writeable(array: &Bound<'_, PyUntypedArray>) -> bool {
    // SAFETY: the flag word of a live array, under the GIL.
    let now = unsafe { *flags(array.as_any()) & npyffi::NPY_ARRAY_WRITEABLE != 0 };
    now || with_guarded(|guarded| guarded.contains_key(&(array.as_ptr() as usize)))
}

impl TapeCell {
    /// The node that already stands for this array, if its content has not changed since.
    pub fn captured_array(
        &self,
        py: Python<'_>,
        object: &Bound<'_, PyAny>,
        array: &Bound<'_, PyUntypedArray>,
    ) -> PyResult<Option<(NodeId, Layout)>> {
        let tape = self.open(py).map_err(raise)?;
        let Some(versions) = tape.arrays.known.get(&(object.as_ptr() as usize)) else { return Ok(None) };
        let Some(latest) = versions.last() else { return Ok(None) };
        debug_assert!(latest.object.bind(py).is(object));
        Ok(latest.is_now(array).then(|| (latest.node, latest.layout.clone())))
    }

    /// The vector or matrix that is the latest capture of that object; None where there is none, or it changed.
    pub fn captured_matrix(&self, py: Python<'_>, object: *mut pyo3::ffi::PyObject) -> Option<CapturedMatrix> {
        self.open(py).ok()?.arrays.known.get(&(object as usize))?.last()?.as_matrix()
    }

    pub fn note_captured(
        &self,
        object: &Bound<'_, PyAny>,
        array: &Bound<'_, PyUntypedArray>,
        node: NodeId,
        taken: Taken,
    ) -> PyResult<()> {
        let Taken { constant, extents, layout, packed, .. } = taken;
        let is_array = object.as_ptr() == array.as_ptr();
        let dtype = array_dtype(array)?;
        let matrix = if is_array && !packed { CapturedMatrix::new(node, dtype, &extents, &layout) } else { None };
        let lying = Lying::of(array);
        let captured = CapturedArray { object: object.clone().unbind(), lying, constant, node, layout, packed, matrix };
        let mut tape = self.open(array.py()).map_err(raise)?;
        tables::room_for_keys("capture", &mut tape.arrays.known, 1).map_err(raise)?;
        tape.arrays.known.entry(object.as_ptr() as usize).or_default().push(captured);
        Ok(())
    }

    /// Arrays that this tape made read-only stay so until `parent` closes.
    pub fn hand_guards_to(&self, py: Python<'_>, parent: &TapeCell) {
        if let (Ok(mut tape), Ok(mut parent)) = (self.open(py), parent.open(py)) {
            parent.arrays.guards.append(&mut tape.arrays.guards);
            parent.arrays.watched.append(&mut tape.arrays.watched);
        }
    }

    /// Makes the array, which is read in place as `constant`, read-only until the tape closes.
    pub fn guard(&self, array: &Bound<'_, PyUntypedArray>, constant: &Constant) -> PyResult<()> {
        let mut tape = self.open(array.py()).map_err(raise)?;
        tape.arrays.watched.push((Arc::clone(constant), fingerprint(constant.bytes())));
        let address = array.as_ptr() as usize;
        // SAFETY: the flag word of a live array, under the GIL.
        let writeable = unsafe { *flags(array.as_any()) & npyffi::NPY_ARRAY_WRITEABLE != 0 };
        let held = with_guarded(|guarded| {
            let count = guarded.get_mut(&address);
            match count {
                Some(count) => {
                    *count += 1;
                    true
                }
                None if writeable => {
                    guarded.insert(address, 1);
                    true
                }
                None => false,
            }
        });
        if held {
            // SAFETY: as above; the flag is given back by `CapturedArrays::restore`.
            unsafe { *flags(array.as_any()) &= !npyffi::NPY_ARRAY_WRITEABLE };
            tape.arrays.guards.push(array.clone().into_any().unbind());
        }
        Ok(())
    }
}

impl CapturedArrays {
    /// An error where an array that is read in place was seen to change.
    pub fn check_unchanged(&self) -> Result<()> {
        if self.watched.iter().all(|(constant, before)| fingerprint(constant.bytes()) == *before) {
            return Ok(());
        }
        let what =
            "an array that the function reads was changed while it was traced, through another view of its memory";
        Err(Error::new(ErrorKind::Value, "capture", what).with_hint("let the function read a copy of it: array.copy()"))
    }

    /// All arrays that were read, each as it was last.
    pub fn captured(&self, py: Python<'_>) -> ReadArrays {
        let latest = self.known.values().filter_map(|versions| versions.last());
        latest.map(|array| (array.object.clone_ref(py), Arc::clone(&array.constant))).collect()
    }

    /// The nodes of arrays to which nobody but this tape has a reference, nor to the memory that they are views of.
    pub fn held_by_nobody_else(&self, py: Python<'_>) -> Result<Vec<NodeId>> {
        // SAFETY: the objects are alive: captured arrays are held by `known`, and an array holds its base. Nothing in
        // between runs Python's code or changes `known`.
        let references = |object: *mut pyo3::ffi::PyObject| unsafe { pyo3::ffi::Py_REFCNT(object) } as usize;
        let mut alone: Vec<(NodeId, Option<usize>)> = Vec::new();
        let mut views: FxHashMap<usize, usize> = FxHashMap::default();
        for versions in self.known.values() {
            let Some(first) = versions.first() else { continue };
            let object = first.object.bind(py);
            let Ok(array) = object.cast::<PyUntypedArray>() else { continue };
            let guards = self.guards.iter().filter(|guard| guard.is(object)).count();
            let in_place = |version: &&CapturedArray| version.constant.owned_bytes() == 0;
            let ours = versions.len() + versions.iter().filter(in_place).count() + guards;
            if references(object.as_ptr()) > ours || first.constant.bytes().is_empty() {
                continue;
            }
            // SAFETY: the array is alive, and its C struct is only read.
            let base = unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr())).base };
            let base = (!base.is_null()).then_some(base as usize);
            if let Some(base) = base {
                *views.entry(base).or_default() += 1;
            }
            alone.extend(versions.iter().map(|version| (version.node, base)));
        }
        alone.sort_unstable();
        let is_made = |base: &Option<usize>| {
            base.is_none_or(|base| {
                references(base as *mut pyo3::ffi::PyObject) <= views.get(&base).copied().unwrap_or(0)
            })
        };
        tables::list("capture", alone.iter().filter(|(_, base)| is_made(base)).map(|&(node, _)| node))
    }

    /// Gives back the writeable flags that this tape's captures cleared, unless another open trace needs them.
    pub fn restore(&mut self, py: Python<'_>) {
        for array in self.guards.drain(..) {
            let address = array.as_ptr() as usize;
            let last = with_guarded(|guarded| match guarded.get_mut(&address) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                _ => guarded.remove(&address).is_some(),
            });
            if last {
                // SAFETY: the array is alive (`array` holds it), and the flag was set before we cleared it.
                unsafe { *flags(array.bind(py)) |= npyffi::NPY_ARRAY_WRITEABLE };
            }
        }
        self.known.clear();
        self.watched.clear();
    }
}
