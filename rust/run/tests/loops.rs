//! Loops on the executor: the bits of all policies, also with every buffer by itself, and what they hold.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use ckad_graph::{Attributes, CallKind, CheckpointPolicy, DType, Graph, Op, binomial};
use ckad_plan::checkpoint_loops::checkpointed;
use ckad_plan::compile::{compile, compile_loops};
use ckad_plan::verify::verify_program;
use ckad_prim::Builder;
use ckad_run::{MemoryTrace, RunOptions, target};
use ckad_transform::{Closed, Outside, simplify, value_and_grad};
use common::{bytes_of, inputs, run_on};

const SIZE: i64 = 700;

/// The gradient of a loop of so many iterations, by its first carry and an array of slices.
fn gradient(trips: u32) -> Graph {
    let body = Builder::new(Graph::new());
    let input = |builder: &Builder, dtype, shape: &[i64]| {
        let shape = builder.intern(shape).unwrap();
        let id = builder.graph_mut().push_input(dtype, shape, Attributes::default()).unwrap();
        builder.expr(id).id
    };
    let _index = input(&body, DType::I64, &[]);
    let (h, k, x) = (
        body.expr(input(&body, DType::F64, &[SIZE])),
        body.expr(input(&body, DType::F64, &[SIZE])),
        body.expr(input(&body, DType::F64, &[SIZE])),
    );
    let outputs = [(h.sin() + k * 0.1 + x).id, (k * h.cos()).id, (h * k).sum(&[0]).id];
    let mut graph = body.finish().unwrap();
    graph.outputs = outputs.to_vec();
    let closed = Closed::of(&graph, 4).unwrap();
    let call = Arc::new(closed.scan(trips, false, 2).unwrap());

    let outer = Builder::new(Graph::new());
    let first = input(&outer, DType::F64, &[SIZE]);
    let xs = input(&outer, DType::F64, &[i64::from(trips), SIZE]);
    let mut operands = Vec::new();
    for outside in &closed.consts {
        let Outside::Scalar(dtype, bits) = outside else { panic!("{outside:?}") };
        operands.push(outer.scalar(*dtype, *bits).unwrap());
    }
    operands.extend([first, first, xs]);
    let node = outer.call(&call, &operands).unwrap();
    let last = outer.expr(outer.part(node, 0).unwrap());
    let stacked = outer.expr(outer.part(node, 2).unwrap());
    let value = ((last * last).sum(&[0]) + stacked.sum(&[0])).id;
    let mut graph = outer.finish().unwrap();
    graph.outputs = vec![value];
    simplify(value_and_grad(&graph, &[true, true]).unwrap()).unwrap()
}

#[test]
fn policies_have_the_same_bits() {
    let target = target().unwrap();
    for trips in [1, 2, 5, 40] {
        let graph = gradient(trips);
        let inputs = inputs(&graph, &|_| (-1.0, 1.0));
        let kept = compile(&graph, CheckpointPolicy::None, &target).unwrap();
        let expected = bytes_of(&run_on(&kept.program, &graph, &inputs, RunOptions::default()));
        for policy in [CheckpointPolicy::Sqrt, CheckpointPolicy::Segments(1), CheckpointPolicy::Segments(3)] {
            let (compiled, rewritten) = compile_loops(&graph, policy, &target, &[]).unwrap();
            verify_program(&compiled.program).unwrap();
            assert!(compiled.peak.total() <= kept.peak.total());
            let graph = rewritten.as_ref().unwrap_or(&graph);
            for debug in [false, true] {
                let mut trace = MemoryTrace::default();
                let options = RunOptions { debug, trace: Some(&mut trace), ..RunOptions::default() };
                let found = bytes_of(&run_on(&compiled.program, graph, &inputs, options));
                assert!(found == expected, "{trips} trips, {policy:?}, debug {debug}");
                let live = trace.entries.iter().map(|entry| entry.live_bytes).max().unwrap();
                assert_eq!(live, compiled.program.live_bytes().unwrap().into_iter().max().unwrap());
            }
        }
    }
}

#[test]
fn slots_are_written_over_where_they_die() {
    let graph = gradient(100);
    let found = checkpointed(&graph, CheckpointPolicy::Sqrt).unwrap().unwrap();
    assert_eq!(u64::from(found.slots), binomial::least_slots(100, 2));
    let kinds: Vec<CallKind> = found
        .graph
        .ids()
        .filter(|&id| matches!(found.graph.op(id), Op::Call(_)))
        .map(|id| found.graph.call(id).unwrap().kind)
        .collect();
    assert!(matches!(kinds[..], [CallKind::Scan(_), CallKind::Reverse(_)]), "{kinds:?}");
    // Two carries in as many slots, and little else.
    let (compiled, _) = compile_loops(&graph, CheckpointPolicy::Sqrt, &target().unwrap(), &[]).unwrap();
    let state = 2 * SIZE as usize * 8;
    let held = compiled.peak.arena + compiled.peak.scratch;
    assert!(held < (found.slots as usize + 12) * state, "{held} bytes, {} slots of {state}", found.slots);
    assert!(checkpointed(&graph, CheckpointPolicy::None).unwrap().is_none());
}

/// So many loops after each other, each from what the one before left. `trips` of each.
fn in_turn(trips: impl Iterator<Item = u32>) -> Graph {
    let outer = Builder::new(Graph::new());
    let shape = outer.intern(&[4]).unwrap();
    let mut value = outer.graph_mut().push_input(DType::F64, shape, Attributes::default()).unwrap();
    for trips in trips {
        let body = Builder::new(Graph::new());
        let input = |dtype, shape: &[i64]| {
            let shape = body.intern(shape).unwrap();
            body.graph_mut().push_input(dtype, shape, Attributes::default()).unwrap()
        };
        let (_index, h) = (input(DType::I64, &[]), body.expr(input(DType::F64, &[4])));
        let next = h.sin().id;
        let mut graph = body.finish().unwrap();
        graph.outputs = vec![next];
        let call = Arc::new(Closed::of(&graph, 2).unwrap().scan(trips, false, 1).unwrap());
        let node = outer.call(&call, &[value]).unwrap();
        value = outer.part(node, 0).unwrap();
    }
    let mut graph = outer.finish().unwrap();
    graph.outputs = vec![value];
    simplify(graph).unwrap()
}

#[test]
fn a_body_that_many_loops_run_is_there_once() {
    let target = target().unwrap();
    let bytes = |graph: &Graph| compile(graph, CheckpointPolicy::None, &target).unwrap().program.own_bytes().unwrap();
    let one = bytes(&in_turn([3].into_iter()));
    let alike = in_turn(std::iter::repeat_n(3, 64));
    let different = in_turn(3..67);
    assert_eq!((alike.calls.len(), different.calls.len()), (1, 64));
    let (alike, different) = (bytes(&alike), bytes(&different));
    assert!(different > alike + 50 * size_of::<ckad_plan::program::Body>(), "{one} {alike} {different}");
    // Only what an empty list of one capacity and one of another differ by depends on how often the body runs.
    let step = size_of::<ckad_plan::program::Step>() + size_of::<ckad_plan::program::LoopKernel>();
    assert!(alike < one + 64 * (2 * step + 512), "{one} {alike} {different}");
}
