//! The thread pool that helps with kernels: rayon's, made at first use, one per process.
//!
//! `CKAD_NUM_THREADS` sets its size; results do not depend on it. A forked child has none of its parent's threads, so
//! it makes a pool of its own. Pools live as long as the process.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use ckad_graph::{Error, ErrorKind, Result, threads};
use rayon::{ThreadPool, ThreadPoolBuilder};

struct Entry {
    process: u32,
    pool: ThreadPool,
    /// Runs that have threads of the pool just now.
    runs: AtomicUsize,
}

static CURRENT: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// Number of threads that kernels run on.
pub fn thread_count() -> Result<usize> {
    static COUNT: OnceLock<Result<usize>> = OnceLock::new();
    COUNT.get_or_init(|| read_count(std::env::var("CKAD_NUM_THREADS").ok().as_deref())).clone()
}

fn read_count(variable: Option<&str>) -> Result<usize> {
    match variable.map(str::trim) {
        None | Some("") => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        Some(text) => text.parse().ok().filter(|count| (1..=1024).contains(count)).ok_or_else(|| {
            Error::value("threads", format!("CKAD_NUM_THREADS={text}"))
                .with_hint("set it to a number of threads from 1 to 1024, or leave it unset")
        }),
    }
}

/// The pool of this process.
pub fn pool() -> Result<&'static ThreadPool> {
    entry().map(|entry| &entry.pool)
}

fn entry() -> Result<&'static Entry> {
    let process = std::process::id();
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: entries are leaked, so what the pointer once pointed to stays.
    if let Some(entry) = unsafe { current.as_ref() }
        && entry.process == process
    {
        return Ok(entry);
    }
    let count = thread_count()?;
    let refused = |why: &dyn std::fmt::Display| {
        let what = format!("cannot allocate {} bytes for {count} threads: {why}", threads::bytes(count));
        Error::new(ErrorKind::Memory, "threads", what)
            .with_hint("set CKAD_NUM_THREADS to a smaller number before the first call")
    };
    if !threads::can_start(count) {
        return Err(refused(&"no memory"));
    }
    let pool = ThreadPoolBuilder::new().num_threads(count).stack_size(threads::STACK);
    let pool = pool.thread_name(|index| format!("ckad-{index}")).build().map_err(|error| refused(&error))?;
    let entry = Box::into_raw(Box::new(Entry { process, pool, runs: AtomicUsize::new(0) }));
    match CURRENT.compare_exchange(current, entry, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just leaked. The parent's entry is left as it is: its threads are not here to be joined.
        Ok(_) => Ok(unsafe { &*entry }),
        Err(_) => {
            // SAFETY: it was not published. Another thread's pool is there.
            drop(unsafe { Box::from_raw(entry) });
            self::entry()
        }
    }
}

/// A run's share of the machine, while several go on at once.
pub struct Share {
    entry: &'static Entry,
    runs: usize,
}

impl Share {
    pub fn new() -> Result<Share> {
        let entry = entry()?;
        Ok(Share { entry, runs: entry.runs.fetch_add(1, Ordering::Relaxed) + 1 })
    }

    pub fn pool(&self) -> &'static ThreadPool {
        &self.entry.pool
    }

    /// This run's part of the threads, its own included.
    pub fn of(&self, threads: usize) -> usize {
        threads.div_ceil(self.runs)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.entry.runs.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_a_count() {
        assert_eq!(read_count(Some(" 3 ")).unwrap(), 3);
        assert!(read_count(None).unwrap() >= 1);
        for wrong in ["0", "-1", "two", "99999"] {
            assert_eq!(read_count(Some(wrong)).unwrap_err().kind, ErrorKind::Value);
        }
    }

    #[test]
    fn runs_share_the_threads() {
        let of = |runs: usize, threads| {
            let mut share = Share::new().unwrap();
            share.runs = runs;
            share.of(threads)
        };
        assert_eq!([of(1, 1), of(1, 16), of(2, 1), of(2, 16), of(2, 5)], [1, 16, 1, 8, 3]);
    }

    #[test]
    fn one_pool_serves_all() {
        assert!(ptr::eq(pool().unwrap(), std::thread::spawn(|| pool().unwrap()).join().unwrap()));
        assert_eq!(pool().unwrap().current_num_threads(), thread_count().unwrap());
    }
}
