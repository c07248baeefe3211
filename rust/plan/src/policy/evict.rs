//! Eviction: a program within a budget for graphs that are no chains.
//!
//! The clusters run in the graph's own order. Where the next result does not fit into the budget, the value goes whose
//! loss costs least: the operations that make it again, those of its ancestors that are gone included, for each
//! byte, and the less the later it is used next. What is needed and gone is made again by a depth-first walk. It is
//! dynamic tensor rematerialisation (Kirisame et al. 2021) with the future known: what is never used again goes
//! first, and distances to the next use take the place of ages.
//!
//! Each eviction looks at all values that are live, so this is for graphs of up to [`MOST_CLUSTERS`].

use ckad_graph::{NodeId, Result, interrupt};

use crate::policy::Material;
use crate::policy::emit::Sequence;
use crate::schedule::{ClusterKind, Schedule};
use crate::tables::{collected, filled, push};

/// The most clusters of a graph that is planned so.
pub(crate) const MOST_CLUSTERS: usize = 1000;

/// So many budgets that are given up one after the other, and smaller ones are not tried.
pub(crate) const FAILURES: usize = 2;

/// Clusters of all attempts together.
const CLUSTERS_TRIED: usize = 20_000;

/// So many times as many computes as clusters, and a budget is given up.
const MOST_RUNS: usize = 8;

/// The same of operations: so many times those of all clusters once, beyond them.
const MOST_REPEATS: u64 = 2;

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
        let base = collected(material.clustering.clusters.iter().map(|cluster| {
            let root = *cluster.members.last()?;
            let (&base, others) = graph.operands(root).split_first()?;
            let overwrites = cluster.kind == ClusterKind::Single && graph.op(root).overwrites_base();
            (overwrites && !graph.op(base).is_leaf() && !others.contains(&base)).then_some(base)
        }))?;
        Ok(Evictions { material, cost, bytes, base })
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
        let steps = (CLUSTERS_TRIED / (WEIGHTS.len() * self.material.flow.flops.len().max(1))).clamp(4, 40) as u64;
        (0..steps)
            .rev()
            .map(move |step| least + (u128::from(most - least) * u128::from(step) / u128::from(steps)) as u64)
    }

    /// The program of these evictions; `None` where the budget is too small for them.
    pub(crate) fn schedule(&self, eviction: Eviction) -> Result<Option<Schedule>> {
        let clusters = self.material.flow.flops.len();
        let mut run = Run::new(self, eviction)?;
        for cluster in 0..clusters as u32 {
            if !run.compute(cluster)? {
                return Ok(None);
            }
            run.pass(cluster);
        }
        run.sequence.schedule(self.material, MOST_REPEATS).map(Some)
    }
}

/// One run over the clusters.
struct Run<'a> {
    planner: &'a Evictions<'a>,
    eviction: Eviction,
    /// The cluster that is due in the graph's own order.
    now: u32,
    at_hand: Vec<bool>,
    /// Values that may be evicted, in any order.
    live: Vec<u32>,
    used: u64,
    /// For each value, how many computes under way need it.
    locks: Vec<u32>,
    /// For each value, how many of its users are done.
    done: Vec<u32>,
    sequence: Sequence,
    extra: u64,
    most_extra: u64,
    was_run: Vec<bool>,
    /// Clusters under way, with the number of their operands that are at hand and locked.
    walk: Vec<(u32, usize)>,
    /// For `loss`: clusters to look at, and when each was last seen.
    waiting: Vec<u32>,
    seen: Vec<u64>,
    looks: u64,
}

