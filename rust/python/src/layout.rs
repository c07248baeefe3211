//! How a logical array lies in a flat memory: NumPy's offset, shape and strides, and NumPy's rules for them.
//!
//! Pure arithmetic, no Python: slices, transposes and reshapes that are views, the order in which NumPy lays out
//! the result of an operation ("K-order"), and whether a view is the whole of its memory. Strides are in elements
//! here; nothing but contiguity depends on the unit, so the same rules serve the caller's own strides in bytes.

/// A logical array over a flat memory: element `i…` lies at `offset + Σ i·stride`.
#[derive(Clone, Eq, Debug, Default)]
pub struct Layout {
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl PartialEq for Layout {
    #[inline]
    fn eq(&self, other: &Layout) -> bool {
        self.offset == other.offset && same_list(&self.shape, &other.shape) && same_list(&self.strides, &other.strides)
    }
}

/// Are the lists equal? Item by item: C's `memcmp` of two empty lists, as those of elements are, reads with nothing
/// selected at addresses where nothing is, for which AVX-512 takes hundreds of cycles.
#[inline]
pub fn same_list(a: &[i64], b: &[i64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

/// Strides of a packed array in C order. An empty axis counts as one of length 1, as in NumPy.
fn packed_strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    let mut stride = 1;
    for axis in (0..shape.len()).rev() {
        strides[axis] = stride;
        stride *= shape[axis].max(1);
    }
    strides
}

/// `permuted(list, order)[i] = list[order[i]]`.
pub fn permuted(list: &[i64], order: &[usize]) -> Vec<i64> {
    order.iter().map(|&axis| list[axis]).collect()
}

/// The permutation that undoes `order`.
pub fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (position, &axis) in order.iter().enumerate() {
        inverse[axis] = position;
    }
    inverse
}

pub fn is_identity(order: &[usize]) -> bool {
    order.iter().enumerate().all(|(position, &axis)| position == axis)
}

impl Layout {
    /// A packed array in C order.
    pub fn contiguous(shape: &[i64]) -> Layout {
        Layout { offset: 0, shape: shape.to_vec(), strides: packed_strides(shape) }
    }

    /// As `contiguous`, of a shape that is given away.
    pub fn of_shape(shape: Vec<i64>) -> Layout {
        Layout { offset: 0, strides: packed_strides(&shape), shape }
    }

    /// A packed array whose axes lie in memory in the order `order`, outermost first.
    pub fn ordered(shape: &[i64], order: &[usize]) -> Layout {
        Layout::contiguous(&permuted(shape, order)).transposed(&inverse(order))
    }

    /// What `contiguous` gives for the shape, of at least one axis.
    pub fn is_plain(&self) -> bool {
        let mut packed = 1;
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if stride != packed {
                return false;
            }
            packed *= extent.max(1);
        }
        self.offset == 0 && !self.shape.is_empty()
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Where in memory the element is that is at `position` in C order.
    pub fn offset_of(&self, mut position: i64) -> i64 {
        let mut offset = self.offset;
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
            offset += position % extent * stride;
            position /= extent;
        }
        offset
    }

    pub fn elements(&self) -> i64 {
        self.shape.iter().product()
    }

    /// NumPy's flag: axes of length 1 do not count, and an empty array is contiguous. `unit` is the stride of
    /// adjacent elements.
    pub fn is_c_contiguous(&self, unit: i64) -> bool {
        contiguous_along(self.shape.iter().zip(&self.strides).rev(), unit)
    }

    pub fn is_f_contiguous(&self, unit: i64) -> bool {
        contiguous_along(self.shape.iter().zip(&self.strides), unit)
    }

    /// Axis `i` of the result is axis `order[i]`.
    pub fn transposed(&self, order: &[usize]) -> Layout {
        Layout { offset: self.offset, shape: permuted(&self.shape, order), strides: permuted(&self.strides, order) }
    }

