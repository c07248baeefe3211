//! The classes that traced values are of: leaves derived from `Tracer` and `ArrayTracer`, whose hottest slots are
//! written by hand (`leaf_slots`).
//!
//! They do at once what is commonest (operators among packed floats of one trace, an element of a vector, ufuncs and
//! reductions without keywords), and hand anything else on to the classes they derive from, where all of Python's
//! protocol is. Objects that Python drops are kept with what they refer to (storage, layout, tape), so that the next
//! value of the same trace is one store.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use ckad_graph::{DType, Error, NodeId};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use crate::errors::raise;
use crate::guarded::{Guarded, dropping};
use crate::leaf_slots;
use crate::lines::symbol;
use crate::plain::{Plain, Recorded};
use crate::storage::{Storage, View};
use crate::tape::{Purpose, TapeCell};
use crate::tracer::{ArrayTracer, Kind, Tracer};

pub type Object = *mut ffi::PyObject;

/// The leaves, and what they hand on to.
pub struct Classes {
    pub array: *mut ffi::PyTypeObject,
    pub scalar: *mut ffi::PyTypeObject,
    pub float: *mut ffi::PyTypeObject,
    pub int: *mut ffi::PyTypeObject,
    /// Where the traced value lies in an object, of either class.
    pub offset: usize,
    pub add: ffi::binaryfunc,
    pub subtract: ffi::binaryfunc,
    pub multiply: ffi::binaryfunc,
    pub divide: ffi::binaryfunc,
    pub negative: ffi::unaryfunc,
    pub power: ffi::ternaryfunc,
    pub compare: ffi::richcmpfunc,
    pub matrix_product: ffi::binaryfunc,
    pub element: ffi::binaryfunc,
    /// What gives an object that had none its first reference, as the interpreter's own lists of free objects do, so
    /// that whoever counts or traces objects knows of it. Without it, no object is kept.
    new_reference: Option<unsafe extern "C" fn(Object)>,
    /// Names of keywords, interned as those in programs are.
    pub axis: Object,
    pub keepdims: Object,
}

static CLASSES: AtomicPtr<Classes> = AtomicPtr::new(null_mut());

/// Made when the module is, before there is any traced value.
#[inline]
pub fn classes() -> &'static Classes {
    // SAFETY: set once by `register`, to a box that is never freed.
    unsafe { &*CLASSES.load(Ordering::Acquire) }
}

impl Classes {
    /// The traced value of an object of a leaf.
    ///
    /// # Safety
    /// `object` is alive, or was recycled.
    #[inline]
    pub unsafe fn value(&self, object: Object) -> *mut Tracer {
        // SAFETY: objects of the leaves have the layout of those of `Tracer`, of which `offset` was measured.
        unsafe { object.cast::<u8>().add(self.offset).cast() }
    }

    /// Gives a kept object its one reference.
    ///
    /// # Safety
    /// It was kept, and nobody else has it.
    #[inline]
    unsafe fn revive(&self, object: Object) {
        if let Some(new_reference) = self.new_reference {
            // SAFETY: as the interpreter does with its own free objects, whose type and memory are as they were.
            unsafe { new_reference(object) }
        }
    }

    #[inline]
    pub fn is_leaf(&self, class: *mut ffi::PyTypeObject) -> bool {
        class == self.array || class == self.scalar
    }

    /// An operand where it may be a plain one.
    ///
    /// # Safety
    /// `object` is alive.
    #[inline]
    pub unsafe fn plain<'a>(&self, object: &'a Object) -> Option<Plain<'a>> {
        // SAFETY: the object is alive while its caller, Python, waits; a `Py` is a pointer to it.
        unsafe {
            let class = ffi::Py_TYPE(*object);
            if self.is_leaf(class) {
                return Some(Plain::Traced(&*self.value(*object)));
            }
            let number = if class == self.float {
                ffi::PyFloat_AsDouble(*object)
            } else if class == self.int {
                let mut overflow: c_int = 0;
                let whole = ffi::PyLong_AsLongLongAndOverflow(*object, &mut overflow);
                if overflow != 0 {
                    return None;
                }
                whole as f64
            } else {
                return None;
            };
            Some(Plain::Number(number, Some(&*std::ptr::from_ref(object).cast::<Py<PyAny>>())))
        }
    }
}

