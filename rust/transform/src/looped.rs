//! Derivatives of a loop whose length nobody knows.
//!
//! Forward mode carries tangents beside the carries, in all forms. Transposed, that is a loop over the states of the
//! carries from the last to the first (`ckad_graph::Rewind`): it knows the length, as the loop itself is done by then,
//! and the loop kept a bounded number of its states, from which the others are computed anew. Forward mode goes through
//! both, too, reverse mode does not go through the second one: the states of the states would have to be kept.

use std::sync::Arc;

use ckad_graph::{CallKind, Error, ErrorKind, Graph, NodeId, Result, Rewind, While, tables};

use crate::body::{call_of, used_in_loop, used_inputs, with_inputs};
use crate::calls::{Both, Form, Site, Tangents, Transposed, active_outputs, beside, forward_cone};
use crate::simplify::simplify;
use crate::transpose::{Linear, transpose_linear};

pub(crate) fn refused() -> Error {
    Error::new(
        ErrorKind::Tracer,
        "while_loop",
        "reverse mode of reverse mode goes through a loop whose length is not known when it is recorded",
    )
    .with_hint(
        "forward mode over reverse mode works: ckad.hvp, ckad.jvp of a gradient, ckad.jacobian of one with \
         mode='forward'; or let the length be known: ckad.fori_loop or ckad.scan with a length that Python knows, or \
         the loop outside of ckad.jit, ckad.scan and other loops, where it is run once to learn its length",
    )
}

/// A carry has a tangent where its first value has one, or an iteration gives it one: which inputs of a body have
/// tangents, the carries from `first` on.
fn activity(op: &str, body: &Graph, mut inputs: Vec<bool>, first: usize) -> Result<Vec<bool>> {
    let carries = first..inputs.len();
    active_outputs(op, body, &mut inputs, carries)?;
    Ok(inputs)
}

/// A body beside its derivative, with the tangents of each group of inputs behind the group. Loops inside are derived
/// in the form of this one: what is to be transposed must not mix values with tangents.
fn joint(
    op: &'static str,
    form: Form,
    body: &Graph,
    active: &[bool],
    groups: &[usize],
    outputs: &[bool],
) -> Result<Graph> {
    let Both { graph, values, tangents } = beside(op, form, body, active, outputs)?;
    let mut order = Vec::new();
    let (mut start, mut tangent) = (0, body.inputs.len());
    for &count in groups {
        order.extend(start..start + count);
        let changing = active[start..start + count].iter().filter(|active| **active).count();
        order.extend(tangent..tangent + changing);
        (start, tangent) = (start + count, tangent + changing);
    }
    simplify(with_inputs(op, &graph, &order, &[], &[values, tangents].concat())?)
}

/// The operands of a group, and behind them their tangents.
fn with_tangents(site: &Site<'_>, given: &[NodeId], active: &[bool], operands: &mut Vec<NodeId>) -> Result<()> {
    tables::extend(site.op, operands, site.copy.all(given)?)?;
    for (&operand, _) in given.iter().zip(active).filter(|(_, active)| **active) {
        operands.push(site.tangent(operand)?);
    }
    Ok(())
}

fn count(active: &[bool]) -> usize {
    active.iter().filter(|active| **active).count()
}

/// For each carry, the part that is its tangent where the values come first.
fn tangent_parts(active: &[bool]) -> impl Iterator<Item = Option<u32>> + '_ {
    let mut next = active.len() as u32..;
    active.iter().map(move |&active| if active { next.next() } else { None })
}

