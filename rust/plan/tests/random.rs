//! Random programs: every clustering and policy passes the simulator, lowers, and has the peak it says.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, DType, Graph, NodeId, ReduceKind};
use ckad_plan::compile::compile;
use ckad_plan::lower::lower;
use ckad_plan::policy::schedule;
use ckad_plan::program::Target;
use ckad_plan::simulate::simulate;
use ckad_plan::verify::verify_program;
use ckad_plan::within::{Fitted, compile_within, frontier};
use programs::{Tape, hvp, target};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

fn packed(shape: &[i64]) -> Vec<i64> {
    ckad_plan::view::packed_strides(shape).to_vec()
}

/// One more operation on what there is.
fn grow(tape: &Tape, random: &mut Random, values: &mut Vec<NodeId>, n: i64) {
    let x = random.of(values);
    let shape = tape.builder.shape(x);
    let rank = shape.len();
    let elements: i64 = shape.iter().product();
    let same: Vec<NodeId> = values.iter().copied().filter(|&value| tape.builder.shape(value) == shape).collect();
    let y = random.of(&same);
    let new = match random.below(15) {
        0 => tape.unary(x, |x| x.tanh()),
        1 => tape.unary(x, |x| x.sin() * 0.5),
        2 => tape.unary(x, |x| (x.square() + 1.0).sqrt()),
        3 | 4 => tape.binary(x, y, |x, y| x * y),
        5 => tape.binary(x, y, |x, y| x + y.exp()),
        6 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.rotate_left(random.below(rank.max(1)));
            tape.record(|builder| builder.expr(builder.transpose(x, &perm).unwrap()))
        }
        7 if elements == n * n => {
            let choices = [vec![n, n], vec![n * n], vec![n / 2, 2 * n], vec![2, n / 2, n]];
            let target = &choices[random.below(4)];
            tape.record(|builder| builder.expr(builder.reshape(x, target).unwrap()))
        }
        8 if elements <= n => tape.record(|builder| builder.expr(builder.broadcast(x, &[n, elements]).unwrap())),
        9 if rank > 0 => {
            let axis = random.below(rank);
            tape.record(|builder| builder.expr(builder.reduce(ReduceKind::Sum, x, &[axis]).unwrap()))
        }
        10 if rank > 0 && shape[0] > 2 => {
            let mut part = shape.clone();
            part[0] -= 2;
            let strides = packed(&shape);
            let start = random.below(3) as i64 * strides[0];
            tape.record(|builder| builder.expr(builder.strided_read(x, &part, &strides, start).unwrap()))
        }
        11 | 12 if rank > 0 && shape[0] > 2 => {
            let mut part = shape.clone();
            part[0] = 1;
            let strides = packed(&shape);
            let row = random.below(shape[0] as usize) as i64 * strides[0];
            let value = tape.read(x, &part, &strides, random.below(shape[0] as usize) as i64 * strides[0]);
            let value = tape.unary(value, |value| value.cos());
            tape.record(|builder| builder.expr(builder.strided_write(x, value, &strides, row).unwrap()))
        }
        13 if rank == 2 && shape[0] == shape[1] => tape.matmul(x, y),
        14 if rank > 0 => {
            let axis = random.below(rank);
            tape.record(|builder| builder.expr(builder.concatenate(&[x, y], axis).unwrap()))
        }
        _ => tape.unary(x, |x| -x),
    };
    // Values much larger than the inputs are used only once.
    if tape.builder.graph().elements(new) <= 4 * (n * n) as usize {
        values.push(new);
    }
}

