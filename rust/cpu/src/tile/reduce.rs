//! Kernels that end in a reduction.
//!
//! Axes of one element are dropped and neighbours of one kind joined, so that kept and reduced axes alternate. Each
//! [`Stage`] removes the innermost reduced axis: rows where it is the last axis, columns otherwise. The first stage
//! reads the kernel's tiles, later ones (a reduction over axes that are not neighbours) an array in scratch. The
//! order of combination follows from the stages, hence from extents and flags alone.

use ckad_graph::{Error, ReduceKind, Result};
use ckad_plan::program::{FusedKernel, Reduction};

use super::bind::Bound;
use super::cascade::{Cascade, Columns, ROWS, levels};
use super::for_each;
use super::load::fill;
use super::prepare::{BLOCK, Prepared};
use super::run::Runner;
use crate::lanes::{LEVELS, ReduceLanes, reduce};
use crate::{Environment, Isa, Memory};

/// `[outer, reduced, inner]` to `[outer, inner]`.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Stage {
    outer: usize,
    reduced: usize,
    inner: usize,
}

/// How a stage is cut into work.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Elements that are read at a time.
    tile: usize,
    /// Outer indices of one piece.
    outers: usize,
    /// Reduced indices of one piece: all, or a power of two of blocks.
    chunk: usize,
    chunks: usize,
    /// Inner indices of one panel.
    width: usize,
    panels: usize,
    /// Panels that are one piece: one, or all.
    panels_of_piece: usize,
}

/// Tile and piece of the stages that read an array in scratch.
const ARRAY_TILE: usize = 4 * BLOCK;
const ARRAY_PIECE: usize = 1 << 16;

/// Pieces beyond which columns are not cut along the reduced axis too.
const ENOUGH_PIECES: usize = 16;

fn stages(extents: &[usize], reduced: &[bool]) -> Vec<Stage> {
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (&extent, &reduced) in extents.iter().zip(reduced).filter(|(extent, _)| **extent != 1) {
        match groups.last_mut() {
            Some((product, kind)) if *kind == reduced => *product *= extent,
            _ => groups.push((extent, reduced)),
        }
    }
    let product = |groups: &[(usize, bool)]| groups.iter().map(|(extent, _)| extent).product();
    let mut stages = Vec::new();
    while let Some(last) = groups.iter().rposition(|(_, reduced)| *reduced) {
        let (outer, inner) = (product(&groups[..last]), product(&groups[last + 1..]));
        stages.push(Stage { outer, reduced: groups[last].0, inner });
        groups.remove(last);
    }
    if stages.is_empty() {
        stages.push(Stage { outer: 1, reduced: 1, inner: product(&groups) });
    }
    stages
}

impl Stage {
    fn results(&self) -> usize {
        self.outer * self.inner
    }

    /// What the stage makes of `rows` rows of a kernel; None if its results do not follow them.
    fn over_rows(&self, rows: usize) -> Option<OverRows> {
        match self {
            Stage { outer, inner: 1, .. } if outer.is_multiple_of(rows) => Some(OverRows::Each(outer / rows)),
            Stage { outer: 1, reduced, .. } if reduced.is_multiple_of(rows) => Some(OverRows::Sums),
            _ => None,
        }
    }

    /// As `cut`, in pieces of `height` of the `rows` rows. None if a piece is no node of the reduction's tree.
    fn cut_by_rows(&self, tile: usize, rows: usize, height: usize) -> Option<Cut> {
        let (width, panels) = self.panels(tile);
        let (outers, chunk) = match self.over_rows(rows)? {
            OverRows::Each(results) => (height * results, self.reduced),
            OverRows::Sums => {
                let (chunk, block) = (height * (self.reduced / rows), if self.inner == 1 { BLOCK } else { ROWS });
                let is_node = chunk.is_multiple_of(block) && (chunk / block).is_power_of_two();
                (1, if chunk >= self.reduced { self.reduced } else { is_node.then_some(chunk)? })
            }
        };
        Some(Cut { tile, outers, chunk, chunks: self.reduced.div_ceil(chunk), width, panels, panels_of_piece: panels })
    }

    /// Width and number of the panels that inner indices are cut into.
    fn panels(&self, tile: usize) -> (usize, usize) {
        let panels = self.inner.div_ceil(tile);
        let width = if panels == 1 { self.inner } else { self.inner.div_ceil(panels).next_multiple_of(16) };
        (width, self.inner.div_ceil(width.max(1)))
    }

