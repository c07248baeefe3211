//! One stage of a reduction on one run: pieces that any thread takes, then what combines the parts of one result.

use ckad_graph::Result;

use super::bind::Bound;
use super::cascade::{Cascade, Columns};
use super::prepare::Prepared;
use super::run::Runner;
use super::stage::{Cut, Stage};
use crate::lanes::{LEVELS, ReduceLanes};
use crate::{Environment, Memory};

/// What a stage reads.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    Kernel { prepared: &'a Prepared, bound: &'a Bound, value: usize },
    Array(Memory),
}

/// A thread's view of an input.
enum Reader<'a> {
    Kernel(Runner<'a>, usize),
    Array(*const u8, usize),
}

impl Reader<'_> {
    /// The elements `flat..flat + n`.
    ///
    /// # Safety
    /// As for `Runner::evaluate`.
    unsafe fn read(&mut self, flat: usize, n: usize) -> *const u8 {
        match self {
            Reader::Kernel(runner, value) => {
                // SAFETY: the caller's promise.
                unsafe { runner.evaluate(flat, n) };
                runner.pointer(*value)
            }
            // SAFETY: inside the array by the caller's promise.
            Reader::Array(first, size) => unsafe { first.add(flat * *size) },
        }
    }
}
/// One stage with all it needs.
pub struct StageRun<'a> {
    pub stage: Stage,
    pub cut: Cut,
    pub lanes: &'a ReduceLanes,
    pub input: Input<'a>,
    pub item_size: usize,
    pub output: Memory,
    pub partial: Memory,
    /// Bytes of a thread's scratch ahead of the accumulators.
    pub slots: usize,
    pub environment: &'a Environment<'a>,
}

/// The part of a stage that one call works on.
#[derive(Clone, Copy)]
struct Part {
    outer: usize,
    panel: usize,
    chunk: usize,
}