/// Most objects of each class that are kept.
const MOST_KEPT: usize = 32;

/// Objects that Python dropped, without references. Their values refer to a node no more, and to all else as before.
struct Kept {
    arrays: Vec<Object>,
    scalars: Vec<Object>,
}

// SAFETY: the objects are nobody else's, and used under the interpreter's lock, as all of Python's are.
unsafe impl Send for Kept {}

static KEPT: Guarded<Kept> = Guarded::new(Kept { arrays: Vec::new(), scalars: Vec::new() });

/// A new object of a leaf with that value, in the memory of a kept one where there is one.
pub fn object(py: Python<'_>, value: Tracer) -> PyResult<Py<PyAny>> {
    let classes = classes();
    let (class, kept) = {
        let mut kept = KEPT.hold(py);
        match value.kind() {
            Kind::Array { .. } => (classes.array, kept.arrays.pop()),
            Kind::Scalar { .. } => (classes.scalar, kept.scalars.pop()),
        }
    };
    // SAFETY: a kept object is alive but for its references, and has a value to be replaced; a new one of the class has
    // room for one. Neither refers to other Python objects, so the garbage collector need not look at it.
    unsafe {
        if let Some(object) = kept {
            classes.revive(object);
            std::ptr::drop_in_place(classes.value(object));
            classes.value(object).write(value);
            return Ok(Bound::from_owned_ptr(py, object).unbind());
        }
        let object = Bound::from_owned_ptr_or_err(py, ffi::PyType_GenericAlloc(class, 0))?;
        ffi::PyObject_GC_UnTrack(object.as_ptr().cast());
        classes.value(object.as_ptr()).write(value);
        Ok(object.unbind())
    }
}

/// The object of a value that was just recorded.
#[inline]
pub fn recorded_object(py: Python<'_>, recorded: &Recorded<'_>, weak: bool) -> PyResult<Object> {
    let &Recorded { tape, node, dtype, layout } = recorded;
    let classes = classes();
    let mut kept = KEPT.hold(py);
    let found = if layout.is_some() { kept.arrays.last() } else { kept.scalars.last() };
    if let Some(&object) = found {
        // SAFETY: as in `object`; nobody else has the kept object's value.
        let value = unsafe { &mut *classes.value(object) };
        if value.revive(tape, node, dtype, layout, weak) {
            if layout.is_some() {
                kept.arrays.pop()
            } else {
                kept.scalars.pop()
            };
            // Whoever traces references is told of it, and may do anything.
            drop(kept);
            // SAFETY: the object was kept, and is no more.
            unsafe { classes.revive(object) };
            return Ok(object);
        }
    }
    drop(kept);
    let tape = Arc::clone(tape);
    let value = match layout {
        None => Tracer::held_scalar(tape, node, dtype).weak_if(weak),
        Some(layout) => Tracer::view_of(Storage::held(tape, dtype, node), View::new(Arc::clone(layout), false)),
    };
    object(py, value).map(Py::into_ptr)
}

unsafe extern "C" fn deallocate(object: Object) {
    let classes = classes();
    // SAFETY: Python calls this once nobody refers to the object, which is of a leaf. What is kept is not looked at by
    // anybody until it has a reference again.
    unsafe {
        let py = dropping();
        let class = ffi::Py_TYPE(object);
        let value = classes.value(object);
        if classes.new_reference.is_some()
            && (*value).retire(py)
            && let Some(mut kept) = KEPT.try_hold(py)
        {
            let list = if class == classes.array { &mut kept.arrays } else { &mut kept.scalars };
            if list.len() < list.capacity() {
                list.push(object);
                return;
            }
        }
        std::ptr::drop_in_place(value);
        free(object);
    }
}