    /// `extent` elements of an axis, from `start` in steps of `step`.
    pub fn sliced(mut self, axis: usize, start: i64, step: i64, extent: i64) -> Layout {
        self.offset += start * self.strides[axis];
        self.strides[axis] *= step;
        self.shape[axis] = extent;
        self
    }

    /// The element `index` of an axis, which goes away.
    pub fn indexed(mut self, axis: usize, index: i64) -> Layout {
        self.offset += index * self.strides[axis];
        self.without_axis(axis);
        self
    }

    fn without_axis(&mut self, axis: usize) {
        self.shape.remove(axis);
        self.strides.remove(axis);
    }

    /// A new axis of length 1 before `axis`, with stride 0 as NumPy gives it.
    pub fn expanded(mut self, axis: usize) -> Layout {
        self.shape.insert(axis, 1);
        self.strides.insert(axis, 0);
        self
    }

    /// Without the axes of length 1 for which `drop` holds.
    pub fn squeezed(mut self, drop: impl Fn(usize) -> bool) -> Layout {
        for axis in (0..self.rank()).rev() {
            if self.shape[axis] == 1 && drop(axis) {
                self.without_axis(axis);
            }
        }
        self
    }

    /// Broadcast to `shape` by NumPy's rule, or None where it does not fit. Repeated axes get stride 0.
    pub fn broadcast(&self, shape: &[i64]) -> Option<Layout> {
        let lead = shape.len().checked_sub(self.rank())?;
        let mut strides = vec![0; shape.len()];
        for axis in 0..self.rank() {
            let extent = self.shape[axis];
            if extent != 1 && extent != shape[lead + axis] {
                return None;
            }
            strides[lead + axis] = if extent == 1 { 0 } else { self.strides[axis] };
        }
        Some(Layout { offset: self.offset, shape: shape.to_vec(), strides })
    }

    /// The diagonal `axis1 = axis2 + shift` as a last axis (both axes go away).
    pub fn diagonal(mut self, shift: i64, axis1: usize, axis2: usize) -> Layout {
        let (rows, columns) = (self.shape[axis1], self.shape[axis2]);
        let (row_stride, column_stride) = (self.strides[axis1], self.strides[axis2]);
        let extent = if shift >= 0 { rows.min(columns - shift) } else { (rows + shift).min(columns) }.max(0);
        if extent > 0 {
            self.offset += if shift >= 0 { shift * column_stride } else { -shift * row_stride };
        }
        self.without_axis(axis1.max(axis2));
        self.without_axis(axis1.min(axis2));
        self.shape.push(extent);
        self.strides.push(row_stride + column_stride);
        self
    }

    /// Windows of lengths `lengths` sliding along `axes`; the windows' axes come last.
    pub fn windows(mut self, axes: &[usize], lengths: &[i64]) -> Layout {
        for (&axis, &length) in axes.iter().zip(lengths) {
            self.shape[axis] -= length - 1;
            self.strides.push(self.strides[axis]);
            self.shape.push(length);
        }
        self
    }

    /// The same elements under another shape where that is a view, else None: NumPy's own algorithm, so that we
    /// copy exactly when it copies. `unit` as in `is_c_contiguous`. The sizes are equal.
    pub fn reshaped(&self, shape: &[i64], unit: i64) -> Option<Layout> {
        if self.shape == shape {
            return Some(self.clone());
        }
        if self.is_c_contiguous(unit) {
            let strides = packed_strides(shape).iter().map(|stride| stride * unit).collect();
            return Some(Layout { offset: self.offset, shape: shape.to_vec(), strides });
        }
        let old: Vec<(i64, i64)> =
            self.shape.iter().copied().zip(self.strides.iter().copied()).filter(|&(extent, _)| extent != 1).collect();
        let mut strides = vec![0; shape.len()];
        let (mut from, mut to) = (0, 0);
        // Pairs of groups of axes with equal products: old[from..from_end] becomes shape[to..to_end].
        while to < shape.len() && from < old.len() {
            let (mut from_end, mut to_end) = (from + 1, to + 1);
            let (mut have, mut want) = (old[from].0, shape[to]);
            while have != want {
                if want < have {
                    want *= shape[to_end];
                    to_end += 1;
                } else {
                    have *= old[from_end].0;
                    from_end += 1;
                }
            }
            if old[from..from_end].windows(2).any(|pair| pair[0].1 != pair[1].0 * pair[1].1) {
                return None;
            }
            strides[to_end - 1] = old[from_end - 1].1;
            for axis in (to + 1..to_end).rev() {
                strides[axis - 1] = strides[axis] * shape[axis];
            }
            (from, to) = (from_end, to_end);
        }
        // What is left are trailing axes of length 1.
        let last = if to >= 1 { strides[to - 1] } else { unit };
        strides[to..].fill(last);
        Some(Layout { offset: self.offset, shape: shape.to_vec(), strides })
    }

