//! Programs whose gradients the planner's tests plan: recorded as a tape records them, then differentiated.
#![allow(dead_code)] // Each test uses its part.

use ckad_graph::{Attributes, CheckpointPolicy, DType, DotAxes, Graph, NodeId, Op, Region, RegionId};
use ckad_plan::program::{BufferId, Joining, Kernel, Source, Step, Target};
use ckad_prim::{Builder, Expr};
use ckad_transform::{extract, jvp, simplify, splice, value_and_grad};

pub fn target() -> Target {
    fn no_scratch(_: &Kernel, _: usize) -> usize {
        0
    }
    fn products_with_readers(steps: &[Step]) -> usize {
        // As on a machine where only some products are joined.
        let [Step { kernel: Kernel::Structural { op: Op::Dot { .. }, result, .. }, .. }, next, ..] = steps else {
            return 1;
        };
        let Kernel::Fused(kernel) = &next.kernel else { return 1 };
        let reads = kernel.loads.iter().any(|load| load.source == result.source);
        1 + usize::from(reads && result.shape.iter().product::<usize>() % 2 == 0)
    }
    fn products_unstored(steps: &[Step], dying: &[BufferId], _: usize) -> Option<Joining> {
        let Kernel::Structural { result, .. } = &steps[0].kernel else { return None };
        let unstored = dying.iter().copied().filter(|&id| result.source == Source::Buffer(id)).collect();
        Some(Joining { scratch: 0, unstored })
    }
    Target {
        alignment: 64,
        operand_limit: 16,
        register_limit: 32,
        threads: 1,
        scratch: no_scratch,
        joined: products_with_readers,
        joining: products_unstored,
    }
}

/// A tape: the position of a node is its index.
pub struct Tape {
    pub builder: Builder,
    inputs: Vec<NodeId>,
    region: RegionId,
}

impl Tape {
    pub fn new() -> Tape {
        Tape { builder: Builder::new(Graph::new()), inputs: Vec::new(), region: RegionId(0) }
    }

    pub fn input(&mut self, shape: &[i64]) -> NodeId {
        let shape = self.builder.intern(shape).unwrap();
        let id = self.builder.graph_mut().push_input(DType::F32, shape, Attributes::default()).unwrap();
        self.inputs.push(id);
        id
    }

    /// From here on the nodes belong to a new region inside the present one.
    pub fn enter(&mut self, policy: CheckpointPolicy) {
        let mut graph = self.builder.graph_mut();
        graph.regions.push(Region { policy, parent: self.region });
        self.region = RegionId(graph.regions.len() as u16 - 1);
    }

    pub fn leave(&mut self) {
        self.region = self.builder.graph().regions[self.region.0 as usize].parent;
    }

    /// Records one operation at the next position.
    pub fn record<'a>(&'a self, write: impl FnOnce(&'a Builder) -> Expr<'a>) -> NodeId {
        let position = self.builder.graph().len() as u32;
        self.builder.set_attributes(Attributes { position, line: position, region: self.region, pass: 0 });
        write(&self.builder).id
    }

    pub fn unary(&self, x: NodeId, write: impl for<'b> FnOnce(Expr<'b>) -> Expr<'b>) -> NodeId {
        self.record(|builder| write(builder.expr(x)))
    }

    pub fn binary(&self, x: NodeId, y: NodeId, write: impl for<'b> FnOnce(Expr<'b>, Expr<'b>) -> Expr<'b>) -> NodeId {
        self.record(|builder| write(builder.expr(x), builder.expr(y)))
    }

    pub fn matmul(&self, a: NodeId, b: NodeId) -> NodeId {
        let axes = DotAxes { lhs_contract: vec![1], rhs_contract: vec![0], ..DotAxes::default() };
        self.record(|builder| builder.expr(builder.dot(a, b, &axes, false).unwrap()))
    }

    pub fn sum(&self, x: NodeId) -> NodeId {
        let axes: Vec<usize> = (0..self.builder.shape(x).len()).collect();
        self.record(|builder| builder.expr(x).sum(&axes))
    }

    pub fn read(&self, x: NodeId, shape: &[i64], strides: &[i64], start: i64) -> NodeId {
        self.record(|builder| builder.expr(builder.strided_read(x, shape, strides, start).unwrap()))
    }

    /// The value and gradient of `loss` by all inputs.
    pub fn gradient(self, loss: NodeId) -> Graph {
        let mut graph = self.builder.finish().unwrap();
        graph.outputs = vec![loss];
        let active = vec![true; self.inputs.len()];
        let graph = simplify(value_and_grad(&graph, &active).unwrap()).unwrap();
        ckad_prim::verify(&graph).unwrap();
        graph
    }
}

/// Forward over reverse: the gradient of the gradient graph along tangents.
pub fn hvp(gradient: &Graph) -> Graph {
    let gradient = extract(gradient, &gradient.outputs[1..]).unwrap();
    let active = vec![true; gradient.inputs.len()];
    simplify(jvp(&gradient, &active).unwrap()).unwrap()
}

