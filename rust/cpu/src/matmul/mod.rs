//! Dot products of every kind: the one module that calls the GEMM library.
//!
//! A general contraction becomes a batch of (m,k)·(k,n) products over strided operands (`contraction`), whose
//! route is chosen by shape and dtype: the library for floats (`library`), own kernels where one side is a
//! vector (`vector`) or the depth is 1 (`outer`), plain loops for integers, bools and processors without vector
//! instructions (`plain`). The library always runs on one thread; we split the result into panels, and deep
//! products along their depth, as the shape alone says.
//!
//! With `absorb` a result that is not finite is computed again with products that are 0 when a factor is 0.

mod absorb;
mod contraction;
mod isa_dispatch;
mod library;
mod outer;
mod panels;
mod plain;
mod repeated;
mod rows;
mod vector;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, Error, Result};

use crate::Environment;
use crate::isa::{Isa, isa};
use crate::parallel::{PIECE, Shared, for_each_piece};
use crate::structural::array::Array;
use crate::structural::number::{Float, Number, with_dtype};
use crate::structural::strided::{self, Axis};
use contraction::{Contraction, Packing};
use panels::Cut;
pub use repeated::Product;
pub use rows::{BoundRows, Rows};

/// One product C = A·B of a batch; strides in elements, C in C order with rows `n` apart.
#[derive(Clone, Copy, Debug)]
struct Matrices<T> {
    m: usize,
    n: usize,
    k: usize,
    a: Shared<T>,
    a_row: isize,
    a_depth: isize,
    b: Shared<T>,
    b_depth: isize,
    b_column: isize,
    c: Shared<T>,
}

/// How a product of a shape and dtype is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route {
    /// Nothing to add up.
    Zero,
    Outer,
    Vector,
    Library,
    Plain,
}

/// Everything that follows from shapes and dtype.
#[derive(Debug)]
struct Plan {
    contraction: Contraction,
    route: Route,
    cut: Cut,
    /// Bytes that all threads share: packed operands, then partial sums.
    packed_bytes: [usize; 2],
    partial_bytes: usize,
    thread_bytes: usize,
}

impl Plan {
    fn new(list: &[i64], dtype: DType, a: &[usize], b: &[usize], out: &[usize]) -> Result<Plan> {
        let contraction = Contraction::new(list, a, b, out)?;
        let (m, n, k) = (contraction.m, contraction.n, contraction.k);
        let route = match () {
            () if m * n * contraction.batches() == 0 || k == 0 => Route::Zero,
            () if !dtype.is_float() => Route::Plain,
            () if k == 1 => Route::Outer,
            () if m == 1 || n == 1 => Route::Vector,
            () => Route::Library,
        };
        let packed = |packing: &Option<Packing>| match packing {
            Some(packing) if route != Route::Zero => (packing.elements() * dtype.size()).next_multiple_of(64),
            _ => 0,
        };
        let packed_bytes = [packed(&contraction.a.packing), packed(&contraction.b.packing)];
        let size = dtype.size();
        let cut = Cut::new(m, n, k, contraction.batches());
        let (partial_bytes, thread_bytes) = match route {
            Route::Vector => vector::scratch_bytes(&contraction, size),
            Route::Library => {
                (cut.partial_bytes(m, n, size), library::scratch_bytes(m, n, cut.depth, contraction.a.depth, size))
            }
            Route::Plain => (cut.partial_bytes(m, n, size), 0),
            Route::Zero | Route::Outer => (0, 0),
        };
        Ok(Plan { contraction, route, cut, packed_bytes, partial_bytes, thread_bytes })
    }

    fn shared_bytes(&self) -> usize {
        self.packed_bytes[0] + self.packed_bytes[1] + self.partial_bytes
    }
}

/// Bytes of scratch that `dot` needs in a pool of `threads` threads.
pub fn scratch_bytes(list: &[i64], dtype: DType, a: &[usize], b: &[usize], out: &[usize], threads: usize) -> usize {
    Plan::new(list, dtype, a, b, out).map_or(0, |plan| plan.shared_bytes() + threads * plan.thread_bytes)
}

/// `a` and `b` contracted as `list` (a `DotAxes`) says.
pub fn dot(
    list: &[i64],
    absorb: bool,
    a: &Array<'_>,
    b: &Array<'_>,
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    dot_with(isa()?, list, absorb, a, b, out, environment)
}

/// The same on an instruction set that the processor has: tests compare them.
fn dot_with(
    isa: Isa,
    list: &[i64],
    absorb: bool,
    a: &Array<'_>,
    b: &Array<'_>,
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    let plan = Plan::new(list, out.dtype, a.shape, b.shape, out.shape)?;
    planned(isa, &plan, absorb, [a, b], out, environment)
}