/// Frees the memory of an object whose value is gone.
///
/// # Safety
/// Nobody refers to the object.
unsafe fn free(object: Object) {
    // SAFETY: allocated by `PyType_GenericAlloc` for a class with the collector's flag, and not tracked; such classes
    // have this slot. The class is let go of with the object, as for any class that was made at run time.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let free: ffi::freefunc = std::mem::transmute(ffi::PyType_GetSlot(class, ffi::Py_tp_free));
        free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// Lets go of what kept objects of closed tapes refer to: when a trace ends. Those of other traces stay theirs.
pub fn forget_closed(py: Python<'_>) {
    let dropped: Vec<Object> = {
        let mut kept = KEPT.hold(py);
        let Kept { arrays, scalars } = &mut *kept;
        // SAFETY: kept objects have a value.
        let is_closed = |object: &mut Object| unsafe { (*classes().value(*object)).tape().is_closed() };
        arrays.extract_if(.., is_closed).chain(scalars.extract_if(.., is_closed)).collect()
    };
    for object in dropped {
        // SAFETY: kept objects have a value and no references.
        unsafe {
            std::ptr::drop_in_place(classes().value(object));
            free(object);
        }
    }
}

fn leaf(base: &Bound<'_, PyType>) -> PyResult<*mut ffi::PyTypeObject> {
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = leaf_slots::all();
    slots.push(slot(ffi::Py_tp_dealloc, deallocate as ffi::destructor as *mut c_void));
    slots.push(slot(0, null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: c"ckad.Tracer".as_ptr(),
        basicsize: 0,
        itemsize: 0,
        flags: ffi::Py_TPFLAGS_DEFAULT as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification and its slots live for the call, which copies what it keeps; the name is a constant.
    unsafe {
        let class = ffi::PyType_FromSpecWithBases(&mut spec, base.as_ptr());
        let class = Bound::from_owned_ptr_or_err(base.py(), class)?;
        // What `object` and `free` rest on.
        if ffi::PyType_HasFeature(class.as_ptr().cast(), ffi::Py_TPFLAGS_HAVE_GC) == 0 {
            return Err(raise(Error::internal("module", "the class of traced values is not the collector's")));
        }
        Ok(class.into_ptr().cast())
    }
}

/// The function of a class behind a slot that it has.
///
/// # Safety
/// `F` is the type of functions in that slot.
unsafe fn inherited<F: Copy>(base: &Bound<'_, PyType>, slot: c_int) -> PyResult<F> {
    // SAFETY: the class is alive; its slot is a function of type `F`, of a pointer's size.
    unsafe {
        let function = ffi::PyType_GetSlot(base.as_type_ptr(), slot);
        if function.is_null() {
            return Err(raise(Error::internal("module", format!("slot {slot} of the traced value is empty"))));
        }
        Ok(std::mem::transmute_copy::<*mut c_void, F>(&function))
    }
}

/// Makes the leaves.
pub fn register(py: Python<'_>) -> PyResult<()> {
    let (scalar, array) = (py.get_type::<Tracer>(), py.get_type::<ArrayTracer>());
    // A value of no trace shows where values lie.
    let tape = TapeCell::new(None, Purpose::default());
    tape.close(py);
    let sample = Bound::new(py, Tracer::held_scalar(tape, NodeId(0), DType::F64))?;
    let offset = std::ptr::from_ref(sample.get()) as usize - sample.as_ptr() as usize;
    // SAFETY: each slot with the type of its functions.
    let made = unsafe {
        Classes {
            array: leaf(&array)?,
            scalar: leaf(&scalar)?,
            float: &raw mut ffi::PyFloat_Type,
            int: &raw mut ffi::PyLong_Type,
            offset,
            add: inherited(&scalar, ffi::Py_nb_add)?,
            subtract: inherited(&scalar, ffi::Py_nb_subtract)?,
            multiply: inherited(&scalar, ffi::Py_nb_multiply)?,
            divide: inherited(&scalar, ffi::Py_nb_true_divide)?,
            negative: inherited(&scalar, ffi::Py_nb_negative)?,
            power: inherited(&scalar, ffi::Py_nb_power)?,
            compare: inherited(&scalar, ffi::Py_tp_richcompare)?,
            matrix_product: inherited(&scalar, ffi::Py_nb_matrix_multiply)?,
            element: inherited(&scalar, ffi::Py_mp_subscript)?,
            new_reference: symbol(c"_Py_NewReference").map(|found| std::mem::transmute(found)),
            axis: PyString::intern(py, "axis").into_ptr(),
            keepdims: PyString::intern(py, "keepdims").into_ptr(),
        }
    };
    let mut kept = KEPT.hold(py);
    kept.arrays.reserve_exact(MOST_KEPT);
    kept.scalars.reserve_exact(MOST_KEPT);
    drop(kept);
    CLASSES.store(Box::into_raw(Box::new(made)), Ordering::Release);
    Ok(())
}
