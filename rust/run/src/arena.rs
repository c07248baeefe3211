//! The process-wide pool of arenas.
//!
//! A run leases one block and gives it back; what is given back stays mapped, so the next run meets no page
//! faults. At most one block is idle. Live leases own their blocks, so they can never overlap. There is no lock:
//! the idle block is one atomic pointer, which also keeps a forked child from waiting for a thread it does not have.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use ckad_graph::Result;
use ckad_plan::program::Program;

use crate::block::Block;
use crate::spare;

static IDLE: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());
static IDLE_BYTES: AtomicUsize = AtomicUsize::new(0);
static LEASED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes of arenas at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryUse {
    /// In runs that are going on.
    pub leased: usize,
    /// Kept for the next run; [`release`] frees them.
    pub idle: usize,
}

pub fn memory_use() -> MemoryUse {
    MemoryUse { leased: LEASED_BYTES.load(Ordering::Relaxed), idle: IDLE_BYTES.load(Ordering::Relaxed) }
}

/// Frees the idle block and that of a dropped result, and gives back to the system what the allocator keeps of memory
/// that was freed before: a cache of many small programs would otherwise stay resident. How many bytes they had.
pub fn release() -> usize {
    let bytes = take_idle().map_or(0, |block| block.bytes()) + spare::release();
    trim();
    bytes
}

/// Frees idle memory where more than `most` bytes of it would stay beside a run of the program.
pub fn leave_idle(program: &Program, most: usize) {
    let needed = program.arena_bytes.next_multiple_of(crate::block::ALIGNMENT) + program.scratch_bytes;
    let idle = IDLE_BYTES.load(Ordering::Relaxed);
    // One that is too small is freed when the run begins.
    let beside = idle.saturating_sub(needed);
    let of_result = spare::bytes();
    let is_used = program.outputs.iter().any(|output| output.bytes() == of_result);
    let of_result = if is_used { 0 } else { of_result };
    if beside + of_result <= most {
        return;
    }
    if beside > 0 {
        drop(take_idle());
    }
    if of_result > 0 {
        spare::release();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it may be called at any time, from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

fn take_idle() -> Option<Box<Block>> {
    let pointer = IDLE.swap(ptr::null_mut(), Ordering::AcqRel);
    if pointer.is_null() {
        return None;
    }
    IDLE_BYTES.store(0, Ordering::Relaxed);
    // SAFETY: only `keep` stores pointers, from `Box::into_raw`, and the swap made this one ours alone.
    Some(unsafe { Box::from_raw(pointer) })
}

/// Makes `block` the idle one, or drops it where another has taken the place.
fn keep(block: Box<Block>) {
    let bytes = block.bytes();
    let pointer = Box::into_raw(block);
    if IDLE.compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        IDLE_BYTES.store(bytes, Ordering::Relaxed);
    } else {
        // SAFETY: it was not stored, so it is still ours.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// A block that is one run's own until it is dropped.
#[derive(Debug)]
pub struct Lease {
    block: Option<Box<Block>>,
}

/// At least `bytes` of memory, 64-byte aligned.
pub fn lease(bytes: usize) -> Result<Lease> {
    if bytes == 0 {
        return Ok(Lease { block: None });
    }
    let block = match take_idle() {
        Some(block) if block.bytes() >= bytes => block,
        // One that is too small is freed first, and what a result left: they are never held together.
        idle => {
            drop(idle);
            spare::release();
            Box::new(Block::new("run", bytes)?)
        }
    };
    LEASED_BYTES.fetch_add(block.bytes(), Ordering::Relaxed);
    Ok(Lease { block: Some(block) })
}

impl Lease {
    /// The first byte; meaningless where nothing was asked for.
    pub fn pointer(&self) -> *mut u8 {
        self.block.as_ref().map_or(ptr::without_provenance_mut(crate::block::ALIGNMENT), |block| block.pointer())
    }

    pub fn bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut block) = self.block.take() else { return };
        LEASED_BYTES.fetch_sub(block.bytes(), Ordering::Relaxed);
        // Of two idle blocks the larger stays.
        if let Some(idle) = take_idle()
            && idle.bytes() > block.bytes()
        {
            block = idle;
        }
        keep(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_never_overlap() {
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                scope.spawn(move || {
                    for round in 0..200usize {
                        let bytes = 64 + 4096 * ((round * 7 + usize::from(thread)) % 13);
                        let lease = lease(bytes).unwrap();
                        assert!(lease.bytes() >= bytes && (lease.pointer() as usize).is_multiple_of(64));
                        // SAFETY: the lease is at least `bytes` long and ours.
                        let memory = unsafe { std::slice::from_raw_parts_mut(lease.pointer(), bytes) };
                        memory.fill(thread);
                        std::thread::yield_now();
                        assert!(memory.iter().all(|&byte| byte == thread));
                    }
                });
            }
        });
    }

    #[test]
    fn nothing_is_a_lease_too() {
        assert_eq!(lease(0).unwrap().bytes(), 0);
    }
}
