//! Kernels of few elements that run again and again, in the body of a loop: what does not change from run to run is
//! found out once. They compute what [`crate::execute`] does, to the bit.

use ckad_graph::Result;
use ckad_plan::program::Kernel;

use crate::matmul::Product;
use crate::structural::Moves;
use crate::{Environment, tile};

/// A prepared kernel.
pub enum Repeated<'a> {
    Fused(tile::Repeated),
    Moves(Moves),
    Product(Product<'a>),
}

impl<'a> Repeated<'a> {
    /// The kernel prepared, where that is worth it. `environment` has the buffers' sizes; they may lie anywhere.
    pub fn new(kernel: &'a Kernel, environment: &Environment<'_>) -> Result<Option<Repeated<'a>>> {
        if let Some(fused) = tile::Repeated::new(kernel, environment)? {
            return Ok(Some(Repeated::Fused(fused)));
        }
        if let Some(moves) = Moves::new(kernel, environment)? {
            return Ok(Some(Repeated::Moves(moves)));
        }
        Ok(Product::new(kernel)?.map(Repeated::Product))
    }

    /// Runs the kernel. It takes some µs at most, and asks nobody whether the run is still wanted if the environment
    /// has nobody to ask.
    ///
    /// # Safety
    /// As for [`crate::execute`]; the buffers have the sizes that they had when the kernel was prepared, and scalars
    /// and starts are the same.
    pub unsafe fn run(&mut self, environment: &Environment<'_>) -> Result<()> {
        // SAFETY: the caller's promises.
        unsafe {
            match self {
                Repeated::Fused(fused) => fused.run(environment.buffers),
                Repeated::Moves(moves) => moves.run(environment.buffers),
                Repeated::Product(product) => return product.run(environment),
            }
        }
        Ok(())
    }
}
