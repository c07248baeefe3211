//! Loops are chains: how often their steps are computed, counted in the schedules of recorded programs.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph, Op};
use ckad_plan::compile::compile;
use ckad_plan::lower::lower;
use ckad_plan::policy::schedule;
use ckad_plan::schedule::Action;
use ckad_plan::simulate::simulate;
use ckad_plan::verify::verify_program;
use ckad_plan::within::{Fitted, compile_within};
use ckad_prim::Elementwise;
use programs::{Tape, heat, hvp, lstm, mlp, penalty, target, unet};

/// How often the recorded updates of the state, or the sines that they are made of, are computed, in all.
fn updates(graph: &Graph, policy: CheckpointPolicy) -> (u64, u64, u64) {
    let planned = schedule(graph, policy, &target()).unwrap();
    assert_eq!(planned.note, None, "{policy:?}");
    let simulation = simulate(graph, &planned.schedule).unwrap();
    let program = lower(graph, &planned.schedule, &target()).unwrap();
    verify_program(&program).unwrap();
    let clusters = &planned.schedule.clustering.clusters;
    let sine = Op::Elementwise(Elementwise::Sin.id());
    let is_update = |op: Op| op == sine || matches!(op, Op::StridedWrite { .. } | Op::StridedAdd { .. });
    let count = planned.schedule.actions.iter().map(|action| match action {
        Action::Compute(id) => {
            let members = clusters[id.0 as usize].members.iter();
            members.filter(|&&member| graph.attributes(member).pass == 0 && is_update(graph.op(member))).count() as u64
        }
        _ => 0,
    });
    (count.sum(), simulation.peak, planned.extra_flops)
}

fn choose(n: u64, k: u64) -> u64 {
    (0..k).fold(1, |value, i| value * (n - i) / (i + 1))
}

/// The fewest advances over n steps with s states held, the one at the beginning included.
fn advances(n: u64, s: u64) -> u64 {
    let r = (0..).find(|r| choose(s + r, s) >= n).unwrap();
    r * n - choose(s + r, r - 1)
}

#[test]
fn uniform_loops_take_the_binomial_optimum() {
    for (steps, slots) in [(30, 2), (30, 3), (100, 5), (200, 8), (300, 30)] {
        let (count, peak, _) = updates(&heat(steps, 256), CheckpointPolicy::Revolve(slots));
        println!("{steps} steps, {slots} slots: {count} updates, {} states", peak / 1024);
        assert_eq!(count, advances(steps as u64, u64::from(slots)) + 1);
    }
}

