//! Dot products of every arrangement against naive loops, and against themselves on other threads, instruction
//! sets, layouts and cuts: checkpointing relies on equal bits.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, ListId, Op};
use ckad_plan::program::{ArrayRef, BufferId, Source};

use super::library::{self, portable};
use super::panels::Cut;
use super::{Matrices, dot_with, scratch_bytes};
use crate::isa::Isa;
use crate::parallel::Shared;
use crate::structural::array::{Array, elements};
use crate::structural::number::Float;
use crate::structural::testing::{Buffer, Index, Node, Random, Value, add, flat, indices, multiply, pool};
use crate::team::together;
use crate::{Environment, Memory};

/// The axes of a dot product as the list that a program holds.
fn list(batch: [&[usize]; 2], contract: [&[usize]; 2]) -> Vec<i64> {
    let counts = [batch[0].len(), contract[0].len()];
    counts.iter().chain(batch.into_iter().chain(contract).flatten()).map(|&entry| entry as i64).collect()
}

fn environment<'a>(buffers: &'a [Memory], scratch: Memory, cancel: &'a AtomicBool) -> Environment<'a> {
    Environment { buffers, blocks: &[], ahead: None, scalars: &[], starts: &[], scratch, cancel, poll: None }
}

/// The product of two matrices that are stored as `layout` says: bit 0 set, a is transposed; bit 1, b.
fn matrix_list(layout: usize) -> Vec<i64> {
    list([&[], &[]], [&[1 - (layout & 1)], &[layout >> 1]])
}

/// `dot` on an instruction set and a number of threads.
fn dot_on(isa: Isa, threads: usize, absorb: bool, list: &[i64], a: &Value, b: &Value, shape: &[usize]) -> Value {
    let dtype = a.dtype;
    let mut buffers = [Buffer::of(a), Buffer::of(b), Buffer::filled(elements(shape) * dtype.size())];
    let mut scratch = Buffer::filled(scratch_bytes(list, dtype, &a.shape, &b.shape, shape, threads));
    let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
    let cancel = AtomicBool::new(false);
    let environment = environment(&memories, scratch.memory(), &cancel);
    let array =
        |id: u32, shape: &[usize]| ArrayRef { source: Source::Buffer(BufferId(id)), dtype, shape: shape.into() };
    let references = [array(0, &a.shape), array(1, &b.shape), array(2, shape)];
    let [a, b, out] = references.each_ref().map(|reference| Array::resolve(reference, &environment).unwrap());
    together(pool(threads), threads, || dot_with(isa, list, absorb, &a, &b, &out, &environment)).unwrap();
    scratch.check_margin();
    buffers[2].value(dtype, shape)
}

fn instruction_sets() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn transposed(x: &Value) -> Value {
    let shape = [x.shape[1], x.shape[0]];
    Value::new(x.dtype, &shape, |flat| x.bits[flat % shape[1] * shape[0] + flat / shape[1]])
}

/// Asserts that floats differ by no more than rounding: relative to the sum of the products' sizes.
fn assert_near(result: &Value, a: &Value, b: &Value, what: &str) {
    let ([m, k], n) = ([a.shape[0], a.shape[1]], b.shape[1]);
    let (a, b, c) = (a.f64s(), b.f64s(), result.f64s());
    let unit = if result.dtype == DType::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON };
    for i in 0..m {
        let (mut sums, mut sizes) = (vec![0.0; n], vec![0.0; n]);
        for k in (0..k).map(|depth| (a[i * k + depth], &b[depth * n..][..n])) {
            for (j, value) in k.1.iter().enumerate() {
                sums[j] += k.0 * value;
                sizes[j] += (k.0 * value).abs();
            }
        }
        for j in 0..n {
            // An order of summation other than the worst possible is far inside a part of the bound.
            let bound = unit * sizes[j] * (4.0 + (k as f64).sqrt());
            let error = (c[i * n + j] - sums[j]).abs();
            assert!(error <= bound, "{what}: element {i}, {j} is {}, not {}", c[i * n + j], sums[j]);
        }
    }
}

