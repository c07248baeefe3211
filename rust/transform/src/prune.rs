//! Calls without what nobody asks for: parts that are not read, and whatever in the bodies serves these alone.
//!
//! A carry is needed where its last value or its states are, or another needed carry or stacked value depends on it: a
//! fixpoint. A carry that each iteration hands on as it is becomes a constant, and constants and arrays that are given
//! twice become one.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use ckad_graph::{Branch, Call, CallId, CallKind, Error, Graph, NodeId, Op, Result, Scan, While, interrupt, tables};
use rustc_hash::FxHashMap;

use crate::body::{call_of, only_body, used_in_loop, used_inputs, with_inputs};
use crate::copy::{Copy, derived, set_before, table};

/// The operation whose errors these are.
const OP: &str = "simplify";

/// What becomes of a part.
#[derive(Clone, Copy)]
enum Slim {
    /// Nobody asks for it.
    Gone,
    Part(u32),
    /// The same as that operand of the call.
    Operand(usize),
    /// That operand, as often as there are iterations.
    Repeated(usize),
}

/// A call after it was pruned.
struct Pruned {
    call: Arc<Call>,
    /// The operands that are left, by their old indices.
    operands: Vec<usize>,
    parts: Vec<Slim>,
}

/// The graph with its calls pruned.
pub(crate) fn pruned(mut graph: Graph) -> Result<Graph> {
    if !graph.ids().any(|id| matches!(graph.op(id), Op::Call(_))) {
        // Those of a graph that this one was derived from.
        graph.calls.clear();
        return Ok(graph);
    }
    let mut live = table(OP, false, graph.len())?;
    for output in &graph.outputs {
        live[output.index()] = true;
    }
    let mut asked: FxHashMap<NodeId, Vec<bool>> = FxHashMap::default();
    let mut calls: FxHashMap<NodeId, Pruned> = FxHashMap::default();
    for id in graph.ids().rev() {
        interrupt::check_at(id.index())?;
        if !live[id.index()] {
            continue;
        }
        match graph.op(id) {
            Op::Call(_) => {
                let call = call_of(&graph, id)?;
                let parts = asked.remove(&id).unwrap_or_default();
                let pruned = match call.kind {
                    CallKind::Scan(scan) => prune_scan(call, scan, &parts, graph.operands(id))?,
                    CallKind::While(looped) => prune_while(call, looped, &parts)?,
                    CallKind::Branch(branch) => prune_branch(call, branch, &parts)?,
                    CallKind::Rewind(rewind) => Pruned {
                        call: Arc::clone(call),
                        operands: (0..rewind.operands()).collect(),
                        parts: (0..rewind.carries).map(Slim::Part).collect(),
                    },
                    CallKind::Custom(_) | CallKind::Pullback(_) => Pruned {
                        call: Arc::clone(call),
                        operands: (0..graph.operands(id).len()).collect(),
                        parts: (0..call.kind.parts() as u32).map(Slim::Part).collect(),
                    },
                    CallKind::Reverse(_) => return Err(Error::internal(OP, "a planned loop")),
                };
                let through = pruned.parts.iter().filter_map(|part| match part {
                    Slim::Operand(operand) | Slim::Repeated(operand) => Some(operand),
                    _ => None,
                });
                for &operand in pruned.operands.iter().chain(through) {
                    live[graph.operands(id)[operand].index()] = true;
                }
                tables::room_for_keys(OP, &mut calls, 1)?;
                calls.insert(id, pruned);
            }
            Op::Part(part) => {
                let call = graph.operands(id)[0];
                live[call.index()] = true;
                tables::room_for_keys(OP, &mut asked, 1)?;
                let parts = asked.entry(call).or_default();
                let length = parts.len().max(part as usize + 1);
                parts.resize(length, false);
                parts[part as usize] = true;
            }
            _ => graph.operands(id).iter().for_each(|operand| live[operand.index()] = true),
        }
    }
    copied(&graph, &live, &calls)
}

