//! Plans within a limit on memory: what is tried, and planners that only such a limit asks for.
//!
//! `frontier` holds what all planners make of one graph, each a `candidate`. `ladder` says which of the policies' own
//! attempts are tried, `costly` which of them wait until nothing else fits. Beside them stands
//! `evict`, which drops and recomputes single values within `budgets`, over clusters that `apart` takes apart and with
//! the values pinned that `dear` finds.

mod apart;
mod budgets;
pub(crate) mod candidate;
mod costly;
mod dear;
pub(crate) mod evict;
pub(crate) mod frontier;
mod ladder;
