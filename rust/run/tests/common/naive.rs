//! The meaning of the operations that the test programs use, node by node, in float64.

use ckad_graph::{DotAxes, Graph, NodeId, Op, ReduceKind};
use ckad_plan::view::{broadcast_strides, packed_strides};
use ckad_prim::Elementwise;

use super::Aligned;

/// Calls `visit` with every index of `shape`, in C order.
fn each_index(shape: &[i64], mut visit: impl FnMut(&[i64])) {
    let total: i64 = shape.iter().product();
    let units = packed_strides(shape);
    for flat in 0..total {
        let mut rest = flat;
        let index: Vec<i64> = units
            .iter()
            .map(|&unit| {
                let digit = rest / unit;
                rest %= unit;
                digit
            })
            .collect();
        visit(&index);
    }
}

fn at(index: &[i64], strides: &[i64]) -> usize {
    index.iter().zip(strides).map(|(i, stride)| i * stride).sum::<i64>() as usize
}

fn elementwise(row: Elementwise, x: &[f64]) -> f64 {
    match row {
        Elementwise::Add => x[0] + x[1],
        Elementwise::Subtract => x[0] - x[1],
        Elementwise::Multiply => x[0] * x[1],
        Elementwise::Divide => x[0] / x[1],
        Elementwise::Lmul if x[0] == 0.0 || x[1] == 0.0 => 0.0,
        Elementwise::Lmul => x[0] * x[1],
        Elementwise::Negative => -x[0],
        Elementwise::Square => x[0] * x[0],
        Elementwise::Reciprocal => 1.0 / x[0],
        Elementwise::Sqrt => x[0].sqrt(),
        Elementwise::Exp => x[0].exp(),
        Elementwise::Log => x[0].ln(),
        Elementwise::Sin => x[0].sin(),
        Elementwise::Cos => x[0].cos(),
        Elementwise::Tanh => x[0].tanh(),
        Elementwise::Maximum => x[0].max(x[1]),
        _ => panic!("no definition of {}", row.name()),
    }
}

/// The outputs of the graph, elements as float64.
pub fn evaluate(graph: &Graph, inputs: &[Aligned]) -> Vec<Vec<f64>> {
    let mut values: Vec<Vec<f64>> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let value = node(graph, id, inputs, &values);
        assert_eq!(value.len(), graph.elements(id));
        values.push(value);
    }
    graph.outputs.iter().map(|output| values[output.index()].clone()).collect()
}

