//! Tables that grow with a graph. Memory that the system refuses is an error, never the end of the process; and as
//! whoever makes such a table is about to walk over the graph, this is also where Ctrl-C is heard between walks.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crate::{Error, Result, interrupt, shortage};

/// Walks over fewer entries are too short to be interrupted.
const LONG: usize = 4096;

/// A table of `len` entries for the operation `op`.
pub fn filled<T: Clone>(op: &str, value: T, len: usize) -> Result<Vec<T>> {
    let mut entries = room(op, len)?;
    entries.resize(len, value);
    Ok(entries)
}

/// An empty list with room for `len` entries.
pub fn room<T>(op: &str, len: usize) -> Result<Vec<T>> {
    if len >= LONG {
        interrupt::check()?;
    }
    shortage::check(op)?;
    let mut entries = Vec::new();
    entries.try_reserve_exact(len).map_err(|_| Error::memory(op, len.saturating_mul(size_of::<T>())))?;
    Ok(entries)
}

/// Appends one entry.
#[inline]
pub fn push<T>(op: &str, entries: &mut Vec<T>, entry: T) -> Result<()> {
    if entries.len() == entries.capacity() {
        grow(op, entries, 1)?;
    }
    entries.push(entry);
    Ok(())
}

/// The items as a list.
pub fn list<T>(op: &str, items: impl IntoIterator<Item = T>) -> Result<Vec<T>> {
    tried(op, items.into_iter().map(Ok))
}

/// The items as a list, or the first error among them.
pub fn tried<T>(op: &str, items: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let items = items.into_iter();
    let mut entries = room(op, items.size_hint().0)?;
    for item in items {
        push(op, &mut entries, item?)?;
    }
    Ok(entries)
}

/// Appends the items.
pub fn extend<T>(op: &str, entries: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> Result<()> {
    items.into_iter().try_for_each(|item| push(op, entries, item))
}

/// Appends to a text.
pub fn write(op: &str, text: &mut String, more: &str) -> Result<()> {
    shortage::check(op)?;
    let bytes = text.len() + more.len();
    text.try_reserve(more.len()).map_err(|_| Error::memory(op, bytes))?;
    text.push_str(more);
    Ok(())
}

/// Makes room for `extra` more keys in a map.
#[inline]
pub fn room_for_keys<K: Eq + Hash, V, S: BuildHasher>(
    op: &str,
    map: &mut HashMap<K, V, S>,
    extra: usize,
) -> Result<()> {
    let bytes = (map.len() + extra).saturating_mul(size_of::<(K, V)>());
    if map.capacity() - map.len() >= extra {
        return Ok(());
    }
    map.try_reserve(extra).map_err(|_| Error::memory(op, bytes))
}

/// Makes room for `extra` more entries, where there is none yet.
#[inline]
pub fn make_room<T>(op: &str, entries: &mut Vec<T>, extra: usize) -> Result<()> {
    if entries.capacity() - entries.len() < extra { grow(op, entries, extra) } else { Ok(()) }
}

/// Makes room for `extra` more entries.
#[cold]
pub fn grow<T>(op: &str, entries: &mut Vec<T>, extra: usize) -> Result<()> {
    shortage::check(op)?;
    let bytes = (entries.len() + extra).saturating_mul(size_of::<T>());
    entries.try_reserve(extra).map_err(|_| Error::memory(op, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_no_machine_has_is_a_memory_error() {
        assert_eq!(filled("test", 0u64, usize::MAX / 16).unwrap_err().kind, ErrorKind::Memory);
        assert_eq!(room::<u64>("test", usize::MAX).unwrap_err().kind, ErrorKind::Memory);
    }
}
