//! Long tapes, which two threads plan and lower: plans and programs are those of a single thread.
#![allow(clippy::unwrap_used)]

mod programs;

use ckad_graph::{CheckpointPolicy, Graph, Op, interrupt};
use ckad_plan::compile::compile;
use ckad_plan::program::{Kernel, Program, Target};
use ckad_plan::within::{Fitted, compile_within};
use programs::{Tape, target};

/// `x ← tanh(Σ x W)`, with the vector x repeated as a matrix from step `repeated` on: a product needs that in memory,
/// so each is a copy, with a start that lowering adds.
fn repeating(steps: usize, repeated: usize) -> Graph {
    let mut tape = Tape::new();
    let (mut x, w) = (tape.input(&[3]), tape.input(&[3, 3]));
    for step in 0..steps {
        let shape: &[i64] = if step < repeated { &[1, 3] } else { &[3, 3] };
        let rows = tape.record(|builder| builder.expr(x).reshape(&[1, 3]).broadcast(shape));
        let z = tape.matmul(rows, w);
        x = tape.unary(z, |z| z.sum(&[0]).tanh());
    }
    let loss = tape.sum(x);
    tape.gradient(loss)
}

fn program(graph: &Graph, policy: CheckpointPolicy, threads: usize) -> Program {
    compile(graph, policy, &Target { threads, ..target() }).unwrap().program
}

/// The steps that are copies with an added start.
fn copies(graph: &Graph, program: &Program) -> Vec<usize> {
    let is_copy = |kernel: &Kernel| match kernel {
        Kernel::Structural { op: Op::StridedRead { start, .. }, .. } => start.0 as usize >= graph.starts.len(),
        _ => false,
    };
    (0..program.steps.len()).filter(|&step| is_copy(&program.steps[step].kernel)).collect()
}

#[test]
fn two_threads_write_what_one_writes() {
    for repeated in [0, 450] {
        let graph = repeating(900, repeated);
        for policy in
            [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt, CheckpointPolicy::Segments(7)]
        {
            let one = program(&graph, policy, 1);
            let (steps, copies) = (one.steps.len(), copies(&graph, &one));
            assert!(steps > 2500, "{steps} steps are too few for two threads");
            // In both halves, or in the first only.
            assert!(copies.iter().any(|&step| step < steps / 2));
            assert_eq!(repeated == 0, copies.iter().any(|&step| step > steps * 3 / 4));
            let two = program(&graph, policy, 2);
            assert!(one == two, "{policy:?}, repeated from {repeated} on");
            assert_eq!(one.own_bytes().unwrap(), two.own_bytes().unwrap());
        }
    }
}

#[test]
fn two_threads_choose_what_one_chooses() {
    let graph = repeating(900, 0);
    let within = |limit: usize, threads: usize| {
        compile_within(&graph, None, limit, &Target { threads, ..target() }, &[]).unwrap()
    };
    let most = compile(&graph, CheckpointPolicy::None, &target()).unwrap().peak.total();
    let Fitted::TooSmall(refused) = within(1, 1) else { panic!("1 byte is enough") };
    for limit in [1, refused.minimum, (refused.minimum + most) / 2, most] {
        assert!(within(limit, 1) == within(limit, 2), "within {limit} of {most}");
    }
}

#[test]
fn an_interrupt_ends_both_threads() {
    let graph = repeating(900, 0);
    let asked = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = |policy: CheckpointPolicy, stop_at: usize| {
        asked.set(0);
        let asked = std::rc::Rc::clone(&asked);
        let _listening = interrupt::listen(move || {
            asked.set(asked.get() + 1);
            asked.get() >= stop_at
        });
        compile(&graph, policy, &Target { threads: 2, ..target() })
    };
    for policy in [CheckpointPolicy::None, CheckpointPolicy::Sqrt] {
        count(policy, usize::MAX).unwrap();
        let questions = asked.get();
        for stop_at in 1..=questions.min(64) {
            let error = count(policy, stop_at).unwrap_err();
            assert_eq!(error.kind, ckad_graph::ErrorKind::Interrupted);
        }
    }
}
