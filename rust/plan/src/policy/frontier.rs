//! Memory against work: what all planners make of one graph, for whoever has a limit on memory.
//!
//! The ladder of attempts is fixed by the graph and not by the limit that is asked for. So the plan for a limit, the
//! least limit that can be kept and the curve between them read one list and cannot disagree. Each attempt is emitted
//! and simulated once; what is dearer than another and allocates no less is dropped. A candidate remembers how it was
//! made, from which its schedule is emitted again where it is looked at exactly.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ckad_graph::{CheckpointPolicy, Graph, Result};

use crate::cluster::cluster;
use crate::cost::forward_flops;
use crate::policy::cells::Cells;
use crate::policy::evict::{self, Eviction, Evictions, WEIGHTS, Weight};
use crate::policy::profile::Profile;
use crate::policy::region::{Known, Variant};
use crate::policy::sqrt::{ANY, EQUAL_SEGMENTS, PACES, PACES_OF_SHORT, Pace, SHORT};
use crate::policy::{Material, Planned, apart, auto, binomial, dear, region};
use crate::program::Target;
use crate::tables::push;

/// The budgets that are walked beside those that "sqrt" tries, in least ones.
const SLACKS: &[f64] = &[1.15, 1.3, 1.5, 1.75, 2.0, 2.3, 2.7, 3.1, 3.6, 4.2];

/// Further ones, of short tapes in twentieths of what later passes use in all.
const SHARES: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/// The same of long tapes, where an attempt takes time.
const SHARES_OF_LONG: &[u8] = &[2, 4, 7, 10, 13, 17];

/// How many memories of a chain's table are tried, and on long tapes.
const SIZES: usize = 24;
const SIZES_OF_LONG: usize = 1;
/// How often steps may be advanced over, of which the fewest slots are tried; on long tapes.
const REPEATS: u64 = 5;
const REPEATS_OF_LONG: u64 = 3;
/// Short tapes are tried with every number of slots below those, down to this one.
const FEWEST_SLOTS: u32 = 2;

/// So many of those of each kind that allocate least are kept though others beat them: which needs least in the end is
/// decided by what joined steps do not store.
const LEAST_ONES: usize = 6;

/// Clusters of all attempts together, of tapes that are not long: what some tens of milliseconds are enough for.
const CLUSTERS_TRIED: usize = 40_000;

/// The most clusters of graphs of which values are kept because they are dear.
const MOST_CLUSTERS_OF_DEAR: usize = 2_000;

/// From one budget of evictions to the next the work leaps by more than one in so many parts of it; so many leaps are
/// looked at.
const LEAP: u64 = 30;
const LEAPS: usize = 6;

/// A schedule that was tried and not kept.
pub(crate) struct Candidate {
    made: Made,
    /// Whether it stays in any case: so a limit that a policy keeps by itself is kept.
    pub(crate) stays: bool,
    /// The most bytes of values allocated at once, as the simulator says: joined steps may store fewer.
    pub(crate) allocated: u64,
    pub(crate) flops: u64,
}

/// The clusters of a schedule: the plain ones, those called auto, or either with dear and cheap values apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    Plain,
    Auto,
    Apart,
    /// The last of these, with a number of sets of values that are kept.
    Dear(usize),
}

/// What a schedule is emitted from.
pub(crate) enum Made {
    /// Cells, as that policy asks for them.
    Cells {
        over: Over,
        cells: Cells,
        asked: CheckpointPolicy,
    },
    Evicted {
        over: Over,
        eviction: Eviction,
    },
}

impl Made {
    const KINDS: usize = 2;

    fn kind(&self) -> usize {
        match self {
            Made::Cells { .. } => 0,
            Made::Evicted { .. } => 1,
        }
    }
}

