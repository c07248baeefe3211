//! Every structural kernel against naive loops, for all dtypes, ranks 0 to 4, empty arrays, scalars outside
//! buffers, in place and not, and on several numbers of threads.

use ckad_graph::{DType, ErrorKind, ListId, Op, StartId};

use super::testing::{Index, Node, Random, Value, add, flat, indices, multiply};

/// Shapes of rank 0 to 4, with axes of one element and of none.
const SHAPES: [&[usize]; 16] = [
    &[],
    &[0],
    &[1],
    &[7],
    &[100],
    &[3, 4],
    &[0, 3],
    &[3, 0],
    &[33, 65],
    &[2, 1, 3],
    &[5, 6, 7],
    &[2, 0, 3],
    &[2, 3, 4, 5],
    &[1, 1, 1, 1],
    &[3, 1, 5, 2],
    &[2, 3, 0, 1],
];
/// Shapes that are cut into pieces.
const LARGE: [&[usize]; 4] = [&[150_000], &[300, 450], &[70, 3, 700], &[2, 90_000]];

/// All shapes for all dtypes, the large ones for a few.
fn each(mut test: impl FnMut(DType, &[usize], &mut Random)) {
    let mut random = Random(0x9e37_79b9);
    for dtype in DType::ALL {
        for shape in SHAPES {
            test(dtype, shape, &mut random);
        }
        if [DType::Bool, DType::F32, DType::F64].contains(&dtype) {
            for shape in LARGE {
                test(dtype, shape, &mut random);
            }
        }
    }
}

