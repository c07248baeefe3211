//! Derivatives of a branch: a branch of derivatives, each of which computes the inside of its side anew.

use std::sync::Arc;

use ckad_graph::{Branch, CallKind, Graph, NodeId, Result, tables};

use crate::body::{call_of, with_inputs};
use crate::calls::{Both, Form, Site, Tangents, Transposed, active_outputs, beside, forward_cone};
use crate::copy::set_before;
use crate::simplify::simplify;
use crate::transpose::{Linear, transpose_linear};

pub(crate) fn linearised(site: &Site<'_>, id: NodeId, branch: Branch) -> Result<Option<Tangents>> {
    let &Site { op, form, builder, source, copy, .. } = site;
    let call = call_of(source, id)?;
    let mut active = site.active(id).split_off(1);
    let mut outputs = vec![false; branch.results as usize];
    for body in &call.bodies {
        let found = active_outputs(op, body, &mut active, 0..0)?;
        outputs.iter_mut().zip(found).for_each(|(output, found)| *output |= found);
    }
    if !outputs.contains(&true) {
        return Ok(None);
    }
    let joint = form == Form::Joint;
    let sides = tables::tried(op, call.bodies.iter().map(|body| beside(op, form, body, &active, &outputs)))?;
    let own = site.with_used_rules(id, || {
        let all: Vec<usize> = (0..branch.values as usize).collect();
        let plain = |side: &Both| simplify(with_inputs(op, &side.graph, &all, &[], &side.values)?);
        tables::tried(op, sides.iter().map(plain))
    })?;
    let both = tables::tried(
        op,
        sides.into_iter().map(|side| {
            let all: Vec<usize> = (0..side.graph.inputs.len()).collect();
            let given = if joint { [side.values, side.tangents].concat() } else { side.tangents };
            simplify(with_inputs(op, &side.graph, &all, &[], &given)?)
        }),
    )?;
    builder.set_attributes(source.attributes(id));
    let given = source.operands(id);
    let mut operands = copy.all(given)?;
    for (&operand, _) in given[1..].iter().zip(&active).filter(|(_, active)| **active) {
        operands.push(site.tangent(operand)?);
    }
    let before = if joint { branch.results } else { 0 };
    let count = outputs.iter().filter(|active| **active).count() as u32;
    let kind = Branch { values: operands.len() as u32 - 1, results: before + count };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::Branch(kind), both)), &operands)?;
    let rank = set_before(op, outputs.iter().copied())?;
    let tangents = outputs.iter().enumerate().map(|(output, &active)| active.then(|| before + rank[output] as u32));
    let values = joint.then(|| (0..branch.results).collect());
    Ok(Some(Tangents { call, tangents: tangents.collect(), values, own }))
}

pub(crate) fn transposed(at: &Transposed<'_>, branch: Branch) -> Result<Vec<(usize, NodeId)>> {
    let &Transposed { op, builder, source, id, is_linear, cotangents, .. } = at;
    let call = call_of(source, id)?;
    let of_kind = |linear: bool| -> Vec<usize> {
        (1..=branch.values as usize).filter(|&operand| is_linear[operand] == linear).collect()
    };
    let (known, unknown) = (of_kind(false), of_kind(true));
    let given: Vec<usize> = (0..branch.results as usize).filter(|&result| cotangents[result].is_some()).collect();
    let side = |body: &Graph| {
        let order: Vec<usize> = known.iter().chain(&unknown).map(|&operand| operand - 1).collect();
        let mut graph = with_inputs(op, body, &order, &[], &body.outputs)?;
        let tangent_inputs = graph.inputs[known.len()..].to_vec();
        let reached = forward_cone(op, &graph, &tangent_inputs)?;
        let outputs = std::mem::take(&mut graph.outputs);
        let tangent_outputs =
            outputs.iter().map(|&output| Some(output).filter(|output| reached[output.index()])).collect();
        let linear = Linear { graph, tangent_inputs, tangent_outputs };
        let backward = transpose_linear(op, &linear, |inner, linear| {
            let mut seeds = Vec::new();
            for &result in &given {
                let node = linear.graph.node(outputs[result]);
                let input = inner.graph_mut().push_input(node.dtype, node.shape, node.attributes)?;
                seeds.extend(linear.tangent_outputs[result].map(|target| (target, input)));
            }
            Ok(seeds)
        })?;
        simplify(backward)
    };
    let bodies = tables::tried(op, call.bodies.iter().map(side))?;
    let mut operands = vec![at.coefficient(0)?];
    for &operand in &known {
        operands.push(at.coefficient(operand)?);
    }
    operands.extend(given.iter().filter_map(|&result| cotangents[result]));
    let kind = Branch { values: operands.len() as u32 - 1, results: unknown.len() as u32 };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::Branch(kind), bodies)), &operands)?;
    let parts = unknown.iter().zip(0..).map(|(&operand, part)| Ok((operand, builder.part(call, part)?)));
    tables::tried(op, parts)
}
