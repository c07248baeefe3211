//! Forward mode: beside every node that depends on an active input, its tangent. An absent tangent means zero.
//!
//! Reverse mode starts here too: it transposes the tangent part of what [`with_tangents`] builds.

use ckad_graph::{Attributes, Error, Graph, NodeId, Op, Result, interrupt, tables};
use ckad_prim::{Builder, Expr, diff};
use rustc_hash::FxHashMap;

use crate::calls::{Form, Site, Tangents, linearised};
use crate::copy::{Copy, NodeTable, derived, reached};
use crate::custom;
use crate::settle::settled;

/// The inputs followed by tangents of the active inputs → the outputs followed by tangents of the float outputs.
pub fn jvp(graph: &Graph, active: &[bool]) -> Result<Graph> {
    forward(graph, active, Form::Joint)
}

/// As [`jvp`], where what computes the values does not mix with what is linear in the tangents: to be partitioned.
pub fn linearize(graph: &Graph, active: &[bool]) -> Result<Graph> {
    forward(graph, active, Form::Apart)
}

fn forward(graph: &Graph, active: &[bool], form: Form) -> Result<Graph> {
    let source = settled(graph)?;
    let builder = Builder::new(derived(&source, 3)?);
    let linearised = with_tangents("jvp", form, &builder, &source, active, &source.outputs)?;
    let mut outputs = linearised.copy.all(&source.outputs)?;
    for &output in source.outputs.iter().filter(|&&output| source.dtype(output).is_float()) {
        let tangent = match linearised.tangents.get(output) {
            Some(tangent) => tangent,
            None => {
                builder.set_attributes(Attributes { line: source.attributes(output).line, ..last_place(&builder) });
                builder.zeros(source.dtype(output), source.shape(output))?
            }
        };
        tables::push("jvp", &mut outputs, tangent)?;
    }
    let mut target = builder.finish()?;
    target.outputs = outputs;
    custom::none_left(&target)?;
    Ok(target)
}

/// Pass and position of what runs last.
fn last_place(builder: &Builder) -> Attributes {
    let graph = builder.graph();
    let last = graph.ids().rev().find(|&id| !graph.op(id).is_leaf()).map(|id| graph.attributes(id));
    last.map_or_else(Attributes::default, Attributes::without_region)
}

pub(crate) struct Linearised {
    pub copy: Copy,
    /// For each node of the source, its tangent in the derived graph.
    pub tangents: NodeTable,
    /// The inputs that were appended, one per active input.
    pub tangent_inputs: Vec<NodeId>,
}

