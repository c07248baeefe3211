//! Gathers from rows and scatters into them, beside kernels over the same rows: the bits of all in turn.

use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, NodeId, Op};
use ckad_plan::program::{ArrayRef, BufferId, FusedKernel, Kernel, Parameters, Source, Step, Store};
use ckad_prim::Elementwise::{Exp, Multiply};

use super::{execute, longest, plan};
use crate::structural::testing::{Buffer, Random, Value, pool};
use crate::team::together;
use crate::tile::testing::{compute, load};
use crate::{Environment, Memory};

/// An array of rows, what is scattered into rows, indices, and results.
const X: BufferId = BufferId(0);
const ADDED: BufferId = BufferId(1);
const INDICES: [BufferId; 2] = [BufferId(2), BufferId(3)];
const EXPONENTIALS: BufferId = BufferId(4);
const GATHERED: BufferId = BufferId(5);
const SQUARES: BufferId = BufferId(6);
const PRODUCTS: BufferId = BufferId(7);

#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    rows: usize,
    width: usize,
    /// Index tuples, of so many indices each.
    tuples: usize,
    indices: usize,
    scatter: Op,
}

impl Case {
    fn at_once(&self) -> usize {
        if self.indices == 2 { 1 } else { self.width }
    }

    fn array(&self, buffer: BufferId, dtype: DType, shape: &[usize]) -> ArrayRef {
        ArrayRef { source: Source::Buffer(buffer), dtype, shape: shape.into() }
    }

    /// `result = op(a, b)` by rows.
    fn fused(&self, op: ckad_prim::Elementwise, operands: [BufferId; 2], result: BufferId) -> Kernel {
        let strides = [self.width as i64, 1];
        let read = |buffer, register| load(Source::Buffer(buffer), self.dtype, &strides, 0, register);
        Kernel::Fused(FusedKernel {
            extents: [self.rows, self.width].as_slice().into(),
            loads: vec![read(operands[0], 0), read(operands[1], 1)],
            instructions: vec![compute(op, self.dtype, 2, [0, 1, 0])],
            stores: vec![Store { buffer: result, dtype: self.dtype, register: 2 }],
            reduce: None,
            registers: 3,
            overwrites: false,
        })
    }

    fn indexed(&self, op: Op, arrays: &[BufferId], result: BufferId) -> Kernel {
        let (whole, picked) = (vec![self.rows, self.width], vec![self.tuples, self.at_once()]);
        let shape = |buffer: BufferId| if [ADDED, GATHERED].contains(&buffer) { &picked } else { &whole };
        let mut operands: Vec<ArrayRef> =
            arrays.iter().map(|&buffer| self.array(buffer, self.dtype, shape(buffer))).collect();
        operands.extend(INDICES[..self.indices].iter().map(|&index| self.array(index, DType::I64, &[self.tuples])));
        let result = self.array(result, self.dtype, shape(result));
        Kernel::Structural { op, parameters: Parameters::default(), operands, result }
    }

    fn gather(&self, from: BufferId) -> Kernel {
        self.indexed(Op::Gather { indices: self.indices as u8 }, &[from], GATHERED)
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![
            self.fused(Exp, [X, X], EXPONENTIALS),
            self.gather(EXPONENTIALS),
            self.fused(Multiply, [X, X], SQUARES),
            self.indexed(self.scatter, &[SQUARES, ADDED], SQUARES),
            self.fused(Multiply, [SQUARES, EXPONENTIALS], PRODUCTS),
        ]
    }

    fn run(&self, values: &[Value], unstored: &[BufferId], threads: usize, as_one: bool) -> Vec<Value> {
        let steps = steps(self.kernels());
        let whole = self.rows * self.width * self.dtype.size();
        let mut buffers: Vec<Buffer> = values.iter().map(Buffer::of).collect();
        for id in [EXPONENTIALS, GATHERED, SQUARES, PRODUCTS] {
            let gone = as_one && unstored.contains(&id);
            let bytes = if id == GATHERED { self.tuples * self.at_once() * self.dtype.size() } else { whole };
            buffers.push(Buffer::filled(if gone { 0 } else { bytes }));
        }
        let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
        let bytes = if as_one { plan(&steps, unstored, threads).unwrap().scratch } else { 1 << 20 };
        let mut scratch = Buffer::filled(bytes);
        let (memory, cancel) = (scratch.memory(), AtomicBool::new(false));
        let environment = Environment {
            buffers: &memories,
            blocks: &[],
            ahead: None,
            scalars: &[],
            starts: &[],
            scratch: memory,
            cancel: &cancel,
            poll: None,
        };
        // SAFETY: each buffer has the bytes of its array, and none overlaps another.
        together(pool(threads), threads, || unsafe {
            if as_one {
                execute(&steps, &environment).unwrap();
            } else {
                steps.iter().for_each(|step| crate::execute(&step.kernel, &environment).unwrap());
            }
        });
        scratch.check_margin();
        buffers.iter().for_each(Buffer::check_margin);
        let (gathered, products) = (&buffers[GATHERED.0 as usize], &buffers[PRODUCTS.0 as usize]);
        vec![
            gathered.value(self.dtype, &[self.tuples * self.at_once()]),
            products.value(self.dtype, &[self.rows, self.width]),
        ]
    }
}

