//! Memory against work: what all planners make of one graph, for whoever has a limit on memory.
//!
//! The ladder of attempts is fixed by the graph and not by the limit that is asked for. So the plan for a limit, the
//! least limit that can be kept and the curve between them read one list and cannot disagree. Each attempt is emitted
//! and simulated once; what is dearer than another and allocates no less is dropped. A candidate remembers how it was
//! made, from which its schedule is emitted again where it is looked at exactly.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use ckad_graph::{CheckpointPolicy, Graph, Result};
use rustc_hash::FxHashMap;

use crate::cluster::cluster;
use crate::cost::forward_flops;
use crate::policy::cells::Cells;
use crate::policy::chain::{binomial, chained};
use crate::policy::limit::evict::{self, Eviction, Evictions, WEIGHTS, Weight};
use crate::policy::limit::{apart, dear, deep};
use crate::policy::profile::Profile;
use crate::policy::region::{Heed, Known, Variant};
use crate::policy::sqrt::{ANY, EQUAL_SEGMENTS, PACES, PACES_OF_SHORT, Pace, SHORT};
use crate::policy::{Attempt, Material, Planned, auto, region, steps};
use crate::program::Target;
use crate::schedule::{Action, Schedule};
use crate::simulate::Simulation;
use crate::tables::{collected, push};

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
    /// The policy whose plan this is, which stays in any case: so a limit that a policy keeps by itself is kept.
    of: Option<CheckpointPolicy>,
    /// The most bytes of values allocated at once, as the simulator says: joined steps may store fewer.
    pub(crate) allocated: u64,
    /// The most bytes live at once.
    live: u64,
    pub(crate) flops: u64,
    /// What its program takes, once that is known.
    pub(crate) needed: Cell<Option<usize>>,
    /// How many clusters are computed, again and again ones included: about as many steps has its program.
    pub(crate) computes: usize,
}

/// The clusters of a schedule: the plain ones, those called auto, either with dear and cheap values apart, or groups of
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
    const KINDS: usize = 5;

    /// Joined steps leave out about as much in schedules of one kind.
    fn kind(&self) -> usize {
        let chained = |asked: &Variant| usize::from(chained::is_chained(asked.policy));
        match self {
            Made::Evicted { .. } => 0,
            Made::Cells { asked, .. } => 1 + chained(asked) + 2 * usize::from(self.is_by_steps()),
        }
    }

    /// Whether its groups hold one step each.
    fn is_by_steps(&self) -> bool {
        matches!(self, Made::Cells { over: Over::Steps(_), .. })
    }
}

impl Candidate {
    fn new(made: Made, of: Option<CheckpointPolicy>, schedule: &Schedule, simulation: &Simulation) -> Candidate {
        let Simulation { allocated, peak, flops, .. } = *simulation;
        let computes = schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
        Candidate { made, of, allocated, live: peak, flops, needed: Cell::new(None), computes }
    }

    /// Whether it is the plan of a policy whose bytes are a limit that is kept, whatever the simulator says of them.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self.of, Some(CheckpointPolicy::None | CheckpointPolicy::Sqrt | CheckpointPolicy::Log))
    }

    /// Whether nothing is recomputed, but for what regions ask.
    pub(crate) fn keeps_everything(&self) -> bool {
        self.of == Some(CheckpointPolicy::None)
    }

    fn is_of(&self, other: &Cells) -> bool {
        matches!(&self.made, Made::Cells { cells, .. } if cells == other)
    }

    fn heed(&self) -> Heed {
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

/// The candidates of one graph, the least work first.
pub(crate) struct Frontier<'a> {
    plain: Material<'a>,
    auto: Option<Material<'a>>,
    apart: Option<Material<'a>>,
    dear: Vec<Material<'a>>,
    steps: Vec<Material<'a>>,
    /// Operations where everything is kept.
    once: u64,
    /// Operations of the passes before the last one.
    again: u64,
    forward_flops: u64,
    pub(crate) candidates: Vec<Candidate>,
    /// What takes a forward part more at least, and long to try, until somebody asks for it.
    deep: Option<Vec<(Over, Variant)>>,
}

