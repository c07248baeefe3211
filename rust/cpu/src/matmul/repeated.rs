//! Small products in the body of a loop: what follows from shapes is found out once.

use ckad_graph::{Op, Result};
use ckad_plan::program::{ArrayRef, Kernel};

use super::{Plan, planned};
use crate::structural::array::Array;
use crate::{Environment, Isa, isa};

/// Most multiplications: some µs, after which nobody has to look whether the run is still wanted.
const MULTIPLICATIONS: usize = 1 << 16;

/// A prepared product.
#[derive(Debug)]
pub struct Product<'a> {
    isa: Isa,
    plan: Plan,
    absorb: bool,
    operands: [&'a ArrayRef; 2],
    result: &'a ArrayRef,
}

impl<'a> Product<'a> {
    /// The kernel prepared, if it is a small product.
    pub fn new(kernel: &'a Kernel) -> Result<Option<Product<'a>>> {
        let Kernel::Structural { op: Op::Dot { absorb, .. }, parameters, operands, result } = kernel else {
            return Ok(None);
        };
        let [a, b] = operands.as_slice() else { return Ok(None) };
        let plan = Plan::new(&parameters.list, result.dtype, &a.shape, &b.shape, &result.shape)?;
        let contraction = &plan.contraction;
        let extents = [contraction.m, contraction.n, contraction.k, contraction.batches()];
        let product = extents.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent.max(1)));
        let is_small = product.is_some_and(|product| product <= MULTIPLICATIONS);
        let same = a.dtype == result.dtype && b.dtype == result.dtype;
        Ok((is_small && same).then_some(Product { isa: isa()?, plan, absorb: *absorb, operands: [a, b], result }))
    }

    /// Computes the product.
    ///
    /// # Safety
    /// As for `crate::execute`.
    pub unsafe fn run(&self, environment: &Environment<'_>) -> Result<()> {
        let out = Array::resolve(self.result, environment)?;
        let a = Array::resolve(self.operands[0], environment)?;
        let b = Array::resolve(self.operands[1], environment)?;
        planned(self.isa, &self.plan, self.absorb, [&a, &b], &out, environment)
    }
}