fn permutations(rank: usize) -> Vec<Vec<usize>> {
    if rank == 0 {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for shorter in permutations(rank - 1) {
        for place in 0..rank {
            let mut longer = shorter.clone();
            longer.insert(place, rank - 1);
            all.push(longer);
        }
    }
    all
}

fn signed(list: &[usize]) -> Vec<i64> {
    list.iter().map(|&entry| entry as i64).collect()
}

/// Strides over `shape`, a start, and the size of a memory that holds all their positions.
fn random_walk(shape: &[usize], random: &mut Random) -> (Vec<i64>, i64, usize) {
    let strides: Vec<i64> = shape.iter().map(|_| random.below(13) as i64 - 6).collect();
    let span = |sign: i64| -> i64 {
        let reach = shape.iter().zip(&strides).map(|(&extent, stride)| (extent as i64 - 1).max(0) * stride);
        reach.filter(|reach| reach * sign > 0).sum()
    };
    let before = random.below(3) as i64;
    let start = before - span(-1);
    let memory = start + span(1) + 1 + random.below(3) as i64;
    (strides, start, memory as usize)
}

/// The same with positions that are all different: a permuted, partly reversed box in steps of `step`.
fn distinct_walk(shape: &[usize], random: &mut Random) -> (Vec<i64>, i64, usize) {
    let mut order: Vec<usize> = (0..shape.len()).collect();
    random.shuffle(&mut order);
    let mut strides = vec![0; shape.len()];
    let (mut stride, mut start) = (1 + random.below(2) as i64, random.below(2) as i64);
    for axis in order {
        strides[axis] = stride;
        stride *= shape[axis].max(1) as i64 + random.below(2) as i64;
        if random.below(3) == 0 {
            start += strides[axis] * (shape[axis] as i64 - 1).max(0);
            strides[axis] *= -1;
        }
    }
    (strides, start, (stride + 3) as usize)
}

fn position(index: &[usize], strides: &[i64], start: i64) -> usize {
    (start + index.iter().zip(strides).map(|(&index, stride)| index as i64 * stride).sum::<i64>()) as usize
}

#[test]
fn reshape_and_stop_gradient_copy() {
    each(|dtype, shape, random| {
        let x = Value::any(dtype, shape, random);
        Node::new(Op::StopGradient).check(&[&x], &x);
        let other: Vec<usize> = [&[1], &shape.iter().rev().copied().collect::<Vec<_>>()[..]].concat();
        Node::new(Op::Reshape).check(&[&x], &Value { shape: other, ..x.clone() });
    });
}

#[test]
fn transpose_by_every_permutation() {
    each(|dtype, shape, random| {
        let x = Value::any(dtype, shape, random);
        for permutation in permutations(shape.len()) {
            let result: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
            let mut from = indices(&result).map(|index| {
                let mut source = index;
                permutation.iter().zip(&*index).for_each(|(&axis, &index)| source[axis] = index);
                x.at(&source)
            });
            let expected = Value::new(dtype, &result, |_| from.next().unwrap());
            Node::with(Op::Transpose { perm: ListId::EMPTY }, &signed(&permutation)).check(&[&x], &expected);
        }
    });
}

#[test]
fn broadcast_of_every_set_of_axes() {
    each(|dtype, shape, random| {
        for kept in 0..1usize << shape.len() {
            let narrow: Vec<usize> = shape
                .iter()
                .enumerate()
                .map(|(axis, &extent)| if kept >> axis & 1 == 1 { extent } else { 1 })
                .collect();
            // Leading axes of one element may be missing.
            let missing = narrow.iter().take_while(|extent| **extent == 1).count();
            for narrow in [&narrow[..], &narrow[missing..]] {
                let x = Value::any(dtype, narrow, random);
                let mut from = indices(shape).map(|index| {
                    let index = &index[shape.len() - narrow.len()..];
                    let source = index.iter().zip(narrow);
                    x.at(&Index::of(source.map(|(&index, &extent)| if extent == 1 { 0 } else { index })))
                });
                let expected = Value::new(dtype, shape, |_| from.next().unwrap());
                Node::new(Op::Broadcast).check(&[&x], &expected);
            }
        }
    });
}

#[test]
fn strided_read_write_and_add() {
    let (strides_of, start_of) = (ListId::EMPTY, StartId(0));
    each(|dtype, shape, random| {
        let turns = if shape.iter().product::<usize>() > 10_000 { 1 } else { 4 };
        for _ in 0..turns {
            let (strides, start, memory) = random_walk(shape, random);
            let x = Value::any(dtype, &[memory], random);
            let mut from = indices(shape).map(|index| x.bits[position(&index, &strides, start)]);
            let expected = Value::new(dtype, shape, |_| from.next().unwrap());
            let read = Op::StridedRead { strides: strides_of, start: start_of };
            Node::strided(read, &strides, start).check(&[&x], &expected);

            let (base, value) = (Value::whole(dtype, &[memory], random), Value::whole(dtype, shape, random));
            let mut expected = base.clone();
            for (flat, index) in indices(shape).enumerate() {
                let place = &mut expected.bits[position(&index, &strides, start)];
                *place = add(dtype, *place, value.bits[flat]);
            }
            let onto = Op::StridedAdd { strides: strides_of, start: start_of };
            Node::strided(onto, &strides, start).check(&[&base, &value], &expected);

            let (strides, start, memory) = distinct_walk(shape, random);
            let (base, value) = (Value::any(dtype, &[memory], random), Value::any(dtype, shape, random));
            let mut expected = base.clone();
            for (flat, index) in indices(shape).enumerate() {
                expected.bits[position(&index, &strides, start)] = value.bits[flat];
            }
            let write = Op::StridedWrite { strides: strides_of, start: start_of };
            Node::strided(write, &strides, start).check(&[&base, &value], &expected);
        }
    });
}

/// Broadcast reads and sliding windows transposed: the sums that gradients are made of.
#[test]
fn strided_add_onto_repeated_positions() {
    let mut random = Random(77);
    let op = Op::StridedAdd { strides: ListId::EMPTY, start: StartId(0) };
    let walks: [(&[usize], &[i64]); 12] = [
        (&[300, 500], &[0, 1]),
        (&[300, 500], &[1, 0]),
        (&[100_000], &[0]),
        (&[70, 3, 900], &[0, 0, 0]),
        (&[70, 30, 40], &[0, 40, 1]),
        (&[70, 30, 40], &[1, 0, 70]),
        (&[5000, 33], &[1, 1]),
        (&[33, 5000], &[1, 1]),
        (&[400, 7, 60], &[60, 60, 1]),
        (&[90, 90, 3, 3], &[92, 1, 92, 1]),
        (&[200_000], &[-2]),
        (&[2, 100_000], &[3, -1]),
    ];
    for (shape, strides) in walks {
        let least: i64 = shape.iter().zip(strides).map(|(&extent, &stride)| (extent as i64 - 1) * stride.min(0)).sum();
        let greatest: i64 =
            shape.iter().zip(strides).map(|(&extent, &stride)| (extent as i64 - 1) * stride.max(0)).sum();
        for dtype in [DType::F32, DType::F64, DType::I8] {
            let base = Value::whole(dtype, &[(greatest - least + 1) as usize], &mut random);
            let value = Value::whole(dtype, shape, &mut random);
            let mut expected = base.clone();
            for (flat, index) in indices(shape).enumerate() {
                let place = &mut expected.bits[position(&index, strides, -least)];
                *place = add(dtype, *place, value.bits[flat]);
            }
            Node::strided(op, strides, -least).check(&[&base, &value], &expected);
        }
        // Sums that are rounded: whatever their order, it is the same on any number of threads.
        let base = Value::rough(DType::F32, &[(greatest - least + 1) as usize], &mut random);
        let value = Value::rough(DType::F32, shape, &mut random);
        let node = Node::strided(op, strides, -least);
        let alone = node.run(&[&base, &value], DType::F32, &base.shape, 1).unwrap();
        node.check(&[&base, &value], &alone);
    }
    // A million values pairwise: as good as rounded once or twice.
    let (base, value) = (Value::floats(DType::F32, &[1], &[0.0]), Value::rough(DType::F32, &[1_000_000], &mut random));
    let sum = Node::strided(op, &[0], 0).run(&[&base, &value], DType::F32, &[1], 2).unwrap().f64s()[0];
    let exact: f64 = value.f64s().iter().sum();
    assert!((sum - exact).abs() < 1e-3, "{sum} is not {exact}");
}

#[test]
fn positions_outside_the_memory_are_refused() {
    let (strides, start) = (ListId::EMPTY, StartId(0));
    let memory = Value::floats(DType::F32, &[6], &[1.0; 6]);
    let value = Value::floats(DType::F32, &[2, 2], &[2.0; 4]);
    for (list, first) in [([2, 1], 4), ([2, 1], -1), ([-2, 1], 1), ([i64::MAX, 1], 0), ([i64::MIN, 0], 5)] {
        let read = Node::strided(Op::StridedRead { strides, start }, &list, first);
        assert_eq!(read.refusal(&[&memory], DType::F32, &[2, 2]).kind, ErrorKind::Internal);
        for op in [Op::StridedWrite { strides, start }, Op::StridedAdd { strides, start }] {
            let node = Node::strided(op, &list, first);
            assert_eq!(node.refusal(&[&memory, &value], DType::F32, &[6]).kind, ErrorKind::Internal);
        }
    }
}

#[test]
fn pad_on_every_side() {
    each(|dtype, shape, random| {
        for widest in [1, 4] {
            let widths: Vec<usize> = shape.iter().flat_map(|_| [random.below(widest), random.below(widest)]).collect();
            let (x, fill) = (Value::any(dtype, shape, random), Value::any(dtype, &[], random));
            let result: Vec<usize> =
                shape.iter().zip(widths.chunks(2)).map(|(extent, width)| width[0] + extent + width[1]).collect();
            let mut expected = Value::new(dtype, &result, |_| fill.bits[0]);
            for (from, index) in indices(shape).enumerate() {
                let place = Index::of(index.iter().zip(widths.chunks(2)).map(|(i, width)| i + width[0]));
                expected.bits[flat(&place, &result)] = x.bits[from];
            }
            Node::with(Op::Pad { widths: ListId::EMPTY }, &signed(&widths)).check(&[&x, &fill], &expected);
        }
    });
}

#[test]
fn concatenate_along_every_axis() {
    each(|dtype, shape, random| {
        for axis in 0..shape.len() {
            for count in 1..=3 {
                let mut parts = Vec::new();
                for _ in 0..count {
                    let mut shape = shape.to_vec();
                    if count > 1 {
                        shape[axis] = random.below(4);
                    }
                    parts.push(Value::any(dtype, &shape, random));
                }
                let mut result = shape.to_vec();
                result[axis] = parts.iter().map(|part| part.shape[axis]).sum();
                let mut from = indices(&result).map(|mut index| {
                    for part in &parts {
                        if index[axis] < part.shape[axis] {
                            return part.at(&index);
                        }
                        index[axis] -= part.shape[axis];
                    }
                    unreachable!("the parts fill the result")
                });
                let expected = Value::new(dtype, &result, |_| from.next().unwrap());
                let operands: Vec<&Value> = parts.iter().collect();
                Node::new(Op::Concatenate { axis: axis as u8 }).check(&operands, &expected);
            }
        }
    });
}

/// Index arrays over the leading `count` axes of `shape`, negative ones among them.
fn random_indices(shape: &[usize], count: usize, over: &[usize], random: &mut Random) -> Vec<Value> {
    (0..count)
        .map(|axis| {
            Value::new(DType::I64, over, |_| (random.below(2 * shape[axis]) as i64 - shape[axis] as i64) as u64)
        })
        .collect()
}

/// The flat positions of the rows that index tuples name.
fn rows_of(tables: &[Value], shape: &[usize], tuples: usize, row: usize) -> Vec<usize> {
    (0..tuples)
        .map(|tuple| {
            let entries = tables.iter().zip(shape);
            let index = entries.map(|(table, &extent)| (table.bits[tuple] as i64).rem_euclid(extent as i64) as usize);
            flat(&Index::of(index), shape) * row
        })
        .collect()
}

#[test]
fn gather_and_scatter() {
    each(|dtype, shape, random| {
        for count in 0..=shape.len() {
            for over in [&[][..], &[6], &[2, 3], &[0], &[9000]] {
                let row: usize = shape[count..].iter().product();
                let tuples: usize = if count == 0 { 1 } else { over.iter().product() };
                let over = if count == 0 { &[][..] } else { over };
                // Rows of many elements are few, and an empty axis takes no index.
                if row * tuples > 300_000 || (tuples > 0 && shape[..count].contains(&0)) {
                    continue;
                }
                // One dtype for what takes long.
                if dtype != DType::F32 && (tuples > 1000 || shape.iter().product::<usize>() > 100_000) {
                    continue;
                }
                let tables = if tuples == 0 {
                    vec![Value::indices(over, &[]); count]
                } else {
                    random_indices(shape, count, over, random)
                };
                let rows = rows_of(&tables, shape, tuples, row);
                let result = [over, &shape[count..]].concat();
                let indices = count as u8;

                let x = Value::whole(dtype, shape, random);
                let at = |flat: usize| rows[flat / row] + flat % row;
                let expected = Value::new(dtype, &result, |flat| x.bits[at(flat)]);
                let operands: Vec<&Value> = std::iter::once(&x).chain(&tables).collect();
                Node::new(Op::Gather { indices }).check(&operands, &expected);

                let value = Value::whole(dtype, &result, random);
                let operands: Vec<&Value> = [&x, &value].into_iter().chain(&tables).collect();
                let (mut set, mut added) = (x.clone(), x.clone());
                for (flat, &bits) in value.bits.iter().enumerate() {
                    set.bits[at(flat)] = bits;
                    added.bits[at(flat)] = add(dtype, added.bits[at(flat)], bits);
                }
                Node::new(Op::ScatterSet { indices }).check(&operands, &set);
                Node::new(Op::ScatterAdd { indices }).check(&operands, &added);
            }
        }
    });
}

/// Duplicates are added in turn, so that rounded sums are those of a loop over the tuples.
#[test]
fn scatter_add_takes_duplicates_in_turn() {
    let mut random = Random(5);
    for (shape, tuples) in [(vec![3], 100_000), (vec![7, 100], 3000), (vec![2, 70_000], 3)] {
        let (base, row) = (Value::rough(DType::F32, &shape, &mut random), shape[1..].iter().product::<usize>());
        let table = random_indices(&shape, 1, &[tuples], &mut random);
        let value = Value::rough(DType::F32, &[&[tuples], &shape[1..]].concat(), &mut random);
        let rows = rows_of(&table, &shape, tuples, row);
        let mut expected = base.clone();
        for (from, &bits) in value.bits.iter().enumerate() {
            let place = &mut expected.bits[rows[from / row] + from % row];
            *place = add(DType::F32, *place, bits);
        }
        Node::new(Op::ScatterAdd { indices: 1 }).check(&[&base, &value, &table[0]], &expected);
    }
}

#[test]
fn indices_out_of_range_are_numpys_error() {
    let x = Value::floats(DType::F64, &[3, 2], &[0.0; 6]);
    let value = Value::floats(DType::F64, &[2], &[1.0; 2]);
    let empty = Value::floats(DType::F64, &[0, 2], &[]);
    let fine = Value::indices(&[2], &[0, -2]);
    let cases: [(&Value, [i64; 2], usize, &str); 5] = [
        (&x, [1, 3], 0, "index 3 is out of bounds for axis 0 with size 3"),
        (&x, [-4, 7], 0, "index -4 is out of bounds for axis 0 with size 3"),
        (&x, [1, 2], 1, "index 2 is out of bounds for axis 1 with size 2"),
        (&x, [0, i64::MIN], 1, "index -9223372036854775808 is out of bounds for axis 1 with size 2"),
        (&empty, [0, 0], 0, "index 0 is out of bounds for axis 0 with size 0"),
    ];
    for (x, wrong, axis, what) in cases {
        let wrong = Value::indices(&[2], &wrong);
        let tables = if axis == 0 { [&wrong, &fine] } else { [&fine, &wrong] };
        let gather = Node::new(Op::Gather { indices: 2 });
        let scatter = [Op::ScatterSet { indices: 2 }, Op::ScatterAdd { indices: 2 }].map(Node::new);
        let mut errors = vec![gather.refusal(&[x, tables[0], tables[1]], DType::F64, &[2])];
        for node in &scatter {
            errors.push(node.refusal(&[x, &value, tables[0], tables[1]], DType::F64, &x.shape));
        }
        for error in errors {
            assert_eq!((error.kind, error.what.as_str()), (ErrorKind::Index, what));
        }
    }
    // Of many, the first is named, whichever thread finds one first.
    let many = Value::new(DType::I64, &[400_000], |flat| if flat < 70_000 { 0 } else { flat as u64 });
    let error = Node::new(Op::Gather { indices: 1 }).run(&[&value, &many], DType::F64, &[400_000], 5).unwrap_err();
    assert_eq!(error.what, "index 70000 is out of bounds for axis 0 with size 2");
}

#[test]
fn iota_along_every_axis() {
    each(|dtype, shape, _| {
        for axis in 0..shape.len() {
            let mut from = indices(shape).map(|index| dtype.bits_of_i64(index[axis] as i64));
            let expected = Value::new(dtype, shape, |_| from.next().unwrap());
            Node::new(Op::Iota { axis: axis as u8 }).check(&[], &expected);
        }
    });
}

#[test]
fn accumulate_adds() {
    each(|dtype, shape, random| {
        let (base, value) = (Value::whole(dtype, shape, random), Value::whole(dtype, shape, random));
        let expected = Value::new(dtype, shape, |flat| add(dtype, base.bits[flat], value.bits[flat]));
        Node::new(Op::Accumulate).check(&[&base, &value], &expected);
    });
}

/// For each axis of a shape: every lane along it, as flat positions.
fn lanes(shape: &[usize], axis: usize) -> Vec<Vec<usize>> {
    let mut across = shape.to_vec();
    across[axis] = 1;
    indices(&across)
        .map(|mut index| {
            (0..shape[axis])
                .map(|k| {
                    index[axis] = k;
                    flat(&index, shape)
                })
                .collect()
        })
        .collect()
}

#[test]
fn cumulative_sum_and_linear_recurrence() {
    each(|dtype, shape, random| {
        for axis in 0..shape.len() {
            let mut a = Value::whole(dtype, shape, random);
            let b = Value::whole(dtype, shape, random);
            if dtype.is_float() {
                // Halves keep the state small. Zeros and infinities, along odd axes, meet in absorbing products.
                let kinds = 5 + axis % 2;
                let factors = [0.5, -0.5, 0.0, -0.0, 0.25, f64::INFINITY];
                a = Value::new(dtype, shape, |_| dtype.bits_of_f64(factors[random.below(kinds)]));
            }
            for reverse in [false, true] {
                let mut expected = b.clone();
                let mut plain = b.clone();
                let mut absorbing = b.clone();
                for mut lane in lanes(shape, axis) {
                    if reverse {
                        lane.reverse();
                    }
                    for pair in lane.windows(2) {
                        let (before, here) = (pair[0], pair[1]);
                        expected.bits[here] = add(dtype, expected.bits[before], b.bits[here]);
                        let product = multiply(dtype, a.bits[here], plain.bits[before]);
                        plain.bits[here] = add(dtype, product, b.bits[here]);
                        let zero = |bits| dtype.f64_of_bits(bits) == 0.0;
                        let absorbs = zero(a.bits[here]) || zero(absorbing.bits[before]);
                        let product = multiply(dtype, a.bits[here], absorbing.bits[before]);
                        absorbing.bits[here] = add(dtype, if absorbs { 0 } else { product }, b.bits[here]);
                    }
                }
                let axis = axis as u8;
                Node::new(Op::CumulativeSum { axis, reverse }).check(&[&b], &expected);
                // A NaN's bits are the processor's business.
                if !plain.f64s().iter().any(|value| value.is_nan()) {
                    Node::new(Op::LinearRecurrence { axis, reverse, absorb: false }).check(&[&a, &b], &plain);
                }
                if !absorbing.f64s().iter().any(|value| value.is_nan()) {
                    Node::new(Op::LinearRecurrence { axis, reverse, absorb: true }).check(&[&a, &b], &absorbing);
                }
            }
        }
    });
}

#[test]
fn linear_recurrence_absorbs_on_request() {
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    for dtype in [DType::F32, DType::F64] {
        let a = Value::floats(dtype, &[5], &[nan, 0.0, 2.0, nan, infinity]);
        let b = Value::floats(dtype, &[5], &[infinity, 3.0, -6.0, 0.0, 1.0]);
        // Whatever a₀ is, nobody reads it.
        let node = |absorb| Node::new(Op::LinearRecurrence { axis: 0, reverse: false, absorb });
        node(true).check(&[&a, &b], &Value::floats(dtype, &[5], &[infinity, 3.0, 0.0, 0.0, 1.0]));
        let plain = node(false).run(&[&a, &b], dtype, &[5], 1).unwrap().f64s();
        assert!(plain[0] == infinity && plain[1..].iter().all(|value| value.is_nan()));
        let reverse = Node::new(Op::LinearRecurrence { axis: 0, reverse: true, absorb: true });
        let a = Value::floats(dtype, &[3], &[0.0, infinity, nan]);
        let b = Value::floats(dtype, &[3], &[5.0, 0.0, 2.0]);
        reverse.check(&[&a, &b], &Value::floats(dtype, &[3], &[5.0, infinity, 2.0]));
    }
}

/// float32 sums are those of float64, rounded once each.
#[test]
fn cumulative_sum_of_float32_is_rounded_once() {
    let mut random = Random(21);
    for (shape, axis) in [(vec![200_000], 0), (vec![500, 130], 0), (vec![130, 500], 1)] {
        let x = Value::rough(DType::F32, &shape, &mut random);
        let values = x.f64s();
        let mut expected = x.clone();
        for lane in lanes(&shape, axis) {
            let mut sum = -0.0;
            for place in lane {
                sum += values[place];
                expected.bits[place] = DType::F32.bits_of_f64(sum);
            }
        }
        Node::new(Op::CumulativeSum { axis: axis as u8, reverse: false }).check(&[&x], &expected);
    }
}

/// Few distinct values, so that there are ties; NaNs, both zeros and infinities among the floats.
fn with_ties(dtype: DType, shape: &[usize], nans: bool, random: &mut Random) -> Value {
    let special = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, -f64::NAN];
    Value::new(dtype, shape, |_| {
        let value = if dtype.is_float() && random.below(3) == 0 {
            special[if nans { random.below(6) } else { 1 + random.below(4) }]
        } else {
            random.below(40) as f64 - if dtype.is_signed() { 20.0 } else { 0.0 }
        };
        dtype.bits_of_f64(value)
    })
}

