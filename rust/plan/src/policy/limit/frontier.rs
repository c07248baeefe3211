//! Memory against work: what all planners make of one graph, for whoever has a limit on memory.
//!
//! The ladder of attempts is fixed by the graph and not by the limit that is asked for. So the plan for a limit, the
//! least limit that can be kept and the curve between them read one list and cannot disagree. Of each attempt the
//! figures are found once; what is dearer than another and allocates no less is dropped. A candidate remembers how it
//! was made, from which its schedule is emitted where it is looked at exactly.

use std::collections::BTreeMap;

use ckad_graph::{CheckpointPolicy, Graph, Result};
use rustc_hash::FxHashMap;

use crate::cluster::cluster;
use crate::cost::forward_flops;
use crate::policy::cells::Cells;
use crate::policy::limit::candidate::{Candidate, Made, Over, is_exact};
use crate::policy::limit::ladder::{Rung, ladder};
use crate::policy::limit::{apart, budgets, dear, evict};
use crate::policy::profile::Profile;
use crate::policy::region::{Heed, Known, Variant};
use crate::policy::sqrt::{ANY, SHORT};
use crate::policy::{Material, Planned, auto, region, steps};
use crate::program::Target;
use crate::tables::{collected, push};
use crate::two_threads;

/// So many of those of each kind that allocate least are kept though others beat them: which needs least in the end is
/// decided by what joined steps do not store.
const LEAST_ONES: usize = 6;
/// The same of long tapes, where each is a program to lower.
const LEAST_ONES_OF_LONG: usize = 2;

/// The most clusters of graphs of which values are kept because they are dear.
const MOST_CLUSTERS_OF_DEAR: usize = 2_000;

/// A graph under all clusterings that are tried.
struct Materials<'a> {
    plain: Material<'a>,
    auto: Option<Material<'a>>,
    apart: Option<Material<'a>>,
    dear: Vec<Material<'a>>,
    steps: Vec<Material<'a>>,
}

impl<'a> Materials<'a> {
    fn of(&self, over: Over) -> &Material<'a> {
        let found = match over {
            Over::Plain => None,
            Over::Auto => self.auto.as_ref(),
            Over::Apart => self.apart.as_ref(),
            Over::Dear(index) => self.dear.get(index),
            Over::Steps(index) => self.steps.get(index),
        };
        found.unwrap_or(&self.plain)
    }

    fn clusters(&self, over: Over) -> usize {
        self.of(over).clustering.clusters.len()
    }

    /// What becomes of rungs, each over a clustering.
    fn tried(&self, target: &Target, asked: &[(Over, Vec<Rung>)]) -> Result<Vec<Candidate>> {
        let clusters = asked.iter().map(|(over, rungs)| rungs.len() * self.clusters(*over)).sum();
        let two = two_threads::are_worth_it(target, clusters);
        let divided = two_threads::map(two, asked, |(over, rungs)| {
            let material = self.of(*over);
            divided(material, *over, &material.profile()?, &mut BTreeMap::new(), rungs)
        })?;
        self.judged(target, divided)
    }

    fn judged(&self, target: &Target, divided: Vec<Vec<Divided>>) -> Result<Vec<Candidate>> {
        let divided: Vec<Divided> = divided.into_iter().flatten().collect();
        let clusters = divided.iter().map(|divided| self.clusters(divided.over)).sum();
        let two = two_threads::are_worth_it(target, clusters);
        let figures = two_threads::map(two, &divided, |divided| self.of(divided.over).figures(&divided.cells))?;
        let candidate = |(Divided { over, rung: Rung { asked, of }, cells }, figures)| {
            Candidate::new(Made::Cells { over, cells, asked }, of, figures)
        };
        collected(divided.into_iter().zip(figures).map(candidate))
    }
}

/// The cells that a rung asks for.
struct Divided {
    over: Over,
    rung: Rung,
    cells: Cells,
}

/// The cells of each rung, but for those that one before it asks for too.
fn divided(
    material: &Material<'_>,
    over: Over,
    profile: &Profile,
    known: &mut BTreeMap<Heed, Known>,
    rungs: &[Rung],
) -> Result<Vec<Divided>> {
    let mut divided: Vec<Divided> = Vec::new();
    for &rung in rungs {
        let cells = region::cells(material, profile, known.entry(rung.asked.heed).or_default(), rung.asked)?;
        match divided.iter_mut().find(|other| other.cells == cells) {
            // Whoever keeps to its own bytes does so whatever was tried before it.
            Some(other) if !is_exact(other.rung.of) && is_exact(rung.of) => other.rung.of = rung.of,
            Some(_) => {}
            None => push(&mut divided, Divided { over, rung, cells })?,
        }
    }
    Ok(divided)
}

