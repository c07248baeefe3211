//! The rules of clustering, on graphs small enough to read.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, DType, Graph, NodeId, Op};
use ckad_plan::cluster::cluster;
use ckad_plan::policy::schedule;
use ckad_plan::schedule::{Action, ClusterKind, Clustering};
use ckad_plan::simulate::base_taken;
use programs::{Tape, elementwise, heat, mlp, target, trajectory};

/// Ends the tape without differentiating.
fn forward(tape: Tape, outputs: &[NodeId]) -> Graph {
    let mut graph = tape.builder.finish().unwrap();
    graph.outputs = outputs.to_vec();
    graph
}

fn plain(graph: &Graph) -> Clustering {
    cluster(graph, &target(), false).unwrap()
}

/// Kinds, and the computed members of each cluster (views left out).
fn shape_of(clustering: &Clustering) -> Vec<(ClusterKind, usize)> {
    clustering.clusters.iter().map(|cluster| (cluster.kind, cluster.members.len())).collect()
}

#[test]
fn an_expression_is_one_cluster_with_its_reduction() {
    let mut tape = Tape::new();
    let (x, y, b) = (tape.input(&[8, 8]), tape.input(&[8, 8]), tape.input(&[8]));
    // Two branches that meet; a bias that broadcasts; then a sum.
    let left = tape.unary(x, |x| x.sin());
    let right = tape.unary(y, |y| y.cos());
    let both = tape.binary(left, right, |left, right| left * right);
    let shifted = tape.binary(both, b, |both, b| both + b);
    let sum = tape.sum(shifted);
    let graph = forward(tape, &[sum]);
    assert_eq!(shape_of(&plain(&graph)), [(ClusterKind::Reduce, 5)]);
}

#[test]
fn views_are_read_through_or_computed_where_memory_is_needed() {
    let mut tape = Tape::new();
    let (x, w) = (tape.input(&[8, 8]), tape.input(&[8, 8]));
    let turned = tape.record(|builder| builder.expr(builder.transpose(x, &[1, 0]).unwrap()));
    let sine = tape.unary(turned, |t| t.sin());
    let other = tape.record(|builder| builder.expr(builder.transpose(w, &[1, 0]).unwrap()));
    let product = tape.matmul(sine, other);
    let graph = forward(tape, &[product]);
    let kinds = shape_of(&plain(&graph));
    // sin of a transposed load; the copy that dot needs; dot.
    assert_eq!(kinds, [(ClusterKind::Fused, 2), (ClusterKind::Fused, 1), (ClusterKind::Single, 1)]);
}

#[test]
fn what_is_read_transposed_is_stored_before() {
    let mut tape = Tape::new();
    let x = tape.input(&[8, 8]);
    let sine = tape.unary(x, |x| x.sin());
    let turned = tape.record(|builder| builder.expr(builder.transpose(sine, &[1, 0]).unwrap()));
    let sum = tape.binary(sine, turned, |a, b| a + b);
    let graph = forward(tape, &[sum]);
    assert_eq!(shape_of(&plain(&graph)), [(ClusterKind::Fused, 1), (ClusterKind::Fused, 2)]);
}

#[test]
fn accumulation_stands_alone() {
    let mut tape = Tape::new();
    let (x, y) = (tape.input(&[8]), tape.input(&[8]));
    let g = tape.unary(x, |x| x.sin());
    let sum = tape.record(|builder| builder.expr(builder.accumulate(y, g).unwrap()));
    let after = tape.unary(sum, |s| s.cos());
    let graph = forward(tape, &[after]);
    assert_eq!(shape_of(&plain(&graph)), [(ClusterKind::Fused, 1), (ClusterKind::Single, 1), (ClusterKind::Fused, 1)]);
}

#[test]
fn groups_are_bounded() {
    let mut tape = Tape::new();
    let mut x = tape.input(&[8]);
    for _ in 0..1000 {
        x = tape.unary(x, |x| x.sin());
    }
    let graph = forward(tape, &[x]);
    let clustering = plain(&graph);
    assert!(clustering.clusters.len() >= 1000 / 32 && clustering.clusters.len() < 1000 / 8);
    let order: Vec<u32> = clustering.clusters.iter().flat_map(|cluster| &cluster.members).map(|node| node.0).collect();
    assert!(order.is_sorted());
}