    fn cut(&self, tile: usize, piece: usize) -> Cut {
        let (width, panels) = self.panels(tile);
        // The smallest power of two of blocks that makes a piece.
        let block = if self.inner == 1 { BLOCK } else { ROWS };
        let chunk = block * piece.div_ceil(block * width.max(1)).next_power_of_two();
        let chunks = self.reduced.div_ceil(chunk);
        let split = chunks > 1 && (self.inner == 1 || self.outer * panels < ENOUGH_PIECES);
        let (chunk, chunks) = if split { (chunk, chunks) } else { (self.reduced, 1) };
        let outers = if chunks > 1 || panels > 1 { 1 } else { (piece / (self.reduced * self.inner).max(1)).max(1) };
        Cut { tile, outers, chunk, chunks, width, panels, panels_of_piece: 1 }
    }
}

impl Cut {
    /// Bytes of the partial results, where the reduced axis is cut.
    fn partial_bytes(&self, stage: &Stage, size: usize) -> usize {
        if self.chunks == 1 { 0 } else { (stage.results() * self.chunks * size).next_multiple_of(64) }
    }

    /// Bytes of accumulators on each thread.
    fn thread_bytes(&self, size: usize) -> usize {
        let combine = levels(self.chunks) * self.width * size;
        Columns::bytes(self.chunk, self.width, size).max(combine).next_multiple_of(64)
    }
}

/// Scratch: the results of all stages but the last, partial results, then each thread's slots and accumulators.
struct Layout {
    stages: Vec<(Stage, Cut)>,
    result_bytes: usize,
    shared: usize,
    slots: usize,
    thread: usize,
}

impl Layout {
    fn new(kernel: &FusedKernel, reduction: &Reduction, prepared: &Prepared) -> Layout {
        let size = result_size(reduction);
        let stages: Vec<(Stage, Cut)> = stages(&kernel.extents, &reduction.reduced)
            .into_iter()
            .enumerate()
            .map(|(index, stage)| match index {
                0 => (stage, stage.cut(prepared.tile, prepared.piece)),
                _ => (stage, stage.cut(ARRAY_TILE, ARRAY_PIECE)),
            })
            .collect();
        let inner_results = &stages[..stages.len() - 1];
        let result_bytes = inner_results.iter().map(|(stage, _)| (stage.results() * size).next_multiple_of(64)).sum();
        let partial = stages.iter().map(|(stage, cut)| cut.partial_bytes(stage, size)).max().unwrap_or(0);
        let accumulators = stages.iter().map(|(_, cut)| cut.thread_bytes(size)).max().unwrap_or(0);
        let slots = prepared.thread_bytes();
        Layout { stages, result_bytes, shared: result_bytes + partial, slots, thread: slots + accumulators }
    }
}

/// What becomes of rows of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverRows {
    /// Each has so many results of its own.
    Each(usize),
    /// They are added up, and the result is there when all are done.
    Sums,
}

/// What a reduction makes of `rows` rows; None if its results do not follow them.
pub fn over_rows(kernel: &FusedKernel, reduction: &Reduction, rows: usize) -> Option<OverRows> {
    match stages(&kernel.extents, &reduction.reduced).as_slice() {
        [stage] => stage.over_rows(rows),
        _ => None,
    }
}

/// The number of rows that a reduction would have: one for each result, or for each term of every result.
pub fn natural_rows(kernel: &FusedKernel, reduction: &Reduction) -> Option<usize> {
    match stages(&kernel.extents, &reduction.reduced).as_slice() {
        [Stage { outer: 1, inner: 1, .. }] => None,
        [Stage { outer, inner: 1, .. }] => Some(*outer),
        [Stage { outer: 1, reduced, .. }] => Some(*reduced),
        _ => None,
    }
}

/// A reduction of one stage that is run by rows, piece by piece as its caller says.
#[derive(Debug)]
pub struct ByRows {
    stage: Stage,
    cut: Cut,
    size: usize,
}

impl ByRows {
    pub fn new(
        kernel: &FusedKernel,
        reduction: &Reduction,
        prepared: &Prepared,
        rows: usize,
        height: usize,
    ) -> Option<ByRows> {
        let stages = stages(&kernel.extents, &reduction.reduced);
        let [stage] = stages.as_slice() else { return None };
        let cut = stage.cut_by_rows(prepared.tile, rows, height)?;
        Some(ByRows { stage: *stage, cut, size: result_size(reduction) })
    }

    /// Bytes of partial results, which all threads share.
    pub fn shared_bytes(&self) -> usize {
        self.cut.partial_bytes(&self.stage, self.size)
    }

    /// Bytes of accumulators on each thread.
    pub fn thread_bytes(&self) -> usize {
        self.cut.thread_bytes(self.size)
    }

