//! This module's allocator: the system's, with a reserve for small blocks that the system refuses. Python and NumPy in
//! the same process have allocators of their own.
//!
//! Lists that grow with a program are made fallibly (`ckad_graph::tables`). Small blocks are not: they are boxed,
//! counted and collected in a thousand places, in libraries too, and Rust ends the process where one is refused. Here
//! such a block comes from a reserve, and a note (`ckad_graph::shortage`) makes the next poll raise a `MemoryError`;
//! the work that it ends gives its blocks back. Large requests are refused as the system refuses them.
//!
//! The reserve lies in the library's zero-initialised data: it costs address space, but no page of it exists until a
//! block is refused, and nothing has to be allocated for it to be there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ckad_graph::shortage;

/// What the reserve is handed out in, and aligned to.
const GRANULE: usize = 64;
const GRANULES: usize = 1 << 18;
/// 16 MiB: what can be asked for between two polls, with a wide margin. Polls come at every node of a walk.
const RESERVE: usize = GRANULE * GRANULES;
/// Larger requests grow with a program and are made fallibly.
const LARGEST: usize = 1 << 20;
/// The lock is held for microseconds, or for as long as the system lets its holder wait for a processor.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks at the lock before the processor is left to others.
const SPINS: usize = 64;

#[repr(align(64))]
struct Region(UnsafeCell<[u8; RESERVE]>);

type Bits = [u64; GRANULES / 64];

/// The system's allocator (or another, `A`) with a reserve.
pub struct Reserve<A = System> {
    inner: A,
    region: Region,
    /// The process of the thread that holds the lock, and so may read and write `used`; 0 where nobody does.
    holder: AtomicU32,
    /// One bit for each granule of the region.
    used: UnsafeCell<Bits>,
    /// Requests above this are refused: at most [`LARGEST`].
    largest: AtomicUsize,
}

// SAFETY: granules belong to whoever they were handed to, and `used` is only touched by the holder of the lock.
unsafe impl<A: Sync> Sync for Reserve<A> {}

impl<A> Reserve<A> {
    pub const fn new(inner: A) -> Reserve<A> {
        Reserve {
            inner,
            region: Region(UnsafeCell::new([0; RESERVE])),
            holder: AtomicU32::new(0),
            used: UnsafeCell::new([0; GRANULES / 64]),
            largest: AtomicUsize::new(LARGEST),
        }
    }

    /// Refuses what is larger already, so that a test finds with short programs what long ones would meet.
    pub fn set_largest(&self, bytes: usize) {
        self.largest.store(bytes.min(LARGEST), Ordering::Relaxed);
    }

    #[inline]
    fn owns(&self, pointer: *mut u8) -> bool {
        (pointer as usize).wrapping_sub(self.region.0.get() as usize) < RESERVE
    }

