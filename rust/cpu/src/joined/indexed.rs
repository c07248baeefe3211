//! Gathers and scatters of elements that run rows at a time, beside kernels that make or read the same rows.
//!
//! Which elements lie in which rows is known only to the run. Before the first block the index tuples are therefore
//! sorted by block: a list for each, in the order of the tuples, so that duplicates are added in their turn. What is
//! gathered lies as a whole and is complete when all rows are done; what is scattered is there before the first.

use ckad_graph::{Error, Op, Result};
use ckad_plan::program::{ArrayRef, BufferId, Kernel, Source};

use crate::parallel::{PIECE, for_each_piece_in_order};
use crate::structural::array::{Array, elements};
use crate::structural::index::Indices;
use crate::structural::number::{Number, with_dtype, with_size};
use crate::{Environment, Memory};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Gather,
    Set,
    Add,
}

/// A gather from rows, or a scatter into them.
#[derive(Clone, Copy, Debug)]
pub struct Indexed<'a> {
    kind: Kind,
    /// The array that is indexed, by rows: a gather's operand or a scatter's base.
    pub rows: &'a ArrayRef,
    /// A scatter's value.
    value: Option<&'a ArrayRef>,
    indices: &'a [ArrayRef],
    result: &'a ArrayRef,
}

/// The ends of lists of tuples; no tuple has this number.
const NONE: u32 = u32::MAX;

impl<'a> Indexed<'a> {
    pub fn of(kernel: &'a Kernel) -> Option<Indexed<'a>> {
        let Kernel::Structural { op, operands, result, .. } = kernel else { return None };
        let (kind, rows, value, indices) = match (op, operands.as_slice()) {
            (Op::Gather { .. }, [x, indices @ ..]) => (Kind::Gather, x, None, indices),
            (Op::ScatterSet { .. }, [base, value, indices @ ..]) => (Kind::Set, base, Some(value), indices),
            (Op::ScatterAdd { .. }, [base, value, indices @ ..]) => (Kind::Add, base, Some(value), indices),
            _ => return None,
        };
        (!indices.is_empty()).then_some(Indexed { kind, rows, value, indices, result })
    }

    /// What must be there before any row is worked on.
    pub fn read_as_a_whole(&self) -> impl Iterator<Item = BufferId> + use<'a> {
        self.value.into_iter().chain(self.indices).filter_map(buffer)
    }

    pub fn rows_buffer(&self) -> Option<BufferId> {
        buffer(self.rows)
    }

    pub fn result_buffer(&self) -> Option<BufferId> {
        buffer(self.result)
    }

    pub fn is_gather(&self) -> bool {
        self.kind == Kind::Gather
    }

    /// Bytes of one of `rows` rows, where the tuples are no more than these, and what each names lies in one.
    pub fn row_bytes(&self, rows: usize) -> Option<usize> {
        let total = elements(&self.rows.shape);
        let at_once = elements(self.rows.shape.get(self.indices.len()..)?);
        let moved = elements(self.value.unwrap_or(self.result).shape.as_slice());
        let width = total.checked_div(rows).filter(|width| total > 0 && width * rows == total)?;
        let fits = at_once > 0 && width.is_multiple_of(at_once) && moved <= rows && moved < NONE as usize;
        (fits && width <= NONE as usize).then_some(width * self.rows.dtype.size())
    }

    /// Bytes of the lists, which all threads share.
    pub fn shared_bytes(&self, rows: usize, height: usize) -> usize {
        ((rows.div_ceil(height) + 2 * self.tuples()) * size_of::<u32>()).next_multiple_of(64)
    }

    fn tuples(&self) -> usize {
        self.indices.first().map_or(0, |index| elements(&index.shape))
    }

    /// Checks the indices and writes the lists to `shared`.
    ///
    /// # Safety
    /// `shared` has the bytes that `shared_bytes` says, of which nobody else has use until the group is done.
    pub unsafe fn prepare(
        &self,
        rows: usize,
        height: usize,
        shared: Memory,
        environment: &Environment<'_>,
    ) -> Result<()> {
        let name = match self.kind {
            Kind::Gather => "gather",
            Kind::Set => "scatter",
            Kind::Add => "scatter_add",
        };
        let arrays = self.indices.iter().map(|index| Array::resolve(index, environment)).collect::<Result<Vec<_>>>()?;
        let indices = Indices::new(name, &arrays, &self.rows.shape)?;
        indices.check(environment)?;
        let moved = elements(&self.value.unwrap_or(self.result).shape);
        if indices.tuples != self.tuples() || indices.tuples * indices.row != moved {
            return Err(Error::internal(name, "an operand or the result is of another shape"));
        }
        let block = elements(&self.rows.shape) / rows * height;
        let (blocks, tuples) = (rows.div_ceil(height), indices.tuples);
        // SAFETY: the caller's promise; every bit pattern is a number.
        let lists = unsafe { std::slice::from_raw_parts_mut(shared.pointer.cast::<u32>(), blocks + 2 * tuples) };
        let (first, rest) = lists.split_at_mut(blocks);
        let (next, place) = rest.split_at_mut(tuples);
        first.fill(NONE);
        // From the last on, each is put before those of its block that follow it.
        for_each_piece_in_order(environment, tuples, PIECE, |range| {
            for tuple in range.map(|index| tuples - 1 - index) {
                // Read once: another thread may be changing an index array of the caller's.
                let offset = indices.offset(tuple)? as usize;
                next[tuple] = first[offset / block];
                place[tuple] = (offset % block) as u32;
                first[offset / block] = tuple as u32;
            }
            Ok(())
        })
    }

