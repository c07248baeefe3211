//! Functions with derivatives of the user's own.
//!
//! Such a function stands on the tape as what it computes, recorded like anything else, and a call with its rule
//! behind it, whose parts are its results. A rule for tangents is written where forward mode comes by: reverse mode
//! transposes what it says. A rule for cotangents becomes a linear call that can only be transposed, and then is
//! written; forward mode refuses it. The derivative of what a rule says is that of its own operations. Before a run
//! the calls are nothing ([`without_customs`]).

use std::sync::Arc;

use ckad_graph::{Attributes, Call, CallKind, Custom, Error, ErrorKind, Graph, NodeId, Op, Pullback, Result, tables};
use ckad_prim::Builder;
use rustc_hash::FxHashSet;

use crate::body::{call_of, only_body};
use crate::calls::{Form, Site, Transposed};
use crate::copy::{Copy, derived, reached};
use crate::splice::Tables;

/// What of a call goes into the derived graph.
pub(crate) struct Derived {
    /// By part.
    pub tangents: Vec<NodeId>,
    /// The parts are what the function computes: its rule has been used.
    pub used: bool,
}

/// What kind of function the call is, if it has a derivative of its own.
pub(crate) fn kind_of(graph: &Graph, id: NodeId) -> Option<Custom> {
    match graph.call(id)?.kind {
        CallKind::Custom(kind) => Some(kind),
        _ => None,
    }
}

/// Tangents of the results; None where no argument has one.
pub(crate) fn linearised(site: &Site<'_>, id: NodeId, kind: Custom) -> Result<Option<Derived>> {
    let &Site { form, builder, source, copy, tangents, .. } = site;
    let given = source.operands(id);
    let (results, rest) = given.split_at(kind.results as usize);
    let (arguments, rest) = rest.split_at(kind.arguments as usize);
    let (silent, consts) = rest.split_at(kind.silent as usize);
    if reads_past(site, results, &[arguments, silent].concat()) {
        return Err(past_arguments(kind));
    }
    if arguments.iter().all(|&argument| tangents.get(argument).is_none()) {
        return Ok(None);
    }
    let body = only_body(call_of(source, id)?)?;
    builder.set_attributes(source.attributes(id));
    let mut operands = tables::tried(site.op, arguments.iter().map(|&argument| site.tangent(argument)))?;
    // A rule for tangents may be written in terms of the result, whose derivative is the rule's, too.
    let own = |constant: NodeId| results.iter().position(|&result| result == constant).filter(|_| kind.forward);
    for &constant in consts {
        let constant = match own(constant) {
            Some(part) => builder.part(copy.of(id)?, part as u32)?,
            None => copy.of(constant)?,
        };
        tables::push(site.op, &mut operands, constant)?;
    }
    if kind.forward {
        return Ok(Some(Derived { tangents: written(builder, body, &operands)?, used: false }));
    }
    if form == Form::Joint {
        return Err(refused());
    }
    let pullback = Pullback { arguments: kind.arguments, results: kind.results };
    let call = Arc::new(ckad_prim::call(CallKind::Pullback(pullback), vec![body.copied()?]));
    let call = builder.call(&call, &operands)?;
    let parts = (0..results.len() as u32).map(|part| builder.part(call, part));
    Ok(Some(Derived { tangents: tables::tried(site.op, parts)?, used: true }))
}

/// Whether a result depends on something differentiated past the arguments: the rule says nothing of that. An argument
/// that is a view stands for what it shows part of, which the function may have read in another way.
fn reads_past(site: &Site<'_>, results: &[NodeId], arguments: &[NodeId]) -> bool {
    let source = site.source;
    let mut seen: FxHashSet<NodeId> = FxHashSet::default();
    for &argument in arguments {
        let mut at = argument;
        while seen.insert(at) && matches!(source.op(at), Op::StridedRead { .. } | Op::Transpose { .. } | Op::Reshape) {
            at = source.operands(at)[0];
        }
    }
    let mut waiting = results.to_vec();
    while let Some(id) = waiting.pop() {
        let is_call = matches!(source.op(id), Op::Call(_));
        if !(is_call || site.tangents.get(id).is_some()) || !seen.insert(id) {
            continue;
        }
        if matches!(source.op(id), Op::Input(_)) {
            return true;
        }
        let operands = source.operands(id);
        waiting.extend_from_slice(match kind_of(source, id).filter(|_| is_call) {
            Some(inner) => &operands[..(inner.results + inner.arguments) as usize],
            None => operands,
        });
    }
    false
}

fn past_arguments(kind: Custom) -> Error {
    let name = if kind.forward { "custom_jvp" } else { "custom_vjp" };
    let what =
        "the function reads a differentiated value that its rule is not asked about, and would lose its gradient";
    Error::new(ErrorKind::Type, name, what)
        .with_hint("pass it as an argument (outside of nondiff_argnums), or ckad.stop_gradient of it")
}

