//! Graph in, program out: schedule, lower, verify; and never more memory than keeping everything would take.

use ckad_graph::{CheckpointPolicy, Error, Graph, Result};

use crate::checkpoint_loops::{Checkpointed, checkpointed};
use crate::footprint::PeakBytes;
use crate::least_bytes::least_bytes;
use crate::lower::lower;
use crate::policy::{Planned, Plans, asks_for_recomputation, plans};
use crate::program::{Program, Target};
use crate::tables::push;
use crate::takeover::take_over;
use crate::verify::{verify_program, verifying};

/// A program with what is known of it before it runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compiled {
    pub program: Program,
    pub planned: Planned,
    /// What a run must allocate.
    pub peak: PeakBytes,
}

/// Compiles the graph under a policy.
pub fn compile(graph: &Graph, policy: CheckpointPolicy, target: &Target) -> Result<Compiled> {
    compile_donating(graph, policy, target, &[])
}

/// As [`compile`], where the caller gives up the memory of some inputs, and loops keep fewer of their states where the
/// policy asks for that: then the graph that the program is of is another one.
pub fn compile_loops(
    graph: &Graph,
    policy: CheckpointPolicy,
    target: &Target,
    donated: &[bool],
) -> Result<(Compiled, Option<Graph>)> {
    let plain = || compile_donating(graph, policy, target, donated);
    let Some(Checkpointed { graph: rewritten, extra_flops, slots }) = checkpointed(graph, policy)? else {
        return Ok((plain()?, None));
    };
    let mut compiled = compile_donating(&rewritten, policy, target, donated)?;
    note_loops(&mut compiled, extra_flops, slots);
    let mut kept = compile_donating(graph, CheckpointPolicy::None, target, donated)?;
    if compiled.peak.total() <= kept.peak.total() {
        return Ok((compiled, Some(rewritten)));
    }
    let (all, asked) = (kept.peak.total(), compiled.peak.total());
    kept.planned.note = Some(format!("keeping everything needs {all} bytes, this policy {asked}: everything is kept"));
    Ok((kept, None))
}

/// Says in a plan what its loops compute anew.
pub(crate) fn note_loops(compiled: &mut Compiled, extra_flops: u64, slots: u32) {
    compiled.planned.extra_flops = compiled.planned.extra_flops.saturating_add(extra_flops);
    let states = if slots == 1 { "state" } else { "states" };
    let loops = format!("loops keep {slots} {states} at most, and compute the others anew");
    compiled.planned.note = Some(loops);
}

/// As [`compile`], where the caller gives up the memory of some inputs. Loops keep all of their states.
pub fn compile_donating(
    graph: &Graph,
    policy: CheckpointPolicy,
    target: &Target,
    donated: &[bool],
) -> Result<Compiled> {
    if verifying() {
        ckad_prim::verify(graph)?;
    }
    // Policies compare by the figures of what they compute. What counts are the bytes of the program, which differ by
    // what the arena's holes and a kernel's scratch add, by what joined steps do not store, and by outputs that have
    // their memory from the start. A plan is taken where it is not above what is taken of those behind it.
    let Plans { mut all, mut own } = plans(graph, policy, target)?;
    let (with_live, given_up) = (policy != CheckpointPolicy::Auto, donated.contains(&true));
    let least = |plan: &Planned| Ok(if given_up { 0 } else { least_bytes(graph, &plan.schedule)?.total() });
    let lowered = |plan: Planned| lowered(graph, plan, target, donated);
    let asked = if all.is_empty() { return Err(nothing()) } else { all.remove(0) };
    // Where it surely needs more than the next of the policy's own, its program is not written.
    let asked_least = least(&asked)?;
    let mut next = None;
    if own > 1 && least(&all[0])? < asked_least {
        next = Some(lowered(all.remove(0))?);
    }
    let first = match next.take_if(|next| next.peak.total() < asked_least) {
        Some(smaller) => {
            own -= 1;
            smaller
        }
        None => lowered(asked)?,
    };
    // Those behind it are lowered only where they may be smaller.
    let behind_next = usize::from(next.is_some());
    let mut rivals: Vec<(usize, Planned)> = Vec::new();
    for (index, other) in all.into_iter().enumerate() {
        let less_live = with_live && first.planned.live_peak > other.live_peak;
        if less_live || least(&other)? < first.peak.total() {
            push(&mut rivals, (index + behind_next, other))?;
        }
    }
    let mut best: Option<(Compiled, usize)> = None;
    let consider = |best: &mut Option<(Compiled, usize)>, compiled: Compiled, index: usize| {
        if best.as_ref().is_none_or(|(best, _)| above(&compiled, best, with_live).is_none()) {
            *best = Some((compiled, index));
        }
    };
    for (index, planned) in rivals.into_iter().rev() {
        match best.as_mut() {
            Some((same, place)) if same.planned.schedule == planned.schedule => {
                (same.planned, *place) = (planned, index);
            }
            _ => consider(&mut best, lowered(planned)?, index),
        }
    }
    next.into_iter().for_each(|next| consider(&mut best, next, 0));
    let Some((mut best, place)) = best else { return Ok(first) };
    let Some((asked, kept)) = above(&first, &best, with_live) else { return Ok(first) };
    // The policy's own plans stand first.
    if place + 1 >= own && (with_live || asks_for_recomputation(graph)) {
        let who = if with_live { "this policy" } else { "the policies of parts of the program" };
        best.planned.note = Some(format!("keeping everything needs {kept} bytes, {who} {asked}: everything is kept"));
    }
    Ok(best)
}

fn nothing() -> Error {
    Error::internal("plan", "there is no plan at all")
}

/// Bytes of both where the one needs more than the other, in all or of live values. Of live values "auto" has no more
/// than there are where everything is kept; what regions make of it is compared in all.
fn above(one: &Compiled, other: &Compiled, with_live: bool) -> Option<(u64, u64)> {
    let needed = (one.peak.total() as u64, other.peak.total() as u64);
    let live = with_live.then_some((one.planned.live_peak, other.planned.live_peak));
    [Some(needed), live].into_iter().flatten().find(|(one, other)| one > other)
}

pub(crate) fn lowered(graph: &Graph, planned: Planned, target: &Target, donated: &[bool]) -> Result<Compiled> {
    let mut program = lower(graph, &planned.schedule, target)?;
    take_over(&mut program, donated, target)?;
    if verifying() {
        verify_program(&program)?;
    }
    let peak = PeakBytes::of(graph, &program)?;
    if verifying() && !donated.contains(&true) {
        let (least, needed) = (least_bytes(graph, &planned.schedule)?.total(), peak.total());
        if least > needed {
            return Err(Error::internal("plan", format!("a program of {needed} bytes was to take {least} at least")));
        }
    }
    Ok(Compiled { program, planned, peak })
}
