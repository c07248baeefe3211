//! Derivatives of loops of known length: the derivative of a scan is a scan, and its transpose one that runs the other
//! way.
//!
//! Forward mode carries tangents beside the carries, in one loop that stores nothing ([`Form::Joint`]). Reverse mode
//! keeps the loop as it is and puts a second one beside it, linear, which reads what the carries were before each
//! iteration (the *states* of the first) and computes the inside of the iteration anew ([`Form::Split`]). Transposed,
//! that one runs the other way: it carries the cotangents of the carries and the sums of those of the constants, and
//! stacks those of the slices.

use ckad_graph::{CallKind, Graph, NodeId, Result, Scan, tables};

use crate::body::{append, call_of, only_body, used_inputs, with_inputs};
use crate::calls::{Both, Form, Site, Tangents, Transposed, active_outputs, beside, forward_cone};
use crate::copy::set_before;
use crate::simplify::simplify;
use crate::transpose::{Linear, transpose_linear};

/// What of a loop has a tangent.
struct Activity {
    /// By operand.
    operands: Vec<bool>,
    /// By output of the body.
    outputs: Vec<bool>,
}

/// A carry has a tangent where its first value has one, or an iteration gives it one: a fixpoint.
fn activity(op: &str, body: &Graph, scan: Scan, operands: Vec<bool>) -> Result<Activity> {
    let (first, carries) = (1 + scan.consts as usize, scan.carries as usize);
    let mut inputs = tables::list(op, std::iter::once(false).chain(operands))?;
    let outputs = active_outputs(op, body, &mut inputs, first..first + carries)?;
    // A carry that starts with a tangent has one in every iteration.
    let outputs = outputs.iter().enumerate();
    let outputs = outputs.map(|(index, &active)| active || (index < carries && inputs[first + index]));
    Ok(Activity { outputs: tables::list(op, outputs)?, operands: inputs.split_off(1) })
}

/// Where an operand of a derived loop comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// The copy of the source's operand.
    Value(usize),
    /// The tangent of the source's operand.
    Tangent(usize),
    /// What that carry of the source was before each iteration.
    States(usize),
}

