//! What becomes of a recorded graph: which transforms it goes through before it is spliced or built.

use ckad_graph::{Graph, Lent, Result};
use ckad_transform::Partition;

use crate::watching::is_watching;

/// What becomes of a recorded graph. The flags say which inputs are differentiated.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Evaluate,
    ValueAndGrad(Vec<bool>),
    Jvp(Vec<bool>),
    Linearize(Vec<bool>),
    Vjp(Vec<bool>),
    /// As it is, where the memory of some inputs is given up.
    Donating(Vec<bool>),
}

/// How a linearisation is split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// By what is known alone: both parts go into a trace, and are planned with it.
    Whole,
    /// The linear part owns what it reads, but for what regions do not keep.
    Keeping,
    /// It owns the arguments and computes all else again.
    Again,
}

/// What a recorded graph is transformed from. What nobody needs is left out by every transform, but it must not count
/// when splices are put in order.
fn live(graph: &Graph) -> Result<Lent<'_>> {
    if graph.splices.is_empty() {
        return Ok(Lent::Borrowed(graph));
    }
    ckad_transform::extract(graph, &graph.outputs).map(Lent::Owned)
}

/// A recorded graph as `jit` keeps it: without what nobody needs, in the order in which it is to be derived.
pub fn settled(graph: Graph) -> Result<Graph> {
    let graph = ckad_transform::extract(&graph, &graph.outputs)?;
    ckad_transform::settle(graph)
}

impl Kind {
    /// The graph that a kind of one graph runs.
    pub fn transform(&self, graph: &Graph) -> Result<Graph> {
        let graph = live(graph)?;
        let derived = match self {
            Kind::Evaluate | Kind::Donating(_) => ckad_transform::settle(graph.into_owned()?)?,
            Kind::ValueAndGrad(active) => ckad_transform::value_and_grad(&graph, active)?,
            Kind::Jvp(active) => ckad_transform::jvp(&graph, active)?,
            Kind::Linearize(active) => ckad_transform::linearize(&graph, active)?,
            Kind::Vjp(active) => ckad_transform::vjp(&graph, active)?,
        };
        // A product that is left out of the derivative cannot be watched.
        if is_watching() { ckad_transform::simplify_keeping_zeros(derived) } else { ckad_transform::simplify(derived) }
    }

    /// The two graphs of a linearisation: what is known at the point, and the linear rest.
    pub fn partition(&self, graph: &Graph, split: Split) -> Result<Partition> {
        let whole = match (self, split) {
            // Values and tangents go side by side: nothing of one waits for the other.
            (Kind::Linearize(active), Split::Again) => Kind::Jvp(active.clone()).transform(graph)?,
            _ => self.transform(graph)?,
        };
        let known: Vec<bool> = (0..whole.inputs.len()).map(|index| index < graph.inputs.len()).collect();
        match split {
            Split::Whole => ckad_transform::partition(&whole, &known),
            Split::Keeping => ckad_transform::partition_by_regions(&whole, &known),
            Split::Again => ckad_transform::compute_again(&Kind::Evaluate.transform(graph)?, &whole),
        }
    }
}
