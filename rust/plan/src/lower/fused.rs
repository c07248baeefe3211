//! The fused kernel of a cluster: which memory it loads, what it computes, what it leaves behind.
//!
//! Only what the wanted stores need is computed, so one cluster serves the first run and every recomputation.
//! An operand that lies in memory is loaded; a chain of views over such memory becomes the load's strides; a member
//! of the cluster is a register.

use ckad_graph::{DType, Error, Graph, ListId, NodeId, Op, Result};
use smallvec::{SmallVec, smallvec};

use crate::cost::node_flops;
use crate::lower::axes::collapse;
use crate::lower::buffers::Buffers;
use crate::lower::registers::{Assignment, Value};
use crate::program::{BufferId, Extents, Flags, FusedKernel, Instruction, Load, Reduction, Source, Store, TileOp};
use crate::schedule::Cluster;
use crate::tables::{filled, push, room};
use crate::view::{Strides, View, broadcast_strides, compose, is_view, packed_strides};

/// The node whose shape a cluster iterates over: a reduction's operand, or the root itself.
pub(crate) fn iteration_node(graph: &Graph, cluster: &Cluster) -> Result<NodeId> {
    let root = cluster.members.last().copied().ok_or_else(|| Error::internal("lower", "a cluster without members"))?;
    // Members that nothing in the cluster reads may stand behind the reduction.
    let reduction = cluster.members.iter().rev().find(|&&member| matches!(graph.op(member), Op::Reduce { .. }));
    Ok(reduction.and_then(|&member| graph.operands(member).first().copied()).unwrap_or(root))
}

/// What is known of a node while one kernel is written.
#[derive(Clone, Copy)]
struct Note {
    /// Its index among the members.
    member: Option<u32>,
    origin: Option<Origin>,
}

/// Where the note of a node is.
#[derive(Clone, Copy)]
struct NotePlace {
    /// The kernel that it was written for; older ones count for nothing.
    kernel: u32,
    index: u32,
}

/// Tables that one kernel after another uses: most kernels are small, and maps of their own would cost more than all
/// the rest.
pub(crate) struct Workspace {
    /// By node: small, as a large graph has millions.
    places: Vec<NotePlace>,
    notes: Vec<Note>,
    kernel: u32,
    loads: Vec<Load>,
    drafts: Vec<Draft>,
    assignment: Assignment,
    /// By member, whether it is computed.
    needed: Vec<bool>,
    /// By member, its value once it has one.
    values: Vec<Option<Value>>,
    /// Where the operands of computed members come from: those of the last member first.
    origins: Vec<Origin>,
}

impl Workspace {
    pub fn new(graph: &Graph) -> Result<Workspace> {
        Ok(Workspace {
            places: filled(NotePlace { kernel: 0, index: 0 }, graph.len())?,
            notes: Vec::new(),
            kernel: 0,
            loads: Vec::new(),
            drafts: Vec::new(),
            assignment: Assignment::default(),
            needed: Vec::new(),
            values: Vec::new(),
            origins: Vec::new(),
        })
    }

    /// The notes of another kernel begin.
    fn begin(&mut self, members: &[NodeId]) {
        self.kernel += 1;
        self.notes.clear();
        self.loads.clear();
        self.drafts.clear();
        self.needed.clear();
        self.needed.resize(members.len(), false);
        self.values.clear();
        self.values.resize(members.len(), None);
        self.origins.clear();
        for (&member, number) in members.iter().zip(0..) {
            self.add_note(member, Note { member: Some(number), origin: None });
        }
    }

    /// The first note of a node.
    fn add_note(&mut self, node: NodeId, note: Note) {
        self.places[node.index()] = NotePlace { kernel: self.kernel, index: self.notes.len() as u32 };
        self.notes.push(note);
    }

    fn set_origin(&mut self, node: NodeId, origin: Origin) {
        let place = self.places[node.index()];
        if place.kernel == self.kernel {
            self.notes[place.index as usize].origin = Some(origin);
        } else {
            self.add_note(node, Note { member: None, origin: Some(origin) });
        }
    }

    fn known(&self, node: NodeId) -> Option<&Note> {
        let place = self.places[node.index()];
        (place.kernel == self.kernel).then(|| &self.notes[place.index as usize])
    }
}

