//! A policy of the user's own: somebody outside of this crate who is shown the clusters and answers what to keep.
//!
//! What is shown and what is answered are plain data. An answer says one of three things: where borders of segments
//! lie, which values are kept, or in which order clusters are computed, again where they stand there again. Nothing in
//! it is trusted: it is refused with the first thing that is wrong in it, and what it makes is played by the simulator
//! like every schedule.

use std::sync::{Arc, Mutex, PoisonError};

use ckad_graph::{Error, NodeId, Result, interrupt};

use crate::liveness::Lists;
use crate::policy::cells::{Cells, ROOT};
use crate::policy::sequence::Sequence;
use crate::policy::{Attempt, Material};
use crate::tables::{collected, filled, push};

/// The clusters of a graph in their order, and the values between them, both as numbers from 0 on.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// For each cluster: operations of one run, pass, position on the tape, source line.
    pub flops: Vec<u64>,
    pub pass: Vec<u16>,
    pub position: Vec<u32>,
    pub line: Vec<u32>,
    /// For each cluster, the values that it needs, and those that it makes.
    pub operands: Lists,
    pub results: Lists,
    /// For each value: bytes, the cluster that makes it, the clusters that need it.
    pub bytes: Vec<u64>,
    pub producer: Vec<u32>,
    pub users: Lists,
    /// For each value, whether it is returned; whether it is kept whatever the policy.
    pub output: Vec<bool>,
    pub pinned: Vec<bool>,
    /// Number of different positions.
    pub positions: usize,
}

/// What a policy answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Positions at which segments begin: what crosses none of them is recomputed.
    Borders(Vec<i64>),
    /// Values that are kept until their last use. Others are computed at most once in each pass.
    Keep(Vec<i64>),
    /// Clusters in the order in which they are computed.
    Compute(Vec<i64>),
}

/// Who is asked.
pub trait Chooser: Send + Sync {
    /// For errors and notes.
    fn name(&self) -> String;
    fn choose(&self, shown: &Shown) -> Result<Answer>;
}

/// The most policies that a process may know.
const MOST: usize = 1 << 12;

static KNOWN: Mutex<Vec<Arc<dyn Chooser>>> = Mutex::new(Vec::new());

/// Makes a policy known for as long as the process lives: programs are found again by its number.
pub fn register(chooser: Arc<dyn Chooser>) -> Result<u32> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MOST {
        return Err(Error::value("checkpoint", format!("more than {MOST} different policy objects in one process"))
            .with_hint("use one object again, or give its class __eq__ and __hash__, as a frozen dataclass has"));
    }
    push(&mut known, chooser)?;
    Ok(known.len() as u32 - 1)
}

fn known(number: u32) -> Result<Arc<dyn Chooser>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.get(number as usize).map(Arc::clone);
    found.ok_or_else(|| Error::internal("checkpoint", format!("policy {number} is not known")))
}

/// What that policy makes of the graph.
pub(super) fn attempt(material: &Material<'_>, number: u32) -> Result<Attempt> {
    let chooser = known(number)?;
    let values: Vec<u32> = collected(material.flow.values().map(|value| value.0))?;
    let shown = shown(material, &values)?;
    let name = chooser.name();
    let answer = Checked { material, shown: &shown, values: &values, name: &name };
    match chooser.choose(&shown)? {
        Answer::Borders(borders) => answer.borders(&borders),
        Answer::Keep(kept) => answer.keep(&kept),
        Answer::Compute(clusters) => answer.compute(&clusters),
    }
}

fn shown(material: &Material<'_>, values: &[u32]) -> Result<Shown> {
    let (graph, flow) = (material.graph, &material.flow);
    let mut number = filled(0u32, flow.producer.len())?;
    for (index, &value) in values.iter().enumerate() {
        number[value as usize] = index as u32;
    }
    let clusters = flow.flops.len();
    let renamed = |lists: &Lists| {
        let each = (0..clusters as u32).flat_map(|list| lists.get(list as usize).iter().map(move |&item| (list, item)));
        Lists::group(clusters, each.map(|(list, value)| (list, number[value as usize])))
    };
    let users = values
        .iter()
        .zip(0u32..)
        .flat_map(|(&value, list)| flow.users.get(value as usize).iter().map(move |&user| (list, user)));
    let line =
        |cluster: &crate::schedule::Cluster| cluster.members.last().map_or(0, |&root| graph.attributes(root).line);
    Ok(Shown {
        flops: collected(flow.flops.iter().copied())?,
        pass: collected(material.positions.pass.iter().copied())?,
        position: collected(material.positions.of.iter().copied())?,
        line: collected(material.clustering.clusters.iter().map(line))?,
        operands: renamed(&flow.operands)?,
        results: renamed(&flow.results)?,
        bytes: collected(values.iter().map(|&value| graph.bytes(NodeId(value)) as u64))?,
        producer: collected(values.iter().map(|&value| flow.producer[value as usize]))?,
        users: Lists::group(values.len(), users)?,
        output: collected(values.iter().map(|&value| flow.output[value as usize]))?,
        pinned: collected(values.iter().map(|&value| material.pinned[value as usize]))?,
        positions: material.positions.count,
    })
}

