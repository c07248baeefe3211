//! What the tests share: programs to run, inputs for them, and two slower ways to the same results.
#![allow(dead_code)]

#[path = "../../../plan/tests/programs/mod.rs"]
pub mod programs;

pub mod naive;

use std::sync::Arc;

use ckad_graph::{DType, Graph, NodeId, Op};
use ckad_plan::lower::lower;
use ckad_plan::program::{Program, Target};
use ckad_plan::schedule::{Action, Cluster, ClusterId, ClusterKind, Schedule};
use ckad_plan::verify::verify_program;
use ckad_plan::view::is_view;
use ckad_run::{Bindings, GivenUp, InputArray, OutputBuffer, RunOptions, run, target};

/// Numerical Recipes' linear congruential generator: the same cases on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }

    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.below(1 << 24) as f64 / (1u64 << 24) as f64
    }
}

/// Memory aligned for every dtype.
#[derive(Debug)]
pub struct Aligned(Vec<u64>, usize);

impl Aligned {
    pub fn from_bytes(bytes: &[u8]) -> Aligned {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        for (index, &byte) in bytes.iter().enumerate() {
            words[index / 8] |= u64::from(byte) << (8 * (index % 8));
        }
        Aligned(words, bytes.len())
    }

    /// Its memory, which must outlive what a run makes of it.
    pub fn given_up(&mut self, input: u32) -> GivenUp {
        // SAFETY: the memory is writeable, and tests keep it to the end without looking at it.
        unsafe { GivenUp::new(input, self.0.as_mut_ptr().cast(), self.1) }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words hold at least that many bytes.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.1) }
    }
}

/// Inputs of the graph: floats uniform, integers from the integers within the range, bools at random.
pub fn inputs(graph: &Graph, ranges: &dyn Fn(usize) -> (f64, f64)) -> Vec<Aligned> {
    let mut random = Random(11);
    let inputs = graph.inputs.iter().enumerate().map(|(index, &input)| {
        let (dtype, (low, high)) = (graph.dtype(input), ranges(index));
        let mut bytes = Vec::with_capacity(graph.bytes(input));
        for _ in 0..graph.elements(input) {
            let bits = match dtype {
                DType::Bool => random.below(2),
                DType::F32 | DType::F64 => dtype.bits_of_f64(random.uniform(low, high)),
                _ => {
                    let span = (high.floor() - low.ceil()).clamp(0.0, 1e6) as u64;
                    dtype.bits_of_i64(low.ceil() as i64 + random.below(span + 1) as i64)
                }
            };
            bytes.extend_from_slice(&bits.to_le_bytes()[..dtype.size()]);
        }
        Aligned::from_bytes(&bytes)
    });
    inputs.collect()
}

pub fn run_on(program: &Program, graph: &Graph, inputs: &[Aligned], options: RunOptions<'_>) -> Vec<OutputBuffer> {
    try_run_on(program, graph, inputs, options).unwrap()
}

pub fn try_run_on(
    program: &Program,
    graph: &Graph,
    inputs: &[Aligned],
    options: RunOptions<'_>,
) -> ckad_graph::Result<Vec<OutputBuffer>> {
    run_on_memory(program, graph, inputs, &[], options)
}

/// As [`try_run_on`], where outputs may be written over some inputs.
pub fn run_on_memory(
    program: &Program,
    graph: &Graph,
    inputs: &[Aligned],
    given_up: &[GivenUp],
    options: RunOptions<'_>,
) -> ckad_graph::Result<Vec<OutputBuffer>> {
    let arrays: Vec<InputArray<'_>> = inputs.iter().map(|input| InputArray::from_bytes(input.bytes())).collect();
    let bindings = Bindings {
        inputs: &arrays,
        scalars: &graph.scalars,
        constants: &graph.constants,
        starts: &graph.starts[..program.starts_added.0],
        given_up,
    };
    run(program, &bindings, options)
}

pub fn bytes_of(outputs: &[OutputBuffer]) -> Vec<Vec<u8>> {
    outputs.iter().map(|output| output.bytes().to_vec()).collect()
}

/// Every node a kernel of its own, stored, and freed after its last use: no fusion, no views, no recomputation.
pub fn unfused_schedule(graph: &Graph) -> Schedule {
    let mut last_use = vec![None; graph.len()];
    for id in graph.ids() {
        for operand in graph.operands(id) {
            last_use[operand.index()] = Some(id);
        }
    }
    let mut schedule = Schedule::default();
    for id in graph.ids().filter(|&id| !graph.op(id).is_leaf()) {
        let kind = match graph.op(id) {
            Op::Elementwise(_) | Op::Cast | Op::StopGradient | Op::Iota { .. } | Op::RandomBits => ClusterKind::Fused,
            op if is_view(op) => ClusterKind::Fused,
            Op::Reduce { .. } => ClusterKind::Reduce,
            _ => ClusterKind::Single,
        };
        let cluster = ClusterId(schedule.clustering.clusters.len() as u32);
        Arc::make_mut(&mut schedule.clustering).clusters.push(Cluster { kind, members: vec![id] });
        schedule.actions.push(Action::Compute(cluster));
        schedule.stores.push([id].as_slice().into());
        let mut ended: Vec<NodeId> =
            graph.operands(id).iter().copied().filter(|operand| last_use[operand.index()] == Some(id)).collect();
        if last_use[id.index()].is_none() {
            ended.push(id);
        }
        ended.sort_unstable();
        ended.dedup();
        for value in ended {
            if !graph.op(value).is_leaf() && !graph.outputs.contains(&value) {
                schedule.actions.push(Action::Free(value));
                schedule.stores.push(Default::default());
            }
        }
    }
    schedule
}

pub fn unfused(graph: &Graph) -> Program {
    let apart = Target { joined: |_| 1, ..target().unwrap() };
    let program = lower(graph, &unfused_schedule(graph), &apart).unwrap();
    verify_program(&program).unwrap();
    program
}
