//! Graph in, program out: schedule, lower, verify; and never more memory than keeping everything would take.

use ckad_graph::{CheckpointPolicy, Graph, Result};

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

/// As [`compile`], where the caller gives up the memory of some inputs.
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