    /// Does the `index`-th block of `height` rows.
    ///
    /// # Safety
    /// As for `crate::execute`, of these rows; `shared` is as `prepare` left it.
    pub unsafe fn run(
        &self,
        rows: usize,
        height: usize,
        index: usize,
        shared: Memory,
        environment: &Environment<'_>,
    ) -> Result<()> {
        let (source, out) = (Array::resolve(self.rows, environment)?, Array::resolve(self.result, environment)?);
        let value = self.value.map(|value| Array::resolve(value, environment)).transpose()?;
        let total = elements(&self.rows.shape);
        let (width, block) = (total / rows, total / rows * height);
        let block_start = index * block;
        let length = block.min(width * rows - block_start);
        let at_once = elements(&self.rows.shape[self.indices.len()..]);
        let (blocks, tuples) = (rows.div_ceil(height), self.tuples());
        // SAFETY: as `prepare` left them; blocks only read them.
        let lists = unsafe { std::slice::from_raw_parts(shared.pointer.cast::<u32>(), blocks + 2 * tuples) };
        let (first, rest) = lists.split_at(blocks);
        let (next, place) = rest.split_at(tuples);
        let tuples = Tuples { first: first[index], next, place, at_once, length };
        let size = out.dtype.size();
        let start = |array: &Array<'_>| array.pointer::<u8>().cast_mut().wrapping_add(block_start * size);
        let Some(value) = value else {
            // SAFETY: the tuples' places are inside the block's rows, and each has its own part of the result.
            return with_size!(out.dtype, T => unsafe {
                let (source, out) = (start(&source).cast::<T>(), out.pointer_mut::<T>());
                tuples.each(|tuple, place| std::ptr::copy_nonoverlapping(source.add(place), out.add(tuple), at_once));
                Ok(())
            });
        };
        if !out.is_at(&source) {
            // SAFETY: both have the block's rows, which do not overlap where they are not the same.
            unsafe { std::ptr::copy_nonoverlapping(start(&source), start(&out), length * size) };
        }
        match self.kind {
            Kind::Add => with_dtype!(out.dtype, T => {
                // SAFETY: the tuples' places are inside the block's rows, which are this thread's alone.
                unsafe { tuples.scatter(value.pointer::<T>(), start(&out).cast::<T>(), <T as Number>::add) }
            }),
            _ => with_size!(out.dtype, T => {
                // SAFETY: as above.
                unsafe { tuples.scatter(value.pointer::<T>(), start(&out).cast::<T>(), |_, value| value) }
            }),
        }
        Ok(())
    }
}

/// The tuples of one block.
struct Tuples<'a> {
    first: u32,
    /// By tuple: the one behind it, and where in the block it points.
    next: &'a [u32],
    place: &'a [u32],
    /// Elements that a tuple names.
    at_once: usize,
    /// Elements of the block.
    length: usize,
}

impl Tuples<'_> {
    /// Calls `visit(first element of the value or result, first element in the block)` for each tuple in turn.
    #[inline(always)]
    fn each(&self, mut visit: impl FnMut(usize, usize)) {
        let mut tuple = self.first;
        while tuple != NONE {
            let place = self.place[tuple as usize] as usize;
            debug_assert!(place + self.at_once <= self.length);
            visit(tuple as usize * self.at_once, place);
            tuple = self.next[tuple as usize];
        }
    }

    /// # Safety
    /// `value` has `at_once` elements for each tuple; `out` is the block, which nobody else has use of.
    #[inline(always)]
    unsafe fn scatter<T: Copy>(&self, value: *const T, out: *mut T, join: impl Fn(T, T) -> T) {
        self.each(|first, place| {
            for element in 0..self.at_once {
                // SAFETY: the caller's promises; places are inside the block.
                unsafe {
                    let target = out.add(place + element);
                    *target = join(*target, *value.add(first + element));
                }
            }
        });
    }
}

fn buffer(array: &ArrayRef) -> Option<BufferId> {
    match array.source {
        Source::Buffer(id) => Some(id),
        _ => None,
    }
}
