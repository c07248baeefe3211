//! A matrix product and the fused kernel that reads it, run as one: some rows of the product at a time, which the
//! kernel consumes while they are in L2. Bias and activation, or a derivative times the cotangent, then cost no way
//! to memory and back.
//!
//! The bits are those of the two kernels run one after the other: an element of a product depends on its depth alone,
//! and a reduction's tree on its shape alone.

#[cfg(test)]
mod tests;

use std::ops::Range;

use ckad_graph::{Error, Op, Result};
use ckad_plan::program::{ArrayRef, Kernel, Source};

use crate::environment::{Environment, Memory};
use crate::matmul::Rows;
use crate::structural::array::Array;
use crate::structural::parallel::Shared;
use crate::tile::Consumer;

/// Bytes from which on a product is worth it: a smaller one is still in cache when the next kernel reads it.
const WORTH_JOINING: usize = 1 << 16;

/// What follows from the two kernels alone.
struct Joined<'a> {
    rows: Rows,
    operands: &'a [ArrayRef; 2],
    result: &'a ArrayRef,
    consumer: Consumer<'a>,
}

impl<'a> Joined<'a> {
    fn new(product: &'a Kernel, consumer: &'a Kernel) -> Option<Joined<'a>> {
        let Kernel::Structural { op: Op::Dot { absorb, .. }, parameters, operands, result } = product else {
            return None;
        };
        let Kernel::Fused(kernel) = consumer else { return None };
        let elements: usize = kernel.extents.iter().product();
        if elements * result.dtype.size() < WORTH_JOINING {
            return None;
        }
        let operands: &[ArrayRef; 2] = operands.as_slice().try_into().ok()?;
        let [a, b] = operands;
        if a.dtype != result.dtype || b.dtype != result.dtype {
            return None;
        }
        let rows = Rows::new(&parameters.list, *absorb, result.dtype, &a.shape, &b.shape, &result.shape)?;
        let mut loads = kernel.loads.iter().enumerate().filter(|(_, load)| load.source == result.source);
        let (Some((load, found)), None) = (loads.next(), loads.next()) else { return None };
        let whole = found.offset == 0 && found.starts.is_empty() && elements == rows.count() * rows.width();
        if found.dtype != result.dtype || !whole {
            return None;
        }
        let consumer = Consumer::new(kernel, load, rows.width(), rows.height)?;
        Some(Joined { rows, operands, result, consumer })
    }

    /// Bytes of scratch: the product's, of blocks of rows, the consumer's.
    fn scratch(&self, kept: bool, threads: usize) -> [usize; 3] {
        let blocks = if kept { 0 } else { (threads * self.rows.block_bytes()).min(self.whole_bytes()) };
        [self.rows.scratch_bytes(threads).next_multiple_of(64), blocks, self.consumer.scratch_bytes(threads)]
    }

    fn row_bytes(&self) -> usize {
        self.rows.width() * self.result.dtype.size()
    }

    /// Bytes of all rows: with many threads blocks would be as many, and each row has its own place.
    fn whole_bytes(&self) -> usize {
        (self.rows.count() * self.row_bytes()).next_multiple_of(64)
    }
}

/// Bytes of `Environment::scratch` that [`execute`] needs for the two kernels in a pool of `threads` threads, where the
/// product is kept or not; None where they are to run one after the other.
pub fn scratch_bytes(product: &Kernel, consumer: &Kernel, kept: bool, threads: usize) -> Option<usize> {
    Some(Joined::new(product, consumer)?.scratch(kept, threads.max(1)).iter().sum())
}

/// Runs a product and the kernel that reads it. The product is left in its buffer where this has bytes, and nowhere
/// where it has none.
///
/// # Safety
/// As for `crate::execute`, for both kernels at once: no result of the second overlaps an operand of the first.
pub unsafe fn execute(product: &Kernel, consumer: &Kernel, environment: &Environment<'_>) -> Result<()> {
    environment.check()?;
    let joined = Joined::new(product, consumer);
    let joined = joined.ok_or_else(|| Error::internal("run", "kernels are joined that cannot be"))?;
    let Source::Buffer(result) = joined.result.source else {
        return Err(Error::internal("run", "a product without a buffer"));
    };
    let whole = environment.buffer(result)?;
    if whole.bytes > 0 && whole.bytes < joined.rows.count() * joined.row_bytes() {
        return Err(Error::internal("run", "a product is larger than its buffer"));
    }
    let [of_product, of_blocks, of_consumer] = joined.scratch(whole.bytes > 0, rayon::current_num_threads());
    let all = environment.shared_scratch(of_product + of_blocks + of_consumer)?;
    let part = |first: usize, bytes: usize| Environment {
        scratch: Memory { pointer: all.pointer.wrapping_add(first), bytes },
        ..*environment
    };
    let (to_product, to_consumer) = (part(0, of_product), part(of_product + of_blocks, of_consumer));
    let blocks = part(of_product, of_blocks);
    let [a, b] = joined.operands;
    let (a, b) = (Array::resolve(a, environment)?, Array::resolve(b, environment)?);
    // Where each row has its own place, if it has.
    let whole = match whole.bytes {
        0 if of_blocks == joined.whole_bytes() => Some(blocks.scratch.pointer),
        0 => None,
        _ => Some(whole.pointer),
    };
    let whole = whole.map(Shared::new);
    let bound = joined.rows.bind(&a, &b, &to_product)?;
    let produce = |rows: Range<usize>| {
        let block = match whole {
            Some(whole) => whole.get().wrapping_add(rows.start * joined.row_bytes()),
            None => blocks.thread_scratch(0, joined.rows.block_bytes())?.pointer,
        };
        // SAFETY: the caller's promises; the consumer asks for rows that exist, a block of them at most, and each row
        // once; a thread's block is its own.
        unsafe { bound.compute(rows, block)? };
        Ok(block)
    };
    // SAFETY: the caller's promises; the rows have the load's dtype.
    unsafe { joined.consumer.execute(&produce, &to_consumer) }
}