/// The derived loop of the scan `id`; None where no operand has a tangent, or no tangent is left. In the split form
/// `own` is the copy of the scan.
pub(crate) fn linearised(site: &Site<'_>, id: NodeId, scan: Scan, own: Option<NodeId>) -> Result<Option<Tangents>> {
    let &Site { op, form, builder, source, copy, .. } = site;
    let body = only_body(call_of(source, id)?)?;
    let (consts, carries, ys) = (scan.consts as usize, scan.carries as usize, scan.ys as usize);
    let given = source.operands(id);
    let active = activity(op, body, scan, site.active(id))?;
    if !active.outputs.contains(&true) {
        return Ok(None);
    }

    let flags: Vec<bool> = std::iter::once(false).chain(active.operands.iter().copied()).collect();
    let Both { graph: both, values: value_of, tangents: tangent_of } = beside(op, form, body, &flags, &active.outputs)?;

    let is_active = |operand: &usize| active.operands[*operand];
    let values = |range: std::ops::Range<usize>| range.map(Origin::Value);
    let changes = |range: std::ops::Range<usize>| range.filter(is_active).map(Origin::Tangent);
    let (first_xs, end) = (consts + carries, given.len());
    let new_consts: Vec<Origin> = values(0..consts).chain(changes(0..consts)).collect();
    let active_carries: Vec<usize> = (0..carries).filter(|carry| active.operands[consts + carry]).collect();
    let active_ys: Vec<usize> = (0..ys).filter(|y| active.outputs[carries + y]).collect();
    let (new_carries, new_xs): (Vec<Origin>, Vec<Origin>) = match form {
        Form::Joint => (
            values(consts..first_xs).chain(changes(consts..first_xs)).collect(),
            values(first_xs..end).chain(changes(first_xs..end)).collect(),
        ),
        Form::Split | Form::Apart => (
            changes(consts..first_xs).collect(),
            (0..carries).map(Origin::States).chain(values(first_xs..end)).chain(changes(first_xs..end)).collect(),
        ),
    };
    // Tangents of carries come first among those of outputs.
    let (carry_tangents, y_tangents) = tangent_of.split_at(active_carries.len());
    let outputs: Vec<NodeId> = match form {
        Form::Joint => [&value_of[..carries], carry_tangents, &value_of[carries..], y_tangents].concat(),
        Form::Split | Form::Apart => tangent_of.clone(),
    };

    // The input of `both` that an operand, or its slice, is.
    let tangents_before = set_before(op, active.operands.iter().copied())?;
    let input_of = |origin: Origin| match origin {
        Origin::Value(operand) => Scan::input_of(operand),
        Origin::States(carry) => Scan::input_of(consts + carry),
        Origin::Tangent(operand) => body.inputs.len() + tangents_before[operand],
    };
    let used = used_inputs(op, &both, &outputs)?;
    let keeps = |origin: &Origin| form == Form::Joint || used[input_of(*origin)];
    let new_consts: Vec<Origin> = new_consts.into_iter().filter(keeps).collect();
    let new_xs: Vec<Origin> = new_xs.into_iter().filter(keeps).collect();

    let used_rules = site.with_used_rules(id, || {
        let inputs: Vec<usize> = (0..body.inputs.len()).collect();
        Ok(vec![simplify(with_inputs(op, &both, &inputs, &[], &value_of)?)?])
    })?;
    let own = used_rules.or(own);
    builder.set_attributes(source.attributes(id));
    let mut operands = Vec::new();
    for &origin in new_consts.iter().chain(&new_carries).chain(&new_xs) {
        tables::push(
            op,
            &mut operands,
            match origin {
                Origin::Value(operand) => copy.of(given[operand])?,
                Origin::Tangent(operand) => site.tangent(given[operand])?,
                Origin::States(carry) => builder.part(own.unwrap_or(copy.of(id)?), scan.states(carry))?,
            },
        )?;
    }
    let origins = new_consts.iter().chain(&new_carries).chain(&new_xs);
    let order: Vec<usize> = std::iter::once(0).chain(origins.map(|&origin| input_of(origin))).collect();
    let joint = form == Form::Joint;
    let derived = Scan {
        consts: new_consts.len() as u32,
        carries: new_carries.len() as u32,
        xs: new_xs.len() as u32,
        ys: (active_ys.len() + if joint { ys } else { 0 }) as u32,
        ..scan
    };
    let both = with_inputs(op, &both, &order, &[], &outputs)?;
    let call = append(builder, CallKind::Scan(derived), both, &operands)?;

    // Where values and tangents stand among carries, and among what is stacked.
    let (before_carries, before_ys) = if joint { (carries, ys) } else { (0, 0) };
    let carry_rank = |carry: usize| {
        active.operands[consts + carry].then(|| tangents_before[consts + carry] - tangents_before[consts])
    };
    let ys_active = &active.outputs[carries..];
    let ys_before = set_before(op, ys_active.iter().copied())?;
    let part_of = |part: usize| {
        Some(if part < carries {
            before_carries + carry_rank(part)?
        } else if part < carries + ys {
            ys_active[part - carries].then(|| derived.carries as usize + before_ys + ys_before[part - carries])?
        } else {
            derived.states(before_carries + carry_rank(part - carries - ys)?) as usize
        } as u32)
    };
    let value_part = |part: usize| {
        if part < carries {
            part as u32
        } else if part < carries + ys {
            derived.carries + (part - carries) as u32
        } else {
            derived.states(part - carries - ys)
        }
    };
    Ok(Some(Tangents {
        call,
        tangents: (0..scan.parts()).map(part_of).collect(),
        values: joint.then(|| (0..scan.parts()).map(value_part).collect()),
        own: used_rules,
    }))
}

