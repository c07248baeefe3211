//! Arguments that a call gives up: may their memory be written, and what becomes of the arrays.
//!
//! An array cannot be taken away from whoever else refers to it. So it is made one that nothing can be done with:
//! read-only, and of a dtype that no function has a loop for, whose name says what happened. That is so from before the
//! call runs, so that another thread cannot give it up, too; a call that has failed gives back what it has not written.

use std::sync::atomic::{AtomicBool, Ordering};

use ckad_graph::{Constant, ErrorKind, shape_text};
use ckad_run::GivenUp;
use numpy::npyffi::{self, PyArray_Descr};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use super::call::{Call, Leaf, LeafValue};
use crate::capture::is_writeable;
use crate::convert::MEMORY;
use crate::errors::refusal;
use crate::execute::Donated;

/// The field's name in the dtype of an array that was donated.
const FIELD: &str = "donated_to_ckad_jit";

/// The donated arrays of one call.
pub struct Donation<'py> {
    arrays: Vec<Bound<'py, PyUntypedArray>>,
    /// The dtypes that they had.
    dtypes: Vec<Bound<'py, PyArrayDescr>>,
    memory: Vec<GivenUp>,
    overwritten: AtomicBool,
}

fn refused(what: String, hint: &str) -> PyErr {
    refusal(ErrorKind::Value, "jit", what, hint)
}

/// First and last byte of an array's memory; None where it has none.
fn range(array: &Bound<'_, PyUntypedArray>) -> Option<(usize, usize)> {
    let itemsize = array.dtype().itemsize() as isize;
    // SAFETY: the array is alive, and its C struct is only read.
    let data = unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(array.as_ptr().cast())).data } as isize;
    if array.shape().contains(&0) || itemsize == 0 {
        return None;
    }
    let reach = |keep: fn(isize) -> bool| {
        let far = array.shape().iter().zip(array.strides()).map(|(&extent, &stride)| (extent as isize - 1) * stride);
        far.filter(|&far| keep(far)).sum::<isize>()
    };
    Some(((data + reach(|far| far < 0)) as usize, (data + reach(|far| far > 0) + itemsize - 1) as usize))
}

/// Nobody else can see the array's memory through another array, as far as anybody can say.
fn owns_its_memory(array: &Bound<'_, PyUntypedArray>) -> PyResult<bool> {
    let base = array.getattr("base")?;
    if base.is_none() {
        return array.getattr("flags")?.getattr("owndata")?.is_truthy();
    }
    if let Ok(capsule) = base.cast::<PyCapsule>() {
        // A result of ours: views of it have it as their base.
        return Ok(capsule.is_valid_checked(Some(MEMORY)));
    }
    let Ok(base) = base.cast::<PyUntypedArray>() else { return Ok(false) };
    // SAFETY: a live object; two references are the array's and ours.
    let alone = unsafe { ffi::Py_REFCNT(base.as_ptr()) } == 2;
    let whole = base.len() * base.dtype().itemsize() == array.len() * array.dtype().itemsize();
    // A base of its own may lie over somebody else's buffer: a bytearray, a file, another library's tensor.
    let own = base.getattr("base")?.is_none() && base.getattr("flags")?.getattr("owndata")?.is_truthy()?;
    Ok(whole && alone && own)
}

