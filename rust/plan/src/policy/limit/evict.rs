//! Eviction: a program within a budget for graphs that are no chains.
//!
//! The clusters run in the graph's own order. Where the next result does not fit into the budget, the value goes whose
//! loss costs least: the operations that make it again, those of its ancestors that are gone included, for each
//! byte, and the less the later it is used next. What is needed and gone is made again by a depth-first walk. It is
//! dynamic tensor rematerialisation (Kirisame et al. 2021) with the future known: what is never used again goes
//! first, and distances to the next use take the place of ages.
//!
//! What losses cost is kept beside the clusters and changed where something goes or comes back. Values wait in a heap
//! by what they cost when they were looked at last: as nothing but a value that comes back, or that is used, makes a
//! loss cost less, that is never too much. Still each eviction walks over what is gone around it, so this is for graphs
//! of up to [`MOST_CLUSTERS`].

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ckad_graph::{Error, NodeId, Result, interrupt};

use crate::policy::Material;
use crate::policy::sequence::Sequence;
use crate::simulate::overwritten;
use crate::tables::{collected, filled, push};

/// The most clusters of a graph that is planned so.
pub(crate) const MOST_CLUSTERS: usize = 1000;

/// So many budgets that are given up one after the other, and smaller ones are not tried.
pub(crate) const FAILURES: usize = 2;

/// Clusters of all attempts together.
const CLUSTERS_TRIED: usize = 20_000;
/// Budgets with each weight, at least and at most.
const BUDGETS: (usize, usize) = (4, 40);

/// So many times as many computes as clusters, and a budget is given up.
const MOST_RUNS: usize = 8;

/// The same of operations: so many times those of all clusters once, beyond them.
pub(crate) const MOST_REPEATS: u64 = 2;

/// Steps of all attempts together, of walks and of looks at values, after which none is begun: about a tenth of a
/// second. Nets take about half of that; it ends the series on chains of thousands of values in few clusters.
const MOST_STEPS: u64 = 3_000_000;

/// How many budgets are tried with each weight, of so many clusters.
fn budgets(clusters: usize) -> usize {
    (CLUSTERS_TRIED / (WEIGHTS.len() * clusters.max(1))).clamp(BUDGETS.0, BUDGETS.1)
}

/// Clusters of all attempts on so many clusters.
pub(crate) fn clusters_tried(clusters: usize) -> usize {
    clusters * WEIGHTS.len() * budgets(clusters)
}

/// What a program of evictions is made from: enough to make it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Eviction {
    /// Bytes of values live at once beside the outputs.
    pub(crate) budget: u64,
    pub(crate) weight: Weight,
}

/// How much the distance to the next use counts: the exponent α of bytes · distance^α.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weight {
    Nothing,
    Fourth,
    Half,
    Full,
}

pub(crate) const WEIGHTS: &[Weight] = &[Weight::Nothing, Weight::Fourth, Weight::Half, Weight::Full];

impl Weight {
    fn of(self, distance: f64) -> f64 {
        match self {
            Weight::Nothing => 1.0,
            Weight::Fourth => distance.sqrt().sqrt(),
            Weight::Half => distance.sqrt(),
            Weight::Full => distance,
        }
    }
}

/// What the planner reads of a graph, for all budgets.
pub(crate) struct Evictions<'a> {
    material: &'a Material<'a>,
    /// For each cluster, what computing it costs: its operations, and never nothing.
    cost: Vec<u64>,
    /// For each node, the bytes of its value; 0 for those that are returned, which have their memory from the start.
    bytes: Vec<u64>,
    /// For each cluster, the base in whose bytes it may write its result.
    base: Vec<Option<NodeId>>,
    /// Steps of all programs so far.
    steps: Cell<u64>,
}

