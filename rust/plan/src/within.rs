//! The cheapest program within a limit on memory, or how much the least one needs.
//!
//! Candidates come from the policies' frontier, and where loops may keep fewer of their states, from the frontier of
//! each graph that keeps fewer. All together are one list, in which bytes and work are fixed by the graph: the plan for
//! a limit, the least limit, and the curve between them are read off it and cannot disagree.
//!
//! Exact are the bytes of a lowered program alone ([`PeakBytes::total`]), so candidates are lowered one after the
//! other, the least work first, until one fits. What is known of a candidate spares lowering those that are far too
//! large: a candidate *needs* what its program takes, and no less than its figures without an allowance for what joined
//! steps do not store, nor than what its schedule lets estimate of a long program. Graphs with fewer states are looked
//! at while their loops alone do not take more work than the best that was found.

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, Error, Graph, Result};

use crate::checkpoint_loops::{Checkpointed, Levels};
use crate::compile::{Compiled, compile_donating, compile_loops, lowered, note_loops};
use crate::footprint::{PeakBytes, captured_bytes};
use crate::least_bytes::{Least, least_bytes};
use crate::policy::limit::candidate::Candidate;
use crate::policy::limit::frontier::Frontier;
use crate::program::Target;
use crate::report::{Report, report};
use crate::schedule::Schedule;
use crate::tables::{collected, push};
use crate::verify::verifying;

/// What becomes of a graph under a limit.
#[derive(Clone, PartialEq, Debug)]
pub enum Fitted {
    Fits(Box<Compiled>),
    TooSmall(TooSmall),
}

/// No plan that was found fits.
#[derive(Clone, PartialEq, Debug)]
pub struct TooSmall {
    /// The least limit for which there is a plan.
    pub minimum: usize,
    /// What that plan allocates, by what it is for.
    pub peak: PeakBytes,
    /// That plan's table: the lines that hold the memory.
    pub report: Arc<Report>,
}

/// How many of the largest values joined steps may leave out beside each other, beyond those that they leave out where
/// everything is kept.
const LEFT_OUT: u64 = 4;

/// So many clusters are a long tape: what its programs take is estimated before one is lowered.
const COMPUTES_OF_LONG: usize = 2048;

/// The program with the least work whose bytes are at most `limit`; under a policy that the user asked for, its own.
/// Loops keep all of their states.
pub fn compile_within(
    graph: &Graph,
    policy: Option<CheckpointPolicy>,
    limit: usize,
    target: &Target,
    donated: &[bool],
) -> Result<Fitted> {
    if let Some(policy) = policy {
        let compiled = compile_donating(graph, policy, target, donated)?;
        let needed = compiled.peak.total();
        return if needed <= limit {
            Ok(fits(compiled))
        } else {
            Ok(Fitted::TooSmall(too_small(graph, needed, &compiled)?))
        };
    }
    let mut search = Search::of(graph, target, donated, 0)?;
    match search.cheapest(limit, u64::MAX)? {
        Some(compiled) => Ok(fits(compiled)),
        None => search.least(None)?.map(Fitted::TooSmall).ok_or_else(nothing),
    }
}

/// As [`compile_within`], where loops may keep fewer of their states: the graph that the program is of is then another
/// one.
pub fn compile_loops_within(
    graph: &Graph,
    policy: Option<CheckpointPolicy>,
    limit: usize,
    target: &Target,
    donated: &[bool],
) -> Result<(Fitted, Option<Graph>)> {
    if let Some(policy) = policy {
        let (compiled, rewritten) = compile_loops(graph, policy, target, donated)?;
        let needed = compiled.peak.total();
        if needed <= limit {
            return Ok((fits(compiled), rewritten));
        }
        let planned = rewritten.as_ref().unwrap_or(graph);
        return Ok((Fitted::TooSmall(too_small(planned, needed, &compiled)?), None));
    }
    let mut best: Option<(Compiled, Option<Graph>)> = None;
    let mut least: Option<TooSmall> = None;
    let mut levels = Levels::of(graph)?;
    while let Some(level) = levels.next()? {
        let below = best.as_ref().map_or(u64::MAX, |(compiled, _)| compiled.planned.extra_flops);
        let again = level.as_ref().map_or(0, |level| level.extra_flops);
        // Further levels take more.
        if again >= below {
            break;
        }
        let mut search = Search::of(level.as_ref().map_or(graph, |level| &level.graph), target, donated, 0)?;
        let found = search.cheapest(limit, below - again)?;
        if found.is_none() && best.is_none() {
            least = search.least(least.as_ref().map(|least| least.minimum))?.or(least);
        }
        drop(search);
        if let Some(mut compiled) = found {
            if let Some(Checkpointed { extra_flops, slots, .. }) = level {
                note_loops(&mut compiled, extra_flops, slots);
            }
            best = Some((compiled, level.map(|level| level.graph)));
        }
    }
    match best {
        Some((compiled, rewritten)) => Ok((fits(compiled), rewritten)),
        None => Ok((least.map(Fitted::TooSmall).ok_or_else(nothing)?, None)),
    }
}