/// Element by element, in the dtype's own arithmetic; whole numbers, so that every order gives the same.
fn naive(batch: [&[usize]; 2], contract: [&[usize]; 2], a: &Value, b: &Value, shape: &[usize]) -> Value {
    let dtype = a.dtype;
    let free = |side: usize, rank: usize| -> Vec<usize> {
        (0..rank).filter(|axis| !batch[side].contains(axis) && !contract[side].contains(axis)).collect()
    };
    let free = [free(0, a.shape.len()), free(1, b.shape.len())];
    let depths: Vec<Index> = indices(&contract[0].iter().map(|&axis| a.shape[axis]).collect::<Vec<_>>()).collect();
    let mut results = indices(shape).map(|index| {
        let (of_batch, rest) = index.split_at(batch[0].len());
        let (of_a, of_b) = rest.split_at(free[0].len());
        let mut at = [vec![0; a.shape.len()], vec![0; b.shape.len()]];
        for (side, of_free) in [of_a, of_b].into_iter().enumerate() {
            batch[side].iter().zip(of_batch).for_each(|(&axis, &index)| at[side][axis] = index);
            free[side].iter().zip(of_free).for_each(|(&axis, &index)| at[side][axis] = index);
        }
        let mut sum = 0;
        for depth in &depths {
            for side in 0..2 {
                contract[side].iter().zip(&**depth).for_each(|(&axis, &index)| at[side][axis] = index);
            }
            let product = multiply(dtype, a.bits[flat(&at[0], &a.shape)], b.bits[flat(&at[1], &b.shape)]);
            sum = add(dtype, sum, product);
        }
        sum
    });
    Value::new(dtype, shape, |_| results.next().unwrap())
}

/// The same with one sign of zero.
fn without_negative_zeros(mut value: Value) -> Value {
    let zero = value.dtype.bits_of_f64(-0.0);
    value.bits.iter_mut().filter(|bits| **bits == zero).for_each(|bits| *bits = 0);
    value
}

#[test]
fn every_arrangement_of_axes() {
    let mut random = Random(0x5eed);
    for turn in 0..700 {
        let dtype = DType::ALL[turn % DType::ALL.len()];
        let mut extents = |count: usize| -> Vec<usize> {
            (0..count)
                .map(|_| {
                    let few = [1, 2, 3, 4, 5, 9];
                    let empty = random.below(25) == 0;
                    if empty { 0 } else { few[random.below(6)] }
                })
                .collect()
        };
        let (batch, contract) = (extents([0, 0, 1, 2][turn % 4]), extents([1, 2, 0, 1, 3][turn % 5]));
        let free = [extents([1, 2, 0][turn % 3]), extents([1, 0, 1, 2][turn / 3 % 4])];
        // Each operand's axes in an order of its own.
        let mut shapes = [vec![], vec![]];
        let mut places = [vec![], vec![]];
        for side in 0..2 {
            let grouped = [&batch[..], &contract, &free[side]].concat();
            let mut order: Vec<usize> = (0..grouped.len()).collect();
            if random.below(4) != 0 {
                random.shuffle(&mut order);
            }
            shapes[side] = order.iter().map(|&axis| grouped[axis]).collect();
            // The free axes keep the order in which they lie.
            places[side] = (0..grouped.len()).map(|axis| order.iter().position(|&at| at == axis).unwrap()).collect();
        }
        let count = batch.len();
        let of_batch = [&places[0][..count], &places[1][..count]];
        let of_contract = [&places[0][count..][..contract.len()], &places[1][count..][..contract.len()]];
        let mut shape = batch.clone();
        for side in 0..2 {
            let rest = (0..shapes[side].len())
                .filter(|axis| !of_batch[side].contains(axis) && !of_contract[side].contains(axis));
            shape.extend(rest.map(|axis| shapes[side][axis]));
        }
        let a = Value::whole(dtype, &shapes[0], &mut random);
        let b = Value::whole(dtype, &shapes[1], &mut random);
        let expected = without_negative_zeros(naive(of_batch, of_contract, &a, &b, &shape));
        let list = list(of_batch, of_contract);
        for isa in instruction_sets() {
            for absorb in [false, true] {
                let result = without_negative_zeros(dot_on(isa, 1, absorb, &list, &a, &b, &shape));
                assert_eq!(result, expected, "{isa:?} {:?} · {:?} by {list:?}", a.shape, b.shape);
            }
        }
    }
}

