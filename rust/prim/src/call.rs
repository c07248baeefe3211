//! `call` and `part`: loops and branches, and their results. What they mean is in `ckad_graph::Call`; they are
//! differentiated by `ckad_transform`, whose work it is to derive their bodies.

use std::sync::Arc;

use ckad_graph::{
    BodyWork, Branch, Call, CallKind, Custom, DType, Error, Graph, NodeId, Op, Pullback, Result, Reverse, Rewind, Scan,
    While, shape_text,
};

use crate::dispatch::{cost, verify};
use crate::infer::{Inferred, exactly};
use crate::{Builder, Cost};

const NAME: &str = "call";

fn broken(what: impl Into<String>) -> Error {
    Error::internal(NAME, what)
}

/// dtype and shape of a node.
fn spec(graph: &Graph, node: NodeId) -> (DType, &[i64]) {
    (graph.dtype(node), graph.shape(node))
}

fn same(what: &str, given: (DType, &[i64]), wanted: (DType, &[i64])) -> Result<()> {
    if given == wanted {
        return Ok(());
    }
    let text = |(dtype, shape): (DType, &[i64])| format!("{dtype}{}", shape_text(shape));
    Err(broken(format!("{what} is {}, not {}", text(given), text(wanted))))
}

/// The bodies, as many as there are to be.
fn bodies<const N: usize>(call: &Call) -> Result<[&Graph; N]> {
    let bodies: Vec<&Graph> = call.bodies.iter().collect();
    bodies.try_into().map_err(|bodies: Vec<&Graph>| broken(format!("{} bodies", bodies.len())))
}

/// Do the inputs of a body take these operands?
fn check_inputs(graph: &Graph, body: &Graph, operands: &[&[NodeId]]) -> Result<()> {
    let operands = operands.concat();
    if body.inputs.len() != operands.len() {
        return Err(broken(format!("{} operands for {} inputs", operands.len(), body.inputs.len())));
    }
    let mut pairs = operands.iter().zip(&body.inputs);
    pairs.try_for_each(|(&operand, &input)| same("an operand", spec(graph, operand), spec(body, input)))
}

/// A body takes an index, constants, carries, and slices of arrays of that many.
fn check_reverse(graph: &Graph, operands: &[NodeId], reverse: Reverse, call: &Call) -> Result<()> {
    let [body, ahead] = bodies(call)?;
    let Reverse { scan, states, consts, carries, xs, .. } = reverse;
    if operands.len() != reverse.operands() {
        return Err(broken(format!("{} operands for {reverse:?}", operands.len())));
    }
    let (own, rest) = operands.split_at(reverse.own());
    let (other, slots) = rest.split_at((consts + xs) as usize);
    let inputs = body.inputs.iter().enumerate().skip(1);
    let first_states = 1 + (scan.consts + scan.carries) as usize;
    let is_state = |index: usize| (first_states..first_states + states as usize).contains(&index);
    let taken: Vec<(usize, NodeId)> =
        inputs.filter(|(index, _)| !is_state(*index)).map(|(index, &input)| (index, input)).collect();
    let sliced = |array: NodeId, count: u32, input: (DType, &[i64])| match graph.shape(array).split_first() {
        Some((&extent, slice)) if extent == i64::from(count) => same("slices", (graph.dtype(array), slice), input),
        _ => Err(broken(format!("an array of shape {} instead of {count} slices", shape_text(graph.shape(array))))),
    };
    if taken.len() != own.len() || ahead.inputs.len() != 1 + (consts + carries + xs) as usize {
        return Err(broken(format!("bodies that do not fit {reverse:?}")));
    }
    for (&operand, (index, input)) in own.iter().zip(taken) {
        if index < first_states {
            same("an operand", spec(graph, operand), spec(body, input))?;
        } else {
            sliced(operand, scan.trips, spec(body, input))?;
        }
    }
    let input = |index: usize| spec(ahead, ahead.inputs[1 + index]);
    for (index, &operand) in other.iter().enumerate() {
        if index < consts as usize {
            same("an operand", spec(graph, operand), input(index))?;
        } else {
            sliced(operand, scan.trips, input(index + carries as usize))?;
        }
    }
    for (carry, &operand) in slots.iter().enumerate() {
        sliced(operand, reverse.slots + 1, input(consts as usize + carry))?;
    }
    Ok(())
}

