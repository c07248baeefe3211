//! Rewriting that is exact to the bit: a node that computes nothing becomes its operand or a shorter form.
//!
//! `x + 0` is not among the rules for floats (−0 + 0 is 0), `x − 0` is; a derivative's absorbing product with 1 is
//! its other factor (of which a zero keeps its sign), with 0 it is 0.

use ckad_graph::{Attributes, DType, ListId, NodeId, Op, Result};
use ckad_prim::Elementwise;

use crate::simplify::{Draft, Simplifier};

/// Where and as what a node is appended.
#[derive(Clone, Copy)]
struct Site {
    dtype: DType,
    shape: ListId,
    attributes: Attributes,
}

impl Simplifier {
    /// The simplest node with the value of `op` over `operands`.
    pub(crate) fn simplified(
        &mut self,
        op: Op,
        operands: &mut [NodeId],
        dtype: DType,
        shape: ListId,
        attributes: Attributes,
    ) -> Result<NodeId> {
        let site = Site { dtype, shape, attributes };
        let shorter = match (op, &*operands) {
            (Op::Elementwise(id), _) => self.elementwise(Elementwise::from_id(id), operands, site)?,
            (Op::Cast, &[x]) => self.cast(x, site)?,
            (Op::Reshape | Op::Broadcast | Op::Transpose { .. }, &[x]) => self.view(op, x, site)?,
            (Op::Reduce { axes: ListId::EMPTY, .. }, &[x]) if self.fits(x, site) => Some(x),
            _ => None,
        };
        match shorter {
            Some(node) => Ok(node),
            None => self.append(op, operands, site),
        }
    }

    fn append(&mut self, op: Op, operands: &[NodeId], site: Site) -> Result<NodeId> {
        let Site { dtype, shape, attributes } = site;
        self.find_or_push(&Draft { op, operands, dtype, shape, attributes })
    }

    /// Is the node of the type and shape that the site asks for?
    fn fits(&self, id: NodeId, site: Site) -> bool {
        let node = self.target.node(id);
        node.dtype == site.dtype && node.shape == site.shape
    }

    /// The literal's value, where the node is a literal or an array of one.
    fn literal(&self, id: NodeId) -> Option<f32> {
        match self.target.op(id) {
            Op::Literal(bits) => Some(f32::from_bits(bits)),
            Op::Broadcast => self.target.operands(id).first().and_then(|&operand| match self.target.op(operand) {
                Op::Literal(bits) => Some(f32::from_bits(bits)),
                _ => None,
            }),
            _ => None,
        }
    }

    /// The scalar leaf that an array repeats, or the node itself where it is one.
    fn repeated(&self, id: NodeId) -> Option<NodeId> {
        let scalar = if matches!(self.target.op(id), Op::Broadcast) { *self.target.operands(id).first()? } else { id };
        self.is_scalar_leaf(scalar).then_some(scalar)
    }

    /// `scalar` in the shape of the site.
    fn filled(&mut self, scalar: NodeId, site: Site) -> Result<NodeId> {
        if site.shape == ListId::EMPTY { Ok(scalar) } else { self.append(Op::Broadcast, &[scalar], site) }
    }

    fn filled_literal(&mut self, value: f32, site: Site) -> Result<NodeId> {
        let scalar = self.append(Op::literal(value), &[], Site { shape: ListId::EMPTY, ..site })?;
        self.filled(scalar, site)
    }

