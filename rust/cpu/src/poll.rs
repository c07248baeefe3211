//! Asking whether a run is still wanted, by the thread that runs it: only that may run signal handlers.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ckad_graph::{Error, Result};

/// How often to ask.
const EVERY: Duration = Duration::from_millis(50);
/// Checks from one look at the clock to the next, which takes longer than a small kernel's check.
const CHECKS: u32 = 32;

/// A question that is asked every 50 ms or so.
pub struct Poll<'a> {
    checks: AtomicU32,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    last: Instant,
    ask: &'a mut (dyn FnMut() -> bool + Send),
}

impl<'a> Poll<'a> {
    /// `ask` says whether to go on.
    pub fn new(ask: &'a mut (dyn FnMut() -> bool + Send)) -> Poll<'a> {
        Poll { checks: AtomicU32::new(0), state: Mutex::new(State { last: Instant::now(), ask }) }
    }
}

/// What an environment knows of a [`Poll`].
pub trait Check: Sync + std::fmt::Debug {
    /// Asks if it is time to, and cancels the run if the answer is no. For one thread only.
    fn check(&self, cancel: &AtomicBool) -> Result<()>;
}

impl Check for Poll<'_> {
    fn check(&self, cancel: &AtomicBool) -> Result<()> {
        let checks = self.checks.load(Ordering::Relaxed).wrapping_add(1);
        self.checks.store(checks, Ordering::Relaxed);
        if !checks.is_multiple_of(CHECKS) {
            return Ok(());
        }
        // Taken only where the answer itself runs something.
        let Ok(mut state) = self.state.try_lock() else { return Ok(()) };
        if state.last.elapsed() < EVERY {
            return Ok(());
        }
        let wanted = (state.ask)();
        state.last = Instant::now();
        if wanted {
            return Ok(());
        }
        cancel.store(true, Ordering::Relaxed);
        Err(Error::interrupted("run"))
    }
}

impl std::fmt::Debug for Poll<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Poll")
    }
}
