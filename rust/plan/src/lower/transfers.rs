//! Values that wait in a file: between which steps each transfer begins and ends.
//!
//! A schedule says when to begin. A transfer ends as late as it can: a write before its bytes are used again, a read
//! before the step that needs it.

use ckad_graph::{Error, NodeId, Result};
use rustc_hash::FxHashMap;

use crate::lower::joined::MOST_STEPS;
use crate::program::{BufferId, Motion, Program, Transfer};
use crate::tables::{collected, filled, push};

/// Alignment of values in the file, bytes: that of pages.
const ALIGNMENT: u64 = 4096;

/// The transfers of a program under construction.
#[derive(Default)]
pub(crate) struct Transfers {
    list: Vec<Transfer>,
    /// Where each value that was ever stored is in the file. A value that is computed again has the same bytes.
    offsets: FxHashMap<NodeId, u64>,
    end_of_file: u64,
    writing: Vec<(NodeId, BufferId)>,
    reading: Vec<(NodeId, BufferId)>,
}

impl Transfers {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn note(&mut self, motion: Motion, node: NodeId, buffer: BufferId, step: usize) -> Result<()> {
        let offset = *self.offsets.get(&node).ok_or_else(|| missing(node))?;
        push(&mut self.list, Transfer { gap: step as u32, motion, buffer, offset })
    }

    /// Begins to write `node`, which `buffer` holds, before step `step`.
    pub fn store(&mut self, node: NodeId, buffer: BufferId, bytes: usize, step: usize) -> Result<()> {
        if self.offsets.contains_key(&node) {
            return Ok(());
        }
        self.offsets.insert(node, self.end_of_file);
        self.end_of_file = (self.end_of_file + bytes as u64).next_multiple_of(ALIGNMENT);
        push(&mut self.writing, (node, buffer))?;
        self.note(Motion::BeginWrite, node, buffer, step)
    }

    /// Begins to read `node` into `buffer` before step `step`.
    pub fn load(&mut self, node: NodeId, buffer: BufferId, step: usize) -> Result<()> {
        self.written(node, step)?;
        push(&mut self.reading, (node, buffer))?;
        self.note(Motion::BeginRead, node, buffer, step)
    }

    /// Ends what is under way with `node`, of which step `step` uses the value.
    pub fn read(&mut self, node: NodeId, step: usize) -> Result<()> {
        match self.reading.iter().position(|&(other, _)| other == node) {
            Some(found) => {
                let (_, buffer) = self.reading.swap_remove(found);
                self.note(Motion::EndRead, node, buffer, step)
            }
            None => Ok(()),
        }
    }

    /// Ends what is under way with `node`, whose bytes are written by step `step` or freed before it.
    pub fn written(&mut self, node: NodeId, step: usize) -> Result<()> {
        self.read(node, step)?;
        match self.writing.iter().position(|&(other, _)| other == node) {
            Some(found) => {
                let (_, buffer) = self.writing.swap_remove(found);
                self.note(Motion::EndWrite, node, buffer, step)
            }
            None => Ok(()),
        }
    }

    /// What the transfers ask of steps that are to be joined.
    pub fn asked(&self, buffers: usize) -> Result<Asked> {
        let mut asked =
            Asked { whole: filled(false, if self.list.is_empty() { 0 } else { buffers })?, apart: Vec::new() };
        let mut written: FxHashMap<u64, u32> = FxHashMap::default();
        for transfer in &self.list {
            asked.whole[transfer.buffer.0 as usize] = true;
            match transfer.motion {
                Motion::EndWrite => drop(written.insert(transfer.offset, transfer.gap)),
                Motion::BeginRead => {
                    let end = written.get(&transfer.offset).copied();
                    if let Some(end) = end.filter(|&end| transfer.gap - end < MOST_STEPS as u32) {
                        push(&mut asked.apart, (end, transfer.gap))?;
                    }
                }
                Motion::BeginWrite | Motion::EndRead => {}
            }
        }
        Ok(asked)
    }

    /// All transfers, in order.
    pub fn finish(mut self) -> Vec<Transfer> {
        sort(&mut self.list);
        self.list
    }
}

/// In the order of gaps; in one gap first what is written.
fn sort(transfers: &mut [Transfer]) {
    transfers.sort_by_key(|transfer| (transfer.gap, reads(transfer.motion)));
}

impl Program {
    /// The transfers where joined steps run as one: what would happen among them happens before all of them if it
    /// reads from the file, behind them if it writes.
    pub fn transfers_beside_joined(&self) -> Result<Vec<Transfer>> {
        let joined = |gap: usize| self.steps.get(gap).is_some_and(|step| step.joined);
        let mut list = collected(self.transfers.iter().copied())?;
        for transfer in &mut list {
            let gap = transfer.gap as usize;
            let outside = match reads(transfer.motion) {
                true => (0..=gap).rev().find(|&gap| !joined(gap)),
                false => (gap..=self.steps.len()).find(|&gap| !joined(gap)),
            };
            transfer.gap = outside.map_or(transfer.gap, |outside| outside as u32);
        }
        sort(&mut list);
        Ok(list)
    }
}

/// What transfers ask of steps that are to be joined.
#[derive(Default)]
pub(crate) struct Asked {
    /// For each buffer, whether the file has its bytes: then they lie in memory as a whole. Empty where none does.
    whole: Vec<bool>,
    /// Gaps in which a write ends and the same bytes begin to be read: not among the same joined steps, which would
    /// have the one happen behind them and the other before.
    apart: Vec<(u32, u32)>,
}

impl Asked {
    pub fn lies_whole(&self, buffer: BufferId) -> bool {
        self.whole.get(buffer.0 as usize) == Some(&true)
    }

    /// May steps `start` to `end` run as one?
    pub fn allows(&self, start: usize, end: usize) -> bool {
        !self.apart.iter().any(|&(written, read)| start < written as usize && read as usize <= end)
    }
}

/// Whether the motion is part of a read.
pub(crate) fn reads(motion: Motion) -> bool {
    matches!(motion, Motion::BeginRead | Motion::EndRead)
}

fn missing(node: NodeId) -> Error {
    Error::internal("lower", format!("%{} is loaded, but was not stored", node.0))
}
