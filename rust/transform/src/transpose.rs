//! Transposition of the linear part of a graph.
//!
//! The linear nodes are the forward cone of the tangent inputs, found here and stored nowhere. They are visited in
//! reverse; each primitive's `transpose` rule sends the cotangent of a node on to its operands, where it is added up:
//! sums in the order of arrival, strided and scattered updates in place of one accumulator that starts as zeros (so
//! that a loop over slices stays linear in the elements that it touches). A minus travels with a cotangent as a flag
//! and becomes part of the next sum: every linear operation commutes with it to the bit, zeros' signs aside.
//!
//! With P passes so far, the transposed of a node of pass p belongs to pass 2P − 1 − p at the node's position; so the
//! reverse of an execution order is one too.

use ckad_graph::{Attributes, Error, Graph, NodeId, Op, Result, interrupt, tables};
use ckad_prim::{Accumulator, Builder, Elementwise, Expr, transpose};
use rustc_hash::FxHashMap;

use crate::body::call_of;
use crate::calls::{self, Transposed};
use crate::copy::{Copy, NodeTable, derived, passes, table};

/// Cotangents of values used more often than this are accumulated if the uses are also far apart.
const NEAR_USES: u32 = 2;
/// How many nodes, recorded or derived, lie between the first and the last of uses that are far apart.
const FAR: u32 = 64;

/// A graph with a linear part.
pub(crate) struct Linear {
    /// Its outputs are those that do not depend on the tangent inputs.
    pub graph: Graph,
    /// The last inputs of the graph.
    pub tangent_inputs: Vec<NodeId>,
    /// The linear outputs; `None` is a zero.
    pub tangent_outputs: Vec<Option<NodeId>>,
}

/// The graph with its linear part transposed: the outputs are the graph's own, followed by the cotangents of the
/// tangent inputs. `seed` appends the cotangents of tangent outputs, as inputs or otherwise.
pub(crate) fn transpose_linear(
    op: &'static str,
    linear: &Linear,
    seed: impl FnOnce(&Builder, &Linear) -> Result<Vec<(NodeId, NodeId)>>,
) -> Result<Graph> {
    let source = &linear.graph;
    let uses = LinearUses::find(op, linear)?;
    let transposed_passes = passes(source) * 2;
    if transposed_passes > u32::from(u16::MAX) {
        return Err(Error::value(op, "derivatives are nested too deeply")
            .with_hint("transform at most 15 times in reverse mode, or use ckad.jvp for the outer derivatives"));
    }

    let builder = Builder::new(derived(source, 2)?);
    let mut copy = Copy::new(op, source)?;
    copy_known(&builder, source, linear, &uses, &mut copy)?;
    let mut cotangents = Cotangents {
        builder: &builder,
        source,
        uses: &uses,
        values: NodeTable::new(op, source.len())?,
        negated: table(op, false, source.len())?,
        node: NodeId(0),
        error: None,
    };
    for (tangent, cotangent) in seed(&builder, linear)? {
        builder.set_attributes(transposed(source.attributes(tangent), transposed_passes));
        cotangents.add_to(tangent, cotangent, false);
    }

    let parts = linear_parts(op, source, &uses)?;
    let mut coefficients: Vec<Option<Expr<'_>>> = Vec::new();
    let mut is_linear: Vec<bool> = Vec::new();
    for id in source.ids().rev() {
        interrupt::check_at(id.index())?;
        if matches!(source.op(id), Op::Input(_) | Op::Part(_)) {
            continue;
        }
        if matches!(source.op(id), Op::Call(_)) {
            let attributes = transposed(source.attributes(id), transposed_passes);
            builder.set_attributes(attributes);
            cotangents.of_call(op, id, &copy, parts.get(&id)).map_err(|error| error.at_line(attributes.line))?;
            continue;
        }
        let Some(cotangent) = cotangents.values.get(id) else { continue };
        coefficients.clear();
        is_linear.clear();
        for &operand in source.operands(id) {
            let linear = uses.is_linear(operand);
            tables::push(op, &mut is_linear, linear)?;
            let coefficient = if linear { None } else { Some(builder.expr(copy.of(operand)?)) };
            tables::push(op, &mut coefficients, coefficient)?;
        }
        let attributes = transposed(source.attributes(id), transposed_passes);
        builder.set_attributes(attributes);
        cotangents.node = id;
        transpose(source, id, &coefficients, &is_linear, builder.expr(cotangent), &mut cotangents)
            .and_then(|()| builder.take_error())
            .and_then(|()| cotangents.error.take().map_or(Ok(()), Err))
            .map_err(|error| error.at_line(attributes.line))?;
    }

    let mut outputs = copy.all(&source.outputs)?;
    for &input in &linear.tangent_inputs {
        let found = cotangents.values.get(input);
        let place = found.map(|gradient| (builder.graph().op(gradient), builder.graph().attributes(gradient)));
        builder.set_attributes(match place {
            Some((op, attributes)) if !op.is_leaf() => attributes,
            // The end of the last pass, which runs down the tape.
            _ => Attributes {
                line: source.attributes(input).line,
                pass: (transposed_passes - 1) as u16,
                ..Attributes::default()
            },
        });
        let gradient = match found {
            Some(gradient) => cotangents.signed(gradient, cotangents.negated[input.index()])?,
            None => builder.zeros(source.dtype(input), source.shape(input))?,
        };
        tables::push(op, &mut outputs, gradient)?;
    }
    let mut target = builder.finish()?;
    target.outputs = outputs;
    Ok(target)
}

