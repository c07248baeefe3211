//! Programs that run where they are called never reach for a thread pool. Alone in its process, because the global
//! pool can be made only once.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::CheckpointPolicy;
use ckad_plan::compile::compile;
use ckad_run::{RunOptions, target};
use common::{inputs, run_on, unfused};

#[test]
fn small_programs_start_no_threads() {
    for sample in ckad_prim::samples().unwrap() {
        let graph = &sample.graph;
        let inputs = inputs(graph, &|index| sample.ranges[index]);
        let compiled = compile(graph, CheckpointPolicy::Auto, &target().unwrap()).unwrap();
        run_on(&compiled.program, graph, &inputs, RunOptions::default());
        run_on(&unfused(graph), graph, &inputs, RunOptions::default());
    }
    // Refused if a kernel outside of a pool had started the global one.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
}
