//! What a kernel runs on: where buffers, scalars and scratch are, and the flag that stops it.

use std::sync::atomic::{AtomicBool, Ordering};

use ckad_graph::{DType, Error, Result, ScalarBits};
use ckad_plan::program::{BufferId, Source};

use crate::ahead::Ahead;
use crate::poll::Check;
use crate::team;

/// A range of bytes. Who may read or write it, and when, is the program's business.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub pointer: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address and a length; each access is justified where it happens.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub const EMPTY: Memory = Memory { pointer: std::ptr::dangling_mut::<u64>().cast(), bytes: 0 };

    /// The memory of a slice, for reading only.
    pub fn of<T>(slice: &[T]) -> Memory {
        Memory { pointer: slice.as_ptr().cast_mut().cast(), bytes: size_of_val(slice) }
    }

    pub fn of_mut<T>(slice: &mut [T]) -> Memory {
        Memory { pointer: slice.as_mut_ptr().cast(), bytes: size_of_val(slice) }
    }
}

/// The surroundings of one kernel.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// By `BufferId`.
    pub buffers: &'a [Memory],
    /// Buffers that lie elsewhere for now, some rows of them only: where the first row would be, and the bytes of all.
    pub blocks: &'a [(BufferId, Memory)],
    /// The run's table of scalars.
    pub scalars: &'a [ScalarBits],
    /// The run's table of slice starts.
    pub starts: &'a [i64],
    /// 64-byte aligned; at least the `scratch_bytes` of what runs, for the threads that share it.
    pub scratch: Memory,
    /// What to fetch meanwhile.
    pub ahead: Option<&'a Ahead>,
    /// Set by whoever wants the run to end; kernels look at it at least every 10 ms or so.
    pub cancel: &'a AtomicBool,
    /// Asked now and then by the thread that runs the program.
    pub poll: Option<&'a dyn Check>,
}

impl Environment<'_> {
    /// An `Interrupted` error once the run was cancelled.
    pub fn check(&self) -> Result<()> {
        self.look(|poll| poll.check(self.cancel))
    }

    /// As `check`, beside work that takes no more than some µs.
    pub fn check_small(&self) -> Result<()> {
        self.look(|poll| poll.check_small(self.cancel))
    }

    /// As `check_small`, before another tile of a fused kernel.
    pub fn next_tile(&self) -> Result<()> {
        if let Some(ahead) = self.ahead {
            ahead.fetch();
        }
        self.check_small()
    }

    #[inline]
    fn look(&self, poll: impl FnOnce(&dyn Check) -> Result<()>) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::interrupted("run"));
        }
        match self.poll {
            Some(asked) if team::thread_index() == 0 => poll(asked),
            _ => Ok(()),
        }
    }

    pub fn buffer(&self, id: BufferId) -> Result<Memory> {
        if let Some(&(_, memory)) = self.blocks.iter().find(|(block, _)| *block == id) {
            return Ok(memory);
        }
        self.buffers.get(id.0 as usize).copied().ok_or_else(|| Error::internal("run", format!("no buffer {}", id.0)))
    }

    /// The bits of a scalar source (literal or table entry) as an element of `dtype`; None for the others.
    pub fn scalar(&self, source: Source, dtype: DType) -> Result<Option<ScalarBits>> {
        match source {
            Source::Literal(bits) => Ok(Some(dtype.bits_of_f64(f64::from(f32::from_bits(bits))))),
            Source::Scalar(index) => match self.scalars.get(index as usize) {
                Some(&bits) => Ok(Some(bits)),
                None => Err(Error::internal("run", format!("no scalar {index}"))),
            },
            Source::Buffer(_) | Source::Index => Ok(None),
        }
    }

    pub fn start(&self, index: u32) -> Result<i64> {
        self.starts
            .get(index as usize)
            .copied()
            .ok_or_else(|| Error::internal("run", format!("no slice start {index}")))
    }

    /// The scratch that all threads share: the first `bytes` of it.
    pub fn shared_scratch(&self, bytes: usize) -> Result<Memory> {
        self.scratch_range(0, bytes)
    }

    /// The calling thread's own `bytes` behind the `shared` first ones (both multiples of 64).
    ///
    /// Never hold it across a split of work: pieces that this thread then does have the same.
    pub fn thread_scratch(&self, shared: usize, bytes: usize) -> Result<Memory> {
        let thread = team::thread_index();
        self.scratch_range(shared + thread * bytes, bytes)
    }

    fn scratch_range(&self, first: usize, bytes: usize) -> Result<Memory> {
        if first + bytes > self.scratch.bytes {
            let what = format!("kernel scratch of {} bytes, {} needed", self.scratch.bytes, first + bytes);
            return Err(Error::internal("run", what));
        }
        // SAFETY: inside the scratch by the check.
        Ok(Memory { pointer: unsafe { self.scratch.pointer.add(first) }, bytes })
    }
}
