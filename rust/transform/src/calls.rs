//! What derivatives of loops, branches and rules of the user's share; `scan`, `looped`, `branch` and `custom` derive
//! one kind each.

use std::ops::Range;

use std::sync::Arc;

use ckad_graph::{CallKind, Error, Graph, NodeId, Op, Result, tables};
use ckad_prim::Builder;

use crate::body::call_of;
use crate::copy::{Copy, NodeTable, derived, table};
use crate::jvp::with_tangents;
use crate::{branch, custom, looped, scan};

/// How derivatives of calls are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Values and tangents in one call.
    Joint,
    /// The tangents in a call of their own, which can be transposed.
    Split,
    /// The tangents in a call of their own, which stays as it is.
    Apart,
}

/// A call of the source in the derived graph.
pub(crate) struct Tangents {
    /// The call whose parts are tangents.
    pub call: NodeId,
    /// For each part of the source's call, the part that is its tangent.
    pub tangents: Vec<Option<u32>>,
    /// Where the derived call takes the place of the source's: for each part of that, the part that is its value.
    pub values: Option<Vec<u32>>,
    /// In the split form: what takes the place of the source's call, if not its copy.
    pub own: Option<NodeId>,
}

/// What is known while a call is linearised.
pub(crate) struct Site<'a> {
    pub op: &'static str,
    pub form: Form,
    pub builder: &'a Builder,
    pub source: &'a Graph,
    pub copy: &'a Copy,
    pub tangents: &'a NodeTable,
}

impl Site<'_> {
    /// The tangent of an operand in the derived graph, zeros where there is none.
    pub fn tangent(&self, operand: NodeId) -> Result<NodeId> {
        match self.tangents.get(operand) {
            Some(tangent) => Ok(tangent),
            None => self.builder.zeros(self.source.dtype(operand), self.source.shape(operand)),
        }
    }

    /// In the split form: a call with these bodies in place of the copy of `id`, if a rule for cotangents was used in
    /// them. As in a graph without loops, what is left of such a function is what it computes.
    pub fn with_used_rules(&self, id: NodeId, bodies: impl FnOnce() -> Result<Vec<Graph>>) -> Result<Option<NodeId>> {
        let call = call_of(self.source, id)?;
        if self.form == Form::Joint || !custom::has_rule_for_cotangents(call) {
            return Ok(None);
        }
        self.builder.set_attributes(self.source.attributes(id));
        let call = Arc::new(ckad_prim::call(call.kind, bodies()?));
        self.builder.call(&call, &self.copy.all(self.source.operands(id))?).map(Some)
    }

    /// Which operands of a node have a tangent.
    pub fn active(&self, id: NodeId) -> Vec<bool> {
        self.source.operands(id).iter().map(|&operand| self.tangents.get(operand).is_some()).collect()
    }
}

/// The derived call of `id`; None where no operand has a tangent, or no tangent is left. In the split form `own` is the
/// copy of the call.
pub(crate) fn linearised(site: &Site<'_>, id: NodeId, own: Option<NodeId>) -> Result<Option<Tangents>> {
    if !site.active(id).contains(&true) {
        return Ok(None);
    }
    match call_of(site.source, id)?.kind {
        CallKind::Scan(kind) => scan::linearised(site, id, kind, own),
        CallKind::While(kind) => looped::linearised(site, id, kind, own),
        CallKind::Branch(kind) => branch::linearised(site, id, kind),
        CallKind::Rewind(kind) => looped::linearised_rewind(site, id, kind),
        CallKind::Reverse(_) => Err(of_plans(site.op)),
        CallKind::Custom(_) => Err(Error::internal(site.op, "a rule is used by the driver")),
        CallKind::Pullback(_) => Err(Error::internal(site.op, "a pullback that was not transposed")),
    }
}

/// The planner writes such calls, behind all transforms.
fn of_plans(op: &str) -> Error {
    Error::internal(op, "a planned loop is not derived")
}

/// A linear call that is to be transposed.
pub(crate) struct Transposed<'a> {
    pub op: &'static str,
    pub builder: &'a Builder,
    pub source: &'a Graph,
    pub id: NodeId,
    /// The operands that are not linear, in the derived graph.
    pub coefficients: &'a [Option<NodeId>],
    pub is_linear: &'a [bool],
    /// The cotangents of its parts.
    pub cotangents: &'a [Option<NodeId>],
}

impl Transposed<'_> {
    /// An operand that the call is not linear in.
    pub fn coefficient(&self, operand: usize) -> Result<NodeId> {
        let missing = || Error::internal(self.op, "a call's operand was not copied");
        self.coefficients[operand].ok_or_else(missing)
    }
}

