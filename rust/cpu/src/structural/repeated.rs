//! Kernels that move few elements, in the body of a loop: where they come from and go to is found out once.
//!
//! The kernels themselves say so. They run on a table of buffers that lie nowhere, and what they would move is noted
//! down: from which buffer to which one, row by row.

use std::cell::{Cell, RefCell};

use ckad_graph::{DType, Op, Result, tables};
use ckad_plan::program::{ArrayRef, Kernel};

use super::array::Array;
use super::number::{Number, with_dtype, with_size};
use super::strided::{Axis, Mover, Odometer, copy_row, in_memory_order};
use super::strided_add::{add_row, in_adding_order};
use super::{check_dtypes, moved};
use crate::{Environment, Memory};

/// Most elements of an array: beyond them finding out does not take long beside moving.
const ELEMENTS: usize = 4096;
/// Most rows of a walk.
const ROWS: usize = 256;

/// Buffers that lie nowhere are so far from each other, behind all addresses that there are.
const NOWHERE: usize = 1 << 63;
const APART: u32 = 40;

/// From where a row comes.
#[derive(Clone, Copy, Debug)]
enum From {
    /// So many bytes behind the beginning of a buffer.
    Buffer(usize, usize),
    /// A number of the program, which begins where this does.
    Number(u64),
}

type Row = unsafe fn(*mut u8, *const u8, Axis);

/// Rows of one array that are written to rows of another one, or added.
#[derive(Debug)]
struct Move {
    target: (usize, usize),
    from: From,
    /// Bytes from the first row to each.
    rows: Vec<(isize, isize)>,
    inner: Axis,
    row: Row,
    /// Nothing is to be done where both are at one place.
    copies: bool,
}

/// A prepared kernel. Its buffers may move between runs, and keep their sizes.
#[derive(Debug)]
pub struct Moves(Vec<Move>);

impl Moves {
    /// The kernel prepared, if it only moves few elements, or adds them. `environment` has the buffers' sizes; they may
    /// lie anywhere.
    pub fn new(kernel: &Kernel, environment: &Environment<'_>) -> Result<Option<Moves>> {
        let Kernel::Structural { op, parameters, operands, result } = kernel else { return Ok(None) };
        let few = |array: &ArrayRef| array.shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        let all_few = operands.iter().chain([result]).all(|array| few(array).is_some_and(|n| n <= ELEMENTS));
        let apart = environment.buffers.iter().all(|memory| memory.bytes < 1 << APART);
        if !all_few || !apart || environment.buffers.len() >= 1 << 20 {
            return Ok(None);
        }
        let nowhere = |(index, memory): (usize, &Memory)| Memory {
            pointer: std::ptr::without_provenance_mut(NOWHERE | index << APART),
            bytes: memory.bytes,
        };
        let buffers = tables::list("run", environment.buffers.iter().enumerate().map(nowhere))?;
        let nowhere = Environment { buffers: &buffers, ..*environment };
        let out = Array::resolve(result, &nowhere)?;
        let resolved = tables::tried("run", operands.iter().map(|operand| Array::resolve(operand, &nowhere)))?;
        check_dtypes(op, &resolved, &out)?;
        let noted = Noted { moves: RefCell::new(Vec::new()), fits: Cell::new(true) };
        let moved = match (op, resolved.as_slice()) {
            (Op::Accumulate, [base, value]) => Some(accumulated(base, value, &out, &noted)),
            _ => moved(op, parameters, &resolved, &out, &nowhere, &noted),
        };
        match moved {
            Some(moved) => moved?,
            None => return Ok(None),
        }
        Ok(noted.fits.get().then(|| Moves(noted.moves.into_inner())))
    }

    /// Runs the kernel on buffers that are where `buffers` says.
    ///
    /// # Safety
    /// As for `crate::execute`; the buffers have the sizes that they had when the kernel was prepared.
    pub unsafe fn run(&self, buffers: &[Memory]) {
        for Move { target, from, rows, inner, row, copies } in &self.0 {
            let target = buffers[target.0].pointer.wrapping_add(target.1);
            let source = match from {
                From::Buffer(buffer, offset) => buffers[*buffer].pointer.wrapping_add(*offset).cast_const(),
                From::Number(bits) => std::ptr::from_ref(bits).cast(),
            };
            if *copies && std::ptr::eq(target, source) {
                continue;
            }
            for &(to, from) in rows {
                // SAFETY: the kernel checked all positions against the buffers' sizes.
                unsafe { row(target.wrapping_offset(to), source.wrapping_offset(from), *inner) };
            }
        }
    }
}