impl<'a> Run<'a> {
    fn new(planner: &'a Evictions<'a>, eviction: Eviction) -> Result<Run<'a>> {
        let flow = &planner.material.flow;
        let (nodes, clusters) = (flow.producer.len(), flow.flops.len());
        Ok(Run {
            planner,
            eviction,
            now: 0,
            at_hand: filled(false, nodes)?,
            live: Vec::new(),
            used: 0,
            locks: filled(0, nodes)?,
            done: filled(0, nodes)?,
            sequence: Sequence::new(clusters)?,
            extra: 0,
            most_extra: flow.total_flops().saturating_mul(MOST_REPEATS),
            was_run: filled(false, clusters)?,
            walk: Vec::new(),
            waiting: Vec::new(),
            seen: filled(0, clusters)?,
            looks: 0,
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
        if std::mem::replace(&mut self.was_run[index], true) {
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
        }
        for &result in flow.results.get(index) {
            if std::mem::replace(&mut self.at_hand[result as usize], true) {
                continue;
            }
            self.sequence.make(result)?;
            if !flow.output[result as usize] {
                self.used += planner.bytes[result as usize];
                push(&mut self.live, result)?;
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
    fn pass(&mut self, cluster: u32) {
        let flow = &self.planner.material.flow;
        for &operand in flow.operands.get(cluster as usize) {
            self.done[operand as usize] += 1;
        }
        self.now = cluster + 1;
        if self.planner.base[cluster as usize].is_some_and(|base| self.next_use(base.0).is_none()) {
            self.live.retain(|&value| {
                let goes = self.planner.base[cluster as usize] == Some(NodeId(value));
                if goes {
                    self.at_hand[value as usize] = false;
                    self.used -= self.planner.bytes[value as usize];
                }
                !goes
            });
        }
    }

    /// The cluster that uses the value next, in the graph's own order.
    fn next_use(&self, value: u32) -> Option<u32> {
        self.planner.material.flow.users.get(value as usize).get(self.done[value as usize] as usize).copied()
    }

    /// Evicts until so many more bytes keep to the budget; whether that was possible.
    fn make_room(&mut self, bytes: u64) -> Result<bool> {
        while self.used.saturating_add(bytes) > self.eviction.budget {
            interrupt::check()?;
            let Some(place) = self.cheapest()? else { return Ok(false) };
            let value = self.live.swap_remove(place) as usize;
            self.at_hand[value] = false;
            self.used -= self.planner.bytes[value];
        }
        Ok(true)
    }

    /// Where in `live` the value stands whose loss costs least.
    fn cheapest(&mut self) -> Result<Option<usize>> {
        let mut best: Option<(usize, f64)> = None;
        for place in 0..self.live.len() {
            let value = self.live[place] as usize;
            let bytes = self.planner.bytes[value];
            let next = self.next_use(value as u32);
            if self.locks[value] > 0 || bytes == 0 || (self.planner.material.pinned[value] && next.is_some()) {
                continue;
            }
            let distance = next.map(|user| f64::from(user - self.now + 1));
            // What has no use before it could be made again goes first.
            let weight = bytes as f64 * distance.map_or(f64::INFINITY, |distance| self.eviction.weight.of(distance));
            let most = best.map_or(f64::INFINITY, |(_, score)| score * weight);
            if let Some(loss) = self.loss(value, most)? {
                best = Some((place, loss / weight));
                if weight.is_infinite() {
                    break;
                }
            }
        }
        Ok(best.map(|(place, _)| place))
    }

    /// What it costs to make the value again, with those of its ancestors that are gone; `None` if not less than
    /// `most`.
    fn loss(&mut self, value: usize, most: f64) -> Result<Option<f64>> {
        let planner = self.planner;
        let flow = &planner.material.flow;
        self.looks += 1;
        self.waiting.clear();
        push(&mut self.waiting, flow.producer[value])?;
        let mut loss = 0.0;
        while let Some(cluster) = self.waiting.pop() {
            if std::mem::replace(&mut self.seen[cluster as usize], self.looks) == self.looks {
                continue;
            }
            loss += planner.cost[cluster as usize] as f64;
            if loss >= most {
                return Ok(None);
            }
            for &operand in flow.operands.get(cluster as usize) {
                if !self.at_hand[operand as usize] {
                    push(&mut self.waiting, flow.producer[operand as usize])?;
                }
            }
        }
        Ok(Some(loss))
    }
}
