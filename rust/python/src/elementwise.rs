//! Recording rows of the elementwise table: promotion, broadcasting, the layout of the result, and writing into
//! an existing array (`x += y`, `out=x`).

use std::sync::Arc;

use ckad_graph::{DType, Error, NodeId, shape_text};
use ckad_prim::Elementwise;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;

use crate::errors::raise;
use crate::layout::Layout;
use crate::operand::{Operand, Source, broadcast, innermost, prepare, promote, result_order_unless_c, same_kind};
use crate::plain;
use crate::tape::{Tape, TapeCell};
use crate::tracer::Tracer;
use crate::values::forced_array;

/// NumPy computes these in int8 when all operands are bools, and refuses the others.
fn bool_is_refused(row: Elementwise) -> Option<&'static str> {
    match row {
        Elementwise::Subtract => Some("use ^ (logical exclusive or)"),
        Elementwise::Negative => Some("use ~ (logical not)"),
        Elementwise::Sign | Elementwise::Gcd | Elementwise::Lcm => Some("convert with .astype first"),
        _ => None,
    }
}

/// The dtype in which a row is computed on these operands: NumPy's first loop that fits.
pub fn loop_dtype(row: Elementwise, operands: &[Operand<'_, '_>], common: DType) -> PyResult<DType> {
    if row.result_dtype(common).is_some() {
        return Ok(common);
    }
    let refused = |hint: &str| {
        raise(Error::dtype(row.name(), format!("it is not defined for {common}")).with_hint(hint.to_owned()))
    };
    if common == DType::Bool
        && let Some(hint) = bool_is_refused(row)
    {
        return Err(refused(hint));
    }
    match row {
        Elementwise::Divide
        | Elementwise::Isnan
        | Elementwise::Isinf
        | Elementwise::Isfinite
        | Elementwise::Signbit => return Ok(DType::F64),
        Elementwise::Reciprocal => return Err(refused("use 1 // x, or x.astype(float) first")),
        _ => {}
    }
    if common == DType::Bool && row.result_dtype(DType::I8).is_some() {
        return Ok(DType::I8);
    }
    if row.result_dtype(DType::F64).is_none() {
        return Err(refused("convert with .astype first"));
    }
    float_loop(row.name(), operands)
}

/// The smallest float dtype into which every operand goes safely.
pub fn float_loop(name: &str, operands: &[Operand<'_, '_>]) -> PyResult<DType> {
    let bytes = operands.iter().filter_map(Operand::strong_dtype).map(|dtype| match dtype {
        DType::F32 | DType::F64 => dtype.size(),
        _ => (2 * dtype.size()).min(8),
    });
    match bytes.max() {
        Some(4) => Ok(DType::F32),
        Some(8) | None => Ok(DType::F64),
        Some(_) => Err(raise(
            Error::dtype(name, "NumPy gives float16 here, which is not supported")
                .with_hint("convert with x.astype(np.float32) first"),
        )),
    }
}

/// NumPy's rounding functions give integers back as they are, and its absolute bools.
fn is_identity_on(row: Elementwise, dtype: DType) -> bool {
    match row {
        Elementwise::Floor | Elementwise::Ceil | Elementwise::Trunc => !dtype.is_float(),
        Elementwise::Absolute => dtype == DType::Bool,
        _ => false,
    }
}

/// `ldexp` takes its exponent as a float of the other operand's dtype; NumPy's is an integer.
fn ldexp_dtype(operands: &[Operand<'_, '_>]) -> PyResult<DType> {
    if operands.get(1).is_none_or(|exponent| exponent.own_dtype().is_float()) {
        return Err(raise(
            Error::dtype("ldexp", "the exponent must be an integer").with_hint("use x * 2.0 ** y for a float y"),
        ));
    }
    if operands[1].own_dtype() == DType::U64 {
        return Err(raise(
            Error::dtype("ldexp", "NumPy has no loop for exponents of uint64").with_hint("use e.astype(np.int64)"),
        ));
    }
    float_loop("ldexp", &operands[..1])
}

/// The dtype to compute in: that of the caller, or what the operands promote to.
fn common_dtype(row: Elementwise, operands: &[Operand<'_, '_>], dtype: Option<DType>) -> PyResult<DType> {
    match dtype {
        Some(dtype) => Ok(dtype),
        None if row == Elementwise::Ldexp => ldexp_dtype(operands),
        None => Ok(promote(operands)),
    }
}

