//! Loops: derivatives against differences and against each other, and what is left where little is asked for.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use ckad_graph::{Attributes, Call, CallKind, DType, Graph, ListId, NodeId, Op, Scan};
use ckad_prim::{Builder, Expr};
use ckad_transform::{Closed, Outside, jvp, linearize, partition, simplify, splice, value_and_grad, vjp};
use common::*;

const TRIPS: u32 = 5;

/// h' = tanh(w·h + x)·0.7 and k' = k + 1; stacked: h·x and 2·h. `w` is read from outside.
fn body() -> (Arc<Call>, Vec<Outside>) {
    let builder = Builder::new(Graph::new());
    let input = |dtype, shape: &[i64]| {
        let shape = builder.intern(shape).unwrap();
        let id = builder.graph_mut().push_input(dtype, shape, Attributes::default()).unwrap();
        builder.expr(id)
    };
    let vector: &[i64] = &[3];
    let index = input(DType::I64, &[]);
    let (h, k, x) = (input(DType::F64, vector), input(DType::F64, &[]), input(DType::F64, vector));
    let w = input(DType::F64, vector);
    let seven = builder.expr(builder.scalar(DType::F64, 0.7f64.to_bits()).unwrap());
    let next: Expr<'_> = (w * h + x).tanh() * seven;
    let outputs = [next.id, (k + 1.0).id, (h * x + index.cast(DType::F64)).id, (h * 2.0).id];
    let mut graph = builder.finish().unwrap();
    graph.outputs = outputs.to_vec();
    let closed = Closed::of(&graph, 4).unwrap();
    (Arc::new(closed.scan(TRIPS, false, 2).unwrap()), closed.consts)
}

