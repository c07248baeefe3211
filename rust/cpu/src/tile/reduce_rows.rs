//! Kernels that end in a reduction and run some rows at a time, beside others (`member`).

use ckad_graph::{Error, Result};
use ckad_plan::program::{FusedKernel, Reduction};

use super::bind::Bound;
use super::cascade::ROWS;
use super::prepare::{BLOCK, Prepared};
use super::reduce::result_size;
use super::stage::{Cut, Stage, stages};
use super::stage_run::{Input, StageRun};
use crate::lanes::ReduceLanes;
use crate::{Environment, Memory};

/// What becomes of rows of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverRows {
    /// Each has so many results of its own.
    Each(usize),
    /// They are added up, and the result is there when all are done.
    Sums,
}

impl Stage {
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