fn node(graph: &Graph, id: NodeId, inputs: &[Aligned], values: &[Vec<f64>]) -> Vec<f64> {
    let shape = graph.shape(id);
    let operands = graph.operands(id);
    let value = |k: usize| &values[operands[k].index()];
    let mut out = Vec::new();
    let gather = |strides: &[i64], start: i64| {
        let mut out = Vec::new();
        each_index(shape, |index| out.push(value(0)[(at(index, strides) as i64 + start) as usize]));
        out
    };
    match graph.op(id) {
        Op::Input(index) => decode(graph, id, inputs[index as usize].bytes()),
        Op::Constant(index) => decode(graph, id, graph.constants[index as usize].bytes()),
        Op::Literal(bits) => vec![f64::from(f32::from_bits(bits))],
        Op::Scalar(index) => vec![graph.dtype(id).f64_of_bits(graph.scalars[index as usize])],
        Op::Elementwise(row) => {
            let strides: Vec<_> = operands.iter().map(|&o| broadcast_strides(graph.shape(o), shape).unwrap()).collect();
            each_index(shape, |index| {
                let arguments: Vec<f64> = (0..operands.len()).map(|k| value(k)[at(index, &strides[k])]).collect();
                out.push(elementwise(Elementwise::from_id(row), &arguments));
            });
            out
        }
        Op::Cast | Op::StopGradient | Op::Reshape => value(0).clone(),
        Op::Transpose { perm } => {
            let packed = packed_strides(graph.shape(operands[0]));
            let strides: Vec<i64> = graph.lists.get(perm).iter().map(|&axis| packed[axis as usize]).collect();
            gather(&strides, 0)
        }
        Op::Broadcast => gather(&broadcast_strides(graph.shape(operands[0]), shape).unwrap(), 0),
        Op::StridedRead { strides, start } => {
            let start = graph.starts[start.0 as usize];
            each_index(shape, |index| {
                let offset: i64 = index.iter().zip(graph.lists.get(strides)).map(|(i, s)| i * s).sum();
                out.push(value(0)[(start + offset) as usize]);
            });
            out
        }
        Op::StridedWrite { strides, start } | Op::StridedAdd { strides, start } => {
            let add = matches!(graph.op(id), Op::StridedAdd { .. });
            let start = graph.starts[start.0 as usize];
            out = value(0).clone();
            let mut from = value(1).iter();
            each_index(graph.shape(operands[1]), |index| {
                let offset: i64 = index.iter().zip(graph.lists.get(strides)).map(|(i, s)| i * s).sum();
                let place = &mut out[(start + offset) as usize];
                let value = from.next().unwrap();
                *place = if add { *place + value } else { *value };
            });
            out
        }
        Op::Concatenate { axis } => {
            each_index(shape, |index| {
                let mut index = index.to_vec();
                let axis = usize::from(axis);
                for (k, &operand) in operands.iter().enumerate() {
                    let extent = graph.shape(operand)[axis];
                    if index[axis] < extent {
                        out.push(value(k)[at(&index, &packed_strides(graph.shape(operand)))]);
                        break;
                    }
                    index[axis] -= extent;
                }
            });
            out
        }
        Op::Reduce { kind, axes } => {
            let axes = graph.lists.get(axes);
            let from = graph.shape(operands[0]);
            let identity = if kind == ReduceKind::Sum { 0.0 } else { f64::NEG_INFINITY };
            assert!(matches!(kind, ReduceKind::Sum | ReduceKind::Max));
            out = vec![identity; graph.elements(id)];
            let mut elements = value(0).iter();
            each_index(from, |index| {
                let kept: Vec<i64> =
                    (0..from.len()).filter(|axis| !axes.contains(&(*axis as i64))).map(|axis| index[axis]).collect();
                let place = &mut out[at(&kept, &packed_strides(shape))];
                let element = *elements.next().unwrap();
                *place = if kind == ReduceKind::Sum { *place + element } else { place.max(element) };
            });
            out
        }
        Op::Dot { axes, .. } => {
            let axes = DotAxes::read(&graph.lists, axes);
            assert!(axes.lhs_batch.is_empty() && axes.lhs_contract.len() == 1);
            let (a, b) = (operands[0], operands[1]);
            let (ka, kb) = (axes.lhs_contract[0], axes.rhs_contract[0]);
            let depth = graph.shape(a)[ka];
            let free_a = DotAxes::free(&[], &[ka], graph.rank(a));
            let free_b = DotAxes::free(&[], &[kb], graph.rank(b));
            let (sa, sb) = (packed_strides(graph.shape(a)), packed_strides(graph.shape(b)));
            each_index(shape, |index| {
                let (left, right) = index.split_at(free_a.len());
                let mut sum = 0.0;
                for k in 0..depth {
                    let ia: i64 = free_a.iter().zip(left).map(|(&axis, i)| sa[axis] * i).sum::<i64>() + sa[ka] * k;
                    let ib: i64 = free_b.iter().zip(right).map(|(&axis, i)| sb[axis] * i).sum::<i64>() + sb[kb] * k;
                    sum += value(0)[ia as usize] * value(1)[ib as usize];
                }
                out.push(sum);
            });
            out
        }
        Op::Accumulate => value(0).iter().zip(value(1)).map(|(a, b)| a + b).collect(),
        Op::Iota { axis } => {
            each_index(shape, |index| out.push(index[usize::from(axis)] as f64));
            out
        }
        op => panic!("no definition of {op:?}"),
    }
}

pub fn decode(graph: &Graph, id: NodeId, bytes: &[u8]) -> Vec<f64> {
    let dtype = graph.dtype(id);
    let element = |chunk: &[u8]| {
        let mut bits = [0; 8];
        bits[..chunk.len()].copy_from_slice(chunk);
        dtype.f64_of_bits(u64::from_le_bytes(bits))
    };
    bytes.chunks_exact(dtype.size()).map(element).collect()
}