fn steps(kernels: Vec<Kernel>) -> Vec<Step> {
    kernels.into_iter().map(|kernel| Step { kernel, node: NodeId(0), flops: 0, joined: false }).collect()
}

const SCATTERS: [Op; 2] = [Op::ScatterAdd { indices: 2 }, Op::ScatterSet { indices: 2 }];

#[test]
fn bits_are_those_of_kernels_in_turn() {
    let mut random = Random(3);
    // Each row about once, some often, some never; few tuples; whole rows.
    for (rows, width, tuples, indices) in [(700, 100, 700, 2), (4096, 17, 3000, 2), (513, 256, 5, 2), (2100, 33, 60, 1)]
    {
        for (dtype, scatter) in [(DType::F32, SCATTERS[0]), (DType::F64, SCATTERS[1]), (DType::F64, SCATTERS[0])] {
            let case = Case { dtype, rows, width, tuples, indices, scatter };
            let floats = |shape: &[usize], random: &mut Random| {
                let all: Vec<f64> = (0..shape.iter().product()).map(|_| 2.0 * random.float() - 1.0).collect();
                Value::floats(dtype, shape, &all)
            };
            let index = |extent: usize, random: &mut Random| Value {
                dtype: DType::I64,
                shape: vec![tuples],
                // Half of them from the end.
                bits: (0..tuples).map(|_| (random.below(2 * extent) as i64 - extent as i64) as u64).collect(),
            };
            let values = [
                floats(&[rows, width], &mut random),
                floats(&[tuples, case.at_once()], &mut random),
                index(rows, &mut random),
                index(width, &mut random),
            ];
            let all = steps(case.kernels());
            assert_eq!(longest(&all), all.len(), "{case:?}");
            let expected = case.run(&values, &[], 1, false);
            for unstored in [&[][..], &[EXPONENTIALS, SQUARES]] {
                assert_eq!(plan(&all, unstored, 2).unwrap().unstored, unstored);
                for threads in [1, 2, 7] {
                    let found = case.run(&values, unstored, threads, true);
                    let same = found.iter().zip(&expected).all(|(a, b)| a.bits == b.bits);
                    assert!(same, "{threads} threads: {case:?}");
                }
            }
        }
    }
}

#[test]
fn what_rows_do_not_allow_ends_a_group() {
    let case = Case {
        dtype: DType::F32,
        rows: 700,
        width: 100,
        tuples: 700,
        indices: 2,
        scatter: Op::ScatterAdd { indices: 2 },
    };
    let of = |case: &Case, change: &dyn Fn(&mut Vec<Kernel>)| {
        let mut kernels = case.kernels();
        change(&mut kernels);
        longest(&steps(kernels))
    };
    assert_eq!(of(&case, &|_| ()), 5);
    // More tuples than rows.
    assert_eq!(of(&Case { tuples: 701, ..case }, &|_| ()), 1);
    // Elements of another array are gathered before all rows.
    let of_another = |kernels: &mut Vec<Kernel>| {
        kernels[1] = case.gather(X);
        kernels[2] = case.fused(Multiply, [EXPONENTIALS, X], SQUARES);
    };
    assert_eq!(of(&case, &of_another), 5);
    // What was read is not overwritten, and what is read as a whole not made by rows.
    let read_before = |kernels: &mut Vec<Kernel>| {
        kernels[3] = case.indexed(case.scatter, &[EXPONENTIALS, ADDED], EXPONENTIALS);
    };
    assert_eq!(of(&case, &read_before), 3);
    let of_gathered = |kernels: &mut Vec<Kernel>| {
        kernels[3] = case.indexed(case.scatter, &[SQUARES, GATHERED], SQUARES);
    };
    assert_eq!(of(&case, &of_gathered), 3);
}
