//! The one way in which nodes come into being: a [`Builder`] infers dtype and shape, then appends.
//!
//! Each primitive adds its constructor (`builder.reshape(x, shape)`, …) in its own file. Derivative rules are
//! written with [`Expr`], a node of a builder on which Rust's operators record; a rule reads like its formula.

use std::cell::{Cell, Ref, RefCell, RefMut};

use ckad_graph::{Attributes, DType, Error, Graph, ListId, NodeId, Op, Result};

/// Appends nodes to a graph that it owns until `finish`.
#[derive(Debug)]
pub struct Builder {
    graph: RefCell<Graph>,
    /// Given to every node appended from now on.
    attributes: Cell<Attributes>,
    /// The first error met inside an expression; rules cannot return it themselves.
    error: RefCell<Option<Error>>,
}

impl Builder {
    pub fn new(graph: Graph) -> Builder {
        Builder { graph: RefCell::new(graph), attributes: Cell::default(), error: RefCell::new(None) }
    }

    /// The graph, or the first error that an expression met.
    pub fn finish(self) -> Result<Graph> {
        match self.error.into_inner() {
            Some(error) => Err(error),
            None => Ok(self.graph.into_inner()),
        }
    }

    #[inline]
    pub fn graph(&self) -> Ref<'_, Graph> {
        self.graph.borrow()
    }

    #[inline]
    pub fn graph_mut(&self) -> RefMut<'_, Graph> {
        self.graph.borrow_mut()
    }

    #[inline]
    pub fn attributes(&self) -> Attributes {
        self.attributes.get()
    }

    #[inline]
    pub fn set_attributes(&self, attributes: Attributes) {
        self.attributes.set(attributes);
    }

    /// Appends without inference: for the constructors in this crate, which have inferred.
    pub fn push(&self, op: Op, operands: &[NodeId], dtype: DType, shape: &[i64]) -> Result<NodeId> {
        let mut graph = self.graph.borrow_mut();
        let shape = graph.lists.intern(shape)?;
        graph.push(op, operands, dtype, shape, self.attributes.get())
    }

    #[inline]
    pub fn intern(&self, list: &[i64]) -> Result<ListId> {
        self.graph.borrow_mut().lists.intern(list)
    }

    pub fn shape(&self, id: NodeId) -> Vec<i64> {
        self.graph.borrow().shape(id).to_vec()
    }

    #[inline]
    pub fn dtype(&self, id: NodeId) -> DType {
        self.graph.borrow().dtype(id)
    }

    pub fn expr(&self, id: NodeId) -> Expr<'_> {
        Expr { builder: self, id }
    }

    /// The first error met by an expression since the last call.
    #[inline]
    pub fn take_error(&self) -> Result<()> {
        if self.error.borrow().is_none() {
            return Ok(());
        }
        self.error.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Unwraps inside an expression: remembers the error, and goes on with `stand_in`.
    pub(crate) fn settle(&self, result: Result<NodeId>, stand_in: NodeId) -> Expr<'_> {
        let id = result.unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            stand_in
        });
        Expr { builder: self, id }
    }
}

/// A node under construction: `(1.0 - y * y).lmul(t)` records three nodes.
#[derive(Clone, Copy, Debug)]
pub struct Expr<'b> {
    pub builder: &'b Builder,
    pub id: NodeId,
}
