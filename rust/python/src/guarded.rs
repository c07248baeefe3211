//! Cells that the interpreter's lock guards: what is touched for each recorded operation, where a mutex of its own
//! would be a large part of the cost.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use pyo3::prelude::*;

/// A value that is used only by threads which hold the interpreter's lock (`gil_used` of the module; there is no build
/// for interpreters without it). Work that goes on without the lock is given graphs and values, never what has such a
/// cell (`boundary::enter` and `Python::detach` want `Send`, which a [`Hold`] is not).
#[derive(Default)]
pub struct Guarded<T> {
    held: Cell<bool>,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time has the interpreter's lock, and handing that on orders memory. A holder that lets go of
// the lock for a while, as where Python code runs, is noticed by `held`.
unsafe impl<T: Send> Sync for Guarded<T> {}

/// The proof that the thread has the interpreter's lock, for what is called where none is at hand: when values drop.
///
/// # Safety
/// The thread has it.
#[inline]
pub unsafe fn dropping<'a>() -> Python<'a> {
    #[cfg(debug_assertions)]
    assert!(has_lock(), "a traced value is dropped without the interpreter's lock");
    // SAFETY: the caller's.
    unsafe { Python::assume_attached() }
}

#[cfg(debug_assertions)]
fn has_lock() -> bool {
    unsafe extern "C" {
        // No part of the stable interface, but in every interpreter.
        fn PyGILState_Check() -> std::ffi::c_int;
    }
    // SAFETY: it may be asked at any time.
    unsafe { PyGILState_Check() != 0 }
}

/// The right to use the value.
pub struct Hold<'a, T> {
    of: &'a Guarded<T>,
    /// It stays in the thread that has the interpreter's lock.
    thread: PhantomData<*const ()>,
}

impl<T> Guarded<T> {
    pub const fn new(value: T) -> Guarded<T> {
        Guarded { held: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// The value, which nobody is using. The hold ends before the thread may let go of the interpreter's lock.
    #[inline]
    pub fn hold<'a>(&'a self, _attached: Python<'a>) -> Hold<'a, T> {
        // With a mutex, this would be a deadlock.
        assert!(!self.held.replace(true), "a table of the trace is used while it is being changed");
        Hold { of: self, thread: PhantomData }
    }

    /// The value where nobody is using it, for who must not fail: whoever lets go of memory.
    #[inline]
    pub fn try_hold<'a>(&'a self, _attached: Python<'a>) -> Option<Hold<'a, T>> {
        (!self.held.replace(true)).then(|| Hold { of: self, thread: PhantomData })
    }
}

impl<T> Deref for Hold<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `held` makes this the only way to the value.
        unsafe { &*self.of.value.get() }
    }
}

impl<T> DerefMut for Hold<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the hold itself is borrowed for as long.
        unsafe { &mut *self.of.value.get() }
    }
}

impl<T> Drop for Hold<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.of.held.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hold_at_a_time() {
        // SAFETY: nothing of Python's is used, and no other thread has the cell.
        let py = unsafe { Python::assume_attached() };
        let cell = Guarded::new(1);
        *cell.hold(py) += 1;
        let held = cell.hold(py);
        assert_eq!(*held, 2);
        assert!(cell.try_hold(py).is_none());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cell.hold(py))).is_err());
        drop(held);
        assert_eq!(cell.try_hold(py).map(|held| *held), Some(2));
        assert_eq!(*cell.hold(py), 2);
    }
}
