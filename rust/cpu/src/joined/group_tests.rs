//! Fused kernels after each other, run as one against the same in turn: equal bits.

use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, NodeId, ReduceKind};
use ckad_plan::program::{BufferId, FusedKernel, Instruction, Joining, Kernel, Load, Reduction, Source, Step, Store};
use ckad_prim::Elementwise::{Exp, Multiply, Reciprocal, Subtract, Tanh};

use super::{execute, longest, plan};
use crate::structural::testing::{Buffer, Random, Value, pool};
use crate::team::together;
use crate::tile::testing::{compute, load};
use crate::{Environment, Memory};

fn id(index: u32) -> BufferId {
    BufferId(index)
}

/// Rows of `width`, as a matrix or flat.
#[derive(Clone, Copy, Debug)]
struct Shape {
    dtype: DType,
    rows: usize,
    width: usize,
}

impl Shape {
    fn whole(&self, buffer: u32, register: u16) -> Load {
        load(Source::Buffer(id(buffer)), self.dtype, &[self.width as i64, 1], 0, register)
    }

    /// A number for each row.
    fn of_row(&self, buffer: u32, register: u16) -> Load {
        load(Source::Buffer(id(buffer)), self.dtype, &[1, 0], 0, register)
    }

    /// A number for each column.
    fn of_column(&self, buffer: u32, register: u16) -> Load {
        load(Source::Buffer(id(buffer)), self.dtype, &[0, 1], 0, register)
    }

    fn store(&self, buffer: u32, register: u16) -> Store {
        Store { buffer: id(buffer), dtype: self.dtype, register }
    }

    fn reduction(&self, kind: ReduceKind, reduced: [bool; 2], buffer: u32, register: u16) -> Option<Reduction> {
        let reduced = reduced.as_slice().into();
        Some(Reduction { kind, reduced, dtype: self.dtype, register, buffer: id(buffer) })
    }

    fn kernel(
        &self,
        extents: &[usize],
        loads: Vec<Load>,
        instructions: Vec<Instruction>,
        stores: Vec<Store>,
        reduce: Option<Reduction>,
    ) -> Step {
        let fused = FusedKernel {
            extents: extents.into(),
            loads,
            instructions,
            stores,
            reduce,
            registers: 6,
            overwrites: false,
        };
        Step { kernel: Kernel::Fused(fused), node: NodeId(0), flops: 0, joined: false }
    }

    /// Of buffer 0, with weights 1: maxima 2, exponentials 3 and their sums 4, reciprocals 5, probabilities 6, weighted
    /// column sums 7, and a sum of all 8 where rows are whole blocks of its tree.
    fn softmax(&self) -> Vec<Step> {
        let &Shape { dtype, rows, width } = self;
        let both = [rows, width];
        let each_row = [false, true];
        vec![
            self.kernel(&both, vec![self.whole(0, 0)], vec![], vec![], self.reduction(ReduceKind::Max, each_row, 2, 0)),
            self.kernel(
                &both,
                vec![self.whole(0, 0), self.of_row(2, 1)],
                vec![compute(Subtract, dtype, 2, [0, 1, 0]), compute(Exp, dtype, 3, [2, 2, 2])],
                vec![self.store(3, 3)],
                self.reduction(ReduceKind::Sum, each_row, 4, 3),
            ),
            self.kernel(
                &[rows],
                vec![load(Source::Buffer(id(4)), dtype, &[1], 0, 0)],
                vec![compute(Reciprocal, dtype, 1, [0, 0, 0])],
                vec![self.store(5, 1)],
                None,
            ),
            self.kernel(
                &both,
                vec![self.whole(3, 0), self.of_row(5, 1)],
                vec![compute(Multiply, dtype, 2, [0, 1, 0])],
                vec![self.store(6, 2)],
                None,
            ),
            self.kernel(
                &both,
                vec![self.whole(6, 0), self.of_column(1, 1)],
                vec![compute(Multiply, dtype, 2, [0, 1, 0])],
                vec![],
                self.reduction(ReduceKind::Sum, [true, false], 7, 2),
            ),
            self.kernel(
                &[rows * width],
                vec![load(Source::Buffer(id(6)), dtype, &[1], 0, 0)],
                vec![compute(Tanh, dtype, 1, [0, 0, 0])],
                vec![],
                Some(Reduction {
                    kind: ReduceKind::Sum,
                    reduced: [true].as_slice().into(),
                    dtype,
                    register: 1,
                    buffer: id(8),
                }),
            ),
        ]
    }

    fn elements(&self) -> [usize; 9] {
        let &Shape { rows, width, .. } = self;
        [rows * width, width, rows, rows * width, rows, rows, rows * width, width, 1]
    }
}

