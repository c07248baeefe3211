//! Simplification: exact rewriting and common subexpressions in one walk, then dead code, then derivative coefficients
//! moved to where they are used.
//!
//! The order matters: a coefficient of the backward part that equals another is merged with it first and placed
//! afterwards, so merging never makes it a value that the forward part stores.
//!
//! Operations have no side effects, so equal ones are merged wherever they stand, overwrites of equal versions
//! included. Three things are kept apart: regions (a value computed inside a region is not replaced by one kept
//! outside), arrays that cost nothing to make (each accumulator starts from its own zeros, and a broadcast of one pass
//! is not kept for another), and scalars and starts of different index, which are inputs of the program. Constants are
//! the same if they are the same snapshot.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use ckad_graph::{Attributes, DType, Graph, ListId, NodeId, Op, RegionId, Result, interrupt, tables};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::copy::{Copy, NO_NODE, NodeTable, reached};
use crate::prune::pruned;
use crate::settle::settle;
use crate::sink::{Sinking, in_new_order, sinking};

/// An equivalent graph in execution order; every output keeps its bits.
pub fn simplify(graph: Graph) -> Result<Graph> {
    simplified(graph, false)
}

/// As [`simplify`], but a derivative's product with a literal 0 stays, so that it can be watched ([`crate::absorbed`]).
pub fn simplify_keeping_zeros(graph: Graph) -> Result<Graph> {
    simplified(graph, true)
}

fn simplified(graph: Graph, keeps_zeros: bool) -> Result<Graph> {
    let graph = pruned(settle(graph)?)?;
    let merged = Simplifier::run(&graph, keeps_zeros)?;
    let Sinking { live, sunk, any } = sinking("simplify", &merged, |id| merged.attributes(id).pass)?;
    // Numbers that nothing reads do no harm.
    let stays = |id: NodeId| live[id.index()] || matches!(merged.op(id), Op::Literal(_) | Op::Scalar(_));
    if !any && merged.ids().all(stays) {
        return Ok(merged);
    }
    let target = graph.recycled(&merged)?;
    placed_late(&merged, target, &live, &sunk)
}

/// The live nodes, with late coefficients where they are used. `target` is empty.
fn placed_late(graph: &Graph, mut target: Graph, live: &[bool], sunk: &[bool]) -> Result<Graph> {
    let mut copy = Copy::new("simplify", graph)?;
    copy.inputs(&mut target, graph)?;
    in_new_order("simplify", graph, live, sunk, |id, place| {
        interrupt::check_at(id.index())?;
        let Attributes { pass, position, .. } = graph.attributes(place);
        copy.node(&mut target, graph, id, Attributes { pass, position, ..graph.attributes(id) })?;
        Ok(())
    })?;
    target.outputs = copy.all(&graph.outputs)?;
    Ok(target)
}

/// A node about to be appended.
pub(crate) struct Draft<'a> {
    pub op: Op,
    pub operands: &'a [NodeId],
    pub dtype: DType,
    pub shape: ListId,
    pub attributes: Attributes,
}

/// Of the nodes with the same last operand, as many are compared in turn; further ones are found by hash.
const COMPARED: usize = 8;

/// The simplified graph so far, in which nodes are found by content.
///
/// Equal nodes have the same operand that was appended last. The few nodes that share it are mostly close to each
/// other in memory, which a hash of the content is not.
pub(crate) struct Simplifier {
    pub target: Graph,
    chains: Chains,
    /// By index, the first node of each scalar.
    scalars: NodeTable,
    /// Other leaves, and nodes on operands of many users.
    by_hash: FxHashMap<u64, Vec<NodeId>>,
    /// For each constant, the first that is the same snapshot.
    constants: Vec<u32>,
    /// Do products with a literal 0 stay?
    pub keeps_zeros: bool,
}

/// The nodes that are compared in turn, by their last-appended operand.
struct Chains(Vec<Links>);

#[derive(Clone, Copy)]
struct Links {
    /// The newest of those that have this node as that operand.
    newest: NodeId,
    /// Of those in whose chain this node is, the one before it.
    older: NodeId,
}

impl Chains {
    /// For nodes of which the first `inputs` exist, and perhaps `nodes` in the end.
    fn new(inputs: usize, nodes: usize) -> Result<Chains> {
        let mut links = tables::room("simplify", nodes)?;
        links.resize(inputs, Links::NONE);
        Ok(Chains(links))
    }

    fn push_none(&mut self) -> Result<()> {
        tables::push("simplify", &mut self.0, Links::NONE)
    }

    #[inline]
    fn newest(&self, operand: NodeId) -> Option<NodeId> {
        Some(self.0[operand.index()].newest).filter(|&id| id != NO_NODE)
    }

    #[inline]
    fn older(&self, id: NodeId) -> Option<NodeId> {
        Some(self.0[id.index()].older).filter(|&id| id != NO_NODE)
    }

    #[inline]
    fn add(&mut self, operand: NodeId, id: NodeId) {
        let before = std::mem::replace(&mut self.0[operand.index()].newest, id);
        self.0[id.index()].older = before;
    }
}

impl Links {
    const NONE: Links = Links { newest: NO_NODE, older: NO_NODE };
}