/// Copies what is live of `source` into `builder`, and beside each node on a path from an active input to one of
/// `wanted` its tangent, with the pass and position of its primal.
pub(crate) fn with_tangents(
    op: &'static str,
    form: Form,
    builder: &Builder,
    source: &Graph,
    active: &[bool],
    wanted: &[NodeId],
) -> Result<Linearised> {
    if active.len() != source.inputs.len() {
        let what = format!("{} flags for {} inputs", active.len(), source.inputs.len());
        return Err(Error::internal(op, what));
    }
    let live = reached(op, source, source.outputs.iter().copied())?;
    let other = if wanted == source.outputs { None } else { Some(reached(op, source, wanted.iter().copied())?) };
    let leads = other.as_ref().unwrap_or(&live);
    let mut copy = Copy::new(op, source)?;
    let mut tangents = NodeTable::new(op, source.len())?;
    let mut tangent_inputs = Vec::new();
    copy.inputs(&mut builder.graph_mut(), source)?;
    for (&input, _) in source.inputs.iter().zip(active).filter(|(_, active)| **active) {
        let node = source.node(input);
        if !node.dtype.is_float() {
            return Err(Error::dtype(op, format!("an argument of dtype {} has no derivative", node.dtype))
                .with_hint("differentiate with respect to float arguments"));
        }
        let tangent = builder.graph_mut().push_input(node.dtype, node.shape, node.attributes)?;
        tangents.set(input, tangent);
        tables::push(op, &mut tangent_inputs, tangent)?;
    }

    let mut loops: FxHashMap<NodeId, Tangents> = FxHashMap::default();
    let mut customs: FxHashMap<NodeId, custom::Derived> = FxHashMap::default();
    let mut operand_exprs: Vec<Expr<'_>> = Vec::new();
    let mut operand_tangents: Vec<Option<Expr<'_>>> = Vec::new();
    for id in source.ids() {
        interrupt::check_at(id.index())?;
        if !live[id.index()] || matches!(source.op(id), Op::Input(_)) {
            continue;
        }
        let attributes = source.attributes(id);
        match source.op(id) {
            Op::Call(_) if custom::kind_of(source, id).is_some() => {
                copy.node(&mut builder.graph_mut(), source, id, attributes)?;
                let site = Site { op, form, builder, source, copy: &copy, tangents: &tangents };
                let found = match custom::kind_of(source, id).filter(|_| leads[id.index()]) {
                    Some(kind) => {
                        custom::linearised(&site, id, kind).map_err(|error| error.at_line(attributes.line))?
                    }
                    None => None,
                };
                if let Some(found) = found {
                    tables::room_for_keys(op, &mut customs, 1)?;
                    customs.insert(id, found);
                }
                continue;
            }
            Op::Part(part) if customs.contains_key(&source.operands(id)[0]) => {
                builder.set_attributes(attributes);
                let call = source.operands(id)[0];
                let found = &customs[&call];
                let value = match found.used {
                    true => copy.of(source.operands(call)[part as usize])?,
                    false => builder.part(copy.of(call)?, part)?,
                };
                copy.set(id, value);
                if leads[id.index()] {
                    tangents.set(id, found.tangents[part as usize]);
                }
                continue;
            }
            Op::Call(_) => {
                let own = match form {
                    Form::Split | Form::Apart => Some(copy.node(&mut builder.graph_mut(), source, id, attributes)?),
                    Form::Joint => None,
                };
                let site = Site { op, form, builder, source, copy: &copy, tangents: &tangents };
                let found = if leads[id.index()] {
                    linearised(&site, id, own).map_err(|error| error.at_line(attributes.line))?
                } else {
                    None
                };
                match &found {
                    Some(Tangents { call, values: Some(_), .. }) => copy.set(id, *call),
                    Some(Tangents { own: Some(own), .. }) => copy.set(id, *own),
                    _ if own.is_none() => drop(copy.node(&mut builder.graph_mut(), source, id, attributes)?),
                    _ => {}
                }
                if let Some(found) = found {
                    tables::room_for_keys(op, &mut loops, 1)?;
                    loops.insert(id, found);
                }
                continue;
            }
            Op::Part(part) => {
                builder.set_attributes(attributes);
                let call = source.operands(id)[0];
                let found = loops.get(&call);
                let own = found.and_then(|found| found.values.as_ref()).map_or(part, |values| values[part as usize]);
                copy.set(id, builder.part(copy.of(call)?, own)?);
                let tangent = found.and_then(|found| Some((found.call, found.tangents[part as usize]?)));
                if let Some((call, part)) = tangent.filter(|_| leads[id.index()]) {
                    tangents.set(id, builder.part(call, part)?);
                }
                continue;
            }
            _ => {}
        }
        let out = copy.node(&mut builder.graph_mut(), source, id, attributes)?;
        if !leads[id.index()] || !source.dtype(id).is_float() {
            continue;
        }
        operand_tangents.clear();
        let known = |operand: &NodeId| tangents.get(*operand).map(|tangent| builder.expr(tangent));
        tables::extend(op, &mut operand_tangents, source.operands(id).iter().map(known))?;
        if operand_tangents.iter().all(Option::is_none) {
            continue;
        }
        operand_exprs.clear();
        for &operand in source.operands(id) {
            tables::push(op, &mut operand_exprs, builder.expr(copy.of(operand)?))?;
        }
        builder.set_attributes(attributes);
        let tangent = diff(source, id, &operand_exprs, builder.expr(out), &operand_tangents)
            .and_then(|tangent| builder.take_error().map(|()| tangent))
            .map_err(|error| error.at_line(attributes.line))?;
        if let Some(tangent) = tangent {
            tangents.set(id, tangent.id);
        }
    }
    Ok(Linearised { copy, tangents, tangent_inputs })
}
