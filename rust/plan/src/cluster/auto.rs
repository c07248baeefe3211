//! The clustering called auto: cheap values rebuilt in the groups of later passes that read them.
//!
//! A value that a later pass reads would be kept until then. Where a few elementwise operations rebuild it
//! from values that are kept anyway, inside the very group that reads it, nothing needs to be kept: the nodes
//! become members of that group too. Rebuilding costs operations on each use, so it is bounded per value and
//! over the whole graph; within the bound, the values that free most bytes per operation come first.
//!
//! Then, where a group leaves several values of which no one rebuilds the others, one that nobody keeps may rebuild
//! them all: z is kept instead of exp(-z) and z / (1 + exp(-z)). So the fewest values cross from pass to pass, as a
//! least cut would choose, among the cuts of one value for each group.
//!
//! Random bits, and what is made of them alone (the mask of a dropout), are rebuilt beyond the bound: they are a
//! function of a key, drawn so that nobody has to keep them.

use ckad_graph::{Graph, NodeId, Op, Result, interrupt};

use crate::cluster::limits::respects_limits;
use crate::cluster::roles::Role;
use crate::cluster::{Grouping, MOST_MEMBERS};
use crate::cost::node_flops;
use crate::liveness::NONE;
use crate::schedule::ClusterKind;
use crate::tables::{filled, push, room};
use crate::view::is_view;

/// Most nodes that rebuild one value.
const MOST_NODES: usize = 12;
/// Most nodes that rebuild one value from a key: enough for normal noise.
const MOST_DRAWN: usize = 20;
/// Share of all operations that may be spent: one in this many.
const SHARE: u64 = 20;
/// What has this many times fewer bytes than the value is kept for it.
const SMALL: usize = 64;
/// Smaller values are not worth a thought.
pub(crate) const LEAST_BYTES: usize = 4096;

struct Candidate {
    value: NodeId,
    bytes: u64,
    flops: u64,
    /// Whether it is rebuilt from a key.
    drawn: bool,
}

/// Makes members of later groups out of values that they read.
pub(crate) fn rebuild_cheap_values(grouping: &mut Grouping<'_>) -> Result<()> {
    let graph = grouping.graph;
    let mut dropped = filled(false, graph.len())?;
    let mut candidates = Vec::new();
    for value in graph.ids() {
        interrupt::check_at(value.index())?;
        let Some(readers) = late_readers(grouping, value) else { continue };
        if let Some(nodes) = recipe(grouping, &dropped, None, value) {
            dropped[value.index()] = true;
            let flops: u64 = nodes.iter().map(|&node| node_flops(graph, node)).sum();
            let bytes = graph.bytes(value) as u64;
            let flops = flops.max(1).saturating_mul(readers.len() as u64);
            push(&mut candidates, Candidate { value, bytes, flops, drawn: is_drawn(graph, &nodes, value) })?;
        }
    }
    candidates.sort_unstable_by(|a, b| {
        let gain = |x: &Candidate, y: &Candidate| u128::from(x.bytes) * u128::from(y.flops);
        gain(b, a).cmp(&gain(a, b)).then(a.value.cmp(&b.value))
    });
    let mut budget = budget(graph);
    let mut chosen = room(candidates.len())?;
    for candidate in candidates {
        if candidate.drawn {
            chosen.push(candidate.value);
        } else if candidate.flops <= budget {
            budget -= candidate.flops;
            chosen.push(candidate.value);
        }
    }
    // Operands before users, each recipe from what is kept in the end: never longer than the first estimate.
    chosen.sort_unstable();
    dropped.fill(false);
    for (index, value) in chosen.into_iter().enumerate() {
        interrupt::check_at(index)?;
        if let (Some(readers), Some(nodes)) = (late_readers(grouping, value), recipe(grouping, &dropped, None, value)) {
            dropped[value.index()] = extend(grouping, &readers, &nodes);
        }
    }
    keep_sources(grouping, &mut dropped, budget)
}

/// The operations that may be spent.
fn budget(graph: &Graph) -> u64 {
    graph.ids().fold(0u64, |sum, node| sum.saturating_add(node_flops(graph, node))) / SHARE
}

/// A value that is kept instead of several others, the bytes that this saves and the operations that it takes.
struct Source {
    value: NodeId,
    bytes: u64,
    flops: u64,
}

/// Keeps single values from which several late ones of a group are rebuilt.
fn keep_sources(grouping: &mut Grouping<'_>, dropped: &mut [bool], mut budget: u64) -> Result<()> {
    for group in 0..grouping.groups.len() {
        interrupt::check_at(group)?;
        let late = rebuildable(grouping, dropped, group);
        if late.len() < 2 {
            continue;
        }
        let Some(source) = source(grouping, dropped, group, &late) else { continue };
        if source.flops > budget {
            continue;
        }
        if keep_source(grouping, dropped, &source, &late) {
            budget -= source.flops;
        }
    }
    Ok(())
}

