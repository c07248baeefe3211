//! Splitting a graph by what is known first: `linearize` and `vjp` run the known part once and keep what the unknown
//! part reads, the residuals.
//!
//! Cheap coefficients that only the unknown part reads are computed there, as in a backward pass ([`crate::sink`]);
//! random values are drawn in both parts ([`crate::drawn`]).

use ckad_graph::{Attributes, Error, Graph, NodeId, Op, Result, interrupt, tables};

use crate::copy::{Copy, table};
use crate::drawn::drawn_again;
use crate::settle::settled;
use crate::sink::{Sinking, in_new_order, sinking};

/// Where an output of the whole graph is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// That output of `Partition::known`.
    Known(usize),
    /// That output of `Partition::unknown`.
    Unknown(usize),
}

/// A graph in two parts.
#[derive(Debug)]
pub struct Partition {
    /// The known inputs → the outputs that depend on nothing else, followed by the residuals.
    pub known: Graph,
    /// The residuals followed by the unknown inputs → all other outputs.
    pub unknown: Graph,
    /// For each output of the whole graph, where it is.
    pub outputs: Vec<Side>,
    /// How many outputs of `known` are residuals.
    pub residuals: usize,
}

impl Partition {
    /// Which outputs of `known` a linear function holds, where the first `values` outputs of the whole graph are the
    /// function's own values: the residuals, and results that are known.
    pub fn kept(&self, values: usize) -> impl Iterator<Item = usize> + '_ {
        kept(&self.outputs[values..], self.known.outputs.len(), self.residuals)
    }
}

/// As [`Partition::kept`]: of so many outputs, the last ones residuals, those that the linear function's own hold.
pub fn kept(linear: &[Side], outputs: usize, residuals: usize) -> impl Iterator<Item = usize> + '_ {
    let is_known = move |index: usize| linear.contains(&Side::Known(index));
    (0..outputs).filter(move |&index| index >= outputs - residuals || is_known(index))
}

/// Splits `graph` by dependence on the inputs that are not known.
pub fn partition(graph: &Graph, known_inputs: &[bool]) -> Result<Partition> {
    let source = settled(graph)?;
    let graph = &*source;
    if known_inputs.len() != graph.inputs.len() {
        let what = format!("{} flags for {} inputs", known_inputs.len(), graph.inputs.len());
        return Err(Error::internal("partition", what));
    }
    let mut unknown = table("partition", 0u16, graph.len())?;
    for (&input, _) in graph.inputs.iter().zip(known_inputs).filter(|(_, known)| !**known) {
        unknown[input.index()] = 1;
    }
    for id in graph.ids() {
        if graph.operands(id).iter().any(|operand| unknown[operand.index()] == 1) {
            unknown[id.index()] = 1;
        }
    }
    let Sinking { live, sunk, .. } = sinking("partition", graph, |id| unknown[id.index()])?;
    let late = |id: NodeId| unknown[id.index()] == 1 || sunk[id.index()];

    // Values that cross over, in the order of the graph.
    let mut crosses = table("partition", false, graph.len())?;
    for id in graph.ids().filter(|&id| live[id.index()] && late(id)) {
        for &operand in graph.operands(id) {
            crosses[operand.index()] |= !late(operand) && !is_free(graph.op(operand));
        }
    }
    let again = drawn_again("partition", graph, late, &mut crosses)?;
    let residuals: Vec<NodeId> = tables::list("partition", graph.ids().filter(|id| crosses[id.index()]))?;

    let mut known = graph.derived()?;
    let mut known_copy = Copy::new("partition", graph)?;
    for (&input, _) in graph.inputs.iter().zip(known_inputs).filter(|(_, known)| **known) {
        known_copy.input(&mut known, graph, input)?;
    }
    for id in graph.ids().filter(|&id| live[id.index()] && !late(id)) {
        interrupt::check_at(id.index())?;
        known_copy.node(&mut known, graph, id, graph.attributes(id))?;
    }

    let mut rest = graph.derived()?;
    let mut rest_copy = Copy::new("partition", graph)?;
    for &residual in &residuals {
        rest_copy.input(&mut rest, graph, residual)?;
    }
    for (&input, _) in graph.inputs.iter().zip(known_inputs).filter(|(_, known)| !**known) {
        rest_copy.input(&mut rest, graph, input)?;
    }
    let wanted = tables::list("partition", graph.ids().map(|id| live[id.index()] && late(id)))?;
    let moved = tables::list("partition", graph.ids().map(|id| sunk[id.index()] || again[id.index()]))?;
    in_new_order("partition", graph, &wanted, &moved, |id, place| {
        for &operand in graph.operands(id) {
            if rest_copy.get(operand).is_none() && is_free(graph.op(operand)) {
                rest_copy.node(&mut rest, graph, operand, graph.attributes(operand))?;
            }
        }
        let Attributes { pass, position, .. } = graph.attributes(place);
        rest_copy.node(&mut rest, graph, id, Attributes { pass, position, ..graph.attributes(id) })?;
        Ok(())
    })?;

    let mut outputs = tables::room("partition", graph.outputs.len())?;
    for &output in &graph.outputs {
        if late(output) {
            outputs.push(Side::Unknown(rest.outputs.len()));
            tables::push("partition", &mut rest.outputs, rest_copy.of(output)?)?;
        } else {
            outputs.push(Side::Known(known.outputs.len()));
            tables::push("partition", &mut known.outputs, known_copy.of(output)?)?;
        }
    }
    tables::extend("partition", &mut known.outputs, known_copy.all(&residuals)?)?;
    Ok(Partition { known, unknown: rest, outputs, residuals: residuals.len() })
}

/// Leaves that every graph can have for itself.
fn is_free(op: Op) -> bool {
    op.is_leaf() && !matches!(op, Op::Input(_))
}
