//! What is drawn from a key crosses from one part of a partition to the other as that key.
#![allow(clippy::unwrap_used)]

mod common;

use ckad_graph::{DType, Graph, Op};
use ckad_prim::Elementwise;
use ckad_transform::{partition, simplify, vjp};
use common::{Random, Tape, assert_close, check, run};

const N: i64 = 5000;

/// where(bits < 2³¹, sin x, 0) · (bits of another key as a float), and its pullback; the keys are scalars.
fn graph() -> Graph {
    let tape = Tape::default();
    let output = {
        let x = tape.input(&[N]);
        let builder = tape.at();
        let zero = builder.literal(DType::U64, 0.0).unwrap();
        let bits = |key: u64| {
            let key = builder.scalar(DType::U64, key).unwrap();
            builder.random_bits(key, zero, DType::U32, &[N]).unwrap()
        };
        let half = builder.scalar(DType::U32, 1 << 31).unwrap();
        let mask = builder.elementwise(Elementwise::Less, &[bits(7), half]).unwrap();
        let nothing = builder.literal(DType::F64, 0.0).unwrap();
        let chosen = builder.elementwise(Elementwise::Select, &[mask, x.sin().id, nothing]).unwrap();
        let scale = builder.cast(bits(8), DType::F64).unwrap();
        (builder.expr(chosen) * builder.expr(scale) * 1e-9).id
    };
    simplify(vjp(&tape.finish(&[output]), &[true]).unwrap()).unwrap()
}

#[test]
fn keys_are_residuals_and_not_what_is_drawn() {
    let whole = graph();
    let parts = partition(&whole, &[true, false]).unwrap();
    check(&parts.known);
    check(&parts.unknown);
    let residuals = &parts.known.outputs[parts.known.outputs.len() - parts.residuals..];
    let large: Vec<DType> =
        residuals.iter().filter(|&&node| parts.known.elements(node) > 1).map(|&node| parts.known.dtype(node)).collect();
    // The cosine, or x itself; neither mask nor scale.
    assert_eq!(large, [DType::F64]);
    let drawn = |graph: &Graph| graph.ids().filter(|&id| graph.op(id) == Op::RandomBits).count();
    assert_eq!((drawn(&parts.known), drawn(&parts.unknown)), (2, 2));
    let mut random = Random(5);
    let x = random.values(N as usize, (-1.0, 1.0));
    let u = random.values(N as usize, (-1.0, 1.0));
    let expected = run(&whole, &[x.clone(), u.clone()]);
    let known = run(&parts.known, &[x]);
    let mut inputs = known[known.len() - parts.residuals..].to_vec();
    inputs.push(u);
    let unknown = run(&parts.unknown, &inputs);
    assert_close("value", &known[0], &expected[0], 0.0);
    assert_close("cotangent", &unknown[0], &expected[1], 0.0);
}
