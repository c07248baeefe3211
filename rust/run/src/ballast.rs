//! The process's allocator: the system's, with a reserve for small blocks that the system refuses.
//!
//! What grows with a program is allocated fallibly. Small blocks are not: they are boxed, counted and collected in a
//! thousand places, in libraries too, and Rust ends the process where one is refused. Here such a block comes from a
//! reserve, and a note (`ckad_graph::shortage`) makes the next poll raise a `MemoryError`; the work that it ends gives its
//! blocks back, and the reserve is whole again. Large requests are refused as the system refuses them.
//!
//! The reserve lies in the library's zero-initialised data: it costs address space, but no page of it exists until a
//! block is refused, and nothing has to be allocated for it to be there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use ckad_graph::shortage;

/// What the reserve is handed out in, and aligned to.
const GRANULE: usize = 64;
const GRANULES: usize = 1 << 18;
/// 16 MiB: what can be asked for between two polls, with a wide margin. Polls come at every node of a walk.
const RESERVE: usize = GRANULE * GRANULES;
/// Larger requests grow with a program and are made fallibly.
const LARGEST: usize = 1 << 20;
/// A lock is held for microseconds; one that stays was taken by a thread that a fork left behind.
const PATIENCE: usize = 1 << 20;

#[repr(align(64))]
struct Region(UnsafeCell<[u8; RESERVE]>);

/// The system's allocator (or another, `A`) with a reserve.
pub struct Ballast<A = System> {
    inner: A,
    region: Region,
    /// Who holds it may read and write `used`.
    locked: AtomicBool,
    /// One bit for each granule of the region.
    used: UnsafeCell<[u64; GRANULES / 64]>,
}

// SAFETY: granules belong to whoever they were handed to, and `used` is only touched by the holder of the lock.
unsafe impl<A: Sync> Sync for Ballast<A> {}

impl<A> Ballast<A> {
    pub const fn new(inner: A) -> Ballast<A> {
        Ballast {
            inner,
            region: Region(UnsafeCell::new([0; RESERVE])),
            locked: AtomicBool::new(false),
            used: UnsafeCell::new([0; GRANULES / 64]),
        }
    }

    #[inline]
    fn owns(&self, pointer: *mut u8) -> bool {
        (pointer as usize).wrapping_sub(self.region.0.get() as usize) < RESERVE
    }

    /// Changes `used`; None where the lock cannot be had.
    fn with_used<R>(&self, change: impl FnOnce(&mut [u64; GRANULES / 64]) -> R) -> Option<R> {
        let mut tries = 0;
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            tries += 1;
            if tries > PATIENCE {
                return None;
            }
            std::hint::spin_loop();
        }
        // SAFETY: the lock is ours.
        let changed = change(unsafe { &mut *self.used.get() });
        self.locked.store(false, Ordering::Release);
        Some(changed)
    }

    /// A block for a request that was refused, or null.
    #[cold]
    fn reserved(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST || layout.align() > GRANULE {
            return ptr::null_mut();
        }
        shortage::note(layout.size());
        let count = layout.size().div_ceil(GRANULE);
        match self.with_used(|used| take(used, count)) {
            // SAFETY: the granule lies in the region.
            Some(Some(first)) => unsafe { self.region.0.get().cast::<u8>().add(first * GRANULE) },
            _ => ptr::null_mut(),
        }
    }

    #[cold]
    fn give_back(&self, pointer: *mut u8, size: usize) {
        let first = (pointer as usize - self.region.0.get() as usize) / GRANULE;
        // Where the lock cannot be had the granules are lost, and nothing else.
        self.with_used(|used| {
            for granule in first..first + size.div_ceil(GRANULE) {
                used[granule / 64] &= !(1 << (granule % 64));
            }
        });
    }
}

/// The first of `count` adjacent free granules, now used.
fn take(used: &mut [u64; GRANULES / 64], count: usize) -> Option<usize> {
    let (mut first, mut granule) = (0, 0);
    while granule < GRANULES {
        let word = used[granule / 64];
        if word == u64::MAX {
            granule = (granule / 64 + 1) * 64;
            first = granule;
            continue;
        }
        granule += 1;
        if word & (1 << ((granule - 1) % 64)) != 0 {
            first = granule;
        } else if granule - first == count {
            for taken in first..granule {
                used[taken / 64] |= 1 << (taken % 64);
            }
            return Some(first);
        }
    }
    None
}

