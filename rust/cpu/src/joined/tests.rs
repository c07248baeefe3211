//! A product and its consumer run as one against the same two run in turn: equal bits, whatever the shapes, layouts,
//! consumers and threads.

use std::sync::atomic::AtomicBool;

use ckad_graph::{DType, ErrorKind, ListId, NodeId, Op, ReduceKind};
use ckad_plan::program::{ArrayRef, BufferId, FusedKernel, Kernel, Parameters, Reduction, Source, Step, Store};
use ckad_prim::Elementwise::{Add, Lmul, Multiply, Tanh};

use super::{execute, longest, plan};
use crate::structural::testing::{Buffer, Random, Value, pool};
use crate::team::together;
use crate::tile::testing::{compute, load};
use crate::{Environment, Memory};

/// Buffers of every case: the operands, the product, a row, another matrix, and results.
const A: BufferId = BufferId(0);
const B: BufferId = BufferId(1);
const PRODUCT: BufferId = BufferId(2);
const ROW: BufferId = BufferId(3);
const OTHER: BufferId = BufferId(4);
const FIRST: BufferId = BufferId(5);
const SECOND: BufferId = BufferId(6);

fn steps(kernels: Vec<Kernel>) -> Vec<Step> {
    kernels.into_iter().map(|kernel| Step { kernel, node: NodeId(0), flops: 0, joined: false }).collect()
}

/// Scratch of two steps that are joined, where the first one's result is kept or not.
fn scratch_bytes(product: &Kernel, consumer: &Kernel, kept: bool, threads: usize) -> Option<usize> {
    let steps = steps(vec![product.clone(), consumer.clone()]);
    let dying = if kept { vec![] } else { vec![PRODUCT] };
    let joining = if longest(&steps) == 2 { plan(&steps, &dying, threads)? } else { return None };
    assert_eq!(joining.unstored, dying);
    Some(joining.scratch)
}

/// What is done with the product.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Consumer {
    /// tanh(product + row).
    Activation,
    /// product ⊙ other, and its sums over rows.
    Cotangent,
    /// The sum of each row.
    RowSums,
    /// tanh(product), and product ⊙ product.
    Two,
    /// The product itself, and its columns' sums.
    Copy,
    /// product + a, where that has its shape; as an iteration over three axes.
    Residual,
}

const CONSUMERS: [Consumer; 6] =
    [Consumer::Activation, Consumer::Cotangent, Consumer::RowSums, Consumer::Two, Consumer::Copy, Consumer::Residual];

#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    m: usize,
    n: usize,
    k: usize,
    /// Whether a lies transposed; whether b does.
    transposed: [bool; 2],
    absorb: bool,
    consumer: Consumer,
    /// Whether the product is wanted in memory too.
    kept: bool,
}

impl Case {
    fn product(&self) -> Kernel {
        let &Case { dtype, m, n, k, transposed: [a, b], absorb, .. } = self;
        let array = |id: BufferId, shape: [usize; 2]| ArrayRef {
            source: Source::Buffer(id),
            dtype,
            shape: shape.as_slice().into(),
        };
        Kernel::Structural {
            op: Op::Dot { axes: ListId(0), absorb },
            parameters: Parameters { list: vec![0, 1, i64::from(!a), i64::from(b)], start: None },
            operands: vec![array(A, if a { [k, m] } else { [m, k] }), array(B, if b { [n, k] } else { [k, n] })],
            result: array(PRODUCT, [m, n]),
        }
    }