impl Candidate {
    /// What was tried, to read.
    pub(crate) fn label(&self) -> String {
        let (text, over) = match &self.made {
            Made::Cells { over: Over::Plain, asked: CheckpointPolicy::None, .. } => return "none".to_owned(),
            Made::Cells { over: Over::Auto, asked: CheckpointPolicy::None, .. } => return "auto".to_owned(),
            Made::Cells { over, asked: CheckpointPolicy::None, .. } => ("none".to_owned(), *over),
            Made::Cells { over, cells, asked: CheckpointPolicy::Segments(_) } => {
                (format!("{} segments", cells.segments()), *over)
            }
            Made::Cells { over, asked: CheckpointPolicy::Revolve(slots), .. } => (format!("{slots} states"), *over),
            // Tried in several memories.
            Made::Cells { over, asked: CheckpointPolicy::Log, .. } => ("chain".to_owned(), *over),
            Made::Cells { over, cells, .. } => (format!("sqrt, {} segments", cells.segments()), *over),
            Made::Evicted { over, .. } => ("eviction".to_owned(), *over),
        };
        match over {
            Over::Plain => text,
            Over::Auto => format!("{text}, auto"),
            Over::Apart => format!("{text}, apart"),
            Over::Dear(_) => format!("{text}, dear values kept"),
        }
    }
}

/// The candidates of one graph, the least work first.
pub(crate) struct Frontier<'a> {
    plain: Material<'a>,
    auto: Option<Material<'a>>,
    apart: Option<Material<'a>>,
    dear: Vec<Material<'a>>,
    /// Operations where everything is kept.
    once: u64,
    forward_flops: u64,
    pub(crate) candidates: Vec<Candidate>,
}

