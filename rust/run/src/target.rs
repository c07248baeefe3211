//! What this machine is to the planner.

use ckad_graph::Result;
use ckad_plan::program::Target;

use crate::block::ALIGNMENT;
use crate::threads::thread_count;

/// The CPU as a target: limits beyond which a tile's registers and operands no longer fit into L1.
pub fn target() -> Result<Target> {
    Ok(Target {
        alignment: ALIGNMENT,
        operand_limit: 16,
        register_limit: 32,
        threads: thread_count()?,
        scratch: ckad_cpu::scratch_bytes,
        joined: ckad_cpu::joined::longest,
        joining: ckad_cpu::joined::plan,
    })
}
