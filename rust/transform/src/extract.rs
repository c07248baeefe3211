//! Dead code elimination: what given outputs reach, in the same order.

use ckad_graph::{Error, Graph, NodeId, Result, Splice};

use crate::copy::{Copy, derived, reached};

/// The part of `graph` that computes `outputs`. All inputs stay, in order and in front; tables keep their indices.
pub fn extract(graph: &Graph, outputs: &[NodeId]) -> Result<Graph> {
    if let Some(unknown) = outputs.iter().find(|output| output.index() >= graph.len()) {
        return Err(Error::internal("extract", format!("output %{} does not exist", unknown.0)));
    }
    let live = reached("extract", graph, outputs.iter().copied())?;
    let mut target = derived(graph, 1)?;
    let mut copy = Copy::new("extract", graph)?;
    copy.inputs(&mut target, graph)?;
    let mut splices = graph.splices.iter().peekable();
    let mut entered = None;
    for id in graph.ids() {
        leave_splice(&mut target, &mut entered, id.0);
        if let Some(splice) = splices.next_if(|splice| splice.nodes.start <= id.0) {
            entered = Some((splice, target.len() as u32));
        }
        if live[id.index()] {
            copy.node(&mut target, graph, id, graph.attributes(id))?;
        }
    }
    leave_splice(&mut target, &mut entered, u32::MAX);
    target.outputs = copy.all(outputs)?;
    Ok(target)
}

/// At the first node behind a splice, notes what is left of it.
fn leave_splice(target: &mut Graph, entered: &mut Option<(&Splice, u32)>, next: u32) {
    if let Some((splice, start)) = entered.take_if(|(splice, _)| splice.nodes.end <= next) {
        let end = target.len() as u32;
        if start < end {
            target.splices.push(Splice { nodes: start..end, position: splice.position });
        }
    }
}
