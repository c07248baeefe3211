//! The target's limits on a fused kernel, checked exactly once groups are complete.

use ckad_graph::{Graph, NodeId, Op, Result};

use crate::cluster::{Group, Grouping};
use crate::liveness::NONE;
use crate::schedule::ClusterKind;
use crate::tables::filled;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most loads and stores together.
    pub(crate) operands: usize,
    /// Most tile registers.
    pub(crate) registers: usize,
}

/// The group's members in pieces that each respect the limits (a single node always does); `None` where one kernel
/// holds all.
pub(crate) fn split<'g>(grouping: &Grouping<'_>, group: &'g Group) -> Option<Vec<&'g [NodeId]>> {
    let (graph, limits, computed) = (grouping.graph, grouping.limits, group.members.len());
    // If every member was stored and every load lived to the end.
    let in_memory = group.loads.iter().filter(|&&load| is_in_memory(graph, load)).count();
    let loads = group.loads.len() + usize::from(reads_its_place(graph, &group.members));
    let fits = in_memory + computed <= limits.operands && loads + computed <= limits.registers;
    if group.kind == ClusterKind::Single || computed == 1 || fits {
        return None;
    }
    let (stores, registers) = at_most(grouping, &group.members);
    let fits = in_memory + stores <= limits.operands && loads + registers <= limits.registers;
    if fits || respects_limits(grouping, &group.members) {
        return None;
    }
    let mut pieces = Vec::new();
    let (front, back) = group.members.split_at(computed / 2);
    let mut waiting: Vec<&[NodeId]> = vec![back, front];
    while let Some(piece) = waiting.pop() {
        if piece.len() <= 1 || respects_limits(grouping, piece) {
            pieces.push(piece);
        } else {
            let (front, back) = piece.split_at(piece.len() / 2);
            waiting.extend([back, front]);
        }
    }
    Some(pieces)
}

/// A quick estimate of how many of a group's members are stored, and of the registers that they take at once: at least
/// what [`fits_one_kernel`] finds.
fn at_most(grouping: &Grouping<'_>, members: &[NodeId]) -> (usize, usize) {
    let Some(home) = members.last().map(|root| grouping.home[root.index()]) else { return (0, 0) };
    // A value that only the next member reads is gone after it: of those there are two at once.
    let (mut stores, mut lasting) = (0, 2);
    let next = members[1..].iter().map(Some).chain([None]);
    for (&member, next) in members.iter().zip(next) {
        let users = grouping.users.get(member.index());
        let outside = |&user: &u32| grouping.home[(user >> 1) as usize] != home;
        let stored = grouping.is_output[member.index()] || users.iter().any(outside);
        let passes_on = matches!((users, next), (&[user], Some(next)) if user >> 1 == next.0);
        stores += usize::from(stored);
        lasting += usize::from(stored || !passes_on);
    }
    (stores, lasting)
}

/// Whether one kernel can compute these members, the last of which is at home there, and store what others read.
pub(crate) fn respects_limits(grouping: &Grouping<'_>, members: &[NodeId]) -> bool {
    // What is rebuilt here has its home, and so its store, elsewhere.
    let home = members.last().map(|root| grouping.home[root.index()]);
    fits_one_kernel(grouping, members, |other| Some(other) == home)
}

/// Whether one kernel can compute these members and store those that others read and whose home is here.
///
/// Registers are counted for a kernel that makes all loads first and all stores last; an instruction's result
/// is never one of its operands' registers.
pub(crate) fn fits_one_kernel(grouping: &Grouping<'_>, members: &[NodeId], is_here: impl Fn(u32) -> bool) -> bool {
    grouping.scratch.borrow_mut().fits(grouping, members, is_here)
}

/// Tables that one check after another uses.
pub(crate) struct Scratch {
    /// By node, its place among the members or loads of the group at hand: loads come after the members.
    place: Vec<u32>,
    loads: Vec<NodeId>,
    /// By place, the last instruction that reads it.
    last_use: Vec<u32>,
    /// By instruction, by how many registers more are taken from then on.
    change: Vec<i32>,
}

impl Scratch {
    pub(crate) fn new(nodes: usize) -> Result<Scratch> {
        let place = filled(NONE, nodes)?;
        Ok(Scratch { place, loads: Vec::new(), last_use: Vec::new(), change: Vec::new() })
    }

    fn fits(&mut self, grouping: &Grouping<'_>, members: &[NodeId], is_here: impl Fn(u32) -> bool) -> bool {
        let graph = grouping.graph;
        let end = members.len() as u32;
        self.last_use.clear();
        for (&member, place) in members.iter().zip(0..) {
            self.place[member.index()] = place;
            self.last_use.push(place);
        }
        let mut in_memory = 0;
        for (&member, index) in members.iter().zip(0..) {
            for &operand in graph.operands(member) {
                let place = &mut self.place[operand.index()];
                if *place == NONE {
                    *place = end + self.loads.len() as u32;
                    self.loads.push(operand);
                    self.last_use.push(index);
                    in_memory += usize::from(is_in_memory(graph, operand));
                } else {
                    self.last_use[*place as usize] = index;
                }
            }
        }
        let mut stores = 0;
        for (index, &member) in members.iter().enumerate() {
            if is_here(grouping.home[member.index()]) {
                let read_outside = |&user: &u32| self.place[(user >> 1) as usize] >= end;
                let users = grouping.users.get(member.index());
                if grouping.is_output[member.index()] || users.iter().any(read_outside) {
                    stores += 1;
                    self.last_use[index] = end;
                }
            }
        }
        for node in members.iter().copied().chain(self.loads.drain(..)) {
            self.place[node.index()] = NONE;
        }
        in_memory + stores <= grouping.limits.operands
            && self.most_registers(members.len()) + usize::from(reads_its_place(graph, members))
                <= grouping.limits.registers
    }

    /// The most registers taken at once: members' from their instruction on, loads' from the start.
    fn most_registers(&mut self, members: usize) -> usize {
        self.change.clear();
        self.change.resize(members + 2, 0);
        for (place, &last) in self.last_use.iter().enumerate() {
            self.change[if place < members { place } else { 0 }] += 1;
            self.change[last as usize + 1] -= 1;
        }
        let mut live = 0;
        let counts = self.change.iter().map(|change| {
            live += change;
            live
        });
        counts.max().unwrap_or(0) as usize
    }
}

/// Whether a kernel of these members has a register for the place of each element, which no node stands for.
fn reads_its_place(graph: &Graph, members: &[NodeId]) -> bool {
    members.iter().any(|&member| graph.op(member) == Op::RandomBits)
}

/// Scalars come with the run and take no operand.
fn is_in_memory(graph: &Graph, load: NodeId) -> bool {
    !matches!(graph.op(load), Op::Literal(_) | Op::Scalar(_))
}
