//! Checkpointing over the iterations of a loop: a rewriting of the graph, before anything else is planned.
//!
//! Reverse mode writes a scan that stacks the states of its carries, and one that reads the stacks the other way. Where
//! nobody else reads them, the first may keep some of the states only, in slots, and the second compute the others anew
//! (`ckad_graph::Reverse`), each iteration as often as the binomial schedule says: results are the same to the bit.
//! What cannot be written so (states that a gradient of the gradient reads) is kept as it is. A loop of unknown length
//! keeps its states in slots anyway; here it is said how many there are.

use std::sync::Arc;

use ckad_graph::{
    Call, CallKind, CheckpointPolicy, Error, Graph, NodeId, Op, RegionId, Result, Reverse, Rewind, Scan, While,
};
use ckad_graph::{binomial, interrupt, tables};
use ckad_transform::with_inputs;
use rustc_hash::FxHashMap;

/// The operation whose errors these are.
const OP: &str = "plan";

/// A graph whose loops keep fewer states.
#[derive(Debug)]
pub struct Checkpointed {
    pub graph: Graph,
    /// Operations of the iterations that are computed anew.
    pub extra_flops: u64,
    /// The most slots of a loop.
    pub slots: u32,
}

/// How many states a loop of so many iterations keeps under a policy.
fn slots(policy: CheckpointPolicy, trips: u32) -> u32 {
    match policy {
        CheckpointPolicy::None
        | CheckpointPolicy::Auto
        | CheckpointPolicy::Recompute
        | CheckpointPolicy::Offload(_)
        | CheckpointPolicy::Keep
        | CheckpointPolicy::User(_) => trips,
        CheckpointPolicy::Segments(count) | CheckpointPolicy::Revolve(count) | CheckpointPolicy::Mixed(count) => {
            count.max(1)
        }
        CheckpointPolicy::Log => u32::BITS - trips.leading_zeros(),
        // Every iteration at most twice: the first sweep, and once more.
        CheckpointPolicy::Sqrt => binomial::least_slots(trips.into(), 2) as u32,
    }
}

/// How many states a loop of unknown length keeps under a policy.
fn slots_of_unknown(policy: CheckpointPolicy) -> u32 {
    match policy {
        CheckpointPolicy::Segments(count) | CheckpointPolicy::Revolve(count) | CheckpointPolicy::Mixed(count) => {
            count.clamp(1, While::SLOTS)
        }
        _ => While::SLOTS,
    }
}

/// The graph under a policy; None where every loop keeps all states, or as many as it was recorded with.
pub fn checkpointed(graph: &Graph, policy: CheckpointPolicy) -> Result<Option<Checkpointed>> {
    rewritten(graph, &mut Readers::default(), |region, trips| {
        let policy = policy_of(graph, region, policy);
        trips.map_or_else(|| slots_of_unknown(policy), |trips| slots(policy, trips))
    })
}

/// How many states loops keep under a limit: step by step fewer, which takes step by step more work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    All,
    /// So many eighths of all.
    Eighths(u32),
    /// As few as let an iteration be computed so often.
    Times(u64),
}

impl Level {
    /// Of a loop of so many iterations, or of one of unknown length.
    fn slots(self, trips: Option<u32>) -> u32 {
        let least = |trips: u32, times| binomial::least_slots(trips.into(), times) as u32;
        match (self, trips) {
            (Level::All, trips) => trips.unwrap_or(While::SLOTS),
            (Level::Eighths(eighths), Some(trips)) => (trips / 8 * eighths).max(least(trips, 2)),
            (Level::Times(times), Some(trips)) => least(trips, times),
            (Level::Eighths(eighths), None) => While::SLOTS / 8 * eighths,
            // With one slot the work grows with the square of a length that nobody knows.
            (Level::Times(times), None) => u32::try_from(16 / times).unwrap_or(0).max(2),
        }
    }
}

/// The levels of a graph, each with its graph. They are fixed by the graph alone, and about as many as the number of
/// iterations has digits.
pub(crate) struct Levels<'a> {
    graph: &'a Graph,
    levels: std::vec::IntoIter<Level>,
    readers: Readers,
}

/// Calls that read states, by those that they replace: at each level they have the same bodies.
type Readers = FxHashMap<NodeId, Arc<Call>>;

