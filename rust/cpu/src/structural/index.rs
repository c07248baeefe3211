//! Integer indices as gather and scatter read them: wrapped where negative, refused where out of range.

use std::sync::atomic::{AtomicUsize, Ordering};

use ckad_graph::{DType, Error, ErrorKind, Result};

use super::array::{Array, packed_strides};
use super::parallel::{PIECE, Shared, for_each_piece};
use crate::Environment;

/// Checked index arrays over the leading axes of one array.
pub struct Indices {
    axes: Vec<(Shared<i64>, i64, isize)>,
    /// Number of index tuples.
    pub tuples: usize,
    /// Elements of one indexed row.
    pub row: usize,
}

impl Indices {
    /// Checks all indices into `indexed`; the first that is out of range, axis by axis, is the error.
    pub fn check(op: &str, indices: &[Array<'_>], indexed: &[usize], environment: &Environment<'_>) -> Result<Indices> {
        let tuples = indices.first().map_or(1, Array::elements);
        if indices.len() > indexed.len()
            || indices.iter().any(|array| array.dtype != DType::I64 || array.elements() != tuples)
        {
            return Err(Error::internal(op, "indices are int64 arrays of one shape, one per leading axis"));
        }
        let strides = packed_strides(indexed);
        let mut axes = Vec::with_capacity(indices.len());
        for (axis, array) in indices.iter().enumerate() {
            let extent = indexed[axis] as i64;
            let values = Shared::read_only(array.pointer::<i64>());
            let bad = AtomicUsize::new(usize::MAX);
            for_each_piece(environment, tuples, PIECE, |range| {
                // SAFETY: the array has `tuples` elements, which nobody writes.
                let piece = unsafe { std::slice::from_raw_parts(values.get().add(range.start), range.len()) };
                if let Some(place) = piece.iter().position(|&index| index < -extent || index >= extent) {
                    bad.fetch_min(range.start + place, Ordering::Relaxed);
                }
                Ok(())
            })?;
            let bad = bad.into_inner();
            if bad != usize::MAX {
                // SAFETY: a place found above.
                let index = unsafe { *values.at(bad as isize) };
                let what = format!("index {index} is out of bounds for axis {axis} with size {extent}");
                let hint = format!("indices go from {} to {}", -extent, extent - 1);
                return Err(Error::new(ErrorKind::Index, op, what).with_hint(hint));
            }
            axes.push((values, extent, strides[axis]));
        }
        Ok(Indices { axes, tuples, row: indexed[indices.len()..].iter().product() })
    }

    /// Offset of the row that tuple `tuple` names.
    #[inline(always)]
    pub fn offset(&self, tuple: usize) -> isize {
        let mut offset = 0;
        for &(values, extent, stride) in &self.axes {
            // SAFETY: `tuple` is below `tuples`, the length of each index array.
            let index = unsafe { *values.at(tuple as isize) };
            // Clamped, so that an index that another thread changed after the check cannot reach outside.
            let index = (if index < 0 { index + extent } else { index }).clamp(0, extent - 1);
            offset += index as isize * stride;
        }
        offset
    }
}