pub(crate) fn linearised(site: &Site<'_>, id: NodeId, looped: While, own: Option<NodeId>) -> Result<Option<Tangents>> {
    let &Site { op, form, builder, source, copy, .. } = site;
    let call = call_of(source, id)?;
    let [test, step] = call.bodies.as_slice() else { return Err(Error::internal(op, "a loop without a test")) };
    let (tests, consts, carries) = (looped.test_consts as usize, looped.consts as usize, looped.carries as usize);
    let given = &source.operands(id)[tests..];
    let active = activity(op, step, site.active(id).split_off(tests), consts)?;
    let (of_consts, carried) = active.split_at(consts);
    if !carried.contains(&true) {
        return Ok(None);
    }
    let step = joint(op, form, step, &active, &[consts, carries], carried)?;
    let used_rules = site.with_used_rules(id, || {
        // Tangents stand behind each group of inputs.
        let first_carry = consts + count(of_consts);
        let inputs: Vec<usize> = (0..consts).chain(first_carry..first_carry + carries).collect();
        Ok(vec![test.copied()?, simplify(with_inputs(op, &step, &inputs, &[], &step.outputs[..carries])?)?])
    })?;
    let own = used_rules.or(own);
    builder.set_attributes(source.attributes(id));
    let mut operands = Vec::new();
    let (mut test, mut order) = (test.copied()?, Vec::new());
    if let Some(own) = own.filter(|_| form == Form::Split) {
        // What is transposed has to know how often the loop went round, and which states it kept; the test does not
        // look at that, or at tangents.
        for part in looped.count()..looped.parts() as u32 {
            let part = builder.part(own, part)?;
            operands.push(part);
            let (dtype, shape) = (builder.graph().dtype(part), builder.graph().shape(part).to_vec());
            let shape = test.lists.intern(&shape)?;
            order.push(test.inputs.len());
            test.push_input(dtype, shape, source.attributes(id).without_region())?;
        }
    }
    order.extend(0..tests + carries);
    for (&carry, _) in given[consts..].iter().zip(carried).filter(|(_, active)| **active) {
        let shape = test.lists.intern(source.shape(carry))?;
        order.push(test.inputs.len());
        test.push_input(source.dtype(carry), shape, source.attributes(id).without_region())?;
    }
    let outputs = tables::list(op, test.outputs.iter().copied())?;
    let test = with_inputs(op, &test, &order, &[], &outputs)?;
    let handed = operands.len();
    tables::extend(op, &mut operands, copy.all(&source.operands(id)[..tests])?)?;
    with_tangents(site, &given[..consts], of_consts, &mut operands)?;
    with_tangents(site, &given[consts..], carried, &mut operands)?;
    let kind = While {
        handed: handed as u32,
        test_consts: (handed + tests) as u32,
        consts: (consts + count(of_consts)) as u32,
        carries: (carries + count(carried)) as u32,
        slots: looped.slots,
    };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::While(kind), vec![test, step])), &operands)?;
    let values = (0..carries as u32).chain([kind.count(), kind.kept()]);
    let values = values.chain((0..carries).map(|carry| kind.states(carry)));
    let states = tangent_parts(carried).map(|part| part.map(|carry| kind.states(carry as usize)));
    Ok(Some(Tangents {
        call,
        tangents: tangent_parts(carried).chain([None, None]).chain(states).collect(),
        values: (form == Form::Joint).then(|| values.collect()),
        own: used_rules,
    }))
}

