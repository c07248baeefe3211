//! One of the plans that a limit chooses among: how it is made, and what is known of it.

use std::cell::Cell;

use ckad_graph::CheckpointPolicy;

use crate::policy::cells::Cells;
use crate::policy::chain::chained;
use crate::policy::limit::evict::Eviction;
use crate::policy::region::{Heed, Variant};
use crate::policy::sequence::Figures;

/// A plan that was tried, without its schedule.
pub(crate) struct Candidate {
    pub(crate) made: Made,
    /// The policy whose plan this is, which stays in any case: so a limit that a policy keeps by itself is kept.
    pub(crate) of: Option<CheckpointPolicy>,
    pub(crate) figures: Figures,
    /// What its program takes can be no less, once its schedule was looked at.
    pub(crate) least: Cell<usize>,
    /// What its program takes, once that is known.
    pub(crate) needed: Cell<Option<usize>>,
}

/// Whether this policy's bytes are a limit that is kept.
pub(crate) fn is_exact(of: Option<CheckpointPolicy>) -> bool {
    matches!(of, Some(CheckpointPolicy::None | CheckpointPolicy::Sqrt | CheckpointPolicy::Log))
}

/// The clusters of a plan: the plain ones, those called auto, either with dear and cheap values apart, or groups of
/// one step each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Over {
    Plain,
    Auto,
    Apart,
    /// The last of these, with a number of sets of values that are kept.
    Dear(usize),
    /// Of the materials with groups of one step each.
    Steps(usize),
}

/// What a schedule is emitted from.
pub(crate) enum Made {
    /// Cells, as that policy asks for them.
    Cells {
        over: Over,
        cells: Cells,
        asked: Variant,
    },
    Evicted {
        over: Over,
        eviction: Eviction,
    },
}

impl Made {
    pub(crate) const KINDS: usize = 5;

    pub(crate) fn over(&self) -> Over {
        match self {
            Made::Cells { over, .. } | Made::Evicted { over, .. } => *over,
        }
    }

    /// Joined steps leave out about as much in schedules of one kind.
    pub(crate) fn kind(&self) -> usize {
        let chained = |asked: &Variant| usize::from(chained::is_chained(asked.policy));
        match self {
            Made::Evicted { .. } => 0,
            Made::Cells { asked, .. } => 1 + chained(asked) + 2 * usize::from(self.is_by_steps()),
        }
    }

    /// Whether its groups hold one step each.
    pub(crate) fn is_by_steps(&self) -> bool {
        matches!(self, Made::Cells { over: Over::Steps(_), .. })
    }
}

impl Candidate {
    pub(crate) fn new(made: Made, of: Option<CheckpointPolicy>, figures: Figures) -> Candidate {
        Candidate { made, of, figures, least: Cell::new(0), needed: Cell::new(None) }
    }

    /// Whether it is the plan of a policy whose bytes are a limit that is kept, whatever its figures say of them.
    pub(crate) fn is_exact(&self) -> bool {
        is_exact(self.of)
    }

    /// Whether nothing is recomputed, but for what regions ask.
    pub(crate) fn keeps_everything(&self) -> bool {
        self.of == Some(CheckpointPolicy::None)
    }

    pub(crate) fn heed(&self) -> Heed {
        match &self.made {
            Made::Cells { asked, .. } => asked.heed,
            Made::Evicted { .. } => Heed::Nothing,
        }
    }

    /// What was tried, to read.
    pub(crate) fn label(&self) -> String {
        let (text, over) = match &self.made {
            Made::Cells { over, cells, asked } => {
                let text = match asked.policy {
                    CheckpointPolicy::None if *over == Over::Plain => return "none".to_owned(),
                    CheckpointPolicy::None if *over == Over::Auto => return "auto".to_owned(),
                    CheckpointPolicy::None => "none".to_owned(),
                    CheckpointPolicy::Segments(_) => format!("{} segments", cells.segments()),
                    CheckpointPolicy::Revolve(1) => "1 state".to_owned(),
                    CheckpointPolicy::Revolve(slots) => format!("{slots} states"),
                    CheckpointPolicy::Mixed(slots) => format!("{slots} states or steps"),
                    // A chain's table is tried in several memories.
                    _ if asked.units.is_some() => "chain".to_owned(),
                    CheckpointPolicy::Log => "log".to_owned(),
                    _ => format!("sqrt, {} segments", cells.segments()),
                };
                (text, *over)
            }
            Made::Evicted { over, .. } => ("eviction".to_owned(), *over),
        };
        match over {
            Over::Plain => text,
            Over::Auto => format!("{text}, auto"),
            Over::Apart => format!("{text}, apart"),
            Over::Dear(_) => format!("{text}, dear values kept"),
            Over::Steps(_) => format!("{text}, step by step"),
        }
    }
}
