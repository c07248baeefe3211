//! The planner: from a graph to a program whose peak is known.
//!
//! [`compile`] is the way through. First `checkpoint_loops` lets loops keep fewer of their states, if the policy asks
//! for that. In the order in which a graph takes it:
//!
//! * `cluster` groups nodes into kernels-to-be: `roles` says what part each node plays (`view` which views need no
//!   memory), `limits` what a kernel can hold, `fences` where groups must end, `turn` what joins where the tape turns,
//!   `auto` what a later pass rebuilds by itself.
//! * `liveness` and `cost` are the tables over clusters that policies read: which values flow, what they cost.
//! * `policy` decides what to keep and what to recompute, and writes a [`Schedule`](schedule::Schedule): `chain` where
//!   the tape is a chain of steps, `limit` where memory is limited. `simulate` judges a schedule, `report` explains it,
//!   `timeline` draws it.
//! * `lower` turns it into a [`Program`](program::Program): kernels (`fused` with `axes` and `registers`, `structural`,
//!   `looped` with `loops`) over `buffers` that `allocate` places; of long schedules by two threads (`halves`).
//!   `joined` says which steps run together, `scratch` what each needs by itself, `transfers` what is on disk
//!   meanwhile. `takeover` then writes outputs over inputs that the caller gives up.
//! * `within` takes the cheapest of all plans that keeps to a limit on memory; `least_bytes` spares lowering what is
//!   larger than a limit or another program anyway.
//! * `verify` proves the program safe, its `loops` and its `transfers` too; `footprint` says what it occupies. `tables`
//!   allocates for all of them, and `two_threads` does beside each other what may be.
//!
//! Schedules and programs are plain data, and nothing outside this crate decides what is kept.

pub mod allocate;
pub mod checkpoint_loops;
pub mod cluster;
pub mod compile;
pub mod cost;
pub mod footprint;
mod least_bytes;
pub mod liveness;
pub mod loops;
pub mod lower;
pub mod policy;
pub mod program;
pub mod report;
pub mod schedule;
pub mod simulate;
mod tables;
mod takeover;
pub mod timeline;
mod two_threads;
pub mod verify;
pub mod view;
pub mod within;
