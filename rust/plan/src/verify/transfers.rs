//! Proves of a program's transfers that what comes back from the file is what was written there, and that no step
//! meets a transfer that is under way.

use std::collections::BTreeMap;

use ckad_graph::Result;

use crate::lower::joined::uses;
use crate::lower::transfers::reads;
use crate::program::{BufferId, Motion, Place, Program, Transfer};
use crate::verify::broken;

/// Transfers to the file and back, played gap by gap.
pub(crate) struct Transfers<'p> {
    program: &'p Program,
    list: Vec<Transfer>,
    /// For each buffer the first and the last step during which its bytes are its own.
    lives: Vec<(u32, u32)>,
    next: usize,
    /// By offset: how many bytes are there, once the write has ended.
    in_file: BTreeMap<u64, (usize, bool)>,
    under_way: Vec<BufferId>,
}

impl<'p> Transfers<'p> {
    /// The transfers of steps in turn, or those beside steps that run as one.
    pub fn of(program: &'p Program, joined: bool) -> Result<Transfers<'p>> {
        let (list, lives) = match joined {
            true => (program.transfers_beside_joined()?, uses(&program.steps, &program.buffers)?),
            false => {
                let lives = program.buffers.iter().map(|buffer| (buffer.first_step, buffer.last_step));
                (program.transfers.clone(), lives.collect())
            }
        };
        if list.windows(2).any(|pair| pair[0].gap > pair[1].gap) {
            return Err(broken("transfers are out of order".into()));
        }
        Ok(Transfers { program, list, lives, next: 0, in_file: BTreeMap::new(), under_way: Vec::new() })
    }

    /// Plays the transfers of a gap; `written` says which buffers may be read.
    pub fn play(&mut self, gap: usize, written: &mut [bool]) -> Result<()> {
        while let Some(transfer) = self.list.get(self.next).copied().filter(|next| next.gap as usize == gap) {
            self.next += 1;
            self.one(&transfer, written).map_err(|error| broken(format!("{transfer:?}: {}", error.what)))?;
        }
        Ok(())
    }

    /// Whether the buffer is being written to the file or read from it.
    pub fn is_under_way(&self, buffer: &BufferId) -> bool {
        self.under_way.contains(buffer)
    }

    fn one(&mut self, transfer: &Transfer, written: &mut [bool]) -> Result<()> {
        let (id, gap) = (transfer.buffer, transfer.gap);
        let buffer = self.program.buffers.get(id.0 as usize).ok_or_else(|| broken("no such buffer".into()))?;
        // A write is over before the bytes of the next step are laid out, a read begins after that.
        let step = if reads(transfer.motion) { Some(gap) } else { gap.checked_sub(1) };
        let (first, last) = self.lives[id.0 as usize];
        let alive = step.is_some_and(|step| (first..=last).contains(&step));
        if !alive || !matches!(buffer.place, Place::Arena(_) | Place::Output(_)) {
            return Err(broken("its buffer is not alive, or not in memory".into()));
        }
        let position = self.under_way.iter().position(|&other| other == id);
        let is_written = written.get_mut(id.0 as usize).ok_or_else(|| broken("no such buffer".into()))?;
        let begins = matches!(transfer.motion, Motion::BeginWrite | Motion::BeginRead);
        match position {
            None if begins => self.under_way.push(id),
            Some(position) if !begins => {
                self.under_way.swap_remove(position);
            }
            _ => return Err(broken("it begins twice, or ends before it begins".into())),
        }
        let known = self.in_file.get(&transfer.offset).copied();
        match transfer.motion {
            Motion::BeginWrite => {
                let below = self.in_file.range(..transfer.offset).next_back();
                let above = self.in_file.range(transfer.offset..).next();
                let overlaps = below.is_some_and(|(&start, &(bytes, _))| start + bytes as u64 > transfer.offset)
                    || above.is_some_and(|(&start, _)| start < transfer.offset + buffer.bytes as u64);
                if overlaps || !*is_written {
                    return Err(broken("it writes over others' bytes, or what was not computed".into()));
                }
                self.in_file.insert(transfer.offset, (buffer.bytes, false));
            }
            Motion::EndWrite => {
                self.in_file.insert(transfer.offset, (buffer.bytes, true));
            }
            Motion::BeginRead if known == Some((buffer.bytes, true)) => *is_written = false,
            Motion::BeginRead => return Err(broken("what it reads is not in the file".into())),
            Motion::EndRead => *is_written = true,
        }
        Ok(())
    }

    pub fn end(&self) -> Result<()> {
        if self.next == self.list.len() && self.under_way.is_empty() {
            return Ok(());
        }
        Err(broken("a transfer does not end, or is behind the last step".into()))
    }
}
