//! A body on its memory: its table of buffers, of which inputs and outputs move between iterations.

use ckad_cpu::{Environment, Memory};
use ckad_graph::{Error, Result};
use ckad_plan::program::{Body, Place, Step};

use super::Site;
use crate::execute::launch;

pub(super) struct Frame<'a> {
    body: &'a Body,
    table: *mut Memory,
    environment: Environment<'a>,
}

impl<'a> Frame<'a> {
    /// The body of that number, none of whose inputs and outputs is anywhere yet.
    pub fn new(site: &'a Site<'_>, index: usize) -> Result<Frame<'a>> {
        let body = &*site.kernel.bodies[index];
        let program = &body.program;
        let table = site.at(site.layout.tables[index]).cast::<Memory>();
        for (index, buffer) in program.buffers.iter().enumerate() {
            let memory = match buffer.place {
                Place::Arena(offset) => {
                    Memory { pointer: site.at(site.layout.arena).wrapping_add(offset), bytes: buffer.bytes }
                }
                Place::Input(_) | Place::Output(_) => Memory { bytes: buffer.bytes, ..Memory::EMPTY },
                Place::Scratch => Memory::EMPTY,
                Place::Constant(_) => return Err(Error::internal("run", "a loop's body has a constant of its own")),
            };
            // SAFETY: the layout has an entry for each buffer of the body.
            unsafe { table.add(index).write(memory) };
        }
        let environment = Environment {
            buffers: &[],
            blocks: &[],
            scalars: &program.scalars_added.1,
            starts: &program.starts_added.1,
            scratch: Memory { pointer: site.at(site.layout.scratch), bytes: site.layout.scratch.bytes },
            ..*site.environment
        };
        Ok(Frame { body, table, environment })
    }

    pub fn body(&self) -> &'a Body {
        self.body
    }

    /// From now on the input lies there.
    pub fn place_input(&self, input: usize, pointer: *mut u8) {
        // SAFETY: an entry that `new` wrote; while the body runs nobody comes here.
        unsafe { (*self.table.add(self.body.inputs[input].0 as usize)).pointer = pointer };
    }

    /// From now on the output is written there.
    pub fn place_output(&self, output: usize, pointer: *mut u8) {
        // SAFETY: as above.
        unsafe { (*self.table.add(self.body.outputs[output].0 as usize)).pointer = pointer };
    }

    /// The steps of the body, once.
    ///
    /// # Safety
    /// Inputs and outputs were placed, each on memory of its bytes; an output may lie where the carry does that it is
    /// the next one of, if the body says so.
    pub unsafe fn run(&self) -> Result<()> {
        let program = &self.body.program;
        // SAFETY: `new` wrote as many entries, and they do not change while the steps run.
        let buffers = unsafe { std::slice::from_raw_parts(self.table, program.buffers.len()) };
        let environment = Environment { buffers, ..self.environment };
        let steps = program.steps.as_slice();
        let mut start = 0;
        while start < steps.len() {
            let joined = |step: &&Step| step.joined;
            let end = start + 1 + steps[start + 1..].iter().take_while(joined).count();
            // SAFETY: the body was verified, and its buffers are laid out as it says.
            unsafe { launch(&steps[start..end], &environment) }.map_err(|(step, mut error)| {
                error.within.insert(0, self.body.positions.get(start + step).copied().unwrap_or(0));
                error
            })?;
            start = end;
        }
        Ok(())
    }
}
