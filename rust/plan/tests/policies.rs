//! Every policy on gradients of real programs, judged by the simulator.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph};
use ckad_plan::lower::lower;
use ckad_plan::policy::{Planned, schedule};
use ckad_plan::program::{Place, Program, Target};
use ckad_plan::report::report;
use ckad_plan::simulate::simulate;
use ckad_plan::verify::verify_program;
use programs::{blocks, heat, hvp, lstm, mlp, penalty, target, trajectory, unet};

const POLICIES: [CheckpointPolicy; 10] = [
    CheckpointPolicy::None,
    CheckpointPolicy::Auto,
    CheckpointPolicy::Sqrt,
    CheckpointPolicy::Segments(1),
    CheckpointPolicy::Segments(6),
    CheckpointPolicy::Recompute,
    CheckpointPolicy::Offload(1),
    CheckpointPolicy::Log,
    CheckpointPolicy::Revolve(3),
    CheckpointPolicy::Mixed(3),
];

/// Plans and checks; the plan and the peak without the outputs.
fn plan(graph: &Graph, policy: CheckpointPolicy) -> (Planned, u64) {
    let planned = schedule(graph, policy, &target()).unwrap();
    let simulation = simulate(graph, &planned.schedule).unwrap();
    assert_eq!(simulation.peak, planned.live_peak);
    let program = lower(graph, &planned.schedule, &target()).unwrap();
    verify_program(&program).unwrap();
    assert_eq!(program.live_bytes().unwrap().into_iter().max(), Some(planned.live_peak));
    let in_turn = lower(graph, &planned.schedule, &Target { joined: |_| 1, ..target() }).unwrap();
    assert_eq!(allocated(graph, &in_turn), simulation.allocated);
    let outputs: u64 = graph.outputs.iter().map(|&output| graph.bytes(output) as u64).sum();
    (planned, simulation.peak - outputs)
}

/// The most bytes of buffers in the arena at one step, and all outputs.
fn allocated(graph: &Graph, program: &Program) -> u64 {
    let mut live = vec![0; program.steps.len()];
    for buffer in program.buffers.iter().filter(|buffer| matches!(buffer.place, Place::Arena(_))) {
        live[buffer.first_step as usize..=buffer.last_step as usize].iter_mut().for_each(|live| *live += buffer.bytes);
    }
    let outputs: usize = graph.outputs.iter().map(|&output| graph.bytes(output)).sum();
    (live.into_iter().max().unwrap_or(0) + outputs) as u64
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
    // Outputs have their memory from the start, so what counts is the arena, and not when most is live.
    let program = lower(&graph, &plans[2].0.schedule, &target()).unwrap();
    assert!(program.arena_bytes as u64 <= 18 * layer, "{}", program.arena_bytes as u64 / layer);
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

#[test]
fn regions_have_their_own_policy() {
    let layer = 16 * 256 * 4;
    let recompute = blocks(8, 8, 16, 256, CheckpointPolicy::Recompute);
    let (none, peak) = plan(&recompute, CheckpointPolicy::None);
    println!("recompute under none: {} layers, extra {}", peak / layer, none.extra_flops);
    // Eight borders and one block.
    assert!(peak <= 20 * layer && none.segments == 8, "{} {}", peak / layer, none.segments);
    let (sqrt, peak_sqrt) = plan(&recompute, CheckpointPolicy::Sqrt);
    println!("recompute under sqrt: {} layers, extra {}", peak_sqrt / layer, sqrt.extra_flops);
    assert!(peak_sqrt <= peak);
    // Many small blocks: segments of blocks hold less than the borders of all.
    let small = blocks(64, 4, 16, 256, CheckpointPolicy::Recompute);
    let ((_, kept), (sqrt, nested)) = (plan(&small, CheckpointPolicy::None), plan(&small, CheckpointPolicy::Sqrt));
    println!(
        "64 blocks: {} layers, under sqrt {} layers, extra {}",
        kept / layer,
        nested / layer,
        sqrt.extra_flops as f64 / sqrt.flops as f64
    );
    assert!(nested * 2 < kept && sqrt.note.is_none());
    // One region of sqrt under "none" is sqrt.
    let inner = blocks(1, 64, 16, 256, CheckpointPolicy::Sqrt);
    let (_, inner_peak) = plan(&inner, CheckpointPolicy::None);
    let outer = blocks(1, 64, 16, 256, CheckpointPolicy::Auto);
    let (_, kept_peak) = plan(&outer, CheckpointPolicy::None);
    println!("sqrt region {} layers, kept region {}", inner_peak / layer, kept_peak / layer);
    assert!(inner_peak * 3 < kept_peak);
    let (auto, auto_peak) = plan(&inner, CheckpointPolicy::Auto);
    assert!(auto_peak <= inner_peak, "{:?}", auto.note);
}

#[test]
fn the_report_adds_up() {
    let graph = mlp(16, 16, 256);
    let (planned, _) = plan(&graph, CheckpointPolicy::Sqrt);
    let report = report(&graph, &planned).unwrap();
    assert_eq!(report.lines.iter().map(|line| line.peak_bytes).sum::<u64>(), planned.live_peak);
    assert_eq!(report.live.iter().max(), Some(&planned.live_peak));
    assert!(report.lines.iter().any(|line| line.computed == 2));
    assert!(report.lines.iter().all(|line| line.computed <= 2));
    let text = report.text(&|line| format!("model.py:{line}")).unwrap();
    assert!(text.contains("segments") && text.contains("model.py:"), "{text}");
}

#[test]
fn second_order() {
    let sqrt = |graph: &Graph| plan(graph, CheckpointPolicy::Sqrt).1 as f64;
    for (name, small, large) in [
        ("mlp", mlp(32, 16, 256), mlp(128, 16, 256)),
        ("lstm", lstm(30, 16, 64), lstm(120, 16, 64)),
        ("heat", heat(100, 2048), heat(400, 2048)),
    ] {
        let forward = (hvp(&small), hvp(&large));
        let reverse = (penalty(&small), penalty(&large));
        check_all(&format!("{name} hvp"), &forward.0);
        check_all(&format!("{name} rr"), &reverse.0);
        let growth = (sqrt(&forward.1) / sqrt(&forward.0), sqrt(&reverse.1) / sqrt(&reverse.0));
        println!("{name}: hvp {:.2} rr {:.2}", growth.0, growth.1);
        assert!(growth.0 < 2.5 && growth.1 < 2.5, "{name}: {growth:?}");
    }
    check_all("traj hvp", &hvp(&trajectory(50, 64)));
    check_all("traj rr", &penalty(&trajectory(50, 64)));
}
