//! Kernels that end in a reduction, as a whole.
//!
//! The first stage reads the kernel's tiles, later ones (a reduction over axes that are not neighbours) an array in
//! scratch.

use ckad_graph::{Error, ReduceKind, Result};
use ckad_plan::program::{FusedKernel, Reduction};

use super::bind::Bound;
use super::for_each;
use super::load::fill;
use super::prepare::{BLOCK, Prepared};
use super::stage::{Cut, Stage, stages};
use super::stage_run::{Input, StageRun};
use crate::lanes::reduce;
use crate::{Environment, Isa, Memory};

/// Tile and piece of the stages that read an array in scratch.
const ARRAY_TILE: usize = 4 * BLOCK;
const ARRAY_PIECE: usize = 1 << 16;

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
