//! Evaluates tiles, one after another, on one thread.

use super::bind::{Bound, Origin};
use super::load::fill;
use super::prepare::{Place, Prepared, Step};
use crate::Memory;

/// The state of one thread over one piece of work.
pub struct Runner<'a> {
    prepared: &'a Prepared,
    bound: &'a Bound,
    /// First byte of the slots.
    scratch: *mut u8,
    /// Where each value of the current tile is.
    pointers: Vec<*mut u8>,
    /// Values that lie in memory: (value, its first byte, bytes of an element).
    moving: Vec<(usize, *mut u8, usize)>,
}

impl<'a> Runner<'a> {
    /// A runner for tiles of at most `longest` elements in all, on scratch of `prepared.thread_bytes()`.
    pub fn new(prepared: &'a Prepared, bound: &'a Bound, scratch: Memory, longest: usize) -> Runner<'a> {
        debug_assert!(scratch.bytes >= prepared.thread_bytes());
        let mut runner = Runner { prepared, bound, scratch: scratch.pointer, pointers: Vec::new(), moving: Vec::new() };
        runner.pointers.reserve_exact(prepared.values.len());
        runner.moving.reserve_exact(bound.origins.len() + bound.stores.len());
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
                // Operand and store have an element for each of the iteration.
                Place::Memory(load) => {
                    if let Origin::Memory(first) = bound.origins[load] {
                        runner.moving.push((index, first, value.dtype.size()));
                    }
                    std::ptr::null_mut()
                }
                Place::Store(store) => {
                    runner.moving.push((index, bound.stores[store], value.dtype.size()));
                    std::ptr::null_mut()
                }
            };
            runner.pointers.push(pointer);
        }
        runner
    }

    fn slot(&self, multiple: usize) -> *mut u8 {
        // SAFETY: slots are inside the scratch that `prepared` asked for.
        unsafe { self.scratch.add(multiple * self.prepared.tile) }
    }

    /// Evaluates the elements `flat..flat + n`, with their stores.
    ///
    /// # Safety
    /// The range is inside the iteration and, of buffers that are there by rows, inside these; n ≤ tile and ≤
    /// `longest`, nobody else evaluates it, and the buffers are as `crate::execute` asks.
    pub unsafe fn evaluate(&mut self, flat: usize, n: usize) {
        for &(value, first, size) in &self.moving {
            self.pointers[value] = first.wrapping_add(flat * size);
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
                let target = self.bound.stores[store].wrapping_add(flat * size);
                std::ptr::copy_nonoverlapping(self.pointers[value].cast_const(), target, n * size);
            }
        }
    }

    /// Where a value of the current tile is.
    pub fn pointer(&self, value: usize) -> *const u8 {
        self.pointers[value]
    }
}
