//! Aligned memory whose allocation can fail without ending the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;

use ckad_graph::{Error, Result};

/// Every block begins at a multiple of this: a cache line, and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;
/// From this size on blocks begin at, and ask for, huge pages.
const HUGE_FROM: usize = 4 << 20;
const HUGE_PAGE: usize = 2 << 20;

/// An owned range of bytes, uninitialised at first.
#[derive(Debug)]
pub(crate) struct Block {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its bytes; who reads and writes them is decided by whoever holds it.
unsafe impl Send for Block {}
// SAFETY: as above; a shared block gives out an address only.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` for `op`, which names the error.
    pub fn new(op: &str, bytes: usize) -> Result<Block> {
        let alignment = if bytes >= HUGE_FROM { HUGE_PAGE } else { ALIGNMENT };
        let layout = Layout::from_size_align(bytes, alignment).map_err(|_| Error::memory(op, bytes))?;
        if bytes == 0 {
            return Ok(Block { pointer: dangling(), layout });
        }
        // Past the reserve for small blocks (`reserve`): an array can be refused.
        // SAFETY: the layout's size is not zero.
        let pointer = NonNull::new(unsafe { System.alloc(layout) }).ok_or_else(|| Error::memory(op, bytes))?;
        advise(pointer, bytes);
        Ok(Block { pointer, layout })
    }

    /// No bytes.
    pub fn nothing() -> Block {
        Block { pointer: dangling(), layout: Layout::new::<()>() }
    }

    pub fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout, and owned.
            unsafe { System.dealloc(self.pointer.as_ptr(), self.layout) };
        }
    }
}

/// An aligned address for no bytes.
fn dangling() -> NonNull<u8> {
    #[repr(align(64))]
    struct Aligned;
    NonNull::<Aligned>::dangling().cast()
}

#[cfg(target_os = "linux")]
fn advise(pointer: NonNull<u8>, bytes: usize) {
    if bytes >= HUGE_FROM {
        // SAFETY: advice on pages that were just allocated; it changes no content, and refusal is harmless.
        unsafe { libc::madvise(pointer.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: NonNull<u8>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_refusals_are_errors() {
        for bytes in [0, 1, 64, 1 << 20, 5 << 20] {
            let block = Block::new("test", bytes).unwrap();
            assert_eq!((block.pointer() as usize % ALIGNMENT, block.bytes()), (0, bytes));
        }
        assert_eq!(Block::new("test", usize::MAX).unwrap_err().kind, ckad_graph::ErrorKind::Memory);
        assert_eq!(Block::new("test", isize::MAX as usize / 2).unwrap_err().kind, ckad_graph::ErrorKind::Memory);
    }
}