fn transposed(attributes: Attributes, passes: u32) -> Attributes {
    Attributes { pass: (passes - 1 - u32::from(attributes.pass)) as u16, ..attributes }
}

/// Copies what does not depend on the tangent inputs and is needed, and the inputs that are not tangents.
fn copy_known(builder: &Builder, source: &Graph, linear: &Linear, uses: &LinearUses, copy: &mut Copy) -> Result<()> {
    let mut target = builder.graph_mut();
    let primal_inputs = source.inputs.len() - linear.tangent_inputs.len();
    for &input in &source.inputs[..primal_inputs] {
        copy.input(&mut target, source, input)?;
    }
    for id in source.ids() {
        interrupt::check_at(id.index())?;
        if uses.needed[id.index()] && !uses.is_linear(id) && !matches!(source.op(id), Op::Input(_)) {
            copy.node(&mut target, source, id, source.attributes(id))?;
        }
    }
    Ok(())
}

/// For each call that is linear, those of its parts that are.
fn linear_parts(op: &str, source: &Graph, uses: &LinearUses) -> Result<FxHashMap<NodeId, Vec<NodeId>>> {
    let mut parts: FxHashMap<NodeId, Vec<NodeId>> = FxHashMap::default();
    for id in source.ids().filter(|&id| matches!(source.op(id), Op::Part(_)) && uses.is_linear(id)) {
        tables::room_for_keys(op, &mut parts, 1)?;
        tables::push(op, parts.entry(source.operands(id)[0]).or_default(), id)?;
    }
    Ok(parts)
}

/// The forward cone of the tangent inputs, and how its values are used.
struct LinearUses {
    linear: Vec<bool>,
    /// Reached by an output, linear or not.
    needed: Vec<bool>,
    /// For each linear node: are its uses many and far apart?
    far: Vec<bool>,
}

impl LinearUses {
    fn find(op: &str, linear_graph: &Linear) -> Result<LinearUses> {
        let graph = &linear_graph.graph;
        let mut linear = table(op, false, graph.len())?;
        for input in &linear_graph.tangent_inputs {
            linear[input.index()] = true;
        }
        for id in graph.ids() {
            if graph.operands(id).iter().any(|operand| linear[operand.index()]) {
                linear[id.index()] = true;
            }
        }

        // Users are met from the last to the first.
        let mut needed = table(op, false, graph.len())?;
        let mut count = table(op, 0u32, graph.len())?;
        let mut last: Vec<u32> = table(op, 0, graph.len())?;
        let mut far = table(op, false, graph.len())?;
        for &output in linear_graph.tangent_outputs.iter().flatten() {
            needed[output.index()] = true;
            count[output.index()] += 1;
            last[output.index()] = output.0;
        }
        for output in &graph.outputs {
            needed[output.index()] = true;
        }
        for id in graph.ids().rev() {
            interrupt::check_at(id.index())?;
            if !needed[id.index()] {
                continue;
            }
            for operand in graph.operands(id) {
                let index = operand.index();
                needed[index] = true;
                if linear[index] {
                    count[index] += 1;
                    if last[index] == 0 {
                        last[index] = id.0;
                    }
                    far[index] = count[index] > NEAR_USES && far_apart(graph, id, NodeId(last[index]));
                }
            }
        }
        Ok(LinearUses { linear, needed, far })
    }

    fn is_linear(&self, id: NodeId) -> bool {
        self.linear[id.index()]
    }
}

/// Is there more between two users than the derived nodes of a few recorded ones?
fn far_apart(graph: &Graph, first: NodeId, last: NodeId) -> bool {
    let (a, b) = (graph.attributes(first), graph.attributes(last));
    last.0.abs_diff(first.0) > FAR && (a.pass != b.pass || a.position.abs_diff(b.position) > FAR)
}

/// The cotangents of the linear nodes, as far as they are known.
struct Cotangents<'a, 'b> {
    builder: &'b Builder,
    source: &'a Graph,
    uses: &'a LinearUses,
    values: NodeTable,
    /// Of each: is the cotangent that value with a minus?
    negated: Vec<bool>,
    /// The node that is being transposed.
    node: NodeId,
    error: Option<Error>,
}

