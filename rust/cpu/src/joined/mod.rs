//! Steps that run as one: some rows at a time, which one kernel after another works on while they are in L2.
//!
//! Bias and activation after a matrix product, a derivative times the cotangent, a softmax, a layer norm then cost no
//! way to memory and back. `group` says which steps can run together; here they are cut into blocks of rows and run.
//!
//! The bits are those of the kernels run one after the other: an element of a product depends on its depth alone, and
//! a reduction's tree on its shape alone.

mod group;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use ckad_graph::{Error, Result};
use ckad_plan::allocate::{Lifetime, allocate};
use ckad_plan::program::{BufferId, Joining, Step};
use rayon::prelude::*;

use crate::environment::{Environment, Memory};
use crate::isa::isa;
use crate::matmul;
use crate::structural::array::Array;
use crate::tile::Member;
use group::{Group, Made};

/// Rows of a block: powers of two, as nodes of a reduction's tree are. What a block costs by itself (the packed part of
/// a product's right operand, looking up buffers) is the dearer the fewer rows it has.
const HEIGHTS: RangeInclusive<u32> = 2..=16;
/// Fewest rows of a block of a product.
const PRODUCT_ROWS: usize = 64;
/// Bytes of a block's rows that stay in L2, and that do so more or less.
const BLOCK_BYTES: usize = 1 << 19;
const MOST_BLOCK_BYTES: usize = 1 << 20;
/// Blocks to be had if possible, and at least, so that many threads have work.
const BLOCKS: usize = 16;
const FEW_BLOCKS: usize = 8;

/// A group of steps, cut into blocks of rows.
struct Joined<'a> {
    group: Group<'a>,
    /// What lies nowhere as a whole.
    unstored: Vec<Made>,
    cut: Cut<'a>,
    /// Bytes of all rows of what is not stored.
    whole_bytes: usize,
}

/// The blocks.
struct Cut<'a> {
    height: usize,
    members: Vec<Member<'a>>,
    /// Where the rows begin in a block of what is not stored, and the bytes of a block.
    offsets: Vec<usize>,
    block_bytes: usize,
}

/// Bytes of scratch, part after part.
struct Scratch {
    product: usize,
    blocks: usize,
    shared: usize,
    threads: usize,
}

