//! Whole programs through planner, lowering and kernels: values, bits under every policy, measured memory.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{CheckpointPolicy, Graph};
use ckad_plan::compile::compile;
use ckad_plan::program::{Kernel, Place, Program, Source};
use ckad_plan::verify::verify_program;
use ckad_run::{MemoryTrace, RunOptions, target};
use common::{bytes_of, inputs, naive, programs, run_on, unfused};

const POLICIES: [CheckpointPolicy; 6] = [
    CheckpointPolicy::None,
    CheckpointPolicy::Auto,
    CheckpointPolicy::Sqrt,
    CheckpointPolicy::Segments(3),
    CheckpointPolicy::Segments(100),
    CheckpointPolicy::Recompute,
];

fn check(name: &str, graph: &Graph) {
    let inputs = inputs(graph, &|_| (-0.5, 0.5));
    let expected = bytes_of(&run_on(&unfused(graph), graph, &inputs, RunOptions::default()));
    for (&output, (found, value)) in graph.outputs.iter().zip(expected.iter().zip(naive::evaluate(graph, &inputs))) {
        let found = naive::decode(graph, output, found);
        let scale = value.iter().fold(1e-3f64, |scale, x| scale.max(x.abs()));
        for (x, y) in found.iter().zip(&value) {
            assert!((x - y).abs() <= 2e-5 * scale, "{name}: {x} for {y}");
        }
    }
    let mut none = usize::MAX;
    for policy in POLICIES {
        let compiled = compile(graph, policy, &target().unwrap()).unwrap();
        verify_program(&compiled.program).unwrap();
        let plain = bytes_of(&run_on(&compiled.program, graph, &inputs, RunOptions::default()));
        assert!(plain == expected, "{name} under {policy:?} differs by bits");
        if policy == CheckpointPolicy::None {
            none = compiled.peak.total();
        }
        assert!(compiled.peak.total() <= none);
        let mut trace = MemoryTrace::default();
        let options = RunOptions { debug: true, trace: Some(&mut trace), ..RunOptions::default() };
        let debugged = bytes_of(&run_on(&compiled.program, graph, &inputs, options));
        assert!(debugged == expected, "{name} under {policy:?} differs in debug mode");
        let live: Vec<u64> = trace.entries.iter().map(|entry| entry.live_bytes).collect();
        assert_eq!(live, compiled.program.live_bytes().unwrap());
        assert!(trace.measured);
        assert_eq!(trace.peak().unwrap().1.live_bytes, compiled.planned.live_peak, "{name} under {policy:?}");
    }
}

#[test]
fn mlp() {
    check("mlp", &programs::mlp(12, 24, 40));
}

#[test]
fn mlp_of_wide_layers() {
    let graph = programs::mlp(3, 64, 300);
    check("wide mlp", &graph);
    // Two products of each of three layers, but the last one's, of which a whole sum is taken, and the first one's
    // cotangent, which nobody wants. Recomputation adds to them.
    for policy in POLICIES {
        let program = compile(&graph, policy, &target().unwrap()).unwrap().program;
        let joined = program.steps.iter().filter(|step| step.joined).count();
        let unstored = program.buffers.iter().filter(|buffer| buffer.place == Place::Scratch).count();
        assert!(joined >= 4 && unstored >= 4, "{joined} joined, {unstored} nowhere under {policy:?}");
    }
}

#[test]
fn what_is_joined_wrongly_is_refused() {
    let program = compile(&programs::mlp(3, 64, 300), CheckpointPolicy::None, &target().unwrap()).unwrap().program;
    let refusal = |change: &dyn Fn(&mut Program)| {
        let mut wrong = program.clone();
        change(&mut wrong);
        verify_program(&wrong).unwrap_err().what
    };
    let joined = program.steps.iter().position(|step| step.joined).unwrap();
    assert!(refusal(&|program| program.steps[joined].joined = false).contains("lies nowhere"));
    assert!(refusal(&|program| program.steps[joined - 1].joined = true).contains("joined with"));
    assert!(refusal(&|program| program.steps[joined + 1].joined = true).contains("joined with"));
    // What a product of the backward part reads dies with it, and must stay until the step after it is over.
    let overwritten = |program: &mut Program| {
        let last = program.steps.iter().rposition(|step| step.joined).unwrap();
        let Kernel::Structural { operands, .. } = &program.steps[last - 1].kernel else { unreachable!() };
        let Kernel::Fused(kernel) = &program.steps[last].kernel else { unreachable!() };
        let Source::Buffer(read) = operands[0].source else { unreachable!() };
        assert_eq!(program.buffers[read.0 as usize].last_step as usize + 1, last);
        program.buffers[kernel.stores[0].buffer.0 as usize].place = program.buffers[read.0 as usize].place;
    };
    assert!(refusal(&overwritten).contains("two owners"));
}

#[test]
fn lstm() {
    check("lstm", &programs::lstm(12, 8, 6));
}

#[test]
fn heat() {
    check("heat", &programs::heat(20, 70));
}

#[test]
fn trajectory() {
    check("trajectory", &programs::trajectory(30, 17));
}

#[test]
fn unet() {
    check("unet", &programs::unet(3, 16, 20));
}
