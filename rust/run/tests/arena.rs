//! The arena from run to run. Alone in its process, because it looks at process-wide figures.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::CheckpointPolicy;
use ckad_plan::compile::compile;
use ckad_run::{RunOptions, memory_use, release, target};
use common::{inputs, programs, run_on};

#[test]
fn one_block_is_kept_and_can_be_released() {
    let graph = programs::mlp(8, 64, 512);
    let compiled = compile(&graph, CheckpointPolicy::None, &target().unwrap()).unwrap();
    let arrays = inputs(&graph, &|_| (-0.5, 0.5));
    let needed = compiled.peak.arena + compiled.peak.scratch;
    run_on(&compiled.program, &graph, &arrays, RunOptions::default());
    let kept = memory_use();
    assert!(kept.leased == 0 && kept.idle >= needed && kept.idle <= needed + 64);
    let small = programs::mlp(2, 8, 8);
    let program = compile(&small, CheckpointPolicy::None, &target().unwrap()).unwrap().program;
    run_on(&program, &small, &inputs(&small, &|_| (-0.5, 0.5)), RunOptions::default());
    run_on(&compiled.program, &graph, &arrays, RunOptions::default());
    assert_eq!(memory_use(), kept);
    assert_eq!(release(), kept.idle);
    assert_eq!((memory_use().idle, release()), (0, 0));
}