/// Records `row` and returns the new value. `dtype`: the dtype to compute in, where the caller asked for one.
pub fn apply(py: Python<'_>, row: Elementwise, operands: &[Operand<'_, '_>], dtype: Option<DType>) -> PyResult<Tracer> {
    if dtype.is_none()
        && let Some(result) = plain::apply(py, row, operands)?
    {
        return Ok(result);
    }
    let common = common_dtype(row, operands, dtype)?;
    if is_identity_on(row, common) {
        return convert(py, &operands[0], common);
    }
    let compute = loop_dtype(row, operands, common)?;
    check_exponent(py, row, operands, compute)?;
    let dtypes = [compute; 3];
    let result = row.result_dtype(compute).unwrap_or(compute);
    record(py, row.name(), operands, &dtypes, result, |tape, nodes| tape.builder.elementwise(row, nodes))
}

/// `select(condition, a, b)`: a bool beside two values of one dtype.
pub fn select(py: Python<'_>, operands: &[Operand<'_, '_>; 3]) -> PyResult<Tracer> {
    let dtype = promote(&operands[1..]);
    let dtypes = [DType::Bool, dtype, dtype];
    let result = record(py, "where", operands, &dtypes, dtype, |tape, nodes| {
        tape.builder.elementwise(Elementwise::Select, nodes)
    })?;
    // `np.where` of scalars gives a 0-d array.
    result.into_array(py)
}

/// A copy of the operand as a ufunc would lay it out, of dtype `dtype`.
pub fn convert(py: Python<'_>, operand: &Operand<'_, '_>, dtype: DType) -> PyResult<Tracer> {
    record(py, "positive", std::slice::from_ref(operand), &[dtype], dtype, |_, nodes| Ok(nodes[0]))
}

/// Brings operands into one shape, order and tape, and wraps what `build` records as NumPy would return it.
pub fn record(
    py: Python<'_>,
    name: &str,
    operands: &[Operand<'_, '_>],
    dtypes: &[DType],
    result: DType,
    build: impl FnOnce(&mut Tape, &[NodeId]) -> ckad_graph::Result<NodeId>,
) -> PyResult<Tracer> {
    let shape = broadcast(name, operands)?;
    let order = result_order_unless_c(shape.len(), operands);
    let tape = innermost(operands)?;
    let exponent = name == Elementwise::Power.name();
    let sources = sources(py, tape, operands, dtypes, shape.len(), order.as_deref())?;
    let node = tape.record(py, |tape| {
        let nodes = nodes(py, tape, &sources, dtypes, exponent)?;
        let node = build(tape, &nodes[..operands.len()])?;
        tape.retain(node)?;
        Ok(node)
    })?;
    let tape = Arc::clone(tape);
    if shape.is_empty() {
        return Ok(Tracer::held_scalar(tape, node, result));
    }
    let layout = match order {
        None => Layout::of_shape(shape),
        Some(order) => Layout::ordered(&shape, &order),
    };
    Ok(Tracer::held_array(tape, node, result, layout))
}

/// No row of the table has more operands.
const MAX_OPERANDS: usize = 3;
type Sources<'a> = [Option<Source<'a>>; MAX_OPERANDS];

fn nodes(
    py: Python<'_>,
    tape: &mut Tape,
    sources: &Sources<'_>,
    dtypes: &[DType],
    exponent: bool,
) -> ckad_graph::Result<[NodeId; MAX_OPERANDS]> {
    let mut nodes = [NodeId(0); MAX_OPERANDS];
    for (position, source) in sources.iter().flatten().enumerate() {
        nodes[position] = source.node(py, tape, dtypes[position], exponent && position == 1)?;
    }
    Ok(nodes)
}

fn sources<'a>(
    py: Python<'_>,
    tape: &Arc<TapeCell>,
    operands: &[Operand<'a, '_>],
    dtypes: &[DType],
    rank: usize,
    order: Option<&[usize]>,
) -> PyResult<Sources<'a>> {
    let mut sources = [None, None, None];
    for ((source, operand), &dtype) in sources.iter_mut().zip(operands).zip(dtypes) {
        *source = Some(prepare(py, tape, operand, dtype, rank, order)?);
    }
    Ok(sources)
}