impl<'a> Frontier<'a> {
    pub(crate) fn of(graph: &'a Graph, target: &Target) -> Result<Frontier<'a>> {
        let plain = Material::new(graph, cluster(graph, target, false)?)?;
        let forward_flops = forward_flops(graph, &plain.clustering, &plain.flow.flops, usize::from(plain.flow.passes));
        let whole = Cells::whole(plain.positions.count)?;
        let everything = plain.attempt(&whole)?.simulation;
        let mut found = Frontier {
            plain,
            auto: None,
            apart: None,
            dear: Vec::new(),
            once: everything.flops,
            forward_flops,
            candidates: Vec::new(),
        };
        let everything = Candidate {
            made: Made::Cells { over: Over::Plain, cells: whole, asked: CheckpointPolicy::None },
            stays: true,
            allocated: everything.allocated,
            flops: everything.flops,
        };
        let all = everything.allocated;
        if found.plain.flow.passes == 1 {
            push(&mut found.candidates, everything)?;
            return Ok(found);
        }
        found.auto = auto::material(&found.plain, target)?;
        found.candidates = found.tried(&found.plain, Over::Plain)?;
        // Regions that the user asked to recompute are recomputed, but where that would not save anything.
        let fewer = |candidate: &Candidate| candidate.stays && candidate.allocated < everything.allocated;
        if region::asks_for_recomputation(graph) && !found.candidates.iter().any(fewer) {
            push(&mut found.candidates, everything)?;
        }
        if let Some(auto) = &found.auto {
            let others = found.tried(auto, Over::Auto)?;
            others.into_iter().try_for_each(|candidate| push(&mut found.candidates, candidate))?;
        }
        // Only evictions keep the one and not the other.
        let of = found.auto.as_ref().unwrap_or(&found.plain);
        if found.evicts(of) {
            found.apart = apart::material(of)?;
        }
        if let Some(apart) = &found.apart {
            let mut others = Vec::new();
            found.evicted(apart, Over::Apart, all, &mut others)?;
            others.into_iter().try_for_each(|candidate| push(&mut found.candidates, candidate))?;
        }
        let of = found.apart.as_ref().or(found.auto.as_ref()).unwrap_or(&found.plain);
        if of.clustering.clusters.len() <= MOST_CLUSTERS_OF_DEAR {
            found.dear = dear::materials(of)?;
        }
        for index in 0..found.dear.len() {
            // What is not kept is cheap: it may be recomputed often.
            let policies = [CheckpointPolicy::Sqrt, CheckpointPolicy::Revolve(4), CheckpointPolicy::Log];
            let others = found.walked(Over::Dear(index), policies.map(|policy| Variant::new(policy, ANY)).to_vec())?;
            others.into_iter().try_for_each(|candidate| push(&mut found.candidates, candidate))?;
        }
        keep_the_best(&mut found.candidates);
        Ok(found)
    }

    /// What becomes of variants.
    fn walked(&self, over: Over, variants: Vec<Variant>) -> Result<Vec<Candidate>> {
        let material = self.material(over);
        let (profile, mut known) = (material.profile()?, Known::default());
        let mut candidates = Vec::new();
        for variant in variants {
            let cells = region::cells(material, &profile, &mut known, variant)?;
            let simulation = material.attempt(&cells)?.simulation;
            let (allocated, flops) = (simulation.allocated, simulation.flops);
            let made = Made::Cells { over, cells, asked: variant.policy };
            push(&mut candidates, Candidate { made, stays: false, allocated, flops })?;
        }
        Ok(candidates)
    }

    /// What the planners make of one clustering.
    fn tried(&self, material: &Material<'_>, over: Over) -> Result<Vec<Candidate>> {
        let profile = material.profile()?;
        let mut known = Known::default();
        let mut cells: Vec<(Cells, CheckpointPolicy)> = Vec::new();
        for variant in ladder(material, &profile, &mut known)? {
            let made = region::cells(material, &profile, &mut known, variant)?;
            if !cells.iter().any(|(cells, _)| *cells == made) {
                push(&mut cells, (made, variant.policy))?;
            }
        }
        let mut candidates = Vec::new();
        for (cells, asked) in cells {
            let simulation = material.attempt(&cells)?.simulation;
            let (allocated, flops) = (simulation.allocated, simulation.flops);
            let stays = asked == CheckpointPolicy::None;
            let made = Made::Cells { over, cells, asked };
            push(&mut candidates, Candidate { made, stays, allocated, flops })?;
        }
        if self.evicts(material) {
            let everything = candidates.first().map_or(0, |candidate| candidate.allocated);
            self.evicted(material, over, everything, &mut candidates)?;
        }
        Ok(candidates)
    }

    /// Whether the graph is small enough for evictions and has no regions with a policy of their own.
    fn evicts(&self, material: &Material<'_>) -> bool {
        material.clustering.clusters.len() <= evict::MOST_CLUSTERS && !region::asks_for_recomputation(material.graph)
    }

    /// Programs of evictions; `everything` is what keeping everything allocates.
    fn evicted(
        &self,
        material: &Material<'_>,
        over: Over,
        everything: u64,
        candidates: &mut Vec<Candidate>,
    ) -> Result<()> {
        let evictions = Evictions::new(material)?;
        let mut tried = |eviction: Eviction| -> Result<Option<u64>> {
            let Some(schedule) = evictions.schedule(eviction)? else { return Ok(None) };
            let simulation = material.simulated(&schedule)?;
            let (allocated, flops) = (simulation.allocated, simulation.flops);
            let made = Made::Evicted { over, eviction };
            push(candidates, Candidate { made, stays: false, allocated, flops })?;
            Ok(Some(flops))
        };
        // Of each budget, the largest first, the least work and the weight that takes it.
        let mut least: BTreeMap<Reverse<u64>, (u64, Weight)> = BTreeMap::new();
        for &weight in WEIGHTS {
            let mut failures = 0;
            for budget in evictions.budgets(everything) {
                let Some(flops) = tried(Eviction { budget, weight })? else {
                    failures += 1;
                    if failures == evict::FAILURES {
                        break;
                    }
                    continue;
                };
                let best = least.entry(Reverse(budget)).or_insert((flops, weight));
                if flops < best.0 {
                    *best = (flops, weight);
                }
            }
        }
        // Where the work leaps from one budget to the next, those between are worth a look.
        let pairs = least.iter().zip(least.iter().skip(1));
        let leaps = pairs.filter(|((_, (more, _)), (_, (less, _)))| less.saturating_sub(*more) > self.once / LEAP);
        for ((&Reverse(high), &(_, first)), (&Reverse(low), &(_, second))) in leaps.take(LEAPS) {
            let weights = if first == second { &[first][..] } else { &[first, second] };
            for &weight in weights {
                for quarter in 1..4 {
                    tried(Eviction { budget: low + (high - low) * quarter / 4, weight })?;
                }
            }
        }
        Ok(())
    }

    fn material(&self, over: Over) -> &Material<'a> {
        let found = match over {
            Over::Plain => None,
            Over::Auto => self.auto.as_ref(),
            Over::Apart => self.apart.as_ref(),
            Over::Dear(index) => self.dear.get(index),
        };
        found.unwrap_or(&self.plain)
    }

