//! Cells → schedule.
//!
//! Each pass in order, up the tape in even passes and down in odd ones; inside a stretch of one cell, clusters
//! in their own order. Before a cluster, operands that are not at hand are recomputed by a depth-first walk in
//! post-order and remembered until the visit of their cell ends. What is stored and when it is freed follows
//! from a walk backwards over the computes: stored if used before the next computation, freed after the last use.

use ckad_graph::NodeId;

use crate::liveness::Flow;
use crate::policy::Material;
use crate::policy::cells::{Cells, ROOT};
use crate::schedule::{Action, ClusterId, Schedule};

pub(crate) fn emit(material: &Material<'_>, cells: &Cells) -> Schedule {
    let places = places(material, cells);
    let scopes = scopes(material, cells, &places.cell);
    let mut writer = Writer::new(&material.flow, cells, &scopes);
    for &cluster in &places.order {
        writer.move_to(places.cell[cluster as usize]);
        writer.compute(cluster);
    }
    writer.finish(material)
}

/// When and where each cluster is first computed.
struct Places {
    order: Vec<u32>,
    cell: Vec<u32>,
}

fn places(material: &Material<'_>, cells: &Cells) -> Places {
    let (flow, positions) = (&material.flow, &material.positions);
    let clusters = material.clustering.clusters.len();
    if cells.is_whole() {
        return Places { order: (0..clusters as u32).collect(), cell: vec![ROOT; clusters] };
    }
    // Stretches of positions with one innermost cell, numbered up the tape.
    let mut stretch_of = Vec::with_capacity(positions.count);
    let mut cell_of = Vec::new();
    for &cell in cells.innermost() {
        if cell_of.last() != Some(&cell) {
            cell_of.push(cell);
        }
        stretch_of.push(cell_of.len() as u64 - 1);
    }
    let stretches = cell_of.len() as u64;
    let mut keys: Vec<u64> = Vec::with_capacity(clusters);
    for cluster in 0..clusters {
        let pass = u64::from(positions.pass[cluster]);
        let stretch = stretch_of[positions.of[cluster] as usize];
        let up = pass % 2 == 0;
        let own = pass * stretches + if up { stretch } else { stretches - 1 - stretch };
        // Whatever the attributes say, a cluster follows what it needs.
        let needs = flow.operands.get(cluster).iter();
        let after = needs.map(|&operand| keys[flow.producer[operand as usize] as usize]).max();
        keys.push(own.max(after.unwrap_or(0)));
    }
    let cell = keys
        .iter()
        .map(|key| {
            let (pass, stretch) = (key / stretches, key % stretches);
            cell_of[if pass % 2 == 0 { stretch } else { stretches - 1 - stretch } as usize]
        })
        .collect();
    let mut order: Vec<u32> = (0..clusters as u32).collect();
    order.sort_by_key(|&cluster| keys[cluster as usize]);
    Places { order, cell }
}

/// For each value the cell it belongs to; the root for what is kept.
fn scopes(material: &Material<'_>, cells: &Cells, cell: &[u32]) -> Vec<u32> {
    let flow = &material.flow;
    let mut scopes = vec![ROOT; flow.producer.len()];
    if cells.is_whole() {
        return scopes;
    }
    for value in flow.values().map(NodeId::index) {
        if !flow.output[value] && !material.pinned[value] {
            let start = cell[flow.producer[value] as usize];
            let users = flow.users.get(value).iter();
            scopes[value] = users.fold(start, |scope, &user| cells.common(scope, cell[user as usize]));
        }
    }
    scopes
}

/// A compute before it is known which results are needed: those not at hand, as a range of `made`.
struct Computed {
    cluster: u32,
    end: usize,
}

/// An open cell and what is forgotten when its visit ends.
struct Open {
    cell: u32,
    remembered: Vec<u32>,
}

