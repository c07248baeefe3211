//! The planner: from a graph to a program whose peak is known.
pub mod allocate;
pub mod program;
pub mod schedule;
pub mod view;
pub mod lower;
pub mod verify;
mod lower_axes;
mod lower_buffers;
mod lower_fused;
mod lower_registers;
mod lower_structural;
pub mod simulate;
pub mod cost;
pub mod footprint;