impl<'a> Evictions<'a> {
    pub(crate) fn new(material: &'a Material<'a>) -> Result<Evictions<'a>> {
        let (graph, flow) = (material.graph, &material.flow);
        let mut bytes = filled(0, flow.producer.len())?;
        for value in flow.values().filter(|value| !flow.output[value.index()]) {
            bytes[value.index()] = graph.bytes(value) as u64;
        }
        // What only moves numbers takes time too: an operation for each.
        let moved = |cluster: usize| {
            flow.results.get(cluster).iter().map(|&value| graph.elements(NodeId(value)) as u64).sum::<u64>()
        };
        let cost = collected((0..flow.flops.len()).map(|cluster| flow.flops[cluster].max(moved(cluster)).max(1)))?;
        let clusters = &material.clustering.clusters;
        let base = collected(clusters.iter().map(|cluster| overwritten(graph, cluster)))?;
        Ok(Evictions { material, cost, bytes, base, steps: Cell::new(0) })
    }

    /// The least that any program needs: the operands and results of one cluster.
    pub(crate) fn least(&self) -> u64 {
        let flow = &self.material.flow;
        let sum = |values: &[u32]| values.iter().map(|&value| self.bytes[value as usize]).sum::<u64>();
        let of = |cluster: usize| {
            let taken = self.base[cluster].map_or(0, |base| self.bytes[base.index()]);
            sum(flow.operands.get(cluster)) + sum(flow.results.get(cluster)).saturating_sub(taken)
        };
        (0..flow.flops.len()).map(of).max().unwrap_or(0)
    }

    /// The budgets that are tried, the largest first: in equal steps between the least and what keeping everything
    /// allocates.
    pub(crate) fn budgets(&self, everything: u64) -> impl Iterator<Item = u64> + use<> {
        let graph = self.material.graph;
        let returned = graph.outputs.iter().map(|&output| graph.bytes(output) as u64).sum();
        let most = everything.saturating_sub(returned);
        let least = self.least().min(most);
        let steps = budgets(self.material.flow.flops.len()) as u64;
        (0..steps)
            .rev()
            .map(move |step| least + (u128::from(most - least) * u128::from(step) / u128::from(steps)) as u64)
    }

    /// Whether so much was looked at that no further budget is tried.
    pub(crate) fn is_long_enough(&self) -> bool {
        self.steps.get() > MOST_STEPS
    }

    /// What these evictions compute; `None` where the budget is too small for them.
    pub(crate) fn sequence(&self, eviction: Eviction) -> Result<Option<Sequence>> {
        let clusters = self.material.flow.flops.len();
        let mut run = Run::new(self, eviction)?;
        let mut fits = true;
        for cluster in 0..clusters as u32 {
            fits = run.compute(cluster)?;
            if !fits {
                break;
            }
            run.pass(cluster)?;
        }
        self.steps.set(self.steps.get() + run.steps + run.sequence.len() as u64);
        Ok(fits.then_some(run.sequence))
    }
}

/// One run over the clusters.
struct Run<'a> {
    planner: &'a Evictions<'a>,
    eviction: Eviction,
    /// The cluster that is due in the graph's own order.
    now: u32,
    at_hand: Vec<bool>,
    /// Values that may be evicted, the one whose loss seems to cost least on top, and what has become of others.
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// For each value, how many were made before it.
    made: Vec<u32>,
    /// For each value, which of its entries in the heap counts; [`ABSENT`] where none does.
    entry: Vec<u32>,
    entries: u32,
    used: u64,
    /// For each value, how many computes under way need it.
    locks: Vec<u16>,
    /// For each value, how many of its users are done.
    done: Vec<u16>,
    sequence: Sequence,
    extra: u64,
    most_extra: u64,
    was_run: Vec<bool>,
    /// Clusters under way, with the number of their operands that are at hand and locked.
    walk: Vec<(u32, usize)>,
    /// For each cluster, what it costs to make its results again, as far as they are at hand.
    loss: Vec<Loss>,
    /// Of walks over what is gone: clusters to look at, when each was last seen, and how many were in all.
    ahead: Vec<u32>,
    seen: Vec<u32>,
    walks: u32,
    steps: u64,
}

/// The operations that make something again, those of its ancestors that are gone included.
#[derive(Clone, Copy, Default)]
struct Loss {
    at_least: u64,
    /// Whether it is just that.
    exact: bool,
}

/// A value that may be evicted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    /// What its loss costs at least, by its weight: the bits of a number that is not negative.
    score: u64,
    /// Of equal scores the one that was made first goes first.
    made: u32,
    value: u32,
    entry: u32,
}

const ABSENT: u32 = 0;

