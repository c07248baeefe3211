//! Whole programs through planner, lowering and kernels: values, bits under every policy, measured memory.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{CheckpointPolicy, Graph};
use ckad_plan::compile::{compile, compile_donating};
use ckad_plan::program::{BufferId, Kernel, Place, Program, Source};
use ckad_plan::verify::verify_program;
use ckad_plan::within::{Fitted, compile_within};
use ckad_run::{GivenUp, MemoryTrace, RunOptions, target};
use common::{Aligned, bytes_of, inputs, naive, programs, run_on, run_on_memory, unfused};

const POLICIES: [CheckpointPolicy; 9] = [
    CheckpointPolicy::None,
    CheckpointPolicy::Auto,
    CheckpointPolicy::Sqrt,
    CheckpointPolicy::Segments(3),
    CheckpointPolicy::Segments(100),
    CheckpointPolicy::Recompute,
    CheckpointPolicy::Log,
    CheckpointPolicy::Revolve(3),
    CheckpointPolicy::Mixed(3),
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
        let donated = bytes_where_inputs_are_given_up(graph, policy, &inputs);
        assert!(donated == expected, "{name} under {policy:?} differs where inputs are given up");
    }
    let within = |limit| compile_within(graph, None, limit, &target().unwrap(), &[]).unwrap();
    let Fitted::TooSmall(refused) = within(1) else { panic!("{name} fits into a byte") };
    for limit in [refused.minimum, refused.minimum.midpoint(none), none] {
        let Fitted::Fits(compiled) = within(limit) else { panic!("{name} does not fit into {limit} bytes") };
        verify_program(&compiled.program).unwrap();
        assert!(compiled.peak.total() <= limit);
        let found = bytes_of(&run_on(&compiled.program, graph, &inputs, RunOptions::default()));
        assert!(found == expected, "{name} within {limit} bytes differs by bits");
    }
}

/// The outputs of a program that may write them over all of its inputs.
fn bytes_where_inputs_are_given_up(graph: &Graph, policy: CheckpointPolicy, inputs: &[Aligned]) -> Vec<Vec<u8>> {
    let given = vec![true; graph.inputs.len()];
    let compiled = compile_donating(graph, policy, &target().unwrap(), &given).unwrap();
    verify_program(&compiled.program).unwrap();
    let mut memory: Vec<Aligned> = inputs.iter().map(|input| Aligned::from_bytes(input.bytes())).collect();
    let given_up: Vec<GivenUp> = (0..).zip(&mut memory).map(|(index, input)| input.given_up(index)).collect();
    let outputs = run_on_memory(&compiled.program, graph, &memory, &given_up, RunOptions::default()).unwrap();
    let taken = outputs.iter().filter_map(|output| output.taken_over()).count();
    assert_eq!(taken, compiled.program.takeovers.len());
    bytes_of(&outputs)
}

#[test]
fn updates_are_written_over_what_they_update() {
    let graph = programs::updates(4, 5000);
    check("updates", &graph);
    let compiled =
        |donated: &[bool]| compile_donating(&graph, CheckpointPolicy::Auto, &target().unwrap(), donated).unwrap();
    let (kept, given) = (compiled(&[]), compiled(&vec![true; graph.inputs.len()]));
    assert_eq!(given.program.takeovers.len(), graph.outputs.len());
    assert_eq!((kept.peak.outputs, given.peak.outputs), (graph.outputs.len() * 20_000, 0));
    // One that is read once more, after its update was written, is not overwritten.
    let mut wrong = given.program.clone();
    let (last, read) = (wrong.steps.len() - 1, wrong.takeovers[0].input);
    let from = wrong.buffers.iter().position(|buffer| buffer.place == Place::Input(read)).unwrap();
    let Kernel::Fused(kernel) = &mut wrong.steps[last].kernel else { panic!("an update is fused") };
    kernel.loads[0].source = Source::Buffer(BufferId(from as u32));
    assert!(verify_program(&wrong).unwrap_err().what.contains("still to be read"));
    // Nor may a kernel store what it still has to load.
    let mut wrong = given.program.clone();
    for step in &mut wrong.steps {
        let Kernel::Fused(kernel) = &mut step.kernel else { panic!("an update is fused") };
        kernel.overwrites = false;
    }
    assert!(verify_program(&wrong).unwrap_err().what.contains("still to be read"));
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
