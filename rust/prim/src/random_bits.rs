//! `random_bits`: a block of Threefry2x32-20 for each element, whose counter is the first one plus the element's place
//! in C order. A function of a key and two numbers, so a mask is drawn again where it is needed again, bit for bit, and
//! nobody keeps it.

use ckad_graph::{DType, Error, Graph, NodeId, Op, Result, shape_text};

use crate::infer::{Inferred, exactly};
use crate::{Builder, Cost, Sample};

const NAME: &str = "random_bits";

/// Operations of one block: 20 rounds of an addition, a rotation and an exclusive or, of integers of 32 bits, of which
/// a CPU does twice as many at once as of float64.
pub const RANDOM_BITS_COST: u64 = 40;

pub(crate) fn infer(graph: &Graph, operands: &[NodeId], dtype: DType, shape: &[i64]) -> Result<Inferred> {
    let [key, first] = exactly(NAME, operands)?;
    if !matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64) {
        return Err(Error::dtype(NAME, format!("bits have an unsigned dtype, not {dtype}"))
            .with_hint("draw uint32, and convert with `.astype`"));
    }
    for operand in [key, first] {
        if graph.dtype(operand) != DType::U64 || !graph.shape(operand).is_empty() {
            let given = format!("{}{}", graph.dtype(operand), shape_text(graph.shape(operand)));
            return Err(Error::internal(NAME, format!("key and counter are numbers of 64 bits, not {given}")));
        }
    }
    Ok((dtype, shape.to_vec()))
}

pub(crate) fn cost(graph: &Graph, node: NodeId) -> Cost {
    Cost::flops((graph.elements(node) as u64).saturating_mul(RANDOM_BITS_COST))
}

impl Builder {
    /// Bits of `dtype` in an array of that shape: both words of each block in 64 bits, or the low bits of their
    /// exclusive or. `key` and `first`, the counter of the first element, are scalars of 64 bits.
    pub fn random_bits(&self, key: NodeId, first: NodeId, dtype: DType, shape: &[i64]) -> Result<NodeId> {
        self.infer_and_push(Op::RandomBits, &[key, first], |graph| infer(graph, &[key, first], dtype, shape))
    }
}

pub(crate) fn samples(dtype: DType) -> Result<Vec<Sample>> {
    if !matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64) {
        return Ok(Vec::new());
    }
    let sample = |label: &str, shape: &[i64]| {
        Sample::build(label, |s| {
            let key = s.input(DType::U64, &[], (0.0, 1e6))?;
            let first = s.input(DType::U64, &[], (0.0, 1e6))?;
            s.builder.random_bits(key, first, dtype, shape)
        })
    };
    Ok(vec![
        sample("vector with a tail", &[37])?,
        sample("matrix", &[3, 5])?,
        sample("scalar", &[])?,
        sample("empty", &[0, 3])?,
    ])
}
