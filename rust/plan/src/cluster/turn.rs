//! Turning points: groups of one pass that join the groups of the next pass which read them.
//!
//! Where the tape turns, the next pass begins with what this one has just computed. One kernel for both reads their
//! common operands once, and what passed between them is never stored. So a group of pass p, with its reduction where
//! it has one, moves into the first group of pass p + 1 that reads it. From then on it belongs to the later pass: a
//! policy sees one cluster there, computes it when that pass comes to it, and recomputes it for still later passes
//! only.
//!
//! * The two iterate over one shape in one region, at nearby positions, and read each other's values from registers.
//! * Nothing that the reader needs may depend on the group otherwise. Small groups that follow from it, such as the
//!   division that makes a mean of a sum, are moved behind the reader.
//! * The operands of the group live on until the reader; that must cost no more bytes than are no longer stored.
//! * One kernel must hold the whole: nothing is split again.
//!
//! The joined group loads less than its parts did. Groups of the later pass that found no room in the reader, and
//! read nothing that comes after it, are then lifted into it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ckad_graph::{NodeId, Result, interrupt};

use crate::cluster::limits::fits_one_kernel;
use crate::cluster::{Grouping, MOST_LATE, MOST_MEMBERS, SMALL};
use crate::liveness::{Lists, NONE};
use crate::schedule::ClusterKind;
use crate::tables::{collected, filled, push, room};

/// Most small groups that move behind one reader.
const MOST_MOVED: usize = 8;

/// A group, the group that it may join, and those that then move behind.
struct Turn {
    group: usize,
    reader: usize,
    moved: Vec<u32>,
}

/// Joins groups, from the last, to their readers in the next pass.
pub(crate) fn join_passes(grouping: &mut Grouping<'_>) -> Result<()> {
    // Groups that stand behind a later one; their index no longer says when they run.
    let mut is_moved = filled(false, grouping.groups.len())?;
    for group in (0..grouping.groups.len()).rev() {
        interrupt::check_at(group)?;
        if is_moved[group] {
            continue;
        }
        if let Some(turn) = turn(grouping, group, &is_moved) {
            for &moved in &turn.moved {
                is_moved[moved as usize] = true;
            }
            join(grouping, &turn);
            lift_readers(grouping, turn.reader, &is_moved);
        }
    }
    if is_moved.contains(&true) { grouping.reorder() } else { Ok(()) }
}

/// The user's group for each use of a group's values by another one: (value, user, group, whether directly).
fn uses<'g>(grouping: &'g Grouping<'_>, group: usize) -> impl Iterator<Item = (NodeId, NodeId, usize, bool)> + 'g {
    let members = grouping.groups[group].members.iter();
    members
        .flat_map(move |&member| {
            let users = grouping.users.get(member.index()).iter();
            users.map(move |&user| {
                let (user, direct) = (NodeId(user >> 1), user & 1 == 1);
                (member, user, grouping.home[user.index()] as usize, direct)
            })
        })
        .filter(move |&(_, _, home, _)| home != group)
}

fn turn(grouping: &Grouping<'_>, group: usize, is_moved: &[bool]) -> Option<Turn> {
    let own = &grouping.groups[group];
    if own.kind == ClusterKind::Single || own.members.is_empty() {
        return None;
    }
    let pass = |home: usize| grouping.groups[home].pass;
    let next = |home: usize| pass(home) == own.pass + 1 && grouping.groups[home].iteration == own.iteration;
    let reader = uses(grouping, group).map(|(_, _, home, _)| home).filter(|&home| next(home)).min()?;
    let other = &grouping.groups[reader];
    let both_reduce = own.kind == ClusterKind::Reduce && other.kind == ClusterKind::Reduce;
    if is_moved[reader] || other.kind == ClusterKind::Single || both_reduce || !grouping.are_near(own, other) {
        return None;
    }
    let in_registers = uses(grouping, group)
        .all(|(member, user, home, direct)| home != reader || (direct && grouping.in_register(user, member)));
    let moved = dependents(grouping, group, reader, is_moved)?;
    let movable = in_registers
        && moved.iter().chain([&(group as u32)]).all(|&home| {
            let loads = &grouping.groups[home as usize].loads;
            loads.iter().all(|&load| grouping.overwritten_at(load).is_none_or(|place| reader < place))
        });
    let turn = Turn { group, reader, moved };
    (movable && saves_bytes(grouping, &turn) && fits(grouping, &turn)).then_some(turn)
}

