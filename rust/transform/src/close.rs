//! From recorded functions to the bodies of loops and branches: what a function reads from outside becomes inputs, its
//! numbers and captured arrays too, so that other values find the same structure.

use ckad_graph::{
    Branch, Call, CallKind, Constant, Custom, DType, Error, ErrorKind, Graph, NodeId, Op, Result, ScalarBits, Scan,
    While, tables,
};
use rustc_hash::FxHashMap;

use crate::body::{used_inputs, with_inputs};
use crate::calls::{Form, beside};
use crate::copy::{Copy, derived, reached};
use crate::extract;
use crate::settle::settle;
use crate::simplify::simplify;

/// The operation whose errors these are.
const OP: &str = "loop";

/// A value from outside that a body reads.
#[derive(Clone, Debug)]
pub enum Outside {
    /// That input of the recorded graph.
    Input(usize),
    Scalar(DType, ScalarBits),
    /// A captured array, whose shape is that of the body's input.
    Constant(DType, Vec<i64>, Constant),
}

/// A recorded function without anything from outside.
#[derive(Debug)]
pub struct Closed {
    /// Its inputs: its own, then `consts`.
    graph: Graph,
    own: usize,
    /// What the inputs behind its own stand for.
    pub consts: Vec<Outside>,
}

impl Closed {
    /// The function that was recorded in `graph`, whose first `own` inputs are its arguments.
    pub fn of(graph: &Graph, own: usize) -> Result<Closed> {
        Closed::with(graph, own, false)
    }

    /// As [`Closed::of`], but a literal 0 is read from outside, so that a derivative's product with it stays and can be
    /// watched ([`crate::absorbed`]).
    pub fn keeping_zeros(graph: &Graph, own: usize) -> Result<Closed> {
        Closed::with(graph, own, true)
    }

    fn with(graph: &Graph, own: usize, keeps_zeros: bool) -> Result<Closed> {
        let graph = settle(extract(graph, &graph.outputs)?)?;
        let live = reached(OP, &graph, graph.outputs.iter().copied())?;
        let mut target = derived(&graph, 1)?;
        let mut copy = Copy::new(OP, &graph)?;
        let captured: Vec<usize> =
            (own..graph.inputs.len()).filter(|&index| live[graph.inputs[index].index()]).collect();
        for index in (0..own).chain(captured.iter().copied()) {
            copy.input(&mut target, &graph, graph.inputs[index])?;
        }
        let mut consts: Vec<Outside> = captured.into_iter().map(Outside::Input).collect();
        let mut scalars: FxHashMap<(DType, u32), NodeId> = FxHashMap::default();
        for id in graph.ids().filter(|id| live[id.index()]) {
            let node = graph.node(id);
            match node.op {
                Op::Input(_) => continue,
                Op::Scalar(index) => {
                    if let Some(&known) = scalars.get(&(node.dtype, index)) {
                        copy.set(id, known);
                        continue;
                    }
                    consts.push(Outside::Scalar(node.dtype, graph.scalars[index as usize]));
                }
                Op::Literal(bits) if keeps_zeros && node.dtype.is_float() && f32::from_bits(bits) == 0.0 => {
                    let zero = node.dtype.bits_of_f64(f32::from_bits(bits).into());
                    consts.push(Outside::Scalar(node.dtype, zero));
                }
                Op::Constant(index) => {
                    let constant = Constant::clone(&graph.constants[index as usize]);
                    consts.push(Outside::Constant(node.dtype, graph.shape(id).to_vec(), constant));
                }
                _ => {
                    copy.node(&mut target, &graph, id, node.attributes)?;
                    continue;
                }
            }
            let input = target.push_input(node.dtype, node.shape, node.attributes)?;
            if let Op::Scalar(index) = node.op {
                tables::room_for_keys(OP, &mut scalars, 1)?;
                scalars.insert((node.dtype, index), input);
            }
            copy.set(id, input);
        }
        target.outputs = copy.all(&graph.outputs)?;
        target.scalars.clear();
        target.constants.clear();
        Ok(Closed { graph: simplify(target)?, own, consts })
    }

    /// The body with its own inputs from `first` on behind its constants.
    fn behind_constants(&self, first: usize) -> Result<Graph> {
        let order: Vec<usize> = (self.own..self.graph.inputs.len()).chain(first..self.own).collect();
        with_inputs(OP, &self.graph, &order, &[], &self.graph.outputs)
    }

