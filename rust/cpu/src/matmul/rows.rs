//! A product whose rows are computed when somebody asks: for a kernel that consumes them while they are in cache.

use std::ops::Range;

use ckad_graph::{DType, Result};

use super::panels::{self, FEW_PANELS};
use super::{Call, Matrices, Plan, Route, absorb, pack};
use crate::Environment;
use crate::isa::isa;
use crate::structural::array::Array;
use crate::structural::number::Float;
use crate::structural::parallel::Shared;

/// Bytes of rows that stay in L2 beside the packed part of B.
const BLOCK_BYTES: usize = 1 << 19;
/// Rows of a block, most to fewest. B is packed once for each block, so few rows are dear. Powers of two of the rows
/// that a reduction adds up at a time: a block is then a node of its tree.
const HEIGHTS: [usize; 4] = [512, 256, 128, 64];

/// A product that can be had by rows: one matrix, by the library, its depth in one piece, with enough blocks of whole
/// rows to keep as many threads busy as panels would.
#[derive(Debug)]
pub struct Rows {
    plan: Plan,
    dtype: DType,
    absorb: bool,
    /// Rows of a block; the last may have fewer.
    pub height: usize,
}

impl Rows {
    pub fn new(list: &[i64], absorb: bool, dtype: DType, a: &[usize], b: &[usize], out: &[usize]) -> Option<Rows> {
        let plan = Plan::new(list, dtype, a, b, out).ok()?;
        let (m, n) = (plan.contraction.m, plan.contraction.n);
        let alone = plan.contraction.batches() == 1 && plan.cut.depth_pieces == 1;
        if plan.route != Route::Library || !alone {
            return None;
        }
        let fits = |height: usize| height.min(m) * n * dtype.size() <= BLOCK_BYTES;
        let fitting = || HEIGHTS.iter().copied().filter(|&height| fits(height));
        let height =
            fitting().find(|height| m.div_ceil(*height) >= panels::PANELS).or_else(|| fitting().next_back())?;
        let enough = m.div_ceil(height) >= panels::count(&plan.cut, m, n).min(FEW_PANELS);
        enough.then_some(Rows { plan, dtype, absorb, height })
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.plan.contraction.m
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.plan.contraction.n
    }

    /// Bytes of the largest block.
    pub fn block_bytes(&self) -> usize {
        (self.height.min(self.count()) * self.width() * self.dtype.size()).next_multiple_of(64)
    }

    /// Bytes of scratch in a pool of `threads` threads.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        self.plan.shared_bytes() + threads * self.plan.thread_bytes
    }

    /// The product of these arrays: what has to be copied first is copied now.
    pub fn bind<'a>(&'a self, a: &Array<'_>, b: &Array<'_>, environment: &'a Environment<'a>) -> Result<BoundRows<'a>> {
        let Plan { contraction, packed_bytes: [left, right], .. } = &self.plan;
        Ok(BoundRows {
            rows: self,
            call: Call { isa: isa()?, plan: &self.plan, absorb: self.absorb, environment },
            a: Shared::read_only(pack(&contraction.a.packing, a, 0, *left, environment)?),
            b: Shared::read_only(pack(&contraction.b.packing, b, *left, *right, environment)?),
        })
    }
}

/// A product of arrays, by rows.
#[derive(Debug)]
pub struct BoundRows<'a> {
    rows: &'a Rows,
    call: Call<'a>,
    a: Shared<u8>,
    b: Shared<u8>,
}

impl BoundRows<'_> {
    /// Computes rows `rows` of the product into `block`, one behind the other.
    ///
    /// # Safety
    /// The arrays and the scratch are as `crate::execute` asks; the rows exist, and `block` has room for them and is
    /// nobody else's.
    pub unsafe fn compute(&self, rows: Range<usize>, block: *mut u8) -> Result<()> {
        // SAFETY: the caller's promises.
        unsafe {
            match self.rows.dtype {
                DType::F32 => self.typed::<f32>(rows, block.cast()),
                _ => self.typed::<f64>(rows, block.cast()),
            }
        }
    }

    /// # Safety
    /// As for `compute`, for a product of this type.
    unsafe fn typed<T: Float>(&self, rows: Range<usize>, block: *mut T) -> Result<()> {
        let whole = self.call.matrices::<T>(self.a.get().cast(), self.b.get().cast(), block);
        let from = whole.a.get().wrapping_offset(rows.start as isize * whole.a_row);
        let part = Matrices { m: rows.len(), a: Shared::read_only(from), ..whole };
        self.call.panel(&part, 0..part.m, 0..part.n)?;
        if self.call.absorb {
            // SAFETY: the block is computed and nobody else's.
            unsafe { absorb::repair(self.call.isa, &part, 0..part.m, 0..part.n, self.call.environment)? };
        }
        Ok(())
    }
}