/// The groups before the reader that depend on the group: few and small, and the reader depends on none of them.
fn dependents(grouping: &Grouping<'_>, group: usize, reader: usize, is_moved: &[bool]) -> Option<Vec<u32>> {
    let mut moved: Vec<u32> = Vec::new();
    let mut next = 0;
    let mut from = group;
    loop {
        for (_, _, home, _) in uses(grouping, from) {
            if home == reader && from != group {
                return None;
            }
            if home >= reader || moved.contains(&(home as u32)) {
                continue;
            }
            let other = &grouping.groups[home];
            let small = other.kind != ClusterKind::Single && grouping.elements(other.iteration) < SMALL / 8;
            if !small || is_moved[home] || moved.len() == MOST_MOVED {
                return None;
            }
            moved.push(home as u32);
        }
        match moved.get(next) {
            Some(&home) => from = home as usize,
            None => return Some(moved),
        }
        next += 1;
    }
}

/// Whether the operands that live longer are no larger than the values that are no longer stored.
fn saves_bytes(grouping: &Grouping<'_>, turn: &Turn) -> bool {
    let graph = grouping.graph;
    let mut longer = 0u64;
    let mut seen: Vec<NodeId> = Vec::new();
    for &load in &grouping.groups[turn.group].loads {
        let foot = grouping.roles.foot(graph, load);
        if graph.op(foot).is_leaf() || seen.contains(&foot) {
            continue;
        }
        seen.push(foot);
        let mut users = grouping.users.get(foot.index()).iter().map(|&user| NodeId(user >> 1));
        let lives =
            grouping.is_output[foot.index()] || users.any(|user| grouping.home[user.index()] as usize >= turn.reader);
        longer += if lives { 0 } else { graph.bytes(foot) as u64 };
    }
    let mut elsewhere: Vec<NodeId> = Vec::new();
    let mut stored: Vec<NodeId> = Vec::new();
    for (member, _, home, _) in uses(grouping, turn.group) {
        let list = if home == turn.reader { &mut stored } else { &mut elsewhere };
        if list.last() != Some(&member) {
            list.push(member);
        }
    }
    let inner = |value: &&NodeId| !grouping.is_output[value.index()] && !elsewhere.contains(value);
    let saved: u64 = stored.iter().filter(inner).map(|&value| graph.bytes(value) as u64).sum();
    longer <= saved
}

fn fits(grouping: &Grouping<'_>, turn: &Turn) -> bool {
    let (own, other) = (&grouping.groups[turn.group], &grouping.groups[turn.reader]);
    if own.members.len() + other.members.len() > 2 * MOST_MEMBERS {
        return false;
    }
    let mut members = [own.members.as_slice(), &other.members].concat();
    members.sort_unstable();
    let late = |member: NodeId| grouping.graph.bytes(member) >= SMALL && last_pass(grouping, member, turn) > other.pass;
    let late = members.iter().filter(|&&member| late(member));
    let stored_here = |home: u32| home == turn.group as u32 || home == turn.reader as u32;
    late.count() <= MOST_LATE && fits_one_kernel(grouping, &members, stored_here)
}

/// The latest pass of the groups outside that read a member of the two.
fn last_pass(grouping: &Grouping<'_>, member: NodeId, turn: &Turn) -> u16 {
    let homes = grouping.users.get(member.index()).iter().map(|&user| grouping.home[(user >> 1) as usize] as usize);
    let outside = homes.filter(|&home| home != turn.group && home != turn.reader);
    outside.map(|home| grouping.groups[home].pass).max().unwrap_or(0)
}

