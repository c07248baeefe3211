//! Actions on a chain of steps, and the cells they come to.
//!
//! Whoever reverses a chain of steps decides again and again over a part of it whose first state is at hand: to
//! keep what its first step computes, or to advance, keeping only what crosses the end, and to come back when the rest
//! is reversed. A part that is come back to is a cell inside the cell of the part around it: what it computes is
//! forgotten when the advance is over, the state at its end belongs to the cell around it, and coming back to it is
//! the visit in which its own parts are advanced over in turn. The step that a part ends with is reversed right away,
//! so what it computes belongs to the part. Dropping a state needs no action: it is dead when its part is reversed.
//! So the tree of cells says all of it, and is as deep as the dearest step is computed often.

use ckad_graph::{Result, interrupt};

use crate::policy::cells::Cells;
use crate::tables::push;

/// What becomes of a part of a chain that has more than one step. `M` is what is left for it to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action<M> {
    /// The first step is computed, and what its adjoint reads is kept.
    Keep { rest: M },
    /// All steps before the border `to`, counted from the start of the chain, are computed and only what crosses it is
    /// kept. What lies behind it is reversed first.
    Advance { to: usize, behind: M, before: M },
}

/// The cell of a stretch of the tape that ends at `end`.
pub(crate) struct Leaf {
    pub(crate) end: usize,
    pub(crate) cell: u32,
}

/// A part of the chain that is to be reversed.
struct Part<M> {
    from: usize,
    to: usize,
    memory: M,
    cell: u32,
}

/// Adds the cells of a chain inside `parent`. Step i lies between border i and border i + 1. With `returns` the
/// chain is come back to from elsewhere, so that its last step is a cell of its own.
pub(crate) fn leaves<M: Copy>(
    cells: &mut Cells,
    parent: u32,
    borders: &[usize],
    returns: bool,
    memory: M,
    mut decide: impl FnMut(usize, usize, M) -> Action<M>,
) -> Result<Vec<Leaf>> {
    let steps = borders.len() - 1;
    let mut leaves = Vec::new();
    let mut waiting = vec![Part { from: 0, to: steps, memory, cell: parent }];
    while let Some(Part { mut from, to, mut memory, cell }) = waiting.pop() {
        interrupt::check_at(leaves.len())?;
        while to - from > 1 {
            match decide(from, to, memory) {
                Action::Keep { rest } => {
                    push(&mut leaves, Leaf { end: borders[from + 1], cell })?;
                    (from, memory) = (from + 1, rest);
                }
                Action::Advance { to: border, behind, before } => {
                    debug_assert!(from < border && border < to);
                    let part = Part { from, to: border, memory: before, cell: cells.add(cell)? };
                    push(&mut waiting, part)?;
                    (from, memory) = (border, behind);
                }
            }
        }
        let cell = if returns && to == steps { cells.add(cell)? } else { cell };
        push(&mut leaves, Leaf { end: borders[to], cell })?;
    }
    leaves.sort_unstable_by_key(|leaf| leaf.end);
    Ok(leaves)
}
