//! The executor itself: outputs, places, empty arrays, cancellation, threads, hooks.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ckad_graph::{Attributes, CheckpointPolicy, DType, Error, ErrorKind, Graph, HostArray, NodeId, Result};
use ckad_plan::compile::compile;
use ckad_plan::program::{Place, Program};
use ckad_plan::verify::verify_program;
use ckad_prim::Builder;
use ckad_run::{AllocationHooks, Bindings, InputArray, MemoryTrace, RunOptions, run_interruptible, target};
use common::{Aligned, bytes_of, inputs, naive, programs, run_on, try_run_on};

#[derive(Debug)]
struct Captured(Aligned);

// The words are plain memory.
impl HostArray for Captured {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn owned_bytes(&self) -> usize {
        self.0.bytes().len()
    }
}

fn input(builder: &Builder, dtype: DType, shape: &[i64]) -> NodeId {
    let shape = builder.intern(shape).unwrap();
    builder.graph_mut().push_input(dtype, shape, Attributes::default()).unwrap()
}

fn finish(builder: Builder, outputs: &[NodeId]) -> Graph {
    let mut graph = builder.finish().unwrap();
    graph.outputs = outputs.to_vec();
    graph
}

fn program(graph: &Graph) -> Program {
    let compiled = compile(graph, CheckpointPolicy::None, &target().unwrap()).unwrap();
    verify_program(&compiled.program).unwrap();
    compiled.program
}

/// Runs and compares with the definition.
fn check(graph: &Graph) -> Program {
    let program = program(graph);
    let inputs = inputs(graph, &|_| (-2.0, 2.0));
    let expected = naive::evaluate(graph, &inputs);
    for debug in [false, true] {
        let outputs = run_on(&program, graph, &inputs, RunOptions { debug, ..RunOptions::default() });
        for ((output, &node), expected) in outputs.iter().zip(&graph.outputs).zip(&expected) {
            assert_eq!(output.dtype(), graph.dtype(node));
            assert_eq!(output.shape().iter().map(|&extent| extent as i64).collect::<Vec<_>>(), graph.shape(node));
            assert_eq!(output.pointer() as usize % 64, 0);
            let found = naive::decode(graph, node, output.bytes());
            let close = found.iter().zip(expected).all(|(x, y)| (x - y).abs() <= 1e-5 * y.abs().max(1.0));
            assert!(close, "{found:?} for {expected:?}");
        }
    }
    program
}

#[test]
fn what_cannot_be_computed_in_place_is_copied() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F32, &[3, 4]);
    let shape = builder.intern(&[4]).unwrap();
    let values: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let captured = Arc::new(Captured(Aligned::from_bytes(&values)));
    let constant = builder.graph_mut().push_constant(DType::F32, shape, captured, Attributes::default()).unwrap();
    let literal = builder.literal(DType::F32, 2.0).unwrap();
    let scalar = builder.graph_mut().push_scalar(DType::F64, 2.5f64.to_bits(), Attributes::default()).unwrap();
    let y = (builder.expr(x) * builder.expr(constant)).id;
    let turned = builder.transpose(y, &[1, 0]).unwrap();
    let row = builder.strided_read(x, &[4], &[1], 4).unwrap();
    let flat = builder.reshape(y, &[12]).unwrap();
    let graph = finish(builder, &[x, y, y, turned, row, flat, constant, literal, scalar, x]);
    let program = check(&graph);
    // One product; all else is copied.
    assert!(program.steps.len() > 1);
    // Every output is an allocation of its own.
    let outputs = program.buffers.iter().filter(|buffer| matches!(buffer.place, Place::Output(_))).count();
    assert_eq!(outputs, graph.outputs.len());
}