/// Scalars outside buffers, results zeroed where there is nothing to add, by way of `execute`.
#[test]
fn scalars_and_empty_depth() {
    let node = |list: &[i64]| Node::with(Op::Dot { axes: ListId::EMPTY, absorb: false }, list);
    for dtype in DType::ALL {
        let (scalar, row) = (Value::floats(dtype, &[], &[1.0]), Value::floats(dtype, &[3], &[1.0, 0.0, 1.0]));
        node(&[0, 0]).check(&[&scalar, &scalar], &scalar);
        node(&[0, 0]).check(&[&scalar, &row], &row);
        node(&[0, 0]).check(&[&row, &scalar], &row);
        let single = Value { shape: vec![1, 1], ..scalar.clone() };
        node(&[0, 1, 1, 0]).check(&[&single, &single], &single);
        for (m, n) in [(2, 3), (1, 1), (0, 3), (300, 400)] {
            let (a, b) = (Value::floats(dtype, &[m, 0], &[]), Value::floats(dtype, &[0, n], &[]));
            node(&[0, 1, 1, 0]).check(&[&a, &b], &Value::new(dtype, &[m, n], |_| 0));
        }
    }
}

/// Products that are cut, blocked in depth and ragged at every edge.
#[test]
fn matrices_near_and_equal_in_bits() {
    let mut random = Random(0xbeef);
    let sizes = [
        (2, 2, 2),
        (5, 7, 3),
        (64, 64, 64),
        (3, 200, 600),
        (130, 201, 700),
        (513, 385, 70),
        (33, 1003, 513),
        (300, 97, 1100),
        (700, 49, 130),
        (260, 800, 260),
    ];
    for dtype in [DType::F32, DType::F64] {
        for (m, n, k) in sizes {
            let a = Value::rough(dtype, &[m, k], &mut random);
            let b = Value::rough(dtype, &[k, n], &mut random);
            let mut first: Option<Value> = None;
            for layout in 0..4 {
                let stored_a = if layout & 1 == 1 { transposed(&a) } else { a.clone() };
                let stored_b = if layout >> 1 == 1 { transposed(&b) } else { b.clone() };
                for isa in instruction_sets() {
                    let run = |threads, absorb| {
                        dot_on(isa, threads, absorb, &matrix_list(layout), &stored_a, &stored_b, &[m, n])
                    };
                    if isa == Isa::Scalar {
                        // Other roundings than fused ones, so other bits, but the same on all threads.
                        if layout == 0 && m * n * k < 10_000_000 {
                            let result = run(1, false);
                            assert_near(&result, &a, &b, "scalar");
                            assert!(run(2, false) == result && run(5, true) == result);
                        }
                        continue;
                    }
                    for threads in [1, 2, 5] {
                        let result = run(threads, threads == 2);
                        match &first {
                            None => {
                                assert_near(&result, &a, &b, isa.name());
                                first = Some(result);
                            }
                            Some(first) => {
                                let what = format!("{dtype} {m}×{k}×{n}, layout {layout}, {isa:?}, {threads} threads");
                                assert!(result == *first, "other bits: {what}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn vectors_near_and_equal_in_bits() {
    let mut random = Random(0xfade);
    let sizes = [
        (1, 1, 7),
        (1, 1, 100_000),
        (5, 1, 20_001),
        (700, 1, 40),
        (70, 1, 1100),
        (1500, 1, 700),
        (3, 1, 8193),
        (2, 1, 1),
    ];
    for dtype in [DType::F32, DType::F64] {
        for (m, n, k) in sizes.into_iter().chain(sizes.map(|(m, n, k)| (n, m, k))) {
            let a = Value::rough(dtype, &[m, k], &mut random);
            let b = Value::rough(dtype, &[k, n], &mut random);
            for layout in 0..4 {
                let stored_a = if layout & 1 == 1 { transposed(&a) } else { a.clone() };
                let stored_b = if layout >> 1 == 1 { transposed(&b) } else { b.clone() };
                let run = |isa, threads| {
                    dot_on(isa, threads, threads == 2, &matrix_list(layout), &stored_a, &stored_b, &[m, n])
                };
                let mut first: Option<Value> = None;
                for isa in instruction_sets() {
                    let alone = run(isa, 1);
                    assert_near(&alone, &a, &b, isa.name());
                    let what = format!("{dtype} {m}×{k}×{n}, layout {layout}, {isa:?}");
                    assert!(run(isa, 2) == alone && run(isa, 5) == alone, "other bits on threads: {what}");
                    if isa != Isa::Scalar {
                        assert!(*first.get_or_insert(alone.clone()) == alone, "other bits: {what}");
                    }
                }
            }
        }
    }
}

/// Vectors read along a column (and so packed), and many products of a batch.
#[test]
fn batches_equal_their_products() {
    let mut random = Random(0xabba);
    for dtype in [DType::F32, DType::F64] {
        for (m, n, k) in [(40, 50, 60), (1, 50, 60), (40, 1, 600), (1, 1, 30), (9, 8, 1), (130, 70, 520)] {
            let batches = 7;
            // The batch axis last in a, first in b.
            let a = Value::rough(dtype, &[m, k, batches], &mut random);
            let b = Value::rough(dtype, &[batches, k, n], &mut random);
            let list = list([&[2], &[0]], [&[1], &[1]]);
            for isa in instruction_sets() {
                let all = dot_on(isa, 1, false, &list, &a, &b, &[batches, m, n]);
                for threads in [2, 5] {
                    assert!(dot_on(isa, threads, true, &list, &a, &b, &[batches, m, n]) == all);
                }
                for batch in [0, 3, 6] {
                    let a = Value::new(dtype, &[m, k], |flat| a.bits[flat * batches + batch]);
                    let b = Value::new(dtype, &[k, n], |flat| b.bits[batch * k * n + flat]);
                    let one = Value::new(dtype, &[m, n], |flat| all.bits[batch * m * n + flat]);
                    assert_near(&one, &a, &b, isa.name());
                    if m > 1 && n > 1 && isa != Isa::Scalar {
                        assert!(dot_on(isa, 1, false, &matrix_list(0), &a, &b, &[m, n]) == one);
                    }
                }
            }
        }
    }
}

/// The library's panels alone, cut at places that no plan would choose.
fn by_panels<T: Float>(isa: Option<Isa>, layout: usize, a: &Value, b: &Value, cuts: [&[usize]; 2]) -> Value {
    let (m, k, n) = (a.shape[0], a.shape[1], b.shape[1]);
    let mut stored = [
        Buffer::of(&if layout & 1 == 1 { transposed(a) } else { a.clone() }),
        Buffer::of(&if layout >> 1 == 1 { transposed(b) } else { b.clone() }),
        Buffer::filled(m * n * size_of::<T>()),
    ];
    let [a_memory, b_memory, c_memory] = stored.each_mut().map(Buffer::memory);
    let matrices: Matrices<T> = Matrices {
        m,
        n,
        k,
        a: Shared::new(a_memory.pointer.cast()),
        a_row: if layout & 1 == 1 { 1 } else { k as isize },
        a_depth: if layout & 1 == 1 { m as isize } else { 1 },
        b: Shared::new(b_memory.pointer.cast()),
        b_depth: if layout >> 1 == 1 { 1 } else { n as isize },
        b_column: if layout >> 1 == 1 { k as isize } else { 1 },
        c: Shared::new(c_memory.pointer.cast()),
    };
    let mut scratch = Buffer::filled(library::scratch_bytes(m, n, k, matrices.a_depth, size_of::<T>()));
    let cancel = AtomicBool::new(false);
    let environment = environment(&[], Memory::EMPTY, &cancel);
    let pieces = |cuts: &[usize], end: usize| -> Vec<Range<usize>> {
        let ends: Vec<usize> = cuts.iter().copied().filter(|&cut| cut < end).chain([end]).collect();
        std::iter::once(0).chain(ends.clone()).zip(ends).map(|(first, last)| first..last).collect()
    };
    for rows in pieces(cuts[0], m) {
        for columns in pieces(cuts[1], n) {
            let memory = scratch.memory();
            // SAFETY: the matrices are those of the buffers; the processor has the instruction set.
            unsafe {
                match isa {
                    Some(isa) => library::panel(isa, &matrices, rows.clone(), columns, None, memory, &environment),
                    None => portable::panel(Isa::Scalar, &matrices, rows.clone(), columns, None, memory, &environment),
                }
            }
            .unwrap();
        }
    }
    scratch.check_margin();
    stored[2].value(a.dtype, &[m, n])
}

#[test]
fn panels_have_the_bits_of_the_whole() {
    let mut random = Random(0xcafe);
    let cuts: [[&[usize]; 2]; 6] = [
        [&[], &[]],
        [&[1], &[]],
        [&[128], &[]],
        [&[], &[1, 65]],
        [&[], &[24, 48, 96, 192, 385]],
        [&[3, 17, 18, 200], &[5, 101, 300]],
    ];
    for (m, n, k) in [(7, 9, 5), (131, 100, 514), (210, 403, 77)] {
        for dtype in [DType::F32, DType::F64] {
            let a = Value::rough(dtype, &[m, k], &mut random);
            let b = Value::rough(dtype, &[k, n], &mut random);
            let mut first: Option<Value> = None;
            for isa in instruction_sets().filter(|&isa| library::has(isa)) {
                for layout in 0..4 {
                    for cuts in cuts {
                        let result = match dtype {
                            DType::F32 => by_panels::<f32>(Some(isa), layout, &a, &b, cuts),
                            _ => by_panels::<f64>(Some(isa), layout, &a, &b, cuts),
                        };
                        let what = format!("{dtype} {m}×{k}×{n}, layout {layout}, {isa:?}, {cuts:?}");
                        assert!(*first.get_or_insert(result.clone()) == result, "other bits: {what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_product_cut_along_its_depth_has_one_result() {
    let mut random = Random(0xdeed);
    for (m, n, k) in [(70, 50, 5000), (131, 385, 1024), (13, 14, 70_000)] {
        for dtype in [DType::F32, DType::F64] {
            let cut = Cut::new(m, n, k, 1);
            assert!(cut.depth_pieces > 1);
            // Where this fails, the pieces and the library's blocks of the depth have come apart.
            assert!(cut.depth == 512 || k > 8192);
            let mut a = Value::rough(dtype, &[m, k], &mut random);
            let mut b = Value::rough(dtype, &[k, n], &mut random);
            let mut first: Option<Value> = None;
            if cut.depth == 512 {
                // Pieces of one block each are what the library itself adds up.
                let whole = match dtype {
                    DType::F32 => {
                        by_panels::<f32>(instruction_sets().find(|&isa| library::has(isa)), 0, &a, &b, [&[], &[]])
                    }
                    _ => by_panels::<f64>(instruction_sets().find(|&isa| library::has(isa)), 0, &a, &b, [&[], &[]]),
                };
                first = Some(whole);
            }
            for isa in instruction_sets().filter(|&isa| library::has(isa)) {
                for layout in 0..4 {
                    let a = if layout & 1 == 1 { transposed(&a) } else { a.clone() };
                    let b = if layout >> 1 == 1 { transposed(&b) } else { b.clone() };
                    for threads in [1, 3] {
                        let result = dot_on(isa, threads, false, &matrix_list(layout), &a, &b, &[m, n]);
                        let what = format!("{dtype} {m}×{k}×{n}, layout {layout}, {isa:?}, {threads} threads");
                        assert!(*first.get_or_insert(result.clone()) == result, "other bits: {what}");
                    }
                }
            }
            assert_near(first.as_ref().unwrap(), &a, &b, "cut along its depth");
            // An infinity that only zeros meet is absorbed after the pieces were added.
            a.bits[k - 1] = dtype.bits_of_f64(f64::INFINITY);
            (0..n).for_each(|column| b.bits[(k - 1) * n + column] = dtype.bits_of_f64(0.0));
            let result = dot_on(crate::isa().unwrap(), 2, true, &matrix_list(0), &a, &b, &[m, n]);
            assert!(result.f64s().iter().all(|value| value.is_finite()), "{dtype} {m}×{k}×{n}");
        }
    }
}

/// What other processors use: the same products, rounded otherwise.
#[test]
fn the_portable_library_agrees_within_rounding() {
    let mut random = Random(0xdead);
    assert!(portable::has(Isa::Scalar) && portable::scratch_bytes(1000, 1000, 1000, 1, 8) == 0);
    for (m, n, k) in [(2, 3, 1), (1, 1, 9), (131, 100, 77), (70, 33, 4100)] {
        for dtype in [DType::F32, DType::F64] {
            let a = Value::rough(dtype, &[m, k], &mut random);
            let b = Value::rough(dtype, &[k, n], &mut random);
            for layout in 0..4 {
                for cuts in [[&[][..], &[]], [&[64], &[7, 96]]] {
                    let result = match dtype {
                        DType::F32 => by_panels::<f32>(None, layout, &a, &b, cuts),
                        _ => by_panels::<f64>(None, layout, &a, &b, cuts),
                    };
                    assert_near(&result, &a, &b, "portable");
                }
            }
        }
    }
}

/// With zeros against infinities and NaNs, on each route.
#[test]
fn absorbing_products_ignore_what_zeros_meet() {
    let mut random = Random(0xf00d);
    for dtype in [DType::F32, DType::F64] {
        for (m, n, k) in [(40, 70, 90), (1, 70, 90), (40, 1, 9000), (1, 1, 20), (20, 30, 1), (70, 90, 600)] {
            let mut a = Value::rough(dtype, &[m, k], &mut random);
            let mut b = Value::rough(dtype, &[k, n], &mut random);
            let mut clean = [a.clone(), b.clone()];
            // Some depths hold only zeros on one side and anything on the other.
            for depth in (0..k).step_by(3) {
                let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
                for row in 0..m {
                    let value = if depth % 2 == 0 { 0.0 } else { special[random.below(4)] };
                    a.bits[row * k + depth] = dtype.bits_of_f64(value);
                    clean[0].bits[row * k + depth] = 0;
                }
                for column in 0..n {
                    let value = if depth % 2 == 1 { -0.0 } else { special[random.below(4)] };
                    b.bits[depth * n + column] = dtype.bits_of_f64(value);
                    clean[1].bits[depth * n + column] = 0;
                }
            }
            for layout in 0..4 {
                let stored_a = if layout & 1 == 1 { transposed(&a) } else { a.clone() };
                let stored_b = if layout >> 1 == 1 { transposed(&b) } else { b.clone() };
                for isa in instruction_sets() {
                    let run = |threads, absorb| {
                        dot_on(isa, threads, absorb, &matrix_list(layout), &stored_a, &stored_b, &[m, n])
                    };
                    let absorbed = run(1, true);
                    assert_near(&absorbed, &clean[0], &clean[1], isa.name());
                    assert!(run(2, true) == absorbed && run(5, true) == absorbed);
                    let plain = run(2, false).f64s();
                    assert!(plain.iter().any(|value| value.is_nan()), "0·∞ is NaN in an ordinary dot");
                }
            }
        }
    }
}

#[test]
fn infinities_that_no_zero_meets_are_kept() {
    let (infinity, nan) = (f64::INFINITY, f64::NAN);
    for dtype in [DType::F32, DType::F64] {
        let huge = if dtype == DType::F32 { 3e38 } else { 1.7e308 };
        let a = Value::floats(dtype, &[3, 3], &[1.0, 0.0, 2.0, -1.0, 0.0, huge, infinity, infinity, 1.0]);
        let columns =
            [[infinity, nan, 1.0], [infinity, infinity, 1.0], [nan, 0.0, 1.0], [1.0, -1.0, 1.0], [huge, 1.0, huge]];
        let b = Value::new(dtype, &[3, 5], |flat| dtype.bits_of_f64(columns[flat % 5][flat / 5]));
        let expected = [
            [infinity, infinity, nan, 3.0, infinity],
            [-infinity, -infinity, nan, huge, infinity],
            [nan, infinity, nan, nan, infinity],
        ];
        for isa in instruction_sets() {
            let result = dot_on(isa, 1, true, &matrix_list(0), &a, &b, &[3, 5]).f64s();
            for (flat, (&result, &expected)) in result.iter().zip(expected.as_flattened()).enumerate() {
                let expected =
                    if expected == huge { dtype.f64_of_bits(dtype.bits_of_f64(huge - 1.0)) } else { expected };
                assert!(
                    result == expected || (result.is_nan() && expected.is_nan()),
                    "{isa:?}: element {flat} is {result}, not {expected}"
                );
            }
        }
    }
}

/// Operands that end, or begin, where the process's memory does.
#[cfg(target_os = "linux")]
#[test]
fn nothing_outside_the_operands_is_read() {
    let mut random = Random(0x9a9e);
    for (m, n, k) in [(2, 3, 5), (7, 9, 17), (33, 65, 70), (70, 33, 513), (1, 45, 33), (45, 1, 33), (9, 5, 1)] {
        for dtype in [DType::F32, DType::F64] {
            for layout in 0..4 {
                let a = Value::whole(dtype, &[m, k], &mut random);
                let b = Value::whole(dtype, &[k, n], &mut random);
                let expected = naive([&[], &[]], [&[1], &[0]], &a, &b, &[m, n]);
                let a = if layout & 1 == 1 { transposed(&a) } else { a };
                let b = if layout >> 1 == 1 { transposed(&b) } else { b };
                let list = matrix_list(layout);
                for at_end in [true, false] {
                    let fences = [&a, &b, &expected].map(|value| guarded::Fenced::of(value, at_end));
                    let memories = fences.each_ref().map(guarded::Fenced::memory);
                    let mut scratch = Buffer::filled(scratch_bytes(&list, dtype, &a.shape, &b.shape, &[m, n], 1));
                    let cancel = AtomicBool::new(false);
                    let environment = environment(&memories, scratch.memory(), &cancel);
                    let array = |id: u32, shape: &[usize]| ArrayRef {
                        source: Source::Buffer(BufferId(id)),
                        dtype,
                        shape: shape.into(),
                    };
                    let references = [array(0, &a.shape), array(1, &b.shape), array(2, &[m, n])];
                    let [left, right, out] = references.each_ref().map(|x| Array::resolve(x, &environment).unwrap());
                    for isa in instruction_sets() {
                        dot_with(isa, &list, false, &left, &right, &out, &environment).unwrap();
                        assert_eq!(
                            without_negative_zeros(fences[2].value(&expected)),
                            without_negative_zeros(expected.clone())
                        );
                    }
                }
            }
        }
    }
}

/// Memory between pages that fault.
#[cfg(target_os = "linux")]
mod guarded {
    use std::ffi::c_void;

    use super::{Memory, Value};

    unsafe extern "C" {
        fn mmap(
            address: *mut c_void,
            length: usize,
            protection: i32,
            flags: i32,
            file: i32,
            offset: i64,
        ) -> *mut c_void;
        fn mprotect(address: *mut c_void, length: usize, protection: i32) -> i32;
        fn munmap(address: *mut c_void, length: usize) -> i32;
    }

    /// A multiple of every page size in use.
    const PAGE: usize = 1 << 16;
    const READ_WRITE: i32 = 3;
    const PRIVATE_ANONYMOUS: i32 = 0x22;

    pub struct Fenced {
        mapping: *mut u8,
        inside: usize,
        first: usize,
        bytes: usize,
    }

    impl Fenced {
        pub fn of(value: &Value, at_end: bool) -> Fenced {
            let size = value.dtype.size();
            let bytes = value.bits.len() * size;
            let inside = bytes.next_multiple_of(PAGE);
            // SAFETY: new memory, whose middle is made accessible.
            let mapping: *mut u8 = unsafe {
                let mapping = mmap(std::ptr::null_mut(), inside + 2 * PAGE, 0, PRIVATE_ANONYMOUS, -1, 0);
                assert!(mapping as isize != -1);
                assert_eq!(mprotect(mapping.byte_add(PAGE), inside, READ_WRITE), 0);
                mapping.cast()
            };
            let first = if at_end { PAGE + inside - bytes } else { PAGE };
            for (index, bits) in value.bits.iter().enumerate() {
                // SAFETY: inside the accessible part.
                unsafe {
                    let place = mapping.add(first + index * size);
                    place.copy_from_nonoverlapping(bits.to_le_bytes().as_ptr(), size);
                }
            }
            Fenced { mapping, inside, first, bytes }
        }

        pub fn memory(&self) -> Memory {
            Memory { pointer: self.mapping.wrapping_add(self.first), bytes: self.bytes }
        }

        /// What is there now, as an array like `model`.
        pub fn value(&self, model: &Value) -> Value {
            let size = model.dtype.size();
            Value::new(model.dtype, &model.shape, |index| {
                let mut bits = [0; 8];
                // SAFETY: inside the accessible part.
                unsafe {
                    let place = self.mapping.add(self.first + index * size);
                    bits.as_mut_ptr().copy_from_nonoverlapping(place, size);
                }
                u64::from_le_bytes(bits)
            })
        }
    }

    impl Drop for Fenced {
        fn drop(&mut self) {
            // SAFETY: the whole mapping, which nobody uses any more.
            unsafe { munmap(self.mapping.cast(), self.inside + 2 * PAGE) };
        }
    }
}