    /// The run over the kernel's values, with partial results at `partial`; without values, to combine these.
    pub fn bind<'a>(
        &self,
        reduction: &Reduction,
        lanes: &'a ReduceLanes,
        (prepared, bound): (&'a Prepared, Option<&'a Bound>),
        partial: Memory,
        environment: &'a Environment<'a>,
    ) -> Result<StageRun<'a>> {
        let Some(value) = prepared.reduced else { return Err(Error::internal("fused kernel", "nothing to reduce")) };
        let values = bound.map(|bound| Input::Kernel { prepared, bound, value });
        let output = environment.buffer(reduction.buffer)?;
        if output.bytes < self.stage.results() * lanes.dtype.size() {
            return Err(Error::internal("fused kernel", "a reduction is larger than its buffer"));
        }
        Ok(StageRun {
            stage: self.stage,
            cut: self.cut,
            lanes,
            input: values.unwrap_or(Input::Array(Memory::EMPTY)),
            item_size: reduction.dtype.size(),
            output,
            partial,
            slots: prepared.thread_bytes(),
            environment,
        })
    }
}

pub fn result_size(reduction: &Reduction) -> usize {
    match reduction.kind {
        ReduceKind::Any | ReduceKind::All => 1,
        _ => reduction.dtype.size(),
    }
}

pub fn scratch_bytes(kernel: &FusedKernel, reduction: &Reduction, prepared: &Prepared, threads: usize) -> usize {
    if prepared.total == 0 {
        return 0;
    }
    let layout = Layout::new(kernel, reduction, prepared);
    layout.shared + threads * layout.thread
}

/// What a stage reads.
#[derive(Clone, Copy)]
enum Input<'a> {
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

/// # Safety
/// As for `crate::execute`.
pub unsafe fn execute(
    kernel: &FusedKernel,
    reduction: &Reduction,
    prepared: &Prepared,
    bound: &Bound,
    isa: Isa,
    environment: &Environment<'_>,
) -> Result<()> {
    if reduction.reduced.len() != kernel.extents.len() {
        return Err(Error::internal("fused kernel", "a reduction needs a flag per axis"));
    }
    let Some(value) = prepared.reduced else { return Err(Error::internal("fused kernel", "nothing to reduce")) };
    let kept = kernel.extents.iter().zip(&reduction.reduced).filter(|(_, reduced)| !**reduced);
    let results: usize = kept.map(|(extent, _)| extent).product();
    let first = reduce(reduction.kind, reduction.dtype, isa);
    let target = environment.buffer(reduction.buffer)?;
    if target.bytes < results * first.dtype.size() {
        return Err(Error::internal("fused kernel", "a reduction is larger than its buffer"));
    }
    if prepared.total == 0 {
        // SAFETY: the target has room for the results.
        unsafe { fill(target.pointer, first.dtype, first.identity, results) };
        return Ok(());
    }
    let layout = Layout::new(kernel, reduction, prepared);
    let shared = environment.shared_scratch(layout.shared)?;
    let later = reduce(reduction.kind, first.dtype, isa);
    let mut input = Input::Kernel { prepared, bound, value };
    let mut item_size = reduction.dtype.size();
    let mut used = 0;
    for (index, (stage, cut)) in layout.stages.iter().enumerate() {
        let bytes = stage.results() * first.dtype.size();
        let output = if index + 1 == layout.stages.len() {
            target
        } else {
            // SAFETY: the layout counts the results of all stages but the last.
            Memory { pointer: unsafe { shared.pointer.add(used) }, bytes }
        };
        used += bytes.next_multiple_of(64);
        let run = StageRun {
            stage: *stage,
            cut: *cut,
            lanes: if index == 0 { &first } else { &later },
            input,
            item_size,
            output,
            // SAFETY: the layout counts the partial results after the stages'.
            partial: Memory { pointer: unsafe { shared.pointer.add(layout.result_bytes) }, bytes: 0 },
            slots: layout.slots,
            environment,
        };
        let scratch = || environment.thread_scratch(layout.shared, layout.thread);
        // SAFETY: the caller's promises; the layout has what a thread needs.
        for_each(run.pieces(), |piece| unsafe { run.piece(piece, scratch()?) })?;
        // SAFETY: as above; all pieces are done.
        for_each(run.combinations(), |piece| unsafe { run.combine(piece, scratch()?) })?;
        input = Input::Array(output);
        item_size = first.dtype.size();
    }
    Ok(())
}

/// One stage with all it needs.
pub struct StageRun<'a> {
    stage: Stage,
    cut: Cut,
    lanes: &'a ReduceLanes,
    input: Input<'a>,
    item_size: usize,
    output: Memory,
    partial: Memory,
    /// Bytes of a thread's scratch ahead of the accumulators.
    slots: usize,
    environment: &'a Environment<'a>,
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
            self.environment.check()?;
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
            self.environment.check()?;
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
            self.environment.check()?;
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
