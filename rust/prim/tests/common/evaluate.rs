//! Evaluates a graph one node after the other, every value an array of float64 (integers and bools too): the slow,
//! obvious meaning of every operation, for the tests of rules, of transforms and of the executor.

// Each test file uses a part of it.
#![allow(dead_code)]

use ckad_graph::online::Thinning;
use ckad_graph::{Call, CallKind, DType, DotAxes, Graph, NodeId, Op, ReduceKind, While};
use ckad_prim::Elementwise;

type Array = Vec<f64>;

pub fn outputs(graph: &Graph, inputs: &[Array]) -> Vec<Array> {
    evaluate(graph, inputs).expect("an operation of integers alone")
}

/// The same; `None` where an operation has no meaning in float64.
pub fn evaluate(graph: &Graph, inputs: &[Array]) -> Option<Vec<Array>> {
    let mut values: Vec<Array> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let value = node(graph, id, &values, inputs)?;
        assert_eq!(value.len(), graph.elements(id), "{}", ckad_prim::op_name(graph.op(id)));
        values.push(value);
    }
    Some(graph.outputs.iter().map(|output| values[output.index()].clone()).collect())
}

/// The elements that bytes hold.
pub fn decode(dtype: DType, bytes: &[u8]) -> Array {
    let element = |chunk: &[u8]| {
        let mut bits = [0; 8];
        bits[..chunk.len()].copy_from_slice(chunk);
        dtype.f64_of_bits(u64::from_le_bytes(bits))
    };
    bytes.chunks_exact(dtype.size()).map(element).collect()
}

fn extents(graph: &Graph, node: NodeId) -> Vec<usize> {
    graph.shape(node).iter().map(|&extent| extent as usize).collect()
}

/// Multi-indices of a shape in C order.
fn positions(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &extent in shape {
        all = all
            .into_iter()
            .flat_map(|prefix: Vec<usize>| {
                (0..extent).map(move |i| prefix.iter().copied().chain([i]).collect::<Vec<_>>())
            })
            .collect();
    }
    all
}

fn flat(shape: &[usize], position: &[usize]) -> usize {
    shape.iter().zip(position).fold(0, |flat, (&extent, &i)| flat * extent + i)
}

/// Position in an array of shape `from` that broadcasts to the shape of `position`.
fn broadcast_flat(from: &[usize], position: &[usize]) -> usize {
    let tail = &position[position.len() - from.len()..];
    flat(from, &from.iter().zip(tail).map(|(&extent, &i)| if extent == 1 { 0 } else { i }).collect::<Vec<_>>())
}