#[test]
fn overwrites_run_in_the_bytes_of_their_base() {
    let builder = Builder::new(Graph::new());
    let steps = 500;
    let x = input(&builder, DType::F32, &[8]);
    let mut trajectory = builder.zeros(DType::F32, &[steps, 8]).unwrap();
    for step in 0..steps {
        trajectory = builder.strided_write(trajectory, x, &[1], 8 * step).unwrap();
    }
    let graph = finish(builder, &[trajectory]);
    let program = check(&graph);
    assert_eq!(program.arena_bytes, 0);
    let owned = program.buffers.iter().filter(|buffer| matches!(buffer.place, Place::Output(_) | Place::Arena(_)));
    assert_eq!(owned.count(), 1);
}

#[test]
fn a_base_that_lives_on_is_not_overwritten() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F32, &[6]);
    let value = input(&builder, DType::F32, &[2]);
    let base = (builder.expr(x) * 2.0).id;
    let written = builder.strided_write(base, value, &[3], 1).unwrap();
    let onto_input = builder.strided_add(x, value, &[0], 2).unwrap();
    let sum = (builder.expr(written) + builder.expr(base)).id;
    let graph = finish(builder, &[sum, base, onto_input]);
    check(&graph);
}

#[test]
fn arrays_of_no_elements() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F32, &[3, 0]);
    let y = input(&builder, DType::F32, &[0]);
    let product = (builder.expr(x) * builder.expr(y)).id;
    let rows = builder.expr(product).sum(&[1]).id;
    let all = builder.expr(product).sum(&[0, 1]).id;
    let none = builder.expr(x).sum(&[0]).id;
    let turned = builder.transpose(x, &[1, 0]).unwrap();
    let shifted = (builder.expr(rows) + 1.0).id;
    let graph = finish(builder, &[product, rows, all, none, turned, shifted, y]);
    check(&graph);
}

#[test]
fn a_program_without_steps() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F64, &[0, 5]);
    let graph = finish(builder, &[x]);
    assert!(check(&graph).steps.is_empty());
    let none = finish(Builder::new(Graph::new()), &[]);
    check(&none);
}

#[test]
fn reductions_over_transposed_and_broadcast_loads() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F64, &[5, 7, 3]);
    let bias = input(&builder, DType::F64, &[7, 1]);
    let turned = builder.transpose(x, &[2, 0, 1]).unwrap();
    let wide = (builder.expr(x) + builder.expr(bias)).id;
    let outputs = [
        builder.expr(turned).sum(&[0]).id,
        builder.expr(turned).sum(&[1, 2]).id,
        builder.expr(wide).sum(&[0, 2]).id,
        builder.expr(wide).sum(&[1]).id,
    ];
    let graph = finish(builder, &outputs);
    check(&graph);
}

#[test]
fn a_set_flag_ends_the_run() {
    let graph = programs::mlp(4, 64, 256);
    let program = program(&graph);
    let inputs = inputs(&graph, &|_| (-0.5, 0.5));
    let cancel = AtomicBool::new(true);
    let options = RunOptions { cancel: Some(&cancel), ..RunOptions::default() };
    assert_eq!(try_run_on(&program, &graph, &inputs, options).unwrap_err().kind, ErrorKind::Interrupted);
    cancel.store(false, Ordering::Relaxed);
    let options = RunOptions { cancel: Some(&cancel), ..RunOptions::default() };
    run_on(&program, &graph, &inputs, options);
}