    /// The loop of this body, whose own inputs are the index, the carries and the slices, and whose first outputs are
    /// the next carries. Operands: the constants, the carries, the arrays.
    pub fn scan(&self, trips: u32, reverse: bool, carries: usize) -> Result<Call> {
        let order: Vec<usize> =
            std::iter::once(0).chain(self.own..self.graph.inputs.len()).chain(1..self.own).collect();
        let body = with_inputs(OP, &self.graph, &order, &[], &self.graph.outputs)?;
        let scan = Scan {
            trips,
            reverse,
            consts: self.consts.len() as u32,
            carries: carries as u32,
            xs: (self.own - 1 - carries) as u32,
            ys: (self.graph.outputs.len() - carries) as u32,
            slots: 0,
        };
        Ok(ckad_prim::call(CallKind::Scan(scan), vec![body]))
    }

    /// The loop of this body, whose own inputs are an index that it does not read and the carries, as long as `test` of
    /// the carries holds. Operands: the constants of the test, those of the body, the carries.
    pub fn repeated(&self, test: &Closed) -> Result<Call> {
        let looped = While {
            handed: 0,
            test_consts: test.consts.len() as u32,
            consts: self.consts.len() as u32,
            carries: self.graph.outputs.len() as u32,
            slots: While::SLOTS,
        };
        let bodies = vec![test.behind_constants(0)?, self.behind_constants(1)?];
        Ok(ckad_prim::call(CallKind::While(looped), bodies))
    }

    /// One of two functions of the same arguments, this one where the choice is false. Operands: the choice, the
    /// constants of this one and of the other, the arguments.
    pub fn or(&self, other: &Closed) -> Result<Call> {
        // Each takes the constants of the other, and does not read them.
        let side = |own: &Closed, foreign: &Closed, foreign_first: bool| {
            let mut graph = own.graph.copied()?;
            for &input in &foreign.graph.inputs[foreign.own..] {
                let shape = graph.lists.intern(foreign.graph.shape(input))?;
                let attributes = foreign.graph.attributes(input).without_region();
                graph.push_input(foreign.graph.dtype(input), shape, attributes)?;
            }
            let (first, end) = (own.graph.inputs.len(), graph.inputs.len());
            let (own_consts, added) = (own.own..first, first..end);
            let (one, two) = if foreign_first { (added, own_consts) } else { (own_consts, added) };
            let order: Vec<usize> = one.chain(two).chain(0..own.own).collect();
            with_inputs(OP, &graph, &order, &[], &graph.outputs)
        };
        let branch = Branch {
            values: (self.consts.len() + other.consts.len() + self.own) as u32,
            results: self.graph.outputs.len() as u32,
        };
        let bodies = vec![side(self, other, false)?, side(other, self, true)?];
        Ok(ckad_prim::call(CallKind::Branch(branch), bodies))
    }

    /// The rule for a derivative of this function's user: from `own` tangents or cotangents. A rule for tangents is
    /// kept as its derivative by them, which is what it says if it is linear in them (it then does not depend on them),
    /// written so that it can be transposed. Operands: the results, the arguments, the constants.
    pub fn custom(&self, kind: Custom) -> Result<Call> {
        let (forward, kind) = (kind.forward, CallKind::Custom(kind));
        if !forward {
            return Ok(ckad_prim::call(kind, vec![self.graph.copied()?]));
        }
        let flags: Vec<bool> = (0..self.graph.inputs.len()).map(|input| input < self.own).collect();
        let both = beside("custom_jvp", Form::Split, &self.graph, &flags, &vec![true; self.graph.outputs.len()])?;
        let inputs = both.graph.inputs.len();
        let all: Vec<usize> = (0..inputs).collect();
        let graph = simplify(with_inputs("custom_jvp", &both.graph, &all, &[], &both.tangents)?)?;
        if used_inputs("custom_jvp", &graph, &graph.outputs)?[..self.own].contains(&true) {
            return Err(not_linear());
        }
        let order: Vec<usize> = (self.graph.inputs.len()..inputs).chain(self.own..self.graph.inputs.len()).collect();
        Ok(ckad_prim::call(kind, vec![with_inputs("custom_jvp", &graph, &order, &[], &graph.outputs)?]))
    }

    /// As many outputs as it has.
    pub fn outputs(&self) -> usize {
        self.graph.outputs.len()
    }
}

fn not_linear() -> Error {
    Error::new(ErrorKind::Type, "custom_jvp", "the rule is not linear in the tangents")
        .with_hint("multiply tangents by what does not depend on them, and add such products")
}
