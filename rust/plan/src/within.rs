//! The cheapest program within a limit on memory, or how much the least one needs.
//!
//! Candidates come from the policies' frontier, the least work first. Exact are the bytes of a lowered program
//! alone ([`PeakBytes::total`]), so candidates are lowered one after the other until one fits. What the simulator says
//! of a candidate spares lowering those that are far too large: a candidate *needs* what its program takes, and no less
//! than the simulator's figure without an allowance for what joined steps do not store. Whether a limit is kept and
//! which is the least that is kept are both read off that one number, so they cannot disagree.

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, Graph, Result};

use crate::checkpoint_loops::{Checkpointed, at_level, levels};
use crate::compile::{Compiled, compile_donating, compile_loops, lowered, note_loops, verifying};
use crate::footprint::captured_bytes;
use crate::policy::Planned;
use crate::policy::frontier::{Candidate, Frontier};
use crate::program::Target;
use crate::report::{Report, report};
use crate::tables::push;

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
    /// That plan's table: the lines that hold the memory.
    pub report: Arc<Report>,
}

/// How many of the largest values joined steps may leave out beside each other, beyond those that they leave out where
/// everything is kept.
const LEFT_OUT: u64 = 4;

/// The program with the least work whose bytes are at most `limit`; under a policy that the user asked for, its own.
pub fn compile_within(
    graph: &Graph,
    policy: Option<CheckpointPolicy>,
    limit: usize,
    target: &Target,
    donated: &[bool],
) -> Result<Fitted> {
    if verifying() {
        ckad_prim::verify(graph)?;
    }
    if let Some(policy) = policy {
        let compiled = compile_donating(graph, policy, target, donated)?;
        let needed = compiled.peak.total();
        return if needed <= limit { Ok(fits(compiled)) } else { too_small(graph, needed, &compiled.planned) };
    }
    let search = Search::of(graph, target, donated)?;
    // What a lowered candidate needs, for the case that none fits.
    let mut least: Option<(usize, &Candidate)> = None;
    let mut improve = |needed: usize, candidate| {
        if least.is_none_or(|(least, _)| needed < least) {
            least = Some((needed, candidate));
        }
        least
    };
    let (near, far): (Vec<&Candidate>, Vec<&Candidate>) =
        search.frontier.candidates.iter().partition(|candidate| search.at_least(candidate) <= limit);
    let mut found = None;
    for candidate in near {
        let compiled = search.compiled(candidate)?;
        let needed = compiled.peak.total();
        if needed <= limit {
            return Ok(fits(compiled));
        }
        found = improve(needed, candidate);
    }
    // The last ones allocate least.
    for candidate in far.into_iter().rev() {
        if found.is_none_or(|(least, _)| search.at_least(candidate) < least) {
            found = improve(search.needed(candidate)?.0, candidate);
        }
    }
    let Some((minimum, candidate)) = found else {
        return Err(ckad_graph::Error::internal("plan", "there is no plan at all"));
    };
    too_small(graph, minimum, &search.frontier.planned(candidate)?)
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
        return Ok((too_small(planned, needed, &compiled.planned)?, None));
    }
    // The less loops keep, the more they compute anew.
    let mut best = compile_within(graph, None, limit, target, donated)?;
    let levels = if matches!(best, Fitted::Fits(_)) { Vec::new() } else { levels(graph)? };
    for level in levels {
        let Some(Checkpointed { graph: rewritten, extra_flops, slots }) = at_level(graph, level)? else { continue };
        match compile_within(&rewritten, None, limit, target, donated)? {
            Fitted::Fits(mut compiled) => {
                note_loops(&mut compiled, extra_flops, slots);
                return Ok((Fitted::Fits(compiled), Some(rewritten)));
            }
            Fitted::TooSmall(refused) => {
                if let Fitted::TooSmall(before) = &mut best
                    && refused.minimum < before.minimum
                {
                    *before = refused;
                }
            }
        }
    }
    Ok((best, None))
}

struct Search<'a> {
    graph: &'a Graph,
    frontier: Frontier<'a>,
    target: &'a Target,
    donated: &'a [bool],
    /// Bytes of captured arrays and of the graph, which each candidate needs.
    known: usize,
    /// How far the simulator's figure may be above a program's.
    allowance: u64,
}

impl<'a> Search<'a> {
    fn of(graph: &'a Graph, target: &'a Target, donated: &'a [bool]) -> Result<Search<'a>> {
        let known = captured_bytes(graph)?.saturating_add(graph.own_bytes());
        let values = graph.ids().filter(|&id| !graph.op(id).is_leaf()).map(|id| graph.bytes(id) as u64);
        let given_up =
            graph.outputs.iter().map(|&output| graph.bytes(output) as u64).filter(|_| donated.contains(&true));
        let allowance = LEFT_OUT * values.max().unwrap_or(0) + given_up.sum::<u64>();
        let mut search = Search { graph, frontier: Frontier::of(graph, target)?, target, donated, known, allowance };
        // Where all that is kept is used up row by row, joined steps leave out far more than that.
        let mut left_out = 0;
        for candidate in search.frontier.candidates.iter().filter(|candidate| candidate.stays) {
            let peak = search.compiled(candidate)?.peak;
            left_out = left_out.max(candidate.allocated.saturating_sub((peak.arena + peak.outputs) as u64));
        }
        search.allowance = search.allowance.saturating_add(left_out);
        Ok(search)
    }

    fn compiled(&self, candidate: &Candidate) -> Result<Compiled> {
        lowered(self.graph, self.frontier.planned(candidate)?, self.target, self.donated)
    }

    /// What the candidate's program takes can be no less.
    fn at_least(&self, candidate: &Candidate) -> usize {
        let simulated = candidate.allocated.saturating_sub(self.allowance);
        usize::try_from(simulated).unwrap_or(usize::MAX).saturating_add(self.known)
    }

    /// The least limit that the candidate keeps, and its work beyond keeping everything.
    fn needed(&self, candidate: &Candidate) -> Result<(usize, u64)> {
        let compiled = self.compiled(candidate)?;
        Ok((compiled.peak.total().max(self.at_least(candidate)), compiled.planned.extra_flops))
    }
}

fn fits(compiled: Compiled) -> Fitted {
    Fitted::Fits(Box::new(compiled))
}

fn too_small(graph: &Graph, minimum: usize, planned: &Planned) -> Result<Fitted> {
    Ok(Fitted::TooSmall(TooSmall { minimum, report: Arc::new(report(graph, planned)?) }))
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

/// The plans of which no other needs as few bytes and as little work, the least memory first.
pub fn frontier(graph: &Graph, target: &Target, donated: &[bool]) -> Result<Vec<Point>> {
    let search = Search::of(graph, target, donated)?;
    let mut points = Vec::new();
    for candidate in &search.frontier.candidates {
        let (bytes, extra_flops) = search.needed(candidate)?;
        push(&mut points, Point { bytes, extra_flops, policy: candidate.label() })?;
    }
    points.sort_by_key(|point| (point.bytes, point.extra_flops));
    let mut least = u64::MAX;
    points.retain(|point| {
        let better = point.extra_flops < least;
        least = least.min(point.extra_flops);
        better
    });
    Ok(points)
}