/// The candidates of one graph, the least work first.
pub(crate) struct Frontier<'a> {
    materials: Materials<'a>,
    target: &'a Target,
    /// Operations where everything is kept.
    once: u64,
    forward_flops: u64,
    pub(crate) candidates: Vec<Candidate>,
    /// What is costly to try, until somebody asks for it, and the least operations that any of it takes beyond keeping
    /// everything.
    costly: Option<Vec<(Over, Vec<Rung>)>>,
    least_of_costly: u64,
}

impl<'a> Frontier<'a> {
    pub(crate) fn of(graph: &'a Graph, target: &'a Target) -> Result<Frontier<'a>> {
        let plain = Material::new(graph, cluster(graph, target, false)?)?;
        let flow = &plain.flow;
        let forward_flops = forward_flops(graph, &plain.clustering, &flow.flops, usize::from(flow.passes));
        let passes = flow.passes;
        let whole = Cells::whole(plain.positions.count)?;
        let everything = plain.figures(&whole)?;
        let materials = Materials { plain, auto: None, apart: None, dear: Vec::new(), steps: Vec::new() };
        let (once, candidates) = (everything.flops, Vec::new());
        let (costly, least_of_costly) = (None, u64::MAX);
        let mut found = Frontier { materials, target, once, forward_flops, candidates, costly, least_of_costly };
        if passes == 1 {
            let asked = Variant::new(CheckpointPolicy::None, ANY);
            let made = Made::Cells { over: Over::Plain, cells: whole, asked };
            push(&mut found.candidates, Candidate::new(made, Some(asked.policy), everything))?;
            return Ok(found);
        }
        found.climb()?;
        leave_plans(&mut found.candidates, everything.peak);
        found.evict(everything.allocated)?;
        found.keep_dear()?;
        let long = found.materials.plain.positions.count > SHORT;
        keep_the_best(&mut found.candidates, if long { LEAST_ONES_OF_LONG } else { LEAST_ONES });
        Ok(found)
    }

    /// Tries the ladder on each clustering that policies divide.
    fn climb(&mut self) -> Result<()> {
        let (plain, target) = (&self.materials.plain, self.target);
        let two = two_threads::are_worth_it(target, plain.clustering.clusters.len());
        let (auto, steps) =
            two_threads::both(two, || auto::material(plain, target), || steps::materials(plain, target))?;
        (self.materials.auto, self.materials.steps) = (auto, steps);
        let materials = &self.materials;
        let mut overs = vec![Over::Plain];
        overs.extend(materials.auto.iter().map(|_| Over::Auto));
        overs.extend((0..materials.steps.len()).map(Over::Steps));
        let laddered = two_threads::map(two, &overs, |&over| {
            let material = materials.of(over);
            let (profile, mut known) = (material.profile()?, BTreeMap::new());
            let (mut rungs, later) = ladder(material, &profile, known.entry(Heed::All).or_default())?;
            // Groups of one step each are there to be divided.
            let is_by_steps = matches!(over, Over::Steps(_));
            rungs.retain(|rung| !is_by_steps || rung.asked.policy != CheckpointPolicy::None);
            Ok((divided(material, over, &profile, &mut known, &rungs)?, (over, later)))
        })?;
        let (divided, later): (Vec<_>, Vec<_>) = laddered.into_iter().unzip();
        self.candidates = materials.judged(target, divided)?;
        let costly = || later.iter().filter(|(_, later)| !later.rungs.is_empty());
        self.least_of_costly = costly().map(|(_, later)| later.again).min().unwrap_or(u64::MAX);
        let costly: Vec<_> = costly().map(|(over, later)| (*over, later.rungs.clone())).collect();
        self.costly = Some(costly).filter(|costly| !costly.is_empty());
        Ok(())
    }

    /// Tries evictions where the graph is small enough for them and has no regions with a policy of their own.
    /// `everything` is what keeping everything allocates.
    fn evict(&mut self, everything: u64) -> Result<()> {
        let Materials { plain, auto, .. } = &self.materials;
        if region::asks_for_recomputation(plain.graph) {
            return Ok(());
        }
        // Of dear and cheap values apart only evictions keep the one and not the other.
        let of = auto.as_ref().unwrap_or(plain);
        let apart = if of.clustering.clusters.len() <= evict::MOST_CLUSTERS { apart::material(of)? } else { None };
        let of_auto = self.candidates.iter().find(|candidate| candidate.made.over() == Over::Auto);
        let mut overs = vec![(Over::Plain, everything)];
        overs.extend(of_auto.map(|keeping| (Over::Auto, keeping.figures.allocated)));
        overs.retain(|&(over, _)| self.materials.clusters(over) <= evict::MOST_CLUSTERS);
        overs.extend(apart.iter().map(|_| (Over::Apart, everything)));
        self.materials.apart = apart;
        let tries = overs.iter().map(|&(over, _)| evict::clusters_tried(self.materials.clusters(over)));
        let two = two_threads::are_worth_it(self.target, tries.sum());
        let (materials, once) = (&self.materials, self.once);
        let evicted = |&(over, everything): &_| budgets::evicted(materials.of(over), over, everything, once);
        let found = two_threads::map(two, &overs, evicted)?;
        found.into_iter().for_each(|mut found| self.candidates.append(&mut found));
        Ok(())
    }

    /// Tries to keep dear values and to recompute cheap ones.
    fn keep_dear(&mut self) -> Result<()> {
        let Materials { plain, auto, apart, .. } = &self.materials;
        let of = apart.as_ref().or(auto.as_ref()).unwrap_or(plain);
        if of.clustering.clusters.len() > MOST_CLUSTERS_OF_DEAR {
            return Ok(());
        }
        self.materials.dear = dear::materials(of)?;
        // What is not kept is cheap: it may be recomputed often.
        let policies = [CheckpointPolicy::Sqrt, CheckpointPolicy::Revolve(4), CheckpointPolicy::Log];
        let rungs = policies.map(|policy| Rung { asked: Variant::new(policy, ANY), of: None });
        let asked = (0..self.materials.dear.len()).map(|index| (Over::Dear(index), rungs.to_vec()));
        let asked: Vec<_> = collected(asked)?;
        self.candidates.append(&mut self.materials.tried(self.target, &asked)?);
        Ok(())
    }

    /// Operations beyond keeping everything.
    pub(crate) fn extra(&self, candidate: &Candidate) -> u64 {
        candidate.figures.flops.saturating_sub(self.once)
    }

    /// Fewer operations beyond keeping everything nothing takes that is costly to try.
    pub(crate) fn least_of_costly(&self) -> u64 {
        self.least_of_costly
    }

    /// Whether something that was not tried yet may take less work.
    pub(crate) fn waits_for_costly(&self, candidate: &Candidate) -> bool {
        self.costly.is_some() && self.extra(candidate) >= self.least_of_costly
    }

    /// Tries what is costly; whether there was something.
    pub(crate) fn try_costly(&mut self) -> Result<bool> {
        let Some(costly) = self.costly.take() else { return Ok(false) };
        let found = self.materials.tried(self.target, &costly)?;
        // What was chosen before this was tried must have less work than all of it.
        let mut dearer = found.into_iter().filter(|one| self.extra(one) >= self.least_of_costly).collect();
        self.candidates.append(&mut dearer);
        self.candidates.sort_by_key(|Candidate { figures, .. }| (figures.flops, figures.allocated));
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

    /// The schedule of a candidate.
    pub(crate) fn planned(&self, candidate: &Candidate) -> Result<Planned> {
        let attempt = match &candidate.made {
            Made::Cells { over, cells, asked: _ } => self.materials.of(*over).attempt(cells)?,
            Made::Evicted { over, eviction } => self.materials.of(*over).evicted(*eviction)?,
        };
        Ok(Planned {
            flops: attempt.figures.flops,
            forward_flops: self.forward_flops,
            extra_flops: attempt.figures.flops.saturating_sub(self.once),
            segments: attempt.segments,
            live_peak: attempt.figures.peak,
            schedule: attempt.schedule,
            note: None,
        })
    }
}

/// Of what each policy tries its plan is left: what it chooses among the schedules of both clusterings.
fn leave_plans(candidates: &mut [Candidate], kept_live: u64) {
    let order = |candidate: &Candidate| candidate.figures.order(kept_live);
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
fn keep_the_best(candidates: &mut Vec<Candidate>, least_ones: usize) {
    candidates.sort_by_key(|Candidate { figures, .. }| (figures.allocated, figures.flops));
    let mut cheapest = [u64::MAX; 2];
    let mut ranks = [0; Made::KINDS];
    candidates.retain(|candidate| {
        let cheapest = &mut cheapest[usize::from(candidate.made.is_by_steps())];
        let better = candidate.figures.flops < *cheapest;
        *cheapest = candidate.figures.flops.min(*cheapest);
        let rank = &mut ranks[candidate.made.kind()];
        *rank += 1;
        better || candidate.of.is_some() || *rank <= least_ones
    });
    candidates.sort_by_key(|Candidate { figures, .. }| (figures.flops, figures.allocated));
}