impl<'a> Levels<'a> {
    pub(crate) fn of(graph: &'a Graph) -> Result<Levels<'a>> {
        let mut trips: Vec<Option<u32>> = Vec::new();
        let mut kept = |_, count: Option<u32>| {
            trips.push(count);
            Level::All.slots(count)
        };
        if !graph.calls.is_empty() {
            pairs(graph, |region, count| kept(region, Some(count)))?;
            of_unknown_length(graph, |region| kept(region, None))?;
        }
        trips.sort_unstable();
        trips.dedup();
        let most = trips.iter().map(|&trips| Level::All.slots(trips)).max().unwrap_or(0);
        let mut levels = vec![Level::All];
        // Keeping all but one is keeping all.
        let most_of = |trips: Option<u32>| trips.map_or(While::SLOTS, |trips| trips.saturating_sub(1));
        let slots =
            |level: Level| trips.iter().map(|&trips| level.slots(trips).min(most_of(trips))).collect::<Vec<u32>>();
        let mut before = slots(Level::All);
        let mut times = 2;
        let more = std::iter::from_fn(|| {
            let level = (times < u64::from(most)).then_some(Level::Times(times));
            times += (times / 4).max(1);
            level
        });
        let few = [6, 4, 3, 2, 1].map(Level::Eighths).into_iter().chain(more).chain([Level::Times(most.max(1).into())]);
        for level in few.filter(|_| most > 1) {
            let kept = slots(level);
            if kept != before {
                tables::push(OP, &mut levels, level)?;
                before = kept;
            }
        }
        Ok(Levels { graph, levels: levels.into_iter(), readers: Readers::default() })
    }

    /// The next level with fewer states; the graph itself, with all, comes first and is `None`.
    pub(crate) fn next(&mut self) -> Result<Option<Option<Checkpointed>>> {
        for level in self.levels.by_ref() {
            if level == Level::All {
                return Ok(Some(None));
            }
            let found = rewritten(self.graph, &mut self.readers, |_, trips| level.slots(trips))?;
            if found.is_some() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The policy that holds in a region.
fn policy_of(graph: &Graph, mut region: RegionId, policy: CheckpointPolicy) -> CheckpointPolicy {
    while region != RegionId(0) {
        let own = graph.regions[region.0 as usize];
        if own.policy != CheckpointPolicy::Recompute {
            return own.policy;
        }
        region = own.parent;
    }
    policy
}

/// Who reads the states of a scan: with the carries that they are of, the operands that they are.
struct Reader {
    id: NodeId,
    states: Vec<(usize, usize)>,
}

/// A scan whose states only one other scan reads, which runs the other way.
struct Pair {
    first: NodeId,
    /// The carries whose states are read, with the reader's operands that they are.
    states: Vec<(usize, usize)>,
    slots: u32,
}

/// `slots` says how many states a loop of so many iterations keeps, or one of unknown length.
fn rewritten(
    graph: &Graph,
    readers: &mut Readers,
    mut slots: impl FnMut(RegionId, Option<u32>) -> u32,
) -> Result<Option<Checkpointed>> {
    if graph.calls.is_empty() {
        return Ok(None);
    }
    let pairs = pairs(graph, |region, trips| slots(region, Some(trips)))?;
    let unknown = of_unknown_length(graph, |region| slots(region, None))?;
    if pairs.is_empty() && unknown.is_empty() {
        return Ok(None);
    }
    let keeps: FxHashMap<NodeId, u32> = pairs.values().map(|pair| (pair.first, pair.slots)).collect();
    let mut target = graph.derived()?;
    target.reserve(graph.len() + pairs.len(), graph.operand_count())?;
    let mut map: Vec<NodeId> = tables::room(OP, graph.len())?;
    let mut extra_flops = 0u64;
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let node = *graph.node(id);
        let copies = tables::list(OP, graph.operands(id).iter().map(|operand| map[operand.index()]))?;
        let copy = match (node.op, pairs.get(&id), keeps.get(&id)) {
            (Op::Input(_), ..) => target.push_input(node.dtype, node.shape, node.attributes)?,
            (Op::Call(_), Some(pair), _) => {
                let (kind, bodies, operands) = reverse(graph, &mut target, id, pair, &map)?;
                let call = ckad_prim::call(CallKind::Reverse(kind), bodies);
                extra_flops = extra_flops.saturating_add(ahead_flops(&call, kind));
                let call = Arc::new(match readers.get(&id) {
                    Some(known) => call.sharing(known),
                    None => call,
                });
                readers.insert(id, Arc::clone(&call));
                let op = Op::Call(target.push_call(&call)?);
                target.push(op, &operands, node.dtype, node.shape, node.attributes)?
            }
            (Op::Call(_), None, Some(&slots)) => {
                let call = call_of(graph, id)?;
                let scan = Scan { slots, ..call_scan(graph, id)? };
                let bodies = tables::tried(OP, call.bodies.iter().map(Graph::copied))?;
                let kept = ckad_prim::call(CallKind::Scan(scan), bodies).sharing(call);
                let op = Op::Call(target.push_call(&Arc::new(kept))?);
                target.push(op, &copies, node.dtype, node.shape, node.attributes)?
            }
            (Op::Call(_), None, None) if unknown.contains_key(&id) => {
                let call = call_of(graph, id)?;
                let kind = match call.kind {
                    CallKind::While(looped) => {
                        let fewer = While { slots: unknown[&id], ..looped };
                        extra_flops = extra_flops.saturating_add(rewound_flops(call, looped, fewer));
                        CallKind::While(fewer)
                    }
                    CallKind::Rewind(rewind) => CallKind::Rewind(Rewind { slots: unknown[&id], ..rewind }),
                    other => other,
                };
                let bodies = tables::tried(OP, call.bodies.iter().map(Graph::copied))?;
                let op = Op::Call(target.push_call(&Arc::new(ckad_prim::call(kind, bodies)))?);
                target.push(op, &copies, node.dtype, node.shape, node.attributes)?
            }
            (Op::Part(_), ..) => {
                let slots = slots_of_part(graph, id).and_then(|looped| unknown.get(&looped));
                let shape = match (slots, graph.shape(id).split_first()) {
                    (Some(&slots), Some((_, state))) => {
                        let shape: Vec<i64> = std::iter::once(i64::from(slots)).chain(state.iter().copied()).collect();
                        target.lists.intern(&shape)?
                    }
                    _ => node.shape,
                };
                target.push(node.op, &copies, node.dtype, shape, node.attributes)?
            }
            _ => target.push(node.op, &copies, node.dtype, node.shape, node.attributes)?,
        };
        map.push(copy);
    }
    target.outputs = tables::list(OP, graph.outputs.iter().map(|output| map[output.index()]))?;
    // Stacks of all states are behind; what is left of them has no user.
    let outputs = tables::list(OP, target.outputs.iter().copied())?;
    let graph = ckad_transform::extract(&target, &outputs)?;
    let slots = keeps.values().chain(unknown.values()).copied().max().unwrap_or(0);
    Ok(Some(Checkpointed { graph, extra_flops, slots }))
}

fn call_of(graph: &Graph, id: NodeId) -> Result<&Arc<Call>> {
    graph.call(id).ok_or_else(|| Error::internal(OP, format!("%{} is no call", id.0)))
}

fn call_scan(graph: &Graph, id: NodeId) -> Result<Scan> {
    match call_of(graph, id)?.kind {
        CallKind::Scan(scan) => Ok(scan),
        other => Err(Error::internal(OP, format!("{other:?} is no scan"))),
    }
}

/// The loop of unknown length of whose slots the node is.
fn slots_of_part(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let Op::Part(part) = graph.op(id) else { return None };
    let call = *graph.operands(id).first()?;
    match graph.call(call)?.kind {
        CallKind::While(looped) if part >= looped.kept() => Some(call),
        _ => None,
    }
}

/// Loops of unknown length, and those that go back through them, with how many slots they are to have; none that have
/// as many already, and none whose slots somebody else reads, or who reads slots of another one too.
fn of_unknown_length(graph: &Graph, mut slots: impl FnMut(RegionId) -> u32) -> Result<FxHashMap<NodeId, u32>> {
    let mut readers: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    let mut fixed: Vec<NodeId> = graph.outputs.iter().filter_map(|&output| slots_of_part(graph, output)).collect();
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let goes_back = matches!(graph.op(id), Op::Call(_))
            && graph.call(id).is_some_and(|call| matches!(call.kind, CallKind::Rewind(_)));
        for looped in graph.operands(id).iter().filter_map(|&operand| slots_of_part(graph, operand)) {
            let known = *readers.entry(id).or_insert(looped);
            if !goes_back || known != looped {
                fixed.extend([known, looped]);
            }
        }
    }
    let mut found: FxHashMap<NodeId, u32> = FxHashMap::default();
    for (reader, looped) in readers {
        let CallKind::While(kind) = call_of(graph, looped)?.kind else { continue };
        let wanted = slots(graph.attributes(looped).region);
        if wanted != kind.slots && !fixed.contains(&looped) {
            found.insert(looped, wanted);
            found.insert(reader, wanted);
        }
    }
    Ok(found)
}

/// By reader.
fn pairs(graph: &Graph, mut slots: impl FnMut(RegionId, u32) -> u32) -> Result<FxHashMap<NodeId, Pair>> {
    // For each scan, the readers of its states; None where that is no scan the other way, or an output.
    let mut readers: FxHashMap<NodeId, Option<Reader>> = FxHashMap::default();
    let mut first_of: FxHashMap<NodeId, NodeId> = FxHashMap::default();
    let state = |id: NodeId| {
        let Op::Part(part) = graph.op(id) else { return None };
        let call = graph.operands(id)[0];
        let CallKind::Scan(scan) = graph.call(call)?.kind else { return None };
        let carry = part.checked_sub(scan.states(0))?;
        Some((call, scan, carry as usize))
    };
    let mut states_read: FxHashMap<NodeId, bool> = FxHashMap::default();
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        if let Some((call, ..)) = state(id) {
            states_read.insert(call, true);
        }
        for (index, &operand) in graph.operands(id).iter().enumerate() {
            let Some((call, scan, carry)) = state(operand) else { continue };
            let fits = match graph.call(id).map(|reader| reader.kind).filter(|_| matches!(graph.op(id), Op::Call(_))) {
                Some(CallKind::Scan(reader)) => {
                    let first_xs = (reader.consts + reader.carries) as usize;
                    reader.trips == scan.trips && reader.reverse != scan.reverse && index >= first_xs
                }
                _ => false,
            };
            let known = readers.entry(call).or_insert_with(|| fits.then(|| Reader { id, states: Vec::new() }));
            match known {
                Some(Reader { id: reader, states })
                    if fits && *reader == id && states.iter().all(|&(other, _)| other != carry) =>
                {
                    states.push((carry, index));
                }
                _ => *known = None,
            }
        }
    }
    for output in &graph.outputs {
        if let Some((call, ..)) = state(*output) {
            readers.insert(call, None);
        }
    }
    let mut pairs: FxHashMap<NodeId, Pair> = FxHashMap::default();
    for first in graph.ids() {
        let Some(Some(Reader { id: reader, states })) = readers.remove(&first) else { continue };
        let scan = call_scan(graph, first)?;
        let slots = slots(graph.attributes(first).region, scan.trips);
        // Who reads states of two loops goes on with those of the first; whose own states are read keeps all.
        let taken = first_of.contains_key(&reader) || states_read.contains_key(&reader);
        if slots.saturating_add(1) >= scan.trips || taken {
            continue;
        }
        first_of.insert(reader, first);
        pairs.insert(reader, Pair { first, states, slots });
    }
    Ok(pairs)
}

/// The carries that the ones that are read depend on, those first.
fn carries(body: &Graph, scan: Scan, states: &[(usize, usize)]) -> Result<Vec<usize>> {
    let mut is_read = tables::filled(OP, false, scan.carries as usize)?;
    states.iter().for_each(|&(carry, _)| is_read[carry] = true);
    let outputs = tables::list(OP, states.iter().map(|&(carry, _)| body.outputs[carry]))?;
    let first = 1 + scan.consts as usize;
    let next = |input: usize| {
        let carry = input.checked_sub(first).filter(|&carry| carry < scan.carries as usize)?;
        Some(body.outputs[carry])
    };
    let used = ckad_transform::used_in_loop(OP, body, &outputs, next)?;
    let more = (0..scan.carries as usize).filter(|&carry| used[first + carry] && !is_read[carry]);
    tables::list(OP, states.iter().map(|&(carry, _)| carry).chain(more))
}

/// The kernel of the reader, its bodies and operands.
fn reverse(
    graph: &Graph,
    target: &mut Graph,
    id: NodeId,
    pair: &Pair,
    map: &[NodeId],
) -> Result<(Reverse, Vec<Graph>, Vec<NodeId>)> {
    let (reader, scan) = (call_scan(graph, id)?, call_scan(graph, pair.first)?);
    let own = &call_of(graph, id)?.bodies[0];
    let other = &call_of(graph, pair.first)?.bodies[0];
    let copy = |operand: &NodeId| map[operand.index()];

    // The reader's body takes the states first.
    let first_xs = (reader.consts + reader.carries) as usize;
    let is_state = |operand: usize| pair.states.iter().any(|&(_, state)| state == operand);
    let rest: Vec<usize> = (first_xs..reader.operands()).filter(|&operand| !is_state(operand)).collect();
    let states = pair.states.iter().map(|&(_, operand)| operand);
    let order = (0..first_xs).chain(states).chain(rest.iter().copied()).map(Scan::input_of);
    let order: Vec<usize> = std::iter::once(0).chain(order).collect();
    let body = with_inputs(OP, own, &order, &[], &own.outputs)?;
    let given = graph.operands(id);
    let mut operands: Vec<NodeId> = (0..first_xs).chain(rest).map(|operand| copy(&given[operand])).collect();

    let carries = carries(other, scan, &pair.states)?;
    let outputs: Vec<NodeId> = carries.iter().map(|&carry| other.outputs[carry]).collect();
    let used = ckad_transform::used_inputs(OP, other, &outputs)?;
    let (consts, first_xs) = (scan.consts as usize, (scan.consts + scan.carries) as usize);
    let is_used = |operand: &usize| used[Scan::input_of(*operand)];
    let kept_consts: Vec<usize> = (0..consts).filter(is_used).collect();
    let kept_xs: Vec<usize> = (first_xs..scan.operands()).filter(is_used).collect();
    let taken = kept_consts.iter().copied().chain(carries.iter().map(|carry| consts + carry));
    let taken = taken.chain(kept_xs.iter().copied()).map(Scan::input_of);
    let order: Vec<usize> = std::iter::once(0).chain(taken).collect();
    let ahead = with_inputs(OP, other, &order, &[], &outputs)?;
    let given = graph.operands(pair.first);
    operands.extend(kept_consts.iter().chain(&kept_xs).map(|&operand| copy(&given[operand])));
    for &carry in &carries {
        let input = other.inputs[Scan::input_of(consts + carry)];
        let mut shape = vec![i64::from(pair.slots) + 1];
        shape.extend_from_slice(other.shape(input));
        let shape = target.lists.intern(&shape)?;
        let part = Op::Part(scan.states(carry));
        let attributes = graph.attributes(pair.first);
        let call = map[pair.first.index()];
        operands.push(target.push(part, &[call], other.dtype(input), shape, attributes)?);
    }
    let kind = Reverse {
        scan: reader,
        states: pair.states.len() as u32,
        slots: pair.slots,
        consts: kept_consts.len() as u32,
        carries: carries.len() as u32,
        xs: kept_xs.len() as u32,
    };
    Ok((kind, vec![body, ahead], operands))
}

/// Operations of what a reader computes anew.
fn ahead_flops(call: &Call, kind: Reverse) -> u64 {
    iteration_flops(call).saturating_mul(kind.again())
}

/// Operations that fewer slots of a loop of unknown length cost for an iteration, as its other operations are counted.
/// They grow with the length: they are those of one that goes round so often that all slots are used up at two computes
/// of each iteration.
fn rewound_flops(call: &Call, before: While, after: While) -> u64 {
    let slots = u64::from(While::SLOTS);
    let trips = (slots + 1) * (slots + 2) / 2;
    let steps = |looped: While| binomial::forward_steps(trips, looped.slots.into());
    iteration_flops(call).saturating_mul(steps(after).saturating_sub(steps(before))) / trips
}

/// Operations of an iteration alone.
fn iteration_flops(call: &Call) -> u64 {
    let ahead = &call.bodies[1];
    ahead.ids().map(|id| ckad_prim::cost(ahead, id).flops).fold(0, u64::saturating_add)
}
