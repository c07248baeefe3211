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
use super::run::{Producer, Runner};
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

    /// The cut of the first stage.
    fn cut_of(&self, prepared: &Prepared) -> Cut {
        match prepared.by_rows {
            Some(rows) => self.cut_by_rows(prepared.tile, rows.height),
            None => self.cut(prepared.tile, prepared.piece),
        }
    }

    /// Whether pieces are whole rows of `width` elements: each has a result of its own, or they are added up.
    fn goes_by_rows(&self, width: usize) -> bool {
        self.inner == 1 && self.reduced == width || self.inner == width && self.outer == 1
    }

    /// As `cut`, in pieces of `height` rows that have all their columns.
    fn cut_by_rows(&self, tile: usize, height: usize) -> Cut {
        let (width, panels) = self.panels(tile);
        let (outers, chunk) = if self.inner == 1 { (height, self.reduced) } else { (1, height.min(self.reduced)) };
        Cut { tile, outers, chunk, chunks: self.reduced.div_ceil(chunk), width, panels, panels_of_piece: panels }
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
        let size = match reduction.kind {
            ReduceKind::Any | ReduceKind::All => 1,
            _ => reduction.dtype.size(),
        };
        let stages: Vec<(Stage, Cut)> = stages(&kernel.extents, &reduction.reduced)
            .into_iter()
            .enumerate()
            .map(|(index, stage)| match index {
                0 => (stage, stage.cut_of(prepared)),
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

/// Whether the reduction of a kernel can run over rows of `width` elements as they are computed.
pub fn goes_by_rows(kernel: &FusedKernel, reduction: &Reduction, width: usize) -> bool {
    stages(&kernel.extents, &reduction.reduced)[0].goes_by_rows(width)
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
    Kernel { prepared: &'a Prepared, producer: Option<&'a Producer<'a>>, bound: &'a Bound, value: usize },
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
    producer: Option<&Producer<'_>>,
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
    let mut input = Input::Kernel { prepared, producer, bound, value };
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
            layout: &layout,
            environment,
        };
        // SAFETY: the caller's promises.
        unsafe { run.execute()? };
        input = Input::Array(output);
        item_size = first.dtype.size();
    }
    Ok(())
}

/// One stage with all it needs.
struct StageRun<'a> {
    stage: Stage,
    cut: Cut,
    lanes: &'a ReduceLanes,
    input: Input<'a>,
    item_size: usize,
    output: Memory,
    partial: Memory,
    layout: &'a Layout,
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
    /// # Safety
    /// As for `crate::execute`.
    unsafe fn execute(&self) -> Result<()> {
        let Cut { outers, chunk, chunks, panels, panels_of_piece, .. } = self.cut;
        let Stage { outer, reduced, inner } = self.stage;
        let across = panels / panels_of_piece;
        let pieces = outer.div_ceil(outers) * across * chunks;
        for_each(pieces, |piece| {
            let part = Part {
                outer: piece / (across * chunks) * outers,
                panel: piece / chunks % across,
                chunk: piece % chunks,
            };
            let last = outer.min(part.outer + outers);
            let scratch = self.environment.thread_scratch(self.layout.shared, self.layout.thread)?;
            let mut reader = match self.input {
                Input::Kernel { prepared, producer, bound, value } => {
                    let mut runner = Runner::new(prepared, bound, scratch, prepared.total);
                    let first = (part.outer * reduced + part.chunk * chunk) * inner;
                    let behind = ((last - 1) * reduced + reduced.min((part.chunk + 1) * chunk)) * inner;
                    runner.await_rows(first..behind, producer)?;
                    Reader::Kernel(runner, value)
                }
                Input::Array(memory) => Reader::Array(memory.pointer, self.item_size),
            };
            // SAFETY: the layout puts accumulators behind the slots; parts are disjoint.
            unsafe {
                let accumulators = scratch.pointer.add(self.layout.slots);
                if reduced * inner <= self.cut.tile {
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
        })?;
        if chunks == 1 {
            return Ok(());
        }
        for_each(outer * panels, |piece| {
            let scratch = self.environment.thread_scratch(self.layout.shared, self.layout.thread)?;
            let (outer, panel) = (piece / panels, piece % panels);
            let first = panel * self.cut.width;
            let width = self.cut.width.min(inner - first);
            // SAFETY: partial results of the loop above; scratch of the levels that as many chunks need.
            unsafe {
                let mut cascade = Cascade::new(self.lanes, scratch.pointer.add(self.layout.slots), width);
                for chunk in 0..chunks {
                    cascade.push(self.partial_at(Part { outer, panel, chunk }));
                }
                cascade.finish(self.output_at(outer, first));
            }
            Ok(())
        })
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
        // SAFETY: inside the results.
        unsafe { self.output.pointer.add(index * self.lanes.dtype.size()) }
    }

    /// Partial results lie as [outer, chunk, inner].
    fn partial_at(&self, part: Part) -> *mut u8 {
        let row = part.outer * self.cut.chunks + part.chunk;
        let index = row * self.stage.inner + part.panel * self.cut.width;
        // SAFETY: inside the partial results that the layout counts.
        unsafe { self.partial.pointer.add(index * self.lanes.dtype.size()) }
    }
}