fn check_while(graph: &Graph, operands: &[NodeId], looped: While, call: &Call) -> Result<()> {
    let [test, step] = bodies(call)?;
    let (tests, rest) = operands.split_at_checked(looped.test_consts as usize).unwrap_or_default();
    let (consts, carries) = rest.split_at_checked(looped.consts as usize).unwrap_or_default();
    if carries.len() != looped.carries as usize || step.outputs.len() != carries.len() || test.outputs.len() != 1 {
        return Err(broken(format!("{} operands for {looped:?}", operands.len())));
    }
    check_inputs(graph, test, &[tests, carries])?;
    check_inputs(graph, step, &[consts, carries])?;
    same("the test", spec(test, test.outputs[0]), (DType::Bool, &[]))?;
    let mut pairs = step.outputs.iter().zip(&step.inputs[consts.len()..]);
    pairs.try_for_each(|(&output, &input)| same("a carry", spec(step, output), spec(step, input)))
}

fn check_rewind(graph: &Graph, operands: &[NodeId], rewind: Rewind, call: &Call) -> Result<()> {
    let [body, ahead] = bodies(call)?;
    let Some((&count, rest)) = operands.split_first().filter(|_| operands.len() == rewind.operands()) else {
        return Err(broken(format!("{} operands for {rewind:?}", operands.len())));
    };
    same("a number of iterations", spec(graph, count), (DType::I64, &[]))?;
    let (own, other) = rest.split_at(rewind.first_other());
    let (consts, slots) = other.split_at(rewind.other_consts as usize);
    let own_inputs = body.inputs.split_at_checked(own.len());
    let ahead_inputs = ahead.inputs.split_at_checked(consts.len());
    let (Some((of_body, states)), Some((of_ahead, carries))) = (own_inputs, ahead_inputs) else {
        return Err(broken(format!("bodies that do not fit {rewind:?}")));
    };
    let pairs =
        own.iter().zip(of_body).map(|pair| (pair, body)).chain(consts.iter().zip(of_ahead).map(|pair| (pair, ahead)));
    for ((&operand, &input), body) in pairs {
        same("an operand", spec(graph, operand), spec(body, input))?;
    }
    let number = i64::from(rewind.slots);
    same("what is in the slots", spec(graph, slots[0]), (DType::I64, &[number]))?;
    let slots = &slots[1..];
    if states.len() != slots.len() || carries.len() != slots.len() {
        return Err(broken(format!("bodies that do not fit {rewind:?}")));
    }
    for ((&slots, &state), &carry) in slots.iter().zip(states).zip(carries) {
        same("a state", spec(body, state), spec(ahead, carry))?;
        let (dtype, shape) = spec(ahead, carry);
        let stacked: Vec<i64> = std::iter::once(number).chain(shape.iter().copied()).collect();
        same("slots", spec(graph, slots), (dtype, &stacked))?;
    }
    for (body, consts) in [(body, rewind.consts), (ahead, rewind.other_consts)] {
        let mut pairs = body.outputs.iter().zip(&body.inputs[consts as usize..]);
        pairs.try_for_each(|(&output, &input)| same("a carry", spec(body, output), spec(body, input)))?;
    }
    let counts = body.outputs.len() == rewind.carries as usize && ahead.outputs.len() == slots.len();
    if counts { Ok(()) } else { Err(broken(format!("bodies that do not fit {rewind:?}"))) }
}

fn check_branch(graph: &Graph, operands: &[NodeId], branch: Branch, call: &Call) -> Result<()> {
    let both: [&Graph; 2] = bodies(call)?;
    let Some((&chosen, values)) = operands.split_first().filter(|(_, values)| values.len() == branch.values as usize)
    else {
        return Err(broken(format!("{} operands for {branch:?}", operands.len())));
    };
    same("what chooses", spec(graph, chosen), (DType::Bool, &[]))?;
    for body in both {
        check_inputs(graph, body, &[values])?;
        if body.outputs.len() != branch.results as usize {
            return Err(broken(format!("{} results for {branch:?}", body.outputs.len())));
        }
    }
    let mut pairs = both[0].outputs.iter().zip(&both[1].outputs);
    pairs.try_for_each(|(&one, &other)| same("a result", spec(both[0], one), spec(both[1], other)))
}

