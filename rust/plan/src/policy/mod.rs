//! Policies: what to keep and what to recompute.
//!
//! A policy is a clustering and a tree of [`cells`](cells::Cells) over tape positions; [`emit`] turns these into
//! a [`Sequence`] of computes. [`plans`] judges what the policy asks for by the sequence's figures, writes the
//! [`Schedule`] of the one that allocates least, which `simulate` plays, and puts those behind it that take its place
//! where it needs more than they do: keeping everything in the end.

mod auto;
mod best;
pub mod cells;
mod chain;
mod emit;
pub(crate) mod limit;
mod none;
mod offload;
mod pinned;
mod profile;
mod region;
mod segments;
mod sequence;
mod sqrt;
mod steps;
pub mod user;

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, Error, Graph, Result};

use crate::cluster::cluster;
use crate::cost::forward_flops;
use crate::liveness::Flow;
use crate::policy::best::Best;
use crate::policy::cells::Cells;
use crate::policy::limit::evict::{self, Eviction, Evictions};
use crate::policy::pinned::pinned_values;
use crate::policy::profile::{Positions, Profile};
use crate::policy::region::Heed;
pub(crate) use crate::policy::region::asks_for_recomputation;
use crate::policy::sequence::{Figures, Sequence};
use crate::program::Target;
use crate::schedule::{Clustering, Schedule};
use crate::simulate::simulate_costing;
use crate::tables::push;
use crate::two_threads;
use crate::verify::verifying;

/// A schedule and what is known of it before it runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Planned {
    pub schedule: Schedule,
    /// Operations that the schedule executes.
    pub flops: u64,
    /// Operations of the recorded part, computed once.
    pub forward_flops: u64,
    /// Operations beyond those of keeping everything.
    pub extra_flops: u64,
    /// Number of stretches of the tape that are recomputed as one; 1 where nothing is.
    pub segments: usize,
    /// The most bytes of values live at once, outputs included.
    pub live_peak: u64,
    /// Why the schedule is not what the policy would have been, where it is not.
    pub note: Option<String>,
}

impl Planned {
    /// What is known, without the schedule, which is as long as the program.
    pub fn figures(&self) -> Planned {
        Planned { schedule: Schedule::default(), note: self.note.clone(), ..*self }
    }
}

/// A clustering with all that policies read of it.
pub(crate) struct Material<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) clustering: Arc<Clustering>,
    pub(crate) flow: Arc<Flow>,
    /// For each node, whether it is kept from its first computation to its last use whatever the policy.
    pub(crate) pinned: Vec<bool>,
    pub(crate) positions: Arc<Positions>,
}

/// A schedule, and what the simulator says of it.
struct Attempt {
    schedule: Schedule,
    figures: Figures,
    segments: usize,
    /// Whether slots for states or steps hold states only.
    states_only: bool,
}

