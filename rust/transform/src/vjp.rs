//! Reverse mode: linearise with `jvp`, then transpose the linear part.

use ckad_graph::{Attributes, Error, Graph, NodeId, Result, shape_text, tables};
use ckad_prim::Builder;

use crate::calls::Form;
use crate::copy::derived;
use crate::jvp::with_tangents;
use crate::settle::settled;
use crate::transpose::{Linear, transpose_linear};

/// The inputs followed by cotangents of the float outputs → the outputs followed by cotangents of the active inputs.
pub fn vjp(graph: &Graph, active: &[bool]) -> Result<Graph> {
    let source = settled(graph)?;
    let floats = source.outputs.iter().copied().filter(|&id| source.dtype(id).is_float());
    let wanted: Vec<NodeId> = tables::list("vjp", floats)?;
    let linear = linearise("vjp", &source, active, &wanted)?;
    transpose_linear("vjp", &linear, |builder, linear| {
        let mut seeds = tables::room("vjp", wanted.len())?;
        for (index, &output) in wanted.iter().enumerate() {
            let node = source.node(output);
            let attributes = Attributes { line: node.attributes.line, ..Attributes::default() };
            let seed = builder.graph_mut().push_input(node.dtype, node.shape, attributes)?;
            seeds.extend(linear.tangent_outputs[index].map(|tangent| (tangent, seed)));
        }
        Ok(seeds)
    })
}

/// The inputs → all outputs followed by the gradients of `outputs[0]`, a float scalar, by the active inputs.
pub fn value_and_grad(graph: &Graph, active: &[bool]) -> Result<Graph> {
    let source = settled(graph)?;
    let Some(&value) = source.outputs.first() else {
        return Err(Error::internal("grad", "the graph has no output"));
    };
    let (dtype, shape, line) = (source.dtype(value), source.shape(value), source.attributes(value).line);
    if !dtype.is_float() {
        return Err(Error::dtype("grad", format!("the function returned {dtype}, which has no derivative"))
            .with_hint("return a float")
            .at_line(line));
    }
    if !shape.is_empty() {
        return Err(Error::shape("grad", format!("the function returned an array of shape {}", shape_text(shape)))
            .with_hint("return a scalar, such as the sum, or use jacobian or vjp")
            .at_line(line));
    }
    let linear = linearise("grad", &source, active, &[value])?;
    transpose_linear("grad", &linear, |builder, linear| match linear.tangent_outputs[0] {
        Some(tangent) => Ok(vec![(tangent, builder.literal(dtype, 1.0)?)]),
        None => Ok(Vec::new()),
    })
}

fn linearise(op: &'static str, source: &Graph, active: &[bool], wanted: &[NodeId]) -> Result<Linear> {
    let builder = Builder::new(derived(source, 3)?);
    let linearised = with_tangents(op, Form::Split, &builder, source, active, wanted)?;
    let outputs = linearised.copy.all(&source.outputs)?;
    let mut graph = builder.finish()?;
    graph.outputs = outputs;
    Ok(Linear {
        graph,
        tangent_inputs: linearised.tangent_inputs,
        tangent_outputs: tables::list(op, wanted.iter().map(|&id| linearised.tangents.get(id)))?,
    })
}
