//! The memory of a result that nobody holds any more, for the next run that returns as large a one.
//!
//! A loop of calls drops one gradient before it asks for the next. Given back to the system in between, each would meet
//! its pages anew, which takes longer than writing it. At most one block is kept, of a size that does not hurt, and
//! none while another large block is asked for. No lock, as in `arena`.

use std::ops::RangeInclusive;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::block::Block;

/// Bytes of what is kept. The C library finds smaller blocks again itself.
const KEPT: RangeInclusive<usize> = 1 << 20..=64 << 20;

static OF_RESULTS: Spare = Spare(AtomicPtr::new(ptr::null_mut()), AtomicUsize::new(0));

/// Keeps the block, in place of the one before.
pub(crate) fn keep(block: Block) {
    OF_RESULTS.keep(block);
}

/// The block that is kept, if it has so many bytes; if not, it makes room for one that has.
pub(crate) fn take(bytes: usize) -> Option<Block> {
    OF_RESULTS.take(bytes)
}

/// Bytes of what is kept.
pub(crate) fn bytes() -> usize {
    OF_RESULTS.1.load(Ordering::Relaxed)
}

/// Frees what is kept: its bytes.
pub(crate) fn release() -> usize {
    OF_RESULTS.replace(ptr::null_mut()).map_or(0, |block| block.bytes())
}

/// Room for one block; null where there is none. And its bytes, which another thread may see a moment later.
struct Spare(AtomicPtr<Block>, AtomicUsize);

impl Spare {
    fn keep(&self, block: Block) {
        let bytes = block.bytes();
        if KEPT.contains(&bytes) {
            self.replace(Box::into_raw(Box::new(block)));
            self.1.store(bytes, Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: usize) -> Option<Block> {
        if bytes < *KEPT.start() {
            return None;
        }
        self.replace(ptr::null_mut()).filter(|block| block.bytes() == bytes).map(|block| *block)
    }

    fn replace(&self, next: *mut Block) -> Option<Box<Block>> {
        let before = self.0.swap(next, Ordering::AcqRel);
        self.1.store(0, Ordering::Relaxed);
        // SAFETY: only `keep` stores pointers, from `Box::into_raw`, and the swap made this one ours alone.
        (!before.is_null()).then(|| unsafe { Box::from_raw(before) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_of_the_right_size_is_found_again() {
        let (spare, bytes) = (Spare(AtomicPtr::new(ptr::null_mut()), AtomicUsize::new(0)), 3 << 20);
        let block = Block::new("test", bytes).unwrap();
        let pointer = block.pointer();
        spare.keep(block);
        spare.keep(Block::new("test", 64).unwrap());
        assert_eq!(spare.1.load(Ordering::Relaxed), bytes);
        let again = spare.take(bytes).unwrap();
        assert_eq!(again.pointer(), pointer);
        assert!(spare.take(bytes).is_none());
        spare.keep(again);
        assert!(spare.take(bytes + 64).is_none());
        assert!(spare.take(bytes).is_none());
    }
}
