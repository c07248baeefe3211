//! An allocator that says what it hands out and takes back, for whoever measures (`ckad_graph::working`).

use std::alloc::{GlobalAlloc, Layout};

use ckad_graph::working;

/// `A`, counted.
pub struct Counted<A>(pub A);

/// Notes the bytes of a block that was given; one that was refused is held by nobody.
#[inline]
fn given(pointer: *mut u8, bytes: isize) -> *mut u8 {
    if !pointer.is_null() {
        working::note(bytes);
    }
    pointer
}

/// No block is larger than `isize::MAX`.
fn signed(size: usize) -> isize {
    size as isize
}

// SAFETY: every block is the inner allocator's; counting neither unwinds nor allocates.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { self.0.alloc(layout) }, signed(layout.size()))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { self.0.alloc_zeroed(layout) }, signed(layout.size()))
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        working::note(-signed(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(pointer, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { self.0.realloc(pointer, layout, size) }, signed(size) - signed(layout.size()))
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::hint::black_box;

    use super::*;

    #[test]
    fn what_is_held_is_counted() {
        let counted = Counted(System);
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: each block is freed once with the layout that it last had.
        let ((), held) = working::measure(|| unsafe {
            let first = counted.alloc(layout(100));
            let second = counted.alloc_zeroed(layout(50));
            let first = counted.realloc(first, layout(100), 400);
            counted.dealloc(second, layout(50));
            counted.dealloc(first, layout(400));
            counted.dealloc(counted.alloc(layout(30)), layout(30));
            // What no machine has; where nobody looks at the block the compiler leaves it out.
            let most = Layout::from_size_align(isize::MAX as usize / 2, 8).unwrap();
            assert!(black_box(counted.alloc(black_box(most))).is_null());
        });
        assert_eq!((held.now, held.most), (0, 450));
    }
}
