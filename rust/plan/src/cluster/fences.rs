//! Fences: places on the tape that no group reaches across.
//!
//! A group is kept or recomputed whole, so where a policy divides the tape, a group on both sides of the border carries
//! all of its values across. Groups that end at the borders of a policy's steps carry a state.

/// What begins at a fence is no part of a group before it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Fences {
    #[default]
    Nowhere,
    /// Around each position of the tape.
    Everywhere,
    /// Before each of these positions of the tape, in ascending order.
    Before(Vec<u32>),
}

impl Fences {
    /// Whether one stands between two positions of the tape.
    #[inline]
    pub(crate) fn divide(&self, one: u32, other: u32) -> bool {
        match self {
            Fences::Nowhere => false,
            Fences::Everywhere => one != other,
            Fences::Before(starts) => {
                let (low, high) = (one.min(other), one.max(other));
                low < high && starts.get(starts.partition_point(|&start| start <= low)).is_some_and(|&at| at <= high)
            }
        }
    }
}
