//! Splitting of work into pieces whose number depends on shapes alone, run by whatever threads there are: those of
//! the pool that the caller is in, or the caller by itself where it is in none.

use std::ops::Range;

use ckad_graph::Result;
use rayon::prelude::*;

use crate::Environment;

/// Elements that one piece of a memory-bound kernel moves: some ten microseconds, far below the 10 ms after
/// which a kernel must look at the cancel flag, far above the cost of handing a piece to another thread.
pub const PIECE: usize = 1 << 16;

/// Threads that share the work of a kernel that is run from here.
pub fn thread_count() -> usize {
    // Outside a pool, rayon would name the threads of a global one, and start them.
    rayon::current_thread_index().map_or(1, |_| rayon::current_num_threads())
}

/// Runs `work` on pieces 0..count. The first error in no particular order ends the run; `work` may be called from
/// several threads at once.
pub fn for_each(count: usize, work: impl Fn(usize) -> Result<()> + Sync + Send) -> Result<()> {
    if count <= 1 || thread_count() == 1 {
        return (0..count).try_for_each(work);
    }
    // Each piece by itself, so that a thread that is held up keeps no others waiting behind the one it is at.
    (0..count).into_par_iter().with_max_len(1).try_for_each(work)
}

/// Runs `work` on consecutive ranges that cover `0..total`, each of `piece` items (the last may be shorter).
/// As [`for_each`] otherwise.
pub fn for_each_piece(
    environment: &Environment<'_>,
    total: usize,
    piece: usize,
    work: impl Fn(Range<usize>) -> Result<()> + Sync + Send,
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
