//! A body on its memory: its table of buffers, of which inputs and outputs move between iterations.

use std::cell::RefCell;

use ckad_cpu::{Environment, Memory, Repeated};
use ckad_graph::{Error, Result, tables};
use ckad_plan::program::{Body, Place, Step};

use super::Site;
use crate::execute::launch;

/// Prepared steps, which take 20 µs at most, from one question whether the run is still wanted to the next.
const OFTEN: usize = 16;

pub(super) struct Frame<'a> {
    body: &'a Body,
    table: *mut Memory,
    environment: Environment<'a>,
    /// Steps of few elements, prepared; None for the others.
    prepared: RefCell<Vec<Option<Repeated<'a>>>>,
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
            // SAFETY: a site's layout has an entry for each buffer of the body.
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
        // SAFETY: written above, of that many entries.
        let buffers = unsafe { std::slice::from_raw_parts(table, program.buffers.len()) };
        let sized = Environment { buffers, ..environment };
        let followed = |index: usize| program.steps.get(index + 1).is_some_and(|step| step.joined);
        let prepared = tables::tried(
            "run",
            program.steps.iter().enumerate().map(|(index, step)| {
                if step.joined || followed(index) { Ok(None) } else { Repeated::new(&step.kernel, &sized) }
            }),
        )?;
        Ok(Frame { body, table, environment, prepared: RefCell::new(prepared) })
    }

    pub fn body(&self) -> &'a Body {
        self.body
    }

    /// From now on the input lies there.
    pub fn place_input(&self, input: usize, pointer: *mut u8) {
        // SAFETY: an entry that `new` wrote, as the verified body's buffers are in its list; while the body runs nobody
        // comes here. An address is only noted: whoever runs the body promises what is there.
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
        let mut prepared = self.prepared.borrow_mut();
        environment.check_small()?;
        // What is prepared is short: it is asked about here, once for some steps.
        let quiet = Environment { poll: None, ..environment };
        let mut start = 0;
        while start < steps.len() {
            if let Some(prepared) = &mut prepared[start] {
                if start % OFTEN == OFTEN - 1 {
                    environment.check_small()?;
                }
                // SAFETY: the body was verified, and its buffers are laid out as it says.
                unsafe { prepared.run(&quiet)? };
                start += 1;
                continue;
            }
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
