//! A fused kernel that runs rows at a time, beside others that make or read the same rows (`joined`).
//!
//! A *row* is one of equally many runs of consecutive elements that the iteration is cut into. What a kernel makes of a
//! row has its place in the row of a result, or is added up over all of them.

use ckad_graph::{Error, Result};
use ckad_plan::program::{BufferId, FusedKernel, Load, Source};

use super::bind::Bound;
use super::prepare::{Prepared, Spread, spread};
use super::reduce::result_size;
use super::reduce_rows::{ByRows, OverRows, natural_rows, over_rows};
use super::{evaluate, small};
use crate::lanes::{ReduceLanes, reduce as reduce_lanes};
use crate::{Environment, Isa, Memory};

/// A kernel cut into blocks of rows.
#[derive(Debug)]
pub struct Member<'a> {
    kernel: &'a FusedKernel,
    prepared: Prepared,
    /// The reduction with its lanes, where there is one.
    reduction: Option<(ByRows, ReduceLanes)>,
    isa: Isa,
    /// Elements of a block.
    block: usize,
}

/// A result of a kernel over rows: its buffer, and its bytes for each row; None where rows are added up.
pub type RowResult = (BufferId, Option<usize>);

impl<'a> Member<'a> {
    /// What the kernel makes of `rows` rows, by result; None if it does not go by them.
    pub fn results(kernel: &FusedKernel, rows: usize) -> Option<Vec<RowResult>> {
        let total: usize = kernel.extents.iter().product();
        if total == 0 || !total.is_multiple_of(rows) {
            return None;
        }
        let stored = |size: usize| Some(total / rows * size);
        let mut results: Vec<RowResult> =
            kernel.stores.iter().map(|store| (store.buffer, stored(store.dtype.size()))).collect();
        if let Some(reduction) = &kernel.reduce {
            results.push(match over_rows(kernel, reduction, rows)? {
                OverRows::Each(count) => (reduction.buffer, Some(count * result_size(reduction))),
                OverRows::Sums => (reduction.buffer, None),
            });
        }
        Some(results)
    }

    /// The number of rows that the kernel's shape or reduction suggests; None where any will do.
    pub fn natural_rows(kernel: &FusedKernel) -> Option<usize> {
        match (&kernel.reduce, kernel.extents.as_slice()) {
            (Some(reduction), _) => natural_rows(kernel, reduction),
            (None, [leading @ .., _]) if !leading.is_empty() => Some(leading.iter().product()),
            _ => None,
        }
    }

    /// Whether the kernel is so small that it is run by itself, on no scratch.
    pub fn is_small(kernel: &FusedKernel) -> bool {
        small::elements(kernel).is_some()
    }

    /// The kernel in blocks of `height` of its `rows` rows; None if these are no nodes of its reduction's tree.
    pub fn new(kernel: &'a FusedKernel, rows: usize, height: usize, isa: Isa) -> Option<Member<'a>> {
        let prepared = Prepared::new(kernel).ok()?;
        let reduction = match &kernel.reduce {
            None => None,
            Some(reduction) => {
                let by_rows = ByRows::new(kernel, reduction, &prepared, rows, height)?;
                Some((by_rows, reduce_lanes(reduction.kind, reduction.dtype, isa)))
            }
        };
        let block = prepared.total / rows * height;
        Some(Member { kernel, prepared, reduction, isa, block })
    }

    /// Number of tiles of a block, more or less.
    pub fn tiles(&self) -> usize {
        self.block.div_ceil(self.prepared.tile)
    }

    /// Bytes of scratch that all threads share, until the member is finished.
    pub fn shared_bytes(&self) -> usize {
        self.reduction.as_ref().map_or(0, |(by_rows, _)| by_rows.shared_bytes())
    }

    /// Bytes of scratch of a thread, while a block is worked on.
    pub fn thread_bytes(&self) -> usize {
        self.prepared.thread_bytes() + self.reduction.as_ref().map_or(0, |(by_rows, _)| by_rows.thread_bytes())
    }

    /// Evaluates the `index`-th block.
    ///
    /// # Safety
    /// As for `crate::execute`, of these rows; `shared` and `scratch` have the bytes asked for.
    pub unsafe fn run(
        &self,
        index: usize,
        shared: Memory,
        scratch: Memory,
        environment: &Environment<'_>,
    ) -> Result<()> {
        let bound = Bound::new(self.kernel, &self.prepared, self.isa, environment)?;
        let Some((by_rows, lanes)) = &self.reduction else {
            let range = index * self.block..self.prepared.total.min((index + 1) * self.block);
            // SAFETY: the caller's promises.
            return unsafe { evaluate(&self.prepared, &bound, range, scratch, environment) };
        };
        let run = by_rows.bind(self.reduced()?, lanes, (&self.prepared, Some(&bound)), shared, environment)?;
        // SAFETY: the caller's promises.
        unsafe { run.piece(index, scratch) }
    }

    /// Adds up what the blocks left, after all of them.
    ///
    /// # Safety
    /// As for `run`.
    pub unsafe fn finish(&self, shared: Memory, scratch: Memory, environment: &Environment<'_>) -> Result<()> {
        let Some((by_rows, lanes)) = &self.reduction else { return Ok(()) };
        if self.shared_bytes() == 0 {
            return Ok(());
        }
        let run = by_rows.bind(self.reduced()?, lanes, (&self.prepared, None), shared, environment)?;
        // SAFETY: the caller's promises.
        (0..run.combinations()).try_for_each(|index| unsafe { run.combine(index, scratch) })
    }

    fn reduced(&self) -> Result<&'a ckad_plan::program::Reduction> {
        self.kernel.reduce.as_ref().ok_or_else(|| Error::internal("fused kernel", "nothing to reduce"))
    }
}

/// Whether a load takes of each of `rows` rows of its iteration the elements of the same row of its buffer, which has
/// `row_bytes` for each.
pub fn reads_by_rows(load: &Load, extents: &[usize], rows: usize, row_bytes: usize) -> bool {
    let size = load.dtype.size();
    let total: usize = extents.iter().product();
    if !matches!(load.source, Source::Buffer(_)) || !load.starts.is_empty() || !row_bytes.is_multiple_of(size) {
        return false;
    }
    let width = (row_bytes / size) as i64;
    if spread(load, extents) == Spread::InOrder {
        return load.offset == 0 && total == rows * width as usize;
    }
    // The leading axes count the rows.
    let mut counted = 1;
    let Some(leading) = (0..=extents.len()).find(|&axes| {
        counted = extents[..axes].iter().product::<usize>();
        counted >= rows
    }) else {
        return false;
    };
    let mut expected = width;
    for (&stride, &extent) in load.strides[..leading].iter().zip(&extents[..leading]).rev() {
        if extent != 1 && stride != expected {
            return false;
        }
        expected = expected.saturating_mul(extent as i64);
    }
    // The others stay inside a row.
    let (mut lowest, mut highest) = (load.offset, load.offset);
    for (&stride, &extent) in load.strides[leading..].iter().zip(&extents[leading..]) {
        let reach = stride.saturating_mul(extent as i64 - 1);
        lowest = lowest.saturating_add(reach.min(0));
        highest = highest.saturating_add(reach.max(0));
    }
    counted == rows && lowest >= 0 && highest < width
}
