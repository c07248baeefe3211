//! Plans within a limit on memory: what is tried, and planners that only such a limit asks for.
//!
//! `frontier` holds what all planners make of one graph. Beside the policies' own attempts these are `evict`, which
//! drops and recomputes single values, over clusters that `apart` takes apart and with the values pinned that `dear`
//! finds; `deep` says which attempts are so dear that they wait until nothing else fits.

mod apart;
mod dear;
mod deep;
pub(crate) mod evict;
pub(crate) mod frontier;
