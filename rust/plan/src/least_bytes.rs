//! What the program of a schedule occupies at least, known without lowering it.
//!
//! Joined steps leave out what they make for each other alone, so what lives for longer than a group can be has bytes
//! in the arena; and each step has its entry in the program, with what it reads and writes. Where that alone is more
//! than a limit or another program, nobody needs to lower the schedule to see that it is too large.

use ckad_graph::{Graph, Op, Result, interrupt};

use crate::footprint::captured_bytes;
use crate::lower::joined::MOST_STEPS;
use crate::program::{ArrayRef, Buffer, Instruction, Load, Step, Store};
use crate::schedule::{Action, Cluster, ClusterKind, Schedule};
use crate::simulate::{Memory, base_taken};

/// No more than the bytes of a lowered schedule, where no memory is donated.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Least {
    /// Of values, captured arrays and the graph.
    pub(crate) arrays: usize,
    /// Of the program: a half of it, or less.
    pub(crate) program: usize,
}

impl Least {
    pub(crate) fn total(self) -> usize {
        self.arrays.saturating_add(self.program)
    }
}

pub(crate) fn least_bytes(graph: &Graph, schedule: &Schedule) -> Result<Least> {
    let computes = schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
    let mut memory = Memory::new(graph, computes + 1)?;
    let (mut step, mut program) = (0, 0);
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
        match *action {
            Action::Compute(id) => {
                let (taken, stores) = (base_taken(graph, schedule, index), &schedule.stores[index]);
                stores.iter().try_for_each(|&value| memory.store(value, taken, step))?;
                // Nothing is run for values without elements.
                if stores.iter().any(|&value| graph.elements(value) > 0) {
                    step += 1;
                    let cluster = &schedule.clustering.clusters[id.0 as usize];
                    program += step_bytes(graph, cluster, stores.len(), taken.is_some());
                }
            }
            Action::Free(value) => memory.free_after(value, step, MOST_STEPS),
            // What waits in a file is not compared.
            Action::Store(_) | Action::Load(_) => return Ok(Least::default()),
        }
    }
    let held = usize::try_from(memory.held().max().unwrap_or(0)).unwrap_or(usize::MAX);
    let returned = graph.outputs.iter().fold(0usize, |sum, &output| sum.saturating_add(graph.bytes(output)));
    let arrays = [held, returned, captured_bytes(graph)?, graph.own_bytes()];
    Ok(Least { arrays: arrays.into_iter().fold(0, usize::saturating_add), program })
}

/// Of the bytes of a step those that do not depend on where its operands lie.
fn step_bytes(graph: &Graph, cluster: &Cluster, stores: usize, takes_base: bool) -> usize {
    let root = cluster.members.last();
    // A loop may leave its results in the buffers of what it is given.
    let calls = cluster.members.iter().any(|&member| matches!(graph.op(member), Op::Call(_)));
    let buffers = if takes_base || calls { 0 } else { stores * size_of::<Buffer>() };
    let kernel = match cluster.kind {
        // What is stored comes from an instruction of its own, or is loaded.
        ClusterKind::Fused => stores * (size_of::<Store>() + size_of::<Instruction>().min(size_of::<Load>())),
        ClusterKind::Reduce => 0,
        // A copy has one operand, and is a fused kernel.
        ClusterKind::Single => {
            let operands = root.map_or(0, |&root| graph.operands(root).len());
            (operands * size_of::<ArrayRef>()).min(size_of::<Load>() + size_of::<Store>())
        }
    };
    size_of::<Step>() + buffers + kernel
}
