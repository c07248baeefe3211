//! Runs lowered programs: the last stage of the pipeline, and the only one that allocates arrays.
//!
//! [`run`] takes a `Program` and the arrays, scalars and starts that it is to run on ([`Bindings`]), leases one arena
//! from the process-wide pool (`arena`), has threads help where that is worth waking them (`threads`, `short`) and
//! launches one kernel after another; results are allocations of their own ([`OutputBuffer`]) that the caller keeps.
//! Nothing here decides what to keep or where a buffer lies: that is in the program. [`ProgramCache`] keeps lowered
//! programs by the structure of their graph. Values that wait on disk are moved by a thread beside the steps (`spill`).
//! Runs may nest and overlap; no lock is held while one goes on.

mod arena;
mod bindings;
mod block;
mod cache;
mod counted;
mod execute;
mod filled;
mod looped;
mod output;
mod reserve;
mod separate;
mod short;
mod spare;
mod spill;
mod target;
mod threads;
mod trace;

pub use arena::{Lease, MemoryUse, lease, leave_idle, memory_use, release};
pub use bindings::{Bindings, InputArray};
pub use cache::ProgramCache;
pub use counted::Counted;
pub use execute::{RunOptions, run, run_interruptible};
pub use filled::Filled;
pub use output::{GivenUp, OutputBuffer};
pub use reserve::Reserve;
pub use separate::AllocationHooks;
pub use target::target;
pub use threads::{pool, thread_count};
pub use trace::{MemoryTrace, TraceEntry};
