//! Integer indices as gather and scatter read them: wrapped where negative, refused where out of range.

use ckad_graph::{DType, Error, ErrorKind, Result};

use super::array::{Array, elements, packed_strides};
use super::offsets::{Axis, Offsets, RUN, offsets};
use crate::parallel::Shared;
use crate::{Environment, isa};

/// Index arrays over the leading axes of one array.
pub struct Indices {
    op: &'static str,
    axes: Vec<Axis>,
    /// Number of index tuples.
    pub tuples: usize,
    /// Elements of one indexed row.
    pub row: usize,
    /// Where the array has fewer than 2³¹ elements: works out many offsets at once.
    offsets: Option<Offsets>,
}

impl Indices {
    pub fn new(op: &'static str, indices: &[Array<'_>], indexed: &[usize]) -> Result<Indices> {
        let tuples = indices.first().map_or(1, Array::elements);
        if indices.len() > indexed.len()
            || indices.iter().any(|array| array.dtype != DType::I64 || array.elements() != tuples)
        {
            return Err(Error::internal(op, "indices are int64 arrays of one shape, one per leading axis"));
        }
        let axes = indices.iter().zip(indexed).zip(packed_strides(indexed));
        let axes = axes.map(|((array, &extent), stride)| Axis {
            values: Shared::read_only(array.pointer::<i64>()),
            extent: extent as i64,
            stride,
        });
        let offsets = if elements(indexed) < 1 << 31 { Some(offsets(isa()?)) } else { None };
        let row = indexed[indices.len()..].iter().product();
        Ok(Indices { op, axes: axes.collect(), tuples, row, offsets })
    }

    /// Checks all indices; the first that is out of range, axis by axis, is the error.
    pub fn check(&self, environment: &Environment<'_>) -> Result<()> {
        for first in (0..self.tuples).step_by(RUN) {
            if first % (RUN << 7) == 0 {
                environment.check()?;
            }
            self.each_offset(first, RUN.min(self.tuples - first), |_, _| {})?;
        }
        Ok(())
    }

    /// Calls `visit(tuple, offset)` for `count` tuples from `first` on, at most [`RUN`], with the offset of the row
    /// that the tuple names. An error before the first call where one of them is out of range.
    #[inline(always)]
    pub fn each_offset(&self, first: usize, count: usize, mut visit: impl FnMut(usize, isize)) -> Result<()> {
        let Some(offsets) = self.offsets else {
            for tuple in first..first + count {
                visit(tuple, self.offset(tuple)?);
            }
            return Ok(());
        };
        let mut found = [0i32; RUN];
        let found = &mut found[..count.min(RUN)];
        // SAFETY: the index arrays have an entry for each tuple, and no offset exceeds the array's elements.
        if !unsafe { offsets(&self.axes, first, found) } {
            return Err(self.out_of_range());
        }
        for (tuple, &offset) in (first..).zip(found.iter()) {
            visit(tuple, offset as isize);
        }
        Ok(())
    }

    /// Offset of the row that tuple `tuple` names.
    pub fn offset(&self, tuple: usize) -> Result<isize> {
        let mut offset = 0;
        for axis in &self.axes {
            // SAFETY: `tuple` is below `tuples`, the length of each index array.
            let index = unsafe { *axis.values.at(tuple as isize) };
            let wrapped = if index < 0 { index + axis.extent } else { index };
            if !(0..axis.extent).contains(&wrapped) {
                return Err(self.out_of_range());
            }
            offset += wrapped as isize * axis.stride;
        }
        Ok(offset)
    }

    /// The error for the first index, axis by axis, that is out of range.
    fn out_of_range(&self) -> Error {
        for (number, axis) in self.axes.iter().enumerate() {
            // SAFETY: each index array has `tuples` elements. What another thread writes meanwhile changes the message
            // alone.
            let values = unsafe { std::slice::from_raw_parts(axis.values.get(), self.tuples) };
            let extent = axis.extent;
            if let Some(index) = values.iter().find(|&&index| index < -extent || index >= extent) {
                let what = format!("index {index} is out of bounds for axis {number} with size {extent}");
                let hint = format!("indices go from {} to {}", -extent, extent - 1);
                return Error::new(ErrorKind::Index, self.op, what).with_hint(hint);
            }
        }
        Error::new(ErrorKind::Index, self.op, "an index changed while it was read")
            .with_hint("do not write to index arrays from another thread")
    }
}