/// `row(operands)` written into `target`, which is among the names of the user's own arrays.
pub fn apply_into(
    py: Python<'_>,
    row: Elementwise,
    operands: &[Operand<'_, '_>],
    target: &Tracer,
    dtype: Option<DType>,
) -> PyResult<()> {
    let common = common_dtype(row, operands, dtype)?;
    if is_identity_on(row, common) {
        return convert_into(py, row.name(), &operands[0], common, target);
    }
    let compute = loop_dtype(row, operands, common)?;
    check_exponent(py, row, operands, compute)?;
    let result = row.result_dtype(compute).unwrap_or(compute);
    record_into(py, row.name(), operands, &[compute; 3], result, target, |tape, nodes| {
        tape.builder.elementwise(row, nodes)
    })
}

/// The operand itself written into `target`.
pub fn convert_into(
    py: Python<'_>,
    name: &str,
    operand: &Operand<'_, '_>,
    dtype: DType,
    target: &Tracer,
) -> PyResult<()> {
    record_into(py, name, std::slice::from_ref(operand), &[dtype], dtype, target, |_, nodes| Ok(nodes[0]))
}

/// As [`record`], with the result written into `target`.
pub fn record_into(
    py: Python<'_>,
    name: &str,
    operands: &[Operand<'_, '_>],
    dtypes: &[DType],
    result: DType,
    target: &Tracer,
    build: impl FnOnce(&mut Tape, &[NodeId]) -> ckad_graph::Result<NodeId>,
) -> PyResult<()> {
    let (storage, view) = target.writable(py, name)?;
    if !same_kind(result, storage.dtype) {
        return Err(raise(
            Error::dtype(name, format!("cannot write a result of dtype {result} into an array of {}", storage.dtype))
                .with_hint("write x = x + y, which makes a new array, or convert with .astype"),
        ));
    }
    let shape = broadcast(name, operands)?;
    let target_shape = &view.layout.shape;
    if Layout::contiguous(&shape).broadcast(target_shape).is_none() {
        return Err(raise(
            Error::shape(
                name,
                format!(
                    "an array of shape {} cannot take a result of shape {}",
                    shape_text(target_shape),
                    shape_text(&shape)
                ),
            )
            .with_hint("an in-place operation cannot enlarge its array; write x = x + y"),
        ));
    }
    target.check_owns(py, name, operands)?;
    let rank = target_shape.len();
    let order = view.memory_order();
    let sources = sources(py, &storage.tape, operands, dtypes, rank, Some(&order))?;
    let exponent = name == Elementwise::Power.name();
    let destination = view.layout.transposed(&order);
    storage.write(py, &destination, |tape| {
        let nodes = nodes(py, tape, &sources, dtypes, exponent)?;
        let node = build(tape, &nodes[..operands.len()])?;
        let node = tape.builder.cast(node, storage.dtype)?;
        tape.builder.broadcast(node, &destination.shape)
    })
}

/// Integers have no negative powers. A traced exponent is looked at: integers depend on nothing differentiated.
fn check_exponent(py: Python<'_>, row: Elementwise, operands: &[Operand<'_, '_>], compute: DType) -> PyResult<()> {
    if row != Elementwise::Power || !compute.is_integer() {
        return Ok(());
    }
    let any_below_zero =
        |array: &Bound<'_, PyAny>| array.rich_compare(0, CompareOp::Lt)?.call_method0("any")?.is_truthy();
    let negative = match operands.get(1) {
        Some(Operand::PythonInt(object) | Operand::NumpyScalar(object, _)) => object.lt(0)?,
        Some(Operand::Array { array, .. }) => any_below_zero(array.as_any())?,
        Some(Operand::Traced(exponent)) if exponent.dtype().is_signed() => {
            any_below_zero(forced_array(py, exponent)?.as_any())?
        }
        _ => false,
    };
    if negative {
        return Err(raise(
            Error::value("power", "integers to negative integer powers are not allowed")
                .with_hint("use a float base: x.astype(float) ** n"),
        ));
    }
    Ok(())
}
