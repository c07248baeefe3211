//! The derivative of a loop whose length nobody knows: tangents are carried beside the carries, in both forms. There is
//! no transposed one, as nothing says where it would begin.

use std::sync::Arc;

use ckad_graph::{CallKind, Error, ErrorKind, NodeId, Result, While, tables};

use crate::body::{call_of, with_inputs};
use crate::calls::{Both, Form, Site, Tangents, active_outputs, beside};
use crate::simplify::simplify;

pub(crate) fn refused() -> Error {
    Error::new(
        ErrorKind::Tracer,
        "while_loop",
        "reverse mode goes through a loop whose length is not known when it is recorded",
    )
    .with_hint(
        "forward mode does (ckad.jvp, ckad.linearize under ckad.jit); or call the gradient without ckad.jit, where the \
         loop is run once to learn its length; or use ckad.fori_loop or ckad.scan with a length that Python knows",
    )
}

pub(crate) fn linearised(site: &Site<'_>, id: NodeId, looped: While) -> Result<Option<Tangents>> {
    let &Site { op, form, builder, source, copy, .. } = site;
    let call = call_of(source, id)?;
    let [test, step] = call.bodies.as_slice() else { return Err(Error::internal(op, "a loop without a test")) };
    let (tests, consts, carries) = (looped.test_consts as usize, looped.consts as usize, looped.carries as usize);
    let given = &source.operands(id)[tests..];
    let mut active = site.active(id).split_off(tests);
    // A carry has a tangent where its first value has one, or an iteration gives it one.
    loop {
        let outputs = active_outputs(op, step, &active)?;
        let before = active.clone();
        active[consts..].iter_mut().zip(&outputs).for_each(|(carry, output)| *carry |= output);
        if active == before {
            break;
        }
    }
    let carried = &active[consts..];
    if !carried.contains(&true) {
        return Ok(None);
    }
    let Both { graph, values, tangents } = beside(op, Form::Joint, step, &active, carried)?;
    let is_active = |input: &usize| active[*input];
    let tangent_of = |input: usize| step.inputs.len() + (0..input).filter(is_active).count();
    let changes = |range: std::ops::Range<usize>| range.filter(is_active).map(tangent_of);
    let (all_consts, all_carries) = (0..consts, consts..consts + carries);
    let order: Vec<usize> = all_consts
        .clone()
        .chain(changes(all_consts.clone()))
        .chain(all_carries.clone())
        .chain(changes(all_carries.clone()))
        .collect();
    let outputs = [values, tangents].concat();
    let step = simplify(with_inputs(op, &graph, &order, &[], &outputs)?)?;
    // The test takes the tangents, and does not look at them.
    let mut test = test.copied()?;
    for carry in all_carries.clone().filter(is_active) {
        let shape = test.lists.intern(source.shape(given[carry]))?;
        test.push_input(source.dtype(given[carry]), shape, source.attributes(id))?;
    }
    builder.set_attributes(source.attributes(id));
    let mut operands = copy.all(&source.operands(id)[..tests])?;
    for range in [all_consts.clone(), all_carries] {
        tables::extend(op, &mut operands, copy.all(&given[range.clone()])?)?;
        for input in range.filter(is_active) {
            operands.push(site.tangent(given[input])?);
        }
    }
    let rank = |carry: usize| (0..carry).filter(|&other| carried[other]).count();
    let kind = While {
        consts: (consts + all_consts.filter(is_active).count()) as u32,
        carries: (carries + rank(carries)) as u32,
        ..looped
    };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::While(kind), vec![test, step])), &operands)?;
    let tangents = (0..carries).map(|carry| carried[carry].then(|| (carries + rank(carry)) as u32));
    let values = (0..carries as u32).chain([kind.carries]);
    let values = (form == Form::Joint).then(|| values.collect());
    Ok(Some(Tangents { call, tangents: tangents.chain([None]).collect(), values }))
}
