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
mod indexed;
#[cfg(test)]
mod indexed_tests;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use ckad_graph::{Error, Result};
use ckad_plan::allocate::{Arena, Lifetime, allocate};
use ckad_plan::program::{BufferId, Joining, Step};

use crate::ahead::Ahead;
use crate::environment::{Environment, Memory};
use crate::isa::isa;
use crate::matmul;
use crate::structural::array::Array;
use crate::team;
use crate::tile::Member;
use group::{Group, Made, Work};
use indexed::Indexed;

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
    members: Vec<RowKernel<'a>>,
    /// Tiles of a block.
    tiles: usize,
    /// Where the rows begin in a block of what is not stored, and the bytes of a block.
    offsets: Vec<usize>,
    block_bytes: usize,
}

/// A step cut into blocks.
enum RowKernel<'a> {
    Fused(Box<Member<'a>>),
    /// With the number of rows, and of those of a block.
    Indexed(Indexed<'a>, usize, usize),
}

impl RowKernel<'_> {
    /// Bytes of scratch that all threads share, until all blocks are done.
    fn shared_bytes(&self) -> usize {
        match self {
            RowKernel::Fused(member) => member.shared_bytes(),
            RowKernel::Indexed(indexed, rows, height) => indexed.shared_bytes(*rows, *height),
        }
    }

    /// Bytes of scratch of a thread, while a block is worked on.
    fn thread_bytes(&self) -> usize {
        match self {
            RowKernel::Fused(member) => member.thread_bytes(),
            RowKernel::Indexed(..) => 0,
        }
    }

    /// Number of tiles of a block, more or less.
    fn tiles(&self) -> usize {
        match self {
            RowKernel::Fused(member) => member.tiles(),
            RowKernel::Indexed(..) => 0,
        }
    }

    /// # Safety
    /// As for [`execute`]; `shared` has the bytes asked for.
    unsafe fn prepare(&self, shared: Memory, environment: &Environment<'_>) -> Result<()> {
        match self {
            RowKernel::Fused(_) => Ok(()),
            // SAFETY: the caller's promises.
            RowKernel::Indexed(indexed, rows, height) => unsafe {
                indexed.prepare(*rows, *height, shared, environment)
            },
        }
    }

    /// # Safety
    /// As for [`execute`], of the block's rows; `shared` and `scratch` have the bytes asked for.
    unsafe fn run(&self, block: usize, shared: Memory, scratch: Memory, environment: &Environment<'_>) -> Result<()> {
        // SAFETY: the caller's promises.
        unsafe {
            match self {
                RowKernel::Fused(member) => member.run(block, shared, scratch, environment),
                RowKernel::Indexed(indexed, rows, height) => indexed.run(*rows, *height, block, shared, environment),
            }
        }
    }

    /// # Safety
    /// As for `run`, when all blocks are done.
    unsafe fn finish(&self, shared: Memory, scratch: Memory, environment: &Environment<'_>) -> Result<()> {
        match self {
            // SAFETY: the caller's promises.
            RowKernel::Fused(member) => unsafe { member.finish(shared, scratch, environment) },
            RowKernel::Indexed(..) => Ok(()),
        }
    }
}

/// Bytes of scratch, part after part; or of what runs before and after the blocks, from the start.
struct Scratch {
    apart: usize,
    product: usize,
    blocks: usize,
    shared: usize,
    threads: usize,
}

