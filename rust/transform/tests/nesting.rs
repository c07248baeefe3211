//! Transforms inside traced functions: splicing, execution order of what was recorded around it, partition.

#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{CheckpointPolicy, Graph, NodeId, Op, Region, RegionId};
use ckad_prim::Expr;
use ckad_transform::{Side, extract, jvp, partition, settle, simplify, splice, value_and_grad, vjp};
use common::*;

/// sin(x)·w, recorded with a slice, a scalar and a constant-like table entry in play.
fn loss(tape: &Tape, x: &[Expr<'_>]) -> Vec<NodeId> {
    let b = &tape.builder;
    let x: Vec<Expr<'_>> = x.iter().map(|x| b.expr(x.id)).collect();
    let y = tape.op(|| x[0].sin());
    let head = tape.op(|| y.strided_read(&[3], &[1], 1));
    let scaled = tape.op(|| head * 0.3);
    let product = tape.op(|| scaled * x[1]);
    vec![tape.op(|| product.sum(&[0])).id]
}

fn inner_gradient() -> Graph {
    let tape = Tape::default();
    let inputs = [tape.input(&[4]).id, tape.input(&[3]).id];
    let exprs: Vec<Expr<'_>> = inputs.iter().map(|&id| tape.builder.expr(id)).collect();
    let outputs = loss(&tape, &exprs);
    drop(exprs);
    let graph = tape.finish(&outputs);
    simplify(value_and_grad(&graph, &[true, false]).unwrap()).unwrap()
}

fn spliced<'b>(tape: &'b Tape, graph: &Graph, inputs: &[Expr<'b>]) -> Vec<Expr<'b>> {
    let inputs: Vec<NodeId> = inputs.iter().map(|input| input.id).collect();
    let outputs = splice(tape.at(), graph, &inputs, |line| line).unwrap();
    outputs.into_iter().map(|id| tape.builder.expr(id)).collect()
}

fn inputs() -> Vec<Values> {
    let mut random = Random(3);
    vec![random.values(4, (-1.0, 1.0)), random.values(3, (-1.0, 1.0))]
}

fn greatest_pass(graph: &Graph) -> u16 {
    graph.ids().map(|id| graph.attributes(id).pass).max().unwrap()
}

#[test]
fn a_spliced_gradient_keeps_its_passes_and_users_follow() {
    let inner = inner_gradient();
    let outer = record(&[&[4], &[3]], move |tape, x| {
        // Tables of the outer graph differ from the inner one's.
        let z = tape.op(|| x[0].strided_read(&[2], &[2], 0));
        let z = tape.op(|| z * 0.7);
        let results = spliced(tape, &inner, x);
        let unrelated = tape.op(|| z.exp());
        let step = tape.op(|| x[0] - results[1] * 0.1);
        let norm = tape.op(|| (step * step).sum(&[0]));
        vec![norm, unrelated, results[0]]
    });
    ckad_prim::verify(&outer).unwrap();
    assert_eq!(outer.splices.len(), 1);
    let settled = settle(outer.copied().unwrap()).unwrap();
    check(&settled);
    assert_eq!(greatest_pass(&settled), 1);
    assert_eq!(run(&settled, &inputs()), run(&outer, &inputs()));
    assert_eq!(settled.attributes(settled.outputs[0]).pass, 1);
    assert_eq!(settled.attributes(settled.outputs[1]).pass, 0);

    let derived = simplify(value_and_grad(&outer, &[true, true]).unwrap()).unwrap();
    check(&derived);
    // What the gradient reads was moved to its second pass, so only that one is turned around: 2·2 − 1 − 1.
    assert_eq!(greatest_pass(&derived), 2);
    let direction = inputs().iter().map(|x| vec![0.5; x.len()]).collect::<Vec<_>>();
    let slope = five_point(|t| run(&outer, &moved(&inputs(), &direction, t)));
    let gradients = run(&derived, &inputs());
    assert_close("slope", &[inner_product(&gradients[3..], &direction)], &slope[0], 1e-9);

    // Through extraction, which drops part of the splice.
    let part = extract(&outer, &outer.outputs[2..]).unwrap();
    assert_eq!(run(&settle(part).unwrap(), &inputs())[0], run(&outer, &inputs())[2]);
}

fn inner_product(a: &[Values], b: &[Values]) -> f64 {
    common::inner(a, b)
}

fn training(steps: usize, region: bool) -> Graph {
    let inner = inner_gradient();
    record(&[&[4], &[3]], move |tape, x| {
        let mut parameters = x[0];
        let mut losses = Vec::new();
        for _ in 0..steps {
            if region {
                let policy = CheckpointPolicy::Sqrt;
                tape.builder.graph_mut().regions.push(Region { policy, parent: RegionId(0) });
                let last = tape.builder.graph().regions.len() - 1;
                let mut attributes = tape.at().attributes();
                attributes.region = RegionId(last as u16);
                tape.builder.set_attributes(attributes);
                let ids = [parameters.id, x[1].id];
                let results = splice(&tape.builder, &inner, &ids, |line| line).unwrap();
                losses.push(tape.builder.expr(results[0]));
                parameters = tape.op(|| parameters - tape.builder.expr(results[1]) * 0.1);
            } else {
                let results = spliced(tape, &inner, &[parameters, x[1]]);
                losses.push(results[0]);
                parameters = tape.op(|| parameters - results[1] * 0.1);
            }
        }
        let total = tape.op(|| (parameters * parameters).sum(&[0]));
        vec![total, losses[0]]
    })
}

#[test]
fn a_training_loop_is_one_pass_in_the_order_of_the_tape() {
    let outer = training(5, false);
    let settled = settle(outer.copied().unwrap()).unwrap();
    check(&settled);
    assert_eq!(greatest_pass(&settled), 0);
    let positions: Vec<u32> =
        settled.ids().filter(|&id| !settled.op(id).is_leaf()).map(|id| settled.attributes(id).position).collect();
    assert!(positions.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(positions.windows(2).filter(|pair| pair[0] < pair[1]).count() > positions.len() / 2);
    let derived = simplify(value_and_grad(&outer, &[true, false]).unwrap()).unwrap();
    check(&derived);
    assert_eq!(greatest_pass(&derived), 1);
    let direction = vec![vec![0.5; 4], vec![0.0; 3]];
    let slope = five_point(|t| run(&outer, &moved(&inputs(), &direction, t)));
    assert_close("slope", &[inner_product(&run(&derived, &inputs())[2..], &direction[..1])], &slope[0], 1e-9);
}

#[test]
fn policies_of_their_own_keep_their_passes_in_a_training_loop() {
    let outer = training(3, true);
    let settled = settle(outer.copied().unwrap()).unwrap();
    check(&settled);
    assert_eq!(greatest_pass(&settled), 6);
    assert_eq!(run(&settled, &inputs()), run(&outer, &inputs()));
    let regions: std::collections::BTreeSet<u16> = settled.ids().map(|id| settled.attributes(id).region.0).collect();
    assert_eq!(regions.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let derived = simplify(jvp(&outer, &[true, false]).unwrap()).unwrap();
    check(&derived);
}

#[test]
fn a_graph_in_regions_is_spliced_with_them() {
    let inner = training(2, true);
    let outer = record(&[&[4], &[3]], move |tape, x| spliced(tape, &settle(inner.copied().unwrap()).unwrap(), x));
    ckad_prim::verify(&outer).unwrap();
    assert_eq!(outer.regions.len(), 3);
    assert!(outer.regions[1..].iter().all(|region| region.policy == CheckpointPolicy::Sqrt));
    check(&settle(outer).unwrap());
}

#[test]
fn wrong_values_for_inputs_are_refused() {
    let tape = Tape::default();
    let x = tape.input(&[5]).id;
    assert!(splice(tape.at(), &inner_gradient(), &[x], |line| line).is_err());
    assert!(splice(tape.at(), &inner_gradient(), &[x, x], |line| line).is_err());
}

#[test]
fn a_pullback_from_residuals_is_vjp() {
    let graph = record(&[&[4], &[3]], |tape, x| {
        let y = tape.op(|| x[0].tanh());
        let z = tape.op(|| y.exp());
        let head = tape.op(|| z.strided_read(&[3], &[1], 0));
        vec![tape.op(|| head * x[1]), y]
    });
    let derived = simplify(vjp(&graph, &[true, true]).unwrap()).unwrap();
    let parts = partition(&derived, &[true, true, false, false]).unwrap();
    check(&parts.known);
    check(&parts.unknown);
    assert_eq!(parts.outputs, [Side::Known(0), Side::Known(1), Side::Unknown(0), Side::Unknown(1)]);
    let known = run(&parts.known, &inputs());
    let cotangents = [vec![1.0, -2.0, 0.5], vec![0.25; 4]];
    let late: Vec<Values> = known[2..].iter().chain(&cotangents).cloned().collect();
    let all: Vec<Values> = inputs().iter().chain(&cotangents).cloned().collect();
    assert_eq!(run(&parts.unknown, &late), run(&derived, &all)[2..]);
    // tanh, exp of it, its head and an input are kept; 1 − y² is computed from y.
    assert!(parts.residuals <= 4, "{}", parts.residuals);
    assert!(parts.known.ids().all(|id| parts.known.op(id) != ckad_prim::Elementwise::Subtract.op()));
}

#[test]
fn linearize_is_a_partition_of_jvp() {
    let graph = record(&[&[4]], |tape, x| {
        let y = tape.op(|| x[0].sin());
        vec![tape.op(|| y * y)]
    });
    let forward = simplify(jvp(&graph, &[true]).unwrap()).unwrap();
    let parts = partition(&forward, &[true, false]).unwrap();
    let x = vec![0.1, 0.2, 0.3, 0.4];
    let t = vec![1.0, 2.0, -1.0, 0.0];
    let known = run(&parts.known, std::slice::from_ref(&x));
    let mut late = known[1..].to_vec();
    late.push(t.clone());
    assert_eq!(run(&parts.unknown, &late)[0], run(&forward, &[x, t])[1]);
    assert!(parts.unknown.ids().all(|id| !matches!(parts.unknown.op(id), Op::Reduce { .. })));
}