/// The order of two elements, equal where neither is less; NaN counts as `nan`.
fn order(dtype: DType, a: u64, b: u64, nan: f64) -> std::cmp::Ordering {
    match dtype {
        DType::U64 => a.cmp(&b),
        DType::F32 | DType::F64 => {
            let key = |bits| {
                let value = dtype.f64_of_bits(bits);
                if value.is_nan() { (nan, 1) } else { (value, 0) }
            };
            let ((a, a_nan), (b, b_nan)) = (key(a), key(b));
            a.partial_cmp(&b).unwrap().then(if nan > 0.0 { a_nan.cmp(&b_nan) } else { b_nan.cmp(&a_nan) })
        }
        _ => dtype.i64_of_bits(a).cmp(&dtype.i64_of_bits(b)),
    }
}

#[test]
fn arg_reduce_finds_the_first() {
    each(|dtype, shape, random| {
        for axis in 0..shape.len() {
            let mut result = shape.to_vec();
            result.remove(axis);
            for (max, nans) in [(true, true), (true, false), (false, true), (false, false)] {
                let x = with_ties(dtype, shape, nans, random);
                let node = Node::new(Op::ArgReduce { max, axis: axis as u8 });
                if shape[axis] == 0 && !result.contains(&0) {
                    let error = node.refusal(&[&x], DType::I64, &result);
                    let name = if max { "argmax" } else { "argmin" };
                    assert_eq!(error.what, format!("attempt to get {name} of an empty sequence"));
                    assert_eq!(error.kind, ErrorKind::Value);
                    continue;
                }
                let nan = if max { f64::INFINITY } else { f64::NEG_INFINITY };
                let mut from = lanes(shape, axis).into_iter().map(|lane| {
                    let mut best = 0;
                    for k in 1..lane.len() {
                        let ordering = order(dtype, x.bits[lane[k]], x.bits[lane[best]], nan);
                        if ordering == if max { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less } {
                            best = k;
                        }
                    }
                    best as u64
                });
                let expected = Value::new(DType::I64, &result, |_| from.next().unwrap());
                node.check(&[&x], &expected);
            }
        }
    });
}

