//! Which policies over chains a limit may choose with so few states that steps are computed very often.
//!
//! They are the least memory that there is, and by far the most work: trying one takes as long as its schedule is.
//! What is short is tried with all else, what is longer is called costly and tried only where nothing cheaper fits.

use ckad_graph::{CheckpointPolicy, Result};

use crate::policy::chain::binomial;
use crate::tables::push;

/// The most slots of a state or a step that are tried one by one.
const SLOTS: u32 = 8;
pub(super) const MIXED: u32 = 4;

/// Clusters of a schedule that is tried with all else.
const CLUSTERS_AT_ONCE: u64 = 4_000;

/// Clusters of all that is costly.
const CLUSTERS_OF_COSTLY: u64 = 400_000;

/// Halving takes half a forward part for each time: with more steps than so many it takes more than one of them beyond
/// keeping everything.
const STEPS_OF_HALVING: usize = 32;

/// Policies to try at once, and those to try where nothing cheaper fits.
#[derive(Default)]
pub(crate) struct Few {
    pub(crate) now: Vec<CheckpointPolicy>,
    pub(crate) costly: Vec<CheckpointPolicy>,
}

/// For so many steps and clusters; the fewest slots for states that are tried anyway are `tried`.
pub(crate) fn few(steps: usize, clusters: usize, tried: u32) -> Result<Few> {
    let mut few = Few::default();
    let halving = if steps < STEPS_OF_HALVING { &mut few.now } else { &mut few.costly };
    push(halving, CheckpointPolicy::Log)?;
    let mut left = CLUSTERS_OF_COSTLY;
    for slots in (1..=SLOTS).rev() {
        let times = binomial::repeats(steps, slots);
        let takes = times.max(1).saturating_mul(clusters as u64);
        let at_once = takes <= CLUSTERS_AT_ONCE;
        let revolve = (slots < tried).then_some(CheckpointPolicy::Revolve(slots));
        let mixed = (slots <= MIXED).then_some(CheckpointPolicy::Mixed(slots));
        for policy in revolve.into_iter().chain(mixed) {
            if at_once {
                push(&mut few.now, policy)?;
            } else if takes <= left {
                left -= takes;
                push(&mut few.costly, policy)?;
            }
        }
    }
    Ok(few)
}