#[test]
fn a_waiting_caller_can_end_the_run() {
    // Some seconds of work if nobody stops it.
    let graph = programs::mlp(40, 512, 2048);
    let program = program(&graph);
    let inputs = inputs(&graph, &|_| (-0.05, 0.05));
    let arrays: Vec<InputArray<'_>> = inputs.iter().map(|input| InputArray::from_bytes(input.bytes())).collect();
    let bindings = Bindings {
        inputs: &arrays,
        scalars: &graph.scalars,
        constants: &[],
        starts: &graph.starts,
        ..Bindings::default()
    };
    let polls = AtomicUsize::new(0);
    let stop = || {
        polls.fetch_add(1, Ordering::Relaxed);
        Err(Error::interrupted("test"))
    };
    let error = run_interruptible(&program, &bindings, RunOptions::default(), stop).unwrap_err();
    assert_eq!((error.op.as_str(), polls.load(Ordering::Relaxed)), ("test", 1));
    let small = programs::mlp(2, 64, 64);
    let compiled = compile(&small, CheckpointPolicy::None, &target().unwrap()).unwrap();
    let inputs = common::inputs(&small, &|_| (-0.5, 0.5));
    let expected = bytes_of(&run_on(&compiled.program, &small, &inputs, RunOptions::default()));
    let arrays: Vec<InputArray<'_>> = inputs.iter().map(|input| InputArray::from_bytes(input.bytes())).collect();
    let bindings = Bindings {
        inputs: &arrays,
        scalars: &small.scalars,
        constants: &[],
        starts: &small.starts,
        ..Bindings::default()
    };
    let outputs = run_interruptible(&compiled.program, &bindings, RunOptions::default(), || Ok(())).unwrap();
    assert_eq!(bytes_of(&outputs), expected);
}

#[test]
fn runs_at_the_same_time_give_the_same_bits() {
    let graph = programs::mlp(6, 48, 300);
    let program = program(&graph);
    let inputs = inputs(&graph, &|_| (-0.5, 0.5));
    let expected = bytes_of(&run_on(&program, &graph, &inputs, RunOptions::default()));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(bytes_of(&run_on(&program, &graph, &inputs, RunOptions::default())) == expected);
                }
            });
        }
    });
    // Nor does it matter what pool the caller is of.
    let other = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let outputs = other.install(|| run_on(&program, &graph, &inputs, RunOptions::default()));
    assert!(bytes_of(&outputs) == expected);
    let outputs = ckad_run::pool().unwrap().install(|| run_on(&program, &graph, &inputs, RunOptions::default()));
    assert!(bytes_of(&outputs) == expected);
}

#[test]
fn wrong_bindings_are_refused() {
    let graph = programs::mlp(2, 8, 8);
    let program = program(&graph);
    let inputs = inputs(&graph, &|_| (-0.5, 0.5));
    let refused = |arrays: &[InputArray<'_>]| {
        let bindings = Bindings {
            inputs: arrays,
            scalars: &graph.scalars,
            constants: &[],
            starts: &graph.starts,
            ..Bindings::default()
        };
        ckad_run::run(&program, &bindings, RunOptions::default()).unwrap_err().kind
    };
    assert_eq!(refused(&[]), ErrorKind::Internal);
    let short: Vec<InputArray<'_>> = inputs.iter().map(|input| InputArray::from_bytes(&input.bytes()[4..])).collect();
    assert_eq!(refused(&short), ErrorKind::Internal);
}

#[test]
fn what_does_not_fit_is_a_memory_error() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F64, &[]);
    let huge = builder.broadcast(x, &[1 << 50]).unwrap();
    let graph = finish(builder, &[huge]);
    let inputs = inputs(&graph, &|_| (0.0, 1.0));
    let error = try_run_on(&program(&graph), &graph, &inputs, RunOptions::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Memory);
}

#[test]
fn an_index_out_of_range_names_its_line() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F64, &[4]);
    let index = input(&builder, DType::I64, &[2]);
    builder.set_attributes(Attributes { line: 17, ..Attributes::default() });
    let taken = builder.gather(x, &[index]).unwrap();
    let graph = finish(builder, &[taken]);
    let program = program(&graph);
    let inputs = inputs(&graph, &|input| if input == 0 { (0.0, 1.0) } else { (7.0, 9.0) });
    let line = |node: NodeId| graph.attributes(node).line;
    let options = RunOptions { line: Some(&line), ..RunOptions::default() };
    let error = try_run_on(&program, &graph, &inputs, options).unwrap_err();
    assert_eq!((error.kind, error.line), (ErrorKind::Index, 17));
}