impl<'a> Cut<'a> {
    /// Into blocks of so many rows, whose values lie as the arena says; None where that cuts a reduction's tree.
    fn new(group: &Group<'a>, height: usize, arena: Arena) -> Option<Cut<'a>> {
        let isa = isa().ok()?;
        let members = group.members.iter().map(|(_, work)| match work {
            Work::Fused(kernel) => {
                Member::new(kernel, group.rows, height, isa).map(|member| RowKernel::Fused(Box::new(member)))
            }
            Work::Indexed(indexed) => Some(RowKernel::Indexed(*indexed, group.rows, height)),
        });
        let members: Vec<RowKernel<'_>> = members.collect::<Option<_>>()?;
        let tiles = members.iter().map(RowKernel::tiles).sum();
        Some(Cut { height, members, tiles, offsets: arena.offsets, block_bytes: arena.bytes })
    }
}

/// How the rows of a block lie, if these are not too many bytes.
fn block(unstored: &[Made], height: usize) -> Option<Arena> {
    let lifetime = |made: &Made| Lifetime { first: made.first, last: made.last, bytes: made.row_bytes * height };
    let lifetimes: Vec<Lifetime> = unstored.iter().map(lifetime).collect();
    allocate(&lifetimes, 64).ok().filter(|arena| arena.bytes <= MOST_BLOCK_BYTES)
}

impl Scratch {
    fn bytes(&self) -> usize {
        (self.product + self.blocks + self.shared + self.threads).max(self.apart)
    }
}

impl<'a> Joined<'a> {
    /// All the steps; what is `unstored` of their results never lies as a whole.
    fn new(steps: &'a [Step], unstored: impl Fn(BufferId) -> bool) -> Option<Joined<'a>> {
        let group = Group::longest(steps).filter(|group| group.len == steps.len())?;
        let unstored = |made: &Made| unstored(made.buffer) && !group.reads_apart(made.buffer);
        let unstored: Vec<Made> = group.made.iter().copied().filter(unstored).collect();
        let fewest = if group.product.is_some() { PRODUCT_ROWS } else { 1 };
        // The highest blocks that fit are taken, else the lowest that can be.
        let mut large = Vec::new();
        let mut best: Option<Cut<'a>> = None;
        for height in HEIGHTS.rev().map(|log| 1usize << log).filter(|&height| height >= fewest) {
            let Some(arena) = block(&unstored, height) else { continue };
            if arena.bytes > BLOCK_BYTES || group.rows.div_ceil(height) < BLOCKS {
                large.push((height, arena));
                continue;
            }
            best = Cut::new(&group, height, arena);
            if best.is_some() {
                break;
            }
        }
        let best = best.or_else(|| large.into_iter().rev().find_map(|(height, arena)| Cut::new(&group, height, arena)));
        let panels = group.product.as_ref().map_or(usize::MAX, |product| product.rows.panels());
        let cut = best.filter(|cut| group.rows.div_ceil(cut.height) >= panels.min(FEW_BLOCKS))?;
        let whole_bytes = unstored.iter().map(|made| (made.row_bytes * group.rows).next_multiple_of(64)).sum();
        Some(Joined { group, unstored, cut, whole_bytes })
    }

    fn scratch(&self, threads: usize) -> Scratch {
        let rows = self.group.product.as_ref().map(|product| &product.rows);
        let of_thread = self.cut.members.iter().map(RowKernel::thread_bytes).max().unwrap_or(0);
        let apart = self.group.before.iter().chain(&self.group.after);
        Scratch {
            apart: apart.map(|(_, kernel)| crate::scratch_bytes(kernel, threads)).max().unwrap_or(0),
            product: rows.map_or(0, |rows| rows.scratch_bytes(threads).next_multiple_of(64)),
            // With many threads blocks would take more than all rows, which then have a place each.
            blocks: (threads * self.cut.block_bytes).min(self.whole_bytes),
            shared: self.cut.members.iter().map(RowKernel::shared_bytes).sum(),
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
    let unstored = joined.unstored.iter().map(|made| made.buffer).collect();
    Some(Joining { scratch: joined.scratch(threads.max(1)).bytes(), unstored })
}

/// Runs the steps. What they make lies in its buffers where these have bytes, and nowhere as a whole where they have
/// none. An error comes with the step that it belongs to.
///
/// # Safety
/// As for `crate::execute`, for all kernels at once: no result overlaps an operand of another.
pub unsafe fn execute(steps: &[Step], environment: &Environment<'_>) -> Result<(), (usize, Error)> {
    let mut at = steps.len().saturating_sub(1);
    // SAFETY: the caller's promises.
    unsafe { run(steps, environment, &mut at) }.map_err(|error| (at, error))
}

/// # Safety
/// As for [`execute`].
unsafe fn run(steps: &[Step], environment: &Environment<'_>, at: &mut usize) -> Result<()> {
    environment.check()?;
    let last = *at;
    let unstored = |buffer: BufferId| environment.buffer(buffer).is_ok_and(|memory| memory.bytes == 0);
    let joined = Joined::new(steps, unstored);
    let joined = joined.ok_or_else(|| Error::internal("run", "steps are joined that cannot be"))?;
    let bytes = joined.scratch(team::thread_count());
    let all = environment.shared_scratch(bytes.bytes())?;
    let part = |first: usize, bytes: usize| Environment {
        scratch: Memory { pointer: all.pointer.wrapping_add(first), bytes },
        ..*environment
    };
    let of_product = part(0, bytes.product);
    let of_blocks = part(bytes.product, bytes.blocks);
    let of_members = part(bytes.product + bytes.blocks, bytes.shared + bytes.threads);
    for &(step, kernel) in &joined.group.before {
        *at = step as usize;
        // SAFETY: the caller's promises; it reads nothing that is made here.
        unsafe { crate::execute(kernel, environment)? };
    }
    *at = last;
    let product = match &joined.group.product {
        None => None,
        Some(product) => {
            let [a, b] = product.operands;
            let (a, b) = (Array::resolve(a, environment)?, Array::resolve(b, environment)?);
            Some((product, product.rows.bind(&a, &b, &of_product)?))
        }
    };
    let run = Run { joined: &joined, product, of_blocks, of_members, environment };
    let mut first = 0;
    for (member, (step, _)) in joined.cut.members.iter().zip(&joined.group.members) {
        let shared = run.shared(first, member)?;
        *at = *step as usize;
        // SAFETY: the caller's promises; what it reads is there.
        unsafe { member.prepare(shared, environment)? };
        first += member.shared_bytes();
    }
    *at = last;
    let blocks = joined.group.rows.div_ceil(joined.cut.height);
    // SAFETY: the caller's promises; each block is run once.
    team::for_each(blocks, |block| unsafe { run.block(block) })?;
    let mut first = 0;
    let scratch = run.thread_scratch()?;
    for member in &joined.cut.members {
        let shared = run.shared(first, member)?;
        // SAFETY: all blocks are done.
        unsafe { member.finish(shared, scratch, environment)? };
        first += member.shared_bytes();
    }
    for &(step, kernel) in &joined.group.after {
        *at = step as usize;
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
        let Joined { group, unstored, cut: Cut { height, members, tiles, offsets, block_bytes }, whole_bytes } =
            self.joined;
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
        let ahead = Ahead::new(self.soon_needed(block)?, *tiles);
        let environment = Environment { blocks: &places, ahead: Some(&ahead), ..*self.environment };
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

    /// What the block writes in memory, and what the next one, most likely this thread's too, reads there.
    fn soon_needed(&self, block: usize) -> Result<Vec<Memory>> {
        let Joined { group, unstored, cut: Cut { height, .. }, .. } = self.joined;
        let rows = |block: usize| group.rows.min(block * height)..group.rows.min((block + 1) * height);
        let mut ranges = Vec::with_capacity(group.streams.len() + group.made.len());
        let stored = group.made.iter().filter(|made| unstored.iter().all(|other| other.buffer != made.buffer));
        let stored = stored.map(|made| (made.buffer, made.row_bytes, rows(block)));
        let read = group.streams.iter().map(|&(buffer, row_bytes)| (buffer, row_bytes, rows(block + 1)));
        for (buffer, row_bytes, rows) in stored.chain(read) {
            let memory = self.environment.buffer(buffer)?;
            let pointer = memory.pointer.wrapping_add(rows.start * row_bytes);
            ranges.push(Memory { pointer, bytes: rows.len() * row_bytes });
        }
        Ok(ranges)
    }

    /// A member's part of what threads share.
    fn shared(&self, first: usize, member: &RowKernel<'_>) -> Result<Memory> {
        let all = self.of_members.shared_scratch(first + member.shared_bytes())?;
        Ok(Memory { pointer: all.pointer.wrapping_add(first), bytes: member.shared_bytes() })
    }

    fn thread_scratch(&self) -> Result<Memory> {
        let Scratch { shared, threads, .. } = self.joined.scratch(1);
        self.of_members.thread_scratch(shared, threads)
    }
}
