//! An independent judge of schedules: it shares no code with the policies that write them, but for the rule which
//! operations may write over their base ([`overwritten`]).
//!
//! It plays the actions on a table of live values and refuses what could not run: an operand that is not live,
//! a value freed twice or stored twice, one that comes back from a file that it was not written to, an output that is
//! missing at the end, a value that is left over, more extra work than the schedule promises. It also says how many
//! bytes are live at each action, and how many a run of them allocates.
//!
//! **Which bytes count.** Live values, outputs included; inputs, constants and scalars not. At a `Compute` its
//! operands and its results are live at once, with one exception that `lower` shares: where the cluster is a
//! single overwriting operation (`Op::overwrites_base`), its base is a value, not a leaf, which is no other operand
//! of it, and a `Free` of the base stands among the frees that directly follow, then the result takes the base's
//! bytes and the two count once. Copies that return an input, or one value twice, are made after the last
//! action: then all outputs are live, and nothing else.
//!
//! **Which are allocated.** Outputs have their memory from the start, all else from its `Compute` to its `Free`. A
//! value whose bytes an output takes in the end lies in the output's memory from the start.

use ckad_graph::{Error, Graph, NodeId, Result, interrupt};
use rustc_hash::FxHashSet;

use crate::cost::cluster_flops;
use crate::schedule::{Action, Cluster, ClusterKind, Schedule};
use crate::tables::{filled, push, room};

/// What a run of the schedule will need.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Simulation {
    /// The most bytes live at once.
    pub peak: u64,
    /// The first action at which they are; the number of actions if they are when all outputs are there.
    pub peak_action: usize,
    /// Bytes live during each action.
    pub live: Vec<u64>,
    /// The most bytes allocated for values at once: all outputs, and what else is live.
    pub allocated: u64,
    /// Operations of all computes.
    pub flops: u64,
    /// Operations beyond computing each cluster once.
    pub extra_flops: u64,
}

/// The base whose bytes the result of the `Compute` at `action` takes.
pub fn base_taken(graph: &Graph, schedule: &Schedule, action: usize) -> Option<NodeId> {
    let Some(&Action::Compute(id)) = schedule.actions.get(action) else { return None };
    let cluster = schedule.clustering.clusters.get(id.0 as usize)?;
    let base = overwritten(graph, cluster)?;
    let is_stored = cluster.members.last().is_some_and(|root| schedule.stores[action].contains(root));
    let mut frees = schedule.actions[action + 1..].iter().map_while(|action| match action {
        Action::Free(value) => Some(*value),
        Action::Compute(_) | Action::Store(_) | Action::Load(_) => None,
    });
    (is_stored && frees.any(|value| value == base)).then_some(base)
}

/// The base whose bytes the result of the cluster takes where the base dies there.
pub(crate) fn overwritten(graph: &Graph, cluster: &Cluster) -> Option<NodeId> {
    let &root = cluster.members.last()?;
    if cluster.kind != ClusterKind::Single || !graph.op(root).overwrites_base() {
        return None;
    }
    let (&base, others) = graph.operands(root).split_first()?;
    (!graph.op(base).is_leaf() && !others.contains(&base)).then_some(base)
}

/// Plays the schedule.
pub fn simulate(graph: &Graph, schedule: &Schedule) -> Result<Simulation> {
    let clusters = &schedule.clustering.clusters;
    simulate_costing(graph, schedule, |cluster| cluster_flops(graph, &clusters[cluster]))
}

