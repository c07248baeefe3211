//! What part each node plays in clusters: first step of clustering.
//!
//! The one decision here is about views. A view is *deferred* where all its users can load through it: it is
//! then no value, has no cluster of its own, and is a member of each cluster that reads it. It is *computed*, at
//! its own place, where an operation needs it in memory, where strides cannot express it, and where its base
//! is overwritten later: a deferred read would hold the base alive and turn each overwrite into a copy.

use ckad_graph::{Graph, NodeId, Op, Result, interrupt};

use crate::tables::{collected, filled};
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
}

pub(crate) struct Roles {
    roles: Vec<Role>,
    /// For each value, the first node that overwrites it; `None` in most places and for leaves, which nothing does.
    overwriter: Vec<Option<NodeId>>,
}

/// Longer chains of deferred views are cut, so that resolving one is quick.
const LONGEST_CHAIN: u8 = 8;

impl Roles {
    pub(crate) fn new(graph: &Graph) -> Result<Roles> {
        let mut needed = filled(false, graph.len())?;
        for output in &graph.outputs {
            needed[output.index()] = true;
        }
        let mut overwriter = filled(None, graph.len())?;
        for id in graph.ids().rev() {
            if !needed[id.index()] {
                continue;
            }
            for operand in graph.operands(id) {
                needed[operand.index()] = true;
            }
            if graph.op(id).overwrites_base() {
                let base = graph.operands(id)[0];
                overwriter[base.index()] = Some(id).filter(|_| !graph.op(base).is_leaf());
            }
        }
        let computed = computed_views(graph, &needed, &overwriter)?;
        let role = |id: NodeId| match graph.op(id) {
            _ if !needed[id.index()] => Role::Dead,
            op if op.is_leaf() => Role::Leaf,
            op if is_view(op) && !computed[id.index()] => Role::Deferred,
            op if is_fusable(op) => Role::Fused,
            Op::Reduce { .. } => Role::Reduce,
            _ => Role::Single,
        };
        Ok(Roles { roles: collected(graph.ids().map(role))?, overwriter })
    }

    #[inline]
    pub(crate) fn of(&self, node: NodeId) -> Role {
        self.roles[node.index()]
    }

    /// The first operation of the graph that overwrites this very value.
    pub(crate) fn overwriter(&self, node: NodeId) -> Option<NodeId> {
        self.overwriter[node.index()]
    }

    /// What a reader of `node` finds in memory: the end of its chain of deferred views.
    #[inline]
    pub(crate) fn foot(&self, graph: &Graph, mut node: NodeId) -> NodeId {
        while self.of(node) == Role::Deferred {
            node = graph.operands(node)[0];
        }
        node
    }
}

fn is_fusable(op: Op) -> bool {
    matches!(op, Op::Elementwise(_) | Op::Cast | Op::StopGradient | Op::Iota { .. }) || is_view(op)
}

fn computed_views(graph: &Graph, needed: &[bool], overwriter: &[Option<NodeId>]) -> Result<Vec<bool>> {
    let view = |id: NodeId| is_view(graph.op(id));
    let mut computed = filled(false, graph.len())?;
    for &output in &graph.outputs {
        computed[output.index()] = true;
    }
    // Views, at any depth, of a base that is overwritten.
    let mut endangered = filled(false, graph.len())?;
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let op = graph.op(id);
        if is_view(op) {
            let operand = graph.operands(id)[0];
            endangered[id.index()] = overwriter[operand.index()].is_some() || endangered[operand.index()];
            continue;
        }
        let in_memory = !is_fusable(op) && !matches!(op, Op::Reduce { .. });
        for operand in graph.operands(id) {
            computed[operand.index()] |= in_memory || endangered[operand.index()];
        }
    }
    let mut depth = filled(0u8, graph.len())?;
    for id in graph.ids().filter(|&id| needed[id.index()] && view(id)) {
        interrupt::check_at(id.index())?;
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
