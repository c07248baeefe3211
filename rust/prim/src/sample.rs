//! Sample graphs of every primitive: what tests of all crates loop over.
//!
//! A [`Sample`] is a graph of one primitive applied to inputs, with a range that each input may be filled from: floats
//! uniformly, integers from the integers within (ends included), bools at random. Functions are smooth inside, but for
//! the kinks of those that round or compare (`floor`, `remainder`, `maximum`).

use ckad_graph::{Attributes, DType, Graph, NodeId, ReduceKind, Result};

use crate::elementwise::Elementwise;
use crate::{
    Builder, accumulate, arg_reduce, argsort, broadcast, cast, concatenate, cumulative_sum, dot, gather, iota,
    linear_recurrence, op_name, pad, random_bits, reduce, reshape, scatter_add, scatter_set, stop_gradient,
    strided_add, strided_read, strided_write, transpose,
};

/// One primitive applied to inputs: the graph's last node, which is its one output.
#[derive(Debug)]
pub struct Sample {
    /// Operation and case, such as `sum: inner axis`.
    pub name: String,
    pub graph: Graph,
    /// Least and greatest value of each input.
    pub ranges: Vec<(f64, f64)>,
}

/// A sample under construction.
pub(crate) struct SampleInputs {
    pub builder: Builder,
    ranges: Vec<(f64, f64)>,
}

impl SampleInputs {
    /// An input to be filled from `range`; types without a sign get its part above 0.
    pub fn input(&mut self, dtype: DType, shape: &[i64], range: (f64, f64)) -> Result<NodeId> {
        let (low, high) = range;
        self.ranges.push(match dtype {
            DType::Bool => (0.0, 1.0),
            _ if dtype.is_signed() => (low, high),
            _ => (low.max(0.0), high.max(0.0)),
        });
        let shape = self.builder.intern(shape)?;
        self.builder.graph_mut().push_input(dtype, shape, Attributes::default())
    }

    /// Indices of one shape into axes of extents `dims`; negative ones wrap.
    pub fn indices(&mut self, dims: &[i64], shape: &[i64]) -> Result<Vec<NodeId>> {
        dims.iter().map(|&dim| self.input(DType::I64, shape, (-(dim as f64), dim as f64 - 1.0))).collect()
    }
}

impl Sample {
    pub(crate) fn build(label: &str, make: impl FnOnce(&mut SampleInputs) -> Result<NodeId>) -> Result<Sample> {
        let mut inputs = SampleInputs { builder: Builder::new(Graph::new()), ranges: Vec::new() };
        let output = make(&mut inputs)?;
        let mut graph = inputs.builder.finish()?;
        graph.outputs.push(output);
        let op = op_name(graph.op(output));
        let name = if label.is_empty() { op } else { format!("{op}: {label}") };
        Ok(Sample { name, graph, ranges: inputs.ranges })
    }
}

fn elementwise_samples(dtype: DType, row: Elementwise) -> Result<Vec<Sample>> {
    if row.result_dtype(dtype).is_none() {
        return Ok(Vec::new());
    }
    let sample = |label: &str, shapes: [&[i64]; 3]| {
        Sample::build(label, |s| {
            let mut operands = Vec::new();
            for (index, &range) in row.sample().iter().enumerate() {
                let dtype = if index < row.typed_operand() { DType::Bool } else { dtype };
                operands.push(s.input(dtype, shapes[index], range)?);
            }
            s.builder.elementwise(row, &operands)
        })
    };
    let mut samples = vec![
        sample("matrix", [&[3, 5]; 3])?,
        sample("vector with a tail", [&[37]; 3])?,
        sample("scalar", [&[]; 3])?,
        sample("empty", [&[0, 3]; 3])?,
    ];
    if row.arity() > 1 {
        samples.push(sample("column and row", [&[3, 1], &[5], &[1, 1]])?);
        samples.push(sample("scalar and matrix", [&[], &[3, 5], &[5]])?);
        samples.push(sample("matrix and row", [&[3, 5], &[5], &[3, 1]])?);
    }
    Ok(samples)
}

pub(crate) fn scatter_samples(
    dtype: DType,
    scatter: impl Fn(&Builder, NodeId, NodeId, &[NodeId]) -> Result<NodeId>,
) -> Result<Vec<Sample>> {
    let sample = |label: &str, base_shape: &[i64], count: usize, index_shape: &[i64]| {
        Sample::build(label, |s| {
            let base = s.input(dtype, base_shape, (-3.0, 3.0))?;
            let selection = [index_shape, &base_shape[count..]].concat();
            let value = s.input(dtype, &selection, (-3.0, 3.0))?;
            let indices = s.indices(&base_shape[..count], index_shape)?;
            scatter(&s.builder, base, value, &indices)
        })
    };
    Ok(vec![
        sample("vector with duplicates", &[4], 1, &[7])?,
        sample("rows", &[5, 3], 1, &[2, 2])?,
        sample("elements", &[3, 4], 2, &[6])?,
        sample("one row", &[3, 2], 1, &[])?,
        sample("none", &[3, 2], 1, &[0])?,
    ])
}

/// Samples of every primitive over `dtype` (for `cast`: from it).
pub fn samples_of(dtype: DType) -> Result<Vec<Sample>> {
    let mut all = Vec::new();
    for &row in Elementwise::ALL {
        all.extend(elementwise_samples(dtype, row)?);
    }
    for kind in ReduceKind::ALL {
        all.extend(reduce::samples(dtype, kind)?);
    }
    for max in [true, false] {
        all.extend(arg_reduce::samples(dtype, max)?);
    }
    let structural = [
        iota::samples,
        random_bits::samples,
        cast::samples,
        stop_gradient::samples,
        reshape::samples,
        transpose::samples,
        broadcast::samples,
        strided_read::samples,
        strided_write::samples,
        strided_add::samples,
        pad::samples,
        concatenate::samples,
        gather::samples,
        scatter_set::samples,
        scatter_add::samples,
        cumulative_sum::samples,
        linear_recurrence::samples,
        argsort::samples,
        dot::samples,
        accumulate::samples,
    ];
    for samples in structural {
        all.extend(samples(dtype)?);
    }
    Ok(all)
}

/// Samples of every primitive over every dtype.
pub fn samples() -> Result<Vec<Sample>> {
    let mut all = Vec::new();
    for dtype in DType::ALL {
        all.extend(samples_of(dtype)?);
    }
    Ok(all)
}
