//! How Ctrl-C reaches walks over graphs: a flag that belongs to the thread, looked at every few thousand nodes.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, ErrorKind, Result};

thread_local! {
    static FLAG: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// While this lives, [`check`] on this thread fails once the flag is set.
#[must_use]
pub struct Listening {
    before: Option<Arc<AtomicBool>>,
}

/// Makes `flag` the one that walks on this thread look at.
pub fn listen(flag: Arc<AtomicBool>) -> Listening {
    Listening { before: FLAG.with_borrow_mut(|current| current.replace(flag)) }
}

impl Drop for Listening {
    fn drop(&mut self) {
        FLAG.with_borrow_mut(|current| *current = self.before.take());
    }
}

/// An `Interrupted` error once the flag of this thread is set.
pub fn check() -> Result<()> {
    let set = FLAG.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)));
    if set { Err(Error::new(ErrorKind::Interrupted, "interrupt", "interrupted")) } else { Ok(()) }
}

/// [`check`] at every 4096th index of a walk.
#[inline]
pub fn check_at(index: usize) -> Result<()> {
    if index.is_multiple_of(4096) { check() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_flag_is_heard_while_listening() {
        let flag = Arc::new(AtomicBool::new(false));
        let listening = listen(Arc::clone(&flag));
        assert!(check().is_ok());
        flag.store(true, Ordering::Relaxed);
        assert_eq!(check().unwrap_err().kind, ErrorKind::Interrupted);
        drop(listening);
        assert!(check().is_ok());
    }
}
