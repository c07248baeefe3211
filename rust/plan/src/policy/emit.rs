//! Cells → what is computed in which order.
//!
//! Each pass in order, up the tape in even passes and down in odd ones; inside a stretch of one cell, clusters
//! in their own order. Before a cluster, operands that are not at hand are recomputed by a depth-first walk in
//! post-order and remembered until the visit of their cell ends. Where the walk leads into a cell that is not
//! being visited (what leaves an inner region is needed in the cell around it), it also computes whatever else leaves
//! that cell, and forgets the inside at once: a cell is recomputed at most once in each visit of each cell around it,
//! and once in its own. What is stored and when it is freed follows from the [`Sequence`].

use ckad_graph::{NodeId, Result, interrupt};

use crate::liveness::{Flow, Lists};
use crate::policy::Material;
use crate::policy::cells::{Cells, ROOT};
use crate::policy::sequence::Sequence;
use crate::tables::{collected, filled, push, room};

pub(crate) fn emit(material: &Material<'_>, cells: &Cells) -> Result<Sequence> {
    let places = places(material, cells)?;
    let scopes = scopes(material, cells, &places.cell)?;
    let leaving = leaving(material, cells, &places.cell, &scopes)?;
    let mut writer = Writer::new(&material.flow, cells, &places.cell, &scopes, leaving)?;
    for (index, &cluster) in places.order.iter().enumerate() {
        interrupt::check_at(index)?;
        writer.move_to(places.cell[cluster as usize]);
        writer.compute(cluster)?;
    }
    Ok(writer.sequence)
}

/// How often a cluster may be computed again: in each pass but the first once for each cell around it.
pub(crate) fn repeats(material: &Material<'_>, cells: &Cells) -> u64 {
    u64::from(material.flow.passes - 1) * u64::from(cells.deepest())
}

/// When and where each cluster is first computed.
struct Places {
    order: Vec<u32>,
    cell: Vec<u32>,
}

fn places(material: &Material<'_>, cells: &Cells) -> Result<Places> {
    let (flow, positions) = (&material.flow, &material.positions);
    let clusters = material.clustering.clusters.len();
    if cells.is_whole() {
        return Ok(Places { order: collected(0..clusters as u32)?, cell: filled(ROOT, clusters)? });
    }
    // Stretches of positions with one innermost cell, numbered up the tape.
    let mut stretch_of = room(positions.count)?;
    let mut cell_of = Vec::new();
    for &cell in cells.innermost() {
        if cell_of.last() != Some(&cell) {
            push(&mut cell_of, cell)?;
        }
        stretch_of.push(cell_of.len() as u64 - 1);
    }
    let stretches = cell_of.len() as u64;
    let mut keys: Vec<u64> = room(clusters)?;
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
    let cell = collected(keys.iter().map(|key| {
        let (pass, stretch) = (key / stretches, key % stretches);
        cell_of[if pass % 2 == 0 { stretch } else { stretches - 1 - stretch } as usize]
    }))?;
    let mut order: Vec<u32> = collected(0..clusters as u32)?;
    order.sort_unstable_by_key(|&cluster| (keys[cluster as usize], cluster));
    Ok(Places { order, cell })
}

/// For each value the cell it belongs to; the root for what is kept.
fn scopes(material: &Material<'_>, cells: &Cells, cell: &[u32]) -> Result<Vec<u32>> {
    let flow = &material.flow;
    let mut scopes = filled(ROOT, flow.producer.len())?;
    if cells.is_whole() {
        return Ok(scopes);
    }
    for value in flow.values().map(NodeId::index) {
        if !flow.output[value] && !material.pinned[value] {
            let start = cell[flow.producer[value] as usize];
            let users = flow.users.get(value).iter();
            scopes[value] = users.fold(start, |scope, &user| cells.common(scope, cell[user as usize]));
        }
    }
    Ok(scopes)
}

/// For each cell, the values computed inside that belong to a cell around it other than the root.
fn leaving(material: &Material<'_>, cells: &Cells, cell: &[u32], scopes: &[u32]) -> Result<Lists> {
    let mut pairs = Vec::new();
    if cells.is_nested() {
        for value in material.flow.values() {
            let scope = scopes[value.index()];
            let mut inner = cell[material.flow.producer[value.index()] as usize];
            while scope != ROOT && inner != scope {
                push(&mut pairs, (inner, value.0))?;
                inner = cells.parent(inner);
            }
        }
    }
    Lists::group(cells.len(), pairs.iter().copied())
}