/// Rebuilds the late values from the source, and keeps that; or leaves everything as it is where the kernels that
/// would rebuild them have no room, so that nothing would be saved.
fn keep_source(grouping: &mut Grouping<'_>, dropped: &mut [bool], source: &Source, late: &[NodeId]) -> bool {
    let graph = grouping.graph;
    let mut spared: Vec<NodeId> = Vec::new();
    let mut before: Vec<(u32, Vec<NodeId>, Vec<NodeId>)> = Vec::new();
    for &value in late {
        let made = recipe(grouping, dropped, Some(source.value), value).zip(late_readers(grouping, value));
        let Some((nodes, readers)) = made else { continue };
        for &reader in &readers {
            if before.iter().all(|&(known, ..)| known != reader) {
                let group = &grouping.groups[reader as usize];
                before.push((reader, group.members.clone(), group.loads.clone()));
            }
        }
        if extend(grouping, &readers, &nodes) {
            dropped[value.index()] = true;
            spared.push(value);
        }
    }
    let bytes: usize = spared.iter().map(|&value| graph.bytes(value)).sum();
    if bytes <= graph.bytes(source.value) {
        spared.into_iter().for_each(|value| dropped[value.index()] = false);
        for (reader, members, loads) in before {
            let group = &mut grouping.groups[reader as usize];
            (group.members, group.loads) = (members, loads);
        }
        return false;
    }
    let until = spared.iter().map(|value| grouping.last_pass[value.index()]).max().unwrap_or(0);
    grouping.last_pass[source.value.index()] = until;
    true
}

/// The values of a group, in order, that later passes read and could rebuild, but not from what is kept.
fn rebuildable(grouping: &Grouping<'_>, dropped: &[bool], group: usize) -> Vec<NodeId> {
    let own = &grouping.groups[group];
    // What stands at a turning point is computed and read by the same pass.
    let turns = |&member: &NodeId| grouping.graph.attributes(member).pass != own.pass;
    if own.kind == ClusterKind::Single || own.members.iter().any(turns) {
        return Vec::new();
    }
    let is_whole = |value: NodeId| grouping.graph.node(value).shape == own.iteration;
    let members = own.members.iter().copied().filter(|&value| is_whole(value) && !dropped[value.index()]);
    let lacks = |value: NodeId| recipe(grouping, dropped, None, value).is_none();
    members.filter(|&value| late_readers(grouping, value).is_some() && lacks(value)).collect()
}

/// The value of a group, or of a product that it reads, that saves most when it is kept for the late ones.
fn source(grouping: &Grouping<'_>, dropped: &mut [bool], group: usize, late: &[NodeId]) -> Option<Source> {
    let (graph, own) = (grouping.graph, &grouping.groups[group]);
    let is_product = |value: NodeId| grouping.roles.of(value) == Role::Single;
    let products = own.loads.iter().copied().filter(|&load| is_product(load));
    let mut best: Option<Source> = None;
    for value in own.members.iter().copied().chain(products) {
        let whole = graph.node(value).shape == own.iteration && !is_view(graph.op(value));
        if !whole || grouping.is_late(value) || grouping.roles.overwriter(value).is_some() {
            continue;
        }
        let (mut bytes, mut flops) = (0u64, 0u64);
        let mut spared = Vec::new();
        for &other in late {
            let Some(nodes) = recipe(grouping, dropped, Some(value), other) else { continue };
            let readers = late_readers(grouping, other).map_or(0, |readers| readers.len());
            let work: u64 = nodes.iter().map(|&node| node_flops(graph, node)).sum();
            flops = flops.saturating_add(work.saturating_mul(readers as u64));
            bytes += graph.bytes(other) as u64;
            dropped[other.index()] = true;
            spared.push(other);
        }
        spared.into_iter().for_each(|other| dropped[other.index()] = false);
        let Some(bytes) = bytes.checked_sub(graph.bytes(value) as u64).filter(|&bytes| bytes > 0) else { continue };
        let better = |best: &Source| (bytes, best.flops) > (best.bytes, flops);
        if best.as_ref().is_none_or(better) {
            best = Some(Source { value, bytes, flops });
        }
    }
    best
}

