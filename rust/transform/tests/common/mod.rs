//! A naive interpreter of graphs in f64, and what tests check with it: five-point differences, execution order.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports)]

use ckad_graph::{DType, DotAxes, Graph, NodeId, Op, ReduceKind};
use ckad_prim::Elementwise;

mod record;
pub use record::{Tape, record};

pub type Values = Vec<f64>;

/// All outputs. Integers and bools are held as f64 too; an operation that this cannot hold gives `None`.
pub fn evaluate(graph: &Graph, inputs: &[Values]) -> Option<Vec<Values>> {
    let mut values: Vec<Values> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let value = node(graph, id, inputs, &values)?;
        assert_eq!(value.len(), graph.elements(id), "%{}: {:?}", id.0, graph.op(id));
        values.push(value);
    }
    Some(graph.outputs.iter().map(|output| values[output.index()].clone()).collect())
}

pub fn run(graph: &Graph, inputs: &[Values]) -> Vec<Values> {
    evaluate(graph, inputs).expect("an operation that the interpreter lacks")
}

/// Indices of all elements of an array, in C order.
fn indices(shape: &[i64]) -> Vec<Vec<i64>> {
    let mut all = vec![vec![]];
    for &extent in shape {
        all = all.iter().flat_map(|head| (0..extent).map(move |i| [&head[..], &[i]].concat())).collect();
    }
    all
}

fn flat(shape: &[i64], index: &[i64]) -> usize {
    shape.iter().zip(index).fold(0, |sum, (extent, i)| sum * extent + i) as usize
}

/// The element of an operand of `shape` that broadcasting puts at `index`.
fn broadcast(shape: &[i64], index: &[i64]) -> usize {
    let tail = &index[index.len() - shape.len()..];
    let clipped: Vec<i64> = shape.iter().zip(tail).map(|(&extent, &i)| if extent == 1 { 0 } else { i }).collect();
    flat(shape, &clipped)
}

fn strided(graph: &Graph, index: &[i64], strides: ckad_graph::ListId, start: ckad_graph::StartId) -> usize {
    let strides = graph.lists.get(strides);
    (graph.starts[start.0 as usize] + index.iter().zip(strides).map(|(i, s)| i * s).sum::<i64>()) as usize
}

