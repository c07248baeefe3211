//! The planner: from a graph to a program whose peak is known.
//!
//! [`compile`] is the way through. First `checkpoint_loops` lets loops keep fewer of their states, if the policy asks
//! for that. In the order in which a graph takes it:
//!
//! * `cluster` groups nodes into kernels-to-be: `cluster_roles` says what part each node plays (`view` which views need
//!   no memory), `cluster_limits` what a kernel can hold, `cluster_turn` what joins where the tape turns,
//!   `cluster_auto` what a later pass rebuilds by itself.
//! * `liveness` and `cost` are the tables over clusters that policies read: which values flow, what they cost.
//! * `policy` decides what to keep and what to recompute, and writes a [`Schedule`](schedule::Schedule); `simulate`
//!   judges it, `report` explains it, `timeline` draws it.
//! * `lower` turns it into a [`Program`](program::Program): kernels (`lower_fused` with `lower_axes` and
//!   `lower_registers`, `lower_structural`, `lower_loop` with `loops`) over buffers (`lower_buffers`) that `allocate`
//!   places; of long schedules by two threads (`lower_halves`). `lower_joined` says which steps run together,
//!   `lower_scratch` what each needs by itself, `lower_transfers` what is on disk meanwhile.
//! * `within` takes the cheapest of all plans that keeps to a limit on memory.
//! * `least_bytes` spares lowering what is larger than another program anyway.
//! * `verify` (with `verify_loops` and `verify_transfers`) proves the program safe, `footprint` says what it occupies.
//!   `tables` allocates for all of them.
//!
//! Schedules and programs are plain data, and nothing outside this crate decides what is kept.

pub mod allocate;
pub mod checkpoint_loops;
pub mod cluster;
mod cluster_auto;
mod cluster_fences;
mod cluster_limits;
mod cluster_roles;
mod cluster_turn;
pub mod compile;
pub mod cost;
pub mod footprint;
mod least_bytes;
pub mod liveness;
pub mod loops;
pub mod lower;
mod lower_axes;
mod lower_buffers;
mod lower_fused;
mod lower_halves;
mod lower_joined;
mod lower_loop;
mod lower_registers;
mod lower_scratch;
mod lower_structural;
mod lower_transfers;
pub mod policy;
pub mod program;
pub mod report;
pub mod schedule;
pub mod simulate;
mod tables;
mod takeover;
pub mod timeline;
pub mod verify;
mod verify_loops;
mod verify_transfers;
pub mod view;
pub mod within;
