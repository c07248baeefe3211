//! The target's limits on a fused kernel, checked exactly once groups are complete.

use ckad_graph::{Graph, NodeId, Op};

use crate::cluster::{Group, Grouping};
use crate::schedule::ClusterKind;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most loads and stores together.
    pub(crate) operands: usize,
    /// Most tile registers.
    pub(crate) registers: usize,
}

/// The group's members in pieces that each respect the limits (a single node always does).
pub(crate) fn split<'g>(grouping: &Grouping<'_>, group: &'g Group) -> Vec<&'g [NodeId]> {
    let (graph, limits, computed) = (grouping.graph, grouping.limits, group.members.len());
    // If every member was stored and every load lived to the end.
    let in_memory = group.loads.iter().filter(|&&load| is_in_memory(graph, load)).count();
    let fits = in_memory + computed <= limits.operands && group.loads.len() + computed <= limits.registers;
    if group.kind == ClusterKind::Single || fits {
        return vec![&group.members];
    }
    let mut pieces = Vec::new();
    let mut waiting: Vec<&[NodeId]> = vec![&group.members];
    while let Some(piece) = waiting.pop() {
        if piece.len() <= 1 || respects_limits(grouping, piece) {
            pieces.push(piece);
        } else {
            let (front, back) = piece.split_at(piece.len() / 2);
            waiting.extend([back, front]);
        }
    }
    pieces
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
    let graph = grouping.graph;
    let inside = |node: NodeId| members.binary_search(&node).ok();
    let end = members.len();
    // For each register, the first and last instruction between which it is taken.
    let mut taken: Vec<(usize, usize)> = Vec::with_capacity(2 * members.len());
    let mut loads: Vec<NodeId> = Vec::new();
    let mut last_use: Vec<usize> = (0..members.len()).collect();
    let mut load_last: Vec<usize> = Vec::new();
    for (index, &member) in members.iter().enumerate() {
        for &operand in graph.operands(member) {
            if let Some(place) = inside(operand) {
                last_use[place] = index;
            } else if let Some(place) = loads.iter().position(|&load| load == operand) {
                load_last[place] = index;
            } else {
                loads.push(operand);
                load_last.push(index);
            }
        }
    }
    let mut stores = 0;
    for (index, &member) in members.iter().enumerate() {
        let read_outside = |&user: &u32| inside(NodeId(user >> 1)).is_none();
        let needed = grouping.is_output[member.index()] || grouping.users.get(member.index()).iter().any(read_outside);
        if needed && is_here(grouping.home[member.index()]) {
            stores += 1;
            last_use[index] = end;
        }
        taken.push((index, last_use[index]));
    }
    if loads.iter().filter(|&&load| is_in_memory(graph, load)).count() + stores > grouping.limits.operands {
        return false;
    }
    taken.extend(load_last.into_iter().map(|last| (0, last)));
    let mut change = vec![0i64; end + 2];
    for (first, last) in taken {
        change[first] += 1;
        change[last + 1] -= 1;
    }
    let mut live = 0;
    change.into_iter().all(|step| {
        live += step;
        live <= grouping.limits.registers as i64
    })
}

/// Scalars come with the run and take no operand.
fn is_in_memory(graph: &Graph, load: NodeId) -> bool {
    !matches!(graph.op(load), Op::Literal(_) | Op::Scalar(_))
}
