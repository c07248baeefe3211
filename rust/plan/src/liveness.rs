//! Which values flow between clusters: the table that every policy reads.
//!
//! A *value* is a node's array in memory: what some cluster needs and does not compute itself, and what the
//! graph returns. Inner values of a group and views that are resolved to strides are none, leaves neither.

use ckad_graph::{Error, Graph, NodeId, Result, interrupt};

use crate::cost::clustering_flops;
use crate::schedule::Clustering;
use crate::tables::{filled, push, room};

/// Lists of indices, one after the other in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    /// Groups `(list, item)` pairs by list, in the order of the pairs.
    pub fn group(lists: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Result<Lists> {
        let mut counts = Counts::new(lists)?;
        pairs.clone().for_each(|(list, _)| counts.add(list as usize));
        let mut filling = counts.fill()?;
        pairs.for_each(|(list, item)| filling.push(list as usize, item));
        Ok(filling.finish())
    }

    pub fn get(&self, list: usize) -> &[u32] {
        &self.items[self.starts[list] as usize..self.starts[list + 1] as usize]
    }

    /// All items, list after list.
    pub fn into_items(self) -> Vec<u32> {
        self.items
    }

    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Lists whose lengths are being counted.
pub(crate) struct Counts {
    /// The length of list i stands at i + 2, so that the sums are the starts of the lists, at i + 1.
    sums: Vec<u32>,
}

impl Counts {
    pub(crate) fn new(lists: usize) -> Result<Counts> {
        Ok(Counts { sums: filled(0, lists + 2)? })
    }

    pub(crate) fn add(&mut self, list: usize) {
        self.sums[list + 2] += 1;
    }

    /// Counts what one list would have for another.
    pub(crate) fn shift(&mut self, from: usize, to: usize) {
        self.sums[to + 2] += std::mem::take(&mut self.sums[from + 2]);
    }

    pub(crate) fn fill(mut self) -> Result<Filling> {
        let mut sum = 0;
        for entry in &mut self.sums {
            sum += *entry;
            *entry = sum;
        }
        Ok(Filling { next: self.sums, items: filled(0, sum as usize)? })
    }
}

/// Lists of known lengths that are being filled, each as often as it was counted.
pub(crate) struct Filling {
    /// At i + 1 the place of the next item of list i; in the end that is where list i + 1 starts.
    next: Vec<u32>,
    items: Vec<u32>,
}

impl Filling {
    pub(crate) fn push(&mut self, list: usize, item: u32) {
        let place = &mut self.next[list + 1];
        self.items[*place as usize] = item;
        *place += 1;
    }

    pub(crate) fn finish(mut self) -> Lists {
        self.next.pop();
        Lists { starts: self.next, items: self.items }
    }
}

/// No cluster.
pub const NONE: u32 = u32::MAX;

/// Values and their clusters. Nodes and clusters are indices.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// For each cluster, the values it needs.
    pub operands: Lists,
    /// For each cluster, the values that it is the first to compute.
    pub results: Lists,
    /// For each node that is a value, the clusters that need it, ascending.
    pub users: Lists,
    /// For each node that is a value, the first cluster that computes it; `NONE` for other nodes.
    pub producer: Vec<u32>,
    /// For each node, whether the graph returns it.
    pub output: Vec<bool>,
    /// For each cluster, operations of one run.
    pub flops: Vec<u64>,
    /// Number of passes in the graph.
    pub passes: u16,
}

impl Flow {
    pub fn new(graph: &Graph, clustering: &Clustering) -> Result<Flow> {
        let clusters = &clustering.clusters;
        let mut first = filled(NONE, graph.len())?;
        let mut inside = filled(NONE, graph.len())?;
        let mut seen = filled(NONE, graph.len())?;
        let mut needs: Vec<(u32, u32)> = room(2 * clusters.len())?;
        let mut passes = 1;
        for (index, cluster) in clusters.iter().enumerate() {
            interrupt::check_at(index)?;
            let index = index as u32;
            for member in &cluster.members {
                inside[member.index()] = index;
                if first[member.index()] == NONE {
                    first[member.index()] = index;
                }
            }
            for &member in &cluster.members {
                passes = passes.max(graph.attributes(member).pass + 1);
                for &operand in graph.operands(member) {
                    let known = inside[operand.index()] == index || seen[operand.index()] == index;
                    if known || graph.op(operand).is_leaf() {
                        continue;
                    }
                    seen[operand.index()] = index;
                    push(&mut needs, (index, operand.0))?;
                }
            }
        }
        let mut output = filled(false, graph.len())?;
        let mut value = filled(false, graph.len())?;
        for &id in &graph.outputs {
            output[id.index()] = true;
            value[id.index()] = !graph.op(id).is_leaf();
        }
        for &(_, operand) in &needs {
            value[operand as usize] = true;
        }
        let mut producer = filled(NONE, graph.len())?;
        for node in (0..graph.len()).filter(|&node| value[node]) {
            if first[node] == NONE {
                return Err(Error::internal("cluster", format!("no cluster computes %{node}")));
            }
            producer[node] = first[node];
        }
        if let Some((user, operand)) = needs.iter().find(|&&(user, operand)| producer[operand as usize] >= user) {
            let text = format!("cluster {user} needs %{operand}, which it does not follow");
            return Err(Error::internal("cluster", text));
        }
        let made = (0..graph.len() as u32).filter(|&node| producer[node as usize] != NONE);
        let results = Lists::group(clusters.len(), made.map(|node| (producer[node as usize], node)))?;
        let users = Lists::group(graph.len(), needs.iter().map(|&(user, operand)| (operand, user)))?;
        let operands = Lists::group(clusters.len(), needs.iter().copied())?;
        let flops = clustering_flops(graph, clustering)?;
        Ok(Flow { operands, results, users, producer, output, flops, passes })
    }

    /// Values, as nodes.
    pub fn values(&self) -> impl Iterator<Item = NodeId> + '_ {
        (0..self.producer.len() as u32).map(NodeId).filter(|node| self.producer[node.index()] != NONE)
    }

    /// Operations of every cluster once.
    pub fn total_flops(&self) -> u64 {
        self.flops.iter().fold(0, |sum, &flops| sum.saturating_add(flops))
    }
}
