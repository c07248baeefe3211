//! A run's file: values that wait on disk while no step reads them, written and read by a thread beside the steps.
//!
//! The file has no name (or loses it at once), so that nothing is left however the process ends; it lies in
//! `CKAD_TMPDIR`, else where the system keeps such files. Transfers are done one after the other, in the order in
//! which they begin. Their memory is the run's: whoever drops a `Spill` waits until nothing touches it any more.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ckad_cpu::{Check, Memory};
use ckad_graph::{Error, ErrorKind, Result, threads};
use ckad_plan::program::{BufferId, Motion, Transfer};

/// What is written or read at a time: between two pieces the thread looks whether it is still wanted.
const PIECE: usize = 4 << 20;

/// How long to wait at a time before asking whether the run is still wanted.
const PATIENCE: Duration = Duration::from_millis(20);

/// A value on its way.
struct Job {
    memory: Memory,
    offset: u64,
    reads: bool,
}

// SAFETY: the memory outlives the job (a `Spill` joins its thread before the run gives memory back), and the program
// was verified: no step writes it while it is written to the file, or touches it while it is read.
unsafe impl Send for Job {}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Jobs that are done, since the beginning.
    done: u64,
    failed: Option<(io::ErrorKind, String)>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of one run, with its thread.
pub(crate) struct Spill {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    begun: u64,
    /// By buffer, the job that is under way with it.
    under_way: Vec<(BufferId, u64)>,
}

impl Spill {
    pub fn new() -> Result<Spill> {
        let folder = folder();
        let file = tempfile::tempfile_in(&folder).and_then(private).map_err(|error| {
            let what = format!("cannot make a file in {}: {error}", folder.display());
            storage(what, "set CKAD_TMPDIR to a folder that can be written, with room for the values")
        })?;
        let shared = Arc::new(Shared::default());
        let works = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("ckad-disk".into()).stack_size(threads::STACK);
        let refused = || {
            let what = "the system starts no thread for the file".into();
            storage(what, "let the process have one more thread, or use checkpoint='sqrt'")
        };
        if !threads::can_start(1) {
            return Err(refused());
        }
        let thread = builder.spawn(move || work(&file, &works)).map_err(|_| refused())?;
        Ok(Spill { shared, thread: Some(thread), begun: 0, under_way: Vec::new() })
    }

    /// Begins a transfer, or waits until it is over.
    pub fn play(
        &mut self,
        transfer: &Transfer,
        memory: Memory,
        poll: Option<&dyn Check>,
        cancel: &AtomicBool,
    ) -> Result<()> {
        match transfer.motion {
            Motion::BeginWrite | Motion::BeginRead => {
                let reads = transfer.motion == Motion::BeginRead;
                self.shared.lock().waiting.push_back(Job { memory, offset: transfer.offset, reads });
                self.shared.changed.notify_all();
                self.begun += 1;
                self.under_way.push((transfer.buffer, self.begun));
                Ok(())
            }
            Motion::EndWrite | Motion::EndRead => {
                let found = self.under_way.iter().position(|&(buffer, _)| buffer == transfer.buffer);
                let found = found.ok_or_else(|| Error::internal("offload", "a transfer ends that did not begin"))?;
                let (_, job) = self.under_way.swap_remove(found);
                self.wait(job, poll, cancel)
            }
        }
    }

    fn wait(&self, job: u64, poll: Option<&dyn Check>, cancel: &AtomicBool) -> Result<()> {
        loop {
            let state = self.shared.lock();
            if let Some((kind, text)) = &state.failed {
                return Err(refused_by_disk(*kind, text));
            }
            if state.done >= job {
                return Ok(());
            }
            // It ends when it is told to stop, which happens when nobody waits any more; or else by a panic.
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(Error::internal("offload", "the thread that reads and writes the file is gone"));
            }
            let waited = self.shared.changed.wait_timeout(state, PATIENCE);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            poll.map_or(Ok(()), |poll| poll.check(cancel))?;
            if cancel.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::interrupted("run"));
            }
        }
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by whoever waited for its jobs: nobody does here.
            drop(thread.join());
        }
    }
}

/// The file for its owner alone: other processes of the system may find it by its descriptor.
#[cfg(unix)]
fn private(file: File) -> io::Result<File> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(not(unix))]
fn private(file: File) -> io::Result<File> {
    Ok(file)
}

fn folder() -> PathBuf {
    env::var_os("CKAD_TMPDIR").filter(|name| !name.is_empty()).map_or_else(env::temp_dir, PathBuf::from)
}

fn storage(what: String, hint: &str) -> Error {
    Error::new(ErrorKind::Storage, "offload", what).with_hint(hint)
}

fn refused_by_disk(kind: io::ErrorKind, text: &str) -> Error {
    let folder = folder();
    let folder = folder.display();
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => storage(
            format!("no room left in {folder} for values that wait: {text}"),
            "set CKAD_TMPDIR to a folder with more room, or use checkpoint='sqrt', which needs none",
        ),
        _ => storage(
            format!("the file in {folder} failed: {text}"),
            "set CKAD_TMPDIR to a folder on a disk that works, or use checkpoint='sqrt'",
        ),
    }
}

/// What the thread does until it is told to stop.
fn work(file: &File, shared: &Shared) {
    loop {
        let mut state = shared.lock();
        let job = loop {
            if state.stop {
                return;
            }
            match state.waiting.pop_front() {
                Some(job) => break job,
                None => state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        let result = transfer(file, &job, shared);
        let mut state = shared.lock();
        state.done += 1;
        if let Err(error) = result {
            state.failed.get_or_insert((error.kind(), error.to_string()));
        }
        drop(state);
        shared.changed.notify_all();
    }
}

fn transfer(file: &File, job: &Job, shared: &Shared) -> io::Result<()> {
    let mut from = 0;
    while from < job.memory.bytes && !shared.lock().stop {
        let bytes = PIECE.min(job.memory.bytes - from);
        let pointer = job.memory.pointer.wrapping_add(from);
        let offset = job.offset + from as u64;
        // SAFETY: `from + bytes` is within the memory; see `Job` for who else may touch it.
        unsafe {
            match job.reads {
                true => read_at(file, std::slice::from_raw_parts_mut(pointer, bytes), offset)?,
                false => write_at(file, std::slice::from_raw_parts(pointer, bytes), offset)?,
            }
        }
        from += bytes;
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_gone_is_an_error() {
        for thread in [Some(std::thread::spawn(|| {})), None] {
            let mut spill = Spill { shared: Arc::default(), thread, begun: 0, under_way: Vec::new() };
            let transfer = |motion| Transfer { gap: 0, motion, buffer: BufferId(0), offset: 0 };
            let cancel = AtomicBool::new(false);
            let mut play = |motion| spill.play(&transfer(motion), Memory::EMPTY, None, &cancel);
            assert!(play(Motion::BeginWrite).is_ok());
            assert!(play(Motion::EndWrite).is_err_and(|error| error.kind == ErrorKind::Internal));
        }
    }
}