#[test]
fn argsort_is_stable_with_nan_last() {
    let check = |dtype: DType, shape: &[usize], random: &mut Random| {
        for axis in 0..shape.len() {
            let x = with_ties(dtype, shape, true, random);
            let mut expected = Value::indices(shape, &vec![0; x.bits.len()]);
            for lane in lanes(shape, axis) {
                let mut sorted: Vec<usize> = (0..lane.len()).collect();
                sorted.sort_by(|&i, &j| order(dtype, x.bits[lane[i]], x.bits[lane[j]], f64::INFINITY));
                for (&place, index) in lane.iter().zip(sorted) {
                    expected.bits[place] = index as u64;
                }
            }
            Node::new(Op::Argsort { axis: axis as u8 }).check(&[&x], &expected);
        }
    };
    each(check);
    // Runs that are merged: whole, odd and barely more than one.
    let mut random = Random(99);
    for shape in [&[8193][..], &[16384], &[40_000, 3], &[3, 24_577]] {
        check(DType::F32, shape, &mut random);
        check(DType::U64, shape, &mut random);
    }
}

/// Every kernel with enough work looks at the flag.
#[test]
fn a_cancelled_run_is_interrupted() {
    let (x, index) = (Value::floats(DType::F32, &[9], &[1.0; 9]), Value::indices(&[9], &[0; 9]));
    let (list, start) = (ListId::EMPTY, StartId(0));
    let cases: Vec<(Node, Vec<&Value>, DType)> = vec![
        (Node::new(Op::Reshape), vec![&x], DType::F32),
        (Node::with(Op::Transpose { perm: list }, &[0]), vec![&x], DType::F32),
        (Node::new(Op::Broadcast), vec![&x], DType::F32),
        (Node::strided(Op::StridedRead { strides: list, start }, &[-1], 8), vec![&x], DType::F32),
        (Node::strided(Op::StridedAdd { strides: list, start }, &[0], 8), vec![&x, &x], DType::F32),
        (Node::new(Op::Concatenate { axis: 0 }), vec![&x], DType::F32),
        (Node::new(Op::Gather { indices: 1 }), vec![&x, &index], DType::F32),
        (Node::new(Op::ScatterAdd { indices: 1 }), vec![&x, &x, &index], DType::F32),
        (Node::new(Op::ArgReduce { max: true, axis: 1 }), vec![], DType::I64),
        (Node::new(Op::CumulativeSum { axis: 0, reverse: false }), vec![&x], DType::F32),
        (Node::new(Op::Argsort { axis: 0 }), vec![&x], DType::I64),
        (Node::new(Op::Accumulate), vec![&x, &x], DType::F32),
        (Node::with(Op::Dot { axes: list, absorb: false }, &[1, 0, 0, 0]), vec![&x, &x], DType::F32),
    ];
    let columns = Value::floats(DType::F32, &[9, 1], &[1.0; 9]);
    for (node, operands, dtype) in cases {
        let operands = if operands.is_empty() { vec![&columns] } else { operands };
        assert_eq!(node.cancelled(&operands, dtype, &[9]).unwrap_err().kind, ErrorKind::Interrupted, "{node:?}");
    }
}