fn copied(graph: &Graph, live: &[bool], calls: &FxHashMap<NodeId, Pruned>) -> Result<Graph> {
    let mut target = derived(graph, 1)?;
    // Those that are left come back in their order.
    target.calls.clear();
    let mut known = KnownCalls::default();
    let mut copy = Copy::new(OP, graph)?;
    copy.inputs(&mut target, graph)?;
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let node = *graph.node(id);
        if !live[id.index()] || matches!(node.op, Op::Input(_)) {
            continue;
        }
        let below = graph.operands(id).first().and_then(|call| Some((*call, calls.get(call)?)));
        match (node.op, calls.get(&id), below) {
            (Op::Call(_), Some(pruned), _) => {
                let all = graph.operands(id);
                let operands = tables::tried(OP, pruned.operands.iter().map(|&operand| copy.of(all[operand])))?;
                let op = Op::Call(known.entry(&mut target, &pruned.call)?);
                copy.set(id, target.push(op, &operands, node.dtype, node.shape, node.attributes)?);
            }
            (Op::Part(part), _, Some((call, pruned))) => {
                let operand = |index: usize| copy.of(graph.operands(call)[index]);
                let mut push = |op, from: NodeId| target.push(op, &[from], node.dtype, node.shape, node.attributes);
                let found = match pruned.parts[part as usize] {
                    Slim::Operand(index) => operand(index)?,
                    Slim::Repeated(index) => push(Op::Broadcast, operand(index)?)?,
                    Slim::Part(part) => push(Op::Part(part), copy.of(call)?)?,
                    Slim::Gone => return Err(Error::internal(OP, "a part that is asked for is gone")),
                };
                copy.set(id, found);
            }
            _ => {
                copy.node(&mut target, graph, id, node.attributes)?;
            }
        }
    }
    target.outputs = copy.all(&graph.outputs)?;
    Ok(target)
}

/// The calls of a table, by the hash of their structure and a number among those of one hash.
#[derive(Default)]
struct KnownCalls(FxHashMap<(u64, u32), CallId>);

impl KnownCalls {
    /// The entry of a call in the table: that of an equal one, where there is one.
    fn entry(&mut self, target: &mut Graph, call: &Arc<Call>) -> Result<CallId> {
        let mut key = (call.structure_hash(), 0);
        while let Some(&known) = self.0.get(&key) {
            if target.calls[known.0 as usize].same_structure(call) {
                return Ok(known);
            }
            key.1 += 1;
        }
        tables::room_for_keys(OP, &mut self.0, 1)?;
        let id = target.push_call(call)?;
        self.0.insert(key, id);
        Ok(id)
    }
}

/// The bodies with the inputs and outputs that are left.
fn smaller(call: &Call, inputs: &[&[usize]; 2], outputs: [&[usize]; 2], kind: CallKind) -> Result<Arc<Call>> {
    let bodies = call.bodies.iter().enumerate().map(|(index, body)| {
        let outputs: Vec<NodeId> = outputs[index].iter().map(|&output| body.outputs[output]).collect();
        pruned(with_inputs(OP, body, inputs[index], &[], &outputs)?)
    });
    Ok(Arc::new(ckad_prim::call(kind, tables::tried(OP, bodies)?)))
}

