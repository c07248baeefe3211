//! What one run of a program works on.

use std::borrow::Cow;
use std::marker::PhantomData;

use ckad_graph::{Constant, Error, Result, ScalarBits, tables};
use ckad_plan::program::Program;

use crate::output::GivenUp;

/// An argument's memory: packed, in C order, aligned for its dtype, only read.
#[derive(Clone, Copy, Debug)]
pub struct InputArray<'a> {
    pointer: *const u8,
    bytes: usize,
    lifetime: PhantomData<&'a [u8]>,
}

// SAFETY: read-only memory that outlives `'a`.
unsafe impl Send for InputArray<'_> {}
// SAFETY: as above.
unsafe impl Sync for InputArray<'_> {}

impl<'a> InputArray<'a> {
    pub fn from_bytes(bytes: &'a [u8]) -> InputArray<'a> {
        InputArray { pointer: bytes.as_ptr(), bytes: bytes.len(), lifetime: PhantomData }
    }

    /// # Safety
    /// The bytes are readable for `'a`, and nobody writes them while a run reads them.
    pub unsafe fn from_raw(pointer: *const u8, bytes: usize) -> InputArray<'a> {
        InputArray { pointer, bytes, lifetime: PhantomData }
    }

    pub fn pointer(&self) -> *const u8 {
        self.pointer
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The whole tables of scalars and of starts: what was recorded, then what rules added.
type Tables<'a> = (Cow<'a, [ScalarBits]>, Cow<'a, [i64]>);

/// The values of a program's inputs. Scalars and starts are the recorded ones; the program knows those that rules
/// added behind them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bindings<'a> {
    pub inputs: &'a [InputArray<'a>],
    pub scalars: &'a [ScalarBits],
    pub constants: &'a [Constant],
    pub starts: &'a [i64],
    /// The memory of inputs that the program's outputs may take over, in the order of inputs.
    pub given_up: &'a [GivenUp],
}

impl<'a> Bindings<'a> {
    /// The run's whole tables of scalars and starts.
    pub(crate) fn tables(&self, program: &'a Program) -> Result<Tables<'a>> {
        Ok((table(self.scalars, &program.scalars_added)?, table(self.starts, &program.starts_added)?))
    }
}

fn table<'a, T: Copy>(recorded: &'a [T], (count, added): &'a (usize, Vec<T>)) -> Result<Cow<'a, [T]>> {
    if recorded.len() != *count {
        let what = format!("the program takes {count} scalars or starts, the run gives {}", recorded.len());
        return Err(Error::internal("run", what));
    }
    if added.is_empty() {
        return Ok(Cow::Borrowed(recorded));
    }
    tables::list("run", recorded.iter().chain(added).copied()).map(Cow::Owned)
}