/// `x ← x + sin(x)/8`, of which fusion takes several steps into one kernel.
fn pendulum(steps: usize, n: i64) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[n]);
    for _ in 0..steps {
        let force = tape.unary(x, |x| x.sin());
        let change = tape.unary(force, |force| force * 0.125);
        x = tape.binary(x, change, |x, change| x + change);
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// `x ← sin(x)·cos(x)`, whose adjoint reads what the step computes.
fn product(steps: usize, n: i64) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[n]);
    for _ in 0..steps {
        let sine = tape.unary(x, |x| x.sin());
        let cosine = tape.unary(x, |x| x.cos());
        x = tape.binary(sine, cosine, |sine, cosine| sine * cosine);
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

#[test]
fn elementwise_loops_take_the_binomial_optimum_too() {
    for (steps, slots, n) in [(30, 2, 2048), (100, 5, 2048), (200, 8, 64), (300, 30, 2048), (1000, 30, 2048)] {
        let (count, peak, _) = updates(&pendulum(steps, n), CheckpointPolicy::Revolve(slots));
        let peak = peak / (4 * n as u64);
        println!("{steps} elementwise steps, {slots} slots: {count} updates, {peak} states");
        // The kernel in which the tape turns holds the last step and the one before it.
        assert_eq!(count, advances(steps as u64 - 1, u64::from(slots)) + 2);
        assert!(peak <= u64::from(slots) + 4);
    }
}

#[test]
fn elementwise_loops_hold_few_states() {
    let n = 2048;
    let states = |graph: &Graph, policy| updates(graph, policy).1 / (4 * n as u64);
    for (steps, root) in [(300, 25), (1000, 45)] {
        let (pendulum, product) = (pendulum(steps, n), product(steps, n));
        println!("{steps} steps, sqrt: {}", states(&pendulum, CheckpointPolicy::Sqrt));
        assert!(states(&pendulum, CheckpointPolicy::Sqrt) <= root + 4);
        // What one step of a segment computes is as large as two states.
        println!("{steps} steps of products, sqrt: {}", states(&product, CheckpointPolicy::Sqrt));
        assert!(states(&product, CheckpointPolicy::Sqrt) <= 2 * root);
        assert!(states(&product, CheckpointPolicy::Revolve(30)) <= 34);
        assert!(states(&pendulum, CheckpointPolicy::Mixed(30)) <= 34);
        assert!(states(&pendulum, CheckpointPolicy::Segments(20)) <= 20 + steps as u64 / 20 + 4);
        assert!(states(&pendulum, CheckpointPolicy::Log) <= u64::from(steps.ilog2()) + 5);
    }
}

#[test]
fn a_limit_finds_the_steps_of_elementwise_loops() {
    let graph = pendulum(100, 1 << 14);
    let least = match compile_within(&graph, None, 1, &target(), &[]).unwrap() {
        Fitted::TooSmall(refused) => refused.minimum,
        fits @ Fitted::Fits(_) => panic!("{fits:?}"),
    };
    for slots in 2..6 {
        let policy = compile(&graph, CheckpointPolicy::Revolve(slots), &target()).unwrap();
        println!("{slots} states: {} of {}", policy.peak.total(), policy.planned.extra_flops);
        assert!(least <= policy.peak.total());
        let within = compile_within(&graph, None, policy.peak.total(), &target(), &[]).unwrap();
        let Fitted::Fits(within) = within else { panic!("{within:?}") };
        assert!(within.planned.extra_flops <= policy.planned.extra_flops);
        verify_program(&within.program).unwrap();
    }
}

/// A loop over a field of n elements, changed in place inside, as `u[1:-1] += …` is recorded. `body` says how often
/// the update of step t is made.
fn field(steps: usize, n: i64, body: impl Fn(usize) -> usize) -> Graph {
    let mut tape = Tape::new();
    let x = tape.input(&[n]);
    let mut u = tape.unary(x, |x| x * 2.0);
    for t in 0..steps {
        for _ in 0..body(t) {
            let left = tape.read(u, &[n - 2], &[1], 0);
            let middle = tape.read(u, &[n - 2], &[1], 1);
            let change = tape.binary(left, middle, |left, middle| (left - middle) * middle);
            u = tape.record(|builder| builder.expr(builder.strided_add(u, change, &[1], 1).unwrap()));
        }
    }
    let squares = tape.unary(u, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

#[test]
fn updates_in_place_are_a_chain_too() {
    for (steps, slots) in [(50, 3), (200, 20)] {
        let (count, peak, _) = updates(&field(steps, 256, |_| 1), CheckpointPolicy::Revolve(slots));
        println!("{steps} steps in place, {slots} slots: {count} updates, {} states", peak / 1024);
        assert_eq!(count, advances(steps as u64, u64::from(slots)) + 1);
        assert!(peak / 1024 <= u64::from(slots) + 4);
    }
}

#[test]
fn odd_steps_do_not_break_the_chain() {
    let every_tenth = |t: usize| if t.is_multiple_of(10) { 2 } else { 1 };
    let first = |t: usize| if t == 0 { 4 } else { 1 };
    let nested = |t: usize| 1 + t % 5;
    for (name, graph) in [
        ("every tenth", field(100, 256, every_tenth)),
        ("first", field(100, 256, first)),
        ("nested", field(34, 256, nested)),
    ] {
        let all = updates(&graph, CheckpointPolicy::None).0;
        for slots in [3, 6, 12] {
            let (count, peak, _) = updates(&graph, CheckpointPolicy::Revolve(slots));
            println!("{name}: {all} updates, {slots} slots: {count}, {} states", peak / 1024);
            assert_eq!(count, advances(all, u64::from(slots)) + 1, "{name}");
            assert!(peak / 1024 <= u64::from(slots) + 4, "{name}");
        }
    }
}

#[test]
fn halving_holds_as_many_states_as_halvings() {
    for steps in [16, 64, 256] {
        let graph = heat(steps, 256);
        let (count, peak, _) = updates(&graph, CheckpointPolicy::Log);
        println!("{steps} steps halved: {count} updates, {} states", peak / 1024);
        assert!(peak / 1024 <= steps.ilog2() as u64 + 5);
        assert!(count <= steps as u64 * u64::from(steps.ilog2()));
    }
}

#[test]
fn what_a_step_computes_may_be_held_instead_of_a_state() {
    // The adjoint of a layer of this net reads what the layer computes, and no state takes more bytes.
    let graph = lstm(40, 16, 64);
    let (none, revolve, mixed) = (
        schedule(&graph, CheckpointPolicy::None, &target()).unwrap(),
        schedule(&graph, CheckpointPolicy::Revolve(8), &target()).unwrap(),
        schedule(&graph, CheckpointPolicy::Mixed(8), &target()).unwrap(),
    );
    println!("lstm: {} of {}, mixed {}", revolve.extra_flops, none.flops, mixed.extra_flops);
    assert!(mixed.extra_flops < revolve.extra_flops);
    assert!(revolve.live_peak < mixed.live_peak && mixed.live_peak < none.live_peak);
}

#[test]
fn two_loops_and_no_loop() {
    let mut tape = Tape::new();
    let mut x = tape.input(&[256, 16]);
    let w = tape.input(&[16, 16]);
    for _ in 0..40 {
        let z = tape.matmul(x, w);
        x = tape.unary(z, |z| z.tanh());
    }
    for _ in 0..60 {
        let z = tape.matmul(x, w);
        let y = tape.unary(z, |z| z.square());
        let z = tape.matmul(y, w);
        x = tape.binary(z, x, |z, x| z.sin() + x);
    }
    let loss = tape.sum(x);
    let loops = tape.gradient(loss);
    for (name, graph) in [("two loops", loops), ("unet", unet(4, 64, 64)), ("mlp", mlp(48, 16, 256))] {
        let none = schedule(&graph, CheckpointPolicy::None, &target()).unwrap();
        for policy in [CheckpointPolicy::Log, CheckpointPolicy::Revolve(7), CheckpointPolicy::Mixed(7)] {
            let planned = schedule(&graph, policy, &target()).unwrap();
            println!(
                "{name} {policy:?}: peak {} of {}, extra {:.2}",
                planned.live_peak,
                none.live_peak,
                planned.extra_flops as f64 / none.flops as f64
            );
            assert!(planned.live_peak < none.live_peak);
            assert!(planned.extra_flops < 2 * none.flops);
        }
    }
}

#[test]
fn far_too_few_slots_are_refused() {
    let graph = heat(5000, 8);
    let error = schedule(&graph, CheckpointPolicy::Revolve(1), &target()).unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("use at least 2 slots"), "{error}");
}

#[test]
fn more_passes_keep_borders() {
    let graph = penalty(&mlp(24, 16, 256));
    let planned = schedule(&graph, CheckpointPolicy::Revolve(5), &target()).unwrap();
    println!("{:?}", planned.note);
    assert!(planned.segments <= 6 && planned.note.is_some_and(|note| note.contains("borders")));
    let forward = hvp(&heat(60, 64));
    assert_eq!(schedule(&forward, CheckpointPolicy::Revolve(5), &target()).unwrap().note, None);
}

#[test]
fn a_residual_net_in_half_the_memory() {
    let mut tape = Tape::new();
    let mut x = tape.input(&[1024, 64]);
    for w in (0..40).map(|_| tape.input(&[64, 64])).collect::<Vec<_>>() {
        let z = tape.matmul(x, w);
        let t = tape.unary(z, |z| z.tanh());
        x = tape.binary(x, t, |x, t| x + t);
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    let graph = tape.gradient(loss);
    let none = compile(&graph, CheckpointPolicy::None, &target()).unwrap();
    let within = compile_within(&graph, None, none.peak.total() / 2, &target(), &[]).unwrap();
    let Fitted::Fits(half) = within else { panic!("{within:?}") };
    let extra = half.planned.extra_flops as f64 / none.planned.flops as f64;
    println!("{} in half of {}: extra {extra:.3}", half.peak.total(), none.peak.total());
    assert!(extra <= 0.10, "{extra}");
    verify_program(&half.program).unwrap();
}
