//! What is tried on one clustering for whoever has a limit on memory.

use ckad_graph::{CheckpointPolicy, Result};

use crate::policy::chain::binomial;
use crate::policy::limit::costly;
use crate::policy::profile::Profile;
use crate::policy::region::{Heed, Known, Variant};
use crate::policy::sqrt::{ANY, EQUAL_SEGMENTS, PACES, PACES_OF_SHORT, Pace, SHORT};
use crate::policy::{Material, region};

/// The budgets that are walked beside those that "sqrt" tries, in least ones.
const SLACKS: &[f64] = &[1.15, 1.3, 1.5, 1.75, 2.0, 2.3, 2.7, 3.1, 3.6, 4.2];

/// Further ones, of short tapes in twentieths of what later passes use in all.
const SHARES: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// The same of long tapes, where an attempt takes time.
const SHARES_OF_LONG: &[u8] = &[2, 4, 7, 10, 13, 17];

/// How many memories of a chain's table are tried, and with how many times the least work; on long tapes, where a
/// program of many steps takes more bytes than it saves.
const SIZES: (usize, u64) = (24, u64::MAX);
const SIZES_OF_LONG: (usize, u64) = (1, 3);
/// How often steps may be advanced over, of which the fewest slots are tried; on long tapes.
const REPEATS: u64 = 5;
const REPEATS_OF_LONG: u64 = 3;
/// Short tapes are tried with every number of slots below those, down to this one.
const FEWEST_SLOTS: u32 = 2;

/// Numbers of equal segments that are tried besides, of graphs of so many clusters.
const SEGMENTS: std::ops::RangeInclusive<u32> = 1..=16;
const MOST_CLUSTERS_OF_SEGMENTS: usize = 300;

/// Clusters of all attempts together, of tapes that are not long: what some tens of milliseconds are enough for.
const CLUSTERS_TRIED: usize = 40_000;

/// A variant, and the policy that tries it too.
#[derive(Clone, Copy)]
pub(crate) struct Rung {
    pub(crate) asked: Variant,
    pub(crate) of: Option<CheckpointPolicy>,
}

/// What is costly to try.
#[derive(Default)]
pub(crate) struct Later {
    pub(crate) rungs: Vec<Rung>,
    /// The least operations beyond keeping everything that any of them takes: they compute all steps but the last again
    /// that they do not keep whole.
    pub(crate) again: u64,
}

/// What is tried on one clustering: keeping everything first, then as much as the length of the tape leaves time for;
/// and what is tried later.
pub(crate) fn ladder(material: &Material<'_>, profile: &Profile, known: &mut Known) -> Result<(Vec<Rung>, Later)> {
    let short = material.positions.count <= SHORT;
    let clusters = material.clustering.clusters.len();
    let (paces, slacks, shares) = match short {
        true => (PACES_OF_SHORT, SLACKS, SHARES),
        false => (PACES, &SLACKS[..0], SHARES_OF_LONG),
    };
    // The last segment is not recomputed: it is made as long as the budget lets it be.
    let walk = |slack, twentieths, with_end| Pace { slack, twentieths, with_end, late_start: true, fewest: true };
    let budgets = slacks.iter().map(|&slack| (slack, 0)).chain(shares.iter().map(|&share| (1.0, share)));
    let named = |policy| move |asked: Variant| Rung { asked, of: Some(policy) };
    let unnamed = |asked: Variant| Rung { asked, of: None };
    let own = |policy| Rung { asked: Variant::new(policy, ANY), of: Some(policy) };
    let mut ladder = Vec::new();
    for &heed in [Heed::All].iter().chain(region::less_heed(material.graph)) {
        let everything = region::variants(material, CheckpointPolicy::None, heed);
        ladder.extend(everything.into_iter().map(named(CheckpointPolicy::None)));
    }
    let sqrt = CheckpointPolicy::Sqrt;
    ladder.extend(paces.iter().map(|&pace| Variant::new(sqrt, pace)).map(named(sqrt)));
    if short {
        let equal = EQUAL_SEGMENTS.iter().map(|&count| Variant::new(CheckpointPolicy::Segments(count), ANY));
        ladder.extend(equal.map(named(sqrt)));
    }
    let both = 2 * budgets.clone().count() * clusters <= CLUSTERS_TRIED;
    for &with_end in if both { &[true, false][..] } else { &[true] } {
        let walks = budgets.clone().map(|(slack, share)| Variant::new(sqrt, walk(slack, share, with_end)));
        ladder.extend(walks.map(unnamed));
    }
    if clusters <= MOST_CLUSTERS_OF_SEGMENTS {
        ladder.extend(SEGMENTS.map(|count| own(CheckpointPolicy::Segments(count))));
    }
    let mut later = Later::default();
    if material.flow.passes == 2 {
        let (sizes, repeats) = if short { (SIZES, REPEATS) } else { (SIZES_OF_LONG, REPEATS_OF_LONG) };
        let (sizes, steps, again) = region::sizes(material, profile, known, sizes, costly::MIXED as usize)?;
        let table = |units| Variant { units: Some(units), ..Variant::new(CheckpointPolicy::Log, ANY) };
        ladder.extend(sizes.into_iter().map(table).map(unnamed));
        let mut slots: Vec<u32> = (2..=repeats).map(|repeats| binomial::fewest_slots(steps, repeats)).collect();
        if short && let Some(&fewest) = slots.last() {
            slots.extend((FEWEST_SLOTS..fewest).rev());
        }
        let fewest = slots.last().copied().unwrap_or(u32::MAX);
        ladder.extend(slots.into_iter().map(|slots| own(CheckpointPolicy::Revolve(slots))));
        let few = costly::few(steps, clusters, fewest)?;
        ladder.extend(few.now.into_iter().map(own));
        later = Later { rungs: few.costly.into_iter().map(own).collect(), again };
    } else {
        ladder.push(own(CheckpointPolicy::Log));
    }
    Ok((ladder, later))
}
