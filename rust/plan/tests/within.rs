//! Limits on memory: kept exactly, by the cheapest candidate that keeps them, and refused with the least that works.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph};
use ckad_plan::compile::{Compiled, compile};
use ckad_plan::simulate::simulate;
use ckad_plan::verify::verify_program;
use ckad_plan::within::{Fitted, Point, TooSmall, compile_within, frontier};
use programs::{Tape, blocks, equal_unet, heat, hvp, lstm, mlp, penalty, residual, target, trajectory, unet};

fn within(graph: &Graph, limit: usize) -> Result<Compiled, TooSmall> {
    match compile_within(graph, None, limit, &target(), &[]).unwrap() {
        Fitted::Fits(compiled) => Ok(*compiled),
        Fitted::TooSmall(refused) => Err(refused),
    }
}

fn check(name: &str, graph: &Graph) {
    let none = compile(graph, CheckpointPolicy::None, &target()).unwrap();
    let candidates = frontier(graph, 0, &target(), &[]).unwrap();
    let refused = within(graph, 1).unwrap_err();
    let (minimum, most) = (refused.minimum, none.peak.total());
    assert_eq!(minimum, candidates[0].bytes, "{name}");
    let falls = |pair: &[Point]| pair[0].bytes < pair[1].bytes && pair[0].extra_flops > pair[1].extra_flops;
    assert!(candidates.windows(2).all(falls), "{name}");
    assert!(refused.report.lines[0].peak_bytes > 0);
    assert_eq!(within(graph, minimum - 1).unwrap_err().minimum, minimum, "{name}");
    assert_eq!(within(graph, minimum).unwrap().peak.total(), minimum, "{name}");
    // Never above the other policies.
    for policy in [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt] {
        let other = compile(graph, policy, &target()).unwrap().peak.total();
        assert!(within(graph, other).is_ok(), "{name}: {policy:?} needs {other}, the least is {minimum}");
    }
    let mut before = u64::MAX;
    for step in 0..=6 {
        let limit = minimum + (most - minimum) * step / 6;
        let compiled = within(graph, limit).unwrap();
        verify_program(&compiled.program).unwrap();
        simulate(graph, &compiled.planned.schedule).unwrap();
        assert!(compiled.peak.total() <= limit, "{name}");
        assert!(compiled.planned.flops <= before, "{name}: more memory, more work");
        before = compiled.planned.flops;
        let cheapest = candidates.iter().rfind(|point| point.bytes <= limit).unwrap();
        assert_eq!(compiled.planned.extra_flops, cheapest.extra_flops, "{name}");
        if step % 3 == 0 {
            let share = compiled.planned.extra_flops as f64 / none.planned.flops as f64;
            println!("{name:12} {:.2} of none: extra {share:.3}", limit as f64 / most as f64);
        }
    }
}

#[test]
fn nets() {
    check("mlp", &mlp(64, 16, 256));
    check("unet", &unet(4, 128, 128));
    check("blocks", &blocks(8, 4, 16, 256, CheckpointPolicy::Recompute));
    check("blocks sqrt", &blocks(1, 32, 16, 256, CheckpointPolicy::Sqrt));
}

#[test]
fn loops() {
    check("lstm", &lstm(24, 16, 64));
    check("heat", &heat(60, 2048));
    check("trajectory", &trajectory(40, 64));
}

#[test]
fn second_order() {
    for (name, graph) in [("mlp", mlp(16, 16, 256)), ("lstm", lstm(8, 16, 64)), ("heat", heat(20, 2048))] {
        check(&format!("{name} hvp"), &hvp(&graph));
        check(&format!("{name} rr"), &penalty(&graph));
    }
}

/// Skips across the tape make borders of it thick; evictions do not need borders. At half of what keeping everything
/// needs.
#[test]
fn graphs_that_are_no_chains() {
    for (name, graph, most) in [
        ("pyramid", unet(4, 128, 2048), 0.05),
        ("equal widths", equal_unet(5, 16, 1024), 0.28),
        ("residual", residual(40, 16, 1024), 0.25),
    ] {
        let none = compile(&graph, CheckpointPolicy::None, &target()).unwrap();
        let half = within(&graph, none.peak.total() / 2).unwrap();
        let share = half.planned.extra_flops as f64 / none.planned.flops as f64;
        println!("{name}: {share:.3}");
        assert!(share <= most, "{name}: {share}");
    }
}

/// Plans of few states are tried late. They compute the loop again, and not the product behind it, which is most of the
/// work.
#[test]
fn a_heavy_product_behind_a_long_loop_hides_no_plan() {
    let mut tape = Tape::new();
    let (mut x, w) = (tape.input(&[65536, 8]), tape.input(&[8, 8]));
    let v = tape.input(&[8 * 65536, 1 << 17]);
    for _ in 0..1200 {
        let z = tape.matmul(x, w);
        x = tape.unary(z, |z| z.tanh());
    }
    let row = tape.unary(x, |x| x.reshape(&[1, 8 * 65536]));
    let y = tape.matmul(row, v);
    let loss = tape.sum(y);
    let graph = tape.gradient(loss);
    let log = compile(&graph, CheckpointPolicy::Log, &target()).unwrap();
    assert!(log.planned.extra_flops < log.planned.forward_flops);
    assert!(within(&graph, log.peak.total()).is_ok());
}

#[test]
fn a_policy_beside_a_limit_is_kept() {
    let graph = mlp(32, 16, 256);
    for policy in [CheckpointPolicy::None, CheckpointPolicy::Sqrt, CheckpointPolicy::Segments(4)] {
        let alone = compile(&graph, policy, &target()).unwrap();
        let needed = alone.peak.total();
        let beside = |limit| compile_within(&graph, Some(policy), limit, &target(), &[]).unwrap();
        assert_eq!(beside(needed), Fitted::Fits(Box::new(alone)));
        let Fitted::TooSmall(refused) = beside(needed - 1) else { panic!("{policy:?} within less than it needs") };
        assert_eq!(refused.minimum, needed);
    }
}

#[test]
fn candidates_are_named() {
    let graph = mlp(64, 16, 256);
    let names: Vec<String> =
        frontier(&graph, 0, &target(), &[]).unwrap().into_iter().map(|point| point.policy).collect();
    assert!(["none", "auto"].contains(&names.last().unwrap().as_str()), "{names:?}");
    let one_of = |text: &str| names.iter().any(|name| name.starts_with(text) && name.contains(" segments"));
    assert!(one_of("sqrt, ") && names.iter().any(|name| name.starts_with("eviction")), "{names:?}");
}