impl<'a> Cut<'a> {
    fn new(group: &Group<'a>, unstored: &[Made], height: usize) -> Option<Cut<'a>> {
        let lifetime = |made: &Made| Lifetime { first: made.first, last: made.last, bytes: made.row_bytes * height };
        let lifetimes: Vec<Lifetime> = unstored.iter().map(lifetime).collect();
        let arena = allocate(&lifetimes, 64).ok().filter(|arena| arena.bytes <= MOST_BLOCK_BYTES)?;
        let isa = isa().ok()?;
        let members = group.members.iter().map(|&(_, kernel)| Member::new(kernel, group.rows, height, isa));
        Some(Cut { height, members: members.collect::<Option<_>>()?, offsets: arena.offsets, block_bytes: arena.bytes })
    }
}

impl<'a> Joined<'a> {
    /// All the steps; what is `unstored` of their results never lies as a whole.
    fn new(steps: &'a [Step], unstored: impl Fn(BufferId) -> bool) -> Option<Joined<'a>> {
        let group = Group::longest(steps).filter(|group| group.len == steps.len())?;
        let unstored: Vec<Made> = group.made.iter().copied().filter(|made| unstored(made.buffer)).collect();
        let fewest = if group.product.is_some() { PRODUCT_ROWS } else { 1 };
        let mut best: Option<Cut<'a>> = None;
        for height in HEIGHTS.rev().map(|log| 1usize << log).filter(|&height| height >= fewest) {
            let Some(cut) = Cut::new(&group, &unstored, height) else { continue };
            let good = cut.block_bytes <= BLOCK_BYTES && group.rows.div_ceil(height) >= BLOCKS;
            best = Some(cut);
            if good {
                break;
            }
        }
        let panels = group.product.as_ref().map_or(usize::MAX, |product| product.rows.panels());
        let cut = best.filter(|cut| group.rows.div_ceil(cut.height) >= panels.min(FEW_BLOCKS))?;
        let whole_bytes = unstored.iter().map(|made| (made.row_bytes * group.rows).next_multiple_of(64)).sum();
        Some(Joined { group, unstored, cut, whole_bytes })
    }

    fn scratch(&self, threads: usize) -> Scratch {
        let rows = self.group.product.as_ref().map(|product| &product.rows);
        let of_thread = self.cut.members.iter().map(Member::thread_bytes).max().unwrap_or(0);
        Scratch {
            product: rows.map_or(0, |rows| rows.scratch_bytes(threads).next_multiple_of(64)),
            // With many threads blocks would take more than all rows, which then have a place each.
            blocks: (threads * self.cut.block_bytes).min(self.whole_bytes),
            shared: self.cut.members.iter().map(Member::shared_bytes).sum(),
            threads: threads * of_thread.next_multiple_of(64),
        }
    }
}

/// How many of the steps can run as one, from the first on.
pub fn longest(steps: &[Step]) -> usize {
    Group::longest(steps).map_or(1, |group| group.len)
}

/// Bytes of `Environment::scratch` that [`execute`] needs for the steps in a pool of `threads` threads, and what of
/// the `dying` results need never lie as a whole; None where the steps are better run one after the other.
pub fn plan(steps: &[Step], dying: &[BufferId], threads: usize) -> Option<Joining> {
    let joined = Joined::new(steps, |buffer| dying.contains(&buffer))?;
    let Scratch { product, blocks, shared, threads } = joined.scratch(threads.max(1));
    let unstored = joined.unstored.iter().map(|made| made.buffer).collect();
    Some(Joining { scratch: product + blocks + shared + threads, unstored })
}

/// Runs the steps. What they make lies in its buffers where these have bytes, and nowhere as a whole where they have
/// none.
///
/// # Safety
/// As for `crate::execute`, for all kernels at once: no result overlaps an operand of another.
pub unsafe fn execute(steps: &[Step], environment: &Environment<'_>) -> Result<()> {
    environment.check()?;
    let unstored = |buffer: BufferId| environment.buffer(buffer).is_ok_and(|memory| memory.bytes == 0);
    let joined = Joined::new(steps, unstored);
    let joined = joined.ok_or_else(|| Error::internal("run", "steps are joined that cannot be"))?;
    let bytes = joined.scratch(rayon::current_num_threads());
    let all = environment.shared_scratch(bytes.product + bytes.blocks + bytes.shared + bytes.threads)?;
    let part = |first: usize, bytes: usize| Environment {
        scratch: Memory { pointer: all.pointer.wrapping_add(first), bytes },
        ..*environment
    };
    let of_product = part(0, bytes.product);
    let of_blocks = part(bytes.product, bytes.blocks);
    let of_members = part(bytes.product + bytes.blocks, bytes.shared + bytes.threads);
    for kernel in &joined.group.before {
        // SAFETY: the caller's promises; it reads nothing that is made here.
        unsafe { crate::execute(kernel, environment)? };
    }
    let product = match &joined.group.product {
        None => None,
        Some(product) => {
            let [a, b] = product.operands;
            let (a, b) = (Array::resolve(a, environment)?, Array::resolve(b, environment)?);
            Some((product, product.rows.bind(&a, &b, &of_product)?))
        }
    };
    let run = Run { joined: &joined, product, of_blocks, of_members, environment };
    let blocks = joined.group.rows.div_ceil(joined.cut.height);
    // SAFETY: the caller's promises; each block is run once.
    (0..blocks).into_par_iter().with_max_len(1).try_for_each(|block| unsafe { run.block(block) })?;
    let mut first = 0;
    let scratch = run.thread_scratch()?;
    for member in &joined.cut.members {
        let shared = run.shared(first, member)?;
        // SAFETY: all blocks are done.
        unsafe { member.finish(shared, scratch, environment)? };
        first += member.shared_bytes();
    }
    for kernel in &joined.group.after {
        // SAFETY: the caller's promises; sums are complete.
        unsafe { crate::execute(kernel, environment)? };
    }
    Ok(())
}

/// What the threads share.
struct Run<'a> {
    joined: &'a Joined<'a>,
    product: Option<(&'a group::Product<'a>, matmul::BoundRows<'a>)>,
    of_blocks: Environment<'a>,
    of_members: Environment<'a>,
    environment: &'a Environment<'a>,
}

impl Run<'_> {
    /// # Safety
    /// As for [`execute`]; nobody else runs the block.
    unsafe fn block(&self, block: usize) -> Result<()> {
        self.environment.check()?;
        let Joined { group, unstored, cut: Cut { height, members, offsets, block_bytes }, whole_bytes } = self.joined;
        let rows = block * height..group.rows.min((block + 1) * height);
        let whole = self.of_blocks.scratch.bytes == *whole_bytes;
        let area = if whole { self.of_blocks.scratch } else { self.of_blocks.thread_scratch(0, *block_bytes)? };
        let mut places: Vec<(BufferId, Memory)> = Vec::with_capacity(unstored.len());
        let mut before = 0;
        for (made, offset) in unstored.iter().zip(offsets) {
            let bytes = made.row_bytes * group.rows;
            let first_row = if whole {
                area.pointer.wrapping_add(before)
            } else {
                area.pointer.wrapping_add(*offset).wrapping_sub(rows.start * made.row_bytes)
            };
            places.push((made.buffer, Memory { pointer: first_row, bytes }));
            before += bytes.next_multiple_of(64);
        }
        let environment = Environment { blocks: &places, ..*self.environment };
        if let Some((product, bound)) = &self.product {
            let memory = environment.buffer(product.result)?;
            let row_bytes = product.rows.row_bytes();
            if memory.bytes < group.rows * row_bytes {
                return Err(Error::internal("run", "a product is larger than its buffer"));
            }
            // SAFETY: the caller's promises; the rows exist, and their place is this block's alone.
            unsafe { bound.compute(rows.clone(), memory.pointer.wrapping_add(rows.start * row_bytes))? };
        }
        let mut first = 0;
        for member in members {
            let (shared, scratch) = (self.shared(first, member)?, self.thread_scratch()?);
            // SAFETY: the caller's promises; the rows that it reads are there.
            unsafe { member.run(block, shared, scratch, &environment)? };
            first += member.shared_bytes();
        }
        Ok(())
    }

    /// A member's part of what threads share.
    fn shared(&self, first: usize, member: &Member<'_>) -> Result<Memory> {
        let all = self.of_members.shared_scratch(first + member.shared_bytes())?;
        Ok(Memory { pointer: all.pointer.wrapping_add(first), bytes: member.shared_bytes() })
    }

    fn thread_scratch(&self) -> Result<Memory> {
        let Scratch { shared, threads, .. } = self.joined.scratch(1);
        self.of_members.thread_scratch(shared, threads)
    }
}
