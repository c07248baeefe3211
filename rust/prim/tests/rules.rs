//! Every derivative rule against five-point differences, every transpose against ⟨u, J v⟩ = ⟨Jᵀ u, v⟩, first and second
//! order, on the samples of every primitive.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{DType, Graph};
use ckad_prim::{Sample, samples_of, verify};
use common::evaluate::outputs;
use common::modes::{jvp, vjp};
use common::random::Random;

fn differentiable() -> Vec<Sample> {
    let smooth = |sample: &Sample| {
        let graph = &sample.graph;
        let float_input = graph.inputs.iter().any(|&input| graph.dtype(input) == DType::F64);
        float_input && graph.dtype(graph.outputs[0]) == DType::F64
    };
    samples_of(DType::F64).unwrap().into_iter().filter(smooth).collect()
}

fn floats(graph: &Graph) -> Vec<usize> {
    (0..graph.inputs.len()).filter(|&i| graph.dtype(graph.inputs[i]).is_float()).collect()
}

/// Random tangents of the float inputs.
fn directions(graph: &Graph, random: &mut Random) -> Vec<Vec<f64>> {
    let size = |&i: &usize| graph.elements(graph.inputs[i]);
    floats(graph).iter().map(size).map(|count| random.fill(DType::F64, count, (-1.0, 1.0))).collect()
}

/// The derivative of all outputs at `point` along `direction` by five-point differences.
fn five_point(graph: &Graph, point: &[Vec<f64>], direction: &[Vec<f64>], step: f64) -> Vec<Vec<f64>> {
    let at = |multiple: f64| {
        let mut moved = point.to_vec();
        for (&input, along) in floats(graph).iter().zip(direction) {
            moved[input].iter_mut().zip(along).for_each(|(x, v)| *x += multiple * step * v);
        }
        outputs(graph, &moved)
    };
    let values = [at(-2.0), at(-1.0), at(1.0), at(2.0)];
    let formula = |o: usize, i: usize| {
        (values[0][o][i] - 8.0 * values[1][o][i] + 8.0 * values[2][o][i] - values[3][o][i]) / (12.0 * step)
    };
    (0..graph.outputs.len()).map(|o| (0..values[0][o].len()).map(|i| formula(o, i)).collect()).collect()
}

fn inner(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| x * y).sum()
}

/// Sum of |x·y|: the scale against which an inner product's rounding is judged.
fn scale(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x * y).abs()).sum()
}

/// `draw` gives points; one whose differences depend on the step has a kink beside it, and another is drawn.
fn check_forward(name: &str, graph: &Graph, draw: &dyn Fn(&mut Random) -> Vec<Vec<f64>>, tolerance: f64) {
    let mut random = Random::named(name);
    let forward = jvp(graph).unwrap();
    verify(&forward).unwrap();
    let (point, direction, expected) = (0..20)
        .map(|_| (draw(&mut random), directions(graph, &mut random)))
        .map(|(point, direction)| {
            let expected = five_point(graph, &point, &direction, 2e-4);
            let nearer = five_point(graph, &point, &direction, 1e-4);
            let agree = expected.iter().flatten().zip(nearer.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-2);
            agree.then_some((point, direction, expected))
        })
        .find_map(|found| found)
        .unwrap_or_else(|| panic!("{name}: no smooth point"));
    let found = outputs(&forward, &[point, direction].concat());
    let is_float = |&o: &usize| graph.dtype(graph.outputs[o]).is_float();
    let expected: Vec<f64> = (0..graph.outputs.len()).filter(is_float).flat_map(|o| expected[o].clone()).collect();
    let found = found[graph.outputs.len()..].concat();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let error = (found - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1.0), "{name}: {found} instead of {expected}");
    }
}

