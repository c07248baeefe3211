//! `ckad._core.random_bits`: the one primitive under `ckad.random`. See `primitives.rs`.

use std::sync::Arc;

use ckad_graph::{DType, Error, ErrorKind, NodeId, shape_text};
use ckad_prim::Elementwise;
use pyo3::prelude::*;

use crate::errors::{raise, refusal};
use crate::operand::{Operand, innermost, prepare_with};
use crate::tape::Tape;
use crate::trace::open_tapes;
use crate::tracer::Tracer;
use crate::values::parse_dtype;

type Any<'a, 'py> = &'a Bound<'py, PyAny>;

/// Does a trace record on this thread?
#[pyfunction]
fn is_recording() -> bool {
    !open_tapes().is_empty()
}

/// Bits of an unsigned dtype in an array of that shape, drawn with a key (uint32, shape (2,)) from the counter `first`
/// on. They are recorded on the innermost tape of key and counter, or, where neither is traced, on the innermost one
/// that is open.
#[pyfunction]
fn random_bits<'py>(
    py: Python<'py>,
    key: Any<'_, 'py>,
    first: Any<'_, 'py>,
    shape: Vec<i64>,
    dtype: Any<'_, 'py>,
) -> PyResult<Py<PyAny>> {
    let dtype = parse_dtype(dtype)?;
    let pair = [Operand::coerced(key)?, Operand::coerced(first)?];
    if pair[0].own_dtype() != DType::U32 || pair[0].shape() != [2] || pair[1].rank() != 0 {
        let what = format!("a key of {}{}", pair[0].own_dtype(), shape_text(pair[0].shape()));
        return Err(refusal(ErrorKind::Type, "random", what, "make one with ckad.random.key(0)"));
    }
    let traced = [key, first].into_iter().any(|given| given.cast::<Tracer>().is_ok());
    let tape = if traced { Some(Arc::clone(innermost(&pair)?)) } else { open_tapes().pop() };
    let tape = tape.ok_or_else(|| raise(Error::internal("random", "no trace is open")))?;
    let words = prepare_with(py, &tape, &pair[0], DType::U32, |layout| layout)?;
    let counter = prepare_with(py, &tape, &pair[1], DType::U64, |layout| layout)?;
    let node = tape.record(py, |tape| {
        let words = words.node(py, tape, DType::U32, false)?;
        let counter = counter.node(py, tape, DType::U64, false)?;
        let key = joined(tape, words)?;
        tape.builder.random_bits(key, counter, dtype, &shape)
    })?;
    Tracer::result(py, &tape, node, dtype, &shape)?.into_object(py)
}

/// The two words of a key as one of 64 bits, the first one above.
fn joined(tape: &mut Tape, words: NodeId) -> ckad_graph::Result<NodeId> {
    let builder = &tape.builder;
    let word = |index: i64| builder.cast(builder.strided_read(words, &[], &[], index)?, DType::U64);
    let (high, low) = (word(0)?, word(1)?);
    let by = builder.literal(DType::U64, 32.0)?;
    let above = builder.elementwise(Elementwise::LeftShift, &[high, by])?;
    builder.elementwise(Elementwise::BitwiseOr, &[above, low])
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(is_recording, module)?)?;
    module.add_function(wrap_pyfunction!(random_bits, module)?)
}
