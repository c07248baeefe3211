//! Iteration axes of a fused kernel, as few as its loads allow.
//!
//! A kernel's inner loop is its last axis, so longer and fewer axes are faster. Neighbouring axes merge where
//! every load steps through both with one stride. Under a reduction only axes that are both reduced or both kept
//! merge: the reduction's tree is defined on the row-major index over kept and over reduced axes, which such a merge
//! leaves as it is.

/// Extents with, for each, whether it is reduced; and the strides of every load along them.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Axes {
    pub extents: Vec<usize>,
    pub reduced: Vec<bool>,
    /// By load, by axis.
    pub strides: Vec<Vec<i64>>,
}

impl Axes {
    /// Drops axes of one element and merges neighbours.
    pub fn collapse(&mut self) {
        if self.extents.is_empty() || (self.extents.len() == 1 && self.extents[0] != 1) {
            return;
        }
        let (mut extents, mut reduced): (Vec<usize>, Vec<bool>) = (Vec::new(), Vec::new());
        let mut strides: Vec<Vec<i64>> = vec![Vec::with_capacity(self.extents.len()); self.strides.len()];
        for axis in 0..self.extents.len() {
            let (extent, flag) = (self.extents[axis], self.reduced[axis]);
            if extent == 1 {
                continue;
            }
            let merges = reduced.last() == Some(&flag)
                && self.strides.iter().zip(&strides).all(|(old, new)| {
                    new.last().copied() == i64::try_from(extent).ok().and_then(|extent| old[axis].checked_mul(extent))
                });
            match extents.last_mut() {
                Some(outer) if merges => {
                    *outer *= extent;
                    for (old, new) in self.strides.iter().zip(&mut strides) {
                        if let Some(stride) = new.last_mut() {
                            *stride = old[axis];
                        }
                    }
                }
                _ => {
                    extents.push(extent);
                    reduced.push(flag);
                    for (old, new) in self.strides.iter().zip(&mut strides) {
                        new.push(old[axis]);
                    }
                }
            }
        }
        *self = Axes { extents, reduced, strides };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(extents: &[usize], reduced: &[bool], strides: &[&[i64]]) -> Axes {
        Axes {
            extents: extents.to_vec(),
            reduced: reduced.to_vec(),
            strides: strides.iter().map(|strides| strides.to_vec()).collect(),
        }
    }

    #[test]
    fn packed_and_broadcast_loads_become_one_axis() {
        let mut all = axes(&[2, 1, 3, 4], &[false; 4], &[&[12, 0, 4, 1], &[0, 0, 0, 0]]);
        all.collapse();
        assert_eq!(all, axes(&[24], &[false], &[&[1], &[0]]));
    }

    #[test]
    fn a_row_vector_keeps_the_rows_apart() {
        let mut rows = axes(&[2, 3, 4], &[false; 3], &[&[12, 4, 1], &[0, 0, 1]]);
        rows.collapse();
        assert_eq!(rows, axes(&[6, 4], &[false; 2], &[&[4, 1], &[0, 1]]));
        let mut transposed = axes(&[3, 4], &[false; 2], &[&[1, 3]]);
        transposed.collapse();
        assert_eq!(transposed, axes(&[3, 4], &[false; 2], &[&[1, 3]]));
    }

    #[test]
    fn kept_and_reduced_axes_never_merge() {
        let mut mixed = axes(&[2, 3, 4, 5], &[false, false, true, true], &[&[60, 20, 5, 1]]);
        mixed.collapse();
        assert_eq!(mixed, axes(&[6, 20], &[false, true], &[&[20, 1]]));
        let mut scalar = axes(&[1, 1], &[true, false], &[&[0, 0]]);
        scalar.collapse();
        assert_eq!(scalar, axes(&[], &[], &[&[]]));
    }

    #[test]
    fn no_loads_merge_freely() {
        let mut none = axes(&[2, 0, 4], &[false; 3], &[]);
        none.collapse();
        assert_eq!(none, axes(&[0], &[false], &[]));
    }
}
