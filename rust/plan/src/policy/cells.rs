//! A tree of intervals of the tape: the form in which policies that divide it answer.
//!
//! Positions are those of clusters, compressed to 0, 1, 2, …. The root covers all of them. A *visit* of a cell is
//! a stretch of the run in which clusters of its positions are computed. A value belongs to the innermost cell
//! that holds its producer and all its users, in every pass: it is remembered until the visit ends and
//! recomputed in the next. What belongs to the root is never recomputed: that is what a plan *keeps*. With
//! one level of cells (segments) this is the rule "kept if and only if used in another segment".

use ckad_graph::Result;

use crate::tables::{filled, push};

/// The cell that covers everything.
pub const ROOT: u32 = 0;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cells {
    parent: Vec<u32>,
    depth: Vec<u32>,
    deepest: u32,
    /// The innermost cell at each position.
    innermost: Vec<u32>,
}

impl Cells {
    /// The root alone.
    pub fn whole(positions: usize) -> Result<Cells> {
        Ok(Cells { parent: vec![ROOT], depth: vec![0], deepest: 0, innermost: filled(ROOT, positions)? })
    }

    /// A new cell inside `parent`; it covers no position until it is painted.
    pub fn add(&mut self, parent: u32) -> Result<u32> {
        push(&mut self.parent, parent)?;
        let depth = self.depth[parent as usize] + 1;
        self.deepest = self.deepest.max(depth);
        push(&mut self.depth, depth)?;
        Ok(self.parent.len() as u32 - 1)
    }

    /// Gives the positions from `low` up to `high` to the cell.
    pub fn paint(&mut self, low: usize, high: usize, cell: u32) {
        self.innermost[low..high].fill(cell);
    }

    pub fn is_whole(&self) -> bool {
        self.parent.len() == 1
    }

    /// Whether some cell lies inside another that is not the root.
    pub fn is_nested(&self) -> bool {
        self.deepest > 1
    }

    /// How many cells lie inside one another at most, the root not counted: in each pass but the first a cluster is
    /// recomputed at most so many times.
    pub fn deepest(&self) -> u32 {
        self.deepest
    }

    pub fn len(&self) -> usize {
        self.parent.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    pub fn parent(&self, cell: u32) -> u32 {
        self.parent[cell as usize]
    }

    pub fn innermost(&self) -> &[u32] {
        &self.innermost
    }

    /// Number of cells that are recomputed as one; 1 where there is only the root.
    pub fn segments(&self) -> usize {
        (self.parent.len() - 1).max(1)
    }

    /// The innermost cell that covers both.
    pub fn common(&self, mut a: u32, mut b: u32) -> u32 {
        while a != b {
            if self.depth[a as usize] < self.depth[b as usize] {
                std::mem::swap(&mut a, &mut b);
            }
            a = self.parent[a as usize];
        }
        a
    }

    /// Whether `outer` is `inner` or covers it.
    pub fn covers(&self, outer: u32, inner: u32) -> bool {
        self.common(outer, inner) == outer
    }
}