impl<'a> Frontier<'a> {
    pub(crate) fn of(graph: &'a Graph, target: &Target) -> Result<Frontier<'a>> {
        let plain = Material::new(graph, cluster(graph, target, false)?)?;
        let flow = &plain.flow;
        let forward_flops = forward_flops(graph, &plain.clustering, &flow.flops, usize::from(flow.passes));
        let before_last = flow.flops.iter().zip(&plain.positions.pass).filter(|&(_, &pass)| pass + 1 < flow.passes);
        let again = before_last.fold(0, |sum: u64, (&flops, _)| sum.saturating_add(flops));
        let whole = Cells::whole(plain.positions.count)?;
        let Attempt { schedule, simulation: everything, .. } = plain.attempt(&whole)?;
        let mut found = Frontier {
            plain,
            auto: None,
            apart: None,
            dear: Vec::new(),
            steps: Vec::new(),
            once: everything.flops,
            again,
            forward_flops,
            candidates: Vec::new(),
            deep: None,
        };
        if found.plain.flow.passes == 1 {
            let asked = Variant::new(CheckpointPolicy::None, ANY);
            let made = Made::Cells { over: Over::Plain, cells: whole, asked };
            push(&mut found.candidates, Candidate::new(made, Some(asked.policy), &schedule, &everything))?;
            return Ok(found);
        }
        drop(schedule);
        let all = everything.allocated;
        found.auto = auto::material(&found.plain, target)?;
        let mut waiting = Vec::new();
        found.candidates = found.tried(&found.plain, Over::Plain, &mut waiting)?;
        if let Some(auto) = &found.auto {
            let others = found.tried(auto, Over::Auto, &mut waiting)?;
            others.into_iter().try_for_each(|candidate| push(&mut found.candidates, candidate))?;
        }
        found.steps = steps::materials(&found.plain, target)?;
        for (index, material) in found.steps.iter().enumerate() {
            let others = found.tried(material, Over::Steps(index), &mut waiting)?;
            others.into_iter().try_for_each(|candidate| push(&mut found.candidates, candidate))?;
        }
        leave_plans(&mut found.candidates, everything.peak);
        found.deep = Some(waiting).filter(|waiting| !waiting.is_empty());
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
        for asked in variants {
            let cells = region::cells(material, &profile, &mut known, asked)?;
            let Attempt { schedule, simulation, .. } = material.attempt(&cells)?;
            push(&mut candidates, Candidate::new(Made::Cells { over, cells, asked }, None, &schedule, &simulation))?;
        }
        Ok(candidates)
    }

    /// What the planners make of one clustering; what is left for later goes to `waiting`.
    fn tried(&self, material: &Material<'_>, over: Over, waiting: &mut Vec<(Over, Variant)>) -> Result<Vec<Candidate>> {
        let profile = material.profile()?;
        let mut known: BTreeMap<Heed, Known> = BTreeMap::new();
        let mut candidates: Vec<Candidate> = Vec::new();
        let (ladder, deep) = ladder(material, &profile, known.entry(Heed::All).or_default())?;
        // Groups of one step each are there to be divided.
        let by_steps = matches!(over, Over::Steps(_));
        let divides = |rung: &Rung| !by_steps || rung.asked.policy != CheckpointPolicy::None;
        for Rung { asked, of } in ladder.into_iter().filter(divides) {
            let cells = region::cells(material, &profile, known.entry(asked.heed).or_default(), asked)?;
            if candidates.iter().any(|candidate| candidate.is_of(&cells)) {
                continue;
            }
            let Attempt { schedule, simulation, .. } = material.attempt(&cells)?;
            push(&mut candidates, Candidate::new(Made::Cells { over, cells, asked }, of, &schedule, &simulation))?;
        }
        deep.into_iter().try_for_each(|asked| push(waiting, (over, asked)))?;
        if !by_steps && self.evicts(material) {
            let everything = candidates.first().map_or(0, |candidate| candidate.allocated);
            self.evicted(material, over, everything, &mut candidates)?;
        }
        Ok(candidates)
    }

    /// Operations beyond keeping everything.
    pub(crate) fn extra(&self, candidate: &Candidate) -> u64 {
        candidate.flops.saturating_sub(self.once)
    }

    /// Fewer operations beyond keeping everything nothing takes that is tried late.
    pub(crate) fn least_of_deep(&self) -> u64 {
        self.again
    }

    /// Whether something that is not tried yet may take less work.
    pub(crate) fn is_deep(&self, candidate: &Candidate) -> bool {
        self.deep.is_some() && self.extra(candidate) >= self.again
    }

    /// Tries what is left; whether there was something.
    pub(crate) fn deepen(&mut self) -> Result<bool> {
        let Some(deep) = self.deep.take() else { return Ok(false) };
        for (over, asked) in deep {
            let found = self.walked(over, vec![asked])?;
            let dearer = found.into_iter().filter(|candidate| self.extra(candidate) >= self.again);
            let mut dearer: Vec<Candidate> = collected(dearer)?;
            dearer.iter_mut().for_each(|candidate| candidate.of = Some(asked.policy));
            dearer.into_iter().try_for_each(|candidate| push(&mut self.candidates, candidate))?;
        }
        self.candidates.sort_by_key(|candidate| (candidate.flops, candidate.allocated));
        Ok(true)
    }

    /// Regions that the user asked to recompute are recomputed, but where their programs need no less for it.
    pub(crate) fn drop_regions_in_vain(&mut self) {
        let needed = |candidate: &Candidate| candidate.needed.get().unwrap_or(usize::MAX);
        let heeding = self.candidates.iter().filter(|candidate| candidate.keeps_everything());
        let heeding: Vec<(Heed, usize)> = heeding.map(|candidate| (candidate.heed(), needed(candidate))).collect();
        self.candidates.retain(|candidate| {
            let in_vain = |&(heed, bytes): &(Heed, usize)| heed < candidate.heed() && bytes <= needed(candidate);
            !candidate.keeps_everything() || !heeding.iter().any(in_vain)
        });
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
            push(candidates, Candidate::new(Made::Evicted { over, eviction }, None, &schedule, &simulation))?;
            Ok(Some(simulation.flops))
        };
        // Of each budget, the largest first, the least work and the weight that takes it.
        let mut least: BTreeMap<Reverse<u64>, (u64, Weight)> = BTreeMap::new();
        for &weight in WEIGHTS {
            let mut failures = 0;
            for budget in evictions.budgets(everything) {
                if evictions.is_long_enough() {
                    break;
                }
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
                    if evictions.is_long_enough() {
                        return Ok(());
                    }
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
            Over::Steps(index) => self.steps.get(index),
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

/// A variant, and the policy that tries it too.
struct Rung {
    asked: Variant,
    of: Option<CheckpointPolicy>,
}

/// What is tried on one clustering: keeping everything first, then as much as the length of the tape leaves time for;
/// and what is tried later.
fn ladder(material: &Material<'_>, profile: &Profile, known: &mut Known) -> Result<(Vec<Rung>, Vec<Variant>)> {
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
    let mut deep = Vec::new();
    if material.flow.passes == 2 {
        let (sizes, repeats) = if short { (SIZES, REPEATS) } else { (SIZES_OF_LONG, REPEATS_OF_LONG) };
        let (sizes, steps) = region::sizes(material, profile, known, sizes)?;
        let table = |units| Variant { units: Some(units), ..Variant::new(CheckpointPolicy::Log, ANY) };
        ladder.extend(sizes.into_iter().map(table).map(unnamed));
        let mut slots: Vec<u32> = (2..=repeats).map(|repeats| binomial::fewest_slots(steps, repeats)).collect();
        if short && let Some(&fewest) = slots.last() {
            slots.extend((FEWEST_SLOTS..fewest).rev());
        }
        let fewest = slots.last().copied().unwrap_or(u32::MAX);
        ladder.extend(slots.into_iter().map(|slots| own(CheckpointPolicy::Revolve(slots))));
        let few = deep::few(steps, clusters, fewest)?;
        ladder.extend(few.now.into_iter().map(own));
        deep.extend(few.later.into_iter().map(|policy| Variant::new(policy, ANY)));
    } else {
        ladder.push(own(CheckpointPolicy::Log));
    }
    Ok((ladder, deep))
}

/// Of what each policy tries its plan is left: what it chooses among the schedules of both clusterings.
fn leave_plans(candidates: &mut [Candidate], kept_live: u64) {
    let order = |candidate: &Candidate| (candidate.live > kept_live, candidate.allocated, candidate.flops);
    let mut best: FxHashMap<(CheckpointPolicy, Heed, Option<Over>, bool), usize> = FxHashMap::default();
    for index in 0..candidates.len() {
        let Made::Cells { over, asked, .. } = &candidates[index].made else { continue };
        let Some(policy) = candidates[index].of else { continue };
        // Everything is kept in either clustering.
        let over = (policy == CheckpointPolicy::None).then_some(*over);
        // A policy takes the smaller program of larger groups and of groups of one step each.
        let by_steps = candidates[index].made.is_by_steps();
        let best = best.entry((policy, asked.heed, over, by_steps)).or_insert(index);
        if order(&candidates[index]) < order(&candidates[*best]) {
            *best = index;
        }
    }
    for (index, candidate) in candidates.iter_mut().enumerate() {
        candidate.of = candidate.of.filter(|_| best.values().any(|&best| best == index));
    }
}

/// Drops what another beats in both figures, but for the least ones and the plans of policies, and sorts by work.
/// Groups of one step each beat none but their like: their programs are longer, which the figures do not say.
fn keep_the_best(candidates: &mut Vec<Candidate>) {
    candidates.sort_by_key(|candidate| (candidate.allocated, candidate.flops));
    let mut cheapest = [u64::MAX; 2];
    let mut ranks = [0; Made::KINDS];
    candidates.retain(|candidate| {
        let cheapest = &mut cheapest[usize::from(candidate.made.is_by_steps())];
        let better = candidate.flops < *cheapest;
        *cheapest = candidate.flops.min(*cheapest);
        let rank = &mut ranks[candidate.made.kind()];
        *rank += 1;
        better || candidate.of.is_some() || *rank <= LEAST_ONES
    });
    candidates.sort_by_key(|candidate| (candidate.flops, candidate.allocated));
}