impl<'a> Run<'a> {
    fn new(planner: &'a Evictions<'a>, eviction: Eviction) -> Result<Run<'a>> {
        let flow = &planner.material.flow;
        let (nodes, clusters) = (flow.producer.len(), flow.flops.len());
        Ok(Run {
            planner,
            eviction,
            now: 0,
            at_hand: filled(false, nodes)?,
            waiting: BinaryHeap::new(),
            made: filled(0, nodes)?,
            entry: filled(ABSENT, nodes)?,
            entries: ABSENT,
            used: 0,
            locks: filled(0, nodes)?,
            done: filled(0, nodes)?,
            sequence: Sequence::new(clusters)?,
            extra: 0,
            most_extra: flow.total_flops().saturating_mul(MOST_REPEATS),
            was_run: filled(false, clusters)?,
            walk: Vec::new(),
            loss: filled(Loss::default(), clusters)?,
            ahead: Vec::new(),
            seen: filled(0, clusters)?,
            walks: 0,
            steps: 0,
        })
    }

    /// Computes the cluster after what it needs and lacks; whether that was possible.
    fn compute(&mut self, cluster: u32) -> Result<bool> {
        let planner = self.planner;
        let flow = &planner.material.flow;
        self.now = cluster;
        push(&mut self.walk, (cluster, 0))?;
        while let Some((cluster, next)) = self.walk.last_mut() {
            let cluster = *cluster;
            let operands = flow.operands.get(cluster as usize);
            if let Some(&operand) = operands.get(*next) {
                if self.at_hand[operand as usize] {
                    *next += 1;
                    self.locks[operand as usize] += 1;
                } else {
                    push(&mut self.walk, (flow.producer[operand as usize], 0))?;
                }
                continue;
            }
            self.walk.pop();
            if !self.make(cluster)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Computes a cluster whose operands are at hand.
    fn make(&mut self, cluster: u32) -> Result<bool> {
        let planner = self.planner;
        let flow = &planner.material.flow;
        let index = cluster as usize;
        let again = std::mem::replace(&mut self.was_run[index], true);
        if again {
            self.extra = self.extra.saturating_add(flow.flops[index]);
        }
        if self.extra > self.most_extra || self.sequence.len() >= MOST_RUNS * self.was_run.len() {
            return Ok(false);
        }
        let missing = flow.results.get(index).iter().filter(|&&result| !self.at_hand[result as usize]);
        let needed = missing.map(|&result| planner.bytes[result as usize]).sum::<u64>();
        let taken = planner.base[index].filter(|&base| cluster == self.now && self.is_last_use(base));
        let taken = taken.map_or(0, |base| planner.bytes[base.index()]);
        if !self.make_room(needed.saturating_sub(taken))? {
            return Ok(false);
        }
        for &operand in flow.operands.get(index) {
            self.locks[operand as usize] -= 1;
            // Those that were passed over when they were locked.
            if self.locks[operand as usize] == 0 && self.entry[operand as usize] == ABSENT {
                self.wait(operand)?;
            }
        }
        if again {
            self.come_back(index)?;
        }
        self.loss[index] = Loss { at_least: planner.cost[index], exact: true };
        for &result in flow.results.get(index) {
            if std::mem::replace(&mut self.at_hand[result as usize], true) {
                continue;
            }
            self.made[result as usize] = self.sequence.made();
            self.sequence.make(result)?;
            if !flow.output[result as usize] {
                self.used += planner.bytes[result as usize];
                self.wait(result)?;
            }
        }
        self.sequence.end(cluster)?;
        Ok(true)
    }

    /// Whether the due cluster is the last one in the graph's order that uses the value, and nothing else does now.
    fn is_last_use(&self, value: NodeId) -> bool {
        let users = self.planner.material.flow.users.get(value.index()).len();
        self.locks[value.index()] == 1 && self.done[value.index()] as usize + 1 >= users
    }

    /// The due cluster has been computed.
    fn pass(&mut self, cluster: u32) -> Result<()> {
        let planner = self.planner;
        self.now = cluster + 1;
        for &operand in planner.material.flow.operands.get(cluster as usize) {
            self.done[operand as usize] += 1;
            let next = self.next_use(operand);
            let overwritten = planner.base[cluster as usize] == Some(NodeId(operand));
            if overwritten && next.is_none() && !planner.material.flow.output[operand as usize] {
                self.go(operand)?;
            } else {
                self.wait(operand)?;
            }
        }
        Ok(())
    }

    /// The cluster that uses the value next, in the graph's own order.
    fn next_use(&self, value: u32) -> Option<u32> {
        self.planner.material.flow.users.get(value as usize).get(self.done[value as usize] as usize).copied()
    }

    /// The value may be evicted from now on, or costs less than it did.
    fn wait(&mut self, value: u32) -> Result<()> {
        let index = value as usize;
        let planner = self.planner;
        let next = self.next_use(value);
        let stays = planner.material.pinned[index] && next.is_some();
        if !self.at_hand[index] || stays || planner.bytes[index] == 0 {
            return Ok(());
        }
        self.entries += 1;
        self.entry[index] = self.entries;
        let at_least = self.loss[planner.material.flow.producer[index] as usize].at_least;
        let (score, made, entry) = (self.score(index, next, at_least), self.made[index], self.entries);
        if self.waiting.len() == self.waiting.capacity() {
            let (entry, before) = (&self.entry, self.waiting.len());
            self.waiting.retain(|Reverse(waiting)| entry[waiting.value as usize] == waiting.entry);
            if 2 * self.waiting.len() >= before {
                let refused = |_| Error::memory("plan", 2 * before * size_of::<Waiting>());
                self.waiting.try_reserve(before.max(64)).map_err(refused)?;
            }
        }
        self.waiting.push(Reverse(Waiting { score, made, value, entry }));
        Ok(())
    }

    /// What it costs to lose a value, by its weight.
    fn score(&self, value: usize, next: Option<u32>, loss: u64) -> u64 {
        let distance = next.map(|user| f64::from(user - self.now + 1));
        // What has no use before it could be made again goes first.
        let weight = distance.map_or(f64::INFINITY, |distance| self.eviction.weight.of(distance));
        (loss as f64 / (self.planner.bytes[value] as f64 * weight)).to_bits()
    }

    /// Evicts until so many more bytes keep to the budget; whether that was possible.
    fn make_room(&mut self, bytes: u64) -> Result<bool> {
        while self.used.saturating_add(bytes) > self.eviction.budget {
            interrupt::check()?;
            let Some(value) = self.cheapest()? else { return Ok(false) };
            self.go(value)?;
        }
        Ok(true)
    }

    /// The value whose loss costs least.
    fn cheapest(&mut self) -> Result<Option<u32>> {
        let planner = self.planner;
        while let Some(Reverse(top)) = self.waiting.pop() {
            self.steps += 1;
            let value = top.value as usize;
            if self.entry[value] != top.entry || !self.at_hand[value] {
                continue;
            }
            if self.locks[value] > 0 {
                self.entry[value] = ABSENT;
                continue;
            }
            let next = self.next_use(top.value);
            let producer = planner.material.flow.producer[value] as usize;
            if next.is_some() && !self.loss[producer].exact {
                self.loss[producer] = Loss { at_least: self.looked_up(producer as u32)?, exact: true };
            }
            let now = Waiting { score: self.score(value, next, self.loss[producer].at_least), ..top };
            if self.waiting.peek().is_some_and(|Reverse(other)| *other < now) {
                self.waiting.push(Reverse(now));
                continue;
            }
            return Ok(Some(top.value));
        }
        Ok(None)
    }

    /// The value is at hand no more: what is made of it by way of what is gone costs more to make again.
    fn go(&mut self, value: u32) -> Result<()> {
        let planner = self.planner;
        let flow = &planner.material.flow;
        self.at_hand[value as usize] = false;
        self.entry[value as usize] = ABSENT;
        self.used -= planner.bytes[value as usize];
        self.walks += 1;
        // What needs its cluster already, for another result of it.
        for &other in flow.results.get(flow.producer[value as usize] as usize) {
            if other != value && !self.at_hand[other as usize] {
                self.walk_behind(other, |_| ())?;
            }
        }
        self.walk_behind(value, |loss| loss.exact = false)
    }

    /// The cluster is computed once more, from operands that are all at hand.
    fn come_back(&mut self, cluster: usize) -> Result<()> {
        let planner = self.planner;
        let cost = planner.cost[cluster];
        self.walks += 1;
        for &result in planner.material.flow.results.get(cluster) {
            if !self.at_hand[result as usize] {
                self.walk_behind(result, |loss| loss.at_least = loss.at_least.saturating_sub(cost))?;
            }
        }
        Ok(())
    }

    /// Visits each cluster that this walk has not seen and that would need a value that is gone.
    fn walk_behind(&mut self, value: u32, visit: impl Fn(&mut Loss)) -> Result<()> {
        let planner = self.planner;
        let flow = &planner.material.flow;
        self.ahead.clear();
        flow.users.get(value as usize).iter().try_for_each(|&user| push(&mut self.ahead, user))?;
        while let Some(cluster) = self.ahead.pop() {
            self.steps += 1;
            let index = cluster as usize;
            if !self.was_run[index] || std::mem::replace(&mut self.seen[index], self.walks) == self.walks {
                continue;
            }
            let before = self.loss[index].at_least;
            visit(&mut self.loss[index]);
            let costs_less = self.loss[index].at_least < before;
            for &result in flow.results.get(index) {
                if !self.at_hand[result as usize] {
                    flow.users.get(result as usize).iter().try_for_each(|&user| push(&mut self.ahead, user))?;
                } else if costs_less {
                    self.wait(result)?;
                }
            }
        }
        Ok(())
    }

    /// What it costs to make the results of a cluster again, with those of their ancestors that are gone.
    fn looked_up(&mut self, cluster: u32) -> Result<u64> {
        let planner = self.planner;
        let flow = &planner.material.flow;
        self.walks += 1;
        self.ahead.clear();
        push(&mut self.ahead, cluster)?;
        let mut loss = 0u64;
        while let Some(cluster) = self.ahead.pop() {
            self.steps += 1;
            if std::mem::replace(&mut self.seen[cluster as usize], self.walks) == self.walks {
                continue;
            }
            loss = loss.saturating_add(planner.cost[cluster as usize]);
            for &operand in flow.operands.get(cluster as usize) {
                if !self.at_hand[operand as usize] {
                    push(&mut self.ahead, flow.producer[operand as usize])?;
                }
            }
        }
        Ok(loss)
    }
}
