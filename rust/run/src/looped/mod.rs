//! Loops and branches: the steps of a body, run again and again over buffers of which a few move.
//!
//! Everything is laid out in the kernel's scratch before the first iteration (`ckad_plan::loops`): between two of them
//! only addresses change, those of slices and of carries. `frame` is a body on its memory, `carried` where carries are;
//! `scan`, `reverse` and `choice` run one kind of kernel each.

mod carried;
mod choice;
mod frame;
mod reverse;
mod scan;

use ckad_cpu::{Environment, Memory};
use ckad_graph::{CallKind, Error, Result, tables};
use ckad_plan::loops::{LoopLayout, Piece};
use ckad_plan::program::{ArrayRef, LoopKernel, Source};

/// A kernel on the memory of one launch. Operands, results and scratch are as large as the kernel says, and what is
/// written does not overlap what is read but where the kernel says so: whoever is given a site may rely on it, as
/// [`Site::new`] alone makes one.
struct Site<'a> {
    kernel: &'a LoopKernel,
    layout: &'a LoopLayout,
    environment: &'a Environment<'a>,
    operands: Vec<Memory>,
}

impl<'a> Site<'a> {
    /// # Safety
    /// As for [`run`].
    unsafe fn new(kernel: &'a LoopKernel, environment: &'a Environment<'a>) -> Result<Site<'a>> {
        let layout = &kernel.layout;
        if layout.bytes > environment.scratch.bytes {
            return Err(Error::internal("run", format!("a loop needs {} bytes of scratch", layout.bytes)));
        }
        let numbers = environment.scratch.pointer.wrapping_add(layout.scalars.offset);
        let mut count = 0;
        let operand = |array: &ArrayRef| -> Result<Memory> {
            let Some(bits) = environment.scalar(array.source, array.dtype)? else {
                let Source::Buffer(id) = array.source else {
                    return Err(Error::internal("run", "a loop's operand is no array"));
                };
                return environment.buffer(id);
            };
            let pointer = numbers.wrapping_add(8 * count);
            count += 1;
            // SAFETY: the layout has 8 bytes for each operand that is a number.
            unsafe { std::ptr::copy_nonoverlapping(bits.to_le_bytes().as_ptr(), pointer, 8) };
            Ok(Memory { pointer, bytes: array.dtype.size() })
        };
        let operands = tables::tried("run", kernel.operands.iter().map(operand))?;
        Ok(Site { kernel, layout, environment, operands })
    }

    /// The first byte of a piece of the kernel's scratch.
    fn at(&self, piece: Piece) -> *mut u8 {
        self.environment.scratch.pointer.wrapping_add(piece.offset)
    }

    /// Where a part is to be; None where nobody asks for it.
    fn result(&self, part: usize) -> Result<Option<*mut u8>> {
        match self.kernel.results.get(part) {
            Some(Some(ArrayRef { source: Source::Buffer(id), .. })) => {
                self.environment.buffer(*id).map(|memory| Some(memory.pointer))
            }
            _ => Ok(None),
        }
    }
}

/// Runs a loop or a branch.
///
/// # Safety
/// As for `ckad_cpu::execute`, and the kernel was verified.
pub(crate) unsafe fn run(kernel: &LoopKernel, environment: &Environment<'_>) -> Result<()> {
    // SAFETY: the caller's promises.
    let site = unsafe { Site::new(kernel, environment)? };
    // SAFETY: the caller's promises.
    unsafe {
        match kernel.kind {
            CallKind::Scan(kind) => scan::run(&site, kind),
            CallKind::Reverse(kind) => reverse::run(&site, kind),
            CallKind::Rewind(kind) => reverse::rewind(&site, kind),
            CallKind::While(kind) => choice::repeat(&site, kind),
            CallKind::Branch(kind) => choice::branch(&site, kind),
            CallKind::Custom(_) | CallKind::Pullback(_) => Err(Error::internal("run", "a rule is no kernel")),
        }
    }
}