impl Cotangents<'_, '_> {
    /// Hands the cotangents of a call's parts on to its operands, once all of its parts have theirs.
    fn of_call(&mut self, op: &'static str, id: NodeId, copy: &Copy, parts: Option<&Vec<NodeId>>) -> Result<()> {
        let (source, builder) = (self.source, self.builder);
        let mut given = Vec::new();
        for &part in parts.into_iter().flatten() {
            let Op::Part(index) = source.op(part) else { continue };
            if let Some(value) = self.values.get(part) {
                let value = self.signed(value, self.negated[part.index()])?;
                if given.len() <= index as usize {
                    given.resize(index as usize + 1, None);
                }
                // A part may stand there twice.
                given[index as usize] = Some(match given[index as usize] {
                    Some(other) => builder.elementwise(Elementwise::Add, &[other, value])?,
                    None => value,
                });
            }
        }
        if given.is_empty() {
            return Ok(());
        }
        given.resize(call_of(source, id)?.kind.parts(), None);
        let operands = source.operands(id);
        let is_linear: Vec<bool> = tables::list(op, operands.iter().map(|&operand| self.uses.is_linear(operand)))?;
        let coefficient = |(&operand, &linear): (&NodeId, &bool)| match linear {
            true => Ok(None),
            false => copy.of(operand).map(Some),
        };
        let coefficients = tables::tried(op, operands.iter().zip(&is_linear).map(coefficient))?;
        let at = Transposed {
            op,
            builder,
            source,
            id,
            coefficients: &coefficients,
            is_linear: &is_linear,
            cotangents: &given,
        };
        for (operand, cotangent) in calls::transposed(&at)? {
            self.add_to(operands[operand], cotangent, false);
        }
        self.error.take().map_or(Ok(()), Err)
    }

    fn target(&self, operand: usize) -> Option<NodeId> {
        self.source.operands(self.node).get(operand).copied().filter(|&target| self.uses.is_linear(target))
    }

    fn settle(&mut self, target: NodeId, value: Result<NodeId>) {
        match value {
            Ok(value) => self.values.set(target, value),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn add_to(&mut self, target: NodeId, cotangent: NodeId, negated: bool) {
        let index = target.index();
        let far = self.uses.far[index];
        let Some(sum) = self.values.get(target) else {
            // What many others are added to has no minus, or each of them would need one.
            self.negated[index] = negated && !far;
            let value = self.signed(cotangent, negated && far);
            return self.settle(target, value);
        };
        let builder = self.builder;
        let one_sign = self.negated[index] == negated;
        let sum = if far {
            self.signed(cotangent, !one_sign).and_then(|addend| builder.accumulate(sum, addend))
        } else if one_sign {
            builder.elementwise(Elementwise::Add, &[sum, cotangent])
        } else {
            let (plus, minus) = if negated { (sum, cotangent) } else { (cotangent, sum) };
            self.negated[index] = false;
            builder.elementwise(Elementwise::Subtract, &[plus, minus])
        };
        self.settle(target, sum);
    }

    /// `value`, or what it is with a minus.
    fn signed(&self, value: NodeId, negated: bool) -> Result<NodeId> {
        if negated { self.builder.elementwise(Elementwise::Negative, &[value]) } else { Ok(value) }
    }

    /// Does the cotangent of the node that is being transposed have a minus?
    fn is_negated(&self) -> bool {
        self.negated[self.node.index()]
    }
}

impl<'b> Accumulator<'b> for Cotangents<'_, 'b> {
    fn add(&mut self, operand: usize, cotangent: Expr<'b>) {
        if let Some(target) = self.target(operand) {
            self.add_to(target, cotangent.id, self.is_negated());
        }
    }

    fn subtract(&mut self, operand: usize, cotangent: Expr<'b>) {
        if let Some(target) = self.target(operand) {
            self.add_to(target, cotangent.id, !self.is_negated());
        }
    }

    fn update(&mut self, operand: usize, op: Op, value: Expr<'b>, indices: &[Expr<'b>]) {
        let Some(target) = self.target(operand) else { return };
        let (dtype, shape) = (self.source.dtype(target), self.source.shape(target));
        let base = match self.values.get(target) {
            Some(sum) => Ok(sum),
            None => self.builder.zeros(dtype, shape),
        };
        // The accumulator is large and stays as it is; what is added to it is small and takes on its sign.
        let other_sign = self.is_negated() != self.negated[target.index()];
        let sum = base.and_then(|base| {
            let value = self.signed(value.id, other_sign)?;
            let operands: Vec<NodeId> = [base, value].into_iter().chain(indices.iter().map(|index| index.id)).collect();
            self.builder.push(op, &operands, dtype, shape)
        });
        self.settle(target, sum);
    }
}