fn nothing() -> Error {
    Error::internal("plan", "there is no plan at all")
}

/// The candidates of one graph.
struct Search<'a> {
    graph: &'a Graph,
    frontier: Frontier<'a>,
    target: &'a Target,
    donated: &'a [bool],
    /// Bytes that the graph takes beyond what it seems to.
    leaps: usize,
    /// Bytes of captured arrays and of the graph, which each candidate needs.
    known: usize,
    /// How far the figures may be above a program's.
    allowance: u64,
    /// Bytes that a program has for each cluster that it computes.
    step_bytes: usize,
    /// Of a long tape: of how many bytes of the program where everything is kept how many are known without lowering.
    known_of_program: Option<(usize, usize)>,
}

impl<'a> Search<'a> {
    fn of(graph: &'a Graph, target: &'a Target, donated: &'a [bool], leaps: usize) -> Result<Search<'a>> {
        if verifying() {
            ckad_prim::verify(graph)?;
        }
        let known = captured_bytes(graph)?.saturating_add(graph.own_bytes()).saturating_add(leaps);
        let values = graph.ids().filter(|&id| !graph.op(id).is_leaf()).map(|id| graph.bytes(id) as u64);
        let given_up =
            graph.outputs.iter().map(|&output| graph.bytes(output) as u64).filter(|_| donated.contains(&true));
        let allowance = LEFT_OUT * values.max().unwrap_or(0) + given_up.sum::<u64>();
        let frontier = Frontier::of(graph, target)?;
        let mut search =
            Search { graph, frontier, target, donated, leaps, known, allowance, step_bytes: 0, known_of_program: None };
        // Where all that is kept is used up row by row, joined steps leave out far more than that.
        let (mut left_out, mut step_bytes) = (0, None::<usize>);
        for candidate in search.frontier.candidates.iter().filter(|candidate| candidate.keeps_everything()) {
            let Compiled { planned, peak, .. } = search.compiled(candidate)?;
            candidate.needed.set(Some(peak.total().saturating_add(leaps)));
            left_out = left_out.max(candidate.figures.allocated.saturating_sub((peak.arena + peak.outputs) as u64));
            let bytes = peak.program / candidate.figures.computes.max(1);
            step_bytes = Some(step_bytes.map_or(bytes, |least| least.min(bytes)));
            if search.known_of_program.is_none() && candidate.figures.computes > COMPUTES_OF_LONG {
                search.known_of_program = Some((peak.program, least_bytes(graph, &planned.schedule)?.program));
            }
        }
        // What is computed again may be what has the shortest kernels.
        search.step_bytes = step_bytes.unwrap_or(0) / 4;
        search.allowance = search.allowance.saturating_add(left_out);
        search.frontier.drop_regions_in_vain();
        Ok(search)
    }

    fn compiled(&self, candidate: &Candidate) -> Result<Compiled> {
        lowered(self.graph, self.frontier.planned(candidate)?, self.target, self.donated)
    }

    /// The candidate's program if it needs no more than so many bytes.
    fn compiled_within(&self, candidate: &Candidate, limit: usize) -> Result<Option<Compiled>> {
        if self.at_least(candidate) > limit || candidate.needed.get().is_some_and(|needed| needed > limit) {
            return Ok(None);
        }
        let planned = self.frontier.planned(candidate)?;
        // Lowering is most of the work.
        let least = self.least_of_schedule(candidate, &planned.schedule)?;
        candidate.least.set(least);
        if least > limit {
            return Ok(None);
        }
        let compiled = lowered(self.graph, planned, self.target, self.donated)?;
        let needed = compiled.peak.total().saturating_add(self.leaps).max(least);
        candidate.needed.set(Some(needed));
        Ok((needed <= limit).then_some(compiled))
    }

    /// What the candidate's program takes can be no less, as far as its schedule says. Of long tapes it is an estimate.
    fn least_of_schedule(&self, candidate: &Candidate, schedule: &Schedule) -> Result<usize> {
        if self.donated.contains(&true) {
            return Ok(0);
        }
        let Least { arrays, program } = least_bytes(self.graph, schedule)?;
        let estimated = match self.known_of_program {
            Some((all, known)) if !candidate.is_exact() => {
                (program as u128 * all as u128 / known.max(1) as u128) as usize / 8 * 7
            }
            _ => 0,
        };
        Ok(arrays.saturating_add(program.max(estimated)).saturating_add(self.leaps))
    }

    /// The same, as far as the candidate's figures say where its schedule was not looked at.
    fn at_least(&self, candidate: &Candidate) -> usize {
        // What a policy keeps to by itself is a limit that is kept.
        if candidate.is_exact() {
            return candidate.needed.get().unwrap_or(candidate.least.get());
        }
        let simulated = candidate.figures.allocated.saturating_sub(self.allowance);
        // Not their sum: both are estimates, and of short programs the one makes up for the other.
        let program = candidate.figures.computes.saturating_mul(self.step_bytes);
        let known = usize::try_from(simulated).unwrap_or(usize::MAX).max(program).saturating_add(self.known);
        known.max(candidate.least.get())
    }

    /// The least limit that the candidate keeps, if that is no more than so many bytes.
    fn needed_within(&self, candidate: &Candidate, limit: usize) -> Result<Option<usize>> {
        if candidate.needed.get().is_none() {
            self.compiled_within(candidate, limit)?;
        }
        let needed = candidate.needed.get().map(|exact| exact.max(self.at_least(candidate)));
        Ok(needed.filter(|&needed| needed <= limit))
    }

    /// The program with the least work that keeps the limit, if it takes fewer than so many operations beyond keeping
    /// everything.
    fn cheapest(&mut self, limit: usize, below: u64) -> Result<Option<Compiled>> {
        let mut next = 0;
        loop {
            let Some(candidate) =
                self.frontier.candidates.get(next).filter(|next| !self.frontier.waits_for_costly(next))
            else {
                // Those with as much work are looked at with the costly ones.
                if self.frontier.least_of_costly() >= below || !self.frontier.try_costly()? {
                    return Ok(None);
                }
                continue;
            };
            if self.frontier.extra(candidate) >= below {
                return Ok(None);
            }
            next += 1;
            if let Some(compiled) = self.compiled_within(candidate, limit)? {
                return Ok(Some(compiled));
            }
        }
    }

    /// The candidate that needs least, where that is less than what another one needs.
    fn least(&mut self, than: Option<usize>) -> Result<Option<TooSmall>> {
        self.frontier.try_costly()?;
        let mut order: Vec<&Candidate> = collected(self.frontier.candidates.iter())?;
        order.sort_by_key(|candidate| self.at_least(candidate));
        let mut least: Option<(usize, Option<&Candidate>)> = than.map(|than| (than, None));
        for candidate in order {
            let limit = match least {
                Some((0, _)) => break,
                Some((least, _)) => least - 1,
                None => usize::MAX,
            };
            if let Some(needed) = self.needed_within(candidate, limit)? {
                least = Some((needed, Some(candidate)));
            }
        }
        let Some((minimum, Some(candidate))) = least else { return Ok(None) };
        too_small(self.graph, minimum, &self.compiled(candidate)?).map(Some)
    }
}

fn fits(compiled: Compiled) -> Fitted {
    Fitted::Fits(Box::new(compiled))
}

fn too_small(graph: &Graph, minimum: usize, compiled: &Compiled) -> Result<TooSmall> {
    Ok(TooSmall { minimum, peak: compiled.peak, report: Arc::new(report(graph, &compiled.planned)?) })
}

/// A plan on the curve of memory against work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// The least limit that it keeps.
    pub bytes: usize,
    /// Operations beyond those of keeping everything.
    pub extra_flops: u64,
    /// What was tried, to read.
    pub policy: String,
}