fn check_scan(graph: &Graph, operands: &[NodeId], scan: Scan, body: &Graph) -> Result<()> {
    let outputs = (scan.carries + scan.ys) as usize;
    if operands.len() != scan.operands() || body.inputs.len() != operands.len() + 1 || body.outputs.len() != outputs {
        let (inputs, returned) = (body.inputs.len(), body.outputs.len());
        return Err(broken(format!(
            "{} operands for {scan:?} with {inputs} inputs, {returned} outputs",
            operands.len()
        )));
    }
    same("the index", spec(body, body.inputs[0]), (DType::I64, &[]))?;
    let first_xs = (scan.consts + scan.carries) as usize;
    for (index, &operand) in operands.iter().enumerate() {
        let (dtype, shape) = spec(graph, operand);
        let shape = if index < first_xs {
            shape
        } else {
            match shape.split_first() {
                Some((&trips, slice)) if trips == i64::from(scan.trips) => slice,
                _ => {
                    return Err(broken(format!(
                        "operand {index} of shape {} has not a slice a trip",
                        shape_text(shape)
                    )));
                }
            }
        };
        same("an operand", (dtype, shape), spec(body, body.inputs[Scan::input_of(index)]))?;
    }
    for carry in 0..scan.carries as usize {
        let input = body.inputs[Scan::input_of(scan.consts as usize + carry)];
        same("a carry", spec(body, body.outputs[carry]), spec(body, input))?;
    }
    Ok(())
}

fn check_custom(graph: &Graph, operands: &[NodeId], custom: Custom, call: &Call) -> Result<()> {
    let [body] = bodies(call)?;
    let (results, rest) = operands.split_at_checked(custom.results as usize).unwrap_or_default();
    let (arguments, rest) = rest.split_at_checked(custom.arguments as usize).unwrap_or_default();
    let (_, consts) = rest.split_at_checked(custom.silent as usize).unwrap_or_default();
    let (from, to) = if custom.forward { (arguments, results) } else { (results, arguments) };
    if results.len() != custom.results as usize || arguments.len() != custom.arguments as usize {
        return Err(broken(format!("{} operands for {custom:?}", operands.len())));
    }
    check_inputs(graph, body, &[from, consts])?;
    if body.outputs.len() != to.len() {
        return Err(broken(format!("{} outputs of a rule for {custom:?}", body.outputs.len())));
    }
    let mut pairs = body.outputs.iter().zip(to);
    pairs.try_for_each(|(&output, &wanted)| same("what a rule says", spec(body, output), spec(graph, wanted)))
}

fn check_pullback(graph: &Graph, operands: &[NodeId], pullback: Pullback, call: &Call) -> Result<()> {
    let [body] = bodies(call)?;
    let (arguments, consts) = operands.split_at_checked(pullback.arguments as usize).unwrap_or_default();
    let inputs = pullback.results as usize + consts.len();
    if arguments.len() != pullback.arguments as usize
        || body.inputs.len() != inputs
        || body.outputs.len() != arguments.len()
    {
        return Err(broken(format!("{} operands for {pullback:?}", operands.len())));
    }
    let mut pairs = consts.iter().zip(&body.inputs[pullback.results as usize..]);
    pairs.try_for_each(|(&operand, &input)| same("a constant", spec(graph, operand), spec(body, input)))?;
    let mut pairs = arguments.iter().zip(&body.outputs);
    pairs.try_for_each(|(&operand, &output)| same("a tangent", spec(graph, operand), spec(body, output)))
}

/// A call has no elements.
pub(crate) fn infer(graph: &Graph, operands: &[NodeId], call: &Call) -> Result<Inferred> {
    if call.bodies.iter().any(|body| !body.constants.is_empty() || !body.splices.is_empty()) {
        return Err(broken("a body is not closed"));
    }
    match call.kind {
        CallKind::Scan(scan) => {
            let [body] = bodies(call)?;
            check_scan(graph, operands, scan, body)?;
        }
        CallKind::While(looped) => check_while(graph, operands, looped, call)?,
        CallKind::Branch(branch) => check_branch(graph, operands, branch, call)?,
        CallKind::Reverse(reverse) => check_reverse(graph, operands, reverse, call)?,
        CallKind::Rewind(rewind) => check_rewind(graph, operands, rewind, call)?,
        CallKind::Custom(custom) => check_custom(graph, operands, custom, call)?,
        CallKind::Pullback(pullback) => check_pullback(graph, operands, pullback, call)?,
    }
    Ok((DType::F64, vec![0]))
}

/// As [`infer`], for a node that exists; its bodies are verified, too.
pub(crate) fn infer_listed(graph: &Graph, node: NodeId) -> Result<Inferred> {
    let call = graph.call(node).ok_or_else(|| broken("it is not in the table"))?;
    call.bodies.iter().try_for_each(verify)?;
    infer(graph, graph.operands(node), call)
}