/// The kernel that computes `stores` of the cluster, each into its buffer; and its operations.
pub(crate) fn fused_kernel(
    graph: &Graph,
    cluster: &Cluster,
    stores: &[(NodeId, BufferId)],
    buffers: &Buffers<'_>,
    workspace: &mut Workspace,
) -> Result<(FusedKernel, u64)> {
    let iteration = iteration_node(graph, cluster)?;
    workspace.begin(&cluster.members);
    let (id, shape) = (graph.node(iteration).shape, graph.shape(iteration));
    let mut body = Body { graph, buffers, id, shape, viewed: false, workspace };
    let mut reduced: Flags = smallvec![false; body.shape.len()];
    let mut reduction = None;
    let mut wanted: SmallVec<[NodeId; 16]> = SmallVec::new();
    for &(node, buffer) in stores {
        match graph.op(node) {
            Op::Reduce { .. } if reduction.is_some() => {
                return Err(Error::internal("lower", "a cluster of two reductions"));
            }
            Op::Reduce { kind, axes } => {
                for &axis in graph.lists.get(axes) {
                    reduced[axis as usize] = true;
                }
                wanted.push(iteration);
                reduction = Some((kind, graph.dtype(iteration), buffer, node));
            }
            _ if graph.node(node).shape == body.id => wanted.push(node),
            _ => {
                return Err(Error::internal("lower", format!("%{} has not its cluster's shape", node.0)));
            }
        }
    }
    body.need(&cluster.members, &wanted)?;
    let mut flops = reduction.map_or(0, |(_, _, _, node)| node_flops(graph, node));
    for (index, &member) in cluster.members.iter().enumerate() {
        if !body.workspace.needed[index] {
            continue;
        }
        flops = flops.saturating_add(node_flops(graph, member));
        let operands = graph.operands(member);
        let dtype = operands.last().map_or(graph.dtype(member), |&operand| graph.dtype(operand));
        let op = match graph.op(member) {
            Op::Elementwise(id) => Some(TileOp::Elementwise(id)),
            Op::Cast if dtype != graph.dtype(member) => Some(TileOp::Cast),
            Op::RandomBits => Some(TileOp::RandomBits),
            _ => None,
        };
        let arguments = body.arguments(member)?;
        let value = match (op, arguments.get()) {
            (Some(op), _) => {
                let drafts = &mut body.workspace.drafts;
                drafts.push(Draft { op, dtype, result_dtype: graph.dtype(member), arguments });
                (body.workspace.loads.len() + drafts.len() - 1) as Value
            }
            (None, &[argument]) => argument,
            (None, _) => return Err(body.misplaced(member)),
        };
        body.workspace.values[index] = Some(value);
    }
    let kept = wanted.iter().map(|&node| body.value(node)).collect::<Result<SmallVec<[Value; 16]>>>()?;
    let Workspace { drafts, loads, assignment, .. } = body.workspace;
    assignment.assign(loads.len(), drafts.iter().map(|draft| draft.arguments.get()), &kept)?;
    let register = |value: Value| assignment.registers[value as usize];
    let mut instructions: Vec<Instruction> = room(drafts.len())?;
    instructions.extend(drafts.iter().zip(&assignment.registers[loads.len()..]).map(|(draft, &result)| Instruction {
        op: draft.op,
        dtype: draft.dtype,
        result_dtype: draft.result_dtype,
        result,
        operands: draft.arguments.values.map(register),
    }));
    let mut extents: Extents = body.shape.iter().map(|&extent| extent as usize).collect();
    collapse(&mut extents, &mut reduced, loads);
    for (index, load) in loads.iter_mut().enumerate() {
        load.register = register(index as Value);
    }
    let mut kernel = FusedKernel {
        extents,
        loads: room(loads.len())?,
        instructions,
        stores: room(stores.len() - usize::from(reduction.is_some()))?,
        reduce: None,
        registers: assignment.count,
        overwrites: false,
    };
    for (&(node, buffer), &value) in stores.iter().zip(&kept) {
        let (dtype, register) = (graph.dtype(node), register(value));
        match reduction {
            Some((kind, dtype, into, _)) if into == buffer && reduced.contains(&true) => {
                kernel.reduce = Some(Reduction { kind, reduced: reduced.clone(), dtype, register, buffer });
            }
            // A reduction over axes of one element is its operand.
            _ => push(&mut kernel.stores, Store { buffer, dtype, register })?,
        }
    }
    kernel.loads.append(loads);
    Ok((kernel, flops))
}

/// An instruction over values, before registers.
struct Draft {
    op: TileOp,
    dtype: DType,
    result_dtype: DType,
    arguments: Arguments,
}

/// The operands of an instruction; no operation of a fused kernel has more than three. Slots beyond the arity repeat
/// the first operand: none of them is then the result.
#[derive(Default)]
struct Arguments {
    values: [Value; 3],
    count: usize,
}

impl Arguments {
    fn get(&self) -> &[Value] {
        &self.values[..self.count]
    }
}

/// Where an operand comes from.
#[derive(Clone, Copy)]
enum Origin {
    Load(Value),
    /// A member, by index.
    Member(u32),
}

struct Body<'a, 'g> {
    graph: &'g Graph,
    buffers: &'a Buffers<'g>,
    /// The iteration shape.
    id: ListId,
    shape: &'g [i64],
    /// Whether something is loaded through views: by chance that may be another load.
    viewed: bool,
    workspace: &'a mut Workspace,
}

