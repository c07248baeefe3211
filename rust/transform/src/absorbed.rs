//! A derived graph that computes, in place of its results, where its products absorbed a number that is not finite.
//!
//! A loop or branch is replaced by one that also says whether it happened in any iteration: a loop has a carry for each
//! line of its body where it can. The test of a loop of unknown length is not looked at, nor the second sweep of a way
//! back, which computes what the loop itself computed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ckad_graph::{
    Attributes, Branch, Call, CallKind, DType, Error, Graph, ListId, NodeId, Op, Result, Rewind, Scan, While,
    interrupt, tables,
};
use ckad_prim::{Builder, Expr};
use rustc_hash::FxHashMap;

use crate::body::{call_of, with_inputs};
use crate::copy::{Copy, derived};
use crate::extract;

/// The operation whose errors these are.
const OP: &str = "absorbed";

/// A graph of the same inputs whose outputs are bools.
#[derive(Debug)]
pub struct Absorbed {
    pub graph: Graph,
    /// The line of the operations that each output speaks of.
    pub lines: Vec<u32>,
}

pub fn absorbed(graph: &Graph) -> Result<Absorbed> {
    let Watched { graph, found, .. } = watched(graph, false)?;
    let lines = tables::list(OP, found.keys().copied())?;
    let outputs = tables::list(OP, found.into_values())?;
    Ok(Absorbed { graph: extract(&graph, &outputs)?, lines })
}

/// A graph with the same outputs, and for each line where something can be absorbed whether it was.
struct Watched {
    graph: Graph,
    found: BTreeMap<u32, NodeId>,
    /// Where what was found earlier is an input: the lines, in the order of these inputs behind the graph's own.
    inputs: Vec<u32>,
}

fn watched(graph: &Graph, carries: bool) -> Result<Watched> {
    let mut target = derived(graph, 2)?;
    let mut copy = Copy::new(OP, graph)?;
    copy.inputs(&mut target, graph)?;
    let builder = Builder::new(target);
    let (mut found, mut inputs) = (BTreeMap::new(), Vec::new());
    let mut note = |line: u32, here: NodeId| -> Result<()> {
        let mut earlier = found.get(&line).copied();
        if carries && earlier.is_none() {
            inputs.push(line);
            earlier = Some(builder.graph_mut().push_input(DType::Bool, ListId::EMPTY, builder.attributes())?);
        }
        // A forward operation and its transpose have one line, as have those of one expression.
        let both = earlier.map(|earlier| builder.expr(earlier).logical_or(builder.expr(here)).id);
        found.insert(line, both.unwrap_or(here));
        Ok(())
    };
    // Of calls that were replaced, the first part that moved, and how far.
    let mut moved: FxHashMap<NodeId, (u32, u32)> = FxHashMap::default();
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let attributes = graph.attributes(id);
        builder.set_attributes(attributes);
        match graph.op(id) {
            Op::Call(_) => {
                let operands = copy.all(graph.operands(id))?;
                if let Some(Saying { call, first, lines }) = saying(&builder, call_of(graph, id)?, &operands)? {
                    copy.set(id, call);
                    tables::room_for_keys(OP, &mut moved, 1)?;
                    moved.insert(id, (first, lines.len() as u32));
                    for (line, part) in lines.into_iter().zip(first..) {
                        note(line, builder.part(call, part)?)?;
                    }
                    continue;
                }
            }
            Op::Part(part) => {
                let call = graph.operands(id)[0];
                if let Some(&(first, count)) = moved.get(&call) {
                    let part = if part < first { part } else { part + count };
                    copy.set(id, builder.part(copy.of(call)?, part)?);
                    continue;
                }
            }
            _ => {}
        }
        let out = copy.node(&mut builder.graph_mut(), graph, id, attributes)?;
        let operands = copy.all(graph.operands(id))?;
        let operands: Vec<Expr<'_>> = tables::list(OP, operands.into_iter().map(|operand| builder.expr(operand)))?;
        if let Some(here) = ckad_prim::absorbed(graph, id, &operands, builder.expr(out)) {
            note(attributes.line, here.id)?;
        }
    }
    let outputs = copy.all(&graph.outputs)?;
    let mut graph = builder.finish()?;
    graph.outputs = outputs;
    Ok(Watched { graph, found, inputs })
}

/// A call that says what was absorbed in it.
struct Saying {
    call: NodeId,
    /// The first of its parts that say so, one for each line.
    first: u32,
    lines: Vec<u32>,
}

