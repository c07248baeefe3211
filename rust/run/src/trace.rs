//! What a run held, step by step.

use ckad_graph::NodeId;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceEntry {
    /// The node whose line names the step.
    pub node: NodeId,
    /// Bytes of values alive during the step, outputs from when they are first written.
    pub live_bytes: u64,
}

/// Live bytes at each step. Where buffers are allocated separately they are measured, otherwise they are the program's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryTrace {
    pub entries: Vec<TraceEntry>,
    pub measured: bool,
}

impl MemoryTrace {
    /// The most bytes alive at once, and the step at which they first were.
    pub fn peak(&self) -> Option<(usize, TraceEntry)> {
        // `max_by_key` keeps the last of equals, so the walk is backwards.
        self.entries.iter().copied().enumerate().rev().max_by_key(|(_, entry)| entry.live_bytes)
    }
}
