//! A result: memory that outlives the run and can be handed on without a copy.

use ckad_graph::{DType, Result};

use crate::block::Block;
use crate::spare;

/// An array in C order: owned and 64-byte aligned, or in memory that an input gave up.
#[derive(Debug)]
pub struct OutputBuffer {
    memory: OutputMemory,
    dtype: DType,
    shape: Vec<usize>,
}

#[derive(Debug)]
enum OutputMemory {
    Own(Block),
    TakenOver(GivenUp),
}

/// The memory of an input that a run may write its results to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp {
    pub input: u32,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: an address; whoever gave the memory up keeps it alive, and uses it no more.
unsafe impl Send for GivenUp {}
// SAFETY: as above.
unsafe impl Sync for GivenUp {}

impl GivenUp {
    /// # Safety
    /// The bytes, which are those of that input, are writeable, nobody else uses them from the beginning of the run on,
    /// and they live as long as the run's outputs.
    pub unsafe fn new(input: u32, pointer: *mut u8, bytes: usize) -> GivenUp {
        GivenUp { input, pointer, bytes }
    }
}

impl OutputBuffer {
    /// In memory that an input gave up.
    pub(crate) fn over(given_up: GivenUp, dtype: DType, shape: Vec<usize>) -> OutputBuffer {
        OutputBuffer { memory: OutputMemory::TakenOver(given_up), dtype, shape }
    }

    /// The input whose memory it has taken over.
    pub fn taken_over(&self) -> Option<u32> {
        match &self.memory {
            OutputMemory::Own(_) => None,
            OutputMemory::TakenOver(given_up) => Some(given_up.input),
        }
    }

    /// Uninitialised: a run gives buffers out only once they are written in full.
    pub(crate) fn new(dtype: DType, shape: Vec<usize>) -> Result<OutputBuffer> {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        let block = spare::take(bytes).map_or_else(|| Block::new("run", bytes), Ok)?;
        Ok(OutputBuffer { memory: OutputMemory::Own(block), dtype, shape })
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The first element; dangling where there is none. Valid until the buffer is dropped.
    pub fn pointer(&self) -> *mut u8 {
        match &self.memory {
            OutputMemory::Own(block) => block.pointer(),
            OutputMemory::TakenOver(given_up) => given_up.pointer,
        }
    }

    /// Its bytes in memory.
    fn len(&self) -> usize {
        match &self.memory {
            OutputMemory::Own(block) => block.bytes(),
            OutputMemory::TakenOver(given_up) => given_up.bytes,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: a finished run has written every byte, and nobody else holds the memory.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len()) }
    }
}

impl Drop for OutputBuffer {
    fn drop(&mut self) {
        if let OutputMemory::Own(block) = &mut self.memory {
            spare::keep(std::mem::replace(block, Block::nothing()));
        }
    }
}