    fn elementwise(&mut self, row: Elementwise, operands: &mut [NodeId], site: Site) -> Result<Option<NodeId>> {
        // An operand need not be spread out where another has the whole shape.
        for index in 0..operands.len() {
            let whole =
                |(other, &operand): (usize, &NodeId)| other != index && self.target.node(operand).shape == site.shape;
            if matches!(self.target.op(operands[index]), Op::Broadcast) && operands.iter().enumerate().any(whole) {
                operands[index] = self.target.operands(operands[index])[0];
            }
        }
        if let Some((row, operands)) = self.without_negation(row, operands).filter(|_| site.dtype.is_float()) {
            return self.append(Op::Elementwise(row.id()), &operands, site).map(Some);
        }
        let value = |index: usize| operands.get(index).and_then(|&operand| self.literal(operand));
        let (first, second) = (value(0), value(1));
        let float = site.dtype.is_float();
        let same = match row {
            Elementwise::Lmul if !self.keeps_zeros && (first == Some(0.0) || second == Some(0.0)) => {
                return self.filled_literal(0.0, site).map(Some);
            }
            Elementwise::Lmul | Elementwise::Multiply if first == Some(1.0) => operands[1],
            Elementwise::Lmul | Elementwise::Multiply | Elementwise::Divide if second == Some(1.0) => operands[0],
            Elementwise::Subtract if second.is_some_and(|v| v.to_bits() == 0) => operands[0],
            Elementwise::Add if second.is_some_and(|v| adds_nothing(v, float)) => operands[0],
            Elementwise::Add if first.is_some_and(|v| adds_nothing(v, float)) => operands[1],
            Elementwise::Negative => {
                if let (Some(value), true) = (first, float) {
                    return self.filled_literal(-value, site).map(Some);
                }
                match self.target.op(operands[0]) {
                    Op::Elementwise(id) if id == Elementwise::Negative.id() => self.target.operands(operands[0])[0],
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        if self.fits(same, site) {
            Ok(Some(same))
        } else if self.target.dtype(same) == site.dtype {
            self.view(Op::Broadcast, same, site)?
                .map_or_else(|| self.append(Op::Broadcast, &[same], site), Ok)
                .map(Some)
        } else {
            Ok(None)
        }
    }

    /// A sum with a negated operand as a difference, and the reverse: derivatives are full of them.
    fn without_negation(&self, row: Elementwise, operands: &[NodeId]) -> Option<(Elementwise, [NodeId; 2])> {
        let &[a, b] = operands else { return None };
        let negated = |id: NodeId| match self.target.op(id) {
            Op::Elementwise(id_of) if id_of == Elementwise::Negative.id() => self.target.operands(id).first().copied(),
            _ => None,
        };
        match row {
            Elementwise::Add => match (negated(a), negated(b)) {
                (_, Some(b)) => Some((Elementwise::Subtract, [a, b])),
                (Some(a), None) => Some((Elementwise::Subtract, [b, a])),
                (None, None) => None,
            },
            Elementwise::Subtract => negated(b).map(|b| (Elementwise::Add, [a, b])),
            _ => None,
        }
    }

    fn cast(&mut self, x: NodeId, site: Site) -> Result<Option<NodeId>> {
        if self.fits(x, site) {
            return Ok(Some(x));
        }
        match self.literal(x) {
            // A literal is exact in every float type.
            Some(value) if self.target.dtype(x).is_float() && site.dtype.is_float() => {
                self.filled_literal(value, site).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn view(&mut self, op: Op, x: NodeId, site: Site) -> Result<Option<NodeId>> {
        if let Some(scalar) = self.repeated(x) {
            return self.filled(scalar, site).map(Some);
        }
        let below = self.target.operands(x).first().copied();
        match (op, self.target.op(x), below) {
            (Op::Transpose { perm: outer }, Op::Transpose { perm: inner }, Some(below)) => {
                // y[i…] = x[i permuted by outer], x likewise of z: axis k of y is axis inner[outer[k]] of z.
                let lists = &self.target.lists;
                let inner = lists.get(inner);
                let perm: Vec<i64> = lists.get(outer).iter().map(|&axis| inner[axis as usize]).collect();
                if is_identity(&perm) {
                    return Ok(Some(below));
                }
                let perm = self.target.lists.intern(&perm)?;
                self.append(Op::Transpose { perm }, &[below], site).map(Some)
            }
            (Op::Transpose { perm }, ..) => Ok(is_identity(self.target.lists.get(perm)).then_some(x)),
            _ if self.fits(x, site) => Ok(Some(x)),
            (Op::Reshape, Op::Reshape, Some(below)) if self.fits(below, site) => Ok(Some(below)),
            (Op::Reshape, Op::Reshape, Some(below)) | (Op::Broadcast, Op::Broadcast, Some(below)) => {
                self.append(op, &[below], site).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Is x + value the same as x, to the bit? Of floats only −0 is neutral.
fn adds_nothing(value: f32, float: bool) -> bool {
    value == 0.0 && (!float || value.is_sign_negative())
}

fn is_identity(perm: &[i64]) -> bool {
    perm.iter().zip(0..).all(|(&axis, index)| axis == index)
}