// SAFETY: blocks are the inner allocator's, or whole granules that are nobody else's until they are given back; each
// goes back to where it came from. Nothing here unwinds or allocates by another way.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Ballast<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { self.inner.alloc(layout) };
        if pointer.is_null() { self.reserved(layout) } else { pointer }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let pointer = unsafe { self.inner.alloc_zeroed(layout) };
        if !pointer.is_null() {
            return pointer;
        }
        let pointer = self.reserved(layout);
        if !pointer.is_null() {
            // SAFETY: a fresh block of that size.
            unsafe { pointer.write_bytes(0, layout.size()) };
        }
        pointer
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if self.owns(pointer) {
            self.give_back(pointer, layout.size());
        } else {
            // SAFETY: the caller's promise; the block is the inner allocator's.
            unsafe { self.inner.dealloc(pointer, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let owned = self.owns(pointer);
        if !owned {
            // SAFETY: the caller's promise; the block is the inner allocator's.
            let moved = unsafe { self.inner.realloc(pointer, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that the size is not zero and does not overflow with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // A block of the reserve returns to the inner allocator as soon as that has memory again.
        // SAFETY: as above.
        let moved = if owned { unsafe { self.alloc(wanted) } } else { self.reserved(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least that long, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size)) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(pointer, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An allocator that has nothing while this is set.
    struct Refusing(AtomicBool);

    // SAFETY: the system's, or null.
    unsafe impl GlobalAlloc for Refusing {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise.
            if self.0.load(Ordering::Relaxed) { ptr::null_mut() } else { unsafe { System.alloc(layout) } }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(pointer, layout) };
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    fn used<A>(ballast: &Ballast<A>) -> u32 {
        ballast.with_used(|used| used.iter().map(|word| word.count_ones()).sum()).unwrap()
    }

    #[test]
    fn refused_blocks_come_from_the_reserve_and_return_to_it() {
        static BALLAST: Ballast<Refusing> = Ballast::new(Refusing(AtomicBool::new(true)));
        let sizes = || (0..400usize).map(|index| 1 + (index * 7919) % 3000);
        // SAFETY: each block is used within its size, and freed once with its layout.
        unsafe {
            let blocks: Vec<(*mut u8, usize)> = sizes().map(|size| (BALLAST.alloc(layout(size)), size)).collect();
            for (index, &(pointer, size)) in blocks.iter().enumerate() {
                assert!(BALLAST.owns(pointer) && (pointer as usize).is_multiple_of(GRANULE));
                pointer.write_bytes(index as u8, size);
            }
            for (index, &(pointer, size)) in blocks.iter().enumerate() {
                assert!((0..size).all(|at| *pointer.add(at) == index as u8));
            }
            // Every other one first, so that what is free is in pieces.
            for parity in 0..2 {
                for &(pointer, size) in blocks.iter().skip(parity).step_by(2) {
                    BALLAST.dealloc(pointer, layout(size));
                }
                assert_eq!(used(&BALLAST) == 0, parity == 1);
            }
            let zeroed = BALLAST.alloc_zeroed(layout(3000));
            assert!((0..3000).all(|at| *zeroed.add(at) == 0));
            BALLAST.dealloc(zeroed, layout(3000));
            let largest: Vec<*mut u8> = (0..RESERVE / LARGEST).map(|_| BALLAST.alloc(layout(LARGEST))).collect();
            assert!(largest.iter().all(|pointer| !pointer.is_null()));
            assert!(BALLAST.alloc(layout(1)).is_null() && BALLAST.alloc(layout(LARGEST + 1)).is_null());
            largest.into_iter().for_each(|pointer| BALLAST.dealloc(pointer, layout(LARGEST)));
        }
        assert_eq!(used(&BALLAST), 0);
    }

    #[test]
    fn a_block_that_grows_keeps_its_bytes_and_leaves_the_reserve_when_it_can() {
        static BALLAST: Ballast<Refusing> = Ballast::new(Refusing(AtomicBool::new(false)));
        // SAFETY: as above.
        unsafe {
            let mut pointer = BALLAST.alloc(layout(100));
            assert!(!BALLAST.owns(pointer));
            pointer.write_bytes(7, 100);
            BALLAST.inner.0.store(true, Ordering::Relaxed);
            pointer = BALLAST.realloc(pointer, layout(100), 5000);
            assert!(BALLAST.owns(pointer));
            assert!(BALLAST.realloc(pointer, layout(5000), 2 << 20).is_null());
            BALLAST.inner.0.store(false, Ordering::Relaxed);
            pointer = BALLAST.realloc(pointer, layout(5000), 2 << 20);
            assert!(!BALLAST.owns(pointer) && used(&BALLAST) == 0);
            assert!((0..100).all(|at| *pointer.add(at) == 7));
            BALLAST.dealloc(pointer, layout(2 << 20));
        }
    }
}
