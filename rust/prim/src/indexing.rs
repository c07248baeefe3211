//! What gather and the scatters share: indices into the leading axes of a base.

use ckad_graph::{DType, Error, ErrorKind, Graph, NodeId, Result, shape_text};

use crate::Builder;
use crate::Expr;
use crate::infer::{Inferred, check_same_dtype};

/// Shape of the selection `base[i₀, …]`: the indices' shape, then the axes that are not indexed.
pub(crate) fn selection_shape(name: &str, graph: &Graph, base: NodeId, indices: &[NodeId]) -> Result<Vec<i64>> {
    let Some(&first) = indices.first() else {
        return Err(Error::internal(name, "at least one array of indices is needed"));
    };
    let (base_shape, shape) = (graph.shape(base), graph.shape(first));
    if indices.len() > base_shape.len() {
        let what = format!("{} indices for an array of shape {}", indices.len(), shape_text(base_shape));
        return Err(Error::new(ErrorKind::Index, name, what).with_hint("there are too many indices"));
    }
    for &index in indices {
        if graph.dtype(index) != DType::I64 {
            return Err(Error::dtype(name, format!("indices must be int64, not {}", graph.dtype(index)))
                .with_hint("convert them with `.astype(np.int64)`"));
        }
        if graph.shape(index) != shape {
            let what =
                format!("shapes of the indices differ: {} and {}", shape_text(shape), shape_text(graph.shape(index)));
            return Err(Error::shape(name, what).with_hint("broadcast them first"));
        }
    }
    let nothing_to_pick = base_shape[..indices.len()].contains(&0);
    if nothing_to_pick && !shape.contains(&0) {
        let what = format!("an index into an axis without elements: the shape is {}", shape_text(base_shape));
        return Err(Error::new(ErrorKind::Index, name, what).with_hint("check `x.size` before indexing"));
    }
    Ok(shape.iter().chain(&base_shape[indices.len()..]).copied().collect())
}

/// Inference of `(base, value, i₀, …)`: the base, where the value has the shape of the selection.
pub(crate) fn infer_scatter(name: &str, graph: &Graph, operands: &[NodeId], indices: usize) -> Result<Inferred> {
    if operands.len() != indices + 2 {
        return Err(Error::internal(name, format!("{} operands for {indices} indices", operands.len())));
    }
    let (base, value) = (operands[0], operands[1]);
    check_same_dtype(name, graph.dtype(base), graph.dtype(value))?;
    let selection = selection_shape(name, graph, base, &operands[2..])?;
    if graph.shape(value) != selection {
        let what = format!(
            "the value's shape {} is not that of the selection, {}",
            shape_text(graph.shape(value)),
            shape_text(&selection)
        );
        return Err(Error::shape(name, what).with_hint("broadcast it first"));
    }
    Ok((graph.dtype(base), graph.shape(base).to_vec()))
}

/// Number of indices as it is recorded.
pub(crate) fn index_count(name: &str, indices: &[NodeId]) -> Result<u8> {
    u8::try_from(indices.len()).map_err(|_| Error::internal(name, "too many indices"))
}

/// For a scatter into the leading axes `dims`: a bool array that broadcasts to the selection and holds where an index
/// is the last of its duplicates. Found by scattering the indices' own positions and reading them back.
/// `None` where there is at most one index.
pub(crate) fn last_of_duplicates<'b>(
    builder: &'b Builder,
    indices: &[Expr<'b>],
    dims: &[i64],
    rest: usize,
) -> Result<Option<Expr<'b>>> {
    let Some(first) = indices.first() else { return Ok(None) };
    let shape = first.shape();
    let count: i64 = shape.iter().product();
    if count <= 1 {
        return Ok(None);
    }
    let positions = builder.expr(builder.iota(DType::I64, &[count], 0)?).reshape(&shape);
    let nowhere = builder.expr(builder.zeros(DType::I64, dims)?);
    let winners = nowhere.scatter_set(positions, indices).gather(indices);
    let mut broadcastable = shape;
    broadcastable.extend(std::iter::repeat_n(1, rest));
    Ok(Some(winners.equal(positions).reshape(&broadcastable)))
}
