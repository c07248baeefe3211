//! What a program occupies: the figures that a user is told, and that a run measures.

use std::sync::Arc;

use ckad_graph::{Error, Graph, NodeId, Op, Result, ScalarBits};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::program::{
    ArrayRef, ArraySpec, Body, Buffer, BufferId, Instruction, Kernel, Load, Motion, Place, Program, Source, Step,
    Store, Takeover, Transfer,
};
use crate::tables::{collected, filled, push};

/// What a normal run must have allocated at once, by what it is for. Each is a line of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeakBytes {
    /// The one arena of values between steps.
    pub arena: usize,
    /// Results, in allocations of their own.
    pub outputs: usize,
    /// What kernels use while they run.
    pub scratch: usize,
    /// Captured arrays that were copied.
    pub constants: usize,
    pub graph: usize,
    pub program: usize,
}

impl PeakBytes {
    pub fn of(graph: &Graph, program: &Program) -> Result<PeakBytes> {
        let taken_over = program.takeovers.iter().map(|takeover| program.outputs[takeover.output as usize].bytes());
        let outputs = program.outputs.iter().map(ArraySpec::bytes).sum::<usize>() - taken_over.sum::<usize>();
        Ok(PeakBytes {
            arena: program.arena_bytes,
            outputs,
            scratch: program.scratch_bytes,
            constants: captured_bytes(graph)?,
            graph: graph.own_bytes(),
            program: program.own_bytes()?,
        })
    }

    pub fn total(&self) -> usize {
        let parts = [self.arena, self.outputs, self.scratch, self.constants, self.graph, self.program];
        parts.iter().fold(0, |sum, &part| sum.saturating_add(part))
    }
}

/// Bytes of captured arrays that were copied. One snapshot may be captured by several nodes.
pub(crate) fn captured_bytes(graph: &Graph) -> Result<usize> {
    let snapshots = graph.constants.iter().map(|constant| (Arc::as_ptr(constant).cast::<u8>(), constant));
    let mut snapshots = collected(snapshots)?;
    snapshots.sort_unstable_by_key(|&(address, _)| address);
    snapshots.dedup_by_key(|&mut (address, _)| address);
    Ok(snapshots.iter().map(|(_, constant)| constant.owned_bytes()).sum())
}

/// Bytes of a list that does not lie in place.
fn beside<A: smallvec::Array>(list: &SmallVec<A>) -> usize {
    if list.spilled() { list.capacity() * size_of::<A::Item>() } else { 0 }
}

impl Body {
    /// Without its program.
    fn lists_bytes(&self) -> usize {
        size_of::<Body>()
            + self.positions.capacity() * size_of::<u32>()
            + self.in_place.capacity()
            + (self.inputs.capacity() + self.outputs.capacity()) * size_of::<BufferId>()
    }
}

impl Program {
    /// Bytes that the program itself occupies. A body that several kernels run, here or in other bodies, is there once.
    pub fn own_bytes(&self) -> Result<usize> {
        let mut sum = self.lists_bytes();
        let mut met: FxHashSet<*const Body> = FxHashSet::default();
        let mut waiting: Vec<&Program> = Vec::new();
        push(&mut waiting, self)?;
        while let Some(program) = waiting.pop() {
            for body in program.steps.iter().flat_map(|step| match &step.kernel {
                Kernel::Loop(kernel) => kernel.bodies.as_slice(),
                _ => &[],
            }) {
                met.try_reserve(1).map_err(|_| Error::memory("plan", size_of::<*const Body>() * (met.len() + 1)))?;
                if met.insert(Arc::as_ptr(body)) {
                    sum += body.lists_bytes() + body.program.lists_bytes();
                    push(&mut waiting, &body.program)?;
                }
            }
        }
        Ok(sum)
    }

    /// Without the bodies of its loops and branches.
    fn lists_bytes(&self) -> usize {
        let list = |array: &ArrayRef| beside(&array.shape);
        let kernels = self.steps.iter().map(|step| match &step.kernel {
            Kernel::Fused(kernel) => {
                let load = |load: &Load| beside(&load.strides) + load.starts.capacity() * size_of::<u32>();
                beside(&kernel.extents)
                    + kernel.loads.capacity() * size_of::<Load>()
                    + kernel.loads.iter().map(load).sum::<usize>()
                    + kernel.instructions.capacity() * size_of::<Instruction>()
                    + kernel.stores.capacity() * size_of::<Store>()
                    + kernel.reduce.as_ref().map_or(0, |reduction| beside(&reduction.reduced))
            }
            Kernel::Structural { parameters, operands, result, .. } => {
                parameters.list.capacity() * size_of::<i64>()
                    + operands.capacity() * size_of::<ArrayRef>()
                    + operands.iter().map(list).sum::<usize>()
                    + list(result)
            }
            Kernel::Loop(kernel) => {
                size_of_val(kernel.as_ref())
                    + kernel.operands.capacity() * size_of::<ArrayRef>()
                    + kernel.operands.iter().map(list).sum::<usize>()
                    + kernel.results.capacity() * size_of::<Option<ArrayRef>>()
                    + kernel.results.iter().flatten().map(list).sum::<usize>()
                    + kernel.given_up.capacity()
                    + kernel.bodies.capacity() * size_of::<Arc<Body>>()
                    + kernel.layout.own_bytes()
            }
        });
        self.steps.capacity() * size_of::<Step>()
            + kernels.sum::<usize>()
            + self.buffers.capacity() * size_of::<Buffer>()
            + self.takeovers.capacity() * size_of::<Takeover>()
            + self.transfers.capacity() * size_of::<Transfer>()
            + self.scalars_added.1.capacity() * size_of::<ScalarBits>()
            + self.starts_added.1.capacity() * size_of::<i64>()
    }

