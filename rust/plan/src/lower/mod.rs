//! Schedule in, program out: kernels over buffers whose bytes are known.
//!
//! `lower` plays the schedule once. Each `Compute` becomes the kernel of its cluster (`lower::fused`,
//! `lower::structural`), each `Free` ends a buffer's life (`lower::buffers`); then `allocate` gives the buffers their
//! places in the arena. What a step computes was decided before; here is decided only where its bytes are:
//!
//! * A value that is returned is computed straight into the output's own allocation. What cannot be (an input, a
//!   leaf, one value returned twice) is copied after the last step.
//! * An overwriting operation whose base dies there runs in the base's bytes (`simulate::base_taken`).
//! * An array of no elements takes no step and no bytes.
//! * Steps that make and read the same rows may run as one: `lower::joined`.
//! * Values that wait in a file are written and read while steps run: `lower::transfers`.
//!
//! Writing kernels takes long and playing the schedule does not, so of a long schedule a second thread writes the later
//! kernels: `lower::halves`.

mod axes;
pub(crate) mod buffers;
pub(crate) mod fused;
mod halves;
pub(crate) mod joined;
mod looped;
mod registers;
pub(crate) mod scratch;
mod structural;
pub(crate) mod transfers;

use std::ops::Range;

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, interrupt};
use smallvec::{SmallVec, smallvec};

use crate::cost::node_flops;
use crate::lower::buffers::{Buffers, place};
use crate::lower::fused::{Workspace, fused_kernel, is_fusible, iteration_node};
use crate::lower::halves::in_halves;
use crate::lower::joined::{join, part};
use crate::lower::looped::loop_kernel;
use crate::lower::scratch::scratch_alone;
use crate::lower::structural::{AddedStarts, as_copy, structural_kernel};
use crate::lower::transfers::Transfers;
use crate::program::{ArraySpec, BufferId, FusedKernel, Kernel, Load, Program, Source, Step, Store, Target};
use crate::schedule::{Action, Cluster, Schedule};
use crate::simulate::base_taken;
use crate::tables::{self, collected, filled, push};
use crate::two_threads;

/// Lowers a schedule of the graph's clusters for `target`.
pub fn lower(graph: &Graph, schedule: &Schedule, target: &Target) -> Result<Program> {
    if schedule.actions.len() != schedule.stores.len() {
        return Err(Error::internal("lower", "actions and stores differ in length"));
    }
    let last_store = last_stores(graph, schedule)?;
    let script = Script { graph, schedule, target, last_store: &last_store };
    let computes = schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
    let room = computes + graph.outputs.len();
    let offloads = schedule.actions.iter().any(|action| matches!(action, Action::Store(_)));
    let mut lowering = match two_threads::are_worth_it(target, computes) && !offloads {
        true => in_halves(&script, room)?,
        false => Lowering::of(&script, 0..schedule.actions.len(), room)?,
    };
    lowering.place_outputs()?;
    lowering.finish(target)
}

/// What is lowered.
pub(crate) struct Script<'a> {
    pub graph: &'a Graph,
    pub schedule: &'a Schedule,
    target: &'a Target,
    last_store: &'a [usize],
}

/// For each output the action that stores it last; for other nodes no action is late enough.
fn last_stores(graph: &Graph, schedule: &Schedule) -> Result<Vec<usize>> {
    let mut last = filled(usize::MAX, graph.len())?;
    let mut returned = filled(false, graph.len())?;
    for &output in &graph.outputs {
        returned[output.index()] = true;
    }
    for (index, stores) in schedule.stores.iter().enumerate() {
        for &node in stores.iter().filter(|node| returned[node.index()]) {
            last[node.index()] = index;
        }
    }
    Ok(last)
}

/// A schedule that has been played up to some action.
pub(crate) struct Lowering<'g> {
    graph: &'g Graph,
    target: &'g Target,
    buffers: Buffers<'g>,
    /// Number of steps so far, written or not.
    step: usize,
    /// Those whose kernels were written: the last ones.
    pub steps: Vec<Step>,
    pub starts: AddedStarts,
    workspace: Workspace,
    transfers: Transfers,
}