/// The transposed of a loop that carries tangents beside values: `linearised` wrote it, in the split form.
pub(crate) fn transposed(at: &Transposed<'_>, looped: While) -> Result<Vec<(usize, NodeId)>> {
    let &Transposed { op, builder, source, id, is_linear, cotangents, .. } = at;
    let call = call_of(source, id)?;
    let step = call.bodies.get(1).ok_or_else(|| Error::internal(op, "a loop without an iteration"))?;
    let (tests, consts) = (looped.test_consts as usize, looped.consts as usize);
    let mut linear = activity(op, step, is_linear[tests..].to_vec(), consts)?;
    // The first carries are values, all others tangents.
    let values =
        (looped.handed as usize).checked_sub(2).ok_or_else(|| Error::internal(op, "a loop without a length"))?;
    linear[consts + values..].fill(true);
    let of_kind = |range: std::ops::Range<usize>, wanted: bool| -> Vec<usize> {
        range.filter(|&input| linear[input] == wanted).collect()
    };
    let all = consts..step.inputs.len();
    let (known_consts, linear_consts) = (of_kind(0..consts, false), of_kind(0..consts, true));
    let (states, tangents) = (of_kind(all.clone(), false), of_kind(all, true));
    if states.len() != values {
        return Err(Error::internal(op, "a tangent among the values of a loop"));
    }

    // The iteration of the tangents turned round.
    let order: Vec<usize> = known_consts.iter().chain(&states).copied().collect();
    let unknown = [&linear_consts[..], &tangents].concat();
    let order: Vec<usize> = order.iter().chain(&unknown).copied().collect();
    let outputs: Vec<NodeId> = tangents.iter().map(|&input| step.outputs[input - consts]).collect();
    let mut graph = with_inputs(op, step, &order, &[], &outputs)?;
    let known = order.len() - unknown.len();
    let tangent_inputs = graph.inputs[known..].to_vec();
    let reached = forward_cone(op, &graph, &tangent_inputs)?;
    let outputs = std::mem::take(&mut graph.outputs);
    let tangent_outputs = outputs.iter().map(|&output| Some(output).filter(|o| reached[o.index()])).collect();
    let linear = Linear { graph, tangent_inputs, tangent_outputs };
    let backward = transpose_linear(op, &linear, |inner, linear| {
        let mut seeds = Vec::new();
        let (sums, carried) = linear.tangent_inputs.split_at(linear_consts.len());
        let carried = carried.iter().zip(&linear.tangent_outputs).map(|(&like, &target)| (target, like));
        for (target, like) in carried.chain(sums.iter().map(|&sum| (Some(sum), sum))) {
            let node = linear.graph.node(like);
            let input = inner.graph_mut().push_input(node.dtype, node.shape, node.attributes)?;
            seeds.extend(target.map(|target| (target, input)));
        }
        Ok(seeds)
    })?;
    // Constants, cotangents of carries and sums for constants, states.
    let carries = unknown.len();
    let (sums, carried) = backward.outputs.split_at(linear_consts.len());
    let outputs = [carried, sums].concat();
    let used = used_inputs(op, &backward, &outputs)?;
    let first_states = known_consts.len();
    let states = needed(op, step, consts, &states, &used[first_states..known])?;
    let of_states = states.iter().map(|&state| first_states + state);
    let own_consts: Vec<usize> = (0..first_states).filter(|&constant| used[constant]).collect();
    let order: Vec<usize> = own_consts.iter().copied().chain(known..known + carries).chain(of_states).collect();
    let body = simplify(with_inputs(op, &backward, &order, &[], &outputs)?)?;
    // That of the values which it reads, and of those which these depend on.
    let outputs: Vec<NodeId> = states.iter().map(|&state| step.outputs[state]).collect();
    let used = used_inputs(op, step, &outputs)?;
    let other_consts: Vec<usize> = known_consts.iter().copied().filter(|&constant| used[constant]).collect();
    let order: Vec<usize> = other_consts.iter().copied().chain(states.iter().map(|&state| consts + state)).collect();
    let ahead = simplify(with_inputs(op, step, &order, &[], &outputs)?)?;

    let zeros = |input: usize| {
        let operand = source.operands(id)[tests + input];
        builder.zeros(source.dtype(operand), source.shape(operand))
    };
    let mut operands = vec![at.coefficient(0)?];
    let coefficients = |inputs: &[usize], operands: &mut Vec<NodeId>| {
        inputs.iter().try_for_each(|&input| {
            operands.push(at.coefficient(tests + input)?);
            Result::Ok(())
        })
    };
    let of_body: Vec<usize> = own_consts.iter().map(|&constant| known_consts[constant]).collect();
    coefficients(&of_body, &mut operands)?;
    for &input in &tangents {
        operands.push(cotangents[input - consts].map_or_else(|| zeros(input), Ok)?);
    }
    for &input in &linear_consts {
        operands.push(zeros(input)?);
    }
    coefficients(&other_consts, &mut operands)?;
    operands.push(at.coefficient(1)?);
    for &state in &states {
        operands.push(at.coefficient(2 + state)?);
    }
    let kind = Rewind {
        consts: own_consts.len() as u32,
        carries: carries as u32,
        other_consts: other_consts.len() as u32,
        other_carries: states.len() as u32,
        slots: looped.slots,
    };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::Rewind(kind), vec![body, ahead])), &operands)?;
    let inputs = tangents.iter().chain(&linear_consts).zip(0..);
    let linear = inputs.filter(|&(&input, _)| is_linear[tests + input]);
    tables::tried(op, linear.map(|(&input, part)| Ok((tests + input, builder.part(call, part)?))))
}

