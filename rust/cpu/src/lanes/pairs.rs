//! Two arithmetic rows in one loop, where only the second reads what the first computes: that then stays in a register.
//!
//! A row of arithmetic takes longer to read and write tiles than to compute. Each of the two is rounded by itself, so
//! the bits are those of one row after the other.

use ckad_graph::DType;
use ckad_prim::Elementwise;

use super::{Compiled, Lane, compiled, element, loops};
use crate::{Isa, math};

/// `second(first(a, b), c)`, or `second(c, first(a, b))` where the result of the first is not `on_left`; None where the
/// two run by themselves.
pub fn pair(first: Elementwise, second: Elementwise, on_left: bool, dtype: DType, isa: Isa) -> Option<Lane> {
    compiled_pair(first, second, on_left, dtype).map(|compiled| compiled.get(isa))
}

/// A match over rows for the first, over those for the second, over dtypes. What commutes has its first on the left.
macro_rules! pairs {
    ($first:ident, $second:ident, $on_left:ident, $dtype:ident, [$($variant:ident $f:path),*]) => {
        match $first {
            $(Elementwise::$variant => pairs!(@second $second, $on_left, $dtype, $f),)*
            _ => None,
        }
    };
    (@second $second:ident, $on_left:ident, $dtype:ident, $f:path) => {
        match ($second, $on_left) {
            (Elementwise::Add, _) => pairs!(@dtype $dtype, |a, b, c| math::add($f(a, b), c)),
            (Elementwise::Multiply, _) => pairs!(@dtype $dtype, |a, b, c| math::multiply($f(a, b), c)),
            (Elementwise::Lmul, _) => pairs!(@dtype $dtype, |a, b, c| math::lmul($f(a, b), c)),
            (Elementwise::Subtract, true) => pairs!(@dtype $dtype, |a, b, c| math::subtract($f(a, b), c)),
            (Elementwise::Subtract, false) => pairs!(@dtype $dtype, |a, b, c| math::subtract(c, $f(a, b))),
            _ => None,
        }
    };
    (@dtype $dtype:ident, $function:expr) => {
        match $dtype {
            DType::F32 => Some(compiled!(F32, loops::paired, $function)),
            DType::F64 => Some(compiled!(F64, loops::paired, $function)),
            _ => None,
        }
    };
}

fn compiled_pair(first: Elementwise, second: Elementwise, on_left: bool, dtype: DType) -> Option<Compiled> {
    pairs!(first, second, on_left, dtype, [
        Add math::add,
        Subtract math::subtract,
        Multiply math::multiply,
        Lmul math::lmul
    ])
}
