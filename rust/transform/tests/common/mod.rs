//! What tests of transforms share: the slow evaluator, five-point differences, the order of execution.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports)]

use ckad_graph::{Graph, NodeId};

#[path = "../../../prim/tests/common/evaluate.rs"]
mod evaluate;
mod record;
pub use evaluate::{evaluate, outputs as run};
pub use record::{Tape, record};

pub type Values = Vec<f64>;

/// Numbers in [0, 1) from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn values(&mut self, count: usize, (low, high): (f64, f64)) -> Values {
        (0..count).map(|_| low + (high - low) * self.uniform()).collect()
    }

    /// Values for an input of a sample.
    pub fn input(&mut self, graph: &Graph, input: NodeId, range: (f64, f64)) -> Values {
        let values = self.values(graph.elements(input), range);
        if graph.dtype(input).is_float() {
            values
        } else {
            values.iter().map(|_| (range.0 + (range.1 - range.0 + 1.0) * self.uniform()).floor()).collect()
        }
    }
}

/// d/dt f(x + t·v) at 0.
pub fn five_point(f: impl Fn(f64) -> Vec<Values>) -> Vec<Values> {
    five_point_with(1e-3, f)
}

pub fn five_point_with(h: f64, f: impl Fn(f64) -> Vec<Values>) -> Vec<Values> {
    let points = [f(-2.0 * h), f(-h), f(h), f(2.0 * h)];
    let derivative = |output: usize, k: usize| {
        let at = |point: usize| points[point][output][k];
        (at(0) - 8.0 * at(1) + 8.0 * at(2) - at(3)) / (12.0 * h)
    };
    (0..points[0].len()).map(|output| (0..points[0][output].len()).map(|k| derivative(output, k)).collect()).collect()
}

pub fn moved(x: &[Values], v: &[Values], t: f64) -> Vec<Values> {
    x.iter().zip(v).map(|(x, v)| x.iter().zip(v).map(|(x, v)| x + t * v).collect()).collect()
}

pub fn assert_close(what: &str, a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (x, y) in a.iter().zip(b) {
        let scale = 1.0 + x.abs().max(y.abs());
        assert!((x - y).abs() <= tolerance * scale || (x.is_nan() && y.is_nan()), "{what}: {x} and {y}");
    }
}

pub fn inner(a: &[Values], b: &[Values]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| x * y).sum()
}

/// Passes in turn, even ones up the tape, odd ones down; leaves stand anywhere.
pub fn assert_execution_order(graph: &Graph) {
    let mut before = (0, 0);
    for id in graph.ids().filter(|&id| !graph.op(id).is_leaf()) {
        let attributes = graph.attributes(id);
        let up = attributes.pass.is_multiple_of(2);
        let place = (attributes.pass, if up { attributes.position } else { u32::MAX - attributes.position });
        assert!(place >= before, "%{} (pass {}, position {})", id.0, attributes.pass, attributes.position);
        before = place;
    }
}

/// What every graph must keep to.
pub fn check(graph: &Graph) {
    ckad_prim::verify(graph).unwrap();
    assert_execution_order(graph);
}