    fn consumer(&self) -> Kernel {
        let &Case { dtype, m, n, .. } = self;
        let whole = [n as i64, 1];
        let product = load(Source::Buffer(PRODUCT), dtype, &whole, 0, 0);
        let row = load(Source::Buffer(ROW), dtype, &[0, 1], 0, 1);
        let other = load(Source::Buffer(OTHER), dtype, &whole, 0, 1);
        let store = |buffer: BufferId, register: u16| Store { buffer, dtype, register };
        let reduce = |kind: ReduceKind, over_rows: bool, register: u16| {
            Some(Reduction {
                kind,
                reduced: [over_rows, !over_rows].as_slice().into(),
                dtype,
                register,
                buffer: SECOND,
            })
        };
        let (loads, instructions, stores, reduce) = match self.consumer {
            Consumer::Activation => (
                vec![product, row],
                vec![compute(Add, dtype, 2, [0, 1, 0]), compute(Tanh, dtype, 3, [2, 2, 2])],
                vec![store(FIRST, 3)],
                None,
            ),
            Consumer::Cotangent => (
                vec![product, other],
                vec![compute(Lmul, dtype, 2, [1, 0, 1])],
                vec![store(FIRST, 2)],
                reduce(ReduceKind::Sum, true, 2),
            ),
            Consumer::RowSums => (vec![product], vec![], vec![], reduce(ReduceKind::Sum, false, 0)),
            Consumer::Two => (
                vec![product],
                vec![compute(Tanh, dtype, 1, [0, 0, 0]), compute(Multiply, dtype, 2, [0, 0, 0])],
                vec![store(FIRST, 1), store(SECOND, 2)],
                None,
            ),
            Consumer::Copy => (vec![product], vec![], vec![store(FIRST, 0)], reduce(ReduceKind::Sum, true, 0)),
            Consumer::Residual => {
                let strides = [2 * n as i64, n as i64, 1];
                let read = |buffer, register| load(Source::Buffer(buffer), dtype, &strides, 0, register);
                // Where a has another shape its place is taken by the other matrix.
                let beside = if n == self.k && !self.transposed[0] { A } else { OTHER };
                let sum = compute(Add, dtype, 2, [0, 1, 0]);
                (vec![read(PRODUCT, 0), read(beside, 1)], vec![sum], vec![store(FIRST, 2)], None)
            }
        };
        let pairs = [m / 2, 2, n];
        let extents = if self.consumer == Consumer::Residual { pairs.as_slice() } else { &[m, n] };
        Kernel::Fused(FusedKernel {
            extents: extents.into(),
            loads,
            instructions,
            stores,
            reduce,
            registers: 4,
            overwrites: false,
        })
    }

    /// What the case leaves in memory.
    fn run(&self, values: &[Value; 4], threads: usize, as_one: bool) -> Vec<Value> {
        let &Case { dtype, m, n, kept, .. } = self;
        let size = dtype.size();
        let (product, consumer) = (self.product(), self.consumer());
        let second = match self.consumer {
            Consumer::RowSums => vec![m],
            Consumer::Two => vec![m, n],
            _ => vec![n],
        };
        let lies = kept || !as_one;
        let mut buffers = [
            Buffer::of(&values[0]),
            Buffer::of(&values[1]),
            Buffer::filled(if lies { m * n * size } else { 0 }),
            Buffer::of(&values[2]),
            Buffer::of(&values[3]),
            Buffer::filled(m * n * size),
            Buffer::filled(second.iter().product::<usize>() * size),
        ];
        let memories: Vec<Memory> = buffers.iter_mut().map(Buffer::memory).collect();
        let bytes = match as_one {
            true => scratch_bytes(&product, &consumer, kept, threads).unwrap(),
            false => crate::scratch_bytes(&product, threads).max(crate::scratch_bytes(&consumer, threads)),
        };
        let mut scratch = Buffer::filled(bytes);
        let cancel = AtomicBool::new(false);
        let scratch_memory = scratch.memory();
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
                execute(&steps(vec![product, consumer]), &environment).unwrap();
            } else {
                crate::execute(&product, &environment).unwrap();
                crate::execute(&consumer, &environment).unwrap();
            }
        });
        scratch.check_margin();
        buffers.iter().for_each(Buffer::check_margin);
        let whole = vec![m, n];
        let mut results = Vec::new();
        let mut read = |id: BufferId, shape: &[usize]| results.push(buffers[id.0 as usize].value(dtype, shape));
        if kept {
            read(PRODUCT, &whole);
        }
        if self.consumer != Consumer::RowSums {
            read(FIRST, &whole);
        }
        if !matches!(self.consumer, Consumer::Activation | Consumer::Residual) {
            read(SECOND, &second);
        }
        results
    }

    fn check(&self, random: &mut Random) {
        let &Case { dtype, m, n, k, .. } = self;
        assert!(scratch_bytes(&self.product(), &self.consumer(), self.kept, 1).is_some(), "not joined: {self:?}");
        let shapes = [vec![m, k], vec![k, n], vec![n], vec![m, n]];
        let mut values = shapes.map(|shape| {
            let floats: Vec<f64> = (0..shape.iter().product()).map(|_| random.float() - 0.5).collect();
            Value::floats(dtype, &shape, &floats)
        });
        if self.absorb {
            // A column of zeros meets an infinity.
            let infinity = if dtype == DType::F32 { 0x7f80_0000 } else { 0x7ff0_0000_0000_0000 };
            let (stride, first) = if self.transposed[0] { (1, 0) } else { (k, 0) };
            (0..m).for_each(|row| values[0].bits[first + row * stride] = 0);
            values[1].bits[0] = infinity;
        }
        let expected = self.run(&values, 1, false);
        // With seven threads there are fewer blocks than threads.
        for threads in [1, 3, 7] {
            let found = self.run(&values, threads, true);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(found.bits == expected.bits, "{threads} threads: {self:?}");
            }
        }
    }
}