    /// The schedule of a candidate.
    pub(crate) fn planned(&self, candidate: &Candidate) -> Result<Planned> {
        let attempt = match &candidate.made {
            Made::Cells { over, cells, asked: _ } => self.material(*over).attempt(cells)?,
            Made::Evicted { over, eviction } => self.material(*over).evicted(*eviction)?,
        };
        Ok(Planned {
            flops: attempt.simulation.flops,
            forward_flops: self.forward_flops,
            extra_flops: attempt.simulation.flops.saturating_sub(self.once),
            segments: attempt.segments,
            live_peak: attempt.simulation.peak,
            schedule: attempt.schedule,
            note: None,
        })
    }
}

/// What is tried on one clustering: keeping everything first, then as much as the length of the tape leaves time for.
fn ladder(material: &Material<'_>, profile: &Profile, known: &mut Known) -> Result<Vec<Variant>> {
    let short = material.positions.count <= SHORT;
    let (paces, slacks, shares) = match short {
        true => (PACES_OF_SHORT, SLACKS, SHARES),
        false => (PACES, &SLACKS[..0], SHARES_OF_LONG),
    };
    // The last segment is not recomputed: it is made as long as the budget lets it be.
    let walk = |slack, twentieths, with_end| Pace { slack, twentieths, with_end, late_start: true, fewest: true };
    let budgets = slacks.iter().map(|&slack| (slack, 0)).chain(shares.iter().map(|&share| (1.0, share)));
    let mut ladder = region::variants(material, CheckpointPolicy::None);
    ladder.extend(paces.iter().map(|&pace| Variant::new(CheckpointPolicy::Sqrt, pace)));
    let both = 2 * budgets.clone().count() * material.clustering.clusters.len() <= CLUSTERS_TRIED;
    for &with_end in if both { &[true, false][..] } else { &[true] } {
        let walks =
            budgets.clone().map(|(slack, share)| Variant::new(CheckpointPolicy::Sqrt, walk(slack, share, with_end)));
        ladder.extend(walks);
    }
    if short {
        ladder.extend(EQUAL_SEGMENTS.iter().map(|&count| Variant::new(CheckpointPolicy::Segments(count), ANY)));
    }
    if material.flow.passes == 2 {
        let (sizes, repeats) = if short { (SIZES, REPEATS) } else { (SIZES_OF_LONG, REPEATS_OF_LONG) };
        let (sizes, steps) = region::sizes(material, profile, known, sizes)?;
        let policy = CheckpointPolicy::Log;
        ladder.extend(sizes.into_iter().map(|units| Variant { policy, pace: ANY, units: Some(units) }));
        let mut slots: Vec<u32> = (2..=repeats).map(|repeats| binomial::fewest_slots(steps, repeats)).collect();
        if short && let Some(&fewest) = slots.last() {
            slots.extend((FEWEST_SLOTS..fewest).rev());
        }
        ladder.extend(slots.into_iter().map(|slots| Variant::new(CheckpointPolicy::Revolve(slots), ANY)));
    }
    Ok(ladder)
}

/// Drops what another beats in both figures, but for the least ones, and sorts by work.
fn keep_the_best(candidates: &mut Vec<Candidate>) {
    candidates.sort_by_key(|candidate| (candidate.allocated, candidate.flops));
    let mut cheapest = u64::MAX;
    let mut ranks = [0; Made::KINDS];
    candidates.retain(|candidate| {
        let better = candidate.flops < cheapest;
        cheapest = cheapest.min(candidate.flops);
        let rank = &mut ranks[candidate.made.kind()];
        *rank += 1;
        better || candidate.stays || *rank <= LEAST_ONES
    });
    candidates.sort_by_key(|candidate| (candidate.flops, candidate.allocated));
}
