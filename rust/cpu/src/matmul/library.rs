//! The GEMM library behind one function: a panel of a product, on the calling thread, with our packing buffers.
//!
//! On x86-64 it is `private-gemm-x86`, of which only the loop over one packed block is used: its `gemm` would
//! reserve twice the L3 cache for every thread. Its kernels prefer a result whose columns are contiguous, so it
//! is given the transposed product; an element's bits depend on the depth alone. Elsewhere it is `gemm`.

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{has, panel, scratch_bytes};

#[cfg(any(test, not(target_arch = "x86_64")))]
pub mod portable;
#[cfg(not(target_arch = "x86_64"))]
pub use portable::{has, panel, scratch_bytes};