impl<'g> Lowering<'g> {
    /// Plays all actions up to the end of `written`, and writes the kernels of those. `room` is the number of steps to
    /// make room for.
    pub fn of(script: &Script<'g>, written: Range<usize>, room: usize) -> Result<Lowering<'g>> {
        let graph = script.graph;
        // Each is freed, but for those that are returned.
        let frees = script.schedule.actions.iter().filter(|action| matches!(action, Action::Free(_)));
        let values = frees.count() + graph.outputs.len();
        let mut lowering = Lowering {
            graph,
            target: script.target,
            buffers: Buffers::new(graph, values)?,
            step: 0,
            steps: tables::room(room)?,
            starts: AddedStarts::default(),
            workspace: Workspace::new(graph)?,
            transfers: Transfers::default(),
        };
        for index in 0..written.end {
            interrupt::check_at(index)?;
            lowering.play(script, index, written.contains(&index))?;
        }
        Ok(lowering)
    }

    fn play(&mut self, script: &Script<'g>, index: usize, write: bool) -> Result<()> {
        let (graph, schedule) = (script.graph, script.schedule);
        match schedule.actions[index] {
            Action::Compute(id) => {
                let cluster = schedule.clustering.clusters.get(id.0 as usize);
                let cluster =
                    cluster.ok_or_else(|| Error::internal("lower", format!("cluster {} does not exist", id.0)))?;
                let taken = base_taken(graph, schedule, index);
                let line = cluster.members.last().map_or(0, |&root| graph.attributes(root).line);
                let stores = &schedule.stores[index];
                let calls = cluster.members.iter().any(|&member| matches!(graph.op(member), Op::Call(_)));
                let freed = if calls { freed_after(schedule, index) } else { SmallVec::new() };
                self.end_transfers(cluster, taken, &freed)?;
                self.compute(cluster, stores, taken, write, &freed).map_err(|error| error.at_line(line))
            }
            // What is returned stays.
            Action::Free(value) if script.last_store[value.index()] <= index => Ok(()),
            Action::Free(value) => {
                self.transfers.written(value, self.step)?;
                self.buffers.free(value, self.step)
            }
            Action::Store(value) => {
                let buffer = self.buffers.of(value);
                let buffer =
                    buffer.ok_or_else(|| Error::internal("lower", format!("%{} is stored, not live", value.0)))?;
                self.transfers.store(value, buffer, graph.bytes(value), self.step)
            }
            Action::Load(value) => {
                let buffer = self.buffers.create(value, self.step)?;
                self.buffers.hold(value, buffer);
                self.transfers.load(value, buffer, self.step)
            }
        }
    }

    /// Ends the transfers of what the next step reads, and of what it may write over: a base, or what a loop is given.
    fn end_transfers(&mut self, cluster: &Cluster, taken: Option<NodeId>, freed: &[NodeId]) -> Result<()> {
        if self.transfers.is_empty() {
            return Ok(());
        }
        for &member in &cluster.members {
            self.graph.operands(member).iter().try_for_each(|&operand| self.transfers.read(operand, self.step))?;
        }
        taken.iter().chain(freed).try_for_each(|&value| self.transfers.written(value, self.step))
    }

    fn compute(
        &mut self,
        cluster: &Cluster,
        stores: &[NodeId],
        taken: Option<NodeId>,
        write: bool,
        freed: &[NodeId],
    ) -> Result<()> {
        let graph = self.graph;
        let root = graph.op(root(cluster)?);
        let mut born: SmallVec<[(NodeId, BufferId); 8]> = SmallVec::new();
        for &node in stores {
            if self.buffers.of(node).is_some() {
                return Err(Error::internal("lower", format!("%{} is stored while it is live", node.0)));
            }
            let reused = taken.filter(|&base| root.overwrites_base() && self.buffers.is_sole_owner(base));
            let buffer = match reused.and_then(|base| self.buffers.of(base)) {
                Some(buffer) => buffer,
                None => self.buffers.create(node, self.step)?,
            };
            born.push((node, buffer));
        }
        // An index out of range is an error whether or not there is anything at it.
        let checks = matches!(root, Op::Gather { .. } | Op::ScatterSet { .. } | Op::ScatterAdd { .. });
        if !checks && stores.iter().all(|&node| graph.elements(node) == 0) {
            self.hold(&born);
            return Ok(());
        }
        if write {
            let step = self.written(cluster, &born, freed)?;
            push(&mut self.steps, step)?;
        }
        self.step += 1;
        self.hold(&born);
        Ok(())
    }

    /// The step that computes `born` of the cluster, each into its buffer.
    fn written(&mut self, cluster: &Cluster, born: &[(NodeId, BufferId)], freed: &[NodeId]) -> Result<Step> {
        let graph = self.graph;
        if is_fusible(graph.op(root(cluster)?)) {
            let (kernel, flops) = fused_kernel(graph, cluster, born, &self.buffers, &mut self.workspace)?;
            let elements = |buffer| self.buffers.elements(buffer);
            let copy = as_copy(graph, &kernel, &mut self.starts, elements)?;
            let node = born.last().map_or_else(|| iteration_node(graph, cluster), |&(node, _)| Ok(node))?;
            return Ok(Step { kernel: copy.unwrap_or(Kernel::Fused(kernel)), node, flops, joined: false });
        }
        if let Op::Part(_) = graph.op(root(cluster)?) {
            let kernel = loop_kernel(graph, cluster, born, &self.buffers, self.target, |node| freed.contains(&node))?;
            let call = cluster.members[0];
            return Ok(Step { kernel, node: call, flops: node_flops(graph, call), joined: false });
        }
        let &[(node, buffer)] = born else {
            return Err(Error::internal("lower", "a structural kernel has one result"));
        };
        let kernel = structural_kernel(graph, node, buffer, &self.buffers)?;
        Ok(Step { kernel, node, flops: node_flops(graph, node), joined: false })
    }

    fn hold(&mut self, born: &[(NodeId, BufferId)]) {
        for &(node, buffer) in born {
            self.buffers.hold(node, buffer);
        }
    }

    /// Computed outputs are placed where they are returned; the others are copied.
    fn place_outputs(&mut self) -> Result<()> {
        let graph = self.graph;
        for (index, &node) in graph.outputs.iter().enumerate() {
            let index = index as u32;
            if self.buffers.claim_output(node, index) {
                continue;
            }
            let source = self.buffers.source(node);
            let source =
                source.ok_or_else(|| Error::internal("lower", format!("output %{} is not live at the end", node.0)))?;
            let buffer = self.buffers.create_output(node, index, self.step)?;
            let elements = graph.elements(node);
            if elements > 0 {
                let kernel = copy_kernel(source, graph.dtype(node), elements, buffer);
                let copy = as_copy(graph, &kernel, &mut self.starts, |_| elements)?;
                let kernel = copy.unwrap_or(Kernel::Fused(kernel));
                push(&mut self.steps, Step { kernel, node, flops: 0, joined: false })?;
                self.step += 1;
            }
        }
        Ok(())
    }

    fn finish(mut self, target: &Target) -> Result<Program> {
        let graph = self.graph;
        let spec = |&node: &NodeId| ArraySpec {
            dtype: graph.dtype(node),
            shape: graph.shape(node).iter().map(|&extent| extent as usize).collect(),
        };
        let mut buffers = self.buffers.finish(self.step);
        let mut scratch = scratch_alone(&self.steps, target);
        let asked = self.transfers.asked(buffers.len())?;
        let joined = join(&mut self.steps, &mut buffers, &asked, target)?;
        let mut arena_bytes = place(&self.steps, &mut buffers, target.alignment)?;
        if joined > scratch {
            // A run may need more for its blocks of rows than it saves.
            part(&mut self.steps, &mut buffers);
            let apart = place(&self.steps, &mut buffers, target.alignment)?;
            if apart + scratch < arena_bytes + joined {
                arena_bytes = apart;
            } else {
                scratch = join(&mut self.steps, &mut buffers, &asked, target)?;
                place(&self.steps, &mut buffers, target.alignment)?;
            }
        }
        Ok(Program {
            steps: self.steps,
            buffers,
            inputs: collected(graph.inputs.iter().map(spec))?,
            outputs: collected(graph.outputs.iter().map(spec))?,
            takeovers: Vec::new(),
            transfers: self.transfers.finish(),
            arena_bytes,
            scratch_bytes: scratch,
            scalars_added: (graph.scalars.len(), Vec::new()),
            starts_added: (graph.starts.len(), self.starts.values),
        })
    }
}

/// What is freed directly after an action: a loop may write over it.
fn freed_after(schedule: &Schedule, index: usize) -> SmallVec<[NodeId; 8]> {
    let frees = schedule.actions[index + 1..].iter().map_while(|action| match action {
        Action::Free(value) => Some(*value),
        Action::Compute(_) | Action::Store(_) | Action::Load(_) => None,
    });
    frees.collect()
}

fn root(cluster: &Cluster) -> Result<NodeId> {
    cluster.members.last().copied().ok_or_else(|| Error::internal("lower", "a cluster without members"))
}

fn copy_kernel(source: Source, dtype: DType, elements: usize, buffer: BufferId) -> FusedKernel {
    let stride = if matches!(source, Source::Buffer(_)) { 1 } else { 0 };
    FusedKernel {
        extents: smallvec![elements],
        loads: vec![Load { source, dtype, strides: smallvec![stride], offset: 0, starts: Vec::new(), register: 0 }],
        instructions: Vec::new(),
        stores: vec![Store { buffer, dtype, register: 0 }],
        reduce: None,
        registers: 1,
        overwrites: false,
    }
}

impl Program {
    /// Says how many scalars and starts of the graph were recorded: a run supplies those, and the program carries
    /// the ones that rules added behind them. Until it is called all of the graph's count as recorded.
    pub fn set_recorded(&mut self, graph: &Graph, scalars: usize, starts: usize) -> Result<()> {
        // Lowering's own starts stand behind all of the graph's.
        let of_graph = graph.starts.len().saturating_sub(self.starts_added.0);
        let own = self.starts_added.1.get(of_graph..);
        let (Some(scalars_added), Some(starts_added), Some(own)) =
            (graph.scalars.get(scalars..), graph.starts.get(starts..), own)
        else {
            return Err(Error::internal("lower", "more scalars or starts were recorded than the graph has"));
        };
        self.starts_added = (starts, collected(starts_added.iter().chain(own).copied())?);
        self.scalars_added = (scalars, collected(scalars_added.iter().copied())?);
        Ok(())
    }
}
