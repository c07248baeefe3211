//! Graph → clusters: which nodes share a kernel.
//!
//! Nodes are taken in the graph's order, which is an order of execution. A heavy or structural operation is a
//! cluster of its own. An elementwise node may join the group of highest index among those that compute its
//! operands: every other operand then comes from an earlier group, so the order of groups stays executable. A
//! reduction ends the group that computes its operand. By the same rule whole groups are then lifted into the
//! last group they read from, and at last merged into the first group that reads from them. Joining and lifting
//! move work to an earlier place, never a reader behind an overwrite of what it reads; merging moves work to a
//! later place, but not past such an overwrite. Where one pass turns into the next, groups of both become one:
//! `cluster::turn`.
//!
//! Bounds: one iteration shape, one pass, one region, nearby tape positions with no [fence](crate::cluster::fences)
//! between them, the target's operands and registers, and few values that a later pass reads (a group is kept or
//! recomputed whole). The clustering called auto then rebuilds cheap values in the groups of later passes:
//! `cluster::auto`.

pub(crate) mod auto;
pub(crate) mod fences;
mod limits;
pub(crate) mod roles;
mod turn;

use std::cell::RefCell;

use ckad_graph::{Error, Graph, ListId, NodeId, Op, RegionId, Result, interrupt};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::cluster::auto::rebuild_cheap_values;
use crate::cluster::fences::Fences;
use crate::cluster::limits::{Limits, Scratch, split};
use crate::cluster::roles::{Role, Roles, Uses};
use crate::cluster::turn::join_passes;
use crate::liveness::{Counts, Lists, NONE};
use crate::program::Target;
use crate::schedule::{Cluster, ClusterKind, Clustering};
use crate::tables::{collected, filled, push, room};

/// Most computed nodes of one group.
pub(crate) const MOST_MEMBERS: usize = 32;
/// Members of one group stem from positions at most this far apart.
const FARTHEST: u32 = 64;
/// Operands from which on a list of them is searched by hash.
const MANY_OPERANDS: usize = 32;
/// Most values of one group that a later pass reads, unless they are small.
pub(crate) const MOST_LATE: usize = 8;
/// Values below this many bytes do not count towards `MOST_LATE`.
pub(crate) const SMALL: usize = 4096;

/// A cluster under construction; deferred views are added at the end.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) kind: ClusterKind,
    /// Of a fused group or a reduction: the shape it iterates over.
    pub(crate) iteration: ListId,
    pub(crate) members: Vec<NodeId>,
    /// Operands that are loaded, leaves and deferred views included.
    pub(crate) loads: Vec<NodeId>,
    pub(crate) pass: u16,
    region: RegionId,
    position: u32,
    pub(crate) late: usize,
}

/// What the steps of clustering share.
pub(crate) struct Grouping<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) roles: Roles,
    pub(crate) groups: Vec<Group>,
    /// The group that computes a node; `NONE` for leaves and deferred views.
    pub(crate) home: Vec<u32>,
    /// For each node in memory or registers, the computed nodes that read it (directly or through views): the
    /// node's index twice, plus 1 if it reads it directly.
    pub(crate) users: Lists,
    /// The latest pass of a user; 0 without users.
    pub(crate) last_pass: Vec<u16>,
    pub(crate) is_output: Vec<bool>,
    fences: &'a Fences,
    pub(crate) limits: Limits,
    pub(crate) scratch: RefCell<Scratch>,
}

/// The clusters of a graph; with `auto`, cheap values are rebuilt where later passes use them.
pub fn cluster(graph: &Graph, target: &Target, auto: bool) -> Result<Clustering> {
    cluster_between(graph, target, auto, &Fences::Nowhere)
}

/// As [`cluster`], with groups that reach across no fence.
pub(crate) fn cluster_between(graph: &Graph, target: &Target, auto: bool, fences: &Fences) -> Result<Clustering> {
    let mut grouping = Grouping::new(graph, target, fences)?;
    grouping.form()?;
    grouping.lift()?;
    grouping.merge()?;
    join_passes(&mut grouping)?;
    if auto {
        rebuild_cheap_values(&mut grouping)?;
    }
    grouping.finish()
}

/// How often and until when values are read.
struct Read<'a> {
    graph: &'a Graph,
    last_pass: Vec<u16>,
    counts: Counts,
}

impl Uses for Read<'_> {
    #[inline]
    fn read(&mut self, reader: NodeId, operand: NodeId) {
        let last = &mut self.last_pass[operand.index()];
        *last = (*last).max(self.graph.attributes(reader).pass);
        self.counts.add(operand.index());
    }

    fn moved(&mut self, view: NodeId, foot: NodeId) {
        let last = std::mem::take(&mut self.last_pass[view.index()]);
        self.last_pass[foot.index()] = self.last_pass[foot.index()].max(last);
        self.counts.shift(view.index(), foot.index());
    }
}