    /// Waits for the lock. Whether it is ours now.
    fn locked(&self) -> bool {
        let process = std::process::id();
        let (mut tries, mut began) = (0, None);
        loop {
            let Err(holder) = self.holder.compare_exchange(0, process, Ordering::Acquire, Ordering::Relaxed) else {
                return true;
            };
            // A thread that a fork left behind holds it for ever. What that thread was changing are granules of its
            // own: some may be lost, none is handed out twice.
            if holder != 0 && holder != process {
                if self.holder.compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return true;
                }
                continue;
            }
            tries += 1;
            if tries < SPINS {
                std::hint::spin_loop();
                continue;
            }
            if began.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return false;
            }
            // The holder may have to wait for this very processor.
            std::thread::yield_now();
        }
    }

    /// Changes `used`; None where the lock cannot be had.
    fn with_used<R>(&self, change: impl FnOnce(&mut Bits) -> R) -> Option<R> {
        if !self.locked() {
            return None;
        }
        // SAFETY: the lock is ours.
        let changed = change(unsafe { &mut *self.used.get() });
        self.holder.store(0, Ordering::Release);
        Some(changed)
    }

    /// A block for a request that was refused, or null.
    #[cold]
    fn reserved(&self, layout: Layout) -> *mut u8 {
        if layout.size() > self.largest.load(Ordering::Relaxed) || layout.align() > GRANULE {
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

    /// Frees what a block of `size` bytes has beyond its first `kept`.
    #[cold]
    fn give_back(&self, pointer: *mut u8, size: usize, kept: usize) {
        let first = (pointer as usize - self.region.0.get() as usize) / GRANULE;
        let granules = first + kept.div_ceil(GRANULE)..first + size.div_ceil(GRANULE);
        if granules.is_empty() {
            return;
        }
        // Where the lock cannot be had the granules are lost, and nothing else.
        self.with_used(|used| {
            for granule in granules {
                used[granule / 64] &= !(1 << (granule % 64));
            }
        });
    }
}

/// The first of `count` adjacent free granules, now used.
fn take(used: &mut Bits, count: usize) -> Option<usize> {
    let (mut first, mut granule) = (0, 0);
    while granule < GRANULES {
        let free = (used[granule / 64] >> (granule % 64)).trailing_zeros() as usize;
        let free = free.min(64 - granule % 64);
        granule += free;
        if granule - first >= count {
            for taken in first..first + count {
                used[taken / 64] |= 1 << (taken % 64);
            }
            return Some(first);
        }
        if free == 0 || !granule.is_multiple_of(64) {
            granule += (used[granule / 64] >> (granule % 64)).trailing_ones() as usize;
            first = granule;
        }
    }
    None
}

// SAFETY: blocks are the inner allocator's, or whole granules that are nobody else's until they are given back; each
// goes back to where it came from. Nothing here unwinds or allocates by another way.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reserve<A> {
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
            self.give_back(pointer, layout.size(), 0);
        } else {
            // SAFETY: the caller's promise; the block is the inner allocator's.
            unsafe { self.inner.dealloc(pointer, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let owned = self.owns(pointer);
        // Who asks for less cannot be refused.
        if owned && size.div_ceil(GRANULE) <= layout.size().div_ceil(GRANULE) {
            self.give_back(pointer, layout.size(), size);
            return pointer;
        }
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
    use std::sync::atomic::AtomicBool;

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

    fn used<A>(reserve: &Reserve<A>) -> u32 {
        reserve.with_used(|used| used.iter().map(|word| word.count_ones()).sum()).unwrap()
    }

    #[test]
    fn refused_blocks_come_from_the_reserve_and_return_to_it() {
        static RESERVED: Reserve<Refusing> = Reserve::new(Refusing(AtomicBool::new(true)));
        let sizes = || (0..400usize).map(|index| 1 + (index * 7919) % 3000);
        // SAFETY: each block is used within its size, and freed once with its layout.
        unsafe {
            let blocks: Vec<(*mut u8, usize)> = sizes().map(|size| (RESERVED.alloc(layout(size)), size)).collect();
            for (index, &(pointer, size)) in blocks.iter().enumerate() {
                assert!(RESERVED.owns(pointer) && (pointer as usize).is_multiple_of(GRANULE));
                pointer.write_bytes(index as u8, size);
            }
            for (index, &(pointer, size)) in blocks.iter().enumerate() {
                assert!((0..size).all(|at| *pointer.add(at) == index as u8));
            }
            // Every other one first, so that what is free is in pieces.
            for parity in 0..2 {
                for &(pointer, size) in blocks.iter().skip(parity).step_by(2) {
                    RESERVED.dealloc(pointer, layout(size));
                }
                assert_eq!(used(&RESERVED) == 0, parity == 1);
            }
            let zeroed = RESERVED.alloc_zeroed(layout(3000));
            assert!((0..3000).all(|at| *zeroed.add(at) == 0));
            RESERVED.dealloc(zeroed, layout(3000));
            let largest: Vec<*mut u8> = (0..RESERVE / LARGEST).map(|_| RESERVED.alloc(layout(LARGEST))).collect();
            assert!(largest.iter().all(|pointer| !pointer.is_null()));
            assert!(RESERVED.alloc(layout(1)).is_null() && RESERVED.alloc(layout(LARGEST + 1)).is_null());
            largest.into_iter().for_each(|pointer| RESERVED.dealloc(pointer, layout(LARGEST)));
        }
        assert_eq!(used(&RESERVED), 0);
    }

    #[test]
    fn a_block_that_grows_keeps_its_bytes_and_leaves_the_reserve_when_it_can() {
        static RESERVED: Reserve<Refusing> = Reserve::new(Refusing(AtomicBool::new(false)));
        // SAFETY: as above.
        unsafe {
            let mut pointer = RESERVED.alloc(layout(100));
            assert!(!RESERVED.owns(pointer));
            pointer.write_bytes(7, 100);
            RESERVED.inner.0.store(true, Ordering::Relaxed);
            pointer = RESERVED.realloc(pointer, layout(100), 5000);
            assert!(RESERVED.owns(pointer));
            assert!(RESERVED.realloc(pointer, layout(5000), 2 << 20).is_null());
            RESERVED.inner.0.store(false, Ordering::Relaxed);
            pointer = RESERVED.realloc(pointer, layout(5000), 2 << 20);
            assert!(!RESERVED.owns(pointer) && used(&RESERVED) == 0);
            assert!((0..100).all(|at| *pointer.add(at) == 7));
            RESERVED.dealloc(pointer, layout(2 << 20));
        }
    }

    #[test]
    fn a_block_that_shrinks_stays_and_gives_back_what_it_no_longer_needs() {
        static RESERVED: Reserve<Refusing> = Reserve::new(Refusing(AtomicBool::new(true)));
        // SAFETY: as above.
        unsafe {
            let pointer = RESERVED.alloc(layout(5000));
            pointer.write_bytes(7, 5000);
            // All that is left is taken: another block could not be had.
            let rest: Vec<*mut u8> =
                std::iter::repeat_with(|| RESERVED.alloc(layout(GRANULE))).take_while(|rest| !rest.is_null()).collect();
            assert_eq!(used(&RESERVED) as usize, GRANULES);
            assert_eq!(RESERVED.realloc(pointer, layout(5000), 100), pointer);
            assert_eq!(used(&RESERVED) as usize, GRANULES - 5000usize.div_ceil(GRANULE) + 2);
            assert_eq!(RESERVED.realloc(pointer, layout(100), 128), pointer);
            assert!((0..100).all(|at| *pointer.add(at) == 7));
            RESERVED.dealloc(pointer, layout(128));
            rest.into_iter().for_each(|pointer| RESERVED.dealloc(pointer, layout(GRANULE)));
        }
        assert_eq!(used(&RESERVED), 0);
    }

    #[test]
    fn adjacent_granules_are_found_across_words() {
        let mut bits: Box<Bits> = Box::new([u64::MAX; GRANULES / 64]);
        bits[3] = !(0b111 << 61);
        bits[4] = !0b1;
        assert_eq!(take(&mut bits, 5), None);
        assert_eq!(take(&mut bits, 4), Some(3 * 64 + 61));
        bits[GRANULES / 64 - 1] = !(0b11 << 62);
        assert_eq!((take(&mut bits, 3), take(&mut bits, 2), take(&mut bits, 1)), (None, Some(GRANULES - 2), None));
    }

    #[test]
    fn a_lock_that_another_process_took_is_ours_and_one_of_this_process_is_waited_for() {
        static RESERVED: Reserve<Refusing> = Reserve::new(Refusing(AtomicBool::new(true)));
        RESERVED.holder.store(std::process::id() + 1, Ordering::Relaxed);
        assert_eq!(used(&RESERVED), 0);
        RESERVED.holder.store(std::process::id(), Ordering::Relaxed);
        let waiting = std::thread::spawn(|| used(&RESERVED));
        // Longer than any number of spins that could stand for patience.
        std::thread::sleep(Duration::from_millis(200));
        RESERVED.holder.store(0, Ordering::Release);
        assert_eq!(waiting.join().unwrap(), 0);
    }
}