fn check_transpose(name: &str, graph: &Graph, point: &[Vec<f64>], tolerance: f64) {
    let mut random = Random::named(name);
    let (forward, reverse) = (jvp(graph).unwrap(), vjp(graph).unwrap());
    verify(&reverse).unwrap();
    let direction = directions(graph, &mut random);
    let tangents = outputs(&forward, &[point, &direction].concat())[graph.outputs.len()..].to_vec();
    let seeds: Vec<Vec<f64>> = tangents.iter().map(|t| random.fill(DType::F64, t.len(), (-1.0, 1.0))).collect();
    let cotangents = outputs(&reverse, &[point, &seeds].concat())[graph.outputs.len()..].to_vec();
    let error = (inner(&seeds, &tangents) - inner(&cotangents, &direction)).abs();
    let scale = scale(&seeds, &tangents) + scale(&cotangents, &direction);
    assert!(error <= tolerance * scale, "{name}: ⟨u, J v⟩ and ⟨Jᵀ u, v⟩ differ by {error} at {scale}");
    // Neither may be a NaN that fails to compare.
    assert!(scale.is_finite(), "{name}: not finite");
}

#[test]
fn first_order() {
    for sample in differentiable() {
        let draw = |random: &mut Random| random.inputs(&sample.graph, &sample.ranges);
        let point = draw(&mut Random::named(&sample.name));
        if sample.name != "stop_gradient" {
            check_forward(&sample.name, &sample.graph, &draw, 1e-7);
        }
        check_transpose(&sample.name, &sample.graph, &point, 1e-12);
    }
}

/// The derivative graphs are functions like any other: their derivatives are checked the same way.
#[test]
fn second_order() {
    for sample in differentiable() {
        let graph = &sample.graph;
        let forward = jvp(graph).unwrap();
        let draw = |random: &mut Random| [random.inputs(graph, &sample.ranges), directions(graph, random)].concat();
        check_second(&format!("jvp of {}", sample.name), &forward, &draw);
        let reverse = vjp(graph).unwrap();
        let seed = |random: &mut Random| random.fill(DType::F64, graph.elements(graph.outputs[0]), (-1.0, 1.0));
        let draw = |random: &mut Random| [random.inputs(graph, &sample.ranges), vec![seed(random)]].concat();
        check_second(&format!("vjp of {}", sample.name), &reverse, &draw);
    }
}

fn check_second(name: &str, graph: &Graph, draw: &dyn Fn(&mut Random) -> Vec<Vec<f64>>) {
    if !name.ends_with("stop_gradient") {
        check_forward(name, graph, draw, 1e-6);
    }
    check_transpose(name, graph, &draw(&mut Random::named(name)), 1e-12);
}

/// Operands that are not differentiated: every rule also holds with some of its tangents absent.
#[test]
fn absent_tangents() {
    for sample in differentiable() {
        let graph = &sample.graph;
        for frozen in floats(graph) {
            if floats(graph).len() < 2 {
                continue;
            }
            // The same graph with one input behind stop_gradient.
            let builder = ckad_prim::Builder::new(graph.derived().unwrap());
            let mut mapped = Vec::new();
            for node in graph.ids() {
                let operands: Vec<_> = graph.operands(node).iter().map(|o| mapped[o.index()]).collect();
                let id = if let ckad_graph::Op::Input(index) = graph.op(node) {
                    let shape = graph.node(node).shape;
                    let input =
                        builder.graph_mut().push_input(graph.dtype(node), shape, graph.attributes(node)).unwrap();
                    if index as usize == frozen { builder.stop_gradient(input).unwrap() } else { input }
                } else {
                    builder.push(graph.op(node), &operands, graph.dtype(node), graph.shape(node)).unwrap()
                };
                mapped.push(id);
            }
            let mut partial = builder.finish().unwrap();
            partial.outputs.push(mapped[graph.outputs[0].index()]);
            let point = Random::named(&sample.name).inputs(graph, &sample.ranges);
            let name = format!("{} with operand {frozen} fixed", sample.name);
            check_transpose(&name, &partial, &point, 1e-12);

            // Along the same direction, the tangents of the parts add up to the whole's.
            let mut random = Random::named(&name);
            let mut direction = directions(graph, &mut random);
            let part = outputs(&jvp(&partial).unwrap(), &[point.clone(), direction.clone()].concat())[1].clone();
            let place = floats(graph).iter().position(|&i| i == frozen).unwrap();
            direction[place].fill(0.0);
            let whole = outputs(&jvp(graph).unwrap(), &[point, direction].concat())[1].clone();
            for (part, whole) in part.iter().zip(&whole) {
                assert!((part - whole).abs() <= 1e-12 * whole.abs().max(1.0), "{name}: {part} instead of {whole}");
            }
        }
    }
}
