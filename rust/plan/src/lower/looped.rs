//! Kernels of loops and branches: each body is compiled by itself, once, whatever the schedule of what is around it.
//!
//! Who runs a body gives up the carries, so that the next ones are written over them where that is possible.

use std::sync::Arc;

use ckad_graph::{Call, CallKind, CheckpointPolicy, Error, Graph, NodeId, Op, Result, tables};

use crate::compile::compile_donating;
use crate::loops::LoopLayout;
use crate::lower::buffers::Buffers;
use crate::lower::structural::{extents, operand};
use crate::program::{ArrayRef, Body, BufferId, Kernel, LoopKernel, Place, Program, Source, Target};
use crate::schedule::Cluster;

/// The kernel of a call's cluster, which computes `born`; what `dies` has its last use here.
pub(crate) fn loop_kernel(
    graph: &Graph,
    cluster: &Cluster,
    born: &[(NodeId, BufferId)],
    buffers: &Buffers<'_>,
    target: &Target,
    dies: impl Fn(NodeId) -> bool,
) -> Result<Kernel> {
    let missing = || Error::internal("lower", "a part without its call");
    let node = *cluster.members.first().ok_or_else(missing)?;
    let call = graph.call(node).ok_or_else(missing)?;
    let made = call.made(target.threads as u64, || bodies(call, target))?;
    let operands = graph.operands(node);
    let arrays = tables::tried("plan", operands.iter().map(|&o| operand(graph, o, buffers)))?;
    let mut results: Vec<Option<ArrayRef>> = tables::filled("plan", None, call.kind.parts())?;
    for &(node, buffer) in born {
        let Op::Part(part) = graph.op(node) else { return Err(missing()) };
        let shape = extents(graph.shape(node));
        results[part as usize] = Some(ArrayRef { source: Source::Buffer(buffer), dtype: graph.dtype(node), shape });
    }
    let first_slots = match call.kind {
        CallKind::Reverse(reverse) => reverse.first_slots(),
        CallKind::Rewind(rewind) => rewind.first_slots(),
        _ => operands.len(),
    };
    let twice = |node: NodeId| operands.iter().filter(|other| **other == node).count() > 1;
    let given_up = |(index, &node): (usize, &NodeId)| {
        index >= first_slots && dies(node) && !twice(node) && buffers.is_in_arena_alone(node)
    };
    let given_up = tables::list("plan", operands.iter().enumerate().map(given_up))?;
    let bodies = tables::list("plan", made.iter().cloned())?;
    let layout = LoopLayout::default();
    let mut kernel = LoopKernel { kind: call.kind, bodies, operands: arrays, results, given_up, layout };
    kernel.layout = kernel.laid_out()?;
    Ok(Kernel::Loop(Box::new(kernel)))
}

fn bodies(call: &Call, target: &Target) -> Result<Vec<Arc<Body>>> {
    let carries = |index: usize| match (call.kind, index) {
        (CallKind::Scan(scan), _) => (1 + scan.consts, scan.carries),
        (CallKind::Reverse(reverse), 0) => (1 + reverse.scan.consts, reverse.scan.carries),
        (CallKind::Reverse(reverse), _) => (1 + reverse.consts, reverse.carries),
        (CallKind::Rewind(rewind), 0) => (rewind.consts, rewind.carries),
        (CallKind::Rewind(rewind), _) => (rewind.other_consts, rewind.other_carries),
        (CallKind::While(looped), 1) => (looped.consts, looped.carries),
        (CallKind::While(_) | CallKind::Branch(_), _) => (0, 0),
        (CallKind::Custom(_) | CallKind::Pullback(_), _) => (0, 0),
    };
    if matches!(call.kind, CallKind::Custom(_) | CallKind::Pullback(_)) {
        return Err(Error::internal("lower", "a rule that was not written into the graph"));
    }
    let body = |(index, graph)| {
        let (first, count) = carries(index);
        body(graph, first as usize, count as usize, target).map(Arc::new)
    };
    tables::tried("plan", call.bodies.iter().enumerate().map(body))
}

/// The program of a body, whose carries are `count` inputs from the first one on, and as many first outputs.
fn body(graph: &Graph, first: usize, count: usize, target: &Target) -> Result<Body> {
    let donated: Vec<bool> = (0..graph.inputs.len()).map(|input| (first..first + count).contains(&input)).collect();
    let mut program = compile_donating(graph, CheckpointPolicy::Auto, target, &donated)?.program;
    program.set_recorded(graph, 0, 0)?;
    // Where a carry is written over another one, both would have to move from iteration to iteration.
    program.takeovers.retain(|takeover| takeover.input as usize == takeover.output as usize + first);
    let mut in_place = tables::filled("plan", false, program.outputs.len())?;
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