fn planned(
    isa: Isa,
    plan: &Plan,
    absorb: bool,
    [a, b]: [&Array<'_>; 2],
    out: &Array<'_>,
    environment: &Environment<'_>,
) -> Result<()> {
    if plan.route == Route::Zero {
        let axes = vec![Axis { extent: out.elements(), target: 1, source: 0 }];
        // SAFETY: the whole result, from one element of zero bits.
        return unsafe { strided::copy(environment, out.dtype, axes, out.pointer_mut(), [0u8; 8].as_ptr()) };
    }
    let a_pointer = pack(&plan.contraction.a.packing, a, 0, plan.packed_bytes[0], environment)?;
    let b_pointer = pack(&plan.contraction.b.packing, b, plan.packed_bytes[0], plan.packed_bytes[1], environment)?;
    let c_pointer: *mut u8 = out.pointer_mut();
    let call = Call { isa, plan, absorb, environment };
    match out.dtype {
        DType::F32 => call.float::<f32>(a_pointer.cast(), b_pointer.cast(), c_pointer.cast()),
        DType::F64 => call.float::<f64>(a_pointer.cast(), b_pointer.cast(), c_pointer.cast()),
        dtype => with_dtype!(dtype, T => call.number::<T>(a_pointer.cast(), b_pointer.cast(), c_pointer.cast())),
    }
}

/// The operand as the product reads it: itself, or a packed copy at `first` in the shared scratch.
fn pack(
    packing: &Option<Packing>,
    operand: &Array<'_>,
    first: usize,
    bytes: usize,
    environment: &Environment<'_>,
) -> Result<*const u8> {
    let Some(packing) = packing else { return Ok(operand.pointer()) };
    let target = environment.shared_scratch(first + bytes)?.pointer.wrapping_add(first);
    // SAFETY: the packing permutes the operand's axes; the scratch holds as many elements.
    unsafe { strided::copy(environment, operand.dtype, packing.axes.clone(), target, operand.pointer())? };
    Ok(target)
}

/// One call of `dot`.
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    isa: Isa,
    plan: &'a Plan,
    absorb: bool,
    environment: &'a Environment<'a>,
}

impl Call<'_> {
    fn matrices<T>(&self, a: *const T, b: *const T, c: *mut T) -> Matrices<T> {
        let Contraction { m, n, k, a: left, b: right, .. } = &self.plan.contraction;
        Matrices {
            m: *m,
            n: *n,
            k: *k,
            a: Shared::read_only(a),
            a_row: left.free,
            a_depth: left.depth,
            b: Shared::read_only(b),
            b_depth: right.depth,
            b_column: right.free,
            c: Shared::new(c),
        }
    }

    fn float<T: Float>(&self, a: *const T, b: *const T, c: *mut T) -> Result<()> {
        let matrices = self.matrices(a, b, c);
        match self.plan.route {
            Route::Outer => self.each_product(matrices, |matrices| outer::product(self, &matrices)),
            Route::Vector => vector::product(self, &matrices),
            _ => {
                let compute = |matrices: &Matrices<T>, rows, columns| self.panel(matrices, rows, columns, None);
                let finish = |matrices: &Matrices<T>, rows, columns| match self.absorb {
                    // SAFETY: the panel is computed and nobody else's.
                    true => unsafe { absorb::repair(self.isa, matrices, rows, columns, self.environment) },
                    false => Ok(()),
                };
                if self.plan.cut.depth_pieces > 1 {
                    let finish = |rows, columns| finish(&matrices, rows, columns);
                    return panels::split_depth(self, matrices, self.partial()?, compute, finish);
                }
                panels::split(self, matrices, |matrices, rows, columns| {
                    compute(matrices, rows.clone(), columns.clone())?;
                    finish(matrices, rows, columns)
                })
            }
        }
    }

    /// A panel by the library, or by plain loops where it has no kernels for the processor. `packed`: whether the
    /// thread's scratch holds the right operand packed, for whoever computes several panels of the same columns.
    fn panel<T: Float>(
        &self,
        matrices: &Matrices<T>,
        rows: Range<usize>,
        columns: Range<usize>,
        packed: Option<&AtomicBool>,
    ) -> Result<()> {
        // SAFETY: `Contraction` checked the shapes; panels are disjoint parts of the result.
        unsafe {
            if library::has(self.isa) {
                let scratch = self.environment.thread_scratch(self.plan.shared_bytes(), self.plan.thread_bytes)?;
                library::panel(self.isa, matrices, rows, columns, packed, scratch, self.environment)
            } else {
                plain::panel(self.isa, matrices, rows, columns, self.environment)
            }
        }
    }

    /// Where partial sums wait.
    fn partial<T>(&self) -> Result<*mut T> {
        let first = self.plan.packed_bytes[0] + self.plan.packed_bytes[1];
        let scratch = self.environment.shared_scratch(first + self.plan.partial_bytes)?;
        Ok(scratch.pointer.wrapping_add(first).cast())
    }

    fn number<T: Number>(&self, a: *const T, b: *const T, c: *mut T) -> Result<()> {
        if self.plan.route != Route::Plain {
            return Err(Error::internal("dot", "integers take the plain route"));
        }
        let matrices = self.matrices(a, b, c);
        let compute = |matrices: &Matrices<T>, rows, columns| {
            // SAFETY: `Contraction` checked the shapes; panels are disjoint parts of the result.
            unsafe { plain::panel(self.isa, matrices, rows, columns, self.environment) }
        };
        if self.plan.cut.depth_pieces > 1 {
            return panels::split_depth(self, matrices, self.partial()?, compute, |_, _| Ok(()));
        }
        panels::split(self, matrices, compute)
    }

    /// The products of the batch, several to a piece where they are small, in parallel.
    fn each_product<T: Number>(
        &self,
        first: Matrices<T>,
        work: impl Fn(Matrices<T>) -> Result<()> + Sync,
    ) -> Result<()> {
        let contraction = &self.plan.contraction;
        let size = (first.m * first.n).max(first.k * first.m.max(first.n)).max(1);
        for_each_piece(self.environment, contraction.batches(), PIECE / size, |range| {
            for index in range {
                work(contraction.product_at(&first, index))?;
            }
            Ok(())
        })
    }
}
