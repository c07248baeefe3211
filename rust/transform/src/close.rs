//! From a recorded function to the body of a loop: what it reads from outside becomes inputs, its numbers and captured
//! arrays too, so that other values find the same structure.

use ckad_graph::{CallKind, Constant, DType, Graph, Op, Result, ScalarBits, Scan, tables};
use rustc_hash::FxHashMap;

use crate::body::with_inputs;
use crate::copy::{Copy, derived, reached};
use crate::extract;
use crate::settle::settle;
use crate::simplify::simplify;

/// The operation whose errors these are.
const OP: &str = "scan";

/// A value from outside that a body reads.
#[derive(Clone, Debug)]
pub enum Outside {
    /// That input of the recorded graph.
    Input(usize),
    Scalar(DType, ScalarBits),
    /// A captured array, whose shape is that of the body's input.
    Constant(DType, Vec<i64>, Constant),
}

/// A body, and what its constants stand for.
#[derive(Debug)]
pub struct Closed {
    pub call: ckad_graph::Call,
    pub consts: Vec<Outside>,
}

/// The scan whose body was recorded in `graph`: the first inputs are the index, the carries and the slices, the first
/// outputs the next carries.
pub fn closed_scan(graph: &Graph, trips: u32, reverse: bool, carries: usize, xs: usize) -> Result<Closed> {
    let graph = settle(extract(graph, &graph.outputs)?)?;
    let live = reached(OP, &graph, graph.outputs.iter().copied())?;
    let mut target = derived(&graph, 1)?;
    let mut copy = Copy::new(OP, &graph)?;
    copy.inputs(&mut target, &graph)?;
    let own = 1 + carries + xs;
    let captured = (own..graph.inputs.len()).filter(|&index| live[graph.inputs[index].index()]);
    let captured: Vec<usize> = captured.collect();
    let mut consts: Vec<Outside> = captured.iter().map(|&index| Outside::Input(index)).collect();
    let mut scalars: FxHashMap<(DType, u32), ckad_graph::NodeId> = FxHashMap::default();
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
    let numbers = graph.inputs.len()..target.inputs.len();
    let order: Vec<usize> =
        std::iter::once(0).chain(captured).chain(numbers).chain(1..1 + carries).chain(1 + carries..own).collect();
    let outputs = tables::list(OP, target.outputs.iter().copied())?;
    let body = simplify(with_inputs(OP, &target, &order, &[], &outputs)?)?;
    let scan = Scan {
        trips,
        reverse,
        consts: consts.len() as u32,
        carries: carries as u32,
        xs: xs as u32,
        ys: (outputs.len() - carries) as u32,
        slots: 0,
    };
    Ok(Closed { call: ckad_prim::call(CallKind::Scan(scan), vec![body]), consts })
}
