//! Evaluates tiles, one after another, on one thread.

use std::ops::Range;

use ckad_graph::Result;

use super::bind::{Bound, Origin};
use super::load::fill;
use super::prepare::{ByRows, Place, Prepared, Step};
use crate::Memory;

/// Computes the rows asked for, on the calling thread, and says where they are: one behind the other, until it is
/// called again on this thread.
pub type Producer<'a> = dyn Fn(Range<usize>) -> Result<*mut u8> + Sync + 'a;

/// The state of one thread over one piece of work.
pub struct Runner<'a> {
    prepared: &'a Prepared,
    bound: &'a Bound,
    /// First byte of the slots.
    scratch: *mut u8,
    /// Where each value of the current tile is.
    pointers: Vec<*mut u8>,
    /// Where the first of all rows would be that are computed as it goes.
    rows: *mut u8,
}

impl<'a> Runner<'a> {
    /// A runner for tiles of at most `longest` elements in all, on scratch of `prepared.thread_bytes()`.
    pub fn new(prepared: &'a Prepared, bound: &'a Bound, scratch: Memory, longest: usize) -> Runner<'a> {
        debug_assert!(scratch.bytes >= prepared.thread_bytes());
        let (scratch, pointers, rows) = (scratch.pointer, Vec::new(), std::ptr::null_mut());
        let mut runner = Runner { prepared, bound, scratch, pointers, rows };
        runner.pointers.reserve_exact(prepared.values.len());
        for (index, value) in prepared.values.iter().enumerate() {
            let pointer = match value.place {
                Place::Slot(multiple) => runner.slot(multiple),
                Place::Splat(multiple) => {
                    if let Some(Origin::Splat(bits)) = bound.origins.get(index) {
                        // SAFETY: a slot has room for a tile.
                        unsafe { fill(runner.slot(multiple), value.dtype, *bits, prepared.tile.min(longest)) };
                    }
                    runner.slot(multiple)
                }
                Place::Memory(_) | Place::Store(_) => std::ptr::null_mut(),
            };
            runner.pointers.push(pointer);
        }
        runner
    }

    fn slot(&self, multiple: usize) -> *mut u8 {
        // SAFETY: slots are inside the scratch that `prepared` asked for.
        unsafe { self.scratch.add(multiple * self.prepared.tile) }
    }

    /// Has the rows of `elements` computed, which are to be evaluated next; does nothing where none are awaited.
    pub fn await_rows(&mut self, elements: Range<usize>, producer: Option<&Producer<'_>>) -> Result<()> {
        if let (Some(ByRows { width, load, .. }), Some(producer)) = (self.prepared.by_rows, producer) {
            let first = elements.start / width;
            let block = producer(first..elements.end.div_ceil(width))?;
            self.rows = block.wrapping_sub(first * width * self.prepared.values[load].dtype.size());
        }
        Ok(())
    }

    /// Evaluates the elements `flat..flat + n`, with their stores.
    ///
    /// # Safety
    /// Rows that the kernel awaits are there. The range is inside the iteration, n ≤ tile and ≤ `longest`, nobody else
    /// evaluates it, and the buffers are as `crate::execute` asks.
    pub unsafe fn evaluate(&mut self, flat: usize, n: usize) {
        for (index, value) in self.prepared.values.iter().enumerate() {
            let first = match value.place {
                Place::Memory(load) => match self.bound.origins[load] {
                    Origin::Memory(first) => first,
                    Origin::Rows => self.rows,
                    _ => continue,
                },
                Place::Store(store) => self.bound.stores[store],
                Place::Slot(_) | Place::Splat(_) => continue,
            };
            // Operand and store have an element for each of the iteration, or of the rows that are there.
            self.pointers[index] = first.wrapping_add(flat * value.dtype.size());
        }
        let mut lanes = self.bound.lanes.iter();
        for step in &self.prepared.steps {
            match *step {
                Step::Gather { load } => {
                    let Origin::Gather(gather) = &self.bound.origins[load] else { continue };
                    let slot = match self.prepared.values[load].place {
                        Place::Slot(multiple) => self.slot(multiple),
                        _ => self.pointers[load],
                    };
                    let in_place = matches!(self.prepared.values[load].place, Place::Slot(_));
                    // SAFETY: the view was checked against its buffer when it was bound.
                    self.pointers[load] = unsafe { gather.read(flat, n, slot, in_place) };
                }
                Step::Compute { result, operands: [a, b, c], .. } => {
                    let Some(lane) = lanes.next() else { return };
                    let at = &self.pointers;
                    // SAFETY: all places hold n elements of the dtypes that `Prepared` checked; a result's place is
                    // none of its operands'; the lane was chosen for an instruction set that the CPU has.
                    unsafe { lane(at[result], at[a], at[b], at[c], n) };
                }
            }
        }
        for &(value, store) in &self.prepared.copies {
            let size = self.prepared.values[value].dtype.size();
            // SAFETY: the store's buffer has an element for each of the iteration and overlaps no operand.
            unsafe {
                let target = self.bound.stores[store].add(flat * size);
                std::ptr::copy_nonoverlapping(self.pointers[value].cast_const(), target, n * size);
            }
        }
    }

    /// Where a value of the current tile is.
    pub fn pointer(&self, value: usize) -> *const u8 {
        self.pointers[value]
    }
}
