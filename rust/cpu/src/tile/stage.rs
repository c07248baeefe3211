//! The stages that a reduction goes through, and how they are cut into work.
//!
//! Axes of one element are dropped and neighbours of one kind joined, so that kept and reduced axes alternate. Each
//! [`Stage`] removes the innermost reduced axis: rows where it is the last axis, columns otherwise. The order of
//! combination follows from the stages, hence from extents and flags alone.

use super::cascade::{Columns, ROWS, levels};
use super::prepare::BLOCK;

/// `[outer, reduced, inner]` to `[outer, inner]`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stage {
    pub outer: usize,
    pub reduced: usize,
    pub inner: usize,
}

/// How a stage is cut into work.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Elements that are read at a time.
    pub tile: usize,
    /// Outer indices of one piece.
    pub outers: usize,
    /// Reduced indices of one piece: all, or a power of two of blocks.
    pub chunk: usize,
    pub chunks: usize,
    /// Inner indices of one panel.
    pub width: usize,
    pub panels: usize,
    /// Panels that are one piece: one, or all.
    pub panels_of_piece: usize,
}

/// Pieces beyond which columns are not cut along the reduced axis too.
const ENOUGH_PIECES: usize = 16;

pub fn stages(extents: &[usize], reduced: &[bool]) -> Vec<Stage> {
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (&extent, &reduced) in extents.iter().zip(reduced).filter(|(extent, _)| **extent != 1) {
        match groups.last_mut() {
            Some((product, kind)) if *kind == reduced => *product *= extent,
            _ => groups.push((extent, reduced)),
        }
    }
    let product = |groups: &[(usize, bool)]| groups.iter().map(|(extent, _)| extent).product();
    let mut stages = Vec::new();
    while let Some(last) = groups.iter().rposition(|(_, reduced)| *reduced) {
        let (outer, inner) = (product(&groups[..last]), product(&groups[last + 1..]));
        stages.push(Stage { outer, reduced: groups[last].0, inner });
        groups.remove(last);
    }
    if stages.is_empty() {
        stages.push(Stage { outer: 1, reduced: 1, inner: product(&groups) });
    }
    stages
}

impl Stage {
    pub fn results(&self) -> usize {
        self.outer * self.inner
    }

    /// Width and number of the panels that inner indices are cut into.
    pub fn panels(&self, tile: usize) -> (usize, usize) {
        let panels = self.inner.div_ceil(tile);
        let width = if panels == 1 { self.inner } else { self.inner.div_ceil(panels).next_multiple_of(16) };
        (width, self.inner.div_ceil(width.max(1)))
    }

    pub fn cut(&self, tile: usize, piece: usize) -> Cut {
        let (width, panels) = self.panels(tile);
        // The smallest power of two of blocks that makes a piece.
        let block = if self.inner == 1 { BLOCK } else { ROWS };
        let chunk = block * piece.div_ceil(block * width.max(1)).next_power_of_two();
        let chunks = self.reduced.div_ceil(chunk);
        let split = chunks > 1 && (self.inner == 1 || self.outer * panels < ENOUGH_PIECES);
        let (chunk, chunks) = if split { (chunk, chunks) } else { (self.reduced, 1) };
        let outers = if chunks > 1 || panels > 1 { 1 } else { (piece / (self.reduced * self.inner).max(1)).max(1) };
        Cut { tile, outers, chunk, chunks, width, panels, panels_of_piece: 1 }
    }
}

impl Cut {
    /// Bytes of the partial results, where the reduced axis is cut.
    pub fn partial_bytes(&self, stage: &Stage, size: usize) -> usize {
        if self.chunks == 1 { 0 } else { (stage.results() * self.chunks * size).next_multiple_of(64) }
    }

    /// Bytes of accumulators on each thread.
    pub fn thread_bytes(&self, size: usize) -> usize {
        let combine = levels(self.chunks) * self.width * size;
        Columns::bytes(self.chunk, self.width, size).max(combine).next_multiple_of(64)
    }
}
