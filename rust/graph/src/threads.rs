//! What a thread needs before it can fail: one that has a stack and then no memory for its own variables ends the
//! process, so better none is started.

use crate::shortage;

/// The stack of a thread of ours, whatever the environment says.
pub const STACK: usize = 2 << 20;
/// Its stack, and what it allocates as it starts.
const THREAD_BYTES: usize = STACK + (256 << 10);

/// What so many threads need to start.
pub fn bytes(count: usize) -> usize {
    count * THREAD_BYTES
}

/// Does the system have memory to start so many threads?
pub fn can_start(count: usize) -> bool {
    shortage::has(bytes(count))
}
