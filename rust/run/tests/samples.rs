//! Every primitive, fused as the planner likes and alone: the same bits.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{CheckpointPolicy, Graph};
use ckad_plan::compile::compile;
use ckad_run::{RunOptions, target};
use common::{bytes_of, inputs, run_on, unfused};

fn same_bits(name: &str, graph: &Graph, ranges: &dyn Fn(usize) -> (f64, f64)) {
    let inputs = inputs(graph, ranges);
    let alone = bytes_of(&run_on(&unfused(graph), graph, &inputs, RunOptions::default()));
    let compiled = compile(graph, CheckpointPolicy::Auto, &target().unwrap()).unwrap();
    let fused = bytes_of(&run_on(&compiled.program, graph, &inputs, RunOptions::default()));
    assert!(alone == fused, "{name}");
}

#[test]
fn samples_run() {
    for sample in ckad_prim::samples().unwrap() {
        same_bits(&sample.name, &sample.graph, &|index| sample.ranges[index]);
    }
}

#[test]
fn gradients_of_samples_run() {
    for sample in ckad_prim::samples().unwrap() {
        let graph = &sample.graph;
        let active: Vec<bool> = graph.inputs.iter().map(|&input| graph.dtype(input).is_float()).collect();
        let output = graph.outputs[0];
        if !active.contains(&true) || !graph.dtype(output).is_float() {
            continue;
        }
        let derived = ckad_transform::simplify(ckad_transform::vjp(graph, &active).unwrap()).unwrap();
        same_bits(&sample.name, &derived, &|index| sample.ranges.get(index).copied().unwrap_or((-1.0, 1.0)));
    }
}