/// As [`simulate`], where the operations of one run of a cluster are known.
pub(crate) fn simulate_costing(graph: &Graph, schedule: &Schedule, flops: impl Fn(usize) -> u64) -> Result<Simulation> {
    let fail = |action: usize, what: String| Error::internal("simulate", format!("action {action}: {what}"));
    if schedule.actions.len() != schedule.stores.len() {
        return Err(Error::internal("simulate", "actions and stores differ in length"));
    }
    let clusters = &schedule.clustering.clusters;
    let mut alive = filled(false, graph.len())?;
    let mut in_file: FxHashSet<NodeId> = FxHashSet::default();
    // The action that last listed a node as a member.
    let mut listed = filled(usize::MAX, graph.len())?;
    let mut runs = filled(0u64, clusters.len())?;
    let mut bytes = 0u64;
    let mut out = Simulation { live: room(schedule.actions.len())?, ..Simulation::default() };
    let mut memory = Memory::new(graph, schedule.actions.len())?;
    // The base whose bytes the last result took, until it is freed.
    let mut taken: Option<NodeId> = None;
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
        match *action {
            Action::Compute(id) => {
                let cluster = clusters
                    .get(id.0 as usize)
                    .ok_or_else(|| fail(index, format!("cluster {} does not exist", id.0)))?;
                for &member in &cluster.members {
                    for &operand in graph.operands(member) {
                        let at_hand =
                            listed[operand.index()] == index || alive[operand.index()] || graph.op(operand).is_leaf();
                        if !at_hand {
                            return Err(fail(index, format!("%{} needs %{}, which is not live", member.0, operand.0)));
                        }
                    }
                    listed[member.index()] = index;
                }
                for &value in &schedule.stores[index] {
                    if listed[value.index()] != index || graph.op(value).is_leaf() {
                        return Err(fail(index, format!("stores %{}, which it does not compute", value.0)));
                    }
                    if std::mem::replace(&mut alive[value.index()], true) {
                        return Err(fail(index, format!("stores %{}, which is live", value.0)));
                    }
                    bytes += graph.bytes(value) as u64;
                }
                runs[id.0 as usize] += 1;
                taken = base_taken(graph, schedule, index);
                for &value in &schedule.stores[index] {
                    memory.store(value, taken, index)?;
                }
            }
            Action::Free(value) => {
                let was_alive = alive.get_mut(value.index()).is_some_and(std::mem::take);
                if !was_alive || !schedule.stores[index].is_empty() {
                    return Err(fail(index, format!("frees %{}, which is not live", value.0)));
                }
                bytes -= graph.bytes(value) as u64;
                memory.free(value, index);
                taken = taken.filter(|&base| base != value);
            }
            Action::Store(value) => {
                if alive.get(value.index()) != Some(&true) || taken == Some(value) {
                    return Err(fail(index, format!("writes %{} to the file, which is not live", value.0)));
                }
                in_file.insert(value);
            }
            Action::Load(value) => {
                if !in_file.contains(&value) || std::mem::replace(&mut alive[value.index()], true) {
                    return Err(fail(index, format!("reads %{} back, which is live or not in the file", value.0)));
                }
                bytes += graph.bytes(value) as u64;
                memory.store(value, None, index)?;
            }
        }
        out.live.push(bytes - taken.map_or(0, |base| graph.bytes(base) as u64));
    }
    for &output in &graph.outputs {
        if !graph.op(output).is_leaf() && !alive[output.index()] {
            return Err(Error::internal("simulate", format!("output %{} is not live at the end", output.0)));
        }
    }
    for &output in &graph.outputs {
        alive[output.index()] = false;
    }
    if let Some(left) = alive.iter().position(|&alive| alive) {
        return Err(Error::internal("simulate", format!("%{left} is never freed")));
    }
    // `max_by_key` keeps the last of equals, so the walk is backwards.
    if let Some((action, &peak)) = out.live.iter().enumerate().rev().max_by_key(|(_, live)| **live) {
        (out.peak, out.peak_action) = (peak, action);
    }
    let returned = graph.outputs.iter().fold(0u64, |sum, &output| sum.saturating_add(graph.bytes(output) as u64));
    if returned > out.peak {
        (out.peak, out.peak_action) = (returned, schedule.actions.len());
    }
    out.allocated = returned.saturating_add(memory.held().max().unwrap_or(0));
    let mut once = 0u64;
    for (cluster, &runs) in runs.iter().enumerate().filter(|(_, runs)| **runs > 0) {
        let flops = flops(cluster);
        once = once.saturating_add(flops);
        out.flops = out.flops.saturating_add(flops.saturating_mul(runs));
    }
    out.extra_flops = out.flops - once;
    if out.extra_flops > once.saturating_mul(schedule.repeats) {
        return Err(Error::internal("simulate", format!("{} extra operations on {once}", out.extra_flops)));
    }
    Ok(out)
}

/// Who holds which bytes beside the outputs.
pub(crate) struct Memory<'g> {
    graph: &'g Graph,
    /// For each node the block that holds its value now, or held the last one.
    of: Vec<u32>,
    blocks: Vec<Block>,
    /// What becomes of the bytes in the arena at each action.
    change: Vec<i64>,
}

/// Bytes that values hold one after the other, each written over the one before.
struct Block {
    first: u32,
    holders: u32,
    bytes: u64,
}

impl<'g> Memory<'g> {
    pub(crate) fn new(graph: &'g Graph, actions: usize) -> Result<Memory<'g>> {
        Ok(Memory { graph, of: filled(0, graph.len())?, blocks: Vec::new(), change: filled(0, actions)? })
    }

    pub(crate) fn store(&mut self, value: NodeId, taken: Option<NodeId>, action: usize) -> Result<()> {
        if let Some(base) = taken {
            self.of[value.index()] = self.of[base.index()];
            self.blocks[self.of[base.index()] as usize].holders += 1;
            return Ok(());
        }
        self.of[value.index()] = self.blocks.len() as u32;
        push(&mut self.blocks, Block { first: action as u32, holders: 1, bytes: self.graph.bytes(value) as u64 })
    }

    /// A block that is never freed holds an output.
    pub(crate) fn free(&mut self, value: NodeId, action: usize) {
        self.free_after(value, action, 0);
    }

    /// As [`Memory::free`]; but a block that no more than so many actions have passed since counts for nothing.
    pub(crate) fn free_after(&mut self, value: NodeId, action: usize, short: usize) {
        let block = &mut self.blocks[self.of[value.index()] as usize];
        block.holders -= 1;
        if block.holders == 0 && action - block.first as usize > short {
            self.change[block.first as usize] += block.bytes as i64;
            self.change[action] -= block.bytes as i64;
        }
    }

    /// The bytes of blocks that are freed, during each action.
    pub(crate) fn held(&self) -> impl Iterator<Item = u64> + '_ {
        let mut now = 0;
        self.change.iter().map(move |&change| {
            now += change;
            now.unsigned_abs()
        })
    }
}