/// The results of steps that `unstored` ones need not outlive.
fn run(
    shape: &Shape,
    steps: &[Step],
    unstored: &[BufferId],
    values: &[Value; 2],
    threads: usize,
    as_one: bool,
) -> Vec<Value> {
    let size = shape.dtype.size();
    let mut buffers: Vec<Buffer> = values.iter().map(Buffer::of).collect();
    for (index, elements) in shape.elements().into_iter().enumerate().skip(2) {
        let gone = as_one && unstored.contains(&id(index as u32));
        buffers.push(Buffer::filled(if gone { 0 } else { elements * size }));
    }
    let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
    let bytes = match as_one {
        true => plan(steps, unstored, threads).unwrap().scratch,
        false => steps.iter().map(|step| crate::scratch_bytes(&step.kernel, threads)).max().unwrap(),
    };
    let mut scratch = Buffer::filled(bytes);
    let (scratch_memory, cancel) = (scratch.memory(), AtomicBool::new(false));
    let environment = Environment {
        buffers: &memories,
        blocks: &[],
        ahead: None,
        scalars: &[],
        starts: &[],
        scratch: scratch_memory,
        cancel: &cancel,
        poll: None,
    };
    // SAFETY: each buffer has the bytes of its array, and none overlaps another.
    together(pool(threads), threads, || unsafe {
        if as_one {
            execute(steps, &environment).unwrap();
        } else {
            steps.iter().for_each(|step| crate::execute(&step.kernel, &environment).unwrap());
        }
    });
    scratch.check_margin();
    buffers.iter().for_each(Buffer::check_margin);
    let kept = |index: &usize| !unstored.contains(&id(*index as u32)) && *index >= 2;
    // The sum of all is the last step's.
    let kept = (0..buffers.len() - usize::from(steps.len() < 6)).filter(kept);
    kept.map(|index| buffers[index].value(shape.dtype, &[shape.elements()[index]])).collect()
}

#[test]
fn a_softmax_has_the_bits_of_its_kernels() {
    let mut random = Random(5);
    // All numbers are added up by rows only where blocks of rows are nodes of the tree.
    for (rows, width, joined) in [(700, 100, 5), (512, 128, 6), (2100, 33, 5), (1024, 1024, 6), (4096, 16, 6)] {
        for dtype in [DType::F32, DType::F64] {
            let shape = Shape { dtype, rows, width };
            let all = shape.softmax();
            let len = (2..=longest(&all)).rev().find(|&len| plan(&all[..len], &[], 2).is_some());
            assert_eq!(len, Some(joined), "{shape:?}");
            let steps = &all[..joined];
            let values = [vec![rows, width], vec![width]].map(|shape| {
                let floats: Vec<f64> = (0..shape.iter().product()).map(|_| 4.0 * random.float() - 2.0).collect();
                Value::floats(dtype, &shape, &floats)
            });
            for unstored in [&[][..], &[id(2), id(3), id(4), id(5)], &[id(2), id(3), id(4), id(5), id(6)]] {
                let Some(Joining { unstored: agreed, .. }) = plan(steps, unstored, 2) else {
                    panic!("in turn: {shape:?}")
                };
                assert_eq!(agreed, unstored);
                let expected = run(&shape, steps, unstored, &values, 1, false);
                for threads in [1, 2, 7] {
                    let found = run(&shape, steps, unstored, &values, threads, true);
                    assert!(found.iter().zip(&expected).all(|(a, b)| a.bits == b.bits), "{threads} threads: {shape:?}");
                    assert_eq!(found.len(), expected.len());
                }
            }
        }
    }
}

#[test]
fn what_needs_other_rows_ends_a_group() {
    let shape = Shape { dtype: DType::F32, rows: 512, width: 128 };
    let softmax = shape.softmax();
    let both = [shape.rows, shape.width];
    let copy = |load: Load, extents: &[usize]| shape.kernel(extents, vec![load], vec![], vec![shape.store(6, 0)], None);
    let of = |last: Step| longest(&[softmax[0].clone(), softmax[1].clone(), last]);
    // The same rows; a part of each; a number for each row.
    assert_eq!(of(copy(shape.whole(3, 0), &both)), 3);
    assert_eq!(of(copy(load(Source::Buffer(id(3)), DType::F32, &[128, 1], 1, 0), &[512, 127])), 3);
    assert_eq!(of(copy(shape.of_row(4, 0), &both)), 3);
    // Rows in another order; the columns; the row after the one at hand; an element of it.
    assert_eq!(of(copy(load(Source::Buffer(id(3)), DType::F32, &[-128, 1], 511 * 128, 0), &both)), 2);
    assert_eq!(of(copy(load(Source::Buffer(id(3)), DType::F32, &[1, 512], 0, 0), &[128, 512])), 2);
    assert_eq!(of(copy(load(Source::Buffer(id(3)), DType::F32, &[128, 1], 128, 0), &[512, 127])), 2);
    assert_eq!(of(copy(load(Source::Buffer(id(3)), DType::F32, &[128, 1], 2, 0), &[512, 127])), 2);
    let mut further = shape.whole(3, 0);
    further.starts = vec![0];
    assert_eq!(of(copy(further, &both)), 2);
    // What is added up over all rows.
    let of_sums = copy(shape.of_column(7, 0), &both);
    assert_eq!(longest(&[softmax[3].clone(), softmax[4].clone(), of_sums]), 2);
}
