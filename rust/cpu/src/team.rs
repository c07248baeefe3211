//! The threads of one run: the caller, which goes from kernel to kernel, and helpers, which wait awake in between to
//! take pieces of the kernel that is at work.
//!
//! A sleeping thread takes some 40 µs to wake up, which is longer than most kernels of a network of a few layers. So
//! a pool's threads are woken once for a run; until they come, the caller works alone. It never waits for one that has
//! not come: the pool's threads may be busy with longer runs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ckad_graph::{Error, Result};
use rayon::ThreadPool;

/// A line of the cache to itself: helpers read one while others write another.
#[repr(align(128))]
struct Line<T>(T);

struct Team {
    threads: usize,
    /// Members so far, the caller included.
    members: AtomicUsize,
    /// Counts kernels, so that a helper enters each once.
    kernel: Line<AtomicUsize>,
    /// What is at work, on the caller's stack; null in between.
    work: AtomicPtr<Work>,
    /// Helpers that may be looking at the work.
    inside: Line<AtomicUsize>,
    over: AtomicBool,
    /// Whose threads the helpers are: a forked child has none of them.
    process: u32,
}

/// Pieces of a kernel.
struct Work {
    /// A `&(dyn Fn(usize) -> Result<()> + Sync)` of [`for_each`], which outlives the work.
    piece: *const (dyn Fn(usize) -> Result<()> + Sync),
    count: usize,
    next: Line<AtomicUsize>,
    failure: Mutex<Option<Failure>>,
}

enum Failure {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

#[derive(Clone, Copy)]
struct Place {
    /// The team whose caller this thread is, between its own pieces; null for everyone else.
    team: *const Team,
    /// Among the threads of the team; 0 for its caller, and where there is no team.
    index: usize,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place { team: ptr::null(), index: 0 }) };
}

/// Another place for this thread, until it is dropped.
struct Placed(Place);

impl Placed {
    fn at(place: Place) -> Placed {
        Placed(PLACE.replace(place))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        PLACE.set(self.0);
    }
}

/// Runs `work` here, its kernels split among this thread and up to `threads − 1` of the pool.
pub fn together<R>(pool: &ThreadPool, threads: usize, work: impl FnOnce() -> R) -> R {
    let team = Arc::new(Team {
        threads,
        members: AtomicUsize::new(1),
        kernel: Line(AtomicUsize::new(0)),
        work: AtomicPtr::new(ptr::null_mut()),
        inside: Line(AtomicUsize::new(0)),
        over: AtomicBool::new(false),
        process: std::process::id(),
    });
    for _ in 1..threads {
        let team = Arc::clone(&team);
        pool.spawn(move || team.help());
    }
    let _over = Over(&team);
    let _placed = Placed::at(Place { team: &*team, index: 0 });
    work()
}

/// Runs `work` here, its kernels not split, whatever run this is in the middle of.
pub fn alone<R>(work: impl FnOnce() -> R) -> R {
    let _placed = Placed::at(Place { team: ptr::null(), index: 0 });
    work()
}

/// Sends the helpers home, after a panic, too.
struct Over<'a>(&'a Team);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// Threads that share a kernel that is run from here.
pub fn thread_count() -> usize {
    // SAFETY: a team outlives the place of its caller.
    unsafe { PLACE.get().team.as_ref() }.map_or(1, |team| team.threads)
}

/// This thread among those that share a kernel.
pub fn thread_index() -> usize {
    PLACE.get().index
}

/// Runs `piece` for 0..count on the threads of the team, or here where there is none. The first error in no particular
/// order ends the run; several threads may be in `piece` at once.
pub fn for_each(count: usize, piece: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let place = PLACE.get();
    // SAFETY: as above.
    let team = unsafe { place.team.as_ref() };
    let Some(team) = team.filter(|team| count > 1 && team.threads > 1) else {
        return (0..count).try_for_each(piece);
    };
    // A piece that is split in its turn is done by whoever has it.
    let _placed = Placed::at(Place { team: ptr::null(), ..place });
    team.run(count, &piece)
}