/// The plans of which no other needs as few bytes and as little work, the least memory first. The graph may be a copy
/// of one that takes some bytes more, as lists grow in leaps; those with fewer states are the same from either.
pub fn frontier(graph: &Graph, leaps: usize, target: &Target, donated: &[bool]) -> Result<Vec<Point>> {
    let mut points: Vec<Point> = Vec::new();
    let mut levels = Levels::of(graph)?;
    while let Some(level) = levels.next()? {
        let mut search = match &level {
            Some(level) => Search::of(&level.graph, target, donated, 0)?,
            None => Search::of(graph, target, donated, leaps)?,
        };
        search.frontier.try_costly()?;
        let again = level.as_ref().map_or(0, |level| level.extra_flops);
        for candidate in &search.frontier.candidates {
            let extra_flops = search.frontier.extra(candidate).saturating_add(again);
            let rivals = points.iter().filter(|point| point.extra_flops <= extra_flops);
            let limit = rivals.map(|point| point.bytes.saturating_sub(1)).min().unwrap_or(usize::MAX);
            let Some(bytes) = search.needed_within(candidate, limit)? else { continue };
            let policy = match level.as_ref().map(|level| level.slots) {
                Some(1) => format!("{}, loops keep 1 state", candidate.label()),
                Some(states) => format!("{}, loops keep {states} states", candidate.label()),
                None => candidate.label(),
            };
            points.retain(|point| point.bytes < bytes || point.extra_flops < extra_flops);
            push(&mut points, Point { bytes, extra_flops, policy })?;
        }
    }
    points.sort_by_key(|point| point.bytes);
    Ok(points)
}