/// An open cell and what is forgotten when its visit ends.
struct Open {
    cell: u32,
    remembered: Vec<u32>,
}

struct Writer<'a> {
    flow: &'a Flow,
    cells: &'a Cells,
    /// The cell of each cluster, of each value, and what leaves each cell.
    cell: &'a [u32],
    scopes: &'a [u32],
    leaving: Lists,
    at_hand: Vec<bool>,
    was_made: Vec<bool>,
    open: Vec<Open>,
    sequence: Sequence,
    /// Clusters under way, with the number of their operands that are at hand.
    walk: Vec<(u32, usize)>,
    /// Values computed by the present walk whose cell is not visited, and the cells that it led into.
    inside: Vec<u32>,
    led_into: Vec<u32>,
    is_entered: Vec<bool>,
}

impl<'a> Writer<'a> {
    fn new(flow: &'a Flow, cells: &'a Cells, cell: &'a [u32], scopes: &'a [u32], leaving: Lists) -> Result<Writer<'a>> {
        Ok(Writer {
            flow,
            cells,
            cell,
            scopes,
            leaving,
            at_hand: filled(false, flow.producer.len())?,
            was_made: filled(false, flow.producer.len())?,
            open: vec![Open { cell: ROOT, remembered: Vec::new() }],
            sequence: Sequence::new(flow.flops.len())?,
            walk: Vec::new(),
            inside: Vec::new(),
            led_into: Vec::new(),
            is_entered: filled(false, cells.len())?,
        })
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
    fn compute(&mut self, cluster: u32) -> Result<()> {
        self.walk_from(cluster)?;
        // Grows while the walks that it causes lead into further cells.
        let mut next = 0;
        while let Some(&cell) = self.led_into.get(next) {
            next += 1;
            for index in 0..self.leaving.get(cell as usize).len() {
                let value = self.leaving.get(cell as usize)[index];
                // What no visit has computed yet has its own time.
                let missing = self.was_made[value as usize] && !self.at_hand[value as usize];
                if missing && self.is_open(self.scopes[value as usize]) {
                    self.walk_from(self.flow.producer[value as usize])?;
                }
            }
        }
        for cell in self.led_into.drain(..) {
            self.is_entered[cell as usize] = false;
        }
        for value in self.inside.drain(..) {
            self.at_hand[value as usize] = false;
        }
        Ok(())
    }

    fn walk_from(&mut self, cluster: u32) -> Result<()> {
        let results = self.flow.results.get(cluster as usize);
        if results.iter().all(|&result| self.at_hand[result as usize]) {
            return Ok(());
        }
        push(&mut self.walk, (cluster, 0))?;
        while let Some((cluster, next)) = self.walk.last_mut() {
            let operands = self.flow.operands.get(*cluster as usize);
            if let Some(&operand) = operands.get(*next) {
                if self.at_hand[operand as usize] {
                    *next += 1;
                } else {
                    push(&mut self.walk, (self.flow.producer[operand as usize], 0))?;
                }
            } else {
                let cluster = *cluster;
                self.walk.pop();
                self.record(cluster)?;
            }
        }
        Ok(())
    }

    fn is_open(&self, cell: u32) -> bool {
        self.open.iter().any(|open| open.cell == cell)
    }

    fn record(&mut self, cluster: u32) -> Result<()> {
        let own = self.cell[cluster as usize];
        if self.cells.is_nested() && !self.is_entered[own as usize] && !self.is_open(own) {
            self.is_entered[own as usize] = true;
            self.led_into.push(own);
        }
        for &result in self.flow.results.get(cluster as usize) {
            if std::mem::replace(&mut self.at_hand[result as usize], true) {
                continue;
            }
            self.was_made[result as usize] = true;
            self.sequence.make(result)?;
            let scope = self.scopes[result as usize];
            if scope == ROOT {
                continue;
            }
            match self.open.iter_mut().rev().find(|open| open.cell == scope) {
                Some(open) => push(&mut open.remembered, result)?,
                None => push(&mut self.inside, result)?,
            }
        }
        self.sequence.end(cluster)
    }
}
