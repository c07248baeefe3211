//! Buffers in allocations of their own, made and freed as the plan says: debug mode and profilers.
//!
//! What the arena only promises is here observed: a value read after its life is gone or poison, and the bytes
//! counted are the bytes that exist.

use ckad_graph::{NodeId, Result, tables};
use ckad_plan::program::{Place, Program};

use crate::block::Block;

/// Where a profiler provides the memory of buffers itself, to see it come and go.
///
/// # Safety
/// `on_allocate` returns memory of at least that many bytes, 64-byte aligned, that nobody else uses until
/// `on_free` is called with it.
pub unsafe trait AllocationHooks {
    fn on_allocate(&mut self, node: NodeId, bytes: usize) -> Result<*mut u8>;
    fn on_free(&mut self, node: NodeId, pointer: *mut u8, bytes: usize);
    /// An output of the run, in an allocation that the run's caller will own.
    fn on_output(&mut self, _node: NodeId, _pointer: *mut u8, _bytes: usize) {}
}

/// Memory that reads as NaN, −1 or true.
const POISON: u8 = 0xFF;

/// The buffers alive now.
pub(crate) struct Separate<'p, 'h> {
    program: &'p Program,
    hooks: Option<&'h mut (dyn AllocationHooks + Send)>,
    /// By buffer: where it is, if it is alive and no output.
    pointers: Vec<*mut u8>,
    blocks: Vec<Option<Block>>,
    /// Buffers by their first and by their last step; what is left of both.
    births: std::vec::IntoIter<usize>,
    deaths: std::vec::IntoIter<usize>,
    live_bytes: u64,
}

// SAFETY: the pointers are to memory that this value holds for itself.
unsafe impl Send for Separate<'_, '_> {}

/// A buffer that came to be, or ceased to be.
pub(crate) enum Change {
    Born { buffer: usize, pointer: *mut u8 },
    Dead { buffer: usize },
}

impl<'p, 'h> Separate<'p, 'h> {
    pub fn new(program: &'p Program, hooks: Option<&'h mut (dyn AllocationHooks + Send)>) -> Result<Separate<'p, 'h>> {
        let owned = |&index: &usize| !matches!(program.buffers[index].place, Place::Input(_) | Place::Constant(_));
        let mut births: Vec<usize> = tables::list("run", (0..program.buffers.len()).filter(owned))?;
        let mut deaths = tables::list("run", births.iter().copied())?;
        births.sort_unstable_by_key(|&index| (program.buffers[index].first_step, index));
        deaths.sort_unstable_by_key(|&index| (program.buffers[index].last_step, index));
        Ok(Separate {
            program,
            hooks,
            pointers: tables::filled("run", std::ptr::null_mut(), program.buffers.len())?,
            blocks: tables::list("run", (0..program.buffers.len()).map(|_| None))?,
            births: births.into_iter(),
            deaths: deaths.into_iter(),
            live_bytes: 0,
        })
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Allocates what begins at `step`; `outputs` are where the outputs are.
    pub fn begin(&mut self, step: usize, outputs: &[*mut u8], mut changed: impl FnMut(Change)) -> Result<()> {
        while let Some(&buffer) = self.births.as_slice().first() {
            let plan = &self.program.buffers[buffer];
            if plan.first_step as usize > step {
                break;
            }
            self.births.next();
            self.live_bytes += plan.bytes as u64;
            let pointer = match (plan.place, &mut self.hooks) {
                (Place::Output(output), hooks) => {
                    let pointer = outputs[output as usize];
                    if let Some(hooks) = hooks {
                        hooks.on_output(plan.node, pointer, plan.bytes);
                    }
                    pointer
                }
                (_, Some(hooks)) => {
                    self.pointers[buffer] = hooks.on_allocate(plan.node, plan.bytes)?;
                    self.pointers[buffer]
                }
                (_, None) => self.blocks[buffer].insert(Block::new("run", plan.bytes)?).pointer(),
            };
            // SAFETY: fresh memory of that many bytes.
            unsafe { pointer.write_bytes(POISON, plan.bytes) };
            changed(Change::Born { buffer, pointer });
        }
        Ok(())
    }

    /// Frees what ends with `step`.
    pub fn end(&mut self, step: usize, mut changed: impl FnMut(Change)) {
        while let Some(&buffer) = self.deaths.as_slice().first() {
            let plan = &self.program.buffers[buffer];
            if plan.last_step as usize > step {
                break;
            }
            self.deaths.next();
            if matches!(plan.place, Place::Output(_)) {
                continue;
            }
            self.live_bytes -= plan.bytes as u64;
            self.free(buffer);
            changed(Change::Dead { buffer });
        }
    }

    fn free(&mut self, buffer: usize) {
        let plan = &self.program.buffers[buffer];
        if let Some(block) = self.blocks[buffer].take() {
            // SAFETY: the block has that many bytes and is ours.
            unsafe { block.pointer().write_bytes(POISON, plan.bytes) };
        }
        let pointer = std::mem::replace(&mut self.pointers[buffer], std::ptr::null_mut());
        if let Some(hooks) = &mut self.hooks
            && !pointer.is_null()
        {
            hooks.on_free(plan.node, pointer, plan.bytes);
        }
    }
}

impl Drop for Separate<'_, '_> {
    /// A run that ends early leaves nothing behind.
    fn drop(&mut self) {
        for buffer in 0..self.pointers.len() {
            self.free(buffer);
        }
    }
}