/// The groups of later passes that read the value, if all of them read it element by element.
fn late_readers(grouping: &Grouping<'_>, value: NodeId) -> Option<Vec<u32>> {
    let graph = grouping.graph;
    let op = graph.op(value);
    let computed = grouping.roles.of(value) == Role::Fused && !is_view(op) && !matches!(op, Op::Iota { .. });
    let late = computed && grouping.is_late(value) && graph.bytes(value) >= LEAST_BYTES;
    if !late || grouping.is_output[value.index()] || graph.is_kept(value) {
        return None;
    }
    let (pass, shape) = (graph.attributes(value).pass, graph.node(value).shape);
    let mut readers = Vec::new();
    for &user in grouping.users.get(value.index()) {
        let (user, direct) = (NodeId(user >> 1), user & 1 == 1);
        if graph.attributes(user).pass == pass {
            continue;
        }
        let home = grouping.home[user.index()];
        if home == grouping.home[value.index()] {
            continue;
        }
        let group = &grouping.groups[home as usize];
        let element_by_element = direct && group.kind != ClusterKind::Single && !is_view(graph.op(user));
        if !element_by_element || group.iteration != shape {
            return None;
        }
        if !readers.contains(&home) {
            readers.push(home);
        }
    }
    Some(readers).filter(|readers| !readers.is_empty())
}

/// The nodes, in order, that compute the value from what is kept, and from a source where one is given; `None` where
/// there are too many or other than elementwise ones.
fn recipe(grouping: &Grouping<'_>, dropped: &[bool], source: Option<NodeId>, value: NodeId) -> Option<Vec<NodeId>> {
    let (graph, roles) = (grouping.graph, &grouping.roles);
    let (shape, until) = (graph.node(value).shape, grouping.last_pass[value.index()]);
    let kept = |node: NodeId| {
        let late = grouping.is_late(node) && grouping.last_pass[node.index()] >= until && !dropped[node.index()];
        // A number for each row (a mean, a root) is nothing beside the rows.
        let small = graph.bytes(node).saturating_mul(SMALL) <= graph.bytes(value) && !is_view(graph.op(node));
        graph.op(node).is_leaf() || source == Some(node) || ((late || small) && roles.overwriter(node).is_none())
    };
    let mut nodes = vec![value];
    let mut next = 0;
    while next < nodes.len() {
        for &operand in graph.operands(nodes[next]) {
            if kept(roles.foot(graph, operand)) || nodes.contains(&operand) {
                continue;
            }
            let elementwise = roles.of(operand) == Role::Fused && !is_view(graph.op(operand));
            let other = !elementwise || graph.node(operand).shape != shape || graph.is_kept(operand);
            if other || nodes.len() == MOST_DRAWN {
                return None;
            }
            nodes.push(operand);
        }
        next += 1;
    }
    nodes.sort_unstable();
    Some(nodes).filter(|nodes| nodes.len() <= MOST_NODES || is_drawn(graph, nodes, value))
}

/// Whether the nodes compute the value of random bits and of what is nothing beside it: of a key and a few numbers.
fn is_drawn(graph: &Graph, nodes: &[NodeId], value: NodeId) -> bool {
    let is_small = |operand: &NodeId| {
        nodes.binary_search(operand).is_ok() || graph.bytes(*operand).saturating_mul(SMALL) <= graph.bytes(value)
    };
    nodes.iter().any(|&node| graph.op(node) == Op::RandomBits)
        && nodes.iter().all(|&node| graph.operands(node).iter().all(is_small))
}

/// Adds the nodes to all readers, or to none where one would exceed a limit.
fn extend(grouping: &mut Grouping<'_>, readers: &[u32], nodes: &[NodeId]) -> bool {
    let mut extended = Vec::with_capacity(readers.len());
    for &reader in readers {
        let mut members = grouping.groups[reader as usize].members.clone();
        members.extend(nodes);
        members.sort_unstable();
        members.dedup();
        // A group that stands at a turning point computes values of a pass later than others of that pass.
        let foot = |node: NodeId| grouping.home[grouping.roles.foot(grouping.graph, node).index()];
        let computed = |home: u32| home == NONE || home < reader;
        let operands = nodes.iter().flat_map(|&node| grouping.graph.operands(node));
        let in_time =
            operands.copied().all(|operand| members.binary_search(&operand).is_ok() || computed(foot(operand)));
        if members.len() > 2 * MOST_MEMBERS || !in_time || !respects_limits(grouping, &members) {
            return false;
        }
        extended.push(members);
    }
    for (&reader, members) in readers.iter().zip(extended) {
        let inside = |node: &NodeId| members.binary_search(node).is_ok();
        let group = &mut grouping.groups[reader as usize];
        let operands = nodes.iter().flat_map(|&node| grouping.graph.operands(node));
        group.loads.extend(operands);
        group.loads.sort_unstable();
        group.loads.dedup();
        group.loads.retain(|load| !inside(load));
        group.members = members;
    }
    debug_assert!(nodes.iter().all(|node| grouping.home[node.index()] != NONE));
    true
}
