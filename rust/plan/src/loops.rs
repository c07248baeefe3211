//! Where a loop's own bytes lie in a kernel's scratch: its bodies' arenas and scratch, carries that have no place among
//! the results, and tables of the bodies' buffers. `lower` counts them, an executor uses them: one place says how many
//! there are.

use ckad_graph::{CallKind, Result};

use crate::program::{LoopKernel, Source};
use crate::tables::{push, room};

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
    /// For each body, where its buffers are now.
    pub tables: Vec<Piece>,
    /// The index of the iteration, or what a test says.
    pub index: Piece,
    /// Operands that are numbers, one after the other, 8 bytes each.
    pub scalars: Piece,
    /// Results of an iteration that nobody keeps.
    pub unread: Piece,
    pub carries: Vec<CarryLayout>,
    /// Where the other loop's carries go when states are computed anew: two places each.
    pub ahead: Vec<[Piece; 2]>,
    /// Slots that are not given up are copied: by carry of the other loop.
    pub slots: Vec<Option<Piece>>,
    /// One body runs at a time.
    pub arena: Piece,
    /// What the bodies' kernels use.
    pub scratch: Piece,
    pub bytes: usize,
}

impl LoopLayout {
    /// Bytes of its lists.
    pub fn own_bytes(&self) -> usize {
        self.tables.capacity() * size_of::<Piece>()
            + self.carries.capacity() * size_of::<CarryLayout>()
            + self.ahead.capacity() * size_of::<[Piece; 2]>()
            + self.slots.capacity() * size_of::<Option<Piece>>()
    }

    fn add(&mut self, bytes: usize) -> Piece {
        let piece = Piece { offset: self.bytes, bytes };
        self.bytes += bytes.next_multiple_of(ALIGNMENT);
        piece
    }

    /// Two places, or one that is both where a carry is written over itself.
    fn two(&mut self, bytes: usize, in_place: bool) -> [Piece; 2] {
        let one = self.add(bytes);
        [one, if in_place { one } else { self.add(bytes) }]
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
    /// Is the part a result?
    pub fn is_stored(&self, part: usize) -> bool {
        self.results.get(part).is_some_and(Option::is_some)
    }

    /// Its layout, which is kept in it.
    pub fn laid_out(&self) -> Result<LoopLayout> {
        // As long as they are: a program keeps a layout for each of its loops.
        let mut layout = LoopLayout { tables: room(self.bodies.len())?, ..LoopLayout::default() };
        for body in &self.bodies {
            let table = layout.add(body.program.buffers.len() * TABLE_ENTRY);
            push(&mut layout.tables, table)?;
        }
        layout.index = layout.add(size_of::<i64>());
        let scalars = self.operands.iter().filter(|operand| !matches!(operand.source, Source::Buffer(_))).count();
        layout.scalars = layout.add(scalars * size_of::<u64>());
        match self.kind {
            CallKind::Scan(scan) => {
                let all_states = |carry: usize| scan.slots == 0 && self.is_stored(scan.states(carry) as usize);
                self.add_carries(&mut layout, 0, scan.carries, |carry| scan.trips > 1 && !all_states(carry))?;
                self.add_unread(&mut layout, scan.carries, scan.ys);
            }
            CallKind::Reverse(reverse) => {
                let scan = reverse.scan;
                self.add_carries(&mut layout, 0, scan.carries, |_| scan.trips > 1)?;
                self.add_unread(&mut layout, scan.carries, scan.ys);
                for carry in 0..reverse.carries as usize {
                    let body = &self.bodies[1];
                    let bytes = body.output_bytes(carry);
                    let two = layout.two(bytes, body.in_place[carry]);
                    push(&mut layout.ahead, two)?;
                    let given_up = self.given_up[reverse.first_slots() + carry];
                    let copy = (!given_up).then(|| layout.add(bytes * (reverse.slots as usize + 1)));
                    push(&mut layout.slots, copy)?;
                }
            }
            CallKind::Rewind(rewind) => {
                self.add_carries(&mut layout, 0, rewind.carries, |_| true)?;
                for carry in 0..rewind.other_carries as usize {
                    let body = &self.bodies[1];
                    let bytes = body.output_bytes(carry);
                    let two = layout.two(bytes, body.in_place[carry]);
                    push(&mut layout.ahead, two)?;
                    let given_up = self.given_up[rewind.first_slots() + carry];
                    let copy = (!given_up).then(|| layout.add(bytes * rewind.slots as usize));
                    push(&mut layout.slots, copy)?;
                }
            }
            CallKind::While(looped) => self.add_carries(&mut layout, 1, looped.carries, |_| true)?,
            CallKind::Branch(branch) => self.add_unread(&mut layout, 0, branch.results),
            // No kernel is made of them.
            CallKind::Custom(_) | CallKind::Pullback(_) => {}
        }
        let programs = || self.bodies.iter().map(|body| &body.program);
        layout.arena = layout.add(programs().map(|program| program.arena_bytes).max().unwrap_or(0));
        layout.scratch = layout.add(programs().map(|program| program.scratch_bytes).max().unwrap_or(0));
        Ok(layout)
    }

    fn add_carries(
        &self,
        layout: &mut LoopLayout,
        body: usize,
        carries: u32,
        alternates: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let body = &self.bodies[body];
        layout.carries = room(carries as usize)?;
        for carry in 0..carries as usize {
            let bytes = body.output_bytes(carry);
            let last = (!self.is_stored(carry)).then(|| layout.add(bytes));
            let other = (alternates(carry) && !body.in_place[carry]).then(|| layout.add(bytes));
            push(&mut layout.carries, CarryLayout { last, other })?;
        }
        Ok(())
    }

    /// Room for any of the parts from the first on that nobody asks for.
    fn add_unread(&self, layout: &mut LoopLayout, first: u32, count: u32) {
        let parts = first as usize..(first + count) as usize;
        let unread = parts.filter(|&part| !self.is_stored(part)).map(|part| self.bodies[0].output_bytes(part));
        layout.unread = layout.add(unread.max().unwrap_or(0));
    }

    /// Bytes of scratch.
    pub fn scratch_bytes(&self) -> usize {
        self.layout.bytes
    }
}