impl Simplifier {
    fn run(source: &Graph, keeps_zeros: bool) -> Result<Graph> {
        let mut simplifier = Simplifier {
            target: source.derived()?,
            chains: Chains::new(source.inputs.len(), source.len())?,
            scalars: NodeTable::new("simplify", source.scalars.len())?,
            by_hash: FxHashMap::default(),
            constants: same_snapshots(source)?,
            keeps_zeros,
        };
        let live = reached("simplify", source, source.outputs.iter().copied())?;
        let mut copy = Copy::new("simplify", source)?;
        simplifier.target.reserve(source.len(), source.operand_count())?;
        copy.inputs(&mut simplifier.target, source)?;
        let mut operands: Vec<NodeId> = Vec::new();
        for id in source.ids() {
            interrupt::check_at(id.index())?;
            let node = source.node(id);
            if !live[id.index()] || matches!(node.op, Op::Input(_)) {
                continue;
            }
            operands.clear();
            tables::make_room("simplify", &mut operands, source.operands(id).len())?;
            for &operand in source.operands(id) {
                operands.push(copy.of(operand)?);
            }
            let op = match node.op {
                Op::Constant(index) => Op::Constant(simplifier.constants[index as usize]),
                op => op,
            };
            let simplified = simplifier.simplified(op, &mut operands, node.dtype, node.shape, node.attributes)?;
            copy.set(id, simplified);
        }
        simplifier.target.outputs = copy.all(&source.outputs)?;
        Ok(simplifier.target)
    }

    /// The node with this content: one that exists, or a new one.
    pub(crate) fn find_or_push(&mut self, draft: &Draft<'_>) -> Result<NodeId> {
        if self.is_filled(draft) {
            return self.push(draft);
        }
        if let Op::Scalar(index) = draft.op {
            return self.scalar(NodeId(index), draft);
        }
        let last = draft.operands.iter().max().copied();
        let mut compared = 0;
        let mut candidate = last.and_then(|last| self.chains.newest(last));
        while let Some(id) = candidate {
            if draft.equals(&self.target, id) {
                return Ok(id);
            }
            candidate = self.chains.older(id);
            compared += 1;
        }
        if let Some(last) = last.filter(|_| compared < COMPARED) {
            let id = self.push(draft)?;
            self.chains.add(last, id);
            return Ok(id);
        }
        let hash = draft.hash();
        let found = self.by_hash.get(&hash).and_then(|ids| ids.iter().find(|&&id| draft.equals(&self.target, id)));
        match found {
            Some(&id) => Ok(id),
            None => {
                let id = self.push(draft)?;
                tables::room_for_keys("simplify", &mut self.by_hash, 1)?;
                self.by_hash.entry(hash).or_default().push(id);
                Ok(id)
            }
        }
    }

    /// The node of an entry of the table of scalars; all nodes of one entry are equal.
    fn scalar(&mut self, index: NodeId, draft: &Draft<'_>) -> Result<NodeId> {
        if let Some(id) = self.scalars.get(index).filter(|&id| draft.equals(&self.target, id)) {
            return Ok(id);
        }
        let id = self.push(draft)?;
        self.scalars.set(index, id);
        Ok(id)
    }

    fn push(&mut self, draft: &Draft<'_>) -> Result<NodeId> {
        self.chains.push_none()?;
        self.target.push(draft.op, draft.operands, draft.dtype, draft.shape, draft.attributes)
    }

    /// An array of one repeated scalar: cheaper to have twice than to share.
    fn is_filled(&self, draft: &Draft<'_>) -> bool {
        matches!(draft.op, Op::Broadcast) && draft.operands.iter().all(|&operand| self.is_scalar_leaf(operand))
    }

    pub(crate) fn is_scalar_leaf(&self, id: NodeId) -> bool {
        matches!(self.target.op(id), Op::Literal(_) | Op::Scalar(_))
    }
}

impl Draft<'_> {
    /// Region and pass, as far as they tell nodes apart: leaves exist once, arrays made from less once a pass.
    fn place(&self) -> (RegionId, u16) {
        place(self.op, self.attributes)
    }

    fn hash(&self) -> u64 {
        let mut hasher = FxBuildHasher.build_hasher();
        self.op.hash(&mut hasher);
        self.operands.hash(&mut hasher);
        self.dtype.hash(&mut hasher);
        self.shape.hash(&mut hasher);
        self.place().hash(&mut hasher);
        hasher.finish()
    }

    fn equals(&self, graph: &Graph, id: NodeId) -> bool {
        let node = graph.node(id);
        // What is compared has one operand in common: the others tell most of them apart.
        graph.operands(id) == self.operands
            && node.dtype == self.dtype
            && node.shape == self.shape
            && node.op == self.op
            && place(node.op, node.attributes) == self.place()
    }
}

fn place(op: Op, attributes: Attributes) -> (RegionId, u16) {
    match op {
        _ if op.is_leaf() => (RegionId(0), 0),
        Op::Broadcast | Op::Iota { .. } => (attributes.region, attributes.pass),
        _ => (attributes.region, 0),
    }
}

fn same_snapshots(graph: &Graph) -> Result<Vec<u32>> {
    let mut first = FxHashMap::default();
    tables::room_for_keys("simplify", &mut first, graph.constants.len())?;
    let snapshots = graph.constants.iter().zip(0u32..);
    let firsts = snapshots.map(|(constant, index)| *first.entry(Arc::as_ptr(constant).cast::<()>()).or_insert(index));
    tables::list("simplify", firsts)
}
