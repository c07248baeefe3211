//! Graph in, program out: schedule, lower, verify; and never more memory than keeping everything would take.

use ckad_graph::{CheckpointPolicy, Graph, Result};

use crate::checkpoint_loops::{Checkpointed, checkpointed};
use crate::footprint::PeakBytes;
use crate::lower::lower;
use crate::policy::{Planned, plans};
use crate::program::{Program, Target};
use crate::takeover::take_over;
use crate::verify::verify_program;

/// A program with what is known of it before it runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Compiled {
    pub program: Program,
    pub planned: Planned,
    /// What a run must allocate.
    pub peak: PeakBytes,
}

/// Whether graphs and programs are verified: in debug builds, and where `CKAD_VERIFY=1`.
pub fn verifying() -> bool {
    cfg!(debug_assertions) || std::env::var_os("CKAD_VERIFY").is_some_and(|value| value == "1")
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
    let loops = format!("loops keep {slots} states at most, and compute the others anew");
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
    let (chosen, none) = plans(graph, policy, target)?;
    let compiled = lowered(graph, chosen, target, donated)?;
    // Policies compare schedules by live bytes. What counts are the bytes of the program, which differ by what the
    // arena's holes and a kernel's scratch add, and by outputs that have their memory from the start.
    let Some(none) = none else { return Ok(compiled) };
    let mut none = lowered(graph, none, target, donated)?;
    if compiled.peak.total() <= none.peak.total() {
        return Ok(compiled);
    }
    if policy != CheckpointPolicy::Auto {
        let (kept, asked) = (none.peak.total(), compiled.peak.total());
        none.planned.note =
            Some(format!("keeping everything needs {kept} bytes, this policy {asked}: everything is kept"));
    }
    Ok(none)
}

pub(crate) fn lowered(graph: &Graph, planned: Planned, target: &Target, donated: &[bool]) -> Result<Compiled> {
    let mut program = lower(graph, &planned.schedule, target)?;
    take_over(&mut program, donated, target)?;
    if verifying() {
        verify_program(&program)?;
    }
    let peak = PeakBytes::of(graph, &program)?;
    Ok(Compiled { program, planned, peak })
}
