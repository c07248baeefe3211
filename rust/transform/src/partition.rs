//! Splitting a graph by what is known first: `linearize` and `vjp` run the known part once and keep what the unknown
//! part reads, the residuals.
//!
//! Cheap coefficients that only the unknown part reads are computed there, as in a backward pass ([`crate::sink`]);
//! random values are drawn in both parts ([`crate::drawn`]). What lies in a region that recomputes is computed again:
//! what enters the region and what leaves it are residuals.

use ckad_graph::{Attributes, CheckpointPolicy, Error, Graph, NodeId, Op, RegionId, Result, interrupt, tables};

use crate::copy::{Copy, table};
use crate::drawn::drawn_again;
use crate::extract::extract;
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
    /// Operations that `unknown` does a second time.
    pub repeated_flops: u64,
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

/// Splits `graph` by dependence on the inputs that are not known. Regions are left to whoever plans both parts as one.
pub fn partition(graph: &Graph, known_inputs: &[bool]) -> Result<Partition> {
    let source = settled(graph)?;
    let kept = table("partition", false, source.len())?;
    split(&source, known_inputs, &kept)
}

/// The same where each part is planned by itself: what regions do not keep is computed in both.
pub fn partition_by_regions(graph: &Graph, known_inputs: &[bool]) -> Result<Partition> {
    let source = settled(graph)?;
    let inside = inside_of_regions(&source)?;
    split(&source, known_inputs, &inside)
}

/// Of each node, whether it and all its users lie in the same region that recomputes.
fn inside_of_regions(graph: &Graph) -> Result<Vec<bool>> {
    // Of each region the outermost one that recomputes and has it inside.
    let mut outermost: Vec<Option<RegionId>> = tables::room("partition", graph.regions.len())?;
    for (index, region) in graph.regions.iter().enumerate() {
        // A region is opened after the one around it.
        let around = outermost.get(region.parent.0 as usize).copied().flatten();
        let own = (index > 0 && region.policy.recomputes()).then_some(RegionId(index as u16));
        outermost.push(around.or(own));
    }
    let of = |id: NodeId| outermost.get(graph.attributes(id).region.0 as usize).copied().flatten();
    let saved = |id: NodeId| graph.regions[graph.attributes(id).region.0 as usize].policy == CheckpointPolicy::Keep;
    let mut inside = tables::list("partition", graph.ids().map(|id| of(id).is_some() && !saved(id)))?;
    for &output in &graph.outputs {
        inside[output.index()] = false;
    }
    for id in graph.ids() {
        for &operand in graph.operands(id) {
            inside[operand.index()] &= of(id) == of(operand);
        }
    }
    Ok(inside)
}

/// As [`partition`], where values of which `may_repeat` says so are computed again instead of crossing over.
fn split(graph: &Graph, known_inputs: &[bool], may_repeat: &[bool]) -> Result<Partition> {
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

    // Values that cross over, in the order of the graph, and those that are computed again in their stead.
    let mut crosses = table("partition", false, graph.len())?;
    let mut repeated = table("partition", false, graph.len())?;
    let mut repeated_flops = 0u64;
    for id in graph.ids().rev().filter(|&id| live[id.index()]) {
        if repeated[id.index()] {
            repeated_flops = repeated_flops.saturating_add(ckad_prim::cost(graph, id).flops);
        } else if !late(id) {
            continue;
        }
        for &operand in graph.operands(id).iter().filter(|&&operand| !late(operand) && !is_free(graph.op(operand))) {
            let again = may_repeat[operand.index()] && !matches!(graph.op(operand), Op::Input(_));
            let list = if again { &mut repeated } else { &mut crosses };
            list[operand.index()] = true;
        }
    }
    let in_rest = |id: NodeId| late(id) || repeated[id.index()];
    let again = drawn_again("partition", graph, in_rest, &mut crosses)?;
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
    let wanted = tables::list("partition", graph.ids().map(|id| live[id.index()] && in_rest(id)))?;
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
    if repeated.contains(&true) {
        // What only the other part reads is computed there alone.
        known = extract(&known, &known.outputs)?;
    }
    Ok(Partition { known, unknown: rest, outputs, residuals: residuals.len(), repeated_flops })
}

/// Leaves that every graph can have for itself.
fn is_free(op: Op) -> bool {
    op.is_leaf() && !matches!(op, Op::Input(_))
}