/// What an earlier stage got wrong is an error, never a wild access.
#[test]
fn shapes_and_dtypes_that_do_not_fit_are_refused() {
    let (x, short) = (Value::floats(DType::F32, &[2, 3], &[0.0; 6]), Value::floats(DType::F32, &[2], &[0.0; 2]));
    let other = Value::floats(DType::F64, &[2, 3], &[0.0; 6]);
    let list = ListId::EMPTY;
    let cases: Vec<(Node, Vec<&Value>, DType, Vec<usize>)> = vec![
        (Node::new(Op::Reshape), vec![&x], DType::F32, vec![5]),
        (Node::with(Op::Transpose { perm: list }, &[0, 1]), vec![&x], DType::F32, vec![3, 2]),
        (Node::with(Op::Transpose { perm: list }, &[1, 1]), vec![&x], DType::F32, vec![3, 3]),
        (Node::with(Op::Transpose { perm: list }, &[2, 1]), vec![&x], DType::F32, vec![2, 3]),
        (Node::new(Op::Broadcast), vec![&x], DType::F32, vec![2, 4]),
        (Node::new(Op::Broadcast), vec![&x], DType::F32, vec![6]),
        (Node::with(Op::Pad { widths: list }, &[0, 1, 0, 0]), vec![&x, &short], DType::F32, vec![3, 3]),
        (Node::new(Op::Concatenate { axis: 2 }), vec![&x], DType::F32, vec![2, 3]),
        (Node::new(Op::Concatenate { axis: 0 }), vec![&x], DType::F32, vec![3, 3]),
        (Node::new(Op::Gather { indices: 1 }), vec![&x, &other], DType::F32, vec![6, 3]),
        (Node::new(Op::ArgReduce { max: true, axis: 0 }), vec![&x], DType::F32, vec![3]),
        (Node::new(Op::ArgReduce { max: true, axis: 5 }), vec![&x], DType::I64, vec![3]),
        (Node::new(Op::Argsort { axis: 0 }), vec![&x], DType::F32, vec![2, 3]),
        (Node::new(Op::Iota { axis: 1 }), vec![], DType::F32, vec![3]),
        (Node::new(Op::CumulativeSum { axis: 0, reverse: false }), vec![&x], DType::F32, vec![7]),
        (Node::new(Op::Accumulate), vec![&x, &other], DType::F32, vec![2, 3]),
        (Node::with(Op::Dot { axes: list, absorb: false }, &[0, 1, 1, 0]), vec![&x, &short], DType::F32, vec![2]),
        (Node::with(Op::Dot { axes: list, absorb: false }, &[0, 1, -1, 0]), vec![&x, &short], DType::F32, vec![2]),
        (Node::with(Op::Dot { axes: list, absorb: false }, &[3]), vec![&x, &short], DType::F32, vec![2]),
    ];
    for (node, operands, dtype, shape) in cases {
        let result = node.run(&operands, dtype, &shape, 1);
        assert_eq!(result.unwrap_err().kind, ErrorKind::Internal, "{node:?} → {shape:?}");
    }
}