fn lmul(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// Threefry2x32 of 20 rounds, round by round as it is published.
fn threefry(key: u64, counter: u64) -> [u32; 2] {
    let (k0, k1) = ((key >> 32) as u32, key as u32);
    let keys = [k0, k1, 0x1bd1_1bda ^ k0 ^ k1];
    let (mut x, mut y) = (((counter >> 32) as u32).wrapping_add(k0), (counter as u32).wrapping_add(k1));
    for round in 0..20 {
        x = x.wrapping_add(y);
        y = y.rotate_left([13, 15, 26, 6, 17, 29, 16, 24][round % 8]) ^ x;
        if round % 4 == 3 {
            let turn = round / 4 + 1;
            x = x.wrapping_add(keys[turn % 3]);
            y = y.wrapping_add(keys[(turn + 1) % 3]).wrapping_add(turn as u32);
        }
    }
    [x, y]
}

fn node(graph: &Graph, node: NodeId, values: &[Array], inputs: &[Array]) -> Option<Array> {
    let shape = extents(graph, node);
    let operands = graph.operands(node);
    let operand = |index: usize| &values[operands[index].index()];
    let operand_shape = |index: usize| extents(graph, operands[index]);
    let list = |id| graph.lists.get(id).to_vec();
    let window = |strides, start: ckad_graph::StartId, shape: &[usize]| -> Vec<usize> {
        let (strides, start) = (list(strides), graph.starts[start.0 as usize]);
        let reach = |p: &Vec<usize>| p.iter().zip(&strides).map(|(&i, &s)| i as i64 * s).sum::<i64>();
        positions(shape).iter().map(|p| (start + reach(p)) as usize).collect()
    };
    // For each element of the selection, the flat position in operand 0; indices begin at operand `from`.
    let selection = |from: usize| -> Vec<usize> {
        let base = operand_shape(0);
        let count = operands.len() - from;
        let rest = positions(&base[count..]);
        let mut flats = Vec::new();
        for i in 0..operand(from).len() {
            let leading: Vec<usize> =
                (0..count).map(|k| operand(from + k)[i].rem_euclid(base[k] as f64) as usize).collect();
            flats.extend(rest.iter().map(|rest| flat(&base, &[&leading[..], rest].concat())));
        }
        flats
    };
    Some(match graph.op(node) {
        Op::Input(index) => inputs[index as usize].clone(),
        Op::Literal(bits) => vec![f64::from(f32::from_bits(bits))],
        Op::Scalar(index) => vec![graph.dtype(node).f64_of_bits(graph.scalars[index as usize])],
        Op::Constant(index) => decode(graph.dtype(node), graph.constants[index as usize].bytes()),
        Op::Iota { axis } => positions(&shape).iter().map(|p| p[axis as usize] as f64).collect(),
        Op::RandomBits => {
            let (key, first, dtype) = (operand(0)[0] as u64, operand(1)[0] as u64, graph.dtype(node));
            let bits = (0..positions(&shape).len() as u64).map(|i| threefry(key, first.wrapping_add(i)));
            let narrow = |[x, y]: [u32; 2]| match dtype {
                DType::U64 => u64::from(x) << 32 | u64::from(y),
                _ => u64::from(x ^ y) & ((1 << (8 * dtype.size())) - 1),
            };
            bits.map(|words| dtype.f64_of_bits(narrow(words))).collect()
        }
        Op::Elementwise(id) => positions(&shape)
            .iter()
            .map(|p| {
                let at = |k: usize| operands.get(k).map_or(0.0, |_| operand(k)[broadcast_flat(&operand_shape(k), p)]);
                row(Elementwise::from_id(id), at(0), at(1), at(2))
            })
            .collect::<Option<_>>()?,
        Op::Cast if graph.dtype(node).is_float() => operand(0).clone(),
        Op::Cast if graph.dtype(node) == DType::Bool => operand(0).iter().map(|&x| f64::from(x != 0.0)).collect(),
        Op::Cast => operand(0).iter().map(|x| x.trunc()).collect(),
        Op::StopGradient | Op::Reshape => operand(0).clone(),
        Op::Transpose { perm } => {
            let (perm, from) = (list(perm), operand_shape(0));
            let source = |p: &Vec<usize>| {
                let mut q = vec![0; p.len()];
                perm.iter().zip(p).for_each(|(&axis, &i)| q[axis as usize] = i);
                operand(0)[flat(&from, &q)]
            };
            positions(&shape).iter().map(source).collect()
        }
        Op::Broadcast => positions(&shape).iter().map(|p| operand(0)[broadcast_flat(&operand_shape(0), p)]).collect(),
        Op::StridedRead { strides, start } => window(strides, start, &shape).iter().map(|&at| operand(0)[at]).collect(),
        Op::StridedWrite { strides, start } => {
            let mut base = operand(0).clone();
            let places = window(strides, start, &operand_shape(1));
            places.iter().zip(operand(1)).for_each(|(&at, &value)| base[at] = value);
            base
        }
        Op::StridedAdd { strides, start } => {
            let mut base = operand(0).clone();
            let places = window(strides, start, &operand_shape(1));
            places.iter().zip(operand(1)).for_each(|(&at, &value)| base[at] += value);
            base
        }
        Op::Pad { widths } => {
            let (widths, inner) = (list(widths), operand_shape(0));
            let at = |p: &Vec<usize>| {
                let q: Vec<i64> = p.iter().enumerate().map(|(axis, &i)| i as i64 - widths[2 * axis]).collect();
                if q.iter().zip(&inner).all(|(&i, &extent)| (0..extent as i64).contains(&i)) {
                    operand(0)[flat(&inner, &q.iter().map(|&i| i as usize).collect::<Vec<_>>())]
                } else {
                    operand(1)[0]
                }
            };
            positions(&shape).iter().map(at).collect()
        }
        Op::Concatenate { axis } => {
            let at = |p: &Vec<usize>| {
                let mut q = p.clone();
                for k in 0..operands.len() {
                    let from = operand_shape(k);
                    if q[axis as usize] < from[axis as usize] {
                        return operand(k)[flat(&from, &q)];
                    }
                    q[axis as usize] -= from[axis as usize];
                }
                unreachable!()
            };
            positions(&shape).iter().map(at).collect()
        }
        Op::Gather { .. } => selection(1).iter().map(|&at| operand(0)[at]).collect(),
        Op::ScatterSet { .. } => {
            let mut base = operand(0).clone();
            selection(2).iter().zip(operand(1)).for_each(|(&at, &value)| base[at] = value);
            base
        }
        Op::ScatterAdd { .. } => {
            let mut base = operand(0).clone();
            selection(2).iter().zip(operand(1)).for_each(|(&at, &value)| base[at] += value);
            base
        }
        Op::Reduce { kind, axes } => {
            let axes: Vec<usize> = list(axes).iter().map(|&axis| axis as usize).collect();
            let from = operand_shape(0);
            let mut out: Vec<Option<f64>> = vec![None; shape.iter().product()];
            for p in positions(&from) {
                let kept: Vec<usize> = (0..p.len()).filter(|axis| !axes.contains(axis)).map(|axis| p[axis]).collect();
                let x = operand(0)[flat(&from, &p)];
                let place = &mut out[flat(&shape, &kept)];
                *place = Some(place.map_or(x, |sum| match kind {
                    ReduceKind::Sum => sum + x,
                    ReduceKind::Max => maximum(sum, x),
                    ReduceKind::Min => -maximum(-sum, -x),
                    ReduceKind::Any => f64::from(sum != 0.0 || x != 0.0),
                    ReduceKind::All => f64::from(sum != 0.0 && x != 0.0),
                }));
            }
            let empty = if kind == ReduceKind::All { 1.0 } else { 0.0 };
            out.into_iter().map(|x| x.unwrap_or(empty)).collect()
        }
        Op::ArgReduce { max, axis } => along(&operand_shape(0), axis.into(), operand(0), |line| {
            let better = |a: f64, b: f64| !b.is_nan() && (a.is_nan() || if max { a > b } else { a < b });
            let best = (1..line.len()).fold(0, |best, i| if better(line[i], line[best]) { i } else { best });
            vec![best as f64]
        }),
        Op::CumulativeSum { axis, reverse } => {
            along(&shape, axis.into(), operand(0), |line| recurrence(&vec![1.0; line.len()], line, reverse, false))
        }
        Op::LinearRecurrence { axis, reverse, absorb } => {
            let pairs: Vec<f64> = (0..operand(0).len()).map(|i| i as f64).collect();
            along(&shape, axis.into(), &pairs, |line| {
                let pick = |k: usize| line.iter().map(|&i| operand(k)[i as usize]).collect::<Vec<_>>();
                recurrence(&pick(0), &pick(1), reverse, absorb)
            })
        }
        Op::Argsort { axis } => along(&shape, axis.into(), operand(0), |line| {
            let mut order: Vec<usize> = (0..line.len()).collect();
            order
                .sort_by(|&i, &j| line[i].is_nan().cmp(&line[j].is_nan()).then(line[i].partial_cmp(&line[j]).unwrap()));
            order.iter().map(|&i| i as f64).collect()
        }),
        Op::Dot { axes, absorb } => dot(
            &DotAxes::read(&graph.lists, axes),
            absorb,
            [operand(0), operand(1)],
            [operand_shape(0), operand_shape(1)],
        ),
        Op::Accumulate => operand(0).iter().zip(operand(1)).map(|(a, b)| a + b).collect(),
        Op::Call(_) => Vec::new(),
        Op::Part(part) => {
            let call = operands[0];
            let given: Vec<Array> = graph.operands(call).iter().map(|id| values[id.index()].clone()).collect();
            parts(graph.call(call)?, &given)?.swap_remove(part as usize)
        }
    })
}

fn while_parts(call: &Call, looped: While, operands: &[Array]) -> Option<Vec<Array>> {
    let (tests, rest) = operands.split_at(looped.test_consts as usize);
    let (consts, first) = rest.split_at(looped.consts as usize);
    let (mut carried, mut count) = (first.to_vec(), 0.0);
    let mut thinning = Thinning::new(looped.slots as usize);
    let mut kept = vec![-1.0; looped.slots as usize];
    let mut states: Vec<Vec<Array>> =
        first.iter().map(|carry| vec![vec![0.0; carry.len()]; looped.slots as usize]).collect();
    while evaluate(&call.bodies[0], &[tests, &carried].concat())?[0][0] != 0.0 {
        if let Some(slot) = thinning.slot(count as u64) {
            kept[slot] = count;
            states.iter_mut().zip(&carried).for_each(|(slots, carry)| slots[slot] = carry.clone());
        }
        carried = evaluate(&call.bodies[1], &[consts, &carried].concat())?;
        count += 1.0;
    }
    carried.extend([vec![count], kept]);
    carried.extend(states.into_iter().map(|slots| slots.concat()));
    Some(carried)
}

/// All parts of a loop, one iteration after the other.
fn parts(call: &Call, operands: &[Array]) -> Option<Vec<Array>> {
    let scan = match call.kind {
        CallKind::Scan(scan) => scan,
        CallKind::While(looped) => return while_parts(call, looped, operands),
        CallKind::Branch(_) => return evaluate(&call.bodies[usize::from(operands[0][0] != 0.0)], &operands[1..]),
        CallKind::Reverse(_) | CallKind::Rewind(_) | CallKind::Custom(_) | CallKind::Pullback(_) => return None,
    };
    let (consts, carries, trips) = (scan.consts as usize, scan.carries as usize, scan.trips as usize);
    let mut carried = operands[consts..consts + carries].to_vec();
    let mut states = vec![vec![Array::new(); trips]; carries];
    let mut ys = vec![vec![Array::new(); trips]; scan.ys as usize];
    for turn in 0..trips {
        let index = if scan.reverse { trips - 1 - turn } else { turn };
        let slice = |x: &Array| x[index * x.len() / trips..(index + 1) * x.len() / trips].to_vec();
        let mut inputs = vec![vec![index as f64]];
        inputs.extend_from_slice(&operands[..consts]);
        inputs.extend_from_slice(&carried);
        inputs.extend(operands[consts + carries..].iter().map(slice));
        for (stack, state) in states.iter_mut().zip(&carried) {
            stack[index] = state.clone();
        }
        let mut given = evaluate(&call.bodies[0], &inputs)?;
        for (stack, y) in ys.iter_mut().zip(given.split_off(carries)) {
            stack[index] = y;
        }
        carried = given;
    }
    let stacked = ys.into_iter().chain(states).map(|stack| stack.concat());
    Some(carried.into_iter().chain(stacked).collect())
}

/// Applies `f` to every line along an axis; its result replaces the line (of whatever length).
fn along(shape: &[usize], axis: usize, x: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Array {
    let (outer, extent) = (shape[..axis].iter().product::<usize>(), shape[axis]);
    let inner: usize = shape[axis + 1..].iter().product();
    let mut out = Vec::new();
    for o in 0..outer {
        let lines: Vec<Vec<f64>> =
            (0..inner).map(|i| f(&(0..extent).map(|k| x[(o * extent + k) * inner + i]).collect::<Vec<_>>())).collect();
        let length = lines.first().map_or(0, Vec::len);
        out.extend((0..length).flat_map(|k| lines.iter().map(move |line| line[k])));
    }
    out
}

fn recurrence(a: &[f64], b: &[f64], reverse: bool, absorb: bool) -> Vec<f64> {
    let mut s = vec![0.0; b.len()];
    let order: Vec<usize> = if reverse { (0..b.len()).rev().collect() } else { (0..b.len()).collect() };
    for (step, &k) in order.iter().enumerate() {
        s[k] = b[k];
        if step > 0 {
            let last = s[order[step - 1]];
            s[k] += if absorb { lmul(a[k], last) } else { a[k] * last };
        }
    }
    s
}

fn dot(axes: &DotAxes, absorb: bool, values: [&Array; 2], shapes: [Vec<usize>; 2]) -> Array {
    let [lhs, rhs] = &shapes;
    let left = DotAxes::free(&axes.lhs_batch, &axes.lhs_contract, lhs.len());
    let right = DotAxes::free(&axes.rhs_batch, &axes.rhs_contract, rhs.len());
    let sizes = |axes: &[usize], shape: &[usize]| axes.iter().map(|&axis| shape[axis]).collect::<Vec<_>>();
    let (batch, contract) = (sizes(&axes.lhs_batch, lhs), sizes(&axes.lhs_contract, lhs));
    let mut out = Vec::new();
    for i in positions(&batch) {
        for j in positions(&sizes(&left, lhs)) {
            for k in positions(&sizes(&right, rhs)) {
                let sum = |absorb: bool| -> f64 {
                    let term = |c: &Vec<usize>| {
                        let (mut p, mut q) = (vec![0; lhs.len()], vec![0; rhs.len()]);
                        let put = |p: &mut Vec<usize>, axes: &[usize], i: &[usize]| {
                            axes.iter().zip(i).for_each(|(&axis, &i)| p[axis] = i);
                        };
                        put(&mut p, &axes.lhs_batch, &i);
                        put(&mut p, &left, &j);
                        put(&mut p, &axes.lhs_contract, c);
                        put(&mut q, &axes.rhs_batch, &i);
                        put(&mut q, &right, &k);
                        put(&mut q, &axes.rhs_contract, c);
                        let (x, y) = (values[0][flat(lhs, &p)], values[1][flat(rhs, &q)]);
                        if absorb { lmul(x, y) } else { x * y }
                    };
                    positions(&contract).iter().map(term).sum()
                };
                out.push(sum(absorb));
            }
        }
    }
    out
}

fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// A row of the table on numbers; some rows of integers alone, which have no derivative, are not here.
fn row(row: Elementwise, a: f64, b: f64, c: f64) -> Option<f64> {
    use Elementwise as E;
    let truth = f64::from;
    let integers = (a as i64, b as i64);
    Some(match row {
        E::Add => a + b,
        E::Subtract => a - b,
        E::Multiply => a * b,
        E::Divide => a / b,
        E::Lmul => lmul(a, b),
        E::Negative => -a,
        E::Absolute => a.abs(),
        E::Sign if a == 0.0 || a.is_nan() => a,
        E::Sign => a.signum(),
        E::Reciprocal => 1.0 / a,
        E::Square => a * a,
        E::Sqrt => a.sqrt(),
        E::Cbrt => a.cbrt(),
        E::Power => a.powf(b),
        E::FloorDivide => (a / b).floor(),
        E::Remainder => a - b * (a / b).floor(),
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
        E::Nextafter if a == b => b,
        E::Nextafter => {
            if (a < b) == (a >= 0.0) {
                f64::from_bits(a.to_bits() + 1)
            } else {
                f64::from_bits(a.to_bits() - 1)
            }
        }
        E::Spacing => f64::from_bits(a.to_bits() + 1) - a,
        E::Heaviside => {
            if a == 0.0 {
                b
            } else {
                truth(a > 0.0)
            }
        }
        E::Hypot => a.hypot(b),
        E::Arctan2 => a.atan2(b),
        E::Ldexp => a * b.trunc().exp2(),
        E::Exponent => a.abs().log2().floor() + 1.0,
        E::Exp => a.exp(),
        E::Exp2 => a.exp2(),
        E::Expm1 => a.exp_m1(),
        E::Log => a.ln(),
        E::Log2 => a.log2(),
        E::Log10 => a.log10(),
        E::Log1p => a.ln_1p(),
        E::Logaddexp | E::Logaddexp2 if a == b => a + if row == E::Logaddexp { std::f64::consts::LN_2 } else { 1.0 },
        E::Logaddexp => a.max(b) + (-(a - b).abs()).exp().ln_1p(),
        E::Logaddexp2 => a.max(b) + (-(a - b).abs()).exp2().ln_1p() / std::f64::consts::LN_2,
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
        E::Equal => truth(a == b),
        E::NotEqual => truth(a != b),
        E::Less => truth(a < b),
        E::LessEqual => truth(a <= b),
        E::Greater => truth(a > b),
        E::GreaterEqual => truth(a >= b),
        E::LogicalAnd => truth(a != 0.0 && b != 0.0),
        E::LogicalOr => truth(a != 0.0 || b != 0.0),
        E::LogicalXor => truth((a != 0.0) != (b != 0.0)),
        E::LogicalNot => truth(a == 0.0),
        E::Isnan => truth(a.is_nan()),
        E::Isinf => truth(a.is_infinite()),
        E::Isfinite => truth(a.is_finite()),
        E::Signbit => truth(a.is_sign_negative()),
        E::Select => {
            if a != 0.0 {
                b
            } else {
                c
            }
        }
        E::BitwiseAnd => (integers.0 & integers.1) as f64,
        E::BitwiseOr => (integers.0 | integers.1) as f64,
        E::BitwiseXor => (integers.0 ^ integers.1) as f64,
        E::Invert | E::LeftShift | E::RightShift | E::BitwiseCount | E::Gcd | E::Lcm => return None,
    })
}