/// Cotangents of the linear operands, by operand.
pub(crate) fn transposed(at: &Transposed<'_>) -> Result<Vec<(usize, NodeId)>> {
    match call_of(at.source, at.id)?.kind {
        CallKind::Scan(kind) => scan::transposed(at, kind),
        CallKind::While(kind) => looped::transposed(at, kind),
        CallKind::Rewind(_) => Err(looped::refused()),
        CallKind::Branch(kind) => branch::transposed(at, kind),
        CallKind::Reverse(_) => Err(of_plans(at.op)),
        CallKind::Custom(_) => Err(Error::internal(at.op, "a rule is not linear")),
        CallKind::Pullback(kind) => custom::transposed(at, kind),
    }
}

/// A body beside its derivative. Its inputs are those of the body, then the tangents of the active ones.
pub(crate) struct Both {
    pub graph: Graph,
    pub values: Vec<NodeId>,
    /// Of the active outputs.
    pub tangents: Vec<NodeId>,
}

pub(crate) fn beside(op: &'static str, form: Form, body: &Graph, inputs: &[bool], outputs: &[bool]) -> Result<Both> {
    let builder = Builder::new(derived(body, 3)?);
    let wanted = body.outputs.iter().zip(outputs).filter(|(_, active)| **active).map(|(&output, _)| output);
    let wanted: Vec<NodeId> = wanted.collect();
    let within = with_tangents(op, form, &builder, body, inputs, &wanted)?;
    let tangent = |&output: &NodeId| match within.tangents.get(output) {
        Some(tangent) => Ok(tangent),
        None => {
            builder.set_attributes(body.attributes(output));
            builder.zeros(body.dtype(output), body.shape(output))
        }
    };
    let tangents = tables::tried(op, wanted.iter().map(tangent))?;
    let values = within.copy.all(&body.outputs)?;
    Ok(Both { graph: builder.finish()?, values, tangents })
}

/// Which outputs of a body have a tangent where these inputs have one. `carries` are inputs whose next values are the
/// first outputs: what has a tangent in any iteration gets one. Each node is walked over once or twice, however long
/// the way from carry to carry is.
pub(crate) fn active_outputs(op: &str, body: &Graph, inputs: &mut [bool], carries: Range<usize>) -> Result<Vec<bool>> {
    let mut depends = table(op, false, body.len())?;
    for (&input, &active) in body.inputs.iter().zip(&*inputs) {
        depends[input.index()] = active;
    }
    let passes_on = |id| body.dtype(id).is_float() && !matches!(body.op(id), Op::StopGradient | Op::Input(_));
    for id in body.ids() {
        if passes_on(id) {
            depends[id.index()] = body.operands(id).iter().any(|operand| depends[operand.index()]);
        }
    }
    let carried = || body.outputs.iter().zip(&body.inputs[carries.clone()]);
    let mut waiting = Vec::new();
    let mut users = None;
    for (next, now) in carried() {
        if depends[next.index()] && !depends[now.index()] {
            depends[now.index()] = true;
            tables::push(op, &mut waiting, *now)?;
        }
    }
    if !waiting.is_empty() {
        users = Some(Users::of(op, body, carried().map(|(&next, &now)| (next, now)))?);
    }
    while let (Some(id), Some(users)) = (waiting.pop(), &users) {
        for &user in users.users(id) {
            if !depends[user.index()] && (passes_on(user) || matches!(body.op(user), Op::Input(_))) {
                depends[user.index()] = true;
                tables::push(op, &mut waiting, user)?;
            }
        }
    }
    for (active, now) in inputs[carries.clone()].iter_mut().zip(&body.inputs[carries.clone()]) {
        *active = depends[now.index()];
    }
    tables::list(op, body.outputs.iter().map(|output| depends[output.index()]))
}

/// Who reads each node of a body, in this iteration or, as a carry, in the next one.
struct Users {
    first: Vec<usize>,
    all: Vec<NodeId>,
}

impl Users {
    fn of(op: &str, body: &Graph, carried: impl Iterator<Item = (NodeId, NodeId)> + Clone) -> Result<Users> {
        let read = |id| body.operands(id).iter().map(move |&operand| (operand, id));
        let edges = || body.ids().flat_map(read).chain(carried.clone());
        let mut first = table(op, 0, body.len() + 1)?;
        edges().for_each(|(from, _)| first[from.index() + 1] += 1);
        (0..body.len()).for_each(|index| first[index + 1] += first[index]);
        let mut free = tables::list(op, first.iter().copied())?;
        let mut all = table(op, NodeId(0), first[body.len()])?;
        for (from, to) in edges() {
            all[free[from.index()]] = to;
            free[from.index()] += 1;
        }
        Ok(Users { first, all })
    }

    fn users(&self, id: NodeId) -> &[NodeId] {
        &self.all[self.first[id.index()]..self.first[id.index() + 1]]
    }
}

/// What depends on the inputs.
pub(crate) fn forward_cone(op: &str, graph: &Graph, inputs: &[NodeId]) -> Result<Vec<bool>> {
    let mut reached = table(op, false, graph.len())?;
    inputs.iter().for_each(|input| reached[input.index()] = true);
    for id in graph.ids() {
        reached[id.index()] |= graph.operands(id).iter().any(|operand| reached[operand.index()]);
    }
    Ok(reached)
}
