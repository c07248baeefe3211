//! Policies: what to keep and what to recompute.
//!
//! A policy is a clustering and a tree of [`cells`](cells::Cells) over tape positions; [`emit`] turns these into
//! a [`Schedule`]. [`schedule`] tries what the policy asks for, lets `simulate` measure each, and returns the
//! one that allocates least, never one above keeping everything.

mod auto;
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
mod sqrt;
mod steps;
pub mod user;

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, Error, Graph, Result};

use crate::cluster::cluster;
use crate::cost::forward_flops;
use crate::liveness::Flow;
use crate::policy::cells::Cells;
use crate::policy::limit::evict::{Eviction, Evictions};
use crate::policy::pinned::pinned_values;
use crate::policy::profile::{Positions, Profile};
pub(crate) use crate::policy::region::asks_for_recomputation;
use crate::policy::region::{Heed, Known};
use crate::program::Target;
use crate::schedule::{Clustering, Schedule};
use crate::simulate::{Simulation, simulate_costing};
use crate::tables::push;

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

/// A schedule that was tried.
struct Attempt {
    schedule: Schedule,
    simulation: Simulation,
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

    fn attempt(&self, cells: &Cells) -> Result<Attempt> {
        let schedule = emit::emit(self, cells)?;
        let simulation = self.simulated(&schedule)?;
        Ok(Attempt { schedule, simulation, segments: cells.segments(), states_only: false })
    }

    /// The program of evictions again.
    fn evicted(&self, eviction: Eviction) -> Result<Attempt> {
        let schedule = Evictions::new(self)?.schedule(eviction)?;
        let schedule = schedule.ok_or_else(|| Error::internal("plan", "evictions do not come out as they did"))?;
        let simulation = self.simulated(&schedule)?;
        Ok(Attempt { schedule, simulation, segments: 1, states_only: false })
    }