fn lmul(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

fn node(graph: &Graph, id: NodeId, inputs: &[Values], values: &[Values]) -> Option<Values> {
    let operands = graph.operands(id);
    let dtype = graph.dtype(id);
    let shape = graph.shape(id);
    let of = |k: usize| &values[operands[k].index()];
    let shape_of = |k: usize| graph.shape(operands[k]);
    Some(match graph.op(id) {
        Op::Input(index) => inputs[index as usize].clone(),
        Op::Literal(bits) => vec![f64::from(f32::from_bits(bits))],
        Op::Scalar(index) => vec![dtype.f64_of_bits(graph.scalars[index as usize])],
        Op::Constant(index) => {
            let bytes = graph.constants[index as usize].bytes();
            bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        Op::Iota { axis } => indices(shape).iter().map(|i| i[axis as usize] as f64).collect(),
        Op::Elementwise(row) => {
            let row = Elementwise::from_id(row);
            let float = graph.dtype(operands[operands.len() - 1]).is_float();
            let mut out = Vec::new();
            for index in indices(shape) {
                let x: Vec<f64> = (0..operands.len()).map(|k| of(k)[broadcast(shape_of(k), &index)]).collect();
                out.push(elementwise(row, &x, float)?);
            }
            out
        }
        Op::Cast => of(0).iter().map(|&x| cast(dtype, x)).collect(),
        Op::StopGradient | Op::Reshape => of(0).clone(),
        Op::Transpose { perm } => {
            let perm = graph.lists.get(perm);
            let source = |index: Vec<i64>| {
                let mut from = vec![0; perm.len()];
                perm.iter().zip(index).for_each(|(&axis, i)| from[axis as usize] = i);
                of(0)[flat(shape_of(0), &from)]
            };
            indices(shape).into_iter().map(source).collect()
        }
        Op::Broadcast => indices(shape).iter().map(|index| of(0)[broadcast(shape_of(0), index)]).collect(),
        Op::StridedRead { strides, start } => {
            indices(shape).iter().map(|index| of(0)[strided(graph, index, strides, start)]).collect()
        }
        Op::StridedWrite { strides, start } | Op::StridedAdd { strides, start } => {
            let add = matches!(graph.op(id), Op::StridedAdd { .. });
            let mut out = of(0).clone();
            for (index, &value) in indices(shape_of(1)).iter().zip(of(1)) {
                let to = &mut out[strided(graph, index, strides, start)];
                *to = if add { *to + value } else { value };
            }
            out
        }
        Op::Pad { widths } => {
            let before: Vec<i64> = graph.lists.get(widths).iter().step_by(2).copied().collect();
            let mut out = vec![of(1)[0]; graph.elements(id)];
            for (index, &value) in indices(shape_of(0)).iter().zip(of(0)) {
                let to: Vec<i64> = index.iter().zip(&before).map(|(i, b)| i + b).collect();
                out[flat(shape, &to)] = value;
            }
            out
        }
        Op::Concatenate { axis } => {
            let axis = axis as usize;
            let pick = |mut index: Vec<i64>| {
                let mut part = 0;
                while index[axis] >= shape_of(part)[axis] {
                    index[axis] -= shape_of(part)[axis];
                    part += 1;
                }
                of(part)[flat(shape_of(part), &index)]
            };
            indices(shape).into_iter().map(pick).collect()
        }
        Op::Gather { indices: count } => {
            let count = count as usize;
            let rank = shape_of(1).len();
            let pick = |index: Vec<i64>| {
                let from = selected(graph, operands, values, 1..1 + count, 0, &index[..rank], &index[rank..]);
                of(0)[from]
            };
            indices(shape).into_iter().map(pick).collect()
        }
        Op::ScatterSet { indices: count } | Op::ScatterAdd { indices: count } => {
            let add = matches!(graph.op(id), Op::ScatterAdd { .. });
            let rank = shape_of(2).len();
            let mut out = of(0).clone();
            for (index, &value) in indices(shape_of(1)).iter().zip(of(1)) {
                let last = 2 + count as usize;
                let to = selected(graph, operands, values, 2..last, 0, &index[..rank], &index[rank..]);
                out[to] = if add { out[to] + value } else { value };
            }
            out
        }
        Op::Reduce { kind, axes } => {
            let axes = graph.lists.get(axes);
            let first = match kind {
                ReduceKind::Sum | ReduceKind::Any => 0.0,
                ReduceKind::All => 1.0,
                ReduceKind::Max => f64::NEG_INFINITY,
                ReduceKind::Min => f64::INFINITY,
            };
            let mut out = vec![first; graph.elements(id)];
            for (index, &value) in indices(shape_of(0)).iter().zip(of(0)) {
                let kept: Vec<i64> =
                    (0..index.len()).filter(|&k| !axes.contains(&(k as i64))).map(|k| index[k]).collect();
                let to = &mut out[flat(shape, &kept)];
                *to = match kind {
                    ReduceKind::Sum => *to + value,
                    ReduceKind::Max => maximum(*to, value),
                    ReduceKind::Min => -maximum(-*to, -value),
                    ReduceKind::Any => f64::from(u8::from(*to != 0.0 || value != 0.0)),
                    ReduceKind::All => f64::from(u8::from(*to != 0.0 && value != 0.0)),
                };
            }
            out
        }
        Op::CumulativeSum { axis, reverse } => {
            let ones = vec![1.0; of(0).len()];
            recurrence(&ones, of(0), shape, axis as usize, reverse, false)
        }
        Op::LinearRecurrence { axis, reverse, absorb } => {
            recurrence(of(0), of(1), shape, axis as usize, reverse, absorb)
        }
        Op::Dot { axes, absorb } => dot(graph, id, &DotAxes::read(&graph.lists, axes), absorb, of(0), of(1)),
        Op::Accumulate => of(0).iter().zip(of(1)).map(|(a, b)| a + b).collect(),
        Op::ArgReduce { max, axis } => {
            let axis = axis as usize;
            let pick = |index: Vec<i64>| {
                let at = |k: i64| {
                    let full = [&index[..axis], &[k], &index[axis..]].concat();
                    of(0)[flat(shape_of(0), &full)]
                };
                let better = |a: f64, b: f64| if max { a > b } else { a < b };
                (0..shape_of(0)[axis]).fold(0, |best, k| if better(at(k), at(best)) { k } else { best }) as f64
            };
            indices(shape).into_iter().map(pick).collect()
        }
        Op::Argsort { axis } => {
            let axis = axis as usize;
            let rank_of = |mut index: Vec<i64>| {
                let place = index[axis] as usize;
                let mut order: Vec<i64> = (0..shape[axis]).collect();
                let mut at = |k: i64| {
                    index[axis] = k;
                    of(0)[flat(shape, &index)]
                };
                let keys: Vec<f64> = order.iter().map(|&k| at(k)).collect();
                order.sort_by(|&a, &b| keys[a as usize].partial_cmp(&keys[b as usize]).unwrap());
                order[place] as f64
            };
            indices(shape).into_iter().map(rank_of).collect()
        }
    })
}

/// The flat position in `base` that index arrays select at `index`, followed by `rest`.
fn selected(
    graph: &Graph,
    operands: &[NodeId],
    values: &[Values],
    arrays: std::ops::Range<usize>,
    base: usize,
    index: &[i64],
    rest: &[i64],
) -> usize {
    let shape = graph.shape(operands[base]);
    let mut full = Vec::new();
    for (axis, k) in arrays.enumerate() {
        let array = operands[k];
        let picked = values[array.index()][flat(graph.shape(array), index)] as i64;
        full.push(if picked < 0 { picked + shape[axis] } else { picked });
    }
    full.extend(rest);
    flat(shape, &full)
}

fn recurrence(a: &[f64], b: &[f64], shape: &[i64], axis: usize, reverse: bool, absorb: bool) -> Values {
    let mut out = b.to_vec();
    let mut all = indices(shape);
    if reverse {
        all.reverse();
    }
    for index in all {
        let mut before = index.clone();
        before[axis] += if reverse { 1 } else { -1 };
        if (0..shape[axis]).contains(&before[axis]) {
            let (k, j) = (flat(shape, &index), flat(shape, &before));
            out[k] += if absorb { lmul(a[k], out[j]) } else { a[k] * out[j] };
        }
    }
    out
}

fn dot(graph: &Graph, id: NodeId, axes: &DotAxes, absorb: bool, a: &[f64], b: &[f64]) -> Values {
    let (lhs, rhs) = (graph.shape(graph.operands(id)[0]), graph.shape(graph.operands(id)[1]));
    let left = DotAxes::free(&axes.lhs_batch, &axes.lhs_contract, lhs.len());
    let right = DotAxes::free(&axes.rhs_batch, &axes.rhs_contract, rhs.len());
    let contracted: Vec<i64> = axes.lhs_contract.iter().map(|&axis| lhs[axis]).collect();
    let mut out = Vec::new();
    for index in indices(graph.shape(id)) {
        let (batch, free) = index.split_at(axes.lhs_batch.len());
        let (free_left, free_right) = free.split_at(left.len());
        let mut sum = 0.0;
        for inner in indices(&contracted) {
            let place = |rank: usize, parts: [(&[usize], &[i64]); 3]| {
                let mut at = vec![0; rank];
                for (axes, values) in parts {
                    axes.iter().zip(values).for_each(|(&axis, &value)| at[axis] = value);
                }
                at
            };
            let i = place(lhs.len(), [(&axes.lhs_batch, batch), (&left, free_left), (&axes.lhs_contract, &inner)]);
            let j = place(rhs.len(), [(&axes.rhs_batch, batch), (&right, free_right), (&axes.rhs_contract, &inner)]);
            let (x, y) = (a[flat(lhs, &i)], b[flat(rhs, &j)]);
            sum += if absorb { lmul(x, y) } else { x * y };
        }
        out.push(sum);
    }
    out
}

fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn cast(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::Bool => f64::from(u8::from(x != 0.0)),
        dtype if dtype.is_float() => x,
        _ => x.trunc(),
    }
}

fn elementwise(row: Elementwise, x: &[f64], float: bool) -> Option<f64> {
    use Elementwise as E;
    let (a, b) = (x[0], x.get(1).copied().unwrap_or(0.0));
    let is = |truth: bool| f64::from(u8::from(truth));
    let integers = (a as i64, b as i64);
    Some(match row {
        E::Add => a + b,
        E::Subtract => a - b,
        E::Multiply => a * b,
        E::Divide => a / b,
        E::Lmul => lmul(a, b),
        E::Negative => -a,
        E::Absolute => a.abs(),
        E::Sign => {
            if a == 0.0 {
                0.0
            } else {
                a.signum()
            }
        }
        E::Reciprocal => 1.0 / a,
        E::Square => a * a,
        E::Sqrt => a.sqrt(),
        E::Cbrt => a.cbrt(),
        E::Power => a.powf(b),
        E::FloorDivide => (a / b).floor(),
        E::Remainder => a - (a / b).floor() * b,
        E::Fmod => a % b,
        E::Floor => a.floor(),
        E::Ceil => a.ceil(),
        E::Trunc => a.trunc(),
        E::Rint => a.round_ties_even(),
        E::Maximum => maximum(a, b),
        E::Minimum => -maximum(-a, -b),
        E::Fmax => a.max(b),
        E::Fmin => a.min(b),
        E::Copysign => a.copysign(b),
        E::Heaviside => {
            if a == 0.0 {
                b
            } else {
                is(a > 0.0)
            }
        }
        E::Hypot => a.hypot(b),
        E::Arctan2 => a.atan2(b),
        E::Ldexp => a * b.exp2(),
        E::Exp => a.exp(),
        E::Exp2 => a.exp2(),
        E::Expm1 => a.exp_m1(),
        E::Log => a.ln(),
        E::Log2 => a.log2(),
        E::Log10 => a.log10(),
        E::Log1p => a.ln_1p(),
        E::Logaddexp => a.max(b) + (-(a - b).abs()).exp().ln_1p(),
        E::Logaddexp2 => a.max(b) + (-(a - b).abs()).exp2().ln_1p() / 2f64.ln(),
        E::Sin => a.sin(),
        E::Cos => a.cos(),
        E::Tan => a.tan(),
        E::Arcsin => a.asin(),
        E::Arccos => a.acos(),
        E::Arctan => a.atan(),
        E::Sinh => a.sinh(),
        E::Cosh => a.cosh(),
        E::Tanh => a.tanh(),
        E::Arcsinh => a.asinh(),
        E::Arccosh => a.acosh(),
        E::Arctanh => a.atanh(),
        E::Deg2rad => a.to_radians(),
        E::Rad2deg => a.to_degrees(),
        E::Equal => is(a == b),
        E::NotEqual => is(a != b),
        E::Less => is(a < b),
        E::LessEqual => is(a <= b),
        E::Greater => is(a > b),
        E::GreaterEqual => is(a >= b),
        E::LogicalAnd => is(a != 0.0 && b != 0.0),
        E::LogicalOr => is(a != 0.0 || b != 0.0),
        E::LogicalXor => is((a != 0.0) != (b != 0.0)),
        E::LogicalNot => is(a == 0.0),
        E::Isnan => is(a.is_nan()),
        E::Isinf => is(a.is_infinite()),
        E::Isfinite => is(a.is_finite()),
        E::Signbit => is(a.is_sign_negative()),
        E::BitwiseAnd if !float => (integers.0 & integers.1) as f64,
        E::BitwiseOr if !float => (integers.0 | integers.1) as f64,
        E::BitwiseXor if !float => (integers.0 ^ integers.1) as f64,
        E::Select => {
            if a != 0.0 {
                x[1]
            } else {
                x[2]
            }
        }
        _ => return None,
    })
}

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
