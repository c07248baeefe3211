//! A result: memory that outlives the run and can be handed on without a copy.

use std::alloc::Layout;

use ckad_graph::{DType, Result};

use crate::block::Block;

/// An owned array in C order, 64-byte aligned.
#[derive(Debug)]
pub struct OutputBuffer {
    block: Block,
    dtype: DType,
    shape: Vec<usize>,
}

impl OutputBuffer {
    /// Uninitialised: a run gives buffers out only once they are written in full.
    pub(crate) fn new(dtype: DType, shape: Vec<usize>) -> Result<OutputBuffer> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Ok(OutputBuffer { block: Block::new("run", bytes)?, dtype, shape })
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The first element; dangling where there is none. Valid until the buffer is dropped.
    pub fn pointer(&self) -> *mut u8 {
        self.block.pointer()
    }

    /// Size and alignment of the allocation.
    pub fn layout(&self) -> Layout {
        self.block.layout()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a finished run has written every byte, and nobody else holds the block.
        unsafe { std::slice::from_raw_parts(self.block.pointer(), self.block.bytes()) }
    }
}
