//! What the tests of the rules stand on: a slow, obvious evaluator of graphs, and forward and reverse mode in their
//! shortest form.

#![allow(dead_code)]

pub mod evaluate;
pub mod modes;
pub mod random;

use ckad_graph::{Attributes, DType, Graph, ListTable};
use ckad_prim::{Builder, Expr};

/// The graph of `f` over float64 inputs of the given shapes.
pub fn function<'s>(shapes: &[&[i64]], f: impl for<'b> Fn(&[Expr<'b>]) -> Expr<'b> + 's) -> Graph {
    let builder = Builder::new(Graph::new());
    let mut inputs = Vec::new();
    for shape in shapes {
        let list = builder.intern(shape).unwrap();
        inputs.push(builder.graph_mut().push_input(DType::F64, list, Attributes::default()).unwrap());
    }
    let inputs: Vec<Expr<'_>> = inputs.into_iter().map(|id| builder.expr(id)).collect();
    let output = f(&inputs).id;
    let mut graph = builder.finish().unwrap();
    graph.outputs.push(output);
    ckad_prim::verify(&graph).unwrap();
    graph
}

/// Extents of a shape that is in a table.
pub fn list(table: &ListTable, id: ckad_graph::ListId) -> Vec<usize> {
    table.get(id).iter().map(|&extent| extent as usize).collect()
}

/// Gradient of a scalar function by reverse mode.
pub fn gradient(graph: &Graph, point: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let reverse = modes::vjp(graph).unwrap();
    ckad_prim::verify(&reverse).unwrap();
    let mut inputs = point.to_vec();
    inputs.push(vec![1.0]);
    evaluate::outputs(&reverse, &inputs)[1..].to_vec()
}

/// Gradient of a scalar function by forward mode, one direction after the other.
pub fn gradient_forward(graph: &Graph, point: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let forward = modes::jvp(graph).unwrap();
    ckad_prim::verify(&forward).unwrap();
    let mut gradient: Vec<Vec<f64>> = point.iter().map(|x| vec![0.0; x.len()]).collect();
    for which in 0..point.len() {
        for element in 0..point[which].len() {
            let mut direction: Vec<Vec<f64>> = point.iter().map(|x| vec![0.0; x.len()]).collect();
            direction[which][element] = 1.0;
            let inputs = [point, &direction].concat();
            gradient[which][element] = evaluate::outputs(&forward, &inputs)[1][0];
        }
    }
    gradient
}

/// Hessian of a scalar function of all elements of its inputs, row by row: forward over reverse.
pub fn hessian(graph: &Graph, point: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let reverse = modes::vjp(graph).unwrap();
    let both = modes::jvp(&reverse).unwrap();
    hessian_of(&both, reverse.outputs.len(), point)
}

/// The same by reverse over forward-made reverse: the gradient's own transpose.
pub fn hessian_reverse(graph: &Graph, point: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let twice = modes::vjp(&modes::vjp(graph).unwrap()).unwrap();
    ckad_prim::verify(&twice).unwrap();
    let mut rows = Vec::new();
    for which in 0..point.len() {
        for element in 0..point[which].len() {
            let mut seeds: Vec<Vec<f64>> = point.iter().map(|x| vec![0.0; x.len()]).collect();
            seeds[which][element] = 1.0;
            let inputs = [point, &[vec![1.0]], &[vec![0.0]], &seeds].concat();
            let outputs = evaluate::outputs(&twice, &inputs);
            let gradients = &outputs[1 + point.len()..];
            rows.push(gradients[..point.len()].concat());
        }
    }
    rows
}

fn hessian_of(both: &Graph, outputs: usize, point: &[Vec<f64>]) -> Vec<Vec<f64>> {
    ckad_prim::verify(both).unwrap();
    let mut rows = Vec::new();
    for which in 0..point.len() {
        for element in 0..point[which].len() {
            let mut direction: Vec<Vec<f64>> = point.iter().map(|x| vec![0.0; x.len()]).collect();
            direction[which][element] = 1.0;
            let inputs = [point, &[vec![1.0]], &direction, &[vec![0.0]]].concat();
            rows.push(evaluate::outputs(both, &inputs)[outputs + 1..].concat());
        }
    }
    rows
}