/// `acc + g`: a copy, where the result is not the accumulator's, and an addition.
fn accumulated(base: &Array<'_>, value: &Array<'_>, out: &Array<'_>, noted: &Noted) -> Result<()> {
    super::views::copy_base(base, out, noted)?;
    super::views::check_elements("accumulate", value, out)?;
    let axes = vec![Axis { extent: out.elements(), target: 1, source: 1 }];
    // SAFETY: as many elements in both.
    unsafe { noted.add(out.dtype, axes, out.pointer_mut(), value.pointer()) }
}

/// What is to be moved.
struct Noted {
    moves: RefCell<Vec<Move>>,
    /// Is that all that is to be done, and not too much?
    fits: Cell<bool>,
}

impl Noted {
    /// Notes a walk down, whose innermost axis comes last.
    fn note(
        &self,
        (target, source): (*mut u8, *const u8),
        mut axes: Vec<Axis>,
        (row, copies): (Row, bool),
        size: usize,
    ) {
        let inner = axes.pop().unwrap_or(Axis { extent: 1, target: 1, source: 1 });
        let count: usize = axes.iter().map(|axis| axis.extent).product();
        if count > ROWS {
            self.fits.set(false);
            return;
        }
        let size = size as isize;
        let mut position = Odometer::at(&axes, 0);
        let rows = (0..count).map(|_| {
            let found = (position.target * size, position.source * size);
            position.advance();
            found
        });
        let rows = rows.collect();
        let place = |address: usize| (address >= NOWHERE).then_some((address & !NOWHERE) >> APART);
        let offset = |address: usize| address & ((1 << APART) - 1);
        let from = match place(source.addr()) {
            Some(buffer) => From::Buffer(buffer, offset(source.addr())),
            None => {
                let mut bits = 0u64;
                // SAFETY: an address that is one is that of a number, of so many bytes.
                unsafe { std::ptr::copy_nonoverlapping(source, (&raw mut bits).cast(), size as usize) };
                From::Number(bits)
            }
        };
        let Some(buffer) = place(target.addr()) else {
            self.fits.set(false);
            return;
        };
        let target = (buffer, offset(target.addr()));
        self.moves.borrow_mut().push(Move { target, from, rows, inner, row, copies });
    }
}

impl Mover for Noted {
    unsafe fn copy(&self, dtype: DType, mut axes: Vec<Axis>, target: *mut u8, source: *const u8) -> Result<()> {
        if axes.iter().all(|axis| axis.extent != 0) {
            in_memory_order(&mut axes);
            let row: Row = with_size!(dtype, T => copied::<T>);
            self.note((target, source), axes, (row, true), dtype.size());
        }
        Ok(())
    }

    unsafe fn add(&self, dtype: DType, mut axes: Vec<Axis>, target: *mut u8, source: *const u8) -> Result<()> {
        if axes.iter().any(|axis| axis.extent == 0) {
            return Ok(());
        }
        in_adding_order(&mut axes);
        // What goes to one element is summed first, in an order of its own.
        if axes.iter().any(|axis| axis.target == 0) {
            self.fits.set(false);
        }
        let row: Row = with_dtype!(dtype, T => added::<T>);
        self.note((target, source), axes, (row, false), dtype.size());
        Ok(())
    }
}

unsafe fn copied<T: Copy>(target: *mut u8, source: *const u8, inner: Axis) {
    // SAFETY: the caller's promises.
    unsafe { copy_row::<T>(target.cast(), inner.target, source.cast(), inner.source, inner.extent) }
}

unsafe fn added<T: Number>(target: *mut u8, source: *const u8, inner: Axis) {
    // SAFETY: the caller's promises.
    unsafe { add_row::<T>(target.cast(), inner.target, source.cast(), inner.source, inner.extent) }
}
