//! Memory that will be needed soon, brought into L2 while something else is computed.
//!
//! A block of rows that is worked on while it is in cache leaves memory idle but at its beginning and end. So with each
//! tile a few lines are fetched of what the block writes in the end and of what the next block reads first.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Memory;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Most lines with one tile: what a core can wait for without being held up.
const MOST_LINES: usize = 32;

/// Ranges of bytes, fetched a part at a time.
#[derive(Debug, Default)]
pub struct Ahead {
    ranges: Vec<Memory>,
    lines: usize,
    lines_a_tile: usize,
    fetched: AtomicUsize,
}

impl Ahead {
    /// The ranges, spread over so many tiles.
    pub fn new(ranges: Vec<Memory>, tiles: usize) -> Ahead {
        let lines: usize = ranges.iter().map(|range| range.bytes.div_ceil(LINE)).sum();
        let lines_a_tile = lines.div_ceil(tiles.max(1)).min(MOST_LINES);
        Ahead { ranges, lines, lines_a_tile, fetched: AtomicUsize::new(0) }
    }

    /// Fetches the next part.
    #[inline]
    pub fn fetch(&self) {
        let first = self.fetched.fetch_add(self.lines_a_tile, Ordering::Relaxed);
        let (mut skipped, last) = (0, self.lines.min(first + self.lines_a_tile));
        for range in &self.ranges {
            let lines = range.bytes.div_ceil(LINE);
            for line in first.max(skipped)..last.min(skipped + lines) {
                fetch_line(range.pointer.wrapping_add((line - skipped) * LINE));
            }
            skipped += lines;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a hint, of any address; it reads nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fetch_line(_: *const u8) {}