/// What takes the place of a call; None where nothing can be absorbed in it.
fn saying(builder: &Builder, call: &Call, operands: &[NodeId]) -> Result<Option<Saying>> {
    match (call.kind, call.bodies.as_slice()) {
        (CallKind::Branch(branch), [one, other]) => chosen(builder, branch, [one, other], operands),
        (CallKind::Scan(scan), [_]) => {
            let before = (scan.consts + scan.carries) as usize;
            let kind = |count| CallKind::Scan(Scan { carries: scan.carries + count, ..scan });
            let place = Place { body: 0, operands: before, inputs: Scan::input_of(before), outputs: scan.carries };
            looped(builder, call, operands, &place, kind)
        }
        (CallKind::While(kind), [_, _]) => {
            let before = (kind.consts + kind.carries) as usize;
            let place = Place { body: 1, operands: operands.len(), inputs: before, outputs: kind.carries };
            looped(builder, call, operands, &place, |count| {
                CallKind::While(While { carries: kind.carries + count, ..kind })
            })
        }
        (CallKind::Rewind(rewind), [_, _]) => {
            let before = rewind.first_other();
            let kind = |count| CallKind::Rewind(Rewind { carries: rewind.carries + count, ..rewind });
            let place = Place { body: 0, operands: 1 + before, inputs: before, outputs: rewind.carries };
            looped(builder, call, operands, &place, kind)
        }
        _ => Err(Error::internal(OP, "a call that is not run, or is the planner's")),
    }
}

/// Where a loop has its carries: behind so many operands, inputs and outputs of that body more can be put.
struct Place {
    body: usize,
    operands: usize,
    inputs: usize,
    outputs: u32,
}

fn looped(
    builder: &Builder,
    call: &Call,
    operands: &[NodeId],
    place: &Place,
    kind: impl FnOnce(u32) -> CallKind,
) -> Result<Option<Saying>> {
    let own = call.bodies[place.body].inputs.len();
    let Watched { graph, found, inputs: lines } = watched(&call.bodies[place.body], true)?;
    let count = lines.len();
    if count == 0 {
        return Ok(None);
    }
    let order: Vec<usize> = (0..place.inputs).chain(own..own + count).chain(place.inputs..own).collect();
    let mut outputs = tables::list(OP, graph.outputs.iter().copied())?;
    let first = place.outputs as usize;
    outputs.splice(first..first, lines.iter().map(|line| found[line]));
    let body = with_inputs(OP, &graph, &order, &[], &outputs)?;
    let bodies = match call.bodies.as_slice() {
        [_] => vec![body],
        // The test takes all carries.
        [test, _] if place.body == 1 => {
            let mut test = test.copied()?;
            for _ in &lines {
                test.push_input(DType::Bool, ListId::EMPTY, Attributes::default())?;
            }
            vec![test, body]
        }
        [_, other @ ..] => std::iter::once(Ok(body)).chain(other.iter().map(Graph::copied)).collect::<Result<_>>()?,
        [] => return Err(Error::internal(OP, "a loop without a body")),
    };
    let mut given = tables::list(OP, operands.iter().copied())?;
    let nowhere = builder.literal(DType::Bool, 0.0)?;
    given.splice(place.operands..place.operands, lines.iter().map(|_| nowhere));
    let call = builder.call(&Arc::new(ckad_prim::call(kind(count as u32), bodies)), &given)?;
    Ok(Some(Saying { call, first: place.outputs, lines }))
}

/// A branch, of which one side can have lines that the other has not.
fn chosen(builder: &Builder, branch: Branch, sides: [&Graph; 2], operands: &[NodeId]) -> Result<Option<Saying>> {
    let sides = [watched(sides[0], false)?, watched(sides[1], false)?];
    let lines: BTreeSet<u32> = sides.iter().flat_map(|side| side.found.keys().copied()).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let side = |Watched { graph, found, .. }: Watched| {
        let mut outputs = tables::list(OP, graph.outputs.iter().copied())?;
        let side = Builder::new(graph);
        for line in &lines {
            outputs.push(match found.get(line) {
                Some(&found) => found,
                None => side.literal(DType::Bool, 0.0)?,
            });
        }
        let mut graph = side.finish()?;
        graph.outputs = outputs;
        Ok(graph)
    };
    let bodies = tables::tried(OP, sides.into_iter().map(side))?;
    let kind = Branch { results: branch.results + lines.len() as u32, ..branch };
    let call = builder.call(&Arc::new(ckad_prim::call(CallKind::Branch(kind), bodies)), operands)?;
    Ok(Some(Saying { call, first: branch.results, lines: lines.into_iter().collect() }))
}
