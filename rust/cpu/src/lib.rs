//! The CPU: runs one kernel of a lowered program at a time, or joined ones, over raw buffers.
//!
//! [`execute`] is the way in, and [`joined::execute`] for kernels that run together. A fused kernel goes to the tile
//! interpreter (`tile`), whose instructions are plain loops compiled once per instruction set (`lanes`) around
//! branch-free approximations (`math`). A structural kernel goes to its file in `structural`; only `matmul` calls the
//! GEMM library.
//!
//! Work is split by shape alone, so a result's bits do not depend on the number of threads; AVX2 and AVX-512 give the
//! same bits, plain code agrees within rounding. [`together`] gives the kernels that are run
//! within the threads of a pool; outside of it, the calling thread does all.

mod ahead;
mod environment;
mod isa;
pub mod joined;
mod lanes;
mod math;
mod matmul;
mod parallel;
mod poll;
mod repeated;
mod structural;
mod team;
mod tile;

use ckad_graph::{Error, Result};
use ckad_plan::program::Kernel;

pub use environment::{Environment, Memory};
pub use isa::{Isa, isa};
pub use poll::{Check, Poll};
pub use repeated::Repeated;
pub use team::{alone, together};

/// Runs `kernel`, which is no loop: those are steps of steps, and belong to who runs steps.
///
/// # Safety
/// Every buffer that the kernel names lies in `environment.buffers` with at least the bytes of its array and the
/// alignment of its dtype, is written by nobody else and, where the kernel writes it, read by nobody else
/// meanwhile. Results do not overlap operands, except that a structural kernel's result may be its base. Bool
/// bytes are 0 or 1. `environment.scratch` is used by no other kernel meanwhile.
pub unsafe fn execute(kernel: &Kernel, environment: &Environment<'_>) -> Result<()> {
    environment.check_small()?;
    match kernel {
        // SAFETY: the caller's promises are the callee's.
        Kernel::Fused(fused) => unsafe { tile::execute(fused, environment) },
        // SAFETY: as above.
        Kernel::Structural { op, parameters, operands, result } => unsafe {
            structural::execute(op, parameters, operands, result, environment)
        },
        Kernel::Loop(_) => Err(Error::internal("run", "a loop is no kernel of its own")),
    }
}

/// Bytes of `Environment::scratch` that [`execute`] needs for `kernel` in a pool of `threads` threads.
pub fn scratch_bytes(kernel: &Kernel, threads: usize) -> usize {
    match kernel {
        Kernel::Fused(fused) => tile::scratch_bytes(fused, threads),
        Kernel::Structural { op, parameters, operands, result } => {
            structural::scratch_bytes(op, parameters, operands, result, threads)
        }
        // Its body was compiled for as many threads.
        Kernel::Loop(kernel) => kernel.scratch_bytes(),
    }
}