impl Body<'_, '_> {
    fn misplaced(&self, node: NodeId) -> Error {
        let what =
            format!("%{} ({:?}) can be neither loaded nor computed in this cluster", node.0, self.graph.op(node));
        Error::internal("lower", what).at_line(self.graph.attributes(node).line)
    }

    /// The index of a node among the members, if it is one.
    fn member(&self, node: NodeId) -> Option<u32> {
        self.workspace.known(node)?.member
    }

    /// Notes which members must be computed for `wanted`; finds the loads on the way.
    fn need(&mut self, members: &[NodeId], wanted: &[NodeId]) -> Result<()> {
        for &node in wanted {
            if let Origin::Member(member) = self.origin(node)? {
                self.workspace.needed[member as usize] = true;
            }
        }
        for (index, &member) in members.iter().enumerate().rev() {
            if !self.workspace.needed[index] {
                continue;
            }
            if self.graph.op(member) == Op::RandomBits {
                let index = self.index();
                push(&mut self.workspace.origins, index)?;
            }
            for &operand in self.graph.operands(member) {
                let origin = self.origin(operand)?;
                if let Origin::Member(member) = origin {
                    self.workspace.needed[member as usize] = true;
                }
                push(&mut self.workspace.origins, origin)?;
            }
        }
        Ok(())
    }

    /// The operands of the next member that is computed, from the first on.
    fn arguments(&mut self, member: NodeId) -> Result<Arguments> {
        // Random bits are drawn by place, which is no operand of the node.
        let count = self.graph.operands(member).len() + usize::from(self.graph.op(member) == Op::RandomBits);
        let mut arguments = Arguments { values: [0; 3], count };
        let origins = &self.workspace.origins;
        let first = origins.len().checked_sub(arguments.count).filter(|_| arguments.count <= arguments.values.len());
        let first = first.ok_or_else(|| self.misplaced(member))?;
        for (value, origin) in arguments.values.iter_mut().zip(&origins[first..]) {
            *value = match *origin {
                Origin::Load(load) => load,
                Origin::Member(other) => self.workspace.values[other as usize].ok_or_else(|| self.misplaced(member))?,
            };
        }
        let repeated = arguments.values[0];
        arguments.values[arguments.count..].fill(repeated);
        self.workspace.origins.truncate(first);
        Ok(arguments)
    }

    fn value(&self, node: NodeId) -> Result<Value> {
        let value = match self.workspace.known(node).and_then(|note| note.origin) {
            Some(Origin::Load(load)) => Some(load),
            Some(Origin::Member(member)) => self.workspace.values[member as usize],
            None => None,
        };
        value.ok_or_else(|| self.misplaced(node))
    }

    fn origin(&mut self, node: NodeId) -> Result<Origin> {
        let note = self.workspace.known(node).copied();
        if let Some(origin) = note.and_then(|note| note.origin) {
            return Ok(origin);
        }
        let origin = self.find_origin(node, note.and_then(|note| note.member))?;
        self.workspace.set_origin(node, origin);
        Ok(origin)
    }

    fn find_origin(&mut self, node: NodeId, member: Option<u32>) -> Result<Origin> {
        match self.buffers.source(node) {
            Some(source @ (Source::Literal(_) | Source::Scalar(_))) => return Ok(self.scalar(source, node)),
            Some(source) => return self.whole(source, node),
            None => {
                if let Some(member) = member.filter(|_| self.is_register(node)) {
                    return Ok(Origin::Member(member));
                }
            }
        }
        // A view is followed until something lies in memory; what is live now holds the value meant.
        let view = compose(self.graph, node, self.shape, |view| self.buffers.source(view).is_none());
        let view = view.ok_or_else(|| self.misplaced(node))?;
        let foot = view.foot;
        match (self.buffers.source(foot), self.graph.op(foot)) {
            (Some(source @ (Source::Literal(_) | Source::Scalar(_))), _) => Ok(self.scalar(source, foot)),
            (Some(source), _) => Ok(self.load(source, view)),
            (None, Op::Iota { axis }) if self.member(foot).is_some() => {
                let view = self.index_view(view, usize::from(axis)).ok_or_else(|| self.misplaced(node))?;
                Ok(self.load(Source::Index, view))
            }
            (None, _) => match self.register(foot) {
                Some(member) if self.is_identity(&view) => Ok(Origin::Member(member)),
                _ => Err(self.misplaced(node)),
            },
        }
    }

