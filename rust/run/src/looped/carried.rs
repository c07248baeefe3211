//! Where carries and slices are in each iteration.
//!
//! A carry whose states are kept lies in their stack; another one is written over itself where the body can do that, or
//! else goes back and forth between two places, so that the last one is where it is to be.

use ckad_graph::{Error, Result};
use ckad_plan::loops::CarryLayout;

use super::Site;
use super::frame::Frame;

/// Inputs and outputs of a body that are slices of arrays.
pub(super) struct Moving(Vec<(bool, usize, *mut u8, usize)>);

impl Moving {
    pub fn new() -> Moving {
        Moving(Vec::new())
    }

    /// The input is a slice of the array that begins there.
    pub fn input(&mut self, frame: &Frame<'_>, input: usize, first: *mut u8) {
        self.0.push((true, input, first, frame.body().input_bytes(input)));
    }

    pub fn output(&mut self, frame: &Frame<'_>, output: usize, first: *mut u8) {
        self.0.push((false, output, first, frame.body().output_bytes(output)));
    }

    /// What is stacked, from the part `first` on; what nobody asks for goes where it is not read.
    pub fn stacked(&mut self, site: &Site<'_>, frame: &Frame<'_>, first: usize, count: usize) -> Result<()> {
        for output in first..first + count {
            match site.result(output)? {
                Some(pointer) => self.output(frame, output, pointer),
                None => frame.place_output(output, site.at(site.layout.unread)),
            }
        }
        Ok(())
    }

    /// Places the slices of an index.
    pub fn place(&self, frame: &Frame<'_>, index: usize) {
        for &(is_input, slot, first, bytes) in &self.0 {
            let pointer = first.wrapping_add(index * bytes);
            if is_input { frame.place_input(slot, pointer) } else { frame.place_output(slot, pointer) }
        }
    }
}

/// A carry: input `input` and output `output` of a body.
pub(super) struct Carry {
    input: usize,
    output: usize,
    pub bytes: usize,
    first: *mut u8,
    /// The stack of all states.
    states: Option<*mut u8>,
    pub last: *mut u8,
    other: *mut u8,
}

/// Which iteration of how many, and which index it has.
#[derive(Clone, Copy)]
pub(super) struct Turns {
    pub count: usize,
    pub reverse: bool,
}

impl Turns {
    pub fn index(self, turn: usize) -> usize {
        if self.reverse { self.count - 1 - turn } else { turn }
    }
}

impl Carry {
    /// The carry of that number, whose first value is there.
    pub fn new(
        site: &Site<'_>,
        frame: &Frame<'_>,
        (carry, input): (usize, usize),
        first: *mut u8,
        states: Option<*mut u8>,
    ) -> Result<Carry> {
        let CarryLayout { last, other } = site.layout.carries[carry];
        let last = match (site.result(carry)?, last) {
            (Some(pointer), _) => pointer,
            (None, Some(piece)) => site.at(piece),
            (None, None) => return Err(Error::internal("run", "a carry without a place")),
        };
        let other = other.map_or(last, |piece| site.at(piece));
        Ok(Carry { input, output: carry, bytes: frame.body().output_bytes(carry), first, states, last, other })
    }

    /// Puts the first value where it belongs before the first iteration.
    ///
    /// # Safety
    /// The carry was made with memory of its bytes for the first value, and of all states for as many turns.
    pub unsafe fn begin(&self, turns: Turns) {
        let into = match (turns.count, self.states) {
            (0, _) => self.last,
            (_, Some(states)) => states.wrapping_add(turns.index(0) * self.bytes),
            (_, None) => return,
        };
        // SAFETY: the caller's promise; `last` is of the site. Of values alive at once none overlaps another one.
        unsafe { copy(self.first, into, self.bytes) };
    }

    /// Places the carry for an iteration; where it is before it.
    pub fn place(&self, frame: &Frame<'_>, turns: Turns, turn: usize) -> *mut u8 {
        let (from, into) = match self.states {
            Some(states) => {
                let state = |turn: usize| states.wrapping_add(turns.index(turn) * self.bytes);
                (state(turn), if turn + 1 == turns.count { self.last } else { state(turn + 1) })
            }
            None => {
                // The last one is written to `last`, the one before to `other`, and so on.
                let even = (turns.count - 1 - turn).is_multiple_of(2);
                let (from, into) = if even { (self.other, self.last) } else { (self.last, self.other) };
                (if turn == 0 { self.first } else { from }, into)
            }
        };
        frame.place_input(self.input, from);
        frame.place_output(self.output, into);
        from
    }

    /// As `place`, where nobody knows how many iterations there are; where it is after it.
    pub fn place_next(&self, frame: &Frame<'_>, turn: usize) -> *mut u8 {
        let into = if turn.is_multiple_of(2) { self.last } else { self.other };
        frame.place_input(self.input, self.after(turn));
        frame.place_output(self.output, into);
        into
    }

    /// Where `place_next` puts it in so many iterations.
    pub fn after(&self, turns: usize) -> *mut u8 {
        match turns {
            0 => self.first,
            _ if turns.is_multiple_of(2) => self.other,
            _ => self.last,
        }
    }
}

/// Copies an array to a place of as many bytes, unless it is there already.
///
/// # Safety
/// There are so many bytes at both, which are the same or do not overlap.
pub(super) unsafe fn copy(from: *const u8, into: *mut u8, bytes: usize) {
    if !std::ptr::eq(from, into) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, into, bytes) };
    }
}
