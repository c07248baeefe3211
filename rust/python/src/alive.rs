//! Results that runs inside of a trace have left: their bytes, counted as long as they are alive.
//!
//! Forced values, gradients and other results of what runs at once while a trace records are memory that ckad has
//! allocated for the outermost call. Who holds them, a tape, a linear function or a variable of Python's, does not
//! matter: each is counted when it is made, and no more once it is dropped. What the outermost call itself returns is
//! counted by its plan.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of the results of one outermost trace.
#[derive(Debug, Default)]
pub struct Alive(AtomicUsize);

impl Alive {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

thread_local! {
    /// Those of this thread's outermost trace. None until something is counted.
    static ALIVE: RefCell<Option<Arc<Alive>>> = const { RefCell::new(None) };
}

/// Begins anew: an outermost trace has begun.
pub fn forget() {
    ALIVE.take();
}

/// The count of this thread's outermost trace.
pub fn current() -> Option<Arc<Alive>> {
    ALIVE.with_borrow(Option::clone)
}

/// Bytes of results that are alive.
pub fn bytes() -> usize {
    ALIVE.with_borrow(|alive| alive.as_ref().map_or(0, |alive| alive.bytes()))
}

/// Counts bytes until it is dropped.
#[derive(Debug)]
pub struct Counted {
    among: Arc<Alive>,
    bytes: usize,
}

impl Counted {
    pub fn new(bytes: usize) -> Counted {
        let among = ALIVE.with_borrow_mut(|alive| Arc::clone(alive.get_or_insert_default()));
        among.0.fetch_add(bytes, Ordering::Relaxed);
        Counted { among, bytes }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.among.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_while_their_owner_lives() {
        forget();
        let (one, two) = (Counted::new(3), Counted::new(5));
        assert_eq!(bytes(), 8);
        drop(one);
        assert_eq!(bytes(), 5);
        forget();
        let three = Counted::new(7);
        drop(two);
        assert_eq!(bytes(), 7);
        drop(three);
        assert_eq!(bytes(), 0);
    }
}
