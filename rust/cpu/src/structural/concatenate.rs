//! Concatenation: one strided copy per operand.

use ckad_graph::{Error, Result};

use super::array::{Array, around};
use super::strided::{Axis, Mover};

pub fn concatenate(axis: usize, operands: &[Array<'_>], out: &Array<'_>, mover: &impl Mover) -> Result<()> {
    let (outer, extent, inner) = around(out.shape, axis)?;
    let mut first = 0;
    for operand in operands {
        let (rows, part, row) = around(operand.shape, axis)?;
        if rows != outer || row != inner || first + part > extent {
            return Err(Error::internal("concatenate", "the operands do not fit the result"));
        }
        let axes = vec![
            Axis { extent: outer, target: (extent * inner) as isize, source: (part * inner) as isize },
            Axis { extent: part * inner, target: 1, source: 1 },
        ];
        let target = out.pointer_mut::<u8>().wrapping_add(first * inner * out.dtype.size());
        // SAFETY: the operand's slab is inside the result by the check above.
        unsafe { mover.copy(out.dtype, axes, target, operand.pointer())? };
        first += part;
    }
    if first == extent {
        return Ok(());
    }
    Err(Error::internal("concatenate", "the operands do not fill the result"))
}
