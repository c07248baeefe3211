//! Where derivative coefficients are computed: at their first use, if only a later stage uses them.
//!
//! `diff` rules create coefficients (1 − y²) beside the node that they belong to. What only later stages use (later
//! passes, or the unknown part of a partition) moves to just before its first user, so that y is kept instead, which
//! is mostly kept anyway. Where this would keep more bytes than it saves (a mask of x moved away from an x that nobody
//! else needs later) the node stays.
//!
//! Only cheap nodes move: elementwise operations, casts, iotas, random bits and views by shape; of derived nodes also
//! reductions, slices and padding. A node that reads a value which some other node overwrites stays too: moving it
//! would keep the old version alive. And no more moves together than belongs together: where a value is asked of a
//! loop's steps by later passes alone (a second derivative, whose program does not return the loss), the steps stay
//! where they are, as it is from their places that policies know what can be computed again.

use ckad_graph::{Graph, NodeId, Op, Result, interrupt, tables};

use crate::copy::{reached, table};

/// How many recorded operations, one reading the other, may move together. Enough for the end of a loss.
const FARTHEST: u8 = 5;

/// What is live, and what of that moves to a later stage.
pub(crate) struct Sinking {
    pub live: Vec<bool>,
    pub sunk: Vec<bool>,
    /// Whether anything moves.
    pub any: bool,
}

/// What the outputs reach, and what of that moves. `stage` is constant or grows from operand to user.
pub(crate) fn sinking(op: &str, graph: &Graph, stage: impl Fn(NodeId) -> u16) -> Result<Sinking> {
    let mut sinking = candidates(op, graph, &stage)?;
    if sinking.any {
        keep_what_is_smaller(op, graph, &stage, &mut sinking)?;
    }
    Ok(sinking)
}

fn candidates(op: &str, graph: &Graph, stage: &impl Fn(NodeId) -> u16) -> Result<Sinking> {
    let overwritten = overwritten(op, graph)?;
    let mut live = table(op, false, graph.len())?;
    let mut sunk = table(op, false, graph.len())?;
    let mut any = false;
    // The least stage in which a node is needed.
    let mut earliest = table(op, u16::MAX, graph.len())?;
    for &output in &graph.outputs {
        live[output.index()] = true;
        earliest[output.index()] = 0;
    }
    // How many recorded operations move together with a node, of those that read it.
    let mut moving = table(op, 0u8, graph.len())?;
    // All that is live, where it is asked for ahead of the walk.
    let mut all_live: Option<Vec<bool>> = None;
    for id in graph.ids().rev() {
        let index = id.index();
        interrupt::check_at(index)?;
        if !live[index] {
            continue;
        }
        let mut needs_operands = stage(id);
        if earliest[index] > needs_operands && moving[index] < FARTHEST {
            let moves = match Movable::of(graph.op(id)) {
                Movable::Always => true,
                Movable::Derived => {
                    let live = match all_live.take() {
                        Some(live) => live,
                        None => reached(op, graph, graph.outputs.iter().copied())?,
                    };
                    let derived = is_derived(graph, &live, id);
                    all_live = Some(live);
                    derived
                }
                Movable::Never => false,
            };
            let reads_overwritten =
                |overwritten: &Vec<bool>| graph.operands(id).iter().any(|operand| overwritten[operand.index()]);
            if moves && !overwritten.as_ref().is_some_and(reads_overwritten) {
                (sunk[index], any) = (true, true);
                needs_operands = earliest[index];
                for &operand in graph.operands(id) {
                    let next = graph.attributes(operand).position != graph.attributes(id).position;
                    let together = moving[index].saturating_add(u8::from(next));
                    moving[operand.index()] = moving[operand.index()].max(together);
                }
            }
        }
        for operand in graph.operands(id) {
            live[operand.index()] = true;
            let least = &mut earliest[operand.index()];
            *least = (*least).min(needs_operands);
        }
    }
    Ok(Sinking { live, sunk, any })
}

/// Which nodes of an operation may move.
enum Movable {
    Always,
    /// Those that a rule created.
    Derived,
    Never,
}

impl Movable {
    fn of(op: Op) -> Movable {
        match op {
            Op::Elementwise(_) | Op::Cast | Op::StopGradient => Movable::Always,
            Op::Iota { .. } | Op::RandomBits | Op::Reshape | Op::Transpose { .. } | Op::Broadcast => Movable::Always,
            Op::Reduce { .. } | Op::Pad { .. } | Op::StridedRead { .. } => Movable::Derived,
            _ => Movable::Never,
        }
    }
}

