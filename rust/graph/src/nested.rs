//! A walk over a graph with the bodies of its loops and branches, for whoever shows it.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::{Call, CallKind, Custom, Error, Graph, NodeId, Op, Result, interrupt, tables};

/// What the walk meets.
pub enum Visit<'a> {
    /// A node; of a loop or branch its bodies come next, unless they were met before.
    Node { graph: &'a Graph, id: NodeId, met_before: bool },
    /// A body of the node that was met last in the graph around it.
    Enter { graph: &'a Graph, node: NodeId, name: &'static str },
    /// The end of the graph or body that was entered last.
    Leave { graph: &'a Graph },
}

/// Where the walk is: how many bodies are around, and a number of the body's own; 0 and 0 for the graph itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Within {
    pub depth: usize,
    pub number: usize,
}

/// A graph on the way through it.
struct Level<'a> {
    graph: &'a Graph,
    next: u32,
    number: usize,
    /// The bodies of the node before `next`, from that one on.
    bodies: Option<(&'a Arc<Call>, usize)>,
}

/// Shows every node of the graph and of its bodies, each body once.
pub fn visit<'a>(op: &str, graph: &'a Graph, mut show: impl FnMut(Visit<'a>, Within) -> Result<()>) -> Result<()> {
    let mut met: FxHashSet<*const Call> = FxHashSet::default();
    let mut levels = tables::list(op, [Level { graph, next: 0, number: 0, bodies: None }])?;
    let (mut entered, mut walked) = (0, 0);
    while let Some(level) = levels.last_mut() {
        interrupt::check_at(walked)?;
        walked += 1;
        let graph = level.graph;
        if let Some((call, index)) = level.bodies {
            if let Some(body) = call.bodies.get(index) {
                level.bodies = Some((call, index + 1));
                let node = NodeId(level.next - 1);
                entered += 1;
                tables::push(op, &mut levels, Level { graph: body, next: 0, number: entered, bodies: None })?;
                let within = Within { depth: levels.len() - 1, number: entered };
                show(Visit::Enter { graph: body, node, name: call.kind.body_name(index) }, within)?;
                continue;
            }
            level.bodies = None;
        }
        let (id, number) = (NodeId(level.next), level.number);
        let within = Within { depth: levels.len() - 1, number };
        if id.index() == graph.len() {
            levels.pop();
            show(Visit::Leave { graph }, within)?;
            continue;
        }
        let call = graph.call(id).filter(|_| matches!(graph.op(id), Op::Call(_)));
        let met_before = match call {
            Some(call) => {
                met.try_reserve(1).map_err(|_| Error::memory(op, size_of::<*const Call>() * (met.len() + 1)))?;
                !met.insert(Arc::as_ptr(call))
            }
            None => false,
        };
        if let Some(level) = levels.last_mut() {
            level.next += 1;
            level.bodies = call.filter(|_| !met_before).map(|call| (call, 0));
        }
        show(Visit::Node { graph, id, met_before }, within)?;
    }
    Ok(())
}

impl CallKind {
    /// As the user calls what makes it.
    pub fn name(self) -> &'static str {
        match self {
            CallKind::Scan(_) => "scan",
            CallKind::While(_) => "while_loop",
            CallKind::Branch(_) => "cond",
            CallKind::Reverse(_) => "scan_again",
            CallKind::Rewind(_) => "while_loop_back",
            CallKind::Custom(Custom { forward: true, .. }) => "custom_jvp",
            CallKind::Custom(Custom { forward: false, .. }) => "custom_vjp",
            CallKind::Pullback(_) => "pullback",
        }
    }

    fn body_name(self, index: usize) -> &'static str {
        match (self, index) {
            (CallKind::While(_), 0) => "test",
            (CallKind::Branch(_), 0) => "if false",
            (CallKind::Branch(_), _) => "if true",
            (CallKind::Reverse(_) | CallKind::Rewind(_), 1) => "states anew",
            (CallKind::Custom(_) | CallKind::Pullback(_), _) => "rule",
            (CallKind::Scan(_) | CallKind::While(_) | CallKind::Reverse(_) | CallKind::Rewind(_), _) => "iteration",
        }
    }
}
