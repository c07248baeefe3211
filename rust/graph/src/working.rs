//! How many bytes a piece of work holds at most: what deriving and planning a program need beside what they leave.
//!
//! The module's allocator (`ckad_run::Counted`) says what it hands out and takes back. While nothing is being measured
//! that costs one look at a counter; while something is, each thread counts for itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Measurements in progress, on any thread.
static MEASURING: AtomicUsize = AtomicUsize::new(0);

/// Bytes held beyond those at the start. Blocks of before may be freed, so `now` may be negative.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    pub now: isize,
    pub most: isize,
}

thread_local! {
    static HELD: Cell<Option<Held>> = const { Cell::new(None) };
}

/// Notes that the calling thread was given so many bytes more, or so many fewer, than it gave back.
#[inline]
pub fn note(bytes: isize) {
    if MEASURING.load(Ordering::Relaxed) != 0 {
        count(bytes);
    }
}

#[cold]
fn count(bytes: isize) {
    // A thread that ends frees what it had when nothing can be noted any more.
    let _ = HELD.try_with(|held| {
        if let Some(mut counted) = held.get() {
            counted.now += bytes;
            counted.most = counted.most.max(counted.now);
            held.set(Some(counted));
        }
    });
}

/// Is the calling thread's work being measured?
pub fn is_measured() -> bool {
    HELD.get().is_some()
}

/// Ends a measurement however the work ends; it is then part of the one around it.
struct Measurement {
    around: Option<Held>,
}

impl Measurement {
    fn begin() -> Measurement {
        MEASURING.fetch_add(1, Ordering::Relaxed);
        Measurement { around: HELD.replace(Some(Held::default())) }
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let inner = HELD.take().unwrap_or_default();
        HELD.set(
            self.around
                .map(|around| Held { now: around.now + inner.now, most: around.most.max(around.now + inner.most) }),
        );
        MEASURING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does the work, and says how many bytes the calling thread then held and held at most, beyond those at the start.
pub fn measure<R>(work: impl FnOnce() -> R) -> (R, Held) {
    let measurement = Measurement::begin();
    let done = work();
    let held = HELD.get().unwrap_or_default();
    drop(measurement);
    (done, held)
}

/// What another thread held for this one, which waited for it and has its results.
pub fn add(other: Held) {
    note(other.most);
    note(other.now - other.most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_held_between_notes() {
        note(1000);
        let (inner, outer) = measure(|| {
            note(10);
            note(-4);
            let ((), inner) = measure(|| {
                note(100);
                note(-50);
            });
            add(Held { now: 20, most: 70 });
            note(3);
            inner
        });
        assert_eq!(inner, Held { now: 50, most: 100 });
        assert_eq!(outer, Held { now: 79, most: 126 });
        assert!(!is_measured() && MEASURING.load(Ordering::Relaxed) == 0);
    }
}