fn prune_while(call: &Arc<Call>, looped: While, asked: &[bool]) -> Result<Pruned> {
    let [test, step] = call.bodies.as_slice() else { return Err(Error::internal(OP, "a loop without a test")) };
    let (tests, consts, carries) = (looped.test_consts as usize, looped.consts as usize, looped.carries as usize);
    let tested = used_inputs(OP, test, &test.outputs)?;
    let is_asked = |part: u32| asked.get(part as usize) == Some(&true);
    let is_needed = |carry: usize| is_asked(carry as u32) || is_asked(looped.states(carry)) || tested[tests + carry];
    let mut needed: Vec<bool> = (0..carries).map(is_needed).collect();
    let used = loop {
        let outputs: Vec<NodeId> = (0..carries).filter(|&carry| needed[carry]).map(|c| step.outputs[c]).collect();
        let used =
            used_in_loop(OP, step, &outputs, |input| input.checked_sub(consts).map(|carry| step.outputs[carry]))?;
        let before = needed.clone();
        (0..carries).for_each(|carry| needed[carry] |= used[consts + carry]);
        if needed == before {
            break used;
        }
    };
    let handed = looped.handed as usize;
    // What was handed over of a carry goes with it.
    let stays = |input: usize| match input.checked_sub(2) {
        Some(carry) if input < handed => needed[carry],
        None if input < handed => true,
        _ => tested[input],
    };
    let new_tests: Vec<usize> = (0..tests).filter(|&input| stays(input)).collect();
    let new_consts: Vec<usize> = (0..consts).filter(|&input| used[input]).collect();
    let new_carries: Vec<usize> = (0..carries).filter(|&carry| needed[carry]).collect();
    let slim = While {
        handed: new_tests.iter().filter(|&&input| input < handed).count() as u32,
        test_consts: new_tests.len() as u32,
        consts: new_consts.len() as u32,
        carries: new_carries.len() as u32,
        slots: looped.slots,
    };
    let with_carries = |own: &[usize], before: usize| -> Vec<usize> {
        own.iter().copied().chain(new_carries.iter().map(|&carry| before + carry)).collect()
    };
    let (of_test, of_step) = (with_carries(&new_tests, tests), with_carries(&new_consts, consts));
    let before = set_before(OP, needed.iter().copied())?;
    let rank = |carry: usize| needed[carry].then(|| before[carry]);
    let parts = (0..carries).map(|carry| rank(carry).map_or(Slim::Gone, |rank| Slim::Part(rank as u32)));
    let parts = parts.chain([slim.count(), slim.kept()].map(Slim::Part));
    let states = (0..carries).map(|carry| rank(carry).map_or(Slim::Gone, |rank| Slim::Part(slim.states(rank))));
    let parts = parts.chain(states).collect();
    let operands = new_tests.iter().copied().chain(of_step.iter().map(|&input| tests + input)).collect();
    let call = match slim == looped {
        true => Arc::clone(call),
        false => smaller(call, &[&of_test, &of_step], [&[0], &new_carries], CallKind::While(slim))?,
    };
    Ok(Pruned { call, operands, parts })
}

fn prune_branch(call: &Arc<Call>, branch: Branch, asked: &[bool]) -> Result<Pruned> {
    let results: Vec<usize> = (0..branch.results as usize).filter(|&part| asked.get(part) == Some(&true)).collect();
    let mut used = vec![false; branch.values as usize];
    for body in &call.bodies {
        let outputs: Vec<NodeId> = results.iter().map(|&result| body.outputs[result]).collect();
        let found = used_inputs(OP, body, &outputs)?;
        used.iter_mut().zip(found).for_each(|(used, found)| *used |= found);
    }
    let values: Vec<usize> = (0..used.len()).filter(|&value| used[value]).collect();
    let slim = Branch { values: values.len() as u32, results: results.len() as u32 };
    let mut parts = table(OP, Slim::Gone, branch.results as usize)?;
    results.iter().zip(0..).for_each(|(&result, rank)| parts[result] = Slim::Part(rank));
    let operands = std::iter::once(0).chain(values.iter().map(|value| value + 1)).collect();
    let call = match slim == branch {
        true => Arc::clone(call),
        false => smaller(call, &[&values, &values], [&results, &results], CallKind::Branch(slim))?,
    };
    Ok(Pruned { call, operands, parts })
}