impl<'a> Material<'a> {
    fn new(graph: &'a Graph, clustering: Clustering) -> Result<Material<'a>> {
        let flow = Flow::new(graph, &clustering)?;
        let pinned = pinned_values(graph, &clustering, &flow)?;
        let positions = Positions::new(graph, &clustering)?;
        let (clustering, flow, positions) = (Arc::new(clustering), Arc::new(flow), Arc::new(positions));
        Ok(Material { graph, clustering, flow, pinned, positions })
    }

    /// What the schedule of these cells needs and does.
    fn figures(&self, cells: &Cells) -> Result<Figures> {
        emit::emit(self, cells)?.figures(self)
    }

    fn attempt(&self, cells: &Cells) -> Result<Attempt> {
        self.played(emit::emit(self, cells)?, cells.segments(), emit::repeats(self, cells))
    }

    /// The program of evictions again.
    fn evicted(&self, eviction: Eviction) -> Result<Attempt> {
        let sequence = Evictions::new(self)?.sequence(eviction)?;
        let sequence = sequence.ok_or_else(|| Error::internal("plan", "evictions do not come out as they did"))?;
        self.played(sequence, 1, evict::MOST_REPEATS)
    }

    /// The schedule of a sequence, played by the simulator.
    fn played(&self, sequence: Sequence, segments: usize, repeats: u64) -> Result<Attempt> {
        let expected = if verifying() { Some(sequence.figures(self)?) } else { None };
        let schedule = sequence.schedule(self, repeats)?;
        let figures = self.simulated(&schedule)?;
        if let Some(expected) = expected.filter(|expected| *expected != figures) {
            return Err(Error::internal("plan", format!("a sequence of {expected:?} has a schedule of {figures:?}")));
        }
        Ok(Attempt { schedule, figures, segments, states_only: false })
    }

    fn simulated(&self, schedule: &Schedule) -> Result<Figures> {
        let simulation = simulate_costing(self.graph, schedule, |cluster| self.flow.flops[cluster])?;
        Ok(Figures::of(schedule, &simulation))
    }

    fn profile(&self) -> Result<Profile> {
        Profile::new(self)
    }
}

/// Plans the graph under a policy.
pub fn schedule(graph: &Graph, policy: CheckpointPolicy, target: &Target) -> Result<Planned> {
    let plan = plans(graph, policy, target)?.all.into_iter().next();
    plan.ok_or_else(|| Error::internal("plan", "there is no plan at all"))
}

/// Plans of a graph under a policy.
pub(crate) struct Plans {
    /// The plan, and behind it those that take its place where it would need more, each that of the one before: the
    /// best with larger groups where it has groups of one step each; with regions, those that heed fewer of them, and
    /// what policy `None` makes of the graph; keeping everything in the end.
    pub(crate) all: Vec<Planned>,
    /// How many of them, from the first on, are what the policy asks for.
    pub(crate) own: usize,
}

pub(crate) fn plans(graph: &Graph, policy: CheckpointPolicy, target: &Target) -> Result<Plans> {
    let plain = Material::new(graph, cluster(graph, target, false)?)?;
    let none = plain.attempt(&none::cells(&plain)?)?;
    let forward_flops = forward_flops(graph, &plain.clustering, &plain.flow.flops, usize::from(plain.flow.passes));
    let once = none.figures.flops;
    let finish = |attempt: Attempt, note: Option<String>| Planned {
        flops: attempt.figures.flops,
        forward_flops,
        extra_flops: attempt.figures.flops.saturating_sub(once),
        segments: attempt.segments,
        live_peak: attempt.figures.peak,
        schedule: attempt.schedule,
        note,
    };
    let regions = region::asks_for_recomputation(graph);
    let is_none = matches!(policy, CheckpointPolicy::None | CheckpointPolicy::Recompute);
    if plain.flow.passes == 1 || (is_none && !regions) {
        return Ok(Plans { all: vec![finish(none, None)], own: 1 });
    }
    let (kept_live, kept) = (none.figures.peak, none.figures.allocated);
    let is_auto = policy == CheckpointPolicy::Auto;
    let user = if let CheckpointPolicy::User(number) = policy { Some(number) } else { None };
    let divides = !is_none && !is_auto && user.is_none();
    let two = two_threads::are_worth_it(target, plain.clustering.clusters.len());
    let (auto, steps) = two_threads::both(
        two,
        || if is_none { Ok(None) } else { auto::material(&plain, target) },
        || if divides || region::names_policies(graph) { steps::materials(&plain, target) } else { Ok(Vec::new()) },
    )?;
    let both: Vec<&Material<'_>> = [&plain].into_iter().chain(&auto).collect();
    let mut best = Best::new(kept_live);
    match user {
        Some(number) => best.of_written(user::attempt(&plain, number)?),
        None if is_auto && !regions => best.of(target, &both[1..], policy, Heed::All)?,
        None => best.of(target, &both, policy, Heed::All)?,
    }
    if regions && divides {
        best.of(target, &[&plain], CheckpointPolicy::None, Heed::All)?;
    }
    let steps: Vec<&Material<'_>> = steps.iter().collect();
    let mut by_steps = Best::new(kept_live);
    by_steps.of(target, &steps, policy, Heed::All)?;
    let order = |figures: Figures| figures.order(kept_live);
    let is_less = |figures: Figures| order(figures) < (false, kept, 0);
    let divided = |best: Attempt| {
        let (passes, borders) = (plain.flow.passes, best.segments - 1);
        let note = if chain::chained::is_chained(policy) && passes > 2 {
            let text =
                format!("with {passes} passes over the tape states are kept at {borders} borders and held throughout");
            Some(text)
        } else if best.states_only {
            Some("for so many steps and slots no table is made: each slot holds a state".to_owned())
        } else {
            None
        };
        finish(best, note)
    };
    // Of groups of one step each there are more: a program of larger ones may need less.
    let (best, larger) = match (best.figures(), by_steps.figures()) {
        (Some(larger), Some(figures)) if order(figures) < order(larger) => (by_steps, Some(best)),
        (None, _) => (by_steps, None),
        _ => (best, None),
    };
    let mut plans = Vec::new();
    match best.figures() {
        None => {}
        Some(figures) if is_less(figures) => {
            for best in [Some(best), larger].into_iter().flatten().filter(|best| best.figures().is_some_and(is_less)) {
                best.attempt()?.into_iter().try_for_each(|best| push(&mut plans, divided(best)))?;
            }
        }
        Some(figures) if !is_auto => {
            let (kept, asked) = match order(figures).0 {
                true => (kept_live, figures.peak),
                false => (kept, figures.allocated),
            };
            let note = match asked > kept {
                true => {
                    format!("keeping everything takes {kept} bytes for values, this policy {asked}: everything is kept")
                }
                false => format!(
                    "keeping everything takes {kept} bytes for values, this policy no fewer: everything is kept"
                ),
            };
            push(&mut plans, finish(plain.attempt(&none::cells(&plain)?)?, Some(note)))?;
        }
        Some(_) => {}
    }
    let own = plans.len();
    let mut instead = |materials: &[&Material<'_>], policy, heed| {
        let mut best = Best::new(kept_live);
        best.of(target, materials, policy, heed)?;
        if !best.figures().is_some_and(is_less) {
            return Ok(());
        }
        let attempt = best.attempt()?;
        // It may stand there already, but it stands behind others here.
        let last = plans.last().map(|plan: &Planned| &plan.schedule);
        let other = attempt.filter(|attempt| last.is_none_or(|last| *last != attempt.schedule));
        other.map_or(Ok(()), |other| push(&mut plans, finish(other, None)))
    };
    let less_heed = region::less_heed(graph);
    if is_auto {
        less_heed.iter().try_for_each(|&heed| instead(&both, policy, heed))?;
    }
    if regions && !is_none {
        instead(&[&plain], CheckpointPolicy::None, Heed::All)?;
    }
    for &heed in less_heed.iter().filter(|&&heed| heed != Heed::Nothing) {
        instead(&[&plain], CheckpointPolicy::None, heed)?;
    }
    if plans.last().is_none_or(|plan| plan.schedule != none.schedule) {
        push(&mut plans, finish(none, None))?;
    }
    Ok(Plans { all: plans, own })
}
