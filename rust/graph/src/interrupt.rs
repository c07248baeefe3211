//! How Ctrl-C reaches walks over graphs: a question that belongs to the thread, asked every few thousand nodes. Refused
//! memory is asked after at every node: small blocks come from a reserve until somebody raises.

use std::cell::RefCell;
use std::rc::Rc;

use crate::{Error, Result, shortage};

/// Whether to stop.
type Question = Rc<dyn Fn() -> bool>;

thread_local! {
    static QUESTION: RefCell<Option<Question>> = const { RefCell::new(None) };
}

/// While this lives, [`check`] on this thread fails once the answer is yes.
#[must_use]
pub struct Listening {
    before: Option<Question>,
}

/// Makes `stop` the question that walks on this thread ask, often: it should be quick to answer.
pub fn listen(stop: impl Fn() -> bool + 'static) -> Listening {
    Listening { before: QUESTION.with_borrow_mut(|current| current.replace(Rc::new(stop))) }
}

impl Drop for Listening {
    fn drop(&mut self) {
        QUESTION.with_borrow_mut(|current| *current = self.before.take());
    }
}

/// Once the user wants this thread to stop, an `Interrupted` error; where the reserve is being used, one of memory.
/// Neither names an operation.
pub fn check() -> Result<()> {
    shortage::check("memory")?;
    // Whoever answers may come back here to listen for something else.
    let question = QUESTION.with_borrow(Option::clone);
    if question.is_some_and(|stop| stop()) {
        return Err(Error::interrupted("interrupt"));
    }
    Ok(())
}

/// [`check`] at an index of a walk: Ctrl-C at every 4096th.
#[inline]
pub fn check_at(index: usize) -> Result<()> {
    if index.is_multiple_of(4096) || shortage::is_noted() { check() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_answer_is_heard_while_listening() {
        let stop = Rc::new(Cell::new(false));
        let listening = listen({
            let stop = Rc::clone(&stop);
            move || stop.get()
        });
        assert!(check().is_ok());
        stop.set(true);
        assert_eq!(check().unwrap_err().kind, ErrorKind::Interrupted);
        drop(listening);
        assert!(check().is_ok());
    }
}