impl<'a> Grouping<'a> {
    fn new(graph: &'a Graph, target: &Target, fences: &'a Fences) -> Result<Grouping<'a>> {
        let mut read = Read { graph, last_pass: filled(0, graph.len())?, counts: Counts::new(graph.len())? };
        let roles = Roles::new(graph, &mut read)?;
        let Read { last_pass, counts, .. } = read;
        let is_computed = |id: &NodeId| !matches!(roles.of(*id), Role::Dead | Role::Leaf | Role::Deferred);
        let mut users = counts.fill()?;
        for id in graph.ids().filter(is_computed) {
            for &operand in graph.operands(id) {
                let foot = roles.foot(graph, operand);
                users.push(foot.index(), id.0 << 1 | u32::from(foot == operand));
            }
        }
        let users = users.finish();
        let mut is_output = filled(false, graph.len())?;
        for output in &graph.outputs {
            is_output[output.index()] = true;
        }
        Ok(Grouping {
            graph,
            groups: room(graph.len() / 16)?,
            home: filled(NONE, graph.len())?,
            users,
            last_pass,
            is_output,
            fences,
            scratch: RefCell::new(Scratch::new(graph.len())?),
            limits: Limits { operands: target.operand_limit, registers: target.register_limit },
            roles,
        })
    }

    /// Whether a later pass reads the node.
    pub(crate) fn is_late(&self, node: NodeId) -> bool {
        self.last_pass[node.index()] > self.graph.attributes(node).pass
    }

    #[inline]
    pub(crate) fn counts_as_late(&self, node: NodeId) -> bool {
        self.is_late(node) && self.graph.bytes(node) >= SMALL
    }

    /// Whether `user` reads `operand` element by element, so that a register may hold it.
    #[inline]
    pub(crate) fn in_register(&self, user: NodeId, operand: NodeId) -> bool {
        let op = self.graph.op(user);
        let iteration = match op {
            Op::Reduce { .. } => self.graph.node(operand).shape,
            _ => self.graph.node(user).shape,
        };
        self.roles.of(operand) == Role::Fused
            && !crate::view::is_view(op)
            && self.graph.node(operand).shape == iteration
    }

    fn form(&mut self) -> Result<()> {
        for id in self.graph.ids() {
            interrupt::check_at(id.index())?;
            match self.roles.of(id) {
                Role::Dead | Role::Leaf | Role::Deferred => {}
                Role::Single => self.open(id, ClusterKind::Single)?,
                Role::Part => self.join_call(id)?,
                role @ (Role::Fused | Role::Reduce) => match self.joinable(id) {
                    Some((group, loads)) => self.add(id, group, role == Role::Reduce, &loads)?,
                    None if role == Role::Reduce => self.open(id, ClusterKind::Reduce)?,
                    None => self.open(id, ClusterKind::Fused)?,
                },
            }
        }
        Ok(())
    }

    fn open(&mut self, id: NodeId, kind: ClusterKind) -> Result<()> {
        let attributes = self.graph.attributes(id);
        let iteration = match self.graph.op(id) {
            Op::Reduce { .. } => self.graph.node(self.graph.operands(id)[0]).shape,
            _ => self.graph.node(id).shape,
        };
        let capacity = if kind == ClusterKind::Single { 1 } else { MOST_MEMBERS / 2 };
        let group = Group {
            kind: if kind == ClusterKind::Single { kind } else { ClusterKind::Fused },
            iteration,
            members: room(capacity)?,
            loads: room(capacity.div_ceil(2))?,
            pass: attributes.pass,
            region: attributes.region,
            position: attributes.position,
            late: 0,
        };
        push(&mut self.groups, group)?;
        self.join(id, self.groups.len() - 1, kind == ClusterKind::Reduce)
    }

    /// A part belongs to the cluster of its call.
    fn join_call(&mut self, id: NodeId) -> Result<()> {
        let home = self.home[self.graph.operands(id)[0].index()];
        self.home[id.index()] = home;
        push(&mut self.groups[home as usize].members, id)
    }

    fn join(&mut self, id: NodeId, group: usize, closes: bool) -> Result<()> {
        let operands = self.graph.operands(id);
        if operands.len() <= MANY_OPERANDS {
            let loads = self.new_loads(id, group);
            return self.add(id, group, closes, &loads);
        }
        // A stack of thousands of values would compare each with each.
        let mut seen = FxHashSet::default();
        seen.try_reserve(operands.len()).map_err(|_| Error::memory("plan", size_of_val(operands)))?;
        let loads = collected(operands.iter().copied().filter(|&operand| seen.insert(operand)))?;
        self.add(id, group, closes, &loads)
    }

    /// What the node reads that the group neither computes nor loads yet; twice what it reads twice.
    fn new_loads(&self, id: NodeId, group: usize) -> SmallVec<[NodeId; 4]> {
        let loads = &self.groups[group].loads;
        let mut new = SmallVec::new();
        for &operand in self.graph.operands(id) {
            if self.home[operand.index()] != group as u32 && !loads.contains(&operand) {
                new.push(operand);
            }
        }
        new
    }

    fn add(&mut self, id: NodeId, group: usize, closes: bool, loads: &[NodeId]) -> Result<()> {
        let late = usize::from(self.counts_as_late(id));
        let target = &mut self.groups[group];
        let loaded = target.loads.len();
        for &load in loads {
            if loads.len() > MANY_OPERANDS || !target.loads[loaded..].contains(&load) {
                push(&mut target.loads, load)?;
            }
        }
        if closes {
            target.kind = ClusterKind::Reduce;
        }
        target.late += late;
        push(&mut target.members, id)?;
        self.home[id.index()] = group as u32;
        Ok(())
    }

    /// The group of highest index among the operands', if the node may join it, and what that then loads.
    fn joinable(&self, id: NodeId) -> Option<(usize, SmallVec<[NodeId; 4]>)> {
        let (graph, node) = (self.graph, self.graph.node(id));
        let operands = graph.operands(id);
        let iteration = match node.op {
            // A view reads memory.
            op if crate::view::is_view(op) => return None,
            Op::Reduce { .. } => graph.node(*operands.first()?).shape,
            _ => node.shape,
        };
        // One more than the group's index; 0 where there is none.
        let (mut memory, mut register) = (0u32, 0u32);
        for &operand in operands {
            let foot = self.roles.foot(graph, operand);
            let home = self.home[foot.index()].wrapping_add(1);
            if foot == operand && self.roles.of(operand) == Role::Fused && graph.node(operand).shape == iteration {
                register = register.max(home);
            } else {
                memory = memory.max(home);
            }
        }
        let group = if register > memory { register as usize - 1 } else { return None };
        let target = &self.groups[group];
        let attributes = node.attributes;
        let possible = target.kind == ClusterKind::Fused
            && target.pass == attributes.pass
            && target.region == attributes.region
            && self.is_within_reach(target.position, attributes.position);
        if !possible {
            return None;
        }
        let loads = self.new_loads(id, group);
        let fits = self.fits(target.members.len() + 1, target.loads.len() + loads.len(), target.late)
            && (target.late < MOST_LATE || !self.counts_as_late(id));
        fits.then_some((group, loads))
    }

    /// Bounds that joining and merging respect. `finish` makes sure of the target's limits.
    fn fits(&self, members: usize, loads: usize, late: usize) -> bool {
        members <= MOST_MEMBERS && late <= MOST_LATE && loads + 2 <= self.limits.operands
    }

    /// Moves each group up into the last group whose values it reads. Coefficients that open a group of their own,
    /// to be joined by what uses them, so find their way back.
    fn lift(&mut self) -> Result<()> {
        for group in 0..self.groups.len() {
            interrupt::check_at(group)?;
            if let Some(source) = self.last_source(group) {
                self.merge_into(group, source);
            }
        }
        Ok(())
    }

    /// The last group whose values this one reads, if the two can be one at that group's place.
    fn last_source(&self, group: usize) -> Option<usize> {
        let own = &self.groups[group];
        let home =
            |load: NodeId| Some(self.home[self.roles.foot(self.graph, load).index()]).filter(|&home| home != NONE);
        let source = own.loads.iter().filter_map(|&load| home(load)).max()? as usize;
        let other = &self.groups[source];
        if other.kind != ClusterKind::Fused || !self.compatible(own, other) {
            return None;
        }
        let in_registers = own.members.iter().all(|&member| {
            let mut loads = self.graph.operands(member).iter().filter(|&&operand| home(operand) == Some(source as u32));
            loads.all(|&load| self.in_register(member, load))
        });
        // A reduction stays the last member.
        let ordered = own.kind == ClusterKind::Fused || other.members.last() < own.members.last();
        (in_registers && ordered).then_some(source)
    }

    /// Merges groups, from the last, into the first group that reads their values.
    fn merge(&mut self) -> Result<()> {
        for group in (0..self.groups.len()).rev() {
            interrupt::check_at(group)?;
            if let Some(reader) = self.first_reader(group) {
                self.merge_into(group, reader);
            }
        }
        Ok(())
    }

    /// The first group that reads values of this one, if the two can be one at that group's place.
    fn first_reader(&self, group: usize) -> Option<usize> {
        let own = &self.groups[group];
        if own.kind != ClusterKind::Fused {
            return None;
        }
        let mut reader = NONE;
        for member in &own.members {
            for &user in self.users.get(member.index()) {
                let home = self.home[(user >> 1) as usize];
                reader = if home == group as u32 { reader } else { reader.min(home) };
            }
        }
        let other = self.groups.get(reader as usize)?;
        if !self.compatible(own, other) {
            return None;
        }
        let in_register = |user: u32, member: NodeId| {
            let (user, direct) = (NodeId(user >> 1), user & 1 == 1);
            self.home[user.index()] != reader || (direct && self.in_register(user, member))
        };
        let in_registers = own
            .members
            .iter()
            .all(|&member| self.users.get(member.index()).iter().all(|&user| in_register(user, member)));
        let reader = reader as usize;
        let in_time = own.loads.iter().all(|&load| self.overwritten_at(load).is_none_or(|place| reader < place));
        (in_registers && in_time).then_some(reader)
    }

    /// Whether two groups may be one as far as their bounds go.
    fn compatible(&self, one: &Group, other: &Group) -> bool {
        one.kind != ClusterKind::Single
            && other.kind != ClusterKind::Single
            && other.iteration == one.iteration
            && other.pass == one.pass
            && self.are_near(one, other)
            && self.fits(
                one.members.len() + other.members.len(),
                one.loads.len() + other.loads.len(),
                one.late + other.late,
            )
    }

    /// Whether two groups stem from one region and nearby positions.
    pub(crate) fn are_near(&self, one: &Group, other: &Group) -> bool {
        one.region == other.region && self.is_within_reach(one.position, other.position)
    }

    fn is_within_reach(&self, one: u32, other: u32) -> bool {
        one.abs_diff(other) <= FARTHEST && !self.fences.divide(one, other)
    }

    /// Number of elements of an iteration shape.
    pub(crate) fn elements(&self, shape: ListId) -> usize {
        self.graph.lists.get(shape).iter().fold(1, |product, &extent| product.saturating_mul(extent as usize))
    }

    /// The group that overwrites what a load reads.
    pub(crate) fn overwritten_at(&self, load: NodeId) -> Option<usize> {
        if !self.roles.overwrite() {
            return None;
        }
        let overwriter = self.roles.overwriter(self.roles.foot(self.graph, load))?;
        Some(self.home[overwriter.index()] as usize)
    }

    pub(crate) fn merge_into(&mut self, group: usize, target: usize) {
        let own = &mut self.groups[group];
        let (members, loads) = (std::mem::take(&mut own.members), std::mem::take(&mut own.loads));
        let (kind, late) = (own.kind, own.late);
        for member in &members {
            self.home[member.index()] = target as u32;
        }
        let other = &mut self.groups[target];
        other.members.extend(members);
        other.members.sort_unstable();
        other.loads.extend(loads);
        other.loads.sort_unstable();
        other.loads.dedup();
        other.loads.retain(|load| self.home[load.index()] != target as u32);
        other.late += late;
        if kind == ClusterKind::Reduce {
            other.kind = kind;
        }
    }

    /// Splits what exceeds the target's limits and adds the views that members read through.
    fn finish(mut self) -> Result<Clustering> {
        let groups = std::mem::take(&mut self.groups);
        let mut clusters = room(groups.len())?;
        for (index, group) in groups.into_iter().enumerate().filter(|(_, group)| !group.members.is_empty()) {
            interrupt::check_at(index)?;
            let kind = group.kind;
            match split(&self, &group) {
                None => push(&mut clusters, Cluster { kind, members: self.with_views(group.members)? })?,
                Some(pieces) => {
                    for piece in pieces {
                        let reduces = || piece.iter().any(|&member| matches!(self.graph.op(member), Op::Reduce { .. }));
                        let split = kind == ClusterKind::Reduce && !reduces();
                        let kind = if split { ClusterKind::Fused } else { kind };
                        let members = self.with_views(collected(piece.iter().copied())?)?;
                        push(&mut clusters, Cluster { kind, members })?;
                    }
                }
            }
        }
        Ok(Clustering { clusters })
    }

    fn with_views(&self, mut members: Vec<NodeId>) -> Result<Vec<NodeId>> {
        let computed = members.len();
        let through = if self.roles.defer() { computed } else { 0 };
        for index in 0..through {
            for &operand in self.graph.operands(members[index]) {
                let mut view = operand;
                while self.roles.of(view) == Role::Deferred {
                    push(&mut members, view)?;
                    view = self.graph.operands(view)[0];
                }
            }
        }
        if members.len() > computed {
            members.sort_unstable();
            members.dedup();
        }
        members.shrink_to_fit();
        Ok(members)
    }
}
