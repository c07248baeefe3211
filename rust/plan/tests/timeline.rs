//! A schedule in columns: no peak is lost, rows add up to what the simulator says.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph, NodeId};
use ckad_plan::policy::schedule;
use ckad_plan::schedule::Action;
use ckad_plan::simulate::simulate;
use ckad_plan::timeline::{Timeline, Work, timeline};
use programs::{blocks, heat, hvp, lstm, mlp, target, trajectory, unet, updates};

/// Rows by node id, many of them.
const ROWS: usize = 23;

fn row(node: NodeId) -> usize {
    node.index() % ROWS
}

fn drawn(graph: &Graph, policy: CheckpointPolicy, columns: usize) -> Timeline {
    let planned = schedule(graph, policy, &target()).unwrap();
    timeline(graph, &planned, (&row, ROWS), 5, columns).unwrap()
}

fn check(name: &str, graph: &Graph, policy: CheckpointPolicy) {
    let planned = schedule(graph, policy, &target()).unwrap();
    let simulation = simulate(graph, &planned.schedule).unwrap();
    let computes = planned.schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
    for columns in [1, 7, 100, usize::MAX] {
        let timeline = timeline(graph, &planned, (&row, ROWS), 5, columns).unwrap();
        assert_eq!(timeline.steps, computes + 1, "{name}");
        assert!(timeline.columns.len() <= columns.saturating_add(1), "{name}");
        assert!(timeline.rows.len() <= 5, "{name}");
        let mut next = 0;
        for column in &timeline.columns {
            assert_eq!(column.held.len(), timeline.rows.len() + 1, "{name}");
            assert_eq!(column.held.iter().sum::<u64>(), column.live, "{name}, step {}", column.step);
            assert!(column.allocated >= column.live, "{name}, step {}", column.step);
            assert!(next <= column.first_step && column.first_step <= column.step, "{name}");
            next = column.step + 1;
        }
        assert_eq!(timeline.columns.iter().map(|column| column.live).max(), Some(simulation.peak), "{name}");
        if columns == usize::MAX {
            let allocated = timeline.columns.iter().map(|column| column.allocated).max();
            assert_eq!(allocated, Some(simulation.allocated), "{name}");
        }
        let recomputes = timeline.columns.iter().any(|column| column.reach[Work::Recomputed as usize].is_some());
        assert_eq!(recomputes, simulation.extra_flops > 0, "{name}");
    }
}

#[test]
fn columns_are_what_the_simulator_says() {
    let gradient = mlp(24, 8, 64);
    let second = hvp(&gradient);
    let graphs = [
        ("mlp", gradient),
        ("hvp", second),
        ("blocks", blocks(4, 4, 8, 64, CheckpointPolicy::Recompute)),
        ("lstm", lstm(12, 8, 32)),
        ("heat", heat(40, 256)),
        ("trajectory", trajectory(20, 16)),
        ("unet", unet(3, 32, 32)),
        ("updates", updates(20, 64)),
    ];
    for (name, graph) in &graphs {
        for policy in [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt] {
            check(name, graph, policy);
        }
    }
}

#[test]
fn work_is_told_apart() {
    let graph = mlp(36, 8, 64);
    let reaches = |policy| {
        let timeline = drawn(&graph, policy, usize::MAX);
        [Work::Forward, Work::Recomputed, Work::Backward]
            .map(|work| timeline.columns.iter().filter(|column| column.reach[work as usize].is_some()).count())
    };
    let [forward, recomputed, backward] = reaches(CheckpointPolicy::None);
    assert!(forward > 30 && backward > 30 && recomputed == 0);
    let sqrt = reaches(CheckpointPolicy::Sqrt);
    assert!(sqrt[0] == forward && sqrt[1] > 20 && sqrt[1] <= forward && sqrt[2] >= backward);
}
