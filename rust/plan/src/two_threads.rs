//! Planning on two threads: work that does not wait for each other's, done beside each other.
//!
//! A second thread is started where the work is worth one; where none is to be had, the calling thread does it all.
//! Results are the same and stand in the same order in either case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ckad_graph::working::Held;
use ckad_graph::{Result, interrupt, threads, working};

use crate::program::Target;
use crate::tables::{collected, push};

/// Number of clusters or steps from which on the second thread saves more than it costs to start.
const WORTH_A_THREAD: usize = 2048;

/// How long to wait for the other thread at a time; when it is done it says so.
const PATIENCE: Duration = Duration::from_millis(5);

/// Does the one thing here and the other on a second thread; nothing where that cannot be started.
pub(crate) fn beside<A, B: Send>(
    here: impl FnOnce() -> Result<A>,
    there: impl Fn() -> Result<B> + Sync,
) -> Result<Option<(A, B)>> {
    let stop = Arc::new(AtomicBool::new(false));
    let measured = working::is_measured();
    let waiting = thread::current();
    thread::scope(|scope| {
        let second = || {
            let asked = Arc::clone(&stop);
            let _listening = interrupt::listen(move || asked.load(Ordering::Relaxed));
            let done = if measured { working::measure(&there) } else { (there(), Held::default()) };
            waiting.unpark();
            done
        };
        let builder = thread::Builder::new().name("ckad-plan".into()).stack_size(threads::STACK);
        let thread = threads::can_start(1).then(|| builder.spawn_scoped(scope, second));
        let Some(Ok(thread)) = thread else { return Ok(None) };
        let (mut first, own) = if measured { working::measure(here) } else { (here(), Held::default()) };
        while !thread.is_finished() {
            // Waiting is work too, as far as Ctrl-C goes.
            first = first.and_then(|first| interrupt::check().map(|()| first));
            stop.store(first.is_err(), Ordering::Relaxed);
            thread::park_timeout(PATIENCE);
        }
        let (second, held) = thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked));
        // Both may have held the most at the same time.
        working::add(Held { most: held.most + own.most - own.now, ..held });
        Ok(Some((first?, second?)))
    })
}

/// Whether there should be two for work over so many clusters or steps.
pub(crate) fn are_worth_it(target: &Target, clusters: usize) -> bool {
    target.threads > 1 && clusters >= WORTH_A_THREAD
}

/// Both, beside each other if there are two.
pub(crate) fn both<A, B: Send>(
    two: bool,
    one: impl Fn() -> Result<A>,
    other: impl Fn() -> Result<B> + Sync,
) -> Result<(A, B)> {
    match if two { beside(&one, &other)? } else { None } {
        Some(both) => Ok(both),
        None => Ok((one()?, other()?)),
    }
}

/// What the work makes of each item, in order; taken by turns if there are two.
pub(crate) fn map<T: Sync, R: Send>(two: bool, items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    if !two || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let taken = || -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return Ok(done) };
            // Whoever fails ends it for both.
            let result = work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
            push(&mut done, (index, result))?;
        }
    };
    let mut done = match beside(taken, taken)? {
        Some((mut done, others)) => {
            others.into_iter().try_for_each(|other| push(&mut done, other))?;
            done
        }
        None => taken()?,
    };
    done.sort_unstable_by_key(|&(index, _)| index);
    collected(done.into_iter().map(|(_, result)| result))
}
