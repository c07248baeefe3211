//! What the strided primitives share: the positions `start + Σ i·stride` of a flat memory.

use ckad_graph::{DType, Error, Graph, ListId, NodeId, Result, StartId, shape_text};

use crate::infer::{Inferred, check_same_dtype, exactly};
use crate::shape::{check_shape, elements};

/// A window of flat memory: element `i…` is at `start + Σ i·stride`.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub shape: &'a [i64],
    pub strides: &'a [i64],
    pub start: i64,
}

impl Window<'_> {
    /// All positions lie in a memory of `length` elements.
    pub fn check(self, name: &str, length: i64) -> Result<()> {
        check_shape(name, self.shape)?;
        if self.strides.len() != self.shape.len() {
            let what = format!("{} strides for {} axes", self.strides.len(), self.shape.len());
            return Err(Error::internal(name, what));
        }
        if self.shape.contains(&0) {
            return Ok(());
        }
        let (mut least, mut greatest) = (i128::from(self.start), i128::from(self.start));
        for (&extent, &stride) in self.shape.iter().zip(self.strides) {
            let reach = i128::from(extent - 1) * i128::from(stride);
            least += reach.min(0);
            greatest += reach.max(0);
        }
        if least < 0 || greatest >= i128::from(length) {
            let what = format!(
                "positions {least} to {greatest} of a memory of {length} elements: shape {}, strides {}",
                shape_text(self.shape),
                shape_text(self.strides)
            );
            return Err(Error::internal(name, what));
        }
        Ok(())
    }

    /// No position of a memory of `length` elements occurs twice. Call after `check`.
    pub fn check_distinct(self, name: &str, length: i64) -> Result<()> {
        let mut axes: Vec<(i64, i64)> = (self.strides.iter().map(|stride| stride.abs()))
            .zip(self.shape.iter().copied())
            .filter(|&(_, extent)| extent != 1)
            .collect();
        if self.shape.contains(&0) {
            return Ok(());
        }
        axes.sort_unstable();
        let mut reach = 0;
        let nested = axes.iter().all(|&(stride, extent)| {
            let apart = stride > reach;
            reach += stride * (extent - 1);
            apart
        });
        if nested || (elements(self.shape) <= length && self.distinct_by_listing()) {
            return Ok(());
        }
        let what = format!("positions repeat: shape {}, strides {}", shape_text(self.shape), shape_text(self.strides));
        Err(Error::value(name, what).with_hint("write to a `.copy()` of the view instead"))
    }

    /// The exact answer for interleaved axes (a diagonal of a window), where strides alone do not tell.
    fn distinct_by_listing(self) -> bool {
        let mut positions = vec![self.start];
        for (&extent, &stride) in self.shape.iter().zip(self.strides) {
            positions = positions.iter().flat_map(|&at| (0..extent).map(move |i| at + i * stride)).collect();
        }
        positions.sort_unstable();
        positions.windows(2).all(|pair| pair[0] != pair[1])
    }
}

/// Inference of `(base, value)` operations: the base, with the value's window inside.
pub(crate) fn infer_write(
    name: &str,
    graph: &Graph,
    operands: &[NodeId],
    strides: &[i64],
    start: i64,
    distinct: bool,
) -> Result<Inferred> {
    let [base, value] = exactly(name, operands)?;
    check_same_dtype(name, graph.dtype(base), graph.dtype(value))?;
    let window = Window { shape: graph.shape(value), strides, start };
    window.check(name, elements(graph.shape(base)))?;
    if distinct {
        window.check_distinct(name, elements(graph.shape(base)))?;
    } else if graph.dtype(base) == DType::Bool {
        return Err(Error::dtype(name, "it is not defined for bool").with_hint("convert with `.astype(int)` first"));
    }
    Ok((graph.dtype(base), graph.shape(base).to_vec()))
}

/// The strides and the start that a strided operation of `graph` refers to.
pub(crate) fn resolve(graph: &Graph, strides: ListId, start: StartId) -> Result<(&[i64], i64)> {
    let start = graph.starts.get(start.0 as usize);
    let start = start.ok_or_else(|| Error::internal("strided", "a start outside the table"))?;
    Ok((graph.lists.get(strides), *start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(shape: &[i64], strides: &[i64]) -> bool {
        Window { shape, strides, start: 0 }.check_distinct("test", 100).is_ok()
    }

    #[test]
    fn repeated_positions_are_found() {
        assert!(distinct(&[3, 4], &[4, 1]));
        assert!(distinct(&[3, 4], &[-4, -1]));
        assert!(distinct(&[3], &[5]));
        assert!(!distinct(&[3, 2], &[1, 1]));
        assert!(!distinct(&[3], &[0]));
        assert!(distinct(&[1, 0], &[0, 0]));
        // Interleaved, yet distinct: 0 3 6, 2 5 8.
        assert!(distinct(&[2, 3], &[2, 3]));
        assert!(!distinct(&[4, 3], &[2, 3]));
    }

    #[test]
    fn windows_stay_inside() {
        let window = |start, stride| Window { shape: &[3], strides: &[stride], start }.check("test", 6).is_ok();
        assert!(window(0, 2));
        assert!(!window(2, 2));
        assert!(window(5, -2));
        assert!(!window(3, -2));
        assert!(!window(0, i64::MAX));
    }
}
