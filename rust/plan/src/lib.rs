//! The planner: from a graph to a program whose peak is known.
pub mod allocate;
pub mod program;
pub mod schedule;
