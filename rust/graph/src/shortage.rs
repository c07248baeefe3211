//! How a refused small block reaches whoever can raise: a flag, set by the allocator and seen at every poll.
//!
//! Tables that grow with a graph ask for memory fallibly (`tables`). Small blocks are asked for everywhere, by code
//! that cannot be told no; the allocator serves them from a reserve (`ckad_run::Reserve`) and leaves a note here, so
//! that the work ends with an error before the reserve does.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result};

/// Bytes of the latest small request that the system refused; 0 where there is nothing to tell.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// What the system must have for a shortage to be over: more than an allocator takes at a time, so that the next small
/// block is served.
const ENOUGH: usize = 2 << 20;

/// Notes that the system refused a small request.
pub fn note(bytes: usize) {
    REFUSED.store(bytes.max(1), Ordering::Relaxed);
}

/// Was a request refused since the last answer of [`check`]?
#[inline]
pub fn is_noted() -> bool {
    REFUSED.load(Ordering::Relaxed) != 0
}

/// A memory error of `op` where a small request was refused and memory is still short.
#[inline]
pub fn check(op: &str) -> Result<()> {
    if is_noted() { answer(op) } else { Ok(()) }
}

#[cold]
fn answer(op: &str) -> Result<()> {
    let bytes = REFUSED.swap(0, Ordering::Relaxed);
    if bytes == 0 || has(ENOUGH) { Ok(()) } else { Err(Error::memory(op, bytes)) }
}

/// Does the system have that many bytes at this moment? Who met a shortage may have ended since. Meant for more than
/// the reserve serves.
pub(crate) fn has(bytes: usize) -> bool {
    let mut probe: Vec<u8> = Vec::new();
    let given = probe.try_reserve_exact(bytes).is_ok();
    // Else the compiler may leave out an allocation that nobody looks at.
    black_box(&mut probe);
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_that_is_over_is_no_error() {
        assert!(check("test").is_ok());
        note(24);
        // Another test of this process may answer first; either way nothing is left.
        assert!(check("test").is_ok());
        assert!(!is_noted());
    }
}
