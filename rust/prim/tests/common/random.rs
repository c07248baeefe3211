//! Reproducible numbers: a sequence depends on its name alone.

use ckad_graph::{DType, Graph};

pub struct Random(u64);

impl Random {
    pub fn named(name: &str) -> Random {
        Random(
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)),
        )
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn fill(&mut self, dtype: DType, count: usize, (low, high): (f64, f64)) -> Vec<f64> {
        let mut draw = || {
            if dtype.is_float() {
                self.uniform(low, high)
            } else {
                self.uniform(low.ceil(), high.floor() + 1.0).floor()
            }
        };
        (0..count).map(|_| draw()).collect()
    }

    pub fn inputs(&mut self, graph: &Graph, ranges: &[(f64, f64)]) -> Vec<Vec<f64>> {
        let sizes = graph.inputs.iter().map(|&input| (graph.dtype(input), graph.elements(input)));
        sizes.zip(ranges).map(|((dtype, count), &range)| self.fill(dtype, count, range)).collect()
    }
}
