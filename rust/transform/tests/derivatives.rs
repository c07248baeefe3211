//! Derivatives of every primitive's samples: forward mode against five-point differences, reverse mode against forward,
//! second order, each before and after simplification.

#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{DType, Graph};
use ckad_prim::{Sample, samples_of};
use ckad_transform::{extract, jvp, partition, simplify, vjp};
use common::*;

fn floats(graph: &Graph) -> Vec<bool> {
    graph.inputs.iter().map(|&input| graph.dtype(input).is_float()).collect()
}

fn is_smooth(sample: &Sample) -> bool {
    // No interpretation here, or (the exponent of ldexp) no derivative by definition.
    let constant = ["nextafter", "spacing", "ldexp", "stop_gradient"];
    !constant.iter().any(|name| sample.name.starts_with(name))
}

/// Recorded samples have one position for all nodes; as on a tape each node has its own.
fn positioned(graph: &Graph) -> Graph {
    let mut target = graph.derived().unwrap();
    for id in graph.ids() {
        let node = graph.node(id);
        let attributes = ckad_graph::Attributes { position: id.0, ..node.attributes };
        if matches!(node.op, ckad_graph::Op::Input(_)) {
            target.push_input(node.dtype, node.shape, attributes).unwrap();
        } else {
            target.push(node.op, graph.operands(id), node.dtype, node.shape, attributes).unwrap();
        }
    }
    target.outputs = graph.outputs.clone();
    target
}

fn agree(a: &[Values], b: &[Values]) -> bool {
    a.iter().flatten().zip(b.iter().flatten()).all(|(x, y)| (x - y).abs() < 1e-6 * (1.0 + x.abs()))
}

fn active_only(active: &[bool], values: &[Values]) -> Vec<Values> {
    values.iter().zip(active).filter(|(_, active)| **active).map(|(values, _)| values.clone()).collect()
}

#[test]
fn every_sample_in_both_modes_and_second_order() {
    let mut random = Random(7);
    let mut tested = 0;
    for sample in samples_of(DType::F64).unwrap().iter().filter(|sample| is_smooth(sample)) {
        let graph = positioned(&sample.graph);
        let active = floats(&graph);
        let draw = |random: &mut Random| {
            let one = |(&input, &range)| random.input(&graph, input, range);
            let inputs: Vec<Values> = graph.inputs.iter().zip(&sample.ranges).map(one).collect();
            let moves = |(x, active): (&Values, &bool)| {
                if *active { random.values(x.len(), (-1.0, 1.0)) } else { vec![0.0; x.len()] }
            };
            let direction: Vec<Values> = inputs.iter().zip(&active).map(moves).collect();
            (inputs, direction)
        };
        let (mut inputs, mut direction) = draw(&mut random);
        if evaluate(&graph, &inputs).is_none() {
            continue;
        }
        // Away from jumps and kinks, differences with different steps agree.
        while !agree(
            &five_point_with(1e-3, |t| run(&graph, &moved(&inputs, &direction, t))),
            &five_point_with(4e-4, |t| run(&graph, &moved(&inputs, &direction, t))),
        ) {
            (inputs, direction) = draw(&mut random);
        }
        let name = sample.name.as_str();
        let outputs = graph.outputs.len();

        let forward = jvp(&graph, &active).unwrap();
        check(&forward);
        let mut arguments = inputs.clone();
        arguments.extend(active_only(&active, &direction));
        let tangents = run(&forward, &arguments).split_off(outputs);
        let simple = simplify(forward).unwrap();
        check(&simple);
        assert_eq!(run(&simple, &arguments).split_off(outputs), tangents, "{name}");
        if graph.dtype(graph.outputs[0]).is_float() {
            let expected = five_point(|t| run(&graph, &moved(&inputs, &direction, t)));
            assert_close(name, &tangents[0], &expected[0], 1e-7);
        } else {
            assert!(tangents.is_empty());
        }

        let backward = vjp(&graph, &active).unwrap();
        check(&backward);
        let mut arguments = inputs.clone();
        let weights: Vec<Values> = tangents.iter().map(|t| random.values(t.len(), (-1.0, 1.0))).collect();
        arguments.extend(weights.clone());
        let cotangents = run(&backward, &arguments).split_off(outputs);
        let (left, right) = (inner(&weights, &tangents), inner(&cotangents, &active_only(&active, &direction)));
        assert_close(name, &[left], &[right], 1e-11);
        let simple = simplify(backward).unwrap();
        check(&simple);
        for (a, b) in run(&simple, &arguments).split_off(outputs).iter().zip(&cotangents) {
            assert_close(name, a, b, 0.0);
        }

        // The pullback alone, from its residuals.
        let known: Vec<bool> = (0..simple.inputs.len()).map(|k| k < inputs.len()).collect();
        let parts = partition(&simple, &known).unwrap();
        check(&parts.known);
        check(&parts.unknown);
        let mut residuals = run(&parts.known, &inputs);
        let mut arguments_late = residuals.split_off(residuals.len() - parts.residuals);
        arguments_late.extend(weights.clone());
        assert_eq!(residuals[..outputs], run(&graph, &inputs), "{name}");
        let gradients = run(&parts.unknown, &arguments_late);
        let from_known = |k: usize| match parts.outputs[outputs + k] {
            ckad_transform::Side::Known(at) => residuals[at].clone(),
            ckad_transform::Side::Unknown(at) => gradients[at].clone(),
        };
        for (k, cotangent) in cotangents.iter().enumerate() {
            assert_close(name, &from_known(k), cotangent, 0.0);
        }

        // Forward over reverse, against differences of reverse.
        let gradients_only = extract(&simple, &simple.outputs[outputs..]).unwrap();
        let mut active = floats(&gradients_only);
        active[inputs.len()..].fill(false);
        let second = simplify(jvp(&gradients_only, &active).unwrap()).unwrap();
        check(&second);
        let mut late = arguments.clone();
        late.extend(active_only(&active, &direction));
        let curvature = run(&second, &late).split_off(cotangents.len());
        let expected = five_point(|t| {
            let mut at = moved(&inputs, &direction, t);
            at.extend(weights.clone());
            run(&gradients_only, &at)
        });
        for (a, b) in curvature.iter().zip(&expected) {
            assert_close(name, a, b, 1e-6);
        }

        // Reverse over reverse agrees with forward over reverse.
        let twice = simplify(vjp(&gradients_only, &active).unwrap()).unwrap();
        check(&twice);
        let seeds: Vec<Values> = cotangents.iter().map(|c| random.values(c.len(), (-1.0, 1.0))).collect();
        let mut late = arguments.clone();
        late.extend(seeds.clone());
        let pulled = run(&twice, &late).split_off(cotangents.len());
        let (left, right) = (inner(&seeds, &curvature), inner(&pulled, &active_only(&active, &direction)));
        assert_close(name, &[left], &[right], 1e-10);
        tested += 1;
    }
    assert!(tested > 150, "{tested} samples");
}