#[test]
fn bits_are_those_of_two_kernels() {
    let mut random = Random(11);
    // One block, whole blocks, a last block of few rows; rows shorter and longer than a tile.
    for (m, n, k) in
        [(64, 300, 20), (512, 64, 33), (700, 256, 64), (1026, 48, 7), (514, 1030, 17), (2100, 100, 600), (640, 96, 96)]
    {
        for dtype in [DType::F32, DType::F64] {
            for (index, consumer) in CONSUMERS.into_iter().enumerate() {
                let layout = random.below(4);
                let transposed = [layout & 1 != 0, layout & 2 != 0];
                let (absorb, kept) = ((m + index) % 2 == 0, random.below(2) == 0);
                let case = Case { dtype, m, n, k, transposed, absorb, consumer, kept };
                case.check(&mut random);
            }
        }
    }
}

#[test]
fn a_run_that_is_over_is_heard() {
    let (dtype, consumer) = (DType::F32, Consumer::Activation);
    let case = Case { dtype, m: 512, n: 256, k: 64, transposed: [false; 2], absorb: false, consumer, kept: false };
    let cancel = AtomicBool::new(true);
    let environment = Environment {
        buffers: &[],
        blocks: &[],
        ahead: None,
        scalars: &[],
        starts: &[],
        scratch: Memory::EMPTY,
        cancel: &cancel,
        poll: None,
    };
    // SAFETY: nothing is touched.
    let error = unsafe { execute(&steps(vec![case.product(), case.consumer()]), &environment) }.unwrap_err();
    assert_eq!(error.1.kind, ErrorKind::Interrupted);
}

#[test]
fn what_would_not_gain_runs_in_turn() {
    let case = Case {
        dtype: DType::F32,
        m: 512,
        n: 256,
        k: 64,
        transposed: [false; 2],
        absorb: false,
        consumer: Consumer::Activation,
        kept: false,
    };
    let joins = |case: Case| scratch_bytes(&case.product(), &case.consumer(), false, 2).is_some();
    assert!(joins(case));
    // So small that it stays in cache; a vector; too few rows for many threads; a deep product with a small result.
    assert!(!joins(Case { m: 32, ..case }));
    assert!(!joins(Case { n: 1, ..case }));
    assert!(!joins(Case { m: 128, n: 1024, k: 1024, ..case }));
    assert!(!joins(Case { m: 256, k: 1 << 14, ..case }));
    // A kept product needs no room for blocks; with many threads blocks take no more than the product.
    let bytes = |kept: bool, threads: usize| scratch_bytes(&case.product(), &case.consumer(), kept, threads).unwrap();
    assert!(bytes(true, 2) < bytes(false, 2));
    assert!(bytes(false, 64) <= bytes(true, 64) + 512 * 256 * 4);
    // Operands of another dtype, and another element than the one at hand.
    let Kernel::Structural { op, parameters, mut operands, result } = case.product() else { unreachable!() };
    operands[1].dtype = DType::F64;
    let product = Kernel::Structural { op, parameters, operands, result };
    assert!(scratch_bytes(&product, &case.consumer(), false, 2).is_none());
    let Kernel::Fused(mut kernel) = case.consumer() else { unreachable!() };
    kernel.loads[0].offset = 1;
    assert!(scratch_bytes(&case.product(), &Kernel::Fused(kernel), false, 2).is_none());
    let Kernel::Fused(mut kernel) = case.consumer() else { unreachable!() };
    kernel.loads[0].strides = [1, 512].as_slice().into();
    assert!(scratch_bytes(&case.product(), &Kernel::Fused(kernel), false, 2).is_none());
    // All elements are added up by rows only where blocks of rows are nodes of the tree.
    for (n, joined) in [(256, true), (250, false)] {
        let case = Case { n, consumer: Consumer::Copy, ..case };
        let Kernel::Fused(mut kernel) = case.consumer() else { unreachable!() };
        kernel.reduce.as_mut().unwrap().reduced = [true, true].as_slice().into();
        assert_eq!(scratch_bytes(&case.product(), &Kernel::Fused(kernel), false, 2).is_some(), joined);
    }
}
