//! Operations that a trace recorded before on operands of the same shapes: what was inferred then is so again.

use std::sync::Arc;

use ckad_graph::{DType, ListId, NodeId, Op, ReduceKind, Result, tables};
use rustc_hash::FxHashMap;

use crate::layout::Layout;
use crate::tape::Tape;

/// What decides the operation and the shape of its result, where operands lie in C order of their nodes' shapes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repeated {
    /// Vectors and matrices; a matrix in F order is turned.
    Product { shapes: [ListId; 2], turned: [bool; 2] },
    /// Over all axes or one.
    Reduction { kind: ReduceKind, shape: ListId, axis: Option<u32>, keep_axes: bool },
}

/// The node that is recorded, and how its value lies; None for a scalar.
#[derive(Clone)]
struct Known {
    op: Op,
    shape: ListId,
    layout: Option<Arc<Layout>>,
}

/// A value that was recorded, and that Python is about to hold.
pub struct Plainly {
    pub node: NodeId,
    pub dtype: DType,
    /// None for a scalar.
    pub layout: Option<Arc<Layout>>,
}

/// What one tape recorded.
#[derive(Default)]
pub struct RepeatedOperations {
    known: FxHashMap<Repeated, Known>,
}

impl Tape {
    /// Appends the operation to the operands. The first time, `append` does it and `layout` says how the result lies.
    pub fn repeat(
        &mut self,
        what: Repeated,
        operands: &[NodeId],
        dtype: DType,
        append: impl FnOnce(&mut Tape) -> Result<NodeId>,
        layout: impl FnOnce() -> Option<Layout>,
    ) -> Result<(NodeId, Option<Arc<Layout>>)> {
        if let Some(Known { op, shape, layout }) = self.repeated.known.get(&what) {
            let attributes = self.builder.attributes();
            let node = self.builder.graph_mut().push(*op, operands, dtype, *shape, attributes)?;
            return Ok((node, layout.clone()));
        }
        let node = append(self)?;
        let layout = layout().map(Arc::new);
        let (op, shape) = {
            let graph = self.builder.graph();
            (graph.op(node), graph.node(node).shape)
        };
        tables::room_for_keys("record", &mut self.repeated.known, 1)?;
        self.repeated.known.insert(what, Known { op, shape, layout: layout.clone() });
        Ok((node, layout))
    }
}