/// Whether a rule created the node beside its primal: it has pass and position of the node before it.
fn is_derived(graph: &Graph, live: &[bool], id: NodeId) -> bool {
    let place = |id: NodeId| (graph.attributes(id).pass, graph.attributes(id).position);
    let mut before = (0..id.0).rev().map(NodeId).filter(|id| live[id.index()] && !graph.op(*id).is_leaf());
    before.next().is_some_and(|before| place(before) == place(id))
}

/// Values that a later node overwrites, and views by shape of such values; None where nothing is overwritten.
fn overwritten(op: &str, graph: &Graph) -> Result<Option<Vec<bool>>> {
    if !graph.ids().any(|id| graph.op(id).overwrites_base()) {
        return Ok(None);
    }
    let live = reached(op, graph, graph.outputs.iter().copied())?;
    let mut overwritten = table(op, false, graph.len())?;
    for id in graph.ids().filter(|id| live[id.index()] && graph.op(*id).overwrites_base()) {
        // A leaf stays as it is in any case: its user copies it first.
        if let Some(base) = graph.operands(id).first().filter(|&&base| !graph.op(base).is_leaf()) {
            overwritten[base.index()] = true;
        }
    }
    for id in graph.ids() {
        if matches!(graph.op(id), Op::Reshape | Op::Transpose { .. } | Op::Broadcast) {
            overwritten[id.index()] |= graph.operands(id).iter().any(|operand| overwritten[operand.index()]);
        }
    }
    Ok(Some(overwritten))
}

/// Takes back each move whose operands would be kept for it alone and have more bytes than the node.
fn keep_what_is_smaller(op: &str, graph: &Graph, stage: &impl Fn(NodeId) -> u16, sinking: &mut Sinking) -> Result<()> {
    let Sinking { live, sunk, any } = sinking;
    // Of each node that stays: the number of its users that moved away, and whether it is kept in any case.
    let mut moved_users = table(op, 0u32, graph.len())?;
    let mut kept = table(op, false, graph.len())?;
    for output in &graph.outputs {
        kept[output.index()] = true;
    }
    for id in graph.ids().filter(|id| live[id.index()]) {
        let (own, moves) = (stage(id), sunk[id.index()]);
        for &operand in graph.operands(id) {
            if own > stage(operand) {
                kept[operand.index()] = true;
            } else if moves {
                moved_users[operand.index()] += 1;
            }
        }
    }
    for id in graph.ids() {
        if !sunk[id.index()] || graph.operands(id).iter().any(|operand| sunk[operand.index()]) {
            continue;
        }
        let saved = |operand: &NodeId| {
            let free = graph.op(*operand).is_leaf() || kept[operand.index()];
            if free { 0 } else { graph.bytes(*operand) / moved_users[operand.index()].max(1) as usize }
        };
        let saved: usize = graph.operands(id).iter().map(saved).sum();
        if saved > graph.bytes(id) {
            sunk[id.index()] = false;
            for operand in graph.operands(id) {
                let users = &mut moved_users[operand.index()];
                *users = users.saturating_sub(1);
            }
        }
    }
    *any = sunk.contains(&true);
    Ok(())
}

/// Visits the live nodes in order, each moved node just before the first user that does not move. `visit` gets a node
/// and the node whose place it takes: itself, or that user.
pub(crate) fn in_new_order(
    op: &str,
    graph: &Graph,
    live: &[bool],
    sunk: &[bool],
    mut visit: impl FnMut(NodeId, NodeId) -> Result<()>,
) -> Result<()> {
    let mut done = table(op, false, graph.len())?;
    let mut stack: Vec<(NodeId, usize)> = Vec::new();
    for place in graph.ids().filter(|id| live[id.index()] && !sunk[id.index()]) {
        if !graph.operands(place).iter().any(|operand| sunk[operand.index()]) {
            visit(place, place)?;
            continue;
        }
        tables::push(op, &mut stack, (place, 0))?;
        while let Some((id, next)) = stack.pop() {
            if let Some(&operand) = graph.operands(id).get(next) {
                tables::push(op, &mut stack, (id, next + 1))?;
                if sunk[operand.index()] && !done[operand.index()] {
                    tables::push(op, &mut stack, (operand, 0))?;
                }
            } else if !std::mem::replace(&mut done[id.index()], true) {
                visit(id, place)?;
            }
        }
    }
    Ok(())
}