/// An answer that is being read.
struct Checked<'a> {
    material: &'a Material<'a>,
    shown: &'a Shown,
    /// The node of each value.
    values: &'a [u32],
    name: &'a str,
}

impl Checked<'_> {
    fn refused(&self, what: &str, hint: &str) -> Error {
        Error::value("checkpoint", format!("the policy {} answered {what}", self.name)).with_hint(hint)
    }

    /// The number as an index below `count`.
    fn index(&self, number: i64, count: usize, key: &str, what: &str) -> Result<usize> {
        usize::try_from(number).ok().filter(|&index| index < count).ok_or_else(|| {
            let hint = format!("{what}s are numbered from 0 to {}", count as i64 - 1);
            self.refused(&format!("{{'{key}': […, {number}, …]}}: there is no {what} {number}"), &hint)
        })
    }

    fn borders(&self, borders: &[i64]) -> Result<Attempt> {
        let count = self.shown.positions;
        let mut starts: Vec<usize> = Vec::new();
        for &border in borders {
            push(&mut starts, self.index(border, count, "borders", "position")?)?;
        }
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|&start| start > 0);
        let mut cells = Cells::whole(count)?;
        if !starts.is_empty() {
            push(&mut starts, count)?;
            let mut start = 0;
            for end in starts {
                let cell = cells.add(ROOT)?;
                cells.paint(start, end, cell);
                start = end;
            }
        }
        self.material.attempt(&cells)
    }

    /// Each pass in the order of the clusters; what is not kept is forgotten between them, and made again on demand.
    fn keep(&self, kept: &[i64]) -> Result<Attempt> {
        let flow = &self.material.flow;
        let mut stays = filled(false, flow.producer.len())?;
        for value in flow.values().map(NodeId::index) {
            stays[value] = flow.output[value] || self.material.pinned[value];
        }
        for &value in kept {
            let value = self.index(value, self.values.len(), "keep", "value")?;
            stays[self.values[value] as usize] = true;
        }
        let mut at_hand = filled(false, flow.producer.len())?;
        let mut passing: Vec<u32> = Vec::new();
        let mut sequence = Sequence::new(flow.flops.len())?;
        let mut walk: Vec<(u32, usize)> = Vec::new();
        let (mut pass, mut segments) = (0, 1);
        for cluster in 0..flow.flops.len() as u32 {
            interrupt::check_at(cluster as usize)?;
            if self.shown.pass[cluster as usize] > pass {
                pass = self.shown.pass[cluster as usize];
                segments += usize::from(!passing.is_empty());
                for value in passing.drain(..) {
                    at_hand[value as usize] = false;
                }
            }
            push(&mut walk, (cluster, 0))?;
            while let Some((cluster, next)) = walk.last_mut() {
                if let Some(&operand) = flow.operands.get(*cluster as usize).get(*next) {
                    if at_hand[operand as usize] {
                        *next += 1;
                    } else {
                        push(&mut walk, (flow.producer[operand as usize], 0))?;
                    }
                    continue;
                }
                let cluster = *cluster;
                walk.pop();
                for &result in flow.results.get(cluster as usize) {
                    if std::mem::replace(&mut at_hand[result as usize], true) {
                        continue;
                    }
                    sequence.make(result)?;
                    if !stays[result as usize] {
                        push(&mut passing, result)?;
                    }
                }
                sequence.end(cluster)?;
            }
        }
        self.material.played(sequence, segments, u64::from(flow.passes))
    }

    fn compute(&self, clusters: &[i64]) -> Result<Attempt> {
        let flow = &self.material.flow;
        let mut was_made = filled(false, flow.producer.len())?;
        let mut runs = filled(0u64, flow.flops.len())?;
        let mut sequence = Sequence::new(clusters.len())?;
        for (place, &cluster) in clusters.iter().enumerate() {
            interrupt::check_at(place)?;
            let cluster = self.index(cluster, flow.flops.len(), "compute", "cluster")?;
            let missing = flow.operands.get(cluster).iter().find(|&&operand| !was_made[operand as usize]);
            if let Some(&operand) = missing {
                let producer = flow.producer[operand as usize];
                let what = format!(
                    "{{'compute': …}} in which cluster {cluster} stands at place {place}, before cluster {producer} \
                     whose result it needs"
                );
                return Err(self.refused(&what, "a cluster stands behind those that make its operands"));
            }
            for &result in flow.results.get(cluster) {
                let stays = flow.output[result as usize] || self.material.pinned[result as usize];
                // What stays is made once.
                if !std::mem::replace(&mut was_made[result as usize], true) || !stays {
                    sequence.make(result)?;
                }
            }
            runs[cluster] += 1;
            sequence.end(cluster as u32)?;
        }
        let output = flow.values().find(|value| flow.output[value.index()] && !was_made[value.index()]);
        if let Some(output) = output {
            let producer = flow.producer[output.index()];
            let what = format!("{{'compute': …}} without cluster {producer}, which makes a value that is returned");
            return Err(self.refused(&what, "what is returned has output[value] True; compute producer[value]"));
        }
        self.material.played(sequence, 1, runs.iter().max().copied().unwrap_or(1))
    }
}