struct Writer<'a> {
    flow: &'a Flow,
    cells: &'a Cells,
    scopes: &'a [u32],
    at_hand: Vec<bool>,
    open: Vec<Open>,
    computed: Vec<Computed>,
    made: Vec<u32>,
    /// Clusters under way, with the number of their operands that are at hand.
    walk: Vec<(u32, usize)>,
}

impl<'a> Writer<'a> {
    fn new(flow: &'a Flow, cells: &'a Cells, scopes: &'a [u32]) -> Writer<'a> {
        Writer {
            flow,
            cells,
            scopes,
            at_hand: vec![false; flow.producer.len()],
            open: vec![Open { cell: ROOT, remembered: Vec::new() }],
            computed: Vec::with_capacity(flow.flops.len()),
            made: Vec::with_capacity(flow.flops.len()),
            walk: Vec::new(),
        }
    }

    /// Ends the visits of cells that do not cover `cell`, and begins that of `cell`.
    fn move_to(&mut self, cell: u32) {
        while self.open.len() > 1 {
            let Some(last) = self.open.pop_if(|open| !self.cells.covers(open.cell, cell)) else { break };
            for value in last.remembered {
                self.at_hand[value as usize] = false;
            }
        }
        let innermost = self.open.last().map_or(ROOT, |open| open.cell);
        let at = self.open.len();
        let mut next = cell;
        while next != innermost {
            self.open.insert(at, Open { cell: next, remembered: Vec::new() });
            next = self.cells.parent(next);
        }
    }

    /// Computes the cluster after what it needs and lacks.
    fn compute(&mut self, cluster: u32) {
        let results = self.flow.results.get(cluster as usize);
        if results.iter().all(|&result| self.at_hand[result as usize]) {
            return;
        }
        self.walk.push((cluster, 0));
        while let Some((cluster, next)) = self.walk.last_mut() {
            let operands = self.flow.operands.get(*cluster as usize);
            if let Some(&operand) = operands.get(*next) {
                if self.at_hand[operand as usize] {
                    *next += 1;
                } else {
                    self.walk.push((self.flow.producer[operand as usize], 0));
                }
            } else {
                let cluster = *cluster;
                self.walk.pop();
                self.record(cluster);
            }
        }
    }

    fn record(&mut self, cluster: u32) {
        for &result in self.flow.results.get(cluster as usize) {
            if std::mem::replace(&mut self.at_hand[result as usize], true) {
                continue;
            }
            self.made.push(result);
            let scope = self.scopes[result as usize];
            if scope == ROOT {
                continue;
            }
            // The innermost open cell around the value's own; that is its own in a visit of it.
            if let Some(open) = self.open.iter_mut().rev().find(|open| self.cells.covers(open.cell, scope)) {
                open.remembered.push(result);
            }
        }
        self.computed.push(Computed { cluster, end: self.made.len() });
    }

    fn finish(self, material: &Material<'_>) -> Schedule {
        let mut live = self.flow.output.clone();
        let mut actions = Vec::with_capacity(self.computed.len() + self.made.len());
        let mut stores: Vec<Vec<NodeId>> = Vec::with_capacity(self.computed.len() + self.made.len());
        for index in (0..self.computed.len()).rev() {
            let start = index.checked_sub(1).map_or(0, |before| self.computed[before].end);
            let Computed { cluster, end } = self.computed[index];
            let made = self.made[start..end].iter().copied();
            let stored: Vec<NodeId> =
                made.filter(|&value| std::mem::take(&mut live[value as usize])).map(NodeId).collect();
            if stored.is_empty() {
                continue;
            }
            for &operand in self.flow.operands.get(cluster as usize) {
                if !std::mem::replace(&mut live[operand as usize], true) {
                    actions.push(Action::Free(NodeId(operand)));
                    stores.push(Vec::new());
                }
            }
            actions.push(Action::Compute(ClusterId(cluster)));
            stores.push(stored);
        }
        actions.reverse();
        stores.reverse();
        Schedule { clustering: material.clustering.clone(), actions, stores }
    }
}
