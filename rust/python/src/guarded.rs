//! Cells that the interpreter's lock guards: what is touched for each recorded operation, where a mutex of its own
//! would be a large part of the cost.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

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

    /// The value, which nobody is using.
    #[inline]
    pub fn hold(&self) -> Hold<'_, T> {
        // With a mutex, this would be a deadlock.
        assert!(!self.held.replace(true), "a table of the trace is used while it is being changed");
        Hold { of: self, thread: PhantomData }
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
        let cell = Guarded::new(1);
        *cell.hold() += 1;
        let held = cell.hold();
        assert_eq!(*held, 2);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cell.hold())).is_err());
        drop(held);
        assert_eq!(*cell.hold(), 2);
    }
}
