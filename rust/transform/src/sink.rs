//! Where derivative coefficients are computed: at their first use, if only a later stage uses them.
//!
//! `diff` rules create coefficients (1 − y²) beside the node that they belong to. What only later stages use (later
//! passes, or the unknown part of a partition) moves to just before its first user, so that y is kept instead, which
//! is mostly kept anyway. Where this would keep more bytes than it saves (a mask of x moved away from an x that nobody
//! else needs later) the node stays.
//!
//! Only cheap nodes move: elementwise operations, casts, iotas and views by shape; of derived nodes also reductions,
//! slices and padding.
//! A node that reads a value which some other node overwrites stays too: moving it would keep the old version alive.

use ckad_graph::{Graph, NodeId, Op, Result, interrupt, tables};

use crate::copy::table;

/// Which of the live nodes move to a later stage. `stage` is constant or grows from operand to user.
pub(crate) fn sinking(op: &str, graph: &Graph, live: &[bool], stage: &[u16]) -> Result<Vec<bool>> {
    let mut sunk = candidates(op, graph, live, stage)?;
    keep_what_is_smaller(op, graph, live, stage, &mut sunk)?;
    Ok(sunk)
}

fn candidates(op: &str, graph: &Graph, live: &[bool], stage: &[u16]) -> Result<Vec<bool>> {
    let derived = derived(op, graph, live)?;
    let overwritten = overwritten(op, graph, live)?;
    let mut sunk = table(op, false, graph.len())?;
    // The least stage in which a node is needed.
    let mut earliest = table(op, u16::MAX, graph.len())?;
    for &output in &graph.outputs {
        earliest[output.index()] = 0;
    }
    for id in graph.ids().rev().filter(|id| live[id.index()]) {
        interrupt::check_at(id.index())?;
        let index = id.index();
        sunk[index] = earliest[index] > stage[index]
            && may_move(graph.op(id), derived[index])
            && !graph.operands(id).iter().any(|operand| overwritten[operand.index()]);
        let needs_operands = if sunk[index] { earliest[index] } else { stage[index] };
        for operand in graph.operands(id) {
            let least = &mut earliest[operand.index()];
            *least = (*least).min(needs_operands);
        }
    }
    Ok(sunk)
}

fn may_move(op: Op, derived: bool) -> bool {
    match op {
        Op::Elementwise(_) | Op::Cast | Op::StopGradient => true,
        Op::Iota { .. } | Op::Reshape | Op::Transpose { .. } | Op::Broadcast => true,
        Op::Reduce { .. } | Op::Pad { .. } | Op::StridedRead { .. } => derived,
        _ => false,
    }
}

/// Nodes with pass and position of the node before them: a rule created them beside their primal.
fn derived(op: &str, graph: &Graph, live: &[bool]) -> Result<Vec<bool>> {
    let mut derived = table(op, false, graph.len())?;
    let mut before = None;
    for id in graph.ids().filter(|id| live[id.index()] && !graph.op(*id).is_leaf()) {
        let attributes = graph.attributes(id);
        let here = Some((attributes.pass, attributes.position));
        derived[id.index()] = here == before;
        before = here;
    }
    Ok(derived)
}

/// Values that a later node overwrites, and views by shape of such values.
fn overwritten(op: &str, graph: &Graph, live: &[bool]) -> Result<Vec<bool>> {
    let mut overwritten = table(op, false, graph.len())?;
    for id in graph.ids().filter(|id| live[id.index()] && graph.op(*id).overwrites_base()) {
        // A leaf stays as it is in any case: its user copies it first.
        if let Some(base) = graph.operands(id).first().filter(|&&base| !graph.op(base).is_leaf()) {
            overwritten[base.index()] = true;
        }
    }
    if !overwritten.contains(&true) {
        return Ok(overwritten);
    }
    for id in graph.ids() {
        if matches!(graph.op(id), Op::Reshape | Op::Transpose { .. } | Op::Broadcast) {
            overwritten[id.index()] |= graph.operands(id).iter().any(|operand| overwritten[operand.index()]);
        }
    }
    Ok(overwritten)
}

/// Takes back each move whose operands would be kept for it alone and have more bytes than the node.
fn keep_what_is_smaller(op: &str, graph: &Graph, live: &[bool], stage: &[u16], sunk: &mut [bool]) -> Result<()> {
    if !sunk.contains(&true) {
        return Ok(());
    }
    // Of each node that stays: the number of its users that moved away, and whether it is kept in any case.
    let mut moved_users = table(op, 0u32, graph.len())?;
    let mut kept = table(op, false, graph.len())?;
    for output in &graph.outputs {
        kept[output.index()] = true;
    }
    for id in graph.ids().filter(|id| live[id.index()]) {
        for operand in graph.operands(id) {
            let operand = operand.index();
            if stage[id.index()] > stage[operand] {
                kept[operand] = true;
            } else if sunk[id.index()] {
                moved_users[operand] += 1;
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
