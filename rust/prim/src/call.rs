//! `call` and `part`: loops and branches, and their results. What they mean is in `ckad_graph::Call`; they are
//! differentiated by `ckad_transform`, whose work it is to derive their bodies.

use std::sync::Arc;

use ckad_graph::{BodyWork, Call, CallKind, DType, Error, Graph, NodeId, Op, Result, Scan, shape_text};

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

/// The one body of a loop.
fn body(call: &Call) -> Result<&Graph> {
    match call.bodies.as_slice() {
        [body] => Ok(body),
        bodies => Err(broken(format!("{} bodies", bodies.len()))),
    }
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

/// A call has no elements.
pub(crate) fn infer(graph: &Graph, operands: &[NodeId], call: &Call) -> Result<Inferred> {
    if call.bodies.iter().any(|body| !body.constants.is_empty() || !body.splices.is_empty()) {
        return Err(broken("a body is not closed"));
    }
    match call.kind {
        CallKind::Scan(scan) => check_scan(graph, operands, scan, body(call)?)?,
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
    let CallKind::Scan(scan) = call.kind;
    let body = body(call)?;
    let part = part as usize;
    let (carries, ys) = (scan.carries as usize, scan.ys as usize);
    let stacked = |node: NodeId| {
        let (dtype, shape) = spec(body, node);
        (dtype, std::iter::once(i64::from(scan.trips)).chain(shape.iter().copied()).collect())
    };
    Ok(if part < carries {
        let (dtype, shape) = spec(body, body.outputs[part]);
        (dtype, shape.to_vec())
    } else if part < carries + ys {
        stacked(body.outputs[part])
    } else if part < scan.parts() {
        stacked(body.inputs[Scan::input_of(scan.consts as usize + part - carries - ys)])
    } else {
        return Err(Error::internal("part", format!("part {part} of {scan:?}")));
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
    let one = bodies.iter().map(work).fold(BodyWork::default(), |sum, body| BodyWork {
        flops: sum.flops.saturating_add(body.flops),
        heavy: sum.heavy | body.heavy,
    });
    let CallKind::Scan(scan) = kind;
    let work = BodyWork { flops: one.flops.saturating_mul(u64::from(scan.trips)), ..one };
    Call::new(kind, bodies, work)
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