/// What keeps the array, which is read as `constant`, from being donated.
fn why_not(array: &Bound<'_, PyUntypedArray>, constant: &Constant) -> PyResult<Option<&'static str>> {
    Ok(if !is_writeable(array) {
        Some("is read-only")
    } else if !array.getattr("flags")?.getattr("writeable")?.is_truthy()? {
        Some("is still to be read by a transform around the call")
    } else if !owns_its_memory(array)? {
        Some("is a view of memory that belongs to something else")
    } else if constant.owned_bytes() > 0 {
        Some("is not packed, aligned and in the machine's byte order")
    } else {
        None
    })
}

impl<'py> Donation<'py> {
    /// The arrays that `call` donates. `captured` are those that the recording reads beside the arguments.
    pub fn new(py: Python<'py>, call: &Call, captured: &[Bound<'py, PyUntypedArray>]) -> PyResult<Donation<'py>> {
        let overwritten = AtomicBool::new(false);
        let mut donation = Donation { arrays: Vec::new(), dtypes: Vec::new(), memory: Vec::new(), overwritten };
        if !call.donated.contains(&true) {
            return Ok(donation);
        }
        let mut ranges: Vec<((usize, usize), bool, Vec<usize>)> = Vec::new();
        let mut note = |array: &Bound<'_, PyUntypedArray>, donated| {
            ranges.extend(range(array).map(|range| (range, donated, array.shape().to_vec())));
        };
        let mut input = 0;
        for (leaf, &donated) in call.leaves.iter().zip(&call.donated) {
            let Leaf::Traced(_, value) = leaf else { continue };
            input += 1;
            let LeafValue::Array(constant, object) = value else { continue };
            let array = object.bind(py).cast::<PyUntypedArray>()?;
            note(array, donated);
            if !donated {
                continue;
            }
            let shape: Vec<i64> = array.shape().iter().map(|&extent| extent as i64).collect();
            if let Some(why) = why_not(array, constant)? {
                let what = format!("a donated array of shape {} {why}", shape_text(&shape));
                return Err(refused(what, "donate a copy: x.copy(), or leave the argument out of donate_argnums"));
            }
            donation.arrays.push(array.clone());
            let bytes = constant.bytes();
            // SAFETY: the memory of a writeable array that nobody else uses, as was just checked, and that the results
            // keep alive.
            let memory = unsafe { GivenUp::new(input - 1, bytes.as_ptr().cast_mut(), bytes.len()) };
            donation.memory.push(memory);
        }
        for array in captured {
            note(array, false);
        }
        ranges.sort_unstable();
        let mut end: Option<(usize, bool)> = None;
        for ((first, last), donated, shape) in ranges {
            if let Some((until, of_donated)) = end
                && first <= until
                && (donated || of_donated)
            {
                let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
                let what = format!("a donated array shares memory with an array of shape {}", shape_text(&shape));
                return Err(refused(what + " that the call reads, too", "pass a copy of one of them: x.copy()"));
            }
            end = match end {
                Some((until, of_donated)) if until > last => Some((until, of_donated)),
                _ => Some((last, donated)),
            };
        }
        let unusable = donation.arrays.iter().map(unusable).collect::<PyResult<Vec<_>>>()?;
        let arrays = donation.arrays.iter().zip(unusable);
        donation.dtypes = arrays.map(|(array, dtype)| exchange(array, dtype, false)).collect();
        Ok(donation)
    }

    pub fn memory(&self) -> Donated<'_> {
        Donated { memory: &self.memory, overwritten: &self.overwritten }
    }

    /// What keeps the memory of the `input`-th input alive.
    pub fn owner(&self, input: u32, call: &Call) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut arrays = call.traced().zip(0u32..).filter(|(_, index)| *index == input);
        let Some(((_, LeafValue::Array(_, object)), _)) = arrays.next() else { return Ok(None) };
        let found = self.arrays.iter().find(|array| array.as_ptr() == object.as_ptr());
        let Some(array) = found else { return Ok(None) };
        let base = array.getattr("base")?;
        if base.cast::<PyCapsule>().is_ok() {
            return Ok(Some(base));
        }
        // Not the array itself: NumPy would give it as the base to views of the result, too.
        Ok(Some(PyCapsule::new_with_value(array.py(), array.clone().unbind(), MEMORY)?.into_any()))
    }

    /// Gives the arrays back where nothing was written to them.
    pub fn end(self, finished: bool) {
        if finished || self.overwritten.load(Ordering::Relaxed) {
            return;
        }
        for (array, dtype) in self.arrays.iter().zip(self.dtypes) {
            exchange(array, dtype, true);
        }
    }
}

/// A dtype of an array's itemsize with which nothing can be done.
fn unusable<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyArrayDescr>> {
    let fields = vec![(FIELD, format!("V{}", array.dtype().itemsize()))];
    Ok(array.py().import("numpy")?.call_method1("dtype", (fields,))?.cast_into::<PyArrayDescr>()?)
}

/// Gives an array another dtype of the same size, and says whether it may be written to. Returns the dtype that it had.
fn exchange<'py>(
    array: &Bound<'py, PyUntypedArray>,
    dtype: Bound<'py, PyArrayDescr>,
    writeable: bool,
) -> Bound<'py, PyArrayDescr> {
    // SAFETY: a live array under the GIL; either dtype is of the same size and holds no references, so that the array
    // is freed as before. The array owns the reference to its dtype.
    unsafe {
        let fields = npyffi::_PyArray_GET_ITEM_DATA(array.as_ptr().cast());
        let before = std::mem::replace(&mut (*fields).descr, dtype.into_ptr().cast::<PyArray_Descr>());
        match writeable {
            true => (*fields).flags |= npyffi::NPY_ARRAY_WRITEABLE,
            false => (*fields).flags &= !npyffi::NPY_ARRAY_WRITEABLE,
        }
        Bound::from_owned_ptr(array.py(), before.cast()).cast_into_unchecked()
    }
}
