//! The planner: from a graph to a program whose peak is known.
//!
//! `cluster` groups nodes into kernels-to-be; `policy` decides what to keep and what to recompute and writes a
//! [`Schedule`](schedule::Schedule); `simulate` judges it, `report` explains it; `lower` turns it into a
//! [`Program`](program::Program) over buffers that `allocate` places, and `verify` proves it safe. Schedules and
//! programs are plain data, and nothing outside this crate decides what is kept.

pub mod allocate;
pub mod cluster;
mod cluster_auto;
mod cluster_limits;
mod cluster_roles;
mod cluster_turn;
pub mod compile;
pub mod cost;
pub mod footprint;
pub mod liveness;
pub mod lower;
mod lower_axes;
mod lower_buffers;
mod lower_fused;
mod lower_registers;
mod lower_structural;
pub mod policy;
pub mod program;
pub mod report;
pub mod schedule;
pub mod simulate;
pub mod verify;
pub mod view;
