//! What part each node plays in clusters: first step of clustering.
//!
//! The one decision here is about views. A view is *deferred* where all its users can load through it: it is
//! then no value, has no cluster of its own, and is a member of each cluster that reads it. It is *computed*, at
//! its own place, where an operation needs it in memory, where strides cannot express it, and where its base
//! is overwritten later: a deferred read would hold the base alive and turn each overwrite into a copy.

use ckad_graph::{Graph, NodeId, Op, Result, interrupt};

use crate::tables::{filled, push};
use crate::view::{compose, is_view};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Reached from no output.
    Dead,
    Leaf,
    /// A view that its users read through.
    Deferred,
    /// An instruction of a fused group, or a view computed in one.
    Fused,
    Reduce,
    Single,
    /// A result of a call, computed with it.
    Part,
}

pub(crate) struct Roles {
    roles: Vec<Role>,
    /// Whether any node is deferred.
    defer: bool,
    /// For each value, the first node that overwrites it; `None` in most places and for leaves, which nothing does.
    /// Empty where nothing is overwritten.
    overwriter: Vec<Option<NodeId>>,
}

/// Who wants to know what computed nodes read.
pub(crate) trait Uses {
    /// A computed node reads an operand, which may be a view that turns out to be deferred.
    fn read(&mut self, reader: NodeId, operand: NodeId);
    /// What reads this view reads through it, what it finds at its foot.
    fn moved(&mut self, view: NodeId, foot: NodeId);
}

/// Longer chains of deferred views are cut, so that resolving one is quick.
const LONGEST_CHAIN: u8 = 8;

impl Roles {
    /// Tells `uses` of all that computed nodes read: from the last node to the first, views after all others.
    pub(crate) fn new(graph: &Graph, uses: &mut impl Uses) -> Result<Roles> {
        let mut overwriter: Vec<Option<NodeId>> = Vec::new();
        // A node is a leaf from its first reader on until its turn comes.
        let mut roles = filled(Role::Dead, graph.len())?;
        for output in &graph.outputs {
            roles[output.index()] = Role::Leaf;
        }
        // From the last to the first.
        let mut views: Vec<NodeId> = Vec::new();
        let mut in_memory: Vec<NodeId> = Vec::new();
        for id in graph.ids().rev() {
            interrupt::check_at(id.index())?;
            if roles[id.index()] == Role::Dead {
                continue;
            }
            let op = graph.op(id);
            if op.is_leaf() {
                continue;
            }
            let operands = graph.operands(id);
            for operand in operands {
                let role = &mut roles[operand.index()];
                *role = if *role == Role::Dead { Role::Leaf } else { *role };
            }
            roles[id.index()] = match op {
                _ if is_view(op) => {
                    push(&mut views, id)?;
                    Role::Deferred
                }
                _ if is_fusable(op) => Role::Fused,
                Op::Reduce { .. } => Role::Reduce,
                Op::Part(_) => Role::Part,
                _ => {
                    push(&mut in_memory, id)?;
                    Role::Single
                }
            };
            if !is_view(op) {
                operands.iter().for_each(|&operand| uses.read(id, operand));
            }
            if op.overwrites_base() {
                if overwriter.is_empty() {
                    overwriter = filled(None, graph.len())?;
                }
                overwriter[operands[0].index()] = Some(id).filter(|_| !graph.op(operands[0]).is_leaf());
            }
        }
        let mut roles = Roles { roles, defer: false, overwriter };
        if views.is_empty() {
            return Ok(roles);
        }
        let computed = computed_views(graph, &roles, &views, &in_memory)?;
        for &view in views.iter().filter(|view| computed[view.index()]) {
            roles.roles[view.index()] = Role::Fused;
        }
        for &view in &views {
            if computed[view.index()] {
                graph.operands(view).iter().for_each(|&operand| uses.read(view, operand));
            } else {
                roles.defer = true;
                uses.moved(view, roles.foot_of_view(graph, view));
            }
        }
        Ok(roles)
    }

    #[inline]
    pub(crate) fn of(&self, node: NodeId) -> Role {
        self.roles[node.index()]
    }

    /// The first operation of the graph that overwrites this very value.
    pub(crate) fn overwriter(&self, node: NodeId) -> Option<NodeId> {
        self.overwriter.get(node.index()).copied().flatten()
    }

    /// Whether any node is read through rather than computed.
    pub(crate) fn defer(&self) -> bool {
        self.defer
    }

    /// Whether any value is overwritten.
    pub(crate) fn overwrite(&self) -> bool {
        !self.overwriter.is_empty()
    }

    /// What a reader of `node` finds in memory: the end of its chain of deferred views.
    #[inline]
    pub(crate) fn foot(&self, graph: &Graph, node: NodeId) -> NodeId {
        if self.defer { self.foot_of_view(graph, node) } else { node }
    }

    fn foot_of_view(&self, graph: &Graph, mut node: NodeId) -> NodeId {
        while self.of(node) == Role::Deferred {
            node = graph.operands(node)[0];
        }
        node
    }
}

fn is_fusable(op: Op) -> bool {
    matches!(op, Op::Elementwise(_) | Op::Cast | Op::StopGradient | Op::Iota { .. } | Op::RandomBits) || is_view(op)
}

/// Which views are computed. `views` and `in_memory` are those that are needed, and the operations that read memory,
/// from the last to the first.
fn computed_views(graph: &Graph, roles: &Roles, views: &[NodeId], in_memory: &[NodeId]) -> Result<Vec<bool>> {
    let view = |id: NodeId| is_view(graph.op(id));
    let mut computed = filled(false, graph.len())?;
    for &read in in_memory.iter().flat_map(|&id| graph.operands(id)).chain(&graph.outputs) {
        computed[read.index()] = true;
    }
    if roles.overwrite() {
        read_in_danger(graph, roles, views, &mut computed)?;
    }
    let mut depth = filled(0u8, graph.len())?;
    for (index, &id) in views.iter().rev().enumerate() {
        interrupt::check_at(index)?;
        let operand = graph.operands(id)[0];
        let deferred = view(operand) && !computed[operand.index()];
        if deferred {
            let through = |node: NodeId| node == id || !computed[node.index()];
            let short = depth[operand.index()] < LONGEST_CHAIN;
            if short && compose(graph, id, graph.shape(id), through).is_some() {
                depth[id.index()] = depth[operand.index()] + 1;
                continue;
            }
            computed[operand.index()] = true;
        }
        depth[id.index()] = 1;
    }
    Ok(computed)
}

/// Notes what is read of views, at any depth, of a base that is overwritten.
fn read_in_danger(graph: &Graph, roles: &Roles, views: &[NodeId], computed: &mut [bool]) -> Result<()> {
    let mut endangered = filled(false, graph.len())?;
    let mut any = false;
    for &id in views.iter().rev() {
        let operand = graph.operands(id)[0];
        endangered[id.index()] = roles.overwriter(operand).is_some() || endangered[operand.index()];
        any |= endangered[id.index()];
    }
    if any {
        for id in graph.ids().filter(|&id| roles.of(id) != Role::Dead && !is_view(graph.op(id))) {
            let operands = graph.operands(id).iter();
            operands.for_each(|operand| computed[operand.index()] |= endangered[operand.index()]);
        }
    }
    Ok(())
}
