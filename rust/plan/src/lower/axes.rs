//! Iteration axes of a fused kernel, as few as its loads allow.
//!
//! A kernel's inner loop is its last axis, so longer and fewer axes are faster. Neighbouring axes merge where
//! every load steps through both with one stride. Under a reduction only axes that are both reduced or both kept
//! merge: the reduction's tree is defined on the row-major index over kept and over reduced axes, which such a merge
//! leaves as it is.

use crate::program::{Extents, Flags, Load};

/// Drops axes of one element and merges neighbours, in place. `reduced` says of each axis whether it is reduced.
pub(crate) fn collapse(extents: &mut Extents, reduced: &mut Flags, loads: &mut [Load]) {
    if extents.is_empty() || (extents.len() == 1 && extents[0] != 1) {
        return;
    }
    // The axes so far are the first `kept`.
    let mut kept = 0;
    for axis in 0..extents.len() {
        let (extent, flag) = (extents[axis], reduced[axis]);
        if extent == 1 {
            continue;
        }
        let one_stride = |load: &Load| {
            let outer = i64::try_from(extent).ok().and_then(|extent| load.strides[axis].checked_mul(extent));
            Some(load.strides[kept - 1]) == outer
        };
        if kept > 0 && reduced[kept - 1] == flag && loads.iter().all(one_stride) {
            extents[kept - 1] *= extent;
        } else {
            (extents[kept], reduced[kept]) = (extent, flag);
            kept += 1;
        }
        for load in &mut *loads {
            load.strides[kept - 1] = load.strides[axis];
        }
    }
    extents.truncate(kept);
    extents.shrink_to_fit();
    reduced.truncate(kept);
    for load in loads {
        load.strides.truncate(kept);
        load.strides.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use ckad_graph::DType;
    use smallvec::SmallVec;

    use super::*;
    use crate::program::Source;

    #[derive(PartialEq, Debug)]
    struct Axes {
        extents: Extents,
        reduced: Flags,
        loads: Vec<Load>,
    }

    impl Axes {
        fn collapse(&mut self) {
            collapse(&mut self.extents, &mut self.reduced, &mut self.loads);
        }
    }

    fn axes(extents: &[usize], reduced: &[bool], strides: &[&[i64]]) -> Axes {
        let (source, dtype) = (Source::Index, DType::F64);
        let load = |strides: &&[i64]| {
            let strides = SmallVec::from_slice(strides);
            Load { source, dtype, strides, offset: 0, starts: Vec::new(), register: 0 }
        };
        Axes {
            extents: SmallVec::from_slice(extents),
            reduced: SmallVec::from_slice(reduced),
            loads: strides.iter().map(load).collect(),
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
