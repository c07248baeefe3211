//! One generic loop, compiled once per instruction set.

use crate::structural::number::Float;

/// `a·b + c`: rounded once where the instruction set has it, twice otherwise.
#[inline(always)]
pub fn multiply_add<const FUSED: bool, T: Float>(a: T, b: T, c: T) -> T {
    if FUSED { a.fused(b, c) } else { a.multiply(b).add(c) }
}

/// Defines `name(isa, …)`, which calls the inlined generic `body::<T, FUSED>(…)` compiled for `isa`.
macro_rules! per_isa {
    ($(#[$doc:meta])* $name:ident = $body:ident<$T:ident: $bound:ident>($($argument:ident: $type:ty),* $(,)?)) => {
        $(#[$doc])*
        pub unsafe fn $name<$T: $bound>(isa: $crate::isa::Isa, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                unsafe fn avx512<$T: $bound>($($argument: $type),*) {
                    // SAFETY: the caller's promises.
                    unsafe { $body::<$T, true>($($argument),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2<$T: $bound>($($argument: $type),*) {
                    // SAFETY: the caller's promises.
                    unsafe { $body::<$T, true>($($argument),*) }
                }
                match isa {
                    // SAFETY: `isa` is one that the processor has; the rest is the caller's promise.
                    $crate::isa::Isa::Avx512 => return unsafe { avx512::<$T>($($argument),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 => return unsafe { avx2::<$T>($($argument),*) },
                    _ => {}
                }
            }
            let _ = isa;
            // SAFETY: the caller's promises.
            unsafe { $body::<$T, { cfg!(target_arch = "aarch64") }>($($argument),*) }
        }
    };
}

pub(super) use per_isa;