impl Team {
    fn run<'a>(&self, count: usize, piece: &'a (dyn Fn(usize) -> Result<()> + Sync + 'a)) -> Result<()> {
        // SAFETY: only the lifetime changes. The work is gone, and no helper inside, before this returns or unwinds.
        let piece = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) -> Result<()> + Sync + 'a),
                *const (dyn Fn(usize) -> Result<()> + Sync),
            >(piece)
        };
        let mut work = Work { piece, count, next: Line(AtomicUsize::new(0)), failure: Mutex::new(None) };
        self.work.store(&raw mut work, Ordering::SeqCst);
        self.kernel.0.fetch_add(1, Ordering::Release);
        let forked = Cell::new(false);
        {
            let _withdrawn = Withdrawn { team: self, forked: &forked };
            // SAFETY: published above, and there until all are out.
            unsafe { Work::take_pieces(&raw const work) };
        }
        if forked.get() {
            return Err(Error::internal("run", "the process was forked in the middle of a kernel"));
        }
        match work.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(Failure::Error(error)) => Err(error),
            Some(Failure::Panic(panic)) => resume_unwind(panic),
        }
    }

    /// A helper's life.
    fn help(&self) {
        let index = self.members.fetch_add(1, Ordering::Relaxed);
        let _placed = Placed::at(Place { team: ptr::null(), index });
        let mut seen = 0;
        let mut idle = Idle::default();
        while !self.over.load(Ordering::Acquire) {
            let kernel = self.kernel.0.load(Ordering::Acquire);
            if kernel == seen {
                idle.wait();
                continue;
            }
            seen = kernel;
            idle = Idle::default();
            // First in, then the look: the caller withdraws the work first, and then looks who is in.
            self.inside.0.fetch_add(1, Ordering::SeqCst);
            let work = self.work.load(Ordering::SeqCst);
            if !work.is_null() {
                // SAFETY: not withdrawn, so that the caller waits for this thread to be out.
                unsafe { Work::take_pieces(work) };
            }
            self.inside.0.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Takes the work back, and waits until nobody looks at it any more.
struct Withdrawn<'a> {
    team: &'a Team,
    /// Set where those who look at it are threads of a parent process. That somebody is inside later does not tell: a
    /// helper that comes late goes in and finds no work.
    forked: &'a Cell<bool>,
}

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        self.team.work.store(ptr::null_mut(), Ordering::SeqCst);
        let mut idle = Idle::default();
        while self.team.inside.0.load(Ordering::SeqCst) != 0 {
            idle.wait();
            // A signal handler may have forked: no helper of this process is inside, or ever gets out.
            if idle.long() && std::process::id() != self.team.process {
                self.forked.set(true);
                return;
            }
        }
    }
}

impl Work {
    /// Does pieces while there are any. Errors and panics are kept, and end the work.
    ///
    /// # Safety
    /// The work, and what its pieces borrow, stay until this returns.
    unsafe fn take_pieces(work: *const Work) {
        // SAFETY: the caller's promise.
        let (work, piece) = unsafe { (&*work, &*(*work).piece) };
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = work.next.0.fetch_add(1, Ordering::Relaxed);
                if index >= work.count {
                    return Ok(());
                }
                piece(index)?;
            }
        }));
        let failure = match done {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Failure::Error(error),
            Err(panic) => Failure::Panic(panic),
        };
        work.next.0.store(work.count, Ordering::Relaxed);
        work.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }
}

/// Waits longer the longer there is nothing to do.
#[derive(Default)]
struct Idle(u32);

impl Idle {
    /// Some 20 µs awake; then others go first, for some ms; then with sleep in between.
    const AWAKE: u32 = 400;
    const YIELDING: u32 = 8_000;
    const SLEEP: Duration = Duration::from_micros(50);

