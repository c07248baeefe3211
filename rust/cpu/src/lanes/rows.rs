//! From a row of the table and a dtype to its lanes: the expansion of `ckad_prim::elementwise_table!` for the CPU.

use ckad_graph::DType;
use ckad_prim::{Elementwise, elementwise_table};

use super::{Compiled, Lane, compiled, element, loops};
use crate::{Isa, math};

/// The lane of a row on operands of `dtype`; None where the row does not allow it.
pub fn elementwise(row: Elementwise, dtype: DType, isa: Isa) -> Option<Lane> {
    compiled_row(row, dtype).map(|compiled| compiled.get(isa))
}

/// The loop of a row, by its number of operands; sines have a second function for large arguments, logarithms of sums
/// one for results that cancelled.
macro_rules! row {
    ($dtype:ident, Sin, 1, $function:path) => {
        compiled!($dtype, loops::unary_with_far, |x| $function(x), |x| math::sin_far(x), || math::near())
    };
    ($dtype:ident, Cos, 1, $function:path) => {
        compiled!($dtype, loops::unary_with_far, |x| $function(x), |x| math::cos_far(x), || math::near())
    };
    ($dtype:ident, Tan, 1, $function:path) => {
        compiled!($dtype, loops::unary_with_far, |x| $function(x), |x| math::tan_far(x), || math::near())
    };
    ($dtype:ident, Logaddexp, 2, $function:path) => {
        compiled!(
            $dtype,
            loops::binary_with_far,
            |a, b| $function(a, b),
            |a, b| math::logaddexp_far(a, b),
            |a, b, result| math::sum_cancels(a, b, result)
        )
    };
    ($dtype:ident, Logaddexp2, 2, $function:path) => {
        compiled!(
            $dtype,
            loops::binary_with_far,
            |a, b| $function(a, b),
            |a, b| math::logaddexp2_far(a, b),
            |a, b, result| math::sum2_cancels(a, b, result)
        )
    };
    ($dtype:ident, $variant:ident, 1, $function:path) => {
        compiled!($dtype, loops::unary, |a| $function(a))
    };
    ($dtype:ident, $variant:ident, 2, $function:path) => {
        compiled!($dtype, loops::binary, |a, b| $function(a, b))
    };
    ($dtype:ident, $variant:ident, 3, $function:path) => {
        compiled!($dtype, loops::ternary, |condition, a, b| $function(condition, a, b))
    };
}

/// A match over the dtypes that a row allows.
macro_rules! domain {
    (FLOAT, $on:ident, $($row:tt)*) => { domain!(@match $on, [F32 F64], $($row)*) };
    (NUMBER, $on:ident, $($row:tt)*) => {
        domain!(@match $on, [I8 I16 I32 I64 U8 U16 U32 U64 F32 F64], $($row)*)
    };
    (INTEGER, $on:ident, $($row:tt)*) => { domain!(@match $on, [I8 I16 I32 I64 U8 U16 U32 U64], $($row)*) };
    (BITS, $on:ident, $($row:tt)*) => { domain!(@match $on, [Bool I8 I16 I32 I64 U8 U16 U32 U64], $($row)*) };
    (ALL, $on:ident, $($row:tt)*) => {
        domain!(@match $on, [Bool I8 I16 I32 I64 U8 U16 U32 U64 F32 F64], $($row)*)
    };
    (@match $on:ident, [$($dtype:ident)*], $variant:ident, $arity:tt, $function:path) => {
        match $on {
            $(DType::$dtype => Some(row!($dtype, $variant, $arity, $function)),)*
            #[allow(unreachable_patterns)]
            _ => None,
        }
    };
}

macro_rules! define {
    ($( $(#[doc = $doc:literal])* $variant:ident $name:ident ($arity:tt) {
        dtypes: $dtypes:ident, result: $result:ident, cpu: $cpu:path, wgsl: $wgsl:literal, d: $d:tt,
        cost: $cost:literal, sample: $sample:tt, numpy: $numpy:literal,
    } )*) => {
        fn compiled_row(row: Elementwise, dtype: DType) -> Option<Compiled> {
            match row {
                $(Elementwise::$variant => domain!($dtypes, dtype, $variant, $arity, $cpu),)*
            }
        }
    };
}
elementwise_table! { define }
