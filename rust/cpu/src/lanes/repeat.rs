//! One element in all places of a slice: what a number that belongs to a whole row becomes in a tile.
#![allow(clippy::needless_range_loop)] // As in `loops`.

use std::slice::from_raw_parts_mut;

use super::Lane;
use crate::Isa;

#[inline(always)]
unsafe fn copies<T: Copy>(dst: *mut u8, element: *const u8, n: usize) {
    // SAFETY: the caller promises an element, and room for n that do not overlap it.
    let (dst, element) = unsafe { (from_raw_parts_mut(dst.cast::<T>(), n), *element.cast::<T>()) };
    // `fill` is a function of its own, and not compiled for the instruction set.
    for i in 0..n {
        dst[i] = element;
    }
}

/// The lane that writes its first operand's one element n times.
macro_rules! repeat {
    ($t:ty, $isa:expr) => {{
        unsafe fn scalar(dst: *mut u8, a: *const u8, _: *const u8, _: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { copies::<$t>(dst, a, n) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(dst: *mut u8, a: *const u8, _: *const u8, _: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { copies::<$t>(dst, a, n) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
        unsafe fn avx512(dst: *mut u8, a: *const u8, _: *const u8, _: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { copies::<$t>(dst, a, n) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2 as Lane,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512,
            _ => scalar,
        }
    }};
}

/// `dst[i] = a[0]` for elements of `size` bytes.
pub fn repeat(size: usize, isa: Isa) -> Lane {
    match size {
        1 => repeat!(u8, isa),
        2 => repeat!(u16, isa),
        4 => repeat!(u32, isa),
        _ => repeat!(u64, isa),
    }
}
