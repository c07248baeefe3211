//! Splitting of work into pieces whose number depends on shapes alone, run by whatever threads there are (`team`).

use std::ops::Range;

use ckad_graph::Result;

use crate::Environment;
use crate::team::for_each;

/// Elements that one piece of a memory-bound kernel moves: some ten microseconds, far below the 10 ms after
/// which a kernel must look at the cancel flag, far above the cost of handing a piece to another thread.
pub const PIECE: usize = 1 << 16;

/// Runs `work` on consecutive ranges that cover `0..total`, each of `piece` items (the last may be shorter).
/// The first error in no particular order ends the run; `work` may be called from several threads at once.
pub fn for_each_piece(
    environment: &Environment<'_>,
    total: usize,
    piece: usize,
    work: impl Fn(Range<usize>) -> Result<()> + Sync,
) -> Result<()> {
    let piece = piece.max(1);
    if total <= piece {
        environment.check()?;
        return if total == 0 { Ok(()) } else { work(0..total) };
    }
    for_each(total.div_ceil(piece), |index| {
        environment.check()?;
        work(index * piece..total.min((index + 1) * piece))
    })
}

/// The same one after another, for work whose order matters.
pub fn for_each_piece_in_order(
    environment: &Environment<'_>,
    total: usize,
    piece: usize,
    mut work: impl FnMut(Range<usize>) -> Result<()>,
) -> Result<()> {
    for first in (0..total).step_by(piece.max(1)) {
        environment.check()?;
        work(first..total.min(first + piece.max(1)))?;
    }
    Ok(())
}

/// A pointer that several threads may hold. Each use says why its accesses do not collide.
#[derive(Debug)]
pub struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: an address; dereferencing it is the holder's unsafe act.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(pointer: *mut T) -> Self {
        Shared(pointer)
    }

    pub fn read_only(pointer: *const T) -> Self {
        Shared(pointer.cast_mut())
    }

    #[inline(always)]
    pub fn get(self) -> *mut T {
        self.0
    }

    /// The element at `index`.
    ///
    /// # Safety
    /// Inside the allocation.
    #[inline(always)]
    pub unsafe fn at(self, index: isize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.offset(index) }
    }
}
