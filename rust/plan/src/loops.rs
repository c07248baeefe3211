//! Where a loop's own bytes lie in a kernel's scratch: the body's arena and scratch, carries that have no place among
//! the results, and the table of the body's buffers. `lower` counts them, an executor uses them: one place says how
//! many there are.

use crate::program::{LoopKernel, Source};

/// An address and a length, as an executor notes where a buffer is.
const TABLE_ENTRY: usize = 2 * size_of::<usize>();
const ALIGNMENT: usize = 64;

/// Bytes from `offset` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    pub offset: usize,
    pub bytes: usize,
}

/// Offsets in the scratch of a loop.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoopLayout {
    /// Where the body's buffers are now.
    pub table: Piece,
    /// The index of the iteration.
    pub index: Piece,
    /// Operands that are numbers, one after the other, 8 bytes each.
    pub scalars: Piece,
    /// Results of an iteration that nobody keeps.
    pub unread: Piece,
    pub arena: Piece,
    /// What the body's kernels use.
    pub scratch: Piece,
    pub bytes: usize,
}

impl LoopLayout {
    fn add(&mut self, bytes: usize) -> Piece {
        let piece = Piece { offset: self.bytes, bytes };
        self.bytes += bytes.next_multiple_of(ALIGNMENT);
        piece
    }
}

/// The places of a carry between iterations, beside the stack of its states where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CarryLayout {
    /// Where the last one is, unless it is a result.
    pub last: Option<Piece>,
    /// Where every other one is.
    pub other: Option<Piece>,
}

impl LoopKernel {
    /// The result that the part is.
    pub fn is_stored(&self, part: u32) -> bool {
        self.results.get(part as usize).is_some_and(Option::is_some)
    }

    /// The layout, which says of each carry where it is.
    pub fn layout(&self, mut carry: impl FnMut(CarryLayout)) -> LoopLayout {
        let program = &self.body.program;
        let bytes = |output: usize| program.buffers[self.body.outputs[output].0 as usize].bytes;
        let mut layout = LoopLayout::default();
        layout.table = layout.add(program.buffers.len() * TABLE_ENTRY);
        layout.index = layout.add(size_of::<i64>());
        let scalars = self.operands.iter().filter(|operand| !matches!(operand.source, Source::Buffer(_))).count();
        layout.scalars = layout.add(scalars * size_of::<u64>());
        let carries = self.scan.carries as usize;
        for index in 0..carries {
            let last = (!self.is_stored(index as u32)).then(|| layout.add(bytes(index)));
            let stacked = self.is_stored(self.scan.states(index));
            let alternates = !stacked && !self.body.in_place[index] && self.scan.trips > 1;
            carry(CarryLayout { last, other: alternates.then(|| layout.add(bytes(index))) });
        }
        let unread = (carries..carries + self.scan.ys as usize).filter(|&part| !self.is_stored(part as u32)).map(bytes);
        layout.unread = layout.add(unread.max().unwrap_or(0));
        layout.arena = layout.add(program.arena_bytes);
        layout.scratch = layout.add(program.scratch_bytes);
        layout
    }

    /// Bytes of scratch.
    pub fn scratch_bytes(&self) -> usize {
        self.layout(|_| ()).bytes
    }
}
