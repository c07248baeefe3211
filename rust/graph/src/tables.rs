//! Tables that grow with a graph. Memory that the system refuses is an error, never the end of the process; and as
//! whoever makes such a table is about to walk over the graph, this is also where Ctrl-C is heard between walks.

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
