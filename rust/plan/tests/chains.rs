//! Loops are chains: how often their steps are computed, counted in the schedules of recorded programs.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph, Op};
use ckad_plan::lower::lower;
use ckad_plan::policy::schedule;
use ckad_plan::schedule::Action;
use ckad_plan::simulate::simulate;
use ckad_plan::verify::verify_program;
use programs::{heat, target};

/// How often the recorded updates of the state are computed, in all.
fn updates(graph: &Graph, policy: CheckpointPolicy) -> (u64, u64, u64) {
    let planned = schedule(graph, policy, &target()).unwrap();
    assert_eq!(planned.note, None, "{policy:?}");
    let simulation = simulate(graph, &planned.schedule).unwrap();
    let program = lower(graph, &planned.schedule, &target()).unwrap();
    verify_program(&program).unwrap();
    let clusters = &planned.schedule.clustering.clusters;
    let count = planned.schedule.actions.iter().filter(|action| match action {
        Action::Compute(id) => clusters[id.0 as usize]
            .members
            .iter()
            .any(|&member| graph.attributes(member).pass == 0 && matches!(graph.op(member), Op::StridedWrite { .. })),
        Action::Free(_) | Action::Store(_) | Action::Load(_) => false,
    });
    (count.count() as u64, simulation.peak, planned.extra_flops)
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