/// Reverse over reverse: the gradient of the squared norm of the gradient by the first input.
pub fn penalty(gradient: &Graph) -> Graph {
    let builder = Builder::new(gradient.derived().unwrap());
    let mut inputs = Vec::new();
    for &input in &gradient.inputs {
        let node = *gradient.node(input);
        inputs.push(builder.graph_mut().push_input(node.dtype, node.shape, node.attributes).unwrap());
    }
    let outputs = splice(&builder, gradient, &inputs, |line| line).unwrap();
    let last = gradient.ids().map(|id| gradient.attributes(id).pass).max().unwrap();
    builder.set_attributes(Attributes { pass: last, ..Attributes::default() });
    let squares = builder.expr(outputs[1]).square();
    let axes: Vec<usize> = (0..squares.shape().len()).collect();
    let loss = squares.sum(&axes).id;
    let mut graph = builder.finish().unwrap();
    graph.outputs = vec![loss];
    let active = vec![true; inputs.len()];
    simplify(value_and_grad(&graph, &active).unwrap()).unwrap()
}

/// `x ← tanh(x W + b)`, then the sum of squares.
pub fn mlp(layers: usize, width: i64, batch: i64) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[batch, width]);
    let weights: Vec<_> = (0..layers).map(|_| (tape.input(&[width, width]), tape.input(&[width]))).collect();
    for (w, b) in weights {
        let z = tape.matmul(x, w);
        let z = tape.binary(z, b, |z, b| z + b);
        x = tape.unary(z, |z| z.tanh());
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// The same net in blocks, each in a region of the policy.
pub fn blocks(blocks: usize, layers: usize, width: i64, batch: i64, policy: CheckpointPolicy) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[batch, width]);
    let weights: Vec<_> = (0..blocks * layers).map(|_| tape.input(&[width, width])).collect();
    for (index, w) in weights.into_iter().enumerate() {
        if index % layers == 0 {
            tape.enter(policy);
        }
        let z = tape.matmul(x, w);
        x = tape.unary(z, |z| z.tanh());
        if index % layers == layers - 1 {
            tape.leave();
        }
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

fn sigmoid(tape: &Tape, x: NodeId) -> NodeId {
    let e = tape.unary(x, |x| (-x).exp());
    let one = tape.unary(e, |e| e + 1.0);
    tape.unary(one, |x| x.reciprocal())
}

/// An LSTM over time steps, its weights shared by all.
pub fn lstm(steps: usize, width: i64, batch: i64) -> Graph {
    let mut tape = Tape::new();
    let mut h = tape.input(&[batch, width]);
    let mut c = tape.input(&[batch, width]);
    let w = tape.input(&[width, 4 * width]);
    let b = tape.input(&[4 * width]);
    for _ in 0..steps {
        let z = tape.matmul(h, w);
        let z = tape.binary(z, b, |z, b| z + b);
        let gate = |k: i64| tape.read(z, &[batch, width], &[4 * width, 1], k * width);
        let (f, i, o) = (sigmoid(&tape, gate(0)), sigmoid(&tape, gate(1)), sigmoid(&tape, gate(2)));
        let g = tape.unary(gate(3), |x| x.tanh());
        let kept = tape.binary(f, c, |f, c| f * c);
        let new = tape.binary(i, g, |i, g| i * g);
        c = tape.binary(kept, new, |a, b| a + b);
        let t = tape.unary(c, |c| c.tanh());
        h = tape.binary(o, t, |o, t| o * t);
    }
    let squares = tape.unary(h, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// Nonlinear diffusion with slices: `u ← u + dt·(u[:-2] − 2 u[1:-1] + u[2:])·u[1:-1]²` inside, by a new array.
pub fn heat(steps: usize, n: i64) -> Graph {
    let mut tape = Tape::new();
    let mut u = tape.input(&[n]);
    for _ in 0..steps {
        let left = tape.read(u, &[n - 2], &[1], 0);
        let middle = tape.read(u, &[n - 2], &[1], 1);
        let right = tape.read(u, &[n - 2], &[1], 2);
        let around = tape.binary(left, right, |l, r| l + r);
        let twice = tape.unary(middle, |m| m * 2.0);
        let laplacian = tape.binary(around, twice, |a, t| a - t);
        let rate = tape.unary(middle, |m| m.square());
        let flow = tape.binary(laplacian, rate, |l, r| l * r);
        let change = tape.unary(flow, |f| f * 0.125);
        let new = tape.binary(middle, change, |m, c| m + c);
        u = tape.record(|builder| builder.expr(builder.strided_write(u, new, &[1], 1).unwrap()));
    }
    let squares = tape.unary(u, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// `u[t + 1] = u[t] + sin(u[t])`, all states in one storage of `steps + 1` rows.
pub fn trajectory(steps: i64, width: i64) -> Graph {
    let mut tape = Tape::new();
    let x = tape.input(&[width]);
    let mut u = tape.record(|builder| builder.expr(builder.zeros(DType::F32, &[steps + 1, width]).unwrap()));
    u = tape.record(|builder| builder.expr(builder.strided_write(u, x, &[1], 0).unwrap()));
    for t in 0..steps {
        let row = tape.read(u, &[width], &[1], t * width);
        let s = tape.unary(row, |row| row.sin());
        let next = tape.binary(row, s, |row, s| row + s);
        u = tape.record(|builder| builder.expr(builder.strided_write(u, next, &[1], (t + 1) * width).unwrap()));
    }
    let squares = tape.unary(u, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// A U-Net of dense layers: down with halving widths, up again with skips.
pub fn unet(levels: usize, width: i64, batch: i64) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[batch, width]);
    let mut down = Vec::new();
    let mut up = Vec::new();
    for level in 0..levels {
        let (wide, narrow) = (width >> level, width >> (level + 1));
        down.push((tape.input(&[wide, wide]), tape.input(&[wide, narrow])));
        up.push((tape.input(&[narrow, wide]), tape.input(&[wide, wide])));
    }
    let layer = |tape: &Tape, x, w| {
        let z = tape.matmul(x, w);
        let t = tape.unary(z, |z| z.tanh());
        tape.binary(t, z, |t, z| t * z)
    };
    let mut skips = Vec::new();
    for (own, narrower) in down {
        let skip = layer(&tape, x, own);
        skips.push(skip);
        x = layer(&tape, skip, narrower);
    }
    for (wider, own) in up.into_iter().rev() {
        x = layer(&tape, x, wider);
        let skip = skips.pop().unwrap();
        x = tape.binary(x, skip, |x, skip| x + skip);
        x = layer(&tape, x, own);
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// `mean` or `sum` of tanh(x)·exp(−x²) + log1p(x²)/(1 + |x|).
pub fn elementwise(n: i64, mean: bool) -> Graph {
    let mut tape = Tape::new();
    let x = tape.input(&[n]);
    let t = tape.unary(x, |x| x.tanh());
    let minus = tape.unary(x, |x| -x);
    let square = tape.binary(minus, x, |m, x| m * x);
    let bell = tape.unary(square, |x| x.exp());
    let left = tape.binary(t, bell, |t, e| t * e);
    let square = tape.binary(x, x, |a, b| a * b);
    let log = tape.unary(square, |x| x.log1p());
    let distance = tape.unary(x, |x| x.absolute() + 1.0);
    let right = tape.binary(log, distance, |l, d| l / d);
    let value = tape.binary(left, right, |l, r| l + r);
    let mut loss = tape.sum(value);
    if mean {
        loss = tape.unary(loss, |loss| loss / n as f64);
    }
    tape.gradient(loss)
}

/// Parameters, means and gradients of n elements each → the moved parameters and means, as an optimiser makes them.
pub fn updates(count: usize, n: i64) -> Graph {
    let mut tape = Tape::new();
    let mut outputs = Vec::new();
    for _ in 0..count {
        let [parameter, mean, gradient] = [(); 3].map(|()| tape.input(&[n]));
        let moved = tape.binary(mean, gradient, |mean, gradient| mean * 0.875 + gradient * 0.125);
        outputs.extend([tape.binary(parameter, moved, |parameter, moved| parameter - moved * 0.5), moved]);
    }
    let mut graph = tape.builder.finish().unwrap();
    graph.outputs = outputs;
    simplify(graph).unwrap()
}

/// Layers with a shortcut: x ← x + tanh(x W) V.
pub fn residual(blocks: usize, width: i64, batch: i64) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[batch, width]);
    let weights: Vec<_> = (0..blocks).map(|_| (tape.input(&[width, width]), tape.input(&[width, width]))).collect();
    for (w, v) in weights {
        let z = tape.matmul(x, w);
        let h = tape.unary(z, |z| z.tanh());
        let y = tape.matmul(h, v);
        x = tape.binary(x, y, |x, y| x + y);
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}

/// A U-Net of dense layers of one width, two a level: every level down leaves a skip for the level up.
pub fn equal_unet(levels: usize, width: i64, batch: i64) -> Graph {
    let mut tape = Tape::new();
    let mut x = tape.input(&[batch, width]);
    let weights: Vec<_> = (0..4 * levels + 2).map(|_| tape.input(&[width, width])).collect();
    let layers = |tape: &Tape, x, level: usize| {
        weights[2 * level..2 * level + 2].iter().fold(x, |x, &w| {
            let z = tape.matmul(x, w);
            tape.unary(z, |z| z.tanh())
        })
    };
    let mut skips = Vec::new();
    for level in 0..levels {
        x = layers(&tape, x, level);
        skips.push(x);
    }
    x = layers(&tape, x, levels);
    for level in levels + 1..=2 * levels {
        let skip = skips.pop().unwrap();
        x = tape.binary(x, skip, |x, skip| x + skip);
        x = layers(&tape, x, level);
    }
    let squares = tape.unary(x, |x| x.square());
    let loss = tape.sum(squares);
    tape.gradient(loss)
}
