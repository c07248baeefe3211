//! A given number of segments that hold about equal bytes, each border moved to a thin place nearby.

use ckad_graph::Result;

use crate::policy::profile::Stretch;
use crate::tables::collected;

/// At most `count − 1` borders.
pub(crate) fn borders(stretch: &Stretch, count: u32) -> Result<Vec<usize>> {
    let cross: Vec<u64> = collected(stretch.new_bytes(0).map(|crossing| crossing.bytes))?;
    let total = u128::from(stretch.total());
    let count = u128::from(count.max(1));
    // The border at which the given share, in quarters of a segment, is held.
    let place = |quarters: u128| {
        let share = total * quarters / (4 * count);
        stretch.held.partition_point(|&held| u128::from(held) < share)
    };
    let mut borders: Vec<usize> = Vec::new();
    for segment in 1..count.min(stretch.length as u128) {
        let after = borders.last().copied().unwrap_or(0);
        let (low, high) = (place(4 * segment - 1).max(after + 1), place(4 * segment + 1));
        let candidates = || (low..=high.min(stretch.length - 1)).filter(|&border| stretch.allowed[border]);
        let Some(least) = candidates().map(|border| cross[border - 1]).min() else { continue };
        let middle = place(4 * segment);
        let thin = candidates().filter(|&border| u128::from(cross[border - 1]) * 100 <= u128::from(least) * 115);
        borders.extend(thin.min_by_key(|border| border.abs_diff(middle)));
    }
    Ok(borders)
}
