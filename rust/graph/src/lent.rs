//! A graph that is read: the caller's, or one made of it where that was needed.

use std::ops::Deref;

use crate::{Graph, Result};

/// `Cow` would copy with no way to refuse.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one of them at a time, on the stack")]
pub enum Lent<'g> {
    Borrowed(&'g Graph),
    Owned(Graph),
}

impl Deref for Lent<'_> {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        match self {
            Lent::Borrowed(graph) => graph,
            Lent::Owned(graph) => graph,
        }
    }
}

impl Lent<'_> {
    /// The graph to keep: a copy of the caller's.
    pub fn into_owned(self) -> Result<Graph> {
        match self {
            Lent::Borrowed(graph) => graph.copied(),
            Lent::Owned(graph) => Ok(graph),
        }
    }
}
