//! Keep everything, large values on disk while no pass reads them.
//!
//! Works on a finished schedule. A value that a pass leaves for a later one is written to the run's file as soon as it
//! is computed. Its memory is freed one such value after its last use, so that the write has the time of a layer's
//! work to end; it is read back while the value that is needed before it is worked on. Values that are needed again
//! before their memory would be free stay. Nothing is computed again for it.

use ckad_graph::{NodeId, Result, interrupt};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::policy::Material;
use crate::schedule::{Action, Schedule, Stores};
use crate::tables::{collected, filled, push, room};

/// A value between its last use in one pass and its first in a later one, both as actions.
#[derive(Clone, Copy)]
struct Wait {
    value: NodeId,
    made: usize,
    last_use: usize,
    next_use: usize,
}

const NEVER: usize = usize::MAX;

/// The schedule with values of at least so many bytes in the file while they wait.
pub(crate) fn offloaded(material: &Material<'_>, schedule: &Schedule, least_bytes: u32) -> Result<Schedule> {
    let waits = waits(material, schedule, least_bytes)?;
    let mut by_next_use = collected(waits.iter().copied())?;
    by_next_use.sort_by_key(|wait| (wait.next_use, wait.value));
    // A value is read back when the one that is needed before it is: one after the other, each with the time of a
    // layer's work.
    let mut load_at: FxHashMap<(NodeId, usize), usize> = FxHashMap::default();
    let mut earlier = (NEVER, NEVER);
    for wait in &by_next_use {
        if earlier.1 != wait.next_use {
            earlier = (if earlier.1 == NEVER { wait.next_use } else { earlier.1 }, wait.next_use);
        }
        load_at.insert((wait.value, wait.next_use), earlier.0);
    }
    // What happens before an action, and what behind it.
    let mut loads: Vec<(usize, NodeId)> = room(waits.len())?;
    let mut behind: Vec<(usize, Action)> = room(2 * waits.len())?;
    let mut later = (NEVER, NEVER);
    for wait in waits.iter().rev() {
        if later.1 != wait.last_use {
            later = (later.1, wait.last_use);
        }
        let load = load_at.get(&(wait.value, wait.next_use)).copied().unwrap_or(wait.next_use);
        if later.0 < load {
            push(&mut behind, (wait.made, Action::Store(wait.value)))?;
            push(&mut behind, (later.0, Action::Free(wait.value)))?;
            push(&mut loads, (load, wait.value))?;
        }
    }
    loads.sort_unstable();
    // Of one place, what is stored is stored before something is freed.
    behind.sort_by_key(|&(place, action)| (place, matches!(action, Action::Free(_))));
    woven(schedule, &loads, &behind)
}

/// The waits of large values, in the order of their last uses.
fn waits(material: &Material<'_>, schedule: &Schedule, least_bytes: u32) -> Result<Vec<Wait>> {
    let (graph, flow) = (material.graph, &material.flow);
    let mut made = filled(NEVER, graph.len())?;
    // The last action that touched a value, and in which pass.
    let mut touched: Vec<(usize, u16)> = filled((NEVER, 0), graph.len())?;
    let mut waits = Vec::new();
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
        let &Action::Compute(cluster) = action else { continue };
        let pass = material.positions.pass[cluster.0 as usize];
        // What computes nothing takes no step that could wait for a value.
        let is_step = schedule.stores[index].iter().any(|&value| graph.elements(value) > 0);
        for &operand in flow.operands.get(cluster.0 as usize) {
            let value = NodeId(operand);
            let (last_use, last_pass) = std::mem::replace(&mut touched[value.index()], (index, pass));
            let large = graph.bytes(value) as u64 >= u64::from(least_bytes.max(1));
            let stays = flow.output[value.index()] || material.pinned[value.index()];
            if last_use != NEVER && pass > last_pass && large && !stays && is_step {
                push(&mut waits, Wait { value, made: made[value.index()], last_use, next_use: index })?;
            }
        }
        for &value in &schedule.stores[index] {
            made[value.index()] = index;
            touched[value.index()] = (index, pass);
        }
    }
    waits.sort_by_key(|wait| (wait.last_use, wait.value));
    Ok(waits)
}

/// The schedule with loads before and other actions behind its own. What frees directly follow a compute stay there.
fn woven(schedule: &Schedule, loads: &[(usize, NodeId)], behind: &[(usize, Action)]) -> Result<Schedule> {
    let mut actions = room(schedule.actions.len() + loads.len() + behind.len())?;
    let mut stores = room(schedule.actions.len() + loads.len() + behind.len())?;
    let mut add = |action: Action, stored: Stores| {
        push(&mut actions, action)?;
        push(&mut stores, stored)
    };
    let mut stored: FxHashSet<NodeId> = FxHashSet::default();
    let (mut loads, mut behind) = (loads.iter().peekable(), behind.iter().peekable());
    for (index, &action) in schedule.actions.iter().enumerate() {
        if matches!(action, Action::Compute(_)) {
            while let Some(&(_, action)) = behind.next_if(|&&(place, _)| place < index) {
                let again = matches!(action, Action::Store(value) if !stored.insert(value));
                if !again {
                    add(action, Stores::new())?;
                }
            }
            while let Some(&(_, value)) = loads.next_if(|&&(place, _)| place <= index) {
                add(Action::Load(value), Stores::new())?;
            }
        }
        add(action, schedule.stores[index].clone())?;
    }
    Ok(Schedule { clustering: std::sync::Arc::clone(&schedule.clustering), actions, stores, repeats: schedule.repeats })
}
