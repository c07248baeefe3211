//! What is live while a schedule runs, by source line, in few columns: what pictures of a plan are drawn from.
//!
//! A *step* is a `Compute` with the frees behind it; one more step follows the last, when the results are there. A
//! column stands for a stretch of steps and shows the one of them at which most bytes are live, so no peak is lost
//! however long the schedule is. Lines are given as rows; those that hold most are shown by themselves, all others
//! together. Near-linear in actions: the schedule is replayed once to learn who holds most, and once to draw.

use std::cmp::Reverse;

use ckad_graph::{Graph, NodeId, Result, interrupt};

use crate::policy::Planned;
use crate::schedule::{Action, Schedule};
use crate::simulate::{Memory, base_taken, simulate};
use crate::tables::{collected, filled, push, room};

/// A run in columns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Timeline {
    /// Number of steps, the last one included, when the results are there.
    pub steps: usize,
    /// The rows that are shown by themselves, in their order. All others share one behind them.
    pub rows: Vec<usize>,
    pub columns: Vec<Column>,
}

/// A stretch of steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    pub first_step: usize,
    /// The step of the stretch at which most bytes are live: the figures are its own.
    pub step: usize,
    pub live: u64,
    /// What live values and results occupy; results have their memory from the beginning.
    pub allocated: u64,
    /// Live bytes of each shown row, then of all others.
    pub held: Vec<u64>,
    /// Whose operation is computed; `None` when the results are there.
    pub computes: Option<NodeId>,
    /// Lowest and highest tape position at which the stretch computes, by [`Work`].
    pub reach: [Option<(u32, u32)>; 3],
}

/// What a step is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// The first pass over the tape.
    Forward,
    /// What was computed before and not kept.
    Recomputed,
    /// Any later pass.
    Backward,
}

/// The run of a plan in at most so many columns, in which at most `shown` rows are told apart. `row` says to which
/// of `rows` rows a node belongs.
pub fn timeline(
    graph: &Graph,
    planned: &Planned,
    (row, rows): (&dyn Fn(NodeId) -> usize, usize),
    shown: usize,
    columns: usize,
) -> Result<Timeline> {
    let schedule = &planned.schedule;
    let live = simulate(graph, schedule)?.live;
    let mut drawn = stretches(graph, schedule, &live, columns.max(1))?;
    let steps = drawn.last().map_or(0, |last| last.step + 1);
    let mut replay = Replay { graph, schedule, row, held: filled(0u64, rows)?, most: filled(0u64, rows)? };
    replay.run(|_, _| Ok(()))?;
    let order = |row: &usize| (Reverse(replay.most[*row]), *row);
    let mut kept: Vec<usize> = collected((0..rows).filter(|&row| replay.most[row] > 0))?;
    kept.sort_unstable_by_key(order);
    kept.truncate(shown);
    kept.sort_unstable();
    replay.held.fill(0);
    let mut next = 0;
    replay.run(|step, held| {
        if let Some(column) = drawn.get_mut(next).filter(|column| column.step == step) {
            column.held = collected(kept.iter().map(|&row| held[row]))?;
            let others = held.iter().sum::<u64>() - column.held.iter().sum::<u64>();
            push(&mut column.held, others)?;
            next += 1;
        }
        Ok(())
    })?;
    Ok(Timeline { steps, rows: kept, columns: drawn })
}