/// dtype and shape of a part.
pub(crate) fn infer_part(graph: &Graph, operands: &[NodeId], part: u32) -> Result<Inferred> {
    let [node] = exactly("part", operands)?;
    let call = graph.call(node).filter(|_| matches!(graph.op(node), Op::Call(_)));
    let call = call.ok_or_else(|| Error::internal("part", "its operand is no call"))?;
    let part = part as usize;
    if part >= call.kind.parts() {
        return Err(Error::internal("part", format!("part {part} of {:?}", call.kind)));
    }
    let output = |body: &Graph| {
        let (dtype, shape) = spec(body, body.outputs[part]);
        (dtype, shape.to_vec())
    };
    let (scan, body) = match call.kind {
        CallKind::Scan(scan) => {
            let [body] = bodies(call)?;
            (scan, body)
        }
        CallKind::Reverse(reverse) => {
            let [body, _] = bodies(call)?;
            (reverse.scan, body)
        }
        CallKind::While(looped) if part == looped.count() as usize => return Ok((DType::I64, Vec::new())),
        CallKind::While(looped) if part == looped.kept() as usize => {
            return Ok((DType::I64, vec![i64::from(looped.slots)]));
        }
        CallKind::While(looped) if part > looped.kept() as usize => {
            let step = bodies::<2>(call)?[1];
            let carry = part - looped.states(0) as usize;
            let (dtype, shape) = spec(step, step.inputs[looped.consts as usize + carry]);
            return Ok((dtype, std::iter::once(i64::from(looped.slots)).chain(shape.iter().copied()).collect()));
        }
        CallKind::While(_) | CallKind::Branch(_) => return Ok(output(bodies::<2>(call)?[1])),
        CallKind::Rewind(_) => return Ok(output(bodies::<2>(call)?[0])),
        CallKind::Custom(_) => {
            let (dtype, shape) = spec(graph, graph.operands(node)[part]);
            return Ok((dtype, shape.to_vec()));
        }
        CallKind::Pullback(_) => {
            let [body] = bodies(call)?;
            let (dtype, shape) = spec(body, body.inputs[part]);
            return Ok((dtype, shape.to_vec()));
        }
    };
    let (carries, ys) = (scan.carries as usize, scan.ys as usize);
    let stacked = |node: NodeId, count: u32| {
        let (dtype, shape) = spec(body, node);
        (dtype, std::iter::once(i64::from(count)).chain(shape.iter().copied()).collect())
    };
    Ok(if part < carries {
        output(body)
    } else if part < carries + ys {
        stacked(body.outputs[part], scan.trips)
    } else {
        stacked(body.inputs[Scan::input_of(scan.consts as usize + part - carries - ys)], scan.stacked())
    })
}

/// Work of a graph, each node once.
fn work(graph: &Graph) -> BodyWork {
    graph.ids().fold(BodyWork::default(), |sum, id| {
        let Cost { flops, heavy } = cost(graph, id);
        BodyWork { flops: sum.flops.saturating_add(flops), heavy: sum.heavy | heavy }
    })
}

/// A call of these bodies, which are simplified and in execution order.
pub fn call(kind: CallKind, bodies: Vec<Graph>) -> Call {
    let works = bodies.iter().map(work);
    let heavy = works.clone().any(|work| work.heavy);
    let flops = works.map(|work| work.flops);
    let flops = flops.enumerate().map(|(body, flops)| flops.saturating_mul(kind.times(body)));
    let flops = match kind {
        CallKind::Branch(_) => flops.max().unwrap_or(0),
        _ => flops.fold(0, u64::saturating_add),
    };
    Call::new(kind, bodies, BodyWork { flops, heavy })
}

pub(crate) fn call_cost(graph: &Graph, node: NodeId) -> Cost {
    graph.call(node).map_or(Cost::FREE, |call| Cost { flops: call.work.flops, heavy: call.work.heavy })
}

impl Builder {
    pub fn call(&self, call: &Arc<Call>, operands: &[NodeId]) -> Result<NodeId> {
        let id = self.graph_mut().push_call(call)?;
        self.infer_and_push(Op::Call(id), operands, |graph| infer(graph, operands, call))
    }

    pub fn part(&self, call: NodeId, part: u32) -> Result<NodeId> {
        self.infer_and_push(Op::Part(part), &[call], |graph| infer_part(graph, &[call], part))
    }
}
