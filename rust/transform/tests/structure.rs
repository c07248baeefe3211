//! Shapes of derived graphs: passes, node counts, accumulation, and what simplification does to them.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Instant;

use ckad_graph::{Graph, NodeId, Op, ReduceKind};
use ckad_prim::{Elementwise, Expr};
use ckad_transform::{extract, jvp, simplify, value_and_grad, vjp};
use common::*;

fn count(graph: &Graph, wanted: impl Fn(Op) -> bool) -> usize {
    graph.ids().filter(|&id| wanted(graph.op(id))).count()
}

fn gradient(graph: &Graph, active: &[bool]) -> Graph {
    let derived = simplify(value_and_grad(graph, active).unwrap()).unwrap();
    check(&derived);
    derived
}

/// Only the gradients of what `gradient` gives.
fn gradient_only(graph: &Graph, active: &[bool]) -> Graph {
    let derived = gradient(graph, active);
    let only = extract(&derived, &derived.outputs[graph.outputs.len()..]).unwrap();
    check(&only);
    only
}

fn greatest_pass(graph: &Graph) -> u16 {
    graph.ids().map(|id| graph.attributes(id).pass).max().unwrap()
}

fn sum(x: Expr<'_>) -> Expr<'_> {
    let axes: Vec<usize> = (0..x.shape().len()).collect();
    x.reduce(ReduceKind::Sum, &axes)
}

#[test]
fn a_minus_becomes_part_of_the_next_sum() {
    // x, less half of its sine, over and over: each step's gradient is one difference.
    let steps = 20;
    let graph = record(&[&[4]], |tape, x| {
        let mut state = x[0];
        for _ in 0..steps {
            let sine = tape.op(|| state.sin());
            state = tape.op(|| state - sine * 0.5);
        }
        vec![tape.op(|| sum(-state))]
    });
    let derived = gradient(&graph, &[true]);
    let rows = |row: Elementwise| count(&derived, |op| op == Op::Elementwise(row.id()));
    // The function's own.
    assert_eq!(rows(Elementwise::Negative), 1);
    assert_eq!(rows(Elementwise::Subtract), 2 * steps);
    let inputs = vec![vec![0.3, -1.2, 2.0, 0.7]];
    let direction = vec![vec![1.0, -0.5, 0.25, 2.0]];
    let slope = five_point(|t| run(&graph, &moved(&inputs, &direction, t)));
    let found = inner(&run(&derived, &inputs)[1..], &direction);
    assert_close("slope", &[found], &slope[0], 1e-9);
}

#[test]
fn a_minus_meets_slices_and_uses_far_apart() {
    // Slices are subtracted from what comes later, whole values too: sums of slices' cotangents begin with a minus, and
    // with a value that has one. The weights are used a hundred times, each time subtracted.
    let graph = record(&[&[6], &[6]], |tape, x| {
        let mut state = x[0];
        for step in 0..100 {
            let product = tape.op(|| state * x[1]);
            state = tape.op(|| state - product.sin() * 0.1);
            let part = tape.op(|| state.strided_read(&[3], &[1], step % 4));
            let whole = tape.op(|| part.reshape(&[3, 1]).broadcast(&[3, 2]).reshape(&[6]));
            state = tape.op(|| -whole * 0.3 - state * 0.6);
        }
        vec![tape.op(|| sum(-(x[1] - state)))]
    });
    let derived = gradient(&graph, &[true, true]);
    let rows = |row: Elementwise| count(&derived, |op| op == Op::Elementwise(row.id()));
    assert_eq!(count(&derived, |op| op == Op::Accumulate), 100);
    // The function's own, and of the gradient at most one for a slice and one for an addend of the weights' sum.
    assert!(rows(Elementwise::Negative) <= 101 + 2 * 100, "{}", rows(Elementwise::Negative));
    let inputs = vec![vec![0.3, -1.2, 2.0, 0.7, 0.1, -0.4], vec![0.5, 0.2, -0.3, 1.0, -1.0, 0.8]];
    let direction = vec![vec![1.0, -0.5, 0.25, 2.0, -1.0, 0.3], vec![0.7, 0.1, -0.2, -0.6, 0.9, 0.4]];
    let slope = five_point(|t| run(&graph, &moved(&inputs, &direction, t)));
    let found = inner(&run(&derived, &inputs)[1..], &direction);
    assert_close("slope", &[found], &slope[0], 1e-8);
}

#[test]
fn gradients_of_a_network_agree_with_differences() {
    let graph = record(&[&[3, 4], &[4, 4], &[4]], |tape, x| {
        let axes = ckad_graph::DotAxes { lhs_contract: vec![1], rhs_contract: vec![0], ..Default::default() };
        let mut h = x[0];
        for _ in 0..3 {
            h = tape.op(|| tape.builder.expr(tape.builder.dot(h.id, x[1].id, &axes, false).unwrap()));
            h = tape.op(|| h + x[2]);
            h = tape.op(|| h.tanh());
        }
        let h = tape.op(|| h * h);
        vec![tape.op(|| sum(h))]
    });
    let derived = gradient(&graph, &[false, true, true]);
    let mut random = Random(1);
    let inputs: Vec<Values> = [12, 16, 4].iter().map(|&n| random.values(n, (-1.0, 1.0))).collect();
    let outputs = run(&derived, &inputs);
    let direction = vec![vec![0.0; 12], random.values(16, (-1.0, 1.0)), random.values(4, (-1.0, 1.0))];
    let slope = five_point(|t| run(&graph, &moved(&inputs, &direction, t)));
    let found = inner(&outputs[1..], &direction[1..]);
    assert_close("slope", &[found], &slope[0], 1e-9);
}

#[test]
fn passes_count_forward_and_backward_parts() {
    let graph = record(&[&[]], |tape, x| {
        let y = tape.op(|| x[0].sin());
        vec![tape.op(|| y * y)]
    });
    let once = gradient(&graph, &[true]);
    assert_eq!(greatest_pass(&once), 1);
    let only = gradient_only(&graph, &[true]);
    let hvp = simplify(jvp(&only, &[true]).unwrap()).unwrap();
    check(&hvp);
    assert_eq!(greatest_pass(&hvp), 1);
    let twice = gradient(&only, &[true]);
    assert_eq!(greatest_pass(&twice), 3);
    let fourth = gradient(&gradient_only(&only, &[true]), &[true]);
    // Steps whose results only later passes read have moved there, so not all of the 8 passes are in use.
    assert!((5..8).contains(&greatest_pass(&fourth)));
    let x = 0.7f64;
    assert_close("third derivative", &run(&fourth, &[vec![x]])[1], &[-4.0 * (2.0 * x).sin()], 1e-12);
}

#[test]
fn the_hessian_of_half_sin_squared_at_zero_is_one() {
    let graph = record(&[&[]], |tape, x| {
        let y = tape.op(|| x[0].sin());
        let y = tape.op(|| y * y);
        vec![tape.op(|| y / 2.0)]
    });
    let only = gradient_only(&graph, &[true]);
    assert_eq!(run(&gradient(&only, &[true]), &[vec![0.0]])[1], [1.0]);
    let forward = jvp(&only, &[true]).unwrap();
    assert_eq!(run(&forward, &[vec![0.0], vec![1.0]])[1], [1.0]);
    let forward_twice = jvp(&jvp(&graph, &[true]).unwrap(), &[true, false]).unwrap();
    assert_eq!(run(&forward_twice, &[vec![0.0], vec![1.0], vec![1.0]])[3], [1.0]);
}

#[test]
fn inputs_without_influence_have_zero_gradients() {
    let graph = record(&[&[3], &[2, 2]], |tape, x| vec![tape.op(|| sum(x[0])), tape.op(|| x[1] + 1.0)]);
    let derived = gradient(&graph, &[true, true]);
    let outputs = run(&derived, &[vec![1.0, 2.0, 3.0], vec![5.0; 4]]);
    assert_eq!(outputs, [vec![6.0], vec![6.0; 4], vec![1.0; 3], vec![0.0; 4]]);
    let forward = jvp(&graph, &[true, false]).unwrap();
    let outputs = run(&forward, &[vec![1.0, 2.0, 3.0], vec![5.0; 4], vec![1.0; 3]]);
    assert_eq!(outputs[2..], [vec![3.0], vec![0.0; 4]]);
}

#[test]
fn outputs_that_are_inputs_or_equal_are_transposed_too() {
    let graph = record(&[&[2]], |tape, x| {
        let y = tape.op(|| x[0].exp());
        vec![x[0], y, y]
    });
    let derived = vjp(&graph, &[true]).unwrap();
    check(&derived);
    let x = vec![0.0, 1.0];
    let outputs = run(&derived, &[x.clone(), vec![1.0, 0.0], vec![1.0, 1.0], vec![0.0, 2.0]]);
    assert_close("cotangent", &outputs[3], &[2.0, 3.0 * 1f64.exp()], 1e-15);
}

#[test]
fn what_is_not_a_scalar_has_no_gradient() {
    let graph = record(&[&[2]], |tape, x| vec![tape.op(|| x[0].exp())]);
    let error = value_and_grad(&graph, &[true]).unwrap_err();
    assert_eq!(error.kind, ckad_graph::ErrorKind::Shape);
    assert!(error.to_string().contains("shape (2,)"), "{error}");
    let graph = record(&[&[]], |tape, x| vec![tape.op(|| x[0].greater(x[0]))]);
    assert_eq!(value_and_grad(&graph, &[true]).unwrap_err().kind, ckad_graph::ErrorKind::DType);
}

/// u[t + 1] = u[t] + 0.1·sin(u[t]), from the given u[0].
fn trajectory(steps: i64) -> Graph {
    record(&[&[]], move |tape, x| {
        let b = &tape.builder;
        let mut u = tape.op(|| b.expr(b.zeros(ckad_graph::DType::F64, &[steps + 1]).unwrap()));
        u = tape.op(|| u.strided_write(x[0], &[], 0));
        for t in 0..steps {
            let now = tape.op(|| u.strided_read(&[], &[], t));
            let again = tape.op(|| u.strided_read(&[], &[], t));
            let rate = tape.op(|| again.sin());
            let change = tape.op(|| rate * 0.1);
            let next = tape.op(|| now + change);
            u = tape.op(|| u.strided_write(next, &[], t + 1));
        }
        vec![tape.op(|| sum(u))]
    })
}

#[test]
fn loops_over_slices_are_linear_in_elements_touched() {
    let large_work = |steps: i64| {
        let derived = gradient(&trajectory(steps), &[true]);
        // Operations on whole arrays that cannot run in place on an element.
        let large = derived.ids().filter(|&id| {
            let in_place = derived.op(id).overwrites_base();
            derived.elements(id) as i64 > steps && !in_place && derived.op(id) != Op::Broadcast
        });
        (large.count(), derived.len())
    };
    let ((few, n), (many, n2)) = (large_work(20), large_work(40));
    assert_eq!(few, many);
    assert!(n2 < 2 * n, "{n} nodes, then {n2}");
    let outputs = run(&gradient(&trajectory(20), &[true]), &[vec![0.3]]);
    let slope = five_point(|t| run(&trajectory(20), &[vec![0.3 + t]]));
    assert_close("slope", &outputs[1], &slope[0], 1e-9);
}

#[test]
fn slices_of_one_array_add_up_in_one_accumulator() {
    let graph = record(&[&[50]], |tape, x| {
        let read = |t: i64| tape.op(|| x[0].strided_read(&[], &[], t));
        let mut total = read(0);
        for t in 1..50 {
            let next = read(t);
            let product = tape.op(|| next * total);
            total = tape.op(|| product.sin());
        }
        vec![total]
    });
    let derived = gradient(&graph, &[true]);
    assert_eq!(count(&derived, |op| matches!(op, Op::StridedAdd { .. })), 50);
    assert_eq!(count(&derived, |op| matches!(op, Op::Pad { .. } | Op::Accumulate)), 0);
    assert_eq!(derived.ids().filter(|&id| derived.op(id) == Op::Broadcast && derived.elements(id) == 50).count(), 1);
}

#[test]
fn uses_far_apart_accumulate_and_near_ones_add() {
    let steps = |count: usize| {
        record(&[&[4], &[4]], move |tape, x| {
            let mut h = x[0];
            for _ in 0..count {
                h = tape.op(|| h * x[1]);
                h = tape.op(|| h.sin());
            }
            vec![tape.op(|| sum(h))]
        })
    };
    let near = gradient(&steps(4), &[false, true]);
    assert_eq!(count(&near, |op| op == Op::Accumulate), 0);
    let far = gradient(&steps(100), &[false, true]);
    assert_eq!(count(&far, |op| op == Op::Accumulate), 99);
}

#[test]
fn backward_coefficients_are_computed_where_they_are_used() {
    let graph = record(&[&[4]], |tape, x| {
        let y = tape.op(|| x[0].tanh());
        let z = tape.op(|| y.sin());
        vec![tape.op(|| sum(z))]
    });
    let derived = gradient(&graph, &[true]);
    for id in derived.ids() {
        let forward = [Elementwise::Tanh.op(), Elementwise::Sin.op()].contains(&derived.op(id));
        let reduce = matches!(derived.op(id), Op::Reduce { .. });
        if !derived.op(id).is_leaf() && !forward && !reduce {
            assert_eq!(derived.attributes(id).pass, 1, "%{}: {:?}", id.0, derived.op(id));
        }
    }
    // cos y, 1 − y·y, one product; the loss's cotangent 1 is gone.
    assert_eq!(derived.ids().filter(|&id| !derived.op(id).is_leaf()).count(), 3 + 4);
}

#[test]
fn masks_stay_where_they_are_smaller_than_their_operand() {
    let graph = record(&[&[4], &[4]], |tape, x| {
        let y = tape.op(|| x[0] + x[1]);
        let z = tape.op(|| y.maximum(y.constant(0.0)));
        let z = tape.op(|| z * z);
        vec![tape.op(|| sum(z))]
    });
    let derived = gradient(&graph, &[true, false]);
    // y itself is not read in the backward pass.
    for id in derived.ids().filter(|&id| derived.attributes(id).pass == 1) {
        for &operand in derived.operands(id) {
            let is_y = derived.op(operand) == Elementwise::Add.op() && derived.attributes(operand).pass == 0;
            assert!(!is_y, "%{}", id.0);
        }
    }
}

#[test]
fn simplification_is_exact_and_merges_equal_nodes() {
    let graph = record(&[&[3, 2]], |tape, x| {
        let x = x[0];
        let a = tape.op(|| x.transpose(&[1, 0]).transpose(&[1, 0]));
        let b = tape.op(|| a * 1.0);
        let c = tape.op(|| b - 0.0);
        let d = tape.op(|| c.reshape(&[6]).reshape(&[2, 3]).reshape(&[3, 2]));
        let e = tape.op(|| -(-d));
        let f = tape.op(|| x.sin() + e.sin());
        let one = tape.op(|| x.constant(1.0).broadcast(&[3, 2]));
        let g = tape.op(|| one.lmul(f));
        let h = tape.op(|| g.lmul(x.zeros_like()));
        vec![g, h, tape.op(|| x + 0.0)]
    });
    let simple = simplify(graph.copied().unwrap()).unwrap();
    check(&simple);
    let x = vec![vec![1.0, -2.0, 0.5, -0.0, 4.0, f64::NAN]];
    let (before, after) = (run(&graph, &x), run(&simple, &x));
    let bits = |values: &Values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    // An absorbing product with 1 keeps the sign of a zero when it is gone: the one difference.
    let positive: Values = after[0].iter().map(|&v| if v == 0.0 { 0.0 } else { v }).collect();
    assert_eq!(bits(&before[0]), bits(&positive));
    assert_eq!(bits(&before[1]), bits(&after[1]));
    assert_eq!(bits(&before[2]), bits(&after[2]));
    // sin, its sum with itself, a zero, and x + 0, which makes −0 a 0.
    assert_eq!(simple.ids().filter(|&id| !simple.op(id).is_leaf()).count(), 4);
}

#[test]
fn broadcasts_dissolve_in_elementwise_users_and_stay_in_their_pass() {
    let graph = record(&[&[4, 5], &[5]], |tape, x| {
        let wide = tape.op(|| x[1].broadcast(&[4, 5]));
        let y = tape.op(|| x[0] * wide);
        let top = tape.op(|| y.reduce(ReduceKind::Max, &[1]));
        let top = tape.op(|| top.reshape(&[4, 1]).broadcast(&[4, 5]));
        let e = tape.op(|| (y - top).exp());
        vec![tape.op(|| sum(e).log())]
    });
    let derived = gradient(&graph, &[true, true]);
    for id in derived.ids().filter(|&id| matches!(derived.op(id), Op::Elementwise(_))) {
        assert!(derived.operands(id).iter().all(|&operand| derived.op(operand) != Op::Broadcast), "%{}", id.0);
    }
    let mut random = Random(11);
    let x = vec![random.values(20, (-1.0, 1.0)), random.values(5, (-1.0, 1.0))];
    let v = vec![random.values(20, (-1.0, 1.0)), random.values(5, (-1.0, 1.0))];
    let slope = five_point(|t| run(&graph, &moved(&x, &v, t)));
    assert_close("slope", &[inner(&run(&derived, &x)[1..], &v)], &slope[0], 1e-9);
}

#[test]
fn simplifying_again_changes_nothing() {
    let graph = record(&[&[6], &[6]], |tape, x| {
        let y = tape.op(|| x[0].tanh() * x[1]);
        let z = tape.op(|| y.maximum(x[1]).sin());
        vec![tape.op(|| sum(z * y))]
    });
    let once = gradient(&graph, &[true, true]);
    let again = simplify(once.copied().unwrap()).unwrap();
    assert!(once.same_structure(&again));
}

#[test]
fn scalars_and_starts_of_equal_value_stay_apart() {
    let graph = record(&[&[8]], |tape, x| {
        let b = &tape.builder;
        let scalar = || b.expr(b.scalar(ckad_graph::DType::F64, 0.1f64.to_bits()).unwrap());
        let (s, t) = (tape.op(scalar), tape.op(scalar));
        let read = |start| tape.op(|| x[0].strided_read(&[2], &[1], start));
        let (u, v) = (read(3), read(3));
        vec![tape.op(|| u * s), tape.op(|| v * t)]
    });
    let simple = simplify(graph).unwrap();
    assert_eq!(count(&simple, |op| matches!(op, Op::Scalar(_))), 2);
    assert_eq!(count(&simple, |op| matches!(op, Op::StridedRead { .. })), 2);
}

#[test]
fn extraction_keeps_inputs_and_drops_the_dead() {
    let graph = record(&[&[2], &[3]], |tape, x| {
        let _dead = tape.op(|| x[1].exp());
        let y = tape.op(|| x[0].sin());
        vec![y, tape.op(|| y.cos())]
    });
    let part = extract(&graph, &graph.outputs[..1]).unwrap();
    check(&part);
    assert_eq!((part.inputs.len(), part.len()), (2, 3));
    assert!(extract(&graph, &[NodeId(99)]).is_err());
}

#[test]
fn a_chain_of_a_million_nodes_is_linear() {
    let started = Instant::now();
    let graph = record(&[&[]], |tape, x| {
        let mut y = x[0];
        for _ in 0..1_000_000 {
            y = tape.op(|| y.sin());
        }
        vec![y]
    });
    let recorded = started.elapsed();
    let started = Instant::now();
    let derived = value_and_grad(&graph, &[true]).unwrap();
    let differentiated = started.elapsed();
    let started = Instant::now();
    let simple = simplify(derived).unwrap();
    println!("recorded in {recorded:?}, differentiated in {differentiated:?}, simplified in {:?}", started.elapsed());
    assert_eq!(simple.len(), 1 + 3 * 1_000_000 - 1);
    assert_execution_order(&simple);
}

#[test]
fn many_users_of_one_operand_are_found_in_linear_time() {
    let graph = record(&[&[50_000]], |tape, x| {
        let mut total = tape.op(|| x[0].strided_read(&[], &[], 0));
        for t in 1..50_000 {
            let next = tape.op(|| x[0].strided_read(&[], &[], t));
            total = tape.op(|| total + next);
        }
        vec![total]
    });
    let derived = value_and_grad(&graph, &[true]).unwrap();
    let simple = simplify(derived).unwrap();
    // Reads, sums and updates, the literal 1 of the loss, the zeros and their literal.
    assert_eq!(simple.len(), 1 + 3 * 50_000 - 1 + 3);
}

#[test]
fn transforms_hear_an_interrupt() {
    let graph = trajectory(10);
    let _listening = ckad_graph::interrupt::listen(|| true);
    for result in [value_and_grad(&graph, &[true]), jvp(&graph, &[true]), simplify(graph.copied().unwrap())] {
        assert_eq!(result.unwrap_err().kind, ckad_graph::ErrorKind::Interrupted);
    }
}

#[test]
fn sums_with_negated_terms_are_differences() {
    let graph = record(&[&[8]], |tape, x| {
        let one = tape.op(|| tape.builder.expr(tape.builder.literal(ckad_graph::DType::F64, 1.0).unwrap()));
        let rest = tape.op(|| one - x[0]);
        let square = tape.op(|| x[0] * x[0]);
        let product = tape.op(|| square * rest);
        vec![tape.op(|| sum(product))]
    });
    let derived = gradient(&graph, &[true]);
    assert_eq!(count(&derived, |op| op == Op::Elementwise(Elementwise::Negative.id())), 0);
    let x: Values = (0..8).map(f64::from).collect();
    let slopes: Values = x.iter().map(|x| 2.0 * x - 3.0 * x * x).collect();
    assert_eq!(run(&derived, &[x])[1], slopes);
}