/// The columns without what their rows hold.
fn stretches(graph: &Graph, schedule: &Schedule, live: &[u64], columns: usize) -> Result<Vec<Column>> {
    let clusters = &schedule.clustering.clusters;
    let allocated = allocated(graph, schedule)?;
    let returned = graph.outputs.iter().fold(0u64, |sum, &output| sum.saturating_add(graph.bytes(output) as u64));
    let computes = schedule.actions.iter().enumerate().filter_map(|(index, action)| match action {
        Action::Compute(id) => Some((index, id.0 as usize)),
        Action::Free(_) | Action::Store(_) | Action::Load(_) => None,
    });
    let computed = computes.clone().count();
    let width = computed.div_ceil(columns).max(1);
    let mut seen = filled(false, clusters.len())?;
    let mut drawn: Vec<Column> = room(computed.div_ceil(width) + 1)?;
    for (step, (index, cluster)) in computes.enumerate() {
        interrupt::check_at(step)?;
        let root = clusters[cluster].members.last().copied();
        let begins = step.is_multiple_of(width);
        let (live, allocated) = (live[index], returned + allocated[index]);
        if begins || drawn.last().is_some_and(|column| live > column.live) {
            let (first_step, reach) = match drawn.last() {
                Some(column) if !begins => (column.first_step, column.reach),
                _ => (step, [None; 3]),
            };
            if !begins {
                drawn.pop();
            }
            let held = Vec::new();
            drawn.push(Column { first_step, step, live, allocated, held, computes: root, reach });
        }
        let again = std::mem::replace(&mut seen[cluster], true);
        let Some((column, root)) = drawn.last_mut().zip(root) else { continue };
        let attributes = graph.attributes(root);
        let work = match (again, attributes.pass) {
            (true, _) => Work::Recomputed,
            (false, 0) => Work::Forward,
            (false, _) => Work::Backward,
        };
        let reach = &mut column.reach[work as usize];
        let position = attributes.position;
        *reach = Some(reach.map_or((position, position), |(low, high)| (low.min(position), high.max(position))));
    }
    let (live, allocated, held) = (returned, returned, Vec::new());
    let end = Column { first_step: computed, step: computed, live, allocated, held, computes: None, reach: [None; 3] };
    push(&mut drawn, end)?;
    Ok(drawn)
}

/// Bytes beside the results that are allocated during each action.
fn allocated(graph: &Graph, schedule: &Schedule) -> Result<Vec<u64>> {
    let mut memory = Memory::new(graph, schedule.actions.len())?;
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
        match *action {
            Action::Compute(_) => {
                let taken = base_taken(graph, schedule, index);
                for &value in &schedule.stores[index] {
                    memory.store(value, taken, index)?;
                }
            }
            Action::Free(value) => memory.free(value, index),
            Action::Store(_) => {}
            Action::Load(value) => memory.store(value, None, index)?,
        }
    }
    collected(memory.held())
}

/// Who holds what, action by action.
struct Replay<'a> {
    graph: &'a Graph,
    schedule: &'a Schedule,
    row: &'a dyn Fn(NodeId) -> usize,
    /// Live bytes of each row.
    held: Vec<u64>,
    /// The most of them so far.
    most: Vec<u64>,
}

impl Replay<'_> {
    /// Shows each step what rows hold during it.
    fn run(&mut self, mut at_step: impl FnMut(usize, &[u64]) -> Result<()>) -> Result<()> {
        let (graph, schedule) = (self.graph, self.schedule);
        let bytes = |value: NodeId| graph.bytes(value) as u64;
        let mut step = 0;
        let mut taken: Option<NodeId> = None;
        for (index, action) in schedule.actions.iter().enumerate() {
            interrupt::check_at(index)?;
            match *action {
                Action::Free(value) if taken == Some(value) => taken = None,
                Action::Free(value) => self.held[(self.row)(value)] -= bytes(value),
                Action::Store(_) => {}
                Action::Load(value) => {
                    let row = (self.row)(value);
                    self.held[row] += bytes(value);
                    self.most[row] = self.most[row].max(self.held[row]);
                }
                Action::Compute(_) => {
                    taken = base_taken(graph, schedule, index);
                    if let Some(base) = taken {
                        self.held[(self.row)(base)] -= bytes(base);
                    }
                    for &value in &schedule.stores[index] {
                        let row = (self.row)(value);
                        self.held[row] += bytes(value);
                        self.most[row] = self.most[row].max(self.held[row]);
                    }
                    at_step(step, &self.held)?;
                    step += 1;
                }
            }
        }
        // Copies that return an input, or one value twice, are there now, and nothing else.
        self.held.fill(0);
        for &output in &graph.outputs {
            let row = (self.row)(output);
            self.held[row] += bytes(output);
            self.most[row] = self.most[row].max(self.held[row]);
        }
        at_step(step, &self.held)
    }
}