/// The loop over inputs w, h, xs; its outputs are a scalar of the parts that are asked for.
fn looped(parts: &[u32]) -> Graph {
    let (call, consts) = body();
    let builder = Builder::new(Graph::new());
    let mut graph = builder.graph_mut();
    let mut input = |shape: &[i64]| {
        let shape = graph.lists.intern(shape).unwrap();
        graph.push_input(DType::F64, shape, Attributes::default()).unwrap()
    };
    let (w, h, xs) = (input(&[3]), input(&[3]), input(&[i64::from(TRIPS), 3]));
    drop(graph);
    let mut operands: Vec<NodeId> = consts
        .iter()
        .map(|outside| match outside {
            Outside::Input(4) => w,
            Outside::Scalar(dtype, bits) => builder.scalar(*dtype, *bits).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    operands.extend([h, builder.scalar(DType::F64, 0f64.to_bits()).unwrap(), xs]);
    let node = builder.call(&call, &operands).unwrap();
    let found = parts.iter().map(|&part| {
        let part = builder.expr(builder.part(node, part).unwrap());
        let axes: Vec<usize> = (0..part.shape().len()).collect();
        (part * part).sum(&axes)
    });
    let sum = found.reduce(|a, b| a + b).unwrap().id;
    let mut graph = builder.finish().unwrap();
    graph.outputs = vec![sum];
    graph
}

fn point() -> Vec<Values> {
    let mut random = Random(11);
    vec![random.values(3, (-1.0, 1.0)), random.values(3, (-1.0, 1.0)), random.values(3 * TRIPS as usize, (-1.0, 1.0))]
}

fn direction() -> Vec<Values> {
    let mut random = Random(12);
    point().iter().map(|x| random.values(x.len(), (-1.0, 1.0))).collect()
}

fn scans(graph: &Graph) -> Vec<Scan> {
    let calls = graph.ids().filter(|&id| matches!(graph.op(id), Op::Call(_)));
    let scan = |id| match graph.call(id).unwrap().kind {
        CallKind::Scan(scan) => scan,
        other => panic!("{other:?}"),
    };
    calls.map(scan).collect()
}

const ALL: [&[u32]; 4] = [&[0], &[0, 2], &[2, 3], &[4, 3]];

#[test]
fn both_modes_agree_with_differences() {
    for parts in ALL {
        let graph = looped(parts);
        ckad_prim::verify(&graph).unwrap();
        let slope = five_point(|t| run(&graph, &moved(&point(), &direction(), t)));
        let all = [true; 3];
        for forward in [jvp(&graph, &all).unwrap(), linearize(&graph, &all).unwrap()] {
            let forward = simplify(forward).unwrap();
            ckad_prim::verify(&forward).unwrap();
            let both = [point(), direction()].concat();
            assert_close("forward", &run(&forward, &both)[1], &slope[0], 1e-9);
        }
        let reverse = simplify(value_and_grad(&graph, &all).unwrap()).unwrap();
        ckad_prim::verify(&reverse).unwrap();
        assert_close("reverse", &[inner(&run(&reverse, &point())[1..], &direction())], &slope[0], 1e-9);
    }
}

#[test]
fn second_order_agrees_with_differences() {
    for parts in ALL {
        let all = [true; 3];
        let gradient = simplify(value_and_grad(&looped(parts), &all).unwrap()).unwrap();
        let slope = five_point(|t| run(&gradient, &moved(&point(), &direction(), t)));
        let forward = simplify(jvp(&gradient, &all).unwrap()).unwrap();
        let both = [point(), direction()].concat();
        let tangents = run(&forward, &both).split_off(4);
        for (tangent, slope) in tangents.iter().zip(&slope) {
            assert_close("forward over reverse", tangent, slope, 1e-8);
        }
        // ⟨u, H v⟩ the other way round.
        let reverse = simplify(vjp(&gradient, &all).unwrap()).unwrap();
        let seeds = [point(), vec![vec![0.0]], direction()].concat();
        let found = run(&reverse, &seeds).split_off(4);
        assert_close(
            "reverse over reverse",
            &[inner(&found, &direction())],
            &[inner(&tangents[1..], &direction())],
            1e-9,
        );
    }
}

#[test]
fn nothing_is_kept_that_nobody_asks_for() {
    let graph = simplify(looped(&[0])).unwrap();
    let [scan] = scans(&graph)[..] else { panic!("one loop") };
    assert_eq!((scan.consts, scan.carries, scan.xs, scan.ys), (2, 1, 1, 0));
    // Values alone need no states; a gradient needs those of the one carry that it depends on.
    let [forward] = scans(&simplify(jvp(&looped(&[0]), &[true, true, false]).unwrap()).unwrap())[..] else {
        panic!("one loop")
    };
    assert_eq!((forward.carries, forward.ys), (2, 0));
    let gradient = simplify(value_and_grad(&looped(&[0]), &[true, false, false]).unwrap()).unwrap();
    let [first, back] = scans(&gradient)[..] else { panic!("two loops") };
    assert_eq!((first.carries, first.ys, back.carries, back.ys, back.reverse), (1, 0, 2, 0, true));
    let own = |id: &NodeId| {
        matches!(gradient.op(*id), Op::Part(_)) && gradient.call(*id).unwrap().kind == CallKind::Scan(first)
    };
    let parts: Vec<Op> = gradient.ids().filter(own).map(|id| gradient.op(id)).collect();
    assert_eq!(parts, [Op::Part(first.states(0)), Op::Part(0)]);
}

#[test]
fn a_linearised_loop_parts_into_what_is_known_and_what_is_linear() {
    let whole = simplify(linearize(&looped(&[0, 2]), &[true, true, false]).unwrap()).unwrap();
    let known: Vec<bool> = (0..whole.inputs.len()).map(|input| input < 3).collect();
    let parts = partition(&whole, &known).unwrap();
    assert_eq!((scans(&parts.known).len(), scans(&parts.unknown).len()), (1, 1));
}

#[test]
fn equal_loops_are_one() {
    let graph = looped(&[0, 0, 2]);
    assert_eq!(scans(&simplify(graph).unwrap()).len(), 1);
    let (one, _) = body();
    let (other, _) = body();
    assert!(one.same_structure(&other) && one.structure_hash() == other.structure_hash());
}

#[test]
fn a_loop_at_many_nodes_is_spliced_once() {
    // Two nodes of one loop, that of an inner body too, under other names for their lines.
    let one = simplify(value_and_grad(&looped(&[0, 3]), &[true; 3]).unwrap()).unwrap();
    let calls: Vec<NodeId> = one.ids().filter(|&id| matches!(one.op(id), Op::Call(_))).collect();
    let mut twice = one.copied().unwrap();
    for &call in &calls {
        let node = *one.node(call);
        let again = twice.push(node.op, one.operands(call), node.dtype, node.shape, node.attributes).unwrap();
        assert!(Arc::ptr_eq(twice.call(call).unwrap(), twice.call(again).unwrap()));
    }
    let outer = Builder::new(Graph::new());
    let inputs: Vec<NodeId> = twice
        .inputs
        .iter()
        .map(|&input| {
            let shape = outer.intern(twice.shape(input)).unwrap();
            outer.graph_mut().push_input(twice.dtype(input), shape, Attributes::default()).unwrap()
        })
        .collect();
    splice(&outer, &twice, &inputs, |line| line + 7).unwrap();
    let graph = outer.finish().unwrap();
    assert_eq!((graph.calls.len(), calls.len()), (2, 2));
    let lines: Vec<u32> = graph
        .calls
        .iter()
        .flat_map(|call| &call.bodies)
        .flat_map(|body| body.ids().map(|id| body.attributes(id).line))
        .collect();
    assert!(lines.iter().all(|&line| line == 7));
}

/// Each carry takes what the next one was: of the first, all are needed; from the last, all get a tangent.
#[test]
fn carries_that_pass_on_what_they_are_take_linear_time() {
    const CARRIES: usize = 10_000;
    let builder = Builder::new(Graph::new());
    let input = |dtype| builder.graph_mut().push_input(dtype, ListId::EMPTY, Attributes::default()).unwrap();
    let _index = input(DType::I64);
    let carries: Vec<NodeId> = (0..CARRIES).map(|_| input(DType::F64)).collect();
    let next = |carry: usize| match carries.get(carry + 1) {
        Some(&other) => builder.expr(other).sin().id,
        None => builder.expr(carries[carry]).cos().id,
    };
    let outputs: Vec<NodeId> = (0..CARRIES).map(next).collect();
    let mut graph = builder.finish().unwrap();
    graph.outputs = outputs;
    let call = Arc::new(Closed::of(&graph, CARRIES + 1).unwrap().scan(TRIPS, false, CARRIES).unwrap());

    let outer = Builder::new(Graph::new());
    let input = |_| outer.graph_mut().push_input(DType::F64, ListId::EMPTY, Attributes::default()).unwrap();
    let inputs: Vec<NodeId> = (0..CARRIES).map(input).collect();
    let node = outer.call(&call, &inputs).unwrap();
    let first = outer.part(node, 0).unwrap();
    let mut graph = outer.finish().unwrap();
    graph.outputs = vec![first];
    let mut flags = vec![false; CARRIES];
    flags[CARRIES - 1] = true;
    let plain = simplify(graph.copied().unwrap()).unwrap();
    assert_eq!(scans(&plain)[0].carries as usize, CARRIES);
    let forward = simplify(jvp(&graph, &flags).unwrap()).unwrap();
    assert_eq!(scans(&forward)[0].carries as usize, 2 * CARRIES);
    let gradient = simplify(value_and_grad(&graph, &flags).unwrap()).unwrap();
    let all: Vec<usize> = scans(&gradient).iter().map(|scan| scan.carries as usize).collect();
    assert_eq!(all, [CARRIES, CARRIES]);
}