/// Of the values that a loop carries, those that are read, and whatever these depend on.
fn needed(op: &str, step: &Graph, consts: usize, values: &[usize], read: &[bool]) -> Result<Vec<usize>> {
    let is_read = values.iter().zip(read).filter(|(_, read)| **read);
    let outputs = tables::list(op, is_read.map(|(&value, _)| step.outputs[value - consts]))?;
    let next = |input: usize| input.checked_sub(consts).map(|carry| step.outputs[carry]);
    let used = used_in_loop(op, step, &outputs, next)?;
    tables::list(op, (0..values.len()).filter(|&value| read[value] || used[values[value]]))
}

/// Forward mode of the way back: tangents beside both loops' carries.
pub(crate) fn linearised_rewind(site: &Site<'_>, id: NodeId, rewind: Rewind) -> Result<Option<Tangents>> {
    let &Site { op, form, builder, source, copy, .. } = site;
    let call = call_of(source, id)?;
    let [body, ahead] = call.bodies.as_slice() else { return Err(Error::internal(op, "a way back alone")) };
    let given = &source.operands(id)[1..];
    let (consts, other_consts) = (rewind.consts as usize, rewind.other_consts as usize);
    let mut own = site.active(id).split_off(1);
    let mut other = own.split_off(rewind.first_other());
    // What is in the slots stands between constants and slots.
    other.remove(other_consts);
    let other = activity(op, ahead, other, other_consts)?;
    let states = &other[other_consts..];
    let mut active = own;
    active.extend_from_slice(states);
    let first_states = rewind.first_other();
    // Its carries stand before the states.
    active_outputs(op, body, &mut active, consts..first_states)?;
    let carried = active[consts..first_states].to_vec();
    if !carried.contains(&true) {
        return Ok(None);
    }
    let groups = [consts, rewind.carries as usize, rewind.other_carries as usize];
    let body = joint(op, form, body, &active, &groups, &carried)?;
    let ahead = joint(op, form, ahead, &other, &[other_consts, rewind.other_carries as usize], states)?;
    builder.set_attributes(source.attributes(id));
    let mut operands = vec![copy.of(source.operands(id)[0])?];
    let (of_loop, of_other) = given.split_at(first_states);
    with_tangents(site, &of_loop[..consts], &active[..consts], &mut operands)?;
    with_tangents(site, &of_loop[consts..], &carried, &mut operands)?;
    with_tangents(site, &of_other[..other_consts], &other[..other_consts], &mut operands)?;
    operands.push(copy.of(of_other[other_consts])?);
    with_tangents(site, &of_other[other_consts + 1..], states, &mut operands)?;
    let kind = Rewind {
        consts: (consts + count(&active[..consts])) as u32,
        carries: rewind.carries + count(&carried) as u32,
        other_consts: (other_consts + count(&other[..other_consts])) as u32,
        other_carries: rewind.other_carries + count(states) as u32,
        ..rewind
    };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::Rewind(kind), vec![body, ahead])), &operands)?;
    let tangents = tangent_parts(&carried).collect();
    let values = (form == Form::Joint).then(|| (0..rewind.carries).collect());
    Ok(Some(Tangents { call, tangents, values, own: None }))
}
