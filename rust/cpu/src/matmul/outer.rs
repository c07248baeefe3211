//! Products of depth 1: every element is one multiplication.

use ckad_graph::Result;

use super::{Call, Matrices};
use crate::parallel::{PIECE, for_each_piece};
use crate::structural::number::Float;

pub fn product<T: Float>(call: &Call<'_>, matrices: &Matrices<T>) -> Result<()> {
    let &Matrices { m, n, a, a_row, b, b_column, c, .. } = matrices;
    let width = n.min(PIECE);
    let across = n.div_ceil(width);
    for_each_piece(call.environment, m * across, PIECE / width, |range| {
        for item in range {
            let (row, first) = (item / across, item % across * width);
            // SAFETY: elements of the operands; items are disjoint parts of the result.
            unsafe {
                let factor = *a.at(row as isize * a_row);
                let line = b.at(first as isize * b_column);
                let target = c.at((row * n + first) as isize);
                let target = std::slice::from_raw_parts_mut(target, width.min(n - first));
                let values = |j: usize| *line.offset(j as isize * b_column);
                match (call.absorb, b_column) {
                    (false, 1) => {
                        let line = std::slice::from_raw_parts(line, target.len());
                        target.iter_mut().zip(line).for_each(|(place, &value)| *place = factor.multiply(value));
                    }
                    (true, 1) => {
                        let line = std::slice::from_raw_parts(line, target.len());
                        target.iter_mut().zip(line).for_each(|(place, &value)| *place = factor.absorb(value));
                    }
                    (false, _) => {
                        target.iter_mut().enumerate().for_each(|(j, place)| *place = factor.multiply(values(j)));
                    }
                    (true, _) => {
                        target.iter_mut().enumerate().for_each(|(j, place)| *place = factor.absorb(values(j)));
                    }
                }
            }
        }
        Ok(())
    })
}