/// Lifts groups of the same pass into the joined group that is the last they read from.
fn lift_readers(grouping: &mut Grouping<'_>, target: usize, is_moved: &[bool]) {
    let mut readers: Vec<usize> = uses(grouping, target).map(|(_, _, home, _)| home).collect();
    readers.sort_unstable();
    readers.dedup();
    for reader in readers {
        let (own, other) = (&grouping.groups[reader], &grouping.groups[target]);
        let home = |load: &NodeId| grouping.home[grouping.roles.foot(grouping.graph, *load).index()];
        let sources = own.loads.iter().map(home).filter(|&home| home != NONE);
        let is_last = sources.clone().max() == Some(target as u32);
        let both_reduce = own.kind == ClusterKind::Reduce && other.kind == ClusterKind::Reduce;
        let turn = Turn { group: reader, reader: target, moved: Vec::new() };
        let liftable = is_last
            && !is_moved[reader]
            && !sources.clone().any(|source| is_moved[source as usize])
            && own.kind != ClusterKind::Single
            && !both_reduce
            && own.pass == other.pass
            && own.iteration == other.iteration
            && grouping.are_near(own, other)
            && own.members.iter().all(|&member| {
                let operands = grouping.graph.operands(member).iter();
                let mut read = operands.filter(|operand| home(operand) == target as u32);
                read.all(|&operand| grouping.in_register(member, operand))
            })
            && fits(grouping, &turn);
        if liftable {
            join(grouping, &turn);
        }
    }
}

fn join(grouping: &mut Grouping<'_>, turn: &Turn) {
    let pass = grouping.groups[turn.reader].pass;
    let own = grouping.groups[turn.group].members.iter();
    let members: Vec<NodeId> = own.chain(&grouping.groups[turn.reader].members).copied().collect();
    // What is computed in the later pass is late only for passes after that.
    let mut late = 0;
    for member in members {
        let last = last_pass(grouping, member, turn);
        grouping.last_pass[member.index()] = if last > pass { last } else { 0 };
        late += usize::from(grouping.counts_as_late(member));
    }
    grouping.merge_into(turn.group, turn.reader);
    grouping.groups[turn.reader].late = late;
}

impl Grouping<'_> {
    /// Sorts groups into an order of execution, the present one where that is possible.
    fn reorder(&mut self) -> Result<()> {
        let count = self.groups.len();
        let mut edges: Vec<(u32, u32)> = room(2 * count)?;
        for (index, group) in self.groups.iter().enumerate() {
            for &load in &group.loads {
                let foot = self.roles.foot(self.graph, load);
                let home = self.home[foot.index()];
                if home != NONE && home != index as u32 {
                    push(&mut edges, (home, index as u32))?;
                }
                // Whoever reads after an overwrite makes it a copy; who reads before keeps its place.
                if let Some(overwriter) = self.overwritten_at(load).filter(|&place| place > index) {
                    push(&mut edges, (index as u32, overwriter as u32))?;
                }
            }
        }
        let mut missing = filled(0u32, count)?;
        for &(_, to) in &edges {
            missing[to as usize] += 1;
        }
        let after = Lists::group(count, edges.iter().copied())?;
        // Never more than the groups: the heap has its memory from the start.
        let mut first = room(count)?;
        first.extend((0..count as u32).filter(|&group| missing[group as usize] == 0).map(Reverse));
        let mut ready: BinaryHeap<Reverse<u32>> = BinaryHeap::from(first);
        let mut order = room(count)?;
        while let Some(Reverse(group)) = ready.pop() {
            order.push(group);
            for &next in after.get(group as usize) {
                missing[next as usize] -= 1;
                if missing[next as usize] == 0 {
                    ready.push(Reverse(next));
                }
            }
        }
        if order.len() < count {
            return Err(ckad_graph::Error::internal("cluster", "groups that wait for one another"));
        }
        let mut place = filled(0u32, count)?;
        for (index, &group) in order.iter().enumerate() {
            place[group as usize] = index as u32;
        }
        let mut placed: Vec<_> = collected(place.iter().zip(std::mem::take(&mut self.groups)))?;
        placed.sort_unstable_by_key(|(place, _)| **place);
        self.groups = collected(placed.into_iter().map(|(_, group)| group))?;
        for home in self.home.iter_mut().filter(|home| **home != NONE) {
            *home = place[*home as usize];
        }
        Ok(())
    }
}