#[test]
fn readers_come_before_the_overwrite() {
    let mut tape = Tape::new();
    let x = tape.input(&[64]);
    let base = tape.unary(x, |x| x.sin());
    let slice = tape.read(base, &[8], &[1], 8);
    let zeros = tape.record(|builder| builder.expr(builder.zeros(DType::F32, &[8]).unwrap()));
    let written = tape.record(|builder| builder.expr(builder.strided_write(base, zeros, &[1], 0).unwrap()));
    let late = tape.unary(slice, |s| s.cos());
    let graph = forward(tape, &[written, late]);
    let planned = schedule(&graph, CheckpointPolicy::None, &target()).unwrap();
    let overwrites: Vec<_> = (0..planned.schedule.actions.len())
        .filter_map(|action| base_taken(&graph, &planned.schedule, action))
        .collect();
    assert_eq!(overwrites, [base]);
}

#[test]
fn trajectories_are_written_in_place_and_once_under_every_policy() {
    for policy in
        [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt, CheckpointPolicy::Segments(7)]
    {
        let graph = trajectory(200, 2048);
        let planned = schedule(&graph, policy, &target()).unwrap();
        let schedule = &planned.schedule;
        let mut written = 0;
        let mut in_place = 0;
        for (index, action) in schedule.actions.iter().enumerate() {
            let Action::Compute(id) = action else { continue };
            let root = *schedule.clustering.clusters[id.0 as usize].members.last().unwrap();
            if matches!(graph.op(root), Op::StridedWrite { .. } | Op::StridedAdd { .. }) {
                written += 1;
                in_place += usize::from(base_taken(&graph, schedule, index).is_some());
            }
        }
        let nodes = graph.ids().filter(|&id| graph.op(id).overwrites_base()).count();
        assert!(written == nodes && in_place + 2 >= nodes, "{policy:?}: {nodes} {written} {in_place}");
    }
}

#[test]
fn auto_rebuilds_little_and_keeps_less() {
    for graph in [mlp(8, 16, 256), heat(50, 4096)] {
        let none = schedule(&graph, CheckpointPolicy::None, &target()).unwrap();
        let auto = schedule(&graph, CheckpointPolicy::Auto, &target()).unwrap();
        assert!(auto.live_peak <= none.live_peak);
        assert!(auto.extra_flops * 20 <= none.flops, "{} of {}", auto.extra_flops, none.flops);
    }
}

#[test]
fn a_graph_that_computes_nothing_is_planned() {
    let mut tape = Tape::new();
    let x = tape.input(&[8]);
    let graph = forward(tape, &[x, x]);
    for policy in [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt] {
        let planned = schedule(&graph, policy, &target()).unwrap();
        // Two copies of eight numbers.
        assert_eq!((planned.live_peak, planned.schedule.actions.len()), (64, 0));
    }
}

#[test]
fn value_and_gradient_are_one_kernel_where_the_tape_turns() {
    for mean in [false, true] {
        let graph = elementwise(1 << 20, mean);
        let clustering = plain(&graph);
        println!("{:?}", shape_of(&clustering));
        for policy in [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt] {
            let planned = schedule(&graph, policy, &target()).unwrap();
            let outputs: u64 = graph.outputs.iter().map(|&output| graph.bytes(output) as u64).sum();
            // A scalar more or less.
            assert!(planned.live_peak <= outputs + 16, "{policy:?}: {}", planned.live_peak);
            assert_eq!(planned.extra_flops, 0);
            assert!(planned.forward_flops > 0 && planned.forward_flops < planned.flops);
        }
        let large = |id: NodeId| graph.elements(id) > 1;
        let of_arrays = clustering.clusters.iter().filter(|cluster| cluster.members.iter().any(|&id| large(id)));
        assert_eq!(of_arrays.count(), 1);
    }
}

#[test]
fn what_follows_from_the_loss_keeps_groups_apart() {
    // The gradient of sum(h)² needs the sum before it can begin.
    let mut tape = Tape::new();
    let x = tape.input(&[1 << 16]);
    let sine = tape.unary(x, |x| x.sin());
    let sum = tape.sum(sine);
    let loss = tape.unary(sum, |sum| sum.square());
    let graph = tape.gradient(loss);
    let clustering = plain(&graph);
    let reduce = clustering.clusters.iter().find(|cluster| cluster.kind == ClusterKind::Reduce).unwrap();
    assert!(reduce.members.iter().all(|&id| graph.attributes(id).pass == 0));
}
