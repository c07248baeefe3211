//! Shapes, dtypes and the constructor of elementwise nodes. Recording passes here for most of its nodes, so the case
//! of equal shapes touches no table.

use ckad_graph::{DType, Error, Graph, ListId, NodeId, Result, shape_text};

use super::Elementwise;
use crate::infer::Inferred;
use crate::shape::broadcast_shapes;
use crate::{Builder, Cost, Expr};

/// dtype of the result, or what is wrong with the operands'.
fn infer_dtype(graph: &Graph, row: Elementwise, operands: &[NodeId]) -> Result<DType> {
    dtype_of(graph, row, operands).ok_or_else(|| refused(graph, row, operands))
}

/// dtype of the result where the operands' fit.
#[inline]
fn dtype_of(graph: &Graph, row: Elementwise, operands: &[NodeId]) -> Option<DType> {
    let dtype = graph.dtype(*operands.last()?);
    let fits = match *operands {
        [_] => true,
        [a, _] => graph.dtype(a) == dtype,
        [a, b, _] if row.typed_operand() == 1 => graph.dtype(a) == DType::Bool && graph.dtype(b) == dtype,
        [a, b, _] => graph.dtype(a) == dtype && graph.dtype(b) == dtype,
        _ => false,
    };
    if fits && operands.len() == row.arity() { row.result_dtype(dtype) } else { None }
}

/// Why operands do not fit.
#[cold]
fn refused(graph: &Graph, row: Elementwise, operands: &[NodeId]) -> Error {
    if operands.len() != row.arity() {
        return Error::internal(row.name(), format!("{} operands instead of {}", operands.len(), row.arity()));
    }
    let typed = row.typed_operand();
    let dtype = graph.dtype(operands[typed]);
    let same = operands[typed..].iter().all(|&operand| graph.dtype(operand) == dtype);
    let condition = operands[..typed].iter().all(|&operand| graph.dtype(operand) == DType::Bool);
    if !same || !condition {
        let dtypes = operands.iter().map(|&operand| graph.dtype(operand).name()).collect::<Vec<_>>().join(", ");
        let needed = if typed == 0 { "one dtype" } else { "a bool, then one dtype" };
        return Error::dtype(row.name(), format!("operands of {needed} are needed, not {dtypes}"))
            .with_hint("convert with `.astype` first");
    }
    Error::dtype(row.name(), format!("it is not defined for {dtype}, only for {}", row.dtypes_text()))
        .with_hint("convert with `.astype` first")
}

pub(crate) fn infer(graph: &Graph, row: Elementwise, operands: &[NodeId]) -> Result<Inferred> {
    let dtype = infer_dtype(graph, row, operands)?;
    let mut shape = Vec::new();
    for &operand in operands {
        shape = broadcast_shapes(&shape, graph.shape(operand)).ok_or_else(|| {
            let shapes = operands.iter().map(|&id| shape_text(graph.shape(id))).collect::<Vec<_>>().join(" and ");
            Error::shape(row.name(), format!("operands do not broadcast: {shapes}"))
                .with_hint("from the last axis backwards, extents must be equal or 1; insert axes with `[:, None]`")
        })?;
    }
    Ok((dtype, shape))
}

#[inline]
pub(crate) fn cost(graph: &Graph, node: NodeId, row: Elementwise) -> Cost {
    Cost::flops((graph.elements(node) as u64).saturating_mul(row.cost()))
}

impl Builder {
    /// Applies a row of the table to operands that broadcast.
    pub fn elementwise(&self, row: Elementwise, operands: &[NodeId]) -> Result<NodeId> {
        {
            let mut graph = self.graph_mut();
            if let [a, b] = *operands {
                let (a, b) = (graph.node(a), graph.node(b));
                let shape = if a.shape == ListId::EMPTY { b.shape } else { a.shape };
                let fits = a.dtype == b.dtype && row.arity() == 2 && (shape == b.shape || b.shape == ListId::EMPTY);
                if let Some(dtype) = row.result_dtype(a.dtype).filter(|_| fits) {
                    return graph.push(row.op(), operands, dtype, shape, self.attributes());
                }
            }
            // Equal shapes, and scalars beside arrays of one shape.
            let (mut shape, mut fits) = (ListId::EMPTY, true);
            for &operand in operands {
                let own = graph.node(operand).shape;
                if own != ListId::EMPTY {
                    fits &= shape == ListId::EMPTY || shape == own;
                    shape = own;
                }
            }
            if fits {
                let attributes = self.attributes();
                let Some(dtype) = dtype_of(&graph, row, operands) else {
                    return Err(refused(&graph, row, operands).at_line(attributes.line));
                };
                return graph.push(row.op(), operands, dtype, shape, attributes);
            }
        }
        self.infer_and_push(row.op(), operands, |graph| infer(graph, row, operands))
    }

    /// As [`Builder::elementwise`], of operands of which the caller knows that they are of one dtype the row is defined
    /// for, and of this shape or scalars; `dtype` is the result's.
    #[inline]
    pub fn elementwise_of_one_shape(
        &self,
        row: Elementwise,
        operands: &[NodeId],
        dtype: DType,
        shape: ListId,
    ) -> Result<NodeId> {
        let mut graph = self.graph_mut();
        debug_assert_eq!(dtype_of(&graph, row, operands), Some(dtype));
        debug_assert!(operands.iter().any(|&operand| graph.node(operand).shape == shape));
        graph.push(row.op(), operands, dtype, shape, self.attributes())
    }
}

impl<'b> Expr<'b> {
    pub(super) fn elementwise(self, row: Elementwise, operands: &[Expr<'b>]) -> Expr<'b> {
        let mut ids = [self.id; 3];
        for (id, operand) in ids.iter_mut().zip(operands) {
            *id = operand.id;
        }
        self.builder.settle(self.builder.elementwise(row, &ids[..operands.len()]), self.id)
    }
}
