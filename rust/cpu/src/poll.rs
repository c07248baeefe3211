//! Asking whether a run is still wanted, by the thread that runs it: only that may run signal handlers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ckad_graph::{Error, Result};

/// How often to ask.
const EVERY: Duration = Duration::from_millis(50);
/// An answer that took long (another thread had Python's lock) is paid for by so many times as long without a question.
const REST: u32 = 20;
/// Small pieces of work from one look at the clock to the next, which takes longer than they do to check.
const OFTEN: u32 = 32;

/// A question that is asked every 50 ms or so.
pub struct Poll<'a> {
    small: AtomicU32,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    next: Instant,
    ask: &'a mut (dyn FnMut() -> bool + Send),
}

impl<'a> Poll<'a> {
    /// `ask` says whether to go on.
    pub fn new(ask: &'a mut (dyn FnMut() -> bool + Send)) -> Poll<'a> {
        Poll { small: AtomicU32::new(0), state: Mutex::new(State { next: Instant::now() + EVERY, ask }) }
    }
}

/// What an environment knows of a [`Poll`].
pub trait Check: Sync + std::fmt::Debug {
    /// Asks if it is time to, and cancels the run if the answer is no. For one thread only.
    fn check(&self, cancel: &AtomicBool) -> Result<()>;
    /// The same beside work that takes no more than some µs.
    fn check_small(&self, cancel: &AtomicBool) -> Result<()>;
}

impl Check for Poll<'_> {
    fn check(&self, cancel: &AtomicBool) -> Result<()> {
        // Taken only where the answer itself runs something.
        let Ok(mut state) = self.state.try_lock() else { return Ok(()) };
        let begun = Instant::now();
        if begun < state.next {
            return Ok(());
        }
        let wanted = (state.ask)();
        let now = Instant::now();
        state.next = now + EVERY.max(REST * (now - begun));
        if wanted {
            return Ok(());
        }
        cancel.store(true, Ordering::Relaxed);
        Err(Error::interrupted("run"))
    }

    fn check_small(&self, cancel: &AtomicBool) -> Result<()> {
        let small = self.small.load(Ordering::Relaxed).wrapping_add(1);
        self.small.store(small, Ordering::Relaxed);
        if small.is_multiple_of(OFTEN) { self.check(cancel) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Poll<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Poll")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_asked_now_and_then() {
        let cancel = AtomicBool::new(false);
        let mut asked = 0;
        let mut ask = || {
            asked += 1;
            asked < 3
        };
        let poll = Poll::new(&mut ask);
        let begun = Instant::now();
        while poll.check_small(&cancel).is_ok() {
            assert!(!cancel.load(Ordering::Relaxed));
        }
        assert!(cancel.load(Ordering::Relaxed) && begun.elapsed() >= 3 * EVERY);
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_slow_answer_is_asked_for_less_often() {
        let cancel = AtomicBool::new(false);
        let mut ask = || {
            std::thread::sleep(Duration::from_millis(5));
            true
        };
        let poll = Poll::new(&mut ask);
        std::thread::sleep(EVERY);
        poll.check(&cancel).unwrap();
        assert!(poll.state.lock().unwrap().next >= Instant::now() + EVERY);
    }
}
