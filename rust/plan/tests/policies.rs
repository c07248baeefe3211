//! Every policy on gradients of real programs, judged by the simulator.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph};
use ckad_plan::lower::lower;
use ckad_plan::policy::{Planned, schedule};
use ckad_plan::simulate::simulate;
use ckad_plan::verify::verify_program;
use programs::{heat, lstm, mlp, target, trajectory, unet};

const POLICIES: [CheckpointPolicy; 6] = [
    CheckpointPolicy::None,
    CheckpointPolicy::Auto,
    CheckpointPolicy::Sqrt,
    CheckpointPolicy::Segments(1),
    CheckpointPolicy::Segments(6),
    CheckpointPolicy::Recompute,
];

/// Plans and checks; the plan and the peak without the outputs.
fn plan(graph: &Graph, policy: CheckpointPolicy) -> (Planned, u64) {
    let planned = schedule(graph, policy, &target()).unwrap();
    let simulation = simulate(graph, &planned.schedule).unwrap();
    assert_eq!(simulation.peak, planned.live_peak);
    let program = lower(graph, &planned.schedule, &target()).unwrap();
    verify_program(&program).unwrap();
    assert_eq!(program.live_bytes().into_iter().max(), Some(planned.live_peak));
    let outputs: u64 = graph.outputs.iter().map(|&output| graph.bytes(output) as u64).sum();
    (planned, simulation.peak - outputs)
}

fn check_all(name: &str, graph: &Graph) -> Vec<(Planned, u64)> {
    let plans: Vec<_> = POLICIES.iter().map(|&policy| plan(graph, policy)).collect();
    for ((planned, peak), policy) in plans.iter().zip(POLICIES) {
        println!(
            "{name:12} {policy:?}: clusters {} peak {peak} extra {:.3} segments {} {:?}",
            planned.schedule.clustering.clusters.len(),
            planned.extra_flops as f64 / (planned.flops - planned.extra_flops) as f64,
            planned.segments,
            planned.note
        );
        assert!(planned.live_peak <= plans[0].0.live_peak);
    }
    plans
}

#[test]
fn deep_mlp() {
    let graph = mlp(128, 16, 256);
    let layer = 16 * 256 * 4;
    let plans = check_all("mlp", &graph);
    // Layer by layer one activation; shrinking segments [16, 15, …] leave about √(2·128) of them.
    assert!(plans[0].0.live_peak >= 128 * layer);
    assert!(plans[2].1 <= 26 * layer, "{}", plans[2].1 / layer);
    assert!(plans[2].0.extra_flops * 10 <= plans[2].0.flops * 3);
}

#[test]
fn loops_and_nets() {
    let plans = check_all("lstm", &lstm(60, 16, 64));
    assert!(plans[2].1 * 4 <= plans[0].1);
    let plans = check_all("heat", &heat(200, 2048));
    assert!(plans[2].1 * 8 <= plans[0].1);
    let plans = check_all("unet", &unet(4, 256, 256));
    assert!(plans[2].1 < plans[0].1);
    check_all("trajectory", &trajectory(100, 64));
}

#[test]
fn sqrt_grows_like_a_root() {
    let sqrt = |graph: &Graph| plan(graph, CheckpointPolicy::Sqrt).1 as f64;
    let growth = [
        ("mlp", sqrt(&mlp(256, 16, 256)) / sqrt(&mlp(64, 16, 256))),
        ("lstm", sqrt(&lstm(240, 16, 64)) / sqrt(&lstm(60, 16, 64))),
        ("heat", sqrt(&heat(800, 2048)) / sqrt(&heat(200, 2048))),
    ];
    for (name, growth) in growth {
        println!("{name} {growth}");
        assert!(growth < 2.4, "{name}: {growth}");
    }
}