/// Cotangents of the arguments, by operand.
pub(crate) fn transposed(at: &Transposed<'_>, kind: Pullback) -> Result<Vec<(usize, NodeId)>> {
    let &Transposed { op, builder, source, id, is_linear, cotangents, .. } = at;
    let body = only_body(call_of(source, id)?)?;
    let arguments = kind.arguments as usize;
    let cotangent = |(index, given): (usize, &Option<NodeId>)| match given {
        Some(given) => Ok(*given),
        None => builder.zeros(body.dtype(body.inputs[index]), body.shape(body.inputs[index])),
    };
    let mut operands = tables::tried(op, cotangents.iter().enumerate().map(cotangent))?;
    for operand in arguments..source.operands(id).len() {
        tables::push(op, &mut operands, at.coefficient(operand)?)?;
    }
    let found = written(builder, body, &operands)?;
    let found = found.into_iter().enumerate().filter(|&(argument, _)| is_linear[argument]);
    tables::list(op, found)
}

/// Says so where something is left that can only be transposed.
pub(crate) fn none_left(graph: &Graph) -> Result<()> {
    let live = reached("jvp", graph, graph.outputs.iter().copied())?;
    let left = |id: &NodeId| {
        live[id.index()]
            && matches!(graph.op(*id), Op::Call(_))
            && graph.call(*id).is_some_and(|call| has_kind(call, &|kind| matches!(kind, CallKind::Pullback(_))))
    };
    match graph.ids().find(left) {
        Some(id) => Err(refused().at_line(graph.attributes(id).line)),
        None => Ok(()),
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Type, "custom_vjp", "forward mode reaches a function whose rule is for cotangents")
        .with_hint("differentiate in reverse mode (grad, vjp), or give the rule for tangents: ckad.custom_jvp")
}

/// Writes a rule into the graph under construction, at the builder's place; its outputs.
fn written(builder: &Builder, body: &Graph, operands: &[NodeId]) -> Result<Vec<NodeId>> {
    let Attributes { position, pass, region, .. } = builder.attributes();
    let mut target = builder.graph_mut();
    let mut copy = Copy::new("custom", body)?;
    body.inputs.iter().zip(operands).for_each(|(&input, &operand)| copy.set(input, operand));
    let mut ids = Tables::within(&target, region)?;
    for id in body.ids() {
        let node = body.node(id);
        if matches!(node.op, Op::Input(_)) {
            continue;
        }
        let operands = copy.all(body.operands(id))?;
        let op = ids.op(&mut target, body, node.op)?;
        let shape = ids.list(&mut target, body, node.shape)?;
        let attributes = Attributes { line: node.attributes.line, position, pass, region };
        copy.set(id, target.push(op, &operands, node.dtype, shape, attributes)?);
    }
    copy.all(&body.outputs)
}

fn has_kind(call: &Call, wanted: &dyn Fn(CallKind) -> bool) -> bool {
    wanted(call.kind) || call.bodies.iter().flat_map(|body| &body.calls).any(|call| has_kind(call, wanted))
}

/// Whether a function of the graph has a rule that forward mode cannot use.
pub fn is_for_reverse_mode(graph: &Graph) -> bool {
    graph.calls.iter().any(|call| has_rule_for_cotangents(call))
}

/// Whether a function in a call, or the call itself, has such a rule.
pub(crate) fn has_rule_for_cotangents(call: &Call) -> bool {
    has_kind(call, &|kind| matches!(kind, CallKind::Custom(Custom { forward: false, .. })))
}

/// The graph without calls of functions with derivatives of their own: their results are what they compute. None where
/// there is no such call.
pub fn without_customs(graph: &Graph) -> Result<Option<Graph>> {
    let is_custom = |kind: CallKind| matches!(kind, CallKind::Custom(_));
    if !graph.calls.iter().any(|call| has_kind(call, &is_custom)) {
        return Ok(None);
    }
    let mut target = derived(graph, 1)?;
    let inner = |call: &Arc<Call>| -> Result<Arc<Call>> {
        if !call.bodies.iter().flat_map(|body| &body.calls).any(|call| has_kind(call, &is_custom)) {
            return Ok(Arc::clone(call));
        }
        let body = |body: &Graph| without_customs(body)?.map_or_else(|| body.copied(), Ok);
        let bodies = tables::tried("custom", call.bodies.iter().map(body))?;
        Ok(Arc::new(Call::new(call.kind, bodies, call.work)))
    };
    target.calls = tables::tried("custom", graph.calls.iter().map(inner))?;
    let mut copy = Copy::new("custom", graph)?;
    copy.inputs(&mut target, graph)?;
    for id in graph.ids() {
        match graph.op(id) {
            Op::Input(_) => {}
            Op::Call(_) if kind_of(graph, id).is_some() => {}
            Op::Part(part) if kind_of(graph, id).is_some() => {
                let call = graph.operands(id)[0];
                copy.set(id, copy.of(graph.operands(call)[part as usize])?);
            }
            _ => drop(copy.node(&mut target, graph, id, graph.attributes(id))?),
        }
    }
    target.outputs = copy.all(&graph.outputs)?;
    Ok(Some(target))
}
