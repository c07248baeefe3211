//! What is computed, in order: a schedule before it is known what is stored of it and when that is freed.
//!
//! Both follow by a walk backwards: stored if used before the next computation, freed after the last use. Planners try
//! many sequences and take few, so what one needs and costs can be had by the same walk without its schedule.

use std::sync::Arc;

use ckad_graph::{NodeId, Result, interrupt};

use crate::policy::Material;
use crate::schedule::{Action, ClusterId, Schedule, Stores};
use crate::simulate::{Simulation, overwritten};
use crate::tables::{collected, filled, push, room};

/// What is computed, in order.
pub(crate) struct Sequence {
    computed: Vec<Computed>,
    made: Vec<u32>,
}

/// One compute and the results that were not at hand, as a range of `made` that ends there.
struct Computed {
    cluster: u32,
    end: usize,
}

impl Sequence {
    pub(crate) fn new(clusters: usize) -> Result<Sequence> {
        Ok(Sequence { computed: room(clusters)?, made: room(clusters)? })
    }

    /// The cluster at hand makes the value too.
    pub(crate) fn make(&mut self, value: u32) -> Result<()> {
        push(&mut self.made, value)
    }

    /// Ends what the cluster makes.
    pub(crate) fn end(&mut self, cluster: u32) -> Result<()> {
        interrupt::check_at(self.computed.len())?;
        push(&mut self.computed, Computed { cluster, end: self.made.len() })
    }

    pub(crate) fn len(&self) -> usize {
        self.computed.len()
    }

    /// How many values were made.
    pub(crate) fn made(&self) -> u32 {
        self.made.len() as u32
    }

    /// Stored is what is used before it is made again, freed after its last use. `repeats` bounds the work.
    pub(crate) fn schedule(self, material: &Material<'_>, repeats: u64) -> Result<Schedule> {
        let mut live = collected(material.flow.output.iter().copied())?;
        let mut actions = room(self.computed.len() + self.made.len())?;
        let mut stores: Vec<Stores> = room(self.computed.len() + self.made.len())?;
        for index in (0..self.computed.len()).rev() {
            let start = index.checked_sub(1).map_or(0, |before| self.computed[before].end);
            let Computed { cluster, end } = self.computed[index];
            let made = self.made[start..end].iter().copied();
            let stored: Stores = made.filter(|&value| std::mem::take(&mut live[value as usize])).map(NodeId).collect();
            if stored.is_empty() {
                continue;
            }
            for &operand in material.flow.operands.get(cluster as usize) {
                if !std::mem::replace(&mut live[operand as usize], true) {
                    push(&mut actions, Action::Free(NodeId(operand)))?;
                    push(&mut stores, Stores::new())?;
                }
            }
            push(&mut actions, Action::Compute(ClusterId(cluster)))?;
            push(&mut stores, stored)?;
        }
        actions.reverse();
        stores.reverse();
        Ok(Schedule { clustering: Arc::clone(&material.clustering), actions, stores, repeats })
    }

    /// What a run of the schedule needs and does: what the simulator will say of it.
    pub(crate) fn figures(&self, material: &Material<'_>) -> Result<Figures> {
        let (graph, flow) = (material.graph, &material.flow);
        let bytes = |value: u32| graph.bytes(NodeId(value)) as u64;
        let mut place = filled(Place::Nowhere, graph.len())?;
        // Bytes live, and those of them that no output has, behind the clusters that the walk has passed.
        let (mut live, mut arena) = (0u64, 0u64);
        for value in flow.values().filter(|value| flow.output[value.index()]) {
            place[value.index()] = Place::Output;
            live += bytes(value.0);
        }
        let returned = graph.outputs.iter().fold(0u64, |sum, &output| sum.saturating_add(graph.bytes(output) as u64));
        let mut figures = Figures { allocated: 0, peak: returned, flops: 0, computes: 0 };
        for index in (0..self.computed.len()).rev() {
            interrupt::check_at(index)?;
            let start = index.checked_sub(1).map_or(0, |before| self.computed[before].end);
            let Computed { cluster, end } = self.computed[index];
            let base = overwritten(graph, &material.clustering.clusters[cluster as usize]);
            // Of the stored results all bytes, those in the arena, and where the last one lies.
            let (mut stored, mut stored_in_arena, mut last) = (0, 0, Place::Nowhere);
            for &value in &self.made[start..end] {
                let was = std::mem::replace(&mut place[value as usize], Place::Nowhere);
                if was == Place::Nowhere {
                    continue;
                }
                last = was;
                stored += bytes(value);
                stored_in_arena += if was == Place::Arena { bytes(value) } else { 0 };
            }
            if last == Place::Nowhere {
                continue;
            }
            let (mut twice, mut twice_in_arena) = (0, 0);
            for &operand in flow.operands.get(cluster as usize) {
                let lies = &mut place[operand as usize];
                if *lies != Place::Nowhere {
                    continue;
                }
                // A base that dies here lies where the one result does, whose bytes are its own.
                let is_taken = base == Some(NodeId(operand));
                *lies = if is_taken { last } else { Place::Arena };
                live += bytes(operand);
                arena += if *lies == Place::Arena { bytes(operand) } else { 0 };
                if is_taken {
                    twice = bytes(operand);
                    twice_in_arena = if *lies == Place::Arena { twice } else { 0 };
                }
            }
            figures.peak = figures.peak.max(live - twice);
            figures.allocated = figures.allocated.max(arena - twice_in_arena);
            figures.flops = figures.flops.saturating_add(flow.flops[cluster as usize]);
            figures.computes += 1;
            live -= stored;
            arena -= stored_in_arena;
        }
        figures.allocated = figures.allocated.saturating_add(returned);
        Ok(figures)
    }
}

/// Where a value lies that the walk backwards has met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Arena,
    /// In the memory of an output, which is there from the start.
    Output,
}

/// What plans are compared by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Figures {
    /// The most bytes of values allocated at once, as the simulator says: joined steps may store fewer.
    pub(crate) allocated: u64,
    /// The most bytes live at once.
    pub(crate) peak: u64,
    pub(crate) flops: u64,
    /// How many clusters are computed, again and again ones included: about as many steps has its program.
    pub(crate) computes: usize,
}

impl Figures {
    /// What counts is what is allocated, but no more may be live than where everything is kept. Of equal figures the
    /// least work.
    pub(crate) fn order(&self, kept_live: u64) -> (bool, u64, u64) {
        (self.peak > kept_live, self.allocated, self.flops)
    }

    /// Of a schedule that the simulator has played.
    pub(crate) fn of(schedule: &Schedule, simulation: &Simulation) -> Figures {
        let &Simulation { allocated, peak, flops, .. } = simulation;
        let computes = schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
        Figures { allocated, peak, flops, computes }
    }
}
