//! The planner's tables over nodes, clusters and steps: refused memory is an error (see `ckad_graph::tables`).

use ckad_graph::{Result, tables};

const OP: &str = "plan";

/// A table of `len` entries.
pub(crate) fn filled<T: Clone>(value: T, len: usize) -> Result<Vec<T>> {
    tables::filled(OP, value, len)
}

/// An empty list with room for `len` entries.
pub(crate) fn room<T>(len: usize) -> Result<Vec<T>> {
    tables::room(OP, len)
}

/// What the iterator gives.
pub(crate) fn collected<T>(entries: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut list = room(entries.size_hint().0)?;
    for entry in entries {
        push(&mut list, entry)?;
    }
    Ok(list)
}

/// Appends one entry.
#[inline]
pub(crate) fn push<T>(list: &mut Vec<T>, entry: T) -> Result<()> {
    tables::push(OP, list, entry)
}
