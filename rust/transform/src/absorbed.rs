//! A derived graph that computes, in place of its results, where its products absorbed a number that is not finite.

use std::collections::BTreeMap;

use ckad_graph::{Graph, NodeId, Result, interrupt, tables};
use ckad_prim::{Builder, Expr};

use crate::copy::{Copy, derived};
use crate::extract;

/// The operation whose errors these are.
const OP: &str = "absorbed";

/// A graph of the same inputs whose outputs are bools.
#[derive(Debug)]
pub struct Absorbed {
    pub graph: Graph,
    /// The tape position of the operation that each output speaks of.
    pub positions: Vec<u32>,
}

pub fn absorbed(graph: &Graph) -> Result<Absorbed> {
    let mut target = derived(graph, 2)?;
    let mut copy = Copy::new(OP, graph)?;
    copy.inputs(&mut target, graph)?;
    let builder = Builder::new(target);
    let mut found: BTreeMap<u32, NodeId> = BTreeMap::new();
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let attributes = graph.attributes(id);
        let out = copy.node(&mut builder.graph_mut(), graph, id, attributes)?;
        builder.set_attributes(attributes);
        let operands = copy.all(graph.operands(id))?;
        let operands: Vec<Expr<'_>> = tables::list(OP, operands.into_iter().map(|operand| builder.expr(operand)))?;
        if let Some(here) = ckad_prim::absorbed(graph, id, &operands, builder.expr(out)) {
            // A forward operation and its transpose have one position.
            let earlier = found.get(&attributes.position).map(|&earlier| builder.expr(earlier));
            let both = earlier.map_or(here, |earlier| earlier.logical_or(here));
            found.insert(attributes.position, both.id);
        }
    }
    let positions = tables::list(OP, found.keys().copied())?;
    let outputs = tables::list(OP, found.into_values())?;
    Ok(Absorbed { graph: extract(&builder.finish()?, &outputs)?, positions })
}