/// Cotangents of the linear operands, by operand.
pub(crate) fn transposed(at: &Transposed<'_>, scan: Scan) -> Result<Vec<(usize, NodeId)>> {
    let &Transposed { op, builder, source, id, is_linear, cotangents, .. } = at;
    let body = only_body(call_of(source, id)?)?;
    let (consts, carries, ys) = (scan.consts as usize, scan.carries as usize, scan.ys as usize);
    let (first_xs, end) = (consts + carries, source.operands(id).len());
    let of_kind = |range: std::ops::Range<usize>, linear: bool| -> Vec<usize> {
        range.filter(|&operand| is_linear[operand] == linear).collect()
    };
    let (known_consts, linear_consts) = (of_kind(0..consts, false), of_kind(0..consts, true));
    let (known_xs, linear_xs) = (of_kind(first_xs..end, false), of_kind(first_xs..end, true));
    let all_carries: Vec<usize> = (consts..first_xs).collect();

    // The body with what it is linear in at the end. All of its carries are tangents.
    let known: Vec<usize> = known_consts.iter().chain(&known_xs).copied().collect();
    let unknown: Vec<usize> = [&linear_consts[..], &all_carries, &linear_xs].concat();
    let inputs = known.iter().chain(&unknown).map(|&operand| Scan::input_of(operand));
    let order: Vec<usize> = std::iter::once(0).chain(inputs).collect();
    let mut graph = with_inputs(op, body, &order, &[], &body.outputs)?;
    let tangent_inputs = graph.inputs[1 + known.len()..].to_vec();
    let is_reached = forward_cone(op, &graph, &tangent_inputs)?;
    let outputs = std::mem::take(&mut graph.outputs);
    let tangent_outputs: Vec<Option<NodeId>> =
        outputs.iter().map(|&output| Some(output).filter(|output| is_reached[output.index()])).collect();
    let linear = Linear { graph, tangent_inputs, tangent_outputs };

    let stacked: Vec<usize> = (0..ys).filter(|y| cotangents[carries + y].is_some()).collect();
    let states: Vec<usize> = (0..carries).filter(|&carry| cotangents[scan.states(carry) as usize].is_some()).collect();
    // Inputs behind the known ones: cotangents of carries, sums for constants, slices of cotangents of what is stacked.
    let backward = transpose_linear(op, &linear, |inner, linear| {
        let mut seeds = Vec::new();
        let mut seed = |target: Option<NodeId>, like: NodeId| {
            let node = linear.graph.node(like);
            let input = inner.graph_mut().push_input(node.dtype, node.shape, node.attributes)?;
            if let Some(target) = target {
                tables::push(op, &mut seeds, (target, input))?;
            }
            Result::Ok(())
        };
        let input_of_carry = |carry: usize| linear.tangent_inputs[linear_consts.len() + carry];
        for carry in 0..carries {
            seed(linear.tangent_outputs[carry], input_of_carry(carry))?;
        }
        for &input in &linear.tangent_inputs[..linear_consts.len()] {
            seed(Some(input), input)?;
        }
        for &y in &stacked {
            seed(linear.tangent_outputs[carries + y], outputs[carries + y])?;
        }
        for &carry in &states {
            seed(Some(input_of_carry(carry)), input_of_carry(carry))?;
        }
        Ok(seeds)
    })?;

    let (all_known, sums) = (1 + known.len(), carries + linear_consts.len());
    let behind = all_known + sums;
    let order: Vec<usize> = (0..1 + known_consts.len())
        .chain(all_known..behind)
        .chain(1 + known_consts.len()..all_known)
        .chain(behind..behind + stacked.len() + states.len())
        .collect();
    let (sum_outputs, rest) = backward.outputs.split_at(linear_consts.len());
    let (carry_outputs, x_outputs) = rest.split_at(carries);
    let outputs = [carry_outputs, sum_outputs, x_outputs].concat();
    let body = with_inputs(op, &backward, &order, &[], &outputs)?;

    let zeros = |operand: usize| {
        let operand = source.operands(id)[operand];
        builder.zeros(source.dtype(operand), source.shape(operand))
    };
    let mut operands: Vec<NodeId> = tables::tried(op, known_consts.iter().map(|&operand| at.coefficient(operand)))?;
    for (carry, cotangent) in cotangents[..carries].iter().enumerate() {
        operands.push(cotangent.map_or_else(|| zeros(consts + carry), Ok)?);
    }
    for &operand in &linear_consts {
        operands.push(zeros(operand)?);
    }
    for &operand in &known_xs {
        operands.push(at.coefficient(operand)?);
    }
    let of_stacks = stacked.iter().map(|&y| carries + y).chain(states.iter().map(|&carry| scan.states(carry) as usize));
    operands.extend(of_stacks.filter_map(|part| cotangents[part]));
    let kind = Scan {
        trips: scan.trips,
        reverse: !scan.reverse,
        consts: known_consts.len() as u32,
        carries: sums as u32,
        xs: (known_xs.len() + stacked.len() + states.len()) as u32,
        ys: linear_xs.len() as u32,
        slots: 0,
    };
    let call = append(builder, CallKind::Scan(kind), body, &operands)?;
    let linear_carries = all_carries.iter().enumerate().filter(|(_, operand)| is_linear[**operand]);
    let carried = linear_carries.map(|(rank, &operand)| (operand, rank));
    let summed = linear_consts.iter().enumerate().map(|(rank, &operand)| (operand, carries + rank));
    let sliced = linear_xs.iter().enumerate().map(|(rank, &operand)| (operand, sums + rank));
    tables::tried(
        op,
        carried.chain(summed).chain(sliced).map(|(operand, part)| Ok((operand, builder.part(call, part as u32)?))),
    )
}
