//! A product whose rows are computed when somebody asks: for a kernel that consumes them while they are in cache.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, Result};

use super::{Call, Matrices, Plan, Route, absorb, pack, panels};
use crate::Environment;
use crate::isa::isa;
use crate::parallel::Shared;
use crate::structural::array::Array;
use crate::structural::number::Float;
use crate::team;

/// A product that can be had by rows: one matrix, by the library, its depth in one piece.
#[derive(Debug)]
pub struct Rows {
    plan: Plan,
    dtype: DType,
    absorb: bool,
}

impl Rows {
    pub fn new(list: &[i64], absorb: bool, dtype: DType, a: &[usize], b: &[usize], out: &[usize]) -> Option<Rows> {
        let plan = Plan::new(list, dtype, a, b, out).ok()?;
        let alone = plan.contraction.batches() == 1 && plan.cut.depth_pieces == 1;
        (plan.route == Route::Library && alone).then_some(Rows { plan, dtype, absorb })
    }

    /// Number of panels that the product by itself is cut into.
    pub fn panels(&self) -> usize {
        panels::count(&self.plan.cut, self.count(), self.width())
    }

    pub fn row_bytes(&self) -> usize {
        self.width() * self.dtype.size()
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.plan.contraction.m
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.plan.contraction.n
    }

    /// Bytes of scratch in a pool of `threads` threads.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        self.plan.shared_bytes() + threads * self.plan.thread_bytes
    }

    /// The product of these arrays: what has to be copied first is copied now. The environment's scratch is the
    /// product's alone while rows are computed.
    pub fn bind<'a>(&'a self, a: &Array<'_>, b: &Array<'_>, environment: &'a Environment<'a>) -> Result<BoundRows<'a>> {
        let Plan { contraction, packed_bytes: [left, right], .. } = &self.plan;
        Ok(BoundRows {
            rows: self,
            call: Call { isa: isa()?, plan: &self.plan, absorb: self.absorb, environment },
            a: Shared::read_only(pack(&contraction.a.packing, a, 0, *left, environment)?),
            b: Shared::read_only(pack(&contraction.b.packing, b, *left, *right, environment)?),
            packed: (0..team::thread_count()).map(|_| AtomicBool::new(false)).collect(),
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
    /// By thread, whether its scratch holds the right operand packed: it stays there from block to block.
    packed: Vec<AtomicBool>,
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
        self.call.panel(&part, 0..part.m, 0..part.n, self.packed.get(team::thread_index()))?;
        if self.call.absorb {
            // SAFETY: the block is computed and nobody else's.
            unsafe { absorb::repair(self.call.isa, &part, 0..part.m, 0..part.n, self.call.environment)? };
        }
        Ok(())
    }
}
