//! Bodies of calls: copies of a graph with other inputs, from which derived bodies are put together.

use std::sync::Arc;

use ckad_graph::{Call, CallKind, Error, Graph, NodeId, Op, Result, interrupt, tables};
use ckad_prim::Builder;

use crate::copy::{Copy, derived, reached, table};
use crate::simplify::simplify;

/// What computes `outputs`, with the inputs of these indices as its inputs, in this order. `same` names inputs that are
/// to be what another one is.
pub fn with_inputs(
    op: &'static str,
    graph: &Graph,
    order: &[usize],
    same: &[(usize, usize)],
    outputs: &[NodeId],
) -> Result<Graph> {
    let live = reached(op, graph, outputs.iter().copied())?;
    let mut target = derived(graph, 1)?;
    let mut copy = Copy::new(op, graph)?;
    for &index in order {
        copy.input(&mut target, graph, graph.inputs[index])?;
    }
    for &(index, other) in same {
        let other = copy.of(graph.inputs[other])?;
        copy.set(graph.inputs[index], other);
    }
    for id in graph.ids() {
        if live[id.index()] && !matches!(graph.op(id), Op::Input(_)) {
            copy.node(&mut target, graph, id, graph.attributes(id))?;
        }
    }
    target.outputs = copy.all(outputs)?;
    Ok(target)
}

/// Which inputs the outputs reach.
pub fn used_inputs(op: &str, graph: &Graph, outputs: &[NodeId]) -> Result<Vec<bool>> {
    let live = reached(op, graph, outputs.iter().copied())?;
    tables::list(op, graph.inputs.iter().map(|input| live[input.index()]))
}

/// Which inputs the outputs reach in any iteration: who reads a carry reads what its next value, `next` of the input,
/// is made of. One walk over the body, however long the way from carry to carry is.
pub fn used_in_loop(
    op: &str,
    graph: &Graph,
    outputs: &[NodeId],
    next: impl Fn(usize) -> Option<NodeId>,
) -> Result<Vec<bool>> {
    let mut live = table(op, false, graph.len())?;
    let mut waiting = Vec::new();
    let wait = |live: &mut [bool], waiting: &mut Vec<NodeId>, id: NodeId| match live[id.index()] {
        true => Ok(()),
        false => {
            live[id.index()] = true;
            tables::push(op, waiting, id)
        }
    };
    outputs.iter().try_for_each(|&output| wait(&mut live, &mut waiting, output))?;
    let mut walked = 0;
    while let Some(id) = waiting.pop() {
        interrupt::check_at(walked)?;
        walked += 1;
        let next = match graph.op(id) {
            Op::Input(index) => next(index as usize),
            _ => None,
        };
        let below = graph.operands(id).iter().copied().chain(next);
        below.into_iter().try_for_each(|below| wait(&mut live, &mut waiting, below))?;
    }
    tables::list(op, graph.inputs.iter().map(|input| live[input.index()]))
}

/// The one body of a loop.
pub(crate) fn only_body(call: &Call) -> Result<&Graph> {
    match call.bodies.as_slice() {
        [body] => Ok(body),
        bodies => Err(Error::internal("call", format!("a loop of {} bodies", bodies.len()))),
    }
}

/// The call that a node is.
pub(crate) fn call_of(graph: &Graph, id: NodeId) -> Result<&Arc<Call>> {
    graph.call(id).ok_or_else(|| Error::internal("call", format!("%{} is no call", id.0)))
}

/// Appends a call of one body, simplified here.
pub(crate) fn append(builder: &Builder, kind: CallKind, body: Graph, operands: &[NodeId]) -> Result<NodeId> {
    builder.call(&Arc::new(ckad_prim::call(kind, vec![simplify(body)?])), operands)
}