    /// The load of a scalar leaf, one for all that read it, directly or through views.
    fn scalar(&mut self, source: Source, foot: NodeId) -> Origin {
        if let Some(origin) = self.workspace.known(foot).and_then(|note| note.origin) {
            return origin;
        }
        let (dtype, strides) = (self.graph.dtype(foot), smallvec![0; self.shape.len()]);
        let loads = &mut self.workspace.loads;
        loads.push(Load { source, dtype, strides, offset: 0, starts: Vec::new(), register: 0 });
        let origin = Origin::Load((loads.len() - 1) as Value);
        self.workspace.set_origin(foot, origin);
        origin
    }

    /// The place of each element in the iteration, one load for all that ask.
    fn index(&mut self) -> Origin {
        let mut strides = packed_strides(self.shape);
        self.still_where_alone(&mut strides);
        self.viewed = true;
        let (source, dtype) = (Source::Index, DType::U64);
        self.add_load(Load { source, dtype, strides, offset: 0, starts: Vec::new(), register: 0 })
    }

    /// The load of a value that lies in memory under its own shape, which broadcasts.
    fn whole(&mut self, source: Source, node: NodeId) -> Result<Origin> {
        let mut strides = match (self.graph.node(node).shape == self.id, self.shape) {
            (true, []) => Strides::new(),
            (true, [_]) => smallvec![1],
            _ => broadcast_strides(self.graph.shape(node), self.shape).ok_or_else(|| self.misplaced(node))?,
        };
        self.still_where_alone(&mut strides);
        let dtype = self.graph.dtype(node);
        Ok(self.add_load(Load { source, dtype, strides, offset: 0, starts: Vec::new(), register: 0 }))
    }

    /// Axes of one element need no stride.
    fn still_where_alone(&self, strides: &mut Strides) {
        for (stride, &extent) in strides.iter_mut().zip(self.shape) {
            if extent == 1 {
                *stride = 0;
            }
        }
    }

    /// A load, or the one there is that is equal to it. Different values lie in different memory.
    fn add_load(&mut self, load: Load) -> Origin {
        let loads = &mut self.workspace.loads;
        let equal = if self.viewed { loads.iter().position(|other| *other == load) } else { None };
        let index = equal.unwrap_or_else(|| {
            loads.push(load);
            loads.len() - 1
        });
        Origin::Load(index as Value)
    }

    /// Whether a member is computed at every point of the iteration.
    fn is_register(&self, node: NodeId) -> bool {
        let computed = matches!(self.graph.op(node), Op::Elementwise(_) | Op::Cast | Op::StopGradient | Op::RandomBits);
        computed && self.graph.node(node).shape == self.id
    }

    /// The member's index, if `node` is computed by this cluster at every point of the iteration.
    fn register(&self, node: NodeId) -> Option<u32> {
        self.member(node).filter(|_| self.is_register(node))
    }

    fn is_identity(&self, view: &View) -> bool {
        let packed = packed_strides(self.shape);
        let same = view.strides.iter().zip(packed).zip(self.shape).all(|((&a, b), &extent)| a == b || extent == 1);
        same && view.offset == 0 && view.starts.is_empty()
    }

    /// The coordinate along `axis` of an iota, as an affine function of the iteration.
    fn index_view(&self, view: View, axis: usize) -> Option<View> {
        let shape = self.graph.shape(view.foot);
        if shape.iter().enumerate().all(|(other, &extent)| other == axis || extent == 1) {
            // Its flat memory is 0, 1, 2, ….
            return Some(view);
        }
        if !view.starts.is_empty() || view.offset != 0 {
            return None;
        }
        // Each axis of the iteration must move along whole axes of the iota: broadcasts and permutations do.
        let packed = packed_strides(shape);
        let mut used = vec![false; shape.len()];
        let mut strides: Strides = smallvec![0; view.strides.len()];
        for (position, (&stride, &extent)) in view.strides.iter().zip(self.shape).enumerate() {
            if stride == 0 || extent <= 1 {
                continue;
            }
            let along = (0..shape.len()).find(|&own| packed[own] == stride && shape[own] == extent && !used[own])?;
            used[along] = true;
            strides[position] = i64::from(along == axis);
        }
        Some(View { strides, ..view })
    }

    /// The load of `view`, one for all its users.
    fn load(&mut self, source: Source, mut view: View) -> Origin {
        self.still_where_alone(&mut view.strides);
        let dtype = self.graph.dtype(view.foot);
        let starts: Vec<u32> = view.starts.iter().map(|start| start.0).collect();
        self.viewed = true;
        self.add_load(Load { source, dtype, strides: view.strides, offset: view.offset, starts, register: 0 })
    }
}

/// Whether a node's kernel is a fused one even where it is alone in its cluster.
pub(crate) fn is_fusible(op: Op) -> bool {
    let fused = matches!(op, Op::Elementwise(_) | Op::Cast | Op::StopGradient | Op::Iota { .. } | Op::RandomBits);
    fused || is_view(op) || matches!(op, Op::Reduce { .. })
}
