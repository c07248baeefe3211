//! A recorded graph into which others were spliced, put into execution order.
//!
//! * One splice: it keeps its passes, so that the plan sees its forward and backward parts. A recorded node that reads
//!   a value of a later pass takes pass and position of its operand latest in execution order. The nodes are then
//!   sorted by pass and position (even passes up, odd ones down); no operand comes after its user, as no node's place
//!   is before that of an operand.
//! * Several (a training loop, gradients of several batches): the order of the tape stays, as the memory of one
//!   splice must be free before the next needs its own. Everything becomes pass 0 with fresh positions; only where a
//!   splice is in a region, and so has a policy of its own, the passes stay visible: each splice's passes follow those
//!   of the one before.

use ckad_graph::{Attributes, CheckpointPolicy, Error, Graph, Lent, NodeId, RegionId, Result, Splice, interrupt};

use crate::copy::{Copy, table};

/// The graph in execution order, with passes and positions that say so. A graph without splices is returned as it is.
pub fn settle(graph: Graph) -> Result<Graph> {
    if graph.splices.is_empty() { Ok(graph) } else { settle_copy(&graph) }
}

/// What a transform of a graph starts from.
pub(crate) fn settled(graph: &Graph) -> Result<Lent<'_>> {
    if graph.splices.is_empty() { Ok(Lent::Borrowed(graph)) } else { settle_copy(graph).map(Lent::Owned) }
}

fn settle_copy(graph: &Graph) -> Result<Graph> {
    let attributes = match graph.splices.as_slice() {
        [one] => keep_passes(graph, one)?,
        splices => match number_passes(graph, splices)? {
            Some(attributes) => attributes,
            None => flatten(graph, splices)?,
        },
    };
    let mut order: Vec<NodeId> = Vec::new();
    order.try_reserve_exact(graph.len()).map_err(|_| Error::memory("settle", graph.len() * 4))?;
    order.extend(graph.ids());
    // In order already for most graphs.
    order.sort_unstable_by_key(|&id| (place(attributes[id.index()]), id));

    let mut target = graph.derived()?;
    let mut copy = Copy::new("settle", graph)?;
    copy.inputs(&mut target, graph)?;
    for (index, &id) in order.iter().enumerate() {
        interrupt::check_at(index)?;
        copy.node(&mut target, graph, id, attributes[id.index()])?;
    }
    target.outputs = copy.all(&graph.outputs)?;
    Ok(target)
}

/// Where a node stands in execution order: even passes run up the tape, odd ones down.
fn place(attributes: Attributes) -> (u16, u32) {
    let up = attributes.pass.is_multiple_of(2);
    (attributes.pass, if up { attributes.position } else { u32::MAX - attributes.position })
}

/// The attributes of all nodes, `own` unless an operand comes later in execution order.
fn not_before_operands(graph: &Graph, own: impl Fn(NodeId) -> Attributes) -> Result<Vec<Attributes>> {
    let mut settled = table("settle", Attributes::default(), graph.len())?;
    for id in graph.ids() {
        let mut attributes = own(id);
        if graph.op(id).is_leaf() {
            // Leaves exist before the run; a splice's may have been taken over from another pass.
            attributes.pass = 0;
        }
        for operand in graph.operands(id).iter().map(|operand| settled[operand.index()]) {
            if place(operand) > place(attributes) {
                attributes.pass = operand.pass;
                attributes.position = operand.position;
            }
        }
        settled[id.index()] = attributes;
    }
    Ok(settled)
}

fn keep_passes(graph: &Graph, splice: &Splice) -> Result<Vec<Attributes>> {
    not_before_operands(graph, |id| {
        let own = graph.attributes(id);
        if splice.nodes.contains(&id.0) { own } else { Attributes { pass: 0, ..own } }
    })
}

/// Pass 0 for all; the nodes of a splice take its positions in turn.
fn flatten(graph: &Graph, splices: &[Splice]) -> Result<Vec<Attributes>> {
    let mut attributes = table("settle", Attributes::default(), graph.len())?;
    let mut rest = splices.iter().peekable();
    for id in graph.ids() {
        while rest.next_if(|splice| splice.nodes.end <= id.0).is_some() {}
        let mut own = graph.attributes(id);
        if let Some(splice) = rest.peek().filter(|splice| splice.nodes.contains(&id.0)) {
            own.position = splice.position + (id.0 - splice.nodes.start);
        }
        attributes[id.index()] = Attributes { pass: 0, ..own };
    }
    Ok(attributes)
}

/// The passes of each splice after those of the splices before it, and what is recorded after it in the next even
/// pass. `None` where no splice has a region of its own, or passes run out.
fn number_passes(graph: &Graph, splices: &[Splice]) -> Result<Option<Vec<Attributes>>> {
    let has_region = |id: u32| {
        let region = graph.attributes(NodeId(id)).region;
        region != RegionId(0) && graph.regions[region.0 as usize].policy != CheckpointPolicy::Keep
    };
    if !splices.iter().any(|splice| splice.nodes.clone().any(has_region)) {
        return Ok(None);
    }
    let mut attributes = table("settle", Attributes::default(), graph.len())?;
    let mut rest = splices.iter().peekable();
    let mut offset = 0u32;
    let mut greatest = 0u32;
    for id in graph.ids() {
        if rest.next_if(|splice| splice.nodes.end <= id.0).is_some() {
            offset = (greatest + 1).next_multiple_of(2);
        }
        let own = graph.attributes(id);
        let within = rest.peek().is_some_and(|splice| splice.nodes.contains(&id.0));
        let leaf = graph.op(id).is_leaf();
        let pass = if leaf { 0 } else { offset + if within { u32::from(own.pass) } else { 0 } };
        greatest = greatest.max(pass);
        let Ok(pass) = u16::try_from(pass) else { return Ok(None) };
        attributes[id.index()] = Attributes { pass, ..own };
    }
    not_before_operands(graph, |id| attributes[id.index()]).map(Some)
}
