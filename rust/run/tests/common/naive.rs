//! The slow evaluator on the arrays that runs are given.

use ckad_graph::{Graph, NodeId};

use super::Aligned;

#[path = "../../../prim/tests/common/evaluate.rs"]
mod reference;

/// The outputs of the graph, elements as float64.
pub fn evaluate(graph: &Graph, inputs: &[Aligned]) -> Vec<Vec<f64>> {
    let inputs: Vec<_> =
        graph.inputs.iter().zip(inputs).map(|(&input, array)| decode(graph, input, array.bytes())).collect();
    reference::outputs(graph, &inputs)
}

pub fn decode(graph: &Graph, id: NodeId, bytes: &[u8]) -> Vec<f64> {
    reference::decode(graph.dtype(id), bytes)
}