    /// The order of axes in memory, outermost first, of a copy that keeps the layout (`np.copy(order="K")`).
    pub fn memory_order(&self, unit: i64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rank()).collect();
        if self.is_c_contiguous(unit) {
            return order;
        }
        if self.is_f_contiguous(unit) {
            order.reverse();
            return order;
        }
        order.sort_by_key(|&axis| std::cmp::Reverse(self.strides[axis].abs()));
        order
    }

    /// If the array is a packed memory of `elements` elements, read from first to last but for the order of axes:
    /// that order, outermost first (the identity where only axes of length 1 could move).
    pub fn covering_order(&self, elements: i64) -> Option<Vec<usize>> {
        if self.elements() != elements {
            return None;
        }
        let identity = (0..self.rank()).collect();
        if elements == 0 || (self.offset == 0 && self.is_c_contiguous(1)) {
            return Some(identity);
        }
        if self.offset != 0 {
            return None;
        }
        let mut order: Vec<usize> = identity;
        order.sort_by_key(|&axis| std::cmp::Reverse(if self.shape[axis] == 1 { i64::MAX } else { self.strides[axis] }));
        self.transposed(&order).is_c_contiguous(1).then_some(order)
    }

    /// The layout with every negative stride turned round, and which axes were.
    pub fn unflipped(&self) -> (Layout, Vec<usize>) {
        let mut layout = self.clone();
        let mut flipped = Vec::new();
        for axis in 0..self.rank() {
            if self.strides[axis] < 0 && self.shape[axis] > 0 {
                layout = layout.sliced(axis, self.shape[axis] - 1, -1, self.shape[axis]);
                flipped.push(axis);
            }
        }
        (layout, flipped)
    }

    /// May two different indices mean one element? Exact for layouts that NumPy makes, else cautious.
    pub fn overlaps_itself(&self) -> bool {
        let mut axes: Vec<(i64, i64)> = (0..self.rank())
            .filter(|&axis| self.shape[axis] > 1)
            .map(|axis| (self.strides[axis].abs(), self.shape[axis]))
            .collect();
        axes.sort_unstable();
        let mut reach = 0;
        self.elements() > 0
            && axes.iter().any(|&(stride, extent)| {
                let collides = stride <= reach;
                reach += stride * (extent - 1);
                collides
            })
    }
}

fn contiguous_along<'a>(axes: impl Iterator<Item = (&'a i64, &'a i64)> + Clone, unit: i64) -> bool {
    if axes.clone().any(|(&extent, _)| extent == 0) {
        return true;
    }
    let mut expected = unit;
    for (&extent, &stride) in axes {
        if extent != 1 {
            if stride != expected {
                return false;
            }
            expected *= extent;
        }
    }
    true
}

/// The broadcast of shapes by NumPy's rule, or None where they do not fit.
pub fn broadcast_shapes<'a>(shapes: impl Iterator<Item = &'a [i64]> + Clone) -> Option<Vec<i64>> {
    let rank = shapes.clone().map(<[i64]>::len).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        let lead = rank - shape.len();
        for (axis, &extent) in shape.iter().enumerate() {
            let known = &mut result[lead + axis];
            if *known == 1 {
                *known = extent;
            } else if extent != 1 && extent != *known {
                return None;
            }
        }
    }
    Some(result)
}

