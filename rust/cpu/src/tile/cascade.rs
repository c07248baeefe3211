//! Pairwise combination of rows of accumulators as they arrive, in the memory of one row per level.
//!
//! Level l holds the sum of 2ˡ items where bit l of their number is set. A run of 2ᵐ items, starting at a multiple
//! of 2ᵐ, is one node of the tree: so pieces of that length can be reduced anywhere and combined by another cascade
//! with the same result.

use super::load::fill;
use crate::lanes::ReduceLanes;

/// Rows that are added one after another before their sum goes on a cascade.
pub const ROWS: usize = 32;

/// A cascade over rows of `width` accumulators.
pub struct Cascade<'a> {
    lanes: &'a ReduceLanes,
    levels: *mut u8,
    width: usize,
    count: usize,
}

/// Levels that `items` items need.
pub fn levels(items: usize) -> usize {
    items.max(1).ilog2() as usize + 1
}

impl<'a> Cascade<'a> {
    /// # Safety
    /// `levels` has room for as many rows as `levels(items)` says for the items to come, as long as the cascade lives.
    pub unsafe fn new(lanes: &'a ReduceLanes, levels: *mut u8, width: usize) -> Cascade<'a> {
        Cascade { lanes, levels, width, count: 0 }
    }

    /// The scalar cascade that `ReduceLanes::push` has put `count` blocks on.
    ///
    /// # Safety
    /// As for `new`.
    pub unsafe fn resume(lanes: &'a ReduceLanes, levels: *mut u8, count: usize) -> Cascade<'a> {
        Cascade { lanes, levels, width: 1, count }
    }

    fn bytes(&self) -> usize {
        self.width * self.lanes.dtype.size()
    }

    fn level(&self, level: usize) -> *mut u8 {
        // SAFETY: inside the levels that `new` was promised.
        unsafe { self.levels.add(level * self.bytes()) }
    }

    /// # Safety
    /// `row` holds `width` accumulators outside the levels.
    pub unsafe fn push(&mut self, row: *const u8) {
        let mut row = row;
        let mut level = 0;
        while self.count >> level & 1 != 0 {
            // SAFETY: different rows of the same width.
            unsafe { (self.lanes.merge)(self.level(level), row, self.width) };
            row = self.level(level);
            level += 1;
        }
        // SAFETY: different rows of the same width.
        unsafe { std::ptr::copy_nonoverlapping(row, self.level(level), self.bytes()) };
        self.count += 1;
    }

    /// # Safety
    /// `dst` has room for `width` accumulators outside the levels.
    pub unsafe fn finish(self, dst: *mut u8) {
        let mut sum: Option<*mut u8> = None;
        for level in (0..usize::BITS as usize).filter(|level| self.count >> level & 1 != 0) {
            let earlier = self.level(level);
            if let Some(later) = sum {
                // SAFETY: different rows of the same width.
                unsafe { (self.lanes.merge)(earlier, later, self.width) };
            }
            sum = Some(earlier);
        }
        // SAFETY: the caller's promise.
        unsafe {
            match sum {
                Some(sum) => std::ptr::copy_nonoverlapping(sum, dst, self.bytes()),
                None => fill(dst, self.lanes.dtype, self.lanes.identity, self.width),
            }
        }
    }
}

/// Columns of a matrix whose rows arrive in order: blocks of [`ROWS`] rows one after another, blocks by a cascade.
pub struct Columns<'a> {
    cascade: Cascade<'a>,
    sums: *mut u8,
    /// Rows in `sums`.
    rows: usize,
}

impl<'a> Columns<'a> {
    /// Bytes of scratch for `rows` rows of `width` accumulators of `size` bytes.
    pub fn bytes(rows: usize, width: usize, size: usize) -> usize {
        (1 + levels(rows.div_ceil(ROWS))) * width * size
    }

    /// # Safety
    /// `scratch` has the `bytes` that the rows to come need, as long as the columns live.
    pub unsafe fn new(lanes: &'a ReduceLanes, scratch: *mut u8, width: usize) -> Columns<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            let levels = scratch.add(width * lanes.dtype.size());
            Columns { cascade: Cascade::new(lanes, levels, width), sums: scratch, rows: 0 }
        }
    }

    /// # Safety
    /// `src` holds `rows` rows of items.
    pub unsafe fn push(&mut self, src: *const u8, item_size: usize, rows: usize) {
        let lanes = self.cascade.lanes;
        let width = self.cascade.width;
        let mut done = 0;
        while done < rows {
            let n = (ROWS - self.rows).min(rows - done);
            // SAFETY: the caller's promise; `sums` is scratch of one row.
            unsafe {
                if self.rows == 0 {
                    fill(self.sums, lanes.dtype, lanes.identity, width);
                }
                (lanes.accumulate)(self.sums, src.add(done * width * item_size), width, n);
            }
            done += n;
            self.rows += n;
            if self.rows == ROWS {
                self.rows = 0;
                // SAFETY: `sums` lies before the levels.
                unsafe { self.cascade.push(self.sums) };
            }
        }
    }

    /// # Safety
    /// `dst` has room for a row of accumulators outside the scratch.
    pub unsafe fn finish(mut self, dst: *mut u8) {
        // SAFETY: as in `push`; the caller's promise.
        unsafe {
            if self.rows > 0 {
                self.cascade.push(self.sums);
            }
            self.cascade.finish(dst);
        }
    }
}