impl StageRun<'_> {
    /// Number of pieces, which are independent of each other.
    pub fn pieces(&self) -> usize {
        let Cut { outers, chunks, panels, panels_of_piece, .. } = self.cut;
        self.stage.outer.div_ceil(outers) * (panels / panels_of_piece) * chunks
    }

    /// # Safety
    /// As for `crate::execute`; the scratch has the bytes of the kernel's slots and of the cut's accumulators.
    pub unsafe fn piece(&self, piece: usize, scratch: Memory) -> Result<()> {
        let Cut { outers, chunks, panels, panels_of_piece, .. } = self.cut;
        let Stage { outer, reduced, inner } = self.stage;
        let across = panels / panels_of_piece;
        let part =
            Part { outer: piece / (across * chunks) * outers, panel: piece / chunks % across, chunk: piece % chunks };
        let last = outer.min(part.outer + outers);
        let mut reader = match self.input {
            Input::Kernel { prepared, bound, value } => {
                Reader::Kernel(Runner::new(prepared, bound, scratch, prepared.total), value)
            }
            Input::Array(memory) => Reader::Array(memory.pointer, self.item_size),
        };
        // SAFETY: accumulators lie behind the slots; parts are disjoint.
        unsafe {
            let accumulators = scratch.pointer.add(self.slots);
            if reduced * inner <= self.cut.tile && chunks == 1 {
                self.small(part.outer, last, &mut reader, accumulators)
            } else if inner == 1 {
                (part.outer..last).try_for_each(|outer| self.row(Part { outer, ..part }, &mut reader))
            } else {
                (part.outer..last).try_for_each(|outer| {
                    (part.panel..part.panel + panels_of_piece)
                        .try_for_each(|panel| self.panel(Part { outer, panel, ..part }, &mut reader, accumulators))
                })
            }
        }
    }

    /// Number of combinations of partial results that are left when all pieces are done.
    pub fn combinations(&self) -> usize {
        if self.cut.chunks == 1 { 0 } else { self.stage.outer * self.cut.panels }
    }

    /// # Safety
    /// As for `piece`, after all pieces.
    pub unsafe fn combine(&self, index: usize, scratch: Memory) -> Result<()> {
        let Cut { chunks, panels, .. } = self.cut;
        let (outer, panel) = (index / panels, index % panels);
        let first = panel * self.cut.width;
        let width = self.cut.width.min(self.stage.inner - first);
        // SAFETY: partial results of the pieces; scratch of the levels that as many chunks need.
        unsafe {
            let mut cascade = Cascade::new(self.lanes, scratch.pointer.add(self.slots), width);
            for chunk in 0..chunks {
                cascade.push(self.partial_at(Part { outer, panel, chunk }));
            }
            cascade.finish(self.output_at(outer, first));
        }
        Ok(())
    }

    /// Whole outer indices of few elements: many in a tile.
    unsafe fn small(&self, first: usize, last: usize, reader: &mut Reader<'_>, scratch: *mut u8) -> Result<()> {
        let Stage { reduced, inner, .. } = self.stage;
        let each = reduced * inner;
        let at_once = (self.cut.tile / each).max(1);
        let mut outer = first;
        while outer < last {
            self.environment.next_tile()?;
            let n = at_once.min(last - outer);
            // SAFETY: the range is this piece's alone; results and scratch have room.
            unsafe {
                let source = reader.read(outer * each, n * each);
                if inner == 1 {
                    (self.lanes.rows)(self.output_at(outer, 0), source, reduced, n);
                } else {
                    for index in 0..n {
                        let mut columns = Columns::new(self.lanes, scratch, inner);
                        columns.push(source.add(index * each * self.item_size), self.item_size, reduced);
                        columns.finish(self.output_at(outer + index, 0));
                    }
                }
            }
            outer += n;
        }
        Ok(())
    }

    /// A row, or a chunk of one, in several tiles.
    unsafe fn row(&self, part: Part, reader: &mut Reader<'_>) -> Result<()> {
        let first = part.chunk * self.cut.chunk;
        let last = self.stage.reduced.min(first + self.cut.chunk);
        let mut memory = [0u64; LEVELS];
        let levels = memory.as_mut_ptr().cast::<u8>();
        let mut count = 0;
        let mut position = first;
        while position < last {
            self.environment.next_tile()?;
            let n = self.cut.tile.min(last - position);
            // SAFETY: the range is this piece's alone; there is room for all levels.
            unsafe {
                let source = reader.read(part.outer * self.stage.reduced + position, n);
                count = (self.lanes.push)(levels, count, source, n);
            }
            position += n;
        }
        let target = if self.cut.chunks == 1 { self.output_at(part.outer, 0) } else { self.partial_at(part) };
        // SAFETY: the cascade continues what the lane put in the levels.
        unsafe { Cascade::resume(self.lanes, levels, count).finish(target) };
        Ok(())
    }

    /// A panel of columns, or a chunk of its rows.
    unsafe fn panel(&self, part: Part, reader: &mut Reader<'_>, scratch: *mut u8) -> Result<()> {
        let Stage { reduced, inner, .. } = self.stage;
        let left = part.panel * self.cut.width;
        let width = self.cut.width.min(inner - left);
        let (first, last) = (part.chunk * self.cut.chunk, reduced.min((part.chunk + 1) * self.cut.chunk));
        let rows_at_once = if width == inner { (self.cut.tile / inner).max(1) } else { 1 };
        // SAFETY: the scratch is that of the layout.
        let mut columns = unsafe { Columns::new(self.lanes, scratch, width) };
        let mut row = first;
        while row < last {
            self.environment.next_tile()?;
            let rows = rows_at_once.min(last - row);
            // SAFETY: the range is this piece's alone.
            unsafe {
                let source = reader.read((part.outer * reduced + row) * inner + left, rows * width);
                columns.push(source, self.item_size, rows);
            }
            row += rows;
        }
        let target = if self.cut.chunks == 1 { self.output_at(part.outer, left) } else { self.partial_at(part) };
        // SAFETY: the target has room for the panel and is this piece's alone.
        unsafe { columns.finish(target) };
        Ok(())
    }

    fn output_at(&self, outer: usize, inner: usize) -> *mut u8 {
        let index = outer * self.stage.inner + inner;
        // Inside the results, or those rows of them that are there.
        self.output.pointer.wrapping_add(index * self.lanes.dtype.size())
    }

    /// Partial results lie as [outer, chunk, inner].
    fn partial_at(&self, part: Part) -> *mut u8 {
        let row = part.outer * self.cut.chunks + part.chunk;
        let index = row * self.stage.inner + part.panel * self.cut.width;
        // SAFETY: inside the partial results that the layout counts.
        unsafe { self.partial.pointer.add(index * self.lanes.dtype.size()) }
    }
}