    /// Bytes that kernels read and write, each operand and result counted once per step: what tells a loop that
    /// touches its slices from one that copies its storage. An operation in place moves what it overwrites; what never
    /// lies in memory as a whole is not counted.
    pub fn bytes_moved(&self) -> u64 {
        self.steps.iter().fold(0, |sum, step| sum.saturating_add(self.moved_by(&step.kernel)))
    }

    /// Bytes of values that are written to the run's file.
    pub fn offloaded_bytes(&self) -> u64 {
        let written = self.transfers.iter().filter(|transfer| transfer.motion == Motion::BeginWrite);
        written.map(|transfer| self.buffers[transfer.buffer.0 as usize].bytes as u64).sum()
    }

    /// Bytes of values alive at each step, outputs from when they are first written. Their maximum is what the
    /// simulator says of the schedule, and what debug mode measures.
    pub fn live_bytes(&self) -> Result<Vec<u64>> {
        let steps = self.steps.len();
        let mut change = filled(0i64, steps + 1)?;
        for buffer in &self.buffers {
            let owned = matches!(buffer.place, Place::Arena(_) | Place::Output(_) | Place::Scratch);
            let (first, last) = (buffer.first_step as usize, buffer.last_step as usize);
            if owned && first < steps {
                change[first] += buffer.bytes as i64;
                change[(last + 1).min(steps)] -= buffer.bytes as i64;
            }
        }
        let mut live = Vec::new();
        let mut now = 0;
        for &change in &change[..steps] {
            now += change;
            push(&mut live, now as u64)?;
        }
        Ok(live)
    }

    /// For each row the most bytes of its buffers held at once in a run that allocates each by itself: from the step
    /// that first writes it to the last that reads it, results until the end. `row` says whose a buffer is, by the node
    /// whose value it first holds.
    pub fn most_held(&self, row: &dyn Fn(NodeId) -> usize, rows: usize) -> Result<Vec<u64>> {
        let owned = self.buffers.iter().filter(|b| !matches!(b.place, Place::Input(_) | Place::Constant(_)));
        let mut births: Vec<&Buffer> = collected(owned)?;
        let passing = births.iter().copied().filter(|buffer| !matches!(buffer.place, Place::Output(_)));
        let mut deaths: Vec<&Buffer> = collected(passing)?;
        births.sort_unstable_by_key(|buffer| buffer.first_step);
        deaths.sort_unstable_by_key(|buffer| buffer.last_step);
        let (mut held, mut most) = (filled(0u64, rows)?, filled(0u64, rows)?);
        let mut dying = deaths.into_iter().peekable();
        for born in births {
            while let Some(dead) = dying.next_if(|dead| dead.last_step < born.first_step) {
                held[row(dead.node)] -= dead.bytes as u64;
            }
            let row = row(born.node);
            held[row] += born.bytes as u64;
            most[row] = most[row].max(held[row]);
        }
        Ok(most)
    }

    fn moved_by(&self, kernel: &Kernel) -> u64 {
        let lies = |id: BufferId| self.buffers[id.0 as usize].place != Place::Scratch;
        let array = |array: &ArrayRef| match array.source {
            Source::Buffer(id) if lies(id) => (array.shape.iter().product::<usize>() * array.dtype.size()) as u64,
            _ => 0,
        };
        match kernel {
            Kernel::Fused(kernel) => {
                let elements = |count: usize, size: usize| (count * size) as u64;
                let all: usize = kernel.extents.iter().product();
                let read = |load: &Load| match load.source {
                    Source::Buffer(id) if lies(id) => {
                        let touched = kernel.extents.iter().zip(&load.strides).filter(|(_, stride)| **stride != 0);
                        elements(touched.map(|(extent, _)| *extent).product(), load.dtype.size())
                    }
                    _ => 0,
                };
                let written = |store: &Store| elements(all, store.dtype.size());
                let reduced = kernel.reduce.as_ref().map_or(0, |reduction| {
                    let kept = kernel.extents.iter().zip(&reduction.reduced).filter(|(_, reduced)| !**reduced);
                    elements(kept.map(|(extent, _)| *extent).product(), reduction.dtype.size())
                });
                kernel.loads.iter().map(read).sum::<u64>() + kernel.stores.iter().map(written).sum::<u64>() + reduced
            }
            Kernel::Structural { op, operands, result, .. } => {
                let in_place =
                    op.overwrites_base() && operands.first().is_some_and(|base| base.source == result.source);
                if in_place {
                    2 * operands[1..].iter().map(array).sum::<u64>()
                } else if matches!(op, Op::StridedRead { .. } | Op::Gather { .. }) {
                    2 * array(result)
                } else {
                    operands.iter().map(array).sum::<u64>() + array(result)
                }
            }
            Kernel::Loop(kernel) => {
                let moved = kernel
                    .bodies
                    .iter()
                    .enumerate()
                    .map(|(body, program)| program.program.bytes_moved().saturating_mul(kernel.kind.times(body)));
                moved.fold(0, u64::saturating_add)
            }
        }
    }
}