    fn long(&self) -> bool {
        self.0 >= Self::AWAKE
    }

    fn wait(&mut self) {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            ..Self::AWAKE => std::hint::spin_loop(),
            Self::AWAKE..Self::YIELDING => std::thread::yield_now(),
            Self::YIELDING.. => std::thread::sleep(Self::SLEEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::structural::testing::pool;

    #[test]
    fn pieces_are_done_once_each() {
        for threads in [1, 2, 5] {
            together(pool(5), threads, || {
                assert_eq!((thread_count(), thread_index()), (threads, 0));
                for count in [0, 1, 2, 7, 1000] {
                    for _ in 0..50 {
                        let times: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                        for_each(count, |index| {
                            assert!(thread_index() < threads);
                            times[index].fetch_add(1, Ordering::Relaxed);
                            // A split within is done by the same thread, but for that of a single piece.
                            let here = std::thread::current().id();
                            for_each(3, |_| {
                                assert!(count == 1 || std::thread::current().id() == here);
                                Ok(())
                            })
                        })
                        .unwrap();
                        assert!(times.iter().all(|times| times.load(Ordering::Relaxed) == 1));
                    }
                }
            });
            assert_eq!((thread_count(), thread_index()), (1, 0));
        }
    }

    #[test]
    fn helpers_come() {
        let seen = Mutex::new(HashSet::new());
        together(pool(3), 3, || {
            while seen.lock().unwrap().len() < 3 {
                for_each(64, |_| {
                    std::thread::sleep(Duration::from_micros(20));
                    seen.lock().unwrap().insert(thread_index());
                    Ok(())
                })
                .unwrap();
            }
        });
        assert_eq!(seen.into_inner().unwrap(), HashSet::from([0, 1, 2]));
    }

    #[test]
    fn an_error_ends_the_work() {
        together(pool(3), 3, || {
            for _ in 0..100 {
                let done = AtomicUsize::new(0);
                let result = for_each(1_000_000, |index| {
                    done.fetch_add(1, Ordering::Relaxed);
                    if index == 10 { Err(Error::interrupted("run")) } else { Ok(()) }
                });
                assert_eq!(result.unwrap_err().kind, ckad_graph::ErrorKind::Interrupted);
                assert!(done.load(Ordering::Relaxed) < 1_000_000);
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        for at in [0, 3, 99] {
            let run =
                || together(pool(3), 3, || for_each(100, |index| if index == at { panic!("piece") } else { Ok(()) }));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"piece"));
            assert_eq!(thread_count(), 1);
        }
    }

    #[test]
    fn a_short_run_waits_for_no_long_one() {
        let (finished, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                // Has all the threads, each in a piece that is not over before the short run is.
                scope.spawn(|| {
                    together(pool(4), 4, || {
                        for_each(4, |_| {
                            begun.fetch_add(1, Ordering::Relaxed);
                            while !finished.load(Ordering::Relaxed) {
                                std::thread::yield_now();
                            }
                            Ok(())
                        })
                    })
                });
            }
            while begun.load(Ordering::Relaxed) < 6 {
                std::thread::yield_now();
            }
            together(pool(4), 4, || for_each(100, |_| Ok(()))).unwrap();
            finished.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_run_within_a_run_may_be_alone() {
        together(pool(3), 3, || {
            alone(|| assert_eq!((thread_count(), thread_index()), (1, 0)));
            assert_eq!(thread_count(), 3);
        });
    }

    #[test]
    fn teams_share_a_pool() {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let sum = AtomicUsize::new(0);
                    together(pool(2), 2, || {
                        for _ in 0..200 {
                            for_each(10, |index| {
                                sum.fetch_add(index, Ordering::Relaxed);
                                Ok(())
                            })
                            .unwrap();
                        }
                    });
                    assert_eq!(sum.into_inner(), 45 * 200);
                });
            }
        });
    }
}
