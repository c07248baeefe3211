//! Kernels of one structural node; and copies, which are the same to an executor.

use ckad_graph::{Error, Graph, ListId, NodeId, Op, Result, StartId, tables};
use rustc_hash::FxHashMap;
use smallvec::smallvec;

use crate::lower::buffers::Buffers;
use crate::program::{ArrayRef, BufferId, Extents, FusedKernel, Kernel, Parameters, Source};
use crate::view::packed_strides;

pub(crate) fn extents(shape: &[i64]) -> Extents {
    shape.iter().map(|&extent| extent as usize).collect()
}

/// The kernel of `node`, into `result`.
pub(crate) fn structural_kernel(
    graph: &Graph,
    node: NodeId,
    result: BufferId,
    buffers: &Buffers<'_>,
) -> Result<Kernel> {
    let operands = tables::tried("plan", graph.operands(node).iter().map(|&o| operand(graph, o, buffers)))?;
    let result =
        ArrayRef { source: Source::Buffer(result), dtype: graph.dtype(node), shape: extents(graph.shape(node)) };
    let op = graph.op(node);
    Ok(Kernel::Structural { op, parameters: parameters(graph, op), operands, result })
}

/// Stored values and leaves; a reshape of one is the same memory.
pub(crate) fn operand(graph: &Graph, node: NodeId, buffers: &Buffers<'_>) -> Result<ArrayRef> {
    let mut foot = node;
    let source = loop {
        match (buffers.source(foot), graph.op(foot), graph.operands(foot)) {
            (Some(source), _, _) => break source,
            (None, Op::Reshape | Op::StopGradient, &[operand]) => foot = operand,
            _ => return Err(Error::internal("lower", format!("%{} is read but not live", node.0))),
        }
    };
    Ok(ArrayRef { source, dtype: graph.dtype(node), shape: extents(graph.shape(node)) })
}

fn parameters(graph: &Graph, op: Op) -> Parameters {
    let list = |id: ListId| graph.lists.get(id).to_vec();
    match op {
        Op::StridedRead { strides, start }
        | Op::StridedWrite { strides, start }
        | Op::StridedAdd { strides, start } => Parameters { list: list(strides), start: Some(start.0) },
        Op::Transpose { perm: id }
        | Op::Pad { widths: id }
        | Op::Reduce { axes: id, .. }
        | Op::Dot { axes: id, .. } => Parameters { list: list(id), start: None },
        _ => Parameters::default(),
    }
}

/// Starts that lowering adds behind those of the graph, each value once.
#[derive(Default)]
pub(crate) struct AddedStarts {
    pub values: Vec<i64>,
    known: FxHashMap<i64, u32>,
}

impl AddedStarts {
    pub fn index(&mut self, graph: &Graph, value: i64) -> Result<u32> {
        if let Some(&known) = self.known.get(&value) {
            return Ok(known);
        }
        tables::room_for_keys("plan", &mut self.known, 1)?;
        let next = (graph.starts.len() + self.values.len()) as u32;
        tables::push("plan", &mut self.values, value)?;
        self.known.insert(value, next);
        Ok(next)
    }
}

/// A fused kernel that computes nothing, as the copy it is: those kernels know how to walk a transpose in blocks.
/// `buffer_elements` is the number of elements of the buffer it reads.
pub(crate) fn as_copy(
    graph: &Graph,
    kernel: &FusedKernel,
    starts: &mut AddedStarts,
    buffer_elements: impl Fn(BufferId) -> usize,
) -> Result<Option<Kernel>> {
    let ([load], [store]) = (kernel.loads.as_slice(), kernel.stores.as_slice()) else { return Ok(None) };
    let Source::Buffer(from) = load.source else { return Ok(None) };
    if !kernel.instructions.is_empty() || kernel.reduce.is_some() || load.dtype != store.dtype {
        return Ok(None);
    }
    let flat = buffer_elements(from);
    let operand = ArrayRef { source: load.source, dtype: load.dtype, shape: smallvec![flat] };
    let result = ArrayRef { source: Source::Buffer(store.buffer), dtype: store.dtype, shape: kernel.extents.clone() };
    let iteration: Vec<i64> = kernel.extents.iter().map(|&extent| extent as i64).collect();
    let packed = load.strides == packed_strides(&iteration) && kernel.extents.iter().product::<usize>() == flat;
    if packed && load.offset == 0 && load.starts.is_empty() {
        let (op, parameters) = (Op::Reshape, Parameters::default());
        return Ok(Some(Kernel::Structural { op, parameters, operands: vec![operand], result }));
    }
    let start = match (load.starts.as_slice(), load.offset) {
        ([], offset) => starts.index(graph, offset)?,
        (&[start], 0) => start,
        _ => return Ok(None),
    };
    let op = Op::StridedRead { strides: ListId::EMPTY, start: StartId(start) };
    let parameters = Parameters { list: load.strides.to_vec(), start: Some(start) };
    Ok(Some(Kernel::Structural { op, parameters, operands: vec![operand], result }))
}