/// Gives out memory of its own and keeps count.
#[derive(Default)]
struct Counting {
    memory: Vec<Vec<u8>>,
    live: u64,
    peak: u64,
    freed: usize,
    outputs: usize,
}

// SAFETY: every vector is allocated once, never grows, and is kept until the test ends.
unsafe impl AllocationHooks for Counting {
    fn on_allocate(&mut self, _: NodeId, bytes: usize) -> Result<*mut u8> {
        self.memory.push(vec![0; bytes + 64]);
        self.live += bytes as u64;
        self.peak = self.peak.max(self.live);
        let pointer = self.memory.last_mut().unwrap().as_mut_ptr();
        Ok(pointer.wrapping_add(pointer.align_offset(64)))
    }

    fn on_free(&mut self, _: NodeId, _: *mut u8, bytes: usize) {
        self.live -= bytes as u64;
        self.freed += 1;
    }

    fn on_output(&mut self, _: NodeId, _: *mut u8, bytes: usize) {
        self.live += bytes as u64;
        self.peak = self.peak.max(self.live);
        self.outputs += 1;
    }
}

#[test]
fn a_profiler_sees_what_was_planned() {
    let graph = programs::mlp(6, 16, 30);
    let compiled = compile(&graph, CheckpointPolicy::Sqrt, &target().unwrap()).unwrap();
    let inputs = inputs(&graph, &|_| (-0.5, 0.5));
    let expected = bytes_of(&run_on(&compiled.program, &graph, &inputs, RunOptions::default()));
    let mut hooks = Counting::default();
    let mut trace = MemoryTrace::default();
    let options = RunOptions { hooks: Some(&mut hooks), trace: Some(&mut trace), ..RunOptions::default() };
    assert_eq!(bytes_of(&run_on(&compiled.program, &graph, &inputs, options)), expected);
    assert_eq!((hooks.peak, hooks.outputs), (compiled.planned.live_peak, graph.outputs.len()));
    assert_eq!(hooks.freed, hooks.memory.len());
    assert_eq!(trace.peak().unwrap().1.live_bytes, compiled.planned.live_peak);
    // Cancelled, it still gives everything back.
    let cancel = AtomicBool::new(true);
    let mut hooks = Counting::default();
    let options = RunOptions { hooks: Some(&mut hooks), cancel: Some(&cancel), ..RunOptions::default() };
    try_run_on(&compiled.program, &graph, &inputs, options).unwrap_err();
    assert_eq!(hooks.freed, hooks.memory.len());
}

#[test]
fn recorded_starts_and_added_ones() {
    let builder = Builder::new(Graph::new());
    let x = input(&builder, DType::F32, &[10]);
    let row = builder.strided_read(x, &[4], &[1], 3).unwrap();
    let turned = builder.strided_read(x, &[3, 3], &[1, 3], 1).unwrap();
    let outputs = [row, turned, (builder.expr(row) * 3.7).id];
    let graph = finish(builder, &outputs);
    let mut program = check(&graph);
    // As if the second start and every scalar came from a rule.
    program.set_recorded(&graph, 0, 1).unwrap();
    assert_eq!(program.starts_added.0, 1);
    let values: Vec<u8> = (0..10).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let aligned = Aligned::from_bytes(&values);
    let arrays = [InputArray::from_bytes(aligned.bytes())];
    let bindings = Bindings { inputs: &arrays, scalars: &[], constants: &[], starts: &[5], ..Bindings::default() };
    let outputs = ckad_run::run(&program, &bindings, RunOptions::default()).unwrap();
    assert_eq!(naive::decode(&graph, graph.outputs[0], outputs[0].bytes()), [5.0, 6.0, 7.0, 8.0]);
    assert_eq!(naive::decode(&graph, graph.outputs[1], outputs[1].bytes())[..3], [1.0, 4.0, 7.0]);
    // A start that leaves the array is refused before anything is read.
    let bindings = Bindings { starts: &[7], ..bindings };
    assert!(ckad_run::run(&program, &bindings, RunOptions::default()).is_err());
}