/// An operand's strides against the axes of the broadcast result, 0 where it repeats: what decides K-order.
pub fn broadcast_strides(shape: &[i64], strides: &[i64], rank: usize) -> Vec<i64> {
    let mut result = vec![0; rank];
    let lead = rank - shape.len();
    for axis in 0..shape.len() {
        if shape[axis] != 1 {
            result[lead + axis] = strides[axis];
        }
    }
    result
}

/// NumPy's stable insertion sort of axes from the largest stride to the smallest: `compare(a, b)` yields, for each
/// operand that says something about the two axes, whether axis `a` has the larger stride. Operands that disagree
/// give C order; axes of which none says anything are passed over.
fn sort_axes<I: Iterator<Item = bool>>(rank: usize, compare: impl Fn(usize, usize) -> I) -> Vec<usize> {
    // From the innermost axis outwards, as the iterator does it.
    let mut inner_first: Vec<usize> = (0..rank).rev().collect();
    for next in 1..rank {
        let axis = inner_first[next];
        let mut position = next;
        for candidate in (0..next).rev() {
            let mut verdict: Option<bool> = None;
            for larger in compare(inner_first[candidate], axis) {
                // One operand in C order outvotes the others.
                verdict = Some(larger && verdict.unwrap_or(true));
            }
            match verdict {
                Some(true) => position = candidate,
                Some(false) => break,
                None => {}
            }
        }
        inner_first[position..=next].rotate_right(1);
    }
    inner_first.reverse();
    inner_first
}

/// The order of axes, outermost first, in which `np.nditer` walks operands with these broadcast strides; results
/// that it allocates lie in memory in that order.
pub fn iteration_order(rank: usize, operands: &[Vec<i64>]) -> Vec<usize> {
    if rank < 2 {
        return (0..rank).collect();
    }
    sort_axes(rank, |inner, outer| {
        operands
            .iter()
            .filter(move |strides| strides[inner] != 0 && strides[outer] != 0)
            .map(move |strides| strides[inner].abs() > strides[outer].abs())
    })
}

