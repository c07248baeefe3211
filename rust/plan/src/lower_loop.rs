//! Kernels of loops: the body is compiled by itself, once, whatever the schedule of what is around it.
//!
//! The caller of the body gives up the carries, so that the next ones are written over them where that is possible.

use ckad_graph::{Call, CallKind, CheckpointPolicy, Error, Graph, NodeId, Op, Result, Scan, tables};

use crate::compile::compile_donating;
use crate::lower_buffers::Buffers;
use crate::lower_structural::{extents, operand};
use crate::program::{ArrayRef, Body, BufferId, Kernel, LoopKernel, Place, Program, Source, Target};
use crate::schedule::Cluster;

/// The kernel of a call's cluster, which computes `born`.
pub(crate) fn loop_kernel(
    graph: &Graph,
    cluster: &Cluster,
    born: &[(NodeId, BufferId)],
    buffers: &Buffers<'_>,
    target: &Target,
) -> Result<Kernel> {
    let missing = || Error::internal("lower", "a part without its call");
    let node = *cluster.members.first().ok_or_else(missing)?;
    let call = graph.call(node).ok_or_else(missing)?;
    let CallKind::Scan(scan) = call.kind;
    let body = call.made(target.threads as u64, || body(call, scan, target))?;
    let operands = tables::tried("plan", graph.operands(node).iter().map(|&o| operand(graph, o, buffers)))?;
    let mut results: Vec<Option<ArrayRef>> = tables::filled("plan", None, scan.parts())?;
    for &(node, buffer) in born {
        let Op::Part(part) = graph.op(node) else { return Err(missing()) };
        let shape = extents(graph.shape(node));
        results[part as usize] = Some(ArrayRef { source: Source::Buffer(buffer), dtype: graph.dtype(node), shape });
    }
    Ok(Kernel::Loop(Box::new(LoopKernel { scan, body, operands, results })))
}

fn body(call: &Call, scan: Scan, target: &Target) -> Result<Body> {
    let [graph] = call.bodies.as_slice() else { return Err(Error::internal("lower", "a loop of several bodies")) };
    let (consts, carries) = (scan.consts as usize, scan.carries as usize);
    let is_carry = |input: usize| (1 + consts..1 + consts + carries).contains(&input);
    let donated: Vec<bool> = (0..graph.inputs.len()).map(is_carry).collect();
    let mut program = compile_donating(graph, CheckpointPolicy::Auto, target, &donated)?.program;
    program.set_recorded(graph, 0, 0)?;
    // Where a carry is written over another one, both would have to move from iteration to iteration.
    program.takeovers.retain(|takeover| takeover.input as usize == takeover.output as usize + 1 + consts);
    let mut in_place = tables::filled("plan", false, carries)?;
    for takeover in &program.takeovers {
        in_place[takeover.output as usize] = true;
    }
    let positions = tables::list("plan", program.steps.iter().map(|step| graph.attributes(step.node).position))?;
    let inputs = places(&program, program.inputs.len(), |place| match place {
        Place::Input(input) => Some(input),
        _ => None,
    })?;
    let outputs = places(&program, program.outputs.len(), |place| match place {
        Place::Output(output) => Some(output),
        _ => None,
    })?;
    Ok(Body { program, positions, in_place, inputs, outputs })
}

/// The buffers at numbered places.
fn places(program: &Program, count: usize, number: impl Fn(Place) -> Option<u32>) -> Result<Vec<BufferId>> {
    let mut found = tables::filled("plan", BufferId(u32::MAX), count)?;
    for (buffer, index) in program.buffers.iter().zip(0..) {
        if let Some(number) = number(buffer.place) {
            found[number as usize] = BufferId(index);
        }
    }
    if found.contains(&BufferId(u32::MAX)) {
        return Err(Error::internal("lower", "an input or output without a buffer"));
    }
    Ok(found)
}