fn program(seed: u64, operations: usize, n: i64) -> Graph {
    let mut random = Random(seed);
    let mut tape = Tape::new();
    let mut values = vec![tape.input(&[n, n]), tape.input(&[n]), tape.input(&[n * n])];
    let mut depth = 0;
    for _ in 0..operations {
        match random.below(12) {
            0 if depth < 2 => {
                let policies = [
                    CheckpointPolicy::Recompute,
                    CheckpointPolicy::Sqrt,
                    CheckpointPolicy::None,
                    CheckpointPolicy::Log,
                    CheckpointPolicy::Revolve(2),
                    CheckpointPolicy::Mixed(2),
                ];
                tape.enter(random.of(&policies));
                depth += 1;
            }
            1 if depth > 0 => {
                tape.leave();
                depth -= 1;
            }
            _ => {}
        }
        grow(&tape, &mut random, &mut values, n);
    }
    let tail = values.len().saturating_sub(5);
    let mut loss = tape.record(|builder| builder.expr(builder.literal(DType::F32, 0.0).unwrap()));
    for &value in &values[tail..] {
        let sum = tape.sum(value);
        loss = tape.binary(loss, sum, |loss, sum| loss + sum);
    }
    tape.gradient(loss)
}

fn check(graph: &Graph, what: &str, target: &Target) {
    let policies = [
        CheckpointPolicy::None,
        CheckpointPolicy::Auto,
        CheckpointPolicy::Sqrt,
        CheckpointPolicy::Segments(4),
        CheckpointPolicy::Offload(1),
        CheckpointPolicy::Log,
        CheckpointPolicy::Revolve(1),
        CheckpointPolicy::Revolve(3),
        CheckpointPolicy::Mixed(3),
        CheckpointPolicy::Recompute,
    ];
    for policy in policies {
        let planned = schedule(graph, policy, target).unwrap_or_else(|error| panic!("{what} {policy:?}: {error}"));
        let simulation = simulate(graph, &planned.schedule).unwrap();
        assert_eq!(simulation.peak, planned.live_peak);
        let program =
            lower(graph, &planned.schedule, target).unwrap_or_else(|error| panic!("{what} {policy:?}: {error}"));
        verify_program(&program).unwrap_or_else(|error| panic!("{what} {policy:?}: {error}"));
        assert_eq!(
            program.live_bytes().unwrap().into_iter().max().unwrap_or(0),
            planned.live_peak,
            "{what} {policy:?}"
        );
    }
}

/// Every candidate of the frontier, by the limits at which it is the cheapest.
fn check_limits(graph: &Graph, what: &str, target: &Target) {
    let none = compile(graph, CheckpointPolicy::None, target).unwrap().peak.total();
    let candidates = frontier(graph, 0, target, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(candidates.iter().any(|point| point.bytes <= none), "{what}");
    for limit in candidates.iter().step_by(3).map(|point| point.bytes) {
        let Fitted::Fits(found) = compile_within(graph, None, limit, target, &[]).unwrap() else {
            panic!("{what}: {limit} was found")
        };
        assert!(found.peak.total() <= limit, "{what}");
        assert_eq!(simulate(graph, &found.planned.schedule).unwrap().peak, found.planned.live_peak, "{what}");
        verify_program(&found.program).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn every_limit_on_random_programs() {
    for seed in 0..60 {
        let n = if seed % 2 == 0 { 6 } else { 40 };
        let gradient = program(seed, 10 + (seed as usize % 7) * 15, n);
        check_limits(&gradient, &format!("seed {seed}"), &target());
        if seed % 5 < 2 {
            check_limits(&hvp(&gradient), &format!("seed {seed} hvp"), &target());
        }
    }
}

#[test]
fn every_policy_on_random_programs() {
    let narrow = Target { operand_limit: 4, register_limit: 4, ..target() };
    for seed in 0..200 {
        // Small arrays, and some that are worth rebuilding.
        let n = if seed % 2 == 0 { 6 } else { 40 };
        let gradient = program(seed, 10 + (seed as usize % 7) * 15, n);
        check(&gradient, &format!("seed {seed}"), &target());
        check(&gradient, &format!("seed {seed}, narrow"), &narrow);
        if seed % 5 < 2 {
            check(&hvp(&gradient), &format!("seed {seed} hvp"), &target());
        }
    }
}
