//! The tile interpreter: runs a fused kernel as a register program over short runs of elements that stay in L1.
//!
//! A tile is a run of consecutive flat (C order) indices of the iteration. `prepare` turns the kernel into steps
//! over values with places; `bind` resolves buffers and lanes; `run` evaluates one tile after another; `load`
//! gathers what does not lie contiguously; `reduce` consumes the last value where the kernel ends in a reduction, in
//! the steps that `stage` says. Kernels of few elements skip all this: `small`, and
//! `repeated` in loops. `member` runs a kernel some rows at a
//! time.
//!
//! A value that lies in memory in the order of the iteration is read where it is, a stored value is computed where
//! it is stored, a scalar is spread out once per piece of work. Pieces depend on shape and program alone, and
//! reductions combine by a tree of their own, so neither tiles nor threads nor fusion change a bit.

mod bind;
mod cascade;
mod load;
mod member;
mod prepare;
mod reduce;
mod reduce_rows;
mod repeated;
mod run;
mod small;
#[cfg(test)]
mod small_tests;
mod stage;
mod stage_run;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ckad_graph::Result;
use ckad_plan::program::FusedKernel;

use crate::team::for_each;
use crate::{Environment, Isa, Memory, isa};
use bind::Bound;
pub use member::{Member, reads_by_rows};
use prepare::Prepared;
pub use repeated::Repeated;
use run::Runner;

/// Runs a fused kernel.
///
/// # Safety
/// As for `crate::execute`.
pub unsafe fn execute(kernel: &FusedKernel, environment: &Environment<'_>) -> Result<()> {
    // SAFETY: the caller's promises.
    unsafe { execute_on(isa()?, kernel, environment) }
}

/// Runs a fused kernel on an instruction set that the CPU has.
///
/// # Safety
/// As for `crate::execute`.
unsafe fn execute_on(isa: Isa, kernel: &FusedKernel, environment: &Environment<'_>) -> Result<()> {
    if let Some(elements) = small::elements(kernel) {
        // SAFETY: the caller's promises.
        return unsafe { small::execute(kernel, elements, isa, environment) };
    }
    // SAFETY: the caller's promises.
    unsafe { execute_tiles(isa, kernel, environment) }
}

/// The same, however few elements there are.
///
/// # Safety
/// As for `crate::execute`, with scratch of [`tile_scratch_bytes`].
unsafe fn execute_tiles(isa: Isa, kernel: &FusedKernel, environment: &Environment<'_>) -> Result<()> {
    let prepared = Prepared::new(kernel)?;
    let bound = Bound::new(kernel, &prepared, isa, environment)?;
    if let Some(reduction) = &kernel.reduce {
        // SAFETY: the caller's promises.
        return unsafe { reduce::execute(kernel, reduction, &prepared, &bound, isa, environment) };
    }
    let piece = prepared.piece;
    for_each(prepared.total.div_ceil(piece), |index| {
        let scratch = environment.thread_scratch(0, prepared.thread_bytes())?;
        let (first, last) = (index * piece, prepared.total.min((index + 1) * piece));
        // SAFETY: the range is inside the iteration, and no other piece has it.
        unsafe { evaluate(&prepared, &bound, first..last, scratch, environment) }
    })
}

/// Evaluates a range of elements, tile by tile.
///
/// # Safety
/// As for `Runner::evaluate`.
unsafe fn evaluate(
    prepared: &Prepared,
    bound: &Bound,
    range: Range<usize>,
    scratch: Memory,
    environment: &Environment<'_>,
) -> Result<()> {
    let mut runner = Runner::new(prepared, bound, scratch, range.len());
    let mut flat = range.start;
    while flat < range.end {
        environment.next_tile()?;
        let n = prepared.tile.min(range.end - flat);
        // SAFETY: the caller's promises.
        unsafe { runner.evaluate(flat, n) };
        flat += n;
    }
    Ok(())
}

/// Scratch bytes that `execute` needs in a pool of `threads` threads; 0 for a kernel that it would refuse.
pub fn scratch_bytes(kernel: &FusedKernel, threads: usize) -> usize {
    if small::elements(kernel).is_some() {
        return 0;
    }
    tile_scratch_bytes(kernel, threads)
}

/// Scratch bytes of [`execute_tiles`].
fn tile_scratch_bytes(kernel: &FusedKernel, threads: usize) -> usize {
    let Ok(prepared) = Prepared::new(kernel) else { return 0 };
    match &kernel.reduce {
        None => threads.max(1) * prepared.thread_bytes(),
        Some(reduction) => reduce::scratch_bytes(kernel, reduction, &prepared, threads.max(1)),
    }
}
