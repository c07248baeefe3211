//! Schedule in, program out: kernels over buffers whose bytes are known.
//!
//! `lower` plays the schedule once. Each `Compute` becomes the kernel of its cluster (`lower_fused`,
//! `lower_structural`), each `Free` ends a buffer's life (`lower_buffers`); then `allocate` gives the buffers their
//! places in the arena. What a step computes was decided before; here is decided only where its bytes are:
//!
//! * A value that is returned is computed straight into the output's own allocation. What cannot be (an input, a
//!   leaf, one value returned twice) is copied after the last step.
//! * An overwriting operation whose base dies there runs in the base's bytes (`simulate::base_taken`).
//! * An array of no elements takes no step and no bytes.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, interrupt};
use smallvec::{SmallVec, smallvec};

use crate::cost::node_flops;
use crate::lower_buffers::Buffers;
use crate::lower_fused::{Workspace, fused_kernel, is_fusible, iteration_node};
use crate::lower_structural::{AddedStarts, as_copy, structural_kernel};
use crate::program::{ArraySpec, BufferId, FusedKernel, Kernel, Load, Program, Source, Step, Store, Target};
use crate::schedule::{Action, Cluster, Schedule};
use crate::simulate::base_taken;
use crate::tables::{filled, push, room};

/// Lowers a schedule of the graph's clusters for `target`.
pub fn lower(graph: &Graph, schedule: &Schedule, target: &Target) -> Result<Program> {
    if schedule.actions.len() != schedule.stores.len() {
        return Err(Error::internal("lower", "actions and stores differ in length"));
    }
    let last_store = last_stores(graph, schedule)?;
    let computes = schedule.actions.iter().filter(|action| matches!(action, Action::Compute(_))).count();
    let mut lowering = Lowering {
        graph,
        buffers: Buffers::new(graph)?,
        steps: room(computes + graph.outputs.len())?,
        starts: AddedStarts::default(),
        workspace: Workspace::new(graph)?,
    };
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
        match *action {
            Action::Compute(id) => {
                let cluster = schedule.clustering.clusters.get(id.0 as usize);
                let cluster =
                    cluster.ok_or_else(|| Error::internal("lower", format!("cluster {} does not exist", id.0)))?;
                let line = cluster.members.last().map_or(0, |&root| graph.attributes(root).line);
                let taken = base_taken(graph, schedule, index);
                lowering.compute(cluster, &schedule.stores[index], taken).map_err(|error| error.at_line(line))?;
            }
            // What is returned stays.
            Action::Free(value) if last_store[value.index()] <= index => {}
            Action::Free(value) => lowering.buffers.free(value, lowering.steps.len())?,
        }
    }
    let copies_from = lowering.steps.len() as u32;
    lowering.place_outputs()?;
    lowering.finish(copies_from, target)
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

struct Lowering<'g> {
    graph: &'g Graph,
    buffers: Buffers<'g>,
    steps: Vec<Step>,
    starts: AddedStarts,
    workspace: Workspace,
}

impl Lowering<'_> {
    fn compute(&mut self, cluster: &Cluster, stores: &[NodeId], taken: Option<NodeId>) -> Result<()> {
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
                None => self.buffers.create(node, self.steps.len())?,
            };
            born.push((node, buffer));
        }
        // An index out of range is an error whether or not there is anything at it.
        let checks = matches!(root, Op::Gather { .. } | Op::ScatterSet { .. } | Op::ScatterAdd { .. });
        if !checks && stores.iter().all(|&node| graph.elements(node) == 0) {
            self.hold(&born);
            return Ok(());
        }
        let step = if is_fusible(root) {
            let (kernel, flops) = fused_kernel(graph, cluster, &born, &self.buffers, &mut self.workspace)?;
            let elements = |buffer| self.buffers.elements(buffer);
            let copy = as_copy(graph, &kernel, &mut self.starts, elements);
            let node = stores.last().copied().map_or_else(|| iteration_node(graph, cluster), Ok)?;
            Step { kernel: copy.unwrap_or(Kernel::Fused(kernel)), node, flops }
        } else {
            let &[(node, buffer)] = born.as_slice() else {
                return Err(Error::internal("lower", "a structural kernel has one result"));
            };
            let kernel = structural_kernel(graph, node, buffer, &self.buffers)?;
            Step { kernel, node, flops: node_flops(graph, node) }
        };
        push(&mut self.steps, step)?;
        self.hold(&born);
        Ok(())
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
            let buffer = self.buffers.create_output(node, index, self.steps.len())?;
            let elements = graph.elements(node);
            if elements > 0 {
                let kernel = copy_kernel(source, graph.dtype(node), elements, buffer);
                let kernel = as_copy(graph, &kernel, &mut self.starts, |_| elements).unwrap_or(Kernel::Fused(kernel));
                push(&mut self.steps, Step { kernel, node, flops: 0 })?;
            }
        }
        Ok(())
    }

    fn finish(self, copies_from: u32, target: &Target) -> Result<Program> {
        let graph = self.graph;
        let spec = |&node: &NodeId| ArraySpec {
            dtype: graph.dtype(node),
            shape: graph.shape(node).iter().map(|&extent| extent as usize).collect(),
        };
        let scratch = self.steps.iter().map(|step| (target.scratch)(&step.kernel, target.threads)).max();
        let (buffers, arena_bytes) = self.buffers.finish(self.steps.len(), target.alignment)?;
        Ok(Program {
            steps: self.steps,
            buffers,
            inputs: graph.inputs.iter().map(spec).collect(),
            outputs: graph.outputs.iter().map(spec).collect(),
            arena_bytes,
            scratch_bytes: scratch.unwrap_or(0),
            scalars_added: (graph.scalars.len(), Vec::new()),
            starts_added: (graph.starts.len(), self.starts.values),
            copies_from,
        })
    }
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
        self.starts_added = (starts, [starts_added, own].concat());
        self.scalars_added = (scalars, scalars_added.to_vec());
        Ok(())
    }
}