fn prune_scan(call: &Arc<Call>, scan: Scan, asked: &[bool], operands: &[NodeId]) -> Result<Pruned> {
    let body = only_body(call)?;
    let is_asked = |part: u32| asked.get(part as usize) == Some(&true);
    let (consts, carries, ys) = (scan.consts as usize, scan.carries as usize, scan.ys as usize);
    let input = |carry: usize| Scan::input_of(consts + carry);
    let handed_on = |carry: usize| body.outputs[carry] == body.inputs[input(carry)];
    let needed = |carry: usize| is_asked(carry as u32) || is_asked(scan.states(carry));
    // Equal values are stacked once: the first that is asked for.
    let mut first_y: FxHashMap<NodeId, usize> = FxHashMap::default();
    tables::room_for_keys(OP, &mut first_y, ys)?;
    let mut stacked: Vec<usize> = Vec::new();
    for y in (0..ys).filter(|&y| is_asked((carries + y) as u32)) {
        if let Entry::Vacant(free) = first_y.entry(body.outputs[carries + y]) {
            free.insert(stacked.len());
            tables::push(OP, &mut stacked, y)?;
        }
    }
    let next = |carry: usize| (!handed_on(carry)).then(|| body.outputs[carry]);
    let stacks = stacked.iter().map(|&y| body.outputs[carries + y]);
    let seeds = tables::list(OP, (0..carries).filter(|&carry| needed(carry)).filter_map(next).chain(stacks.clone()))?;
    let carry_of = |index: usize| index.checked_sub(input(0)).filter(|&carry| carry < carries);
    let used = used_in_loop(OP, body, &seeds, |index| carry_of(index).and_then(next))?;
    let carried = |&carry: &usize| (needed(carry) || used[input(carry)]) && !handed_on(carry);
    let new_carries = tables::list(OP, (0..carries).filter(carried))?;
    let outputs = tables::list(OP, new_carries.iter().map(|&carry| body.outputs[carry]).chain(stacks))?;
    // Operands by what they become; of operands given twice the first alone.
    let mut same: Vec<(usize, usize)> = Vec::new();
    let mut distinct = |candidates: &mut dyn Iterator<Item = usize>| -> Result<Vec<usize>> {
        let mut first: FxHashMap<NodeId, usize> = FxHashMap::default();
        let mut kept: Vec<usize> = Vec::new();
        for operand in candidates {
            tables::room_for_keys(OP, &mut first, 1)?;
            match first.entry(operands[operand]) {
                Entry::Occupied(other) => {
                    tables::push(OP, &mut same, (Scan::input_of(operand), Scan::input_of(*other.get())))?;
                }
                Entry::Vacant(free) => {
                    free.insert(operand);
                    tables::push(OP, &mut kept, operand)?;
                }
            }
        }
        Ok(kept)
    };
    let is_used = |operand: &usize| used[Scan::input_of(*operand)];
    let constant = (0..consts).chain((0..carries).filter(|&carry| handed_on(carry)).map(|carry| consts + carry));
    let new_consts = distinct(&mut constant.filter(is_used))?;
    let new_xs = distinct(&mut (consts + carries..operands.len()).filter(is_used))?;

    let mut rank: Vec<Option<usize>> = table(OP, None, carries)?;
    new_carries.iter().enumerate().for_each(|(index, &carry)| rank[carry] = Some(index));
    let parts = (0..scan.parts()).map(|part| {
        if part < carries {
            match rank[part] {
                Some(rank) => Slim::Part(rank as u32),
                None if handed_on(part) => Slim::Operand(consts + part),
                None => Slim::Gone,
            }
        } else if part < carries + ys {
            let rank = first_y.get(&body.outputs[part]);
            rank.map_or(Slim::Gone, |rank| Slim::Part((new_carries.len() + rank) as u32))
        } else {
            let carry = part - carries - ys;
            match rank[carry] {
                Some(rank) => Slim::Part((new_carries.len() + stacked.len() + rank) as u32),
                None if handed_on(carry) => Slim::Repeated(consts + carry),
                None => Slim::Gone,
            }
        }
    });
    let parts: Vec<Slim> = tables::list(OP, parts)?;
    let slim = Scan {
        consts: new_consts.len() as u32,
        carries: new_carries.len() as u32,
        xs: new_xs.len() as u32,
        ys: stacked.len() as u32,
        ..scan
    };
    let carried = new_carries.iter().map(|&carry| consts + carry);
    let left: Vec<usize> = new_consts.iter().copied().chain(carried).chain(new_xs.iter().copied()).collect();
    if slim == scan {
        return Ok(Pruned { call: Arc::clone(call), operands: left, parts });
    }
    let order: Vec<usize> = std::iter::once(0).chain(left.iter().map(|&operand| Scan::input_of(operand))).collect();
    let body = pruned(with_inputs(OP, body, &order, &same, &outputs)?)?;
    let call = Arc::new(ckad_prim::call(CallKind::Scan(slim), vec![body]));
    Ok(Pruned { call, operands: left, parts })
}
