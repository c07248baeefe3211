//! Buffers of a program under construction: who holds which bytes, from which step to which.
//!
//! A value (a node's array between its `Compute` and its `Free`) holds one buffer. Values that take over each
//! other's bytes in turn, as a chain of overwrites does, hold one buffer together; it lives from the first one's
//! birth to the last one's end, and where the last is an output it is the output's own allocation from the start.

use ckad_graph::{Error, Graph, NodeId, Op, Result};

use crate::allocate::{Lifetime, allocate};
use crate::lower::joined::uses;
use crate::program::{Buffer, BufferId, Place, Source, Step};
use crate::tables::{collected, filled, push, room};

const NONE: u32 = u32::MAX;

/// The table of buffers, and for each node the buffer that holds its value now.
pub(crate) struct Buffers<'g> {
    graph: &'g Graph,
    buffers: Vec<Buffer>,
    /// Number of live values that hold the buffer.
    holders: Vec<u32>,
    current: Vec<u32>,
}

impl<'g> Buffers<'g> {
    /// Inputs and captured arrays have theirs from the beginning. `values` is the number of values to make room for.
    pub fn new(graph: &'g Graph, values: usize) -> Result<Buffers<'g>> {
        let current = filled(NONE, graph.len())?;
        let values = graph.inputs.len() + values;
        let mut table = Buffers { graph, buffers: room(values)?, holders: room(values)?, current };
        let mut exists = |id: NodeId, place: Place| {
            let buffer = table.add(id, place, 0)?;
            table.hold(id, buffer);
            Ok(())
        };
        if graph.constants.is_empty() {
            graph.inputs.iter().zip(0..).try_for_each(|(&id, index)| exists(id, Place::Input(index)))?;
            return Ok(table);
        }
        for id in graph.ids() {
            match graph.op(id) {
                Op::Input(index) => exists(id, Place::Input(index))?,
                Op::Constant(index) => exists(id, Place::Constant(index))?,
                _ => {}
            }
        }
        Ok(table)
    }

    fn add(&mut self, node: NodeId, place: Place, first_step: usize) -> Result<BufferId> {
        let too_many = |_| Error::internal("lower", "more than 2³² buffers or steps");
        let id = BufferId(u32::try_from(self.buffers.len()).map_err(too_many)?);
        let first_step = u32::try_from(first_step).map_err(too_many)?;
        let bytes = self.graph.bytes(node);
        let dtype = self.graph.dtype(node);
        push(&mut self.buffers, Buffer { place, bytes, dtype, first_step, last_step: NONE, node })?;
        push(&mut self.holders, 0)?;
        Ok(id)
    }

    /// New bytes in the arena for `node`, from `step` on. Nobody holds them yet.
    pub fn create(&mut self, node: NodeId, step: usize) -> Result<BufferId> {
        self.add(node, Place::Arena(0), step)
    }

    /// From now on `buffer` holds the value of `node`.
    pub fn hold(&mut self, node: NodeId, buffer: BufferId) {
        self.current[node.index()] = buffer.0;
        self.holders[buffer.0 as usize] += 1;
    }

    /// The buffer that holds `node` now.
    pub fn of(&self, node: NodeId) -> Option<BufferId> {
        Some(self.current[node.index()]).filter(|&buffer| buffer != NONE).map(BufferId)
    }

    /// Number of elements in `buffer`.
    pub fn elements(&self, buffer: BufferId) -> usize {
        self.graph.elements(self.buffers[buffer.0 as usize].node)
    }

    /// Where the value of `node` can be read now, if it exists outside of registers.
    pub fn source(&self, node: NodeId) -> Option<Source> {
        match self.graph.op(node) {
            Op::Literal(bits) => Some(Source::Literal(bits)),
            Op::Scalar(index) => Some(Source::Scalar(index)),
            _ => self.of(node).map(Source::Buffer),
        }
    }

    /// Whether `node` alone holds its bytes, and they may be written.
    pub fn is_sole_owner(&self, node: NodeId) -> bool {
        self.of(node).is_some_and(|BufferId(buffer)| {
            self.holders[buffer as usize] == 1
                && matches!(self.buffers[buffer as usize].place, Place::Arena(_) | Place::Output(_))
        })
    }

    /// Whether `node` alone holds its bytes, and they are in the arena.
    pub fn is_in_arena_alone(&self, node: NodeId) -> bool {
        let in_arena = |BufferId(buffer): BufferId| matches!(self.buffers[buffer as usize].place, Place::Arena(_));
        self.is_sole_owner(node) && self.of(node).is_some_and(in_arena)
    }

    /// Ends the value of `node` before step `next`.
    pub fn free(&mut self, node: NodeId, next: usize) -> Result<()> {
        let Some(BufferId(buffer)) = self.of(node) else {
            return Err(Error::internal("lower", format!("%{} is freed but not live", node.0)));
        };
        self.current[node.index()] = NONE;
        self.holders[buffer as usize] -= 1;
        if self.holders[buffer as usize] == 0 {
            let buffer = &mut self.buffers[buffer as usize];
            buffer.last_step = (next.saturating_sub(1) as u32).max(buffer.first_step);
        }
        Ok(())
    }

    /// Makes the buffer of `node` the `output`-th output's allocation, if nothing else has a claim to it.
    pub fn claim_output(&mut self, node: NodeId, output: u32) -> bool {
        let Some(BufferId(buffer)) = self.of(node) else { return false };
        let buffer = &mut self.buffers[buffer as usize];
        let free = matches!(buffer.place, Place::Arena(_)) && buffer.bytes == self.graph.bytes(node);
        if free {
            buffer.place = Place::Output(output);
        }
        free
    }

    /// New bytes that are the `output`-th output, for a copy of `node`'s value.
    pub fn create_output(&mut self, node: NodeId, output: u32, step: usize) -> Result<BufferId> {
        self.add(node, Place::Output(output), step)
    }

    /// The buffers with their lives, after so many steps; those of the arena are still to be placed.
    pub fn finish(mut self, steps: usize) -> Vec<Buffer> {
        let last = steps.saturating_sub(1) as u32;
        for buffer in &mut self.buffers {
            buffer.last_step = buffer.last_step.min(last);
            buffer.first_step = buffer.first_step.min(buffer.last_step);
        }
        self.buffers
    }
}

/// Gives buffers their places in the arena; its bytes.
pub(crate) fn place(steps: &[Step], buffers: &mut [Buffer], alignment: usize) -> Result<usize> {
    let uses = uses(steps, buffers)?;
    let in_arena = buffers.iter().zip(&uses).filter(|(buffer, _)| matches!(buffer.place, Place::Arena(_)));
    let lifetimes = in_arena.map(|(buffer, &(first, last))| Lifetime { first, last, bytes: buffer.bytes });
    let arena = allocate(&collected(lifetimes)?, alignment)?;
    let in_arena = buffers.iter_mut().filter(|buffer| matches!(buffer.place, Place::Arena(_)));
    for (buffer, &offset) in in_arena.zip(&arena.offsets) {
        buffer.place = Place::Arena(offset);
    }
    Ok(arena.bytes)
}