    fn simulated(&self, schedule: &Schedule) -> Result<Simulation> {
        simulate_costing(self.graph, schedule, |cluster| self.flow.flops[cluster])
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
    let once = none.simulation.flops;
    let finish = |attempt: Attempt, note: Option<String>| Planned {
        flops: attempt.simulation.flops,
        forward_flops,
        extra_flops: attempt.simulation.flops.saturating_sub(once),
        segments: attempt.segments,
        live_peak: attempt.simulation.peak,
        schedule: attempt.schedule,
        note,
    };
    let regions = region::asks_for_recomputation(graph);
    let is_none = matches!(policy, CheckpointPolicy::None | CheckpointPolicy::Recompute);
    if plain.flow.passes == 1 || (is_none && !regions) {
        return Ok(Plans { all: vec![finish(none, None)], own: 1 });
    }
    let (kept_live, kept) = (none.simulation.peak, none.simulation.allocated);
    let auto = if is_none { None } else { auto::material(&plain, target)? };
    let tried = |with_plain: bool, with_auto: bool, policy: CheckpointPolicy, heed: Heed| -> Result<Best> {
        let mut best = Best { kept_live, attempt: None };
        if with_plain {
            best.of(&plain, policy, heed)?;
        }
        if let Some(auto) = auto.as_ref().filter(|_| with_auto) {
            best.of(auto, policy, heed)?;
        }
        Ok(best)
    };
    let mut best = match policy {
        CheckpointPolicy::User(number) => Best { kept_live, attempt: Some(user::attempt(&plain, number)?) },
        CheckpointPolicy::Auto => tried(regions, true, policy, Heed::All)?,
        _ => tried(true, true, policy, Heed::All)?,
    };
    let mut by_steps = Best { kept_live, attempt: None };
    let user = matches!(policy, CheckpointPolicy::User(_));
    if regions && !is_none && !user && policy != CheckpointPolicy::Auto {
        best.of(&plain, CheckpointPolicy::None, Heed::All)?;
    }
    if !is_none && !user && policy != CheckpointPolicy::Auto {
        for material in steps::materials(&plain, target)? {
            by_steps.of(&material, policy, Heed::All)?;
        }
    }
    let order = best.order();
    let is_less = |attempt: &Attempt| order(attempt) < (false, kept, 0);
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
    let (best, larger) = match (best.attempt, by_steps.attempt) {
        (Some(best), Some(by_steps)) if order(&by_steps) < order(&best) => (Some(by_steps), Some(best).filter(is_less)),
        (best, by_steps) => (best.or(by_steps), None),
    };
    let mut plans = Vec::new();
    match best {
        None => {}
        Some(best) if is_less(&best) => {
            push(&mut plans, divided(best))?;
            larger.into_iter().try_for_each(|larger| push(&mut plans, divided(larger)))?;
        }
        Some(best) if policy != CheckpointPolicy::Auto => {
            let (kept, asked) = match order(&best).0 {
                true => (kept_live, best.simulation.peak),
                false => (kept, best.simulation.allocated),
            };
            let note = match asked > kept {
                true => format!("keeping everything needs {kept} bytes, this policy {asked}: everything is kept"),
                false => format!("keeping everything needs {kept} bytes, this policy no fewer: everything is kept"),
            };
            push(&mut plans, finish(plain.attempt(&none::cells(&plain)?)?, Some(note)))?;
        }
        Some(_) => {}
    }
    let own = plans.len();
    let mut instead = |best: Best| match best.attempt.filter(is_less) {
        // It may stand there already, but it stands behind others here.
        Some(best) if plans.last().is_none_or(|plan: &Planned| plan.schedule != best.schedule) => {
            push(&mut plans, finish(best, None))
        }
        _ => Ok(()),
    };
    let less_heed = region::less_heed(graph);
    if policy == CheckpointPolicy::Auto {
        less_heed.iter().try_for_each(|&heed| instead(tried(true, true, policy, heed)?))?;
    }
    if regions && !is_none {
        instead(tried(true, false, CheckpointPolicy::None, Heed::All)?)?;
    }
    let marked = less_heed.iter().filter(|&&heed| heed != Heed::Nothing);
    marked.into_iter().try_for_each(|&heed| instead(tried(true, false, CheckpointPolicy::None, heed)?))?;
    if plans.last().is_none_or(|plan| plan.schedule != none.schedule) {
        push(&mut plans, finish(none, None))?;
    }
    Ok(Plans { all: plans, own })
}

/// The best of what was tried.
struct Best {
    /// The most bytes live where everything is kept.
    kept_live: u64,
    attempt: Option<Attempt>,
}

impl Best {
    /// What counts is what is allocated, but no more may be live than where everything is kept. Of equal figures the
    /// least work, then the first.
    fn order(&self) -> impl Fn(&Attempt) -> (bool, u64, u64) + use<> {
        let kept_live = self.kept_live;
        move |Attempt { simulation, .. }| (simulation.peak > kept_live, simulation.allocated, simulation.flops)
    }

    /// Tries what the policy makes of one clustering, in several sizes where it has sizes.
    fn of(&mut self, material: &Material<'_>, policy: CheckpointPolicy, heed: Heed) -> Result<()> {
        let order = self.order();
        let profile = material.profile()?;
        let mut known = Known::default();
        let mut tried: Vec<Cells> = Vec::new();
        for variant in region::variants(material, policy, heed) {
            let cells = region::cells(material, &profile, &mut known, variant)?;
            if tried.contains(&cells) {
                continue;
            }
            let mut attempt = material.attempt(&cells)?;
            attempt.states_only = known.states_only;
            if let CheckpointPolicy::Offload(least_bytes) = policy {
                attempt.schedule = offload::offloaded(material, &attempt.schedule, least_bytes)?;
                let flops = |cluster: usize| material.flow.flops[cluster];
                attempt.simulation = simulate_costing(material.graph, &attempt.schedule, flops)?;
            }
            if self.attempt.as_ref().is_none_or(|best| order(&attempt) < order(best)) {
                self.attempt = Some(attempt);
            }
            push(&mut tried, cells)?;
        }
        Ok(())
    }
}