/// The order of axes, outermost first, of what `np.concatenate` allocates for arrays of equal rank.
pub fn concatenation_order(rank: usize, arrays: &[Layout]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rank).collect();
    for next in 1..rank {
        let axis = order[next];
        let mut position = next;
        for candidate in (0..next).rev() {
            let other = order[candidate];
            let mut verdict: Option<bool> = None;
            for array in arrays.iter().filter(|array| array.shape[axis] != 1 && array.shape[other] != 1) {
                let larger = array.strides[axis].abs() > array.strides[other].abs();
                verdict = Some(larger && verdict.unwrap_or(true));
            }
            match verdict {
                Some(true) => position = candidate,
                Some(false) => break,
                None => {}
            }
        }
        order[position..=next].rotate_right(1);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(offset: i64, shape: &[i64], strides: &[i64]) -> Layout {
        Layout { offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[test]
    fn reshape_is_a_view_exactly_where_numpy_says() {
        let c = Layout::contiguous(&[2, 3, 4]);
        assert_eq!(c.reshaped(&[6, 4], 1), Some(Layout::contiguous(&[6, 4])));
        let f = Layout::ordered(&[3, 4], &[1, 0]);
        assert_eq!(f.strides, [1, 3]);
        assert_eq!(f.reshaped(&[12], 1), None);
        assert_eq!(f.reshaped(&[3, 2, 2], 1).map(|l| l.strides), Some(vec![1, 6, 3]));
        // A strided 1-D view reshapes without a copy, forwards and backwards.
        assert_eq!(layout(0, &[4], &[2]).reshaped(&[2, 2], 1), Some(layout(0, &[2, 2], &[4, 2])));
        assert_eq!(layout(3, &[4], &[-1]).reshaped(&[2, 2], 1), Some(layout(3, &[2, 2], &[-2, -1])));
        assert_eq!(layout(0, &[2, 2], &[4, 1]).reshaped(&[4], 1), None);
        // Trailing ones take the last stride.
        assert_eq!(layout(0, &[4], &[2]).reshaped(&[4, 1, 1], 1), Some(layout(0, &[4, 1, 1], &[2, 2, 2])));
        // In bytes.
        assert_eq!(layout(0, &[4, 2], &[16, 8]).reshaped(&[8], 8), Some(layout(0, &[8], &[8])));
        assert_eq!(layout(0, &[0, 3], &[0, 7]).reshaped(&[3, 0], 1), Some(layout(0, &[3, 0], &[1, 1])));
    }

    #[test]
    fn slices_index_and_diagonal() {
        let a = Layout::contiguous(&[3, 4]);
        assert_eq!(a.clone().sliced(1, 3, -1, 4), layout(3, &[3, 4], &[4, -1]));
        assert_eq!(a.clone().indexed(0, 2), layout(8, &[4], &[1]));
        assert_eq!(a.clone().diagonal(1, 0, 1), layout(1, &[3], &[5]));
        assert_eq!(a.clone().diagonal(-1, 0, 1), layout(4, &[2], &[5]));
        assert_eq!(a.clone().diagonal(9, 0, 1), layout(0, &[0], &[5]));
        assert_eq!(a.windows(&[1], &[2]), layout(0, &[3, 3, 2], &[4, 1, 1]));
    }

    #[test]
    fn covering_views() {
        assert_eq!(Layout::contiguous(&[3, 4]).covering_order(12), Some(vec![0, 1]));
        assert_eq!(Layout::ordered(&[3, 4], &[1, 0]).covering_order(12), Some(vec![1, 0]));
        assert_eq!(Layout::contiguous(&[3, 4]).covering_order(13), None);
        assert_eq!(layout(0, &[3], &[-1]).covering_order(3), None);
        assert_eq!(layout(0, &[3, 1, 4], &[4, 77, 1]).covering_order(12), Some(vec![0, 1, 2]));
        assert_eq!(layout(0, &[2, 2], &[0, 1]).covering_order(4), None);
        let (turned, flipped) = layout(2, &[3], &[-1]).unflipped();
        assert_eq!((turned.covering_order(3), flipped), (Some(vec![0]), vec![0]));
    }

    #[test]
    fn k_order_follows_nditer() {
        let c = vec![4, 1];
        let f = vec![1, 3];
        assert_eq!(iteration_order(2, std::slice::from_ref(&f)), [1, 0]);
        // A conflict goes to C order, whichever operand comes first.
        assert_eq!(iteration_order(2, &[c.clone(), f.clone()]), [0, 1]);
        assert_eq!(iteration_order(2, &[f.clone(), c]), [0, 1]);
        // A repeated axis says nothing.
        assert_eq!(iteration_order(2, &[vec![0, 1], f.clone()]), [1, 0]);
        assert_eq!(iteration_order(2, &[vec![-1, -3]]), [1, 0]);
        // np.zeros((2, 3, 4)).transpose(1, 2, 0) keeps its memory order.
        assert_eq!(iteration_order(3, &[vec![4, 1, 12]]), [2, 0, 1]);
    }

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast_shapes([&[3, 1][..], &[4]].into_iter()), Some(vec![3, 4]));
        assert_eq!(broadcast_shapes([&[3][..], &[4]].into_iter()), None);
        assert_eq!(broadcast_shapes([&[0][..], &[1]].into_iter()), Some(vec![0]));
        assert_eq!(Layout::contiguous(&[3, 1]).broadcast(&[2, 3, 4]), Some(layout(0, &[2, 3, 4], &[0, 1, 0])));
    }

    #[test]
    fn overlap() {
        assert!(!Layout::contiguous(&[3, 4]).overlaps_itself());
        assert!(layout(0, &[3, 2], &[1, 1]).overlaps_itself());
        assert!(layout(0, &[3], &[0]).overlaps_itself());
        assert!(!layout(9, &[3, 2], &[-4, 2]).overlaps_itself());
    }
}
