//! Loops over the states of another loop that kept some of them only.
//!
//! Between the newest state at hand and the iteration that is wanted the other loop's body runs again, and leaves a
//! state where the binomial schedule wants one and a slot is free.

use ckad_cpu::Memory;
use ckad_graph::binomial::{self, Move};
use ckad_graph::{Result, Reverse, Rewind, online};

use super::Site;
use super::carried::{Carry, Moving, Turns, copy};
use super::frame::Frame;

/// The other loop, which computes states anew.
struct Ahead<'a> {
    frame: Frame<'a>,
    index: *mut i64,
    turns: Turns,
    moving: Moving,
    carries: Vec<State>,
}

/// A carry of the other loop.
struct State {
    input: usize,
    bytes: usize,
    slots: *mut u8,
    /// Where it goes on the way.
    places: [*mut u8; 2],
}

impl State {
    fn slot(&self, slot: usize) -> *mut u8 {
        self.slots.wrapping_add(slot * self.bytes)
    }

    /// Where it is on the way, after the iteration of that number.
    fn on_the_way(&self, turn: usize) -> *mut u8 {
        self.places[turn % 2]
    }
}

impl Ahead<'_> {
    /// From the state in the slot, which is the one before iteration `from`, to the one before `until`: into a slot, or
    /// where it is on the way.
    ///
    /// # Safety
    /// As for `super::run`.
    unsafe fn advance(&self, slot: usize, from: usize, until: usize, into: Option<usize>) -> Result<()> {
        for turn in from..until {
            let number = self.turns.index(turn);
            // SAFETY: the layout has room for it.
            unsafe { self.index.write(number as i64) };
            self.moving.place(&self.frame, number);
            for (carry, state) in self.carries.iter().enumerate() {
                let before = if turn == from { state.slot(slot) } else { state.on_the_way(turn - 1) };
                let after = match into {
                    Some(into) if turn + 1 == until => state.slot(into),
                    _ => state.on_the_way(turn),
                };
                self.frame.place_input(state.input, before);
                self.frame.place_output(carry, after);
            }
            // SAFETY: all inputs and outputs were placed, as the kernel's layout and the verified body say.
            unsafe { self.frame.run()? };
        }
        Ok(())
    }
}

/// # Safety
/// As for `super::run`.
pub(super) unsafe fn run(site: &Site<'_>, reverse: Reverse) -> Result<()> {
    let scan = reverse.scan;
    let frame = Frame::new(site, 0)?;
    let (consts, carries, states) = (scan.consts as usize, scan.carries as usize, reverse.states as usize);
    let turns = Turns { count: scan.trips as usize, reverse: scan.reverse };
    let index = site.at(site.layout.index).cast::<i64>();
    frame.place_input(0, index.cast());
    for (constant, memory) in site.operands[..consts].iter().enumerate() {
        frame.place_input(1 + constant, memory.pointer);
    }
    let mut moving = Moving::new();
    for x in consts + carries..reverse.own() {
        moving.input(&frame, 1 + states + x, site.operands[x].pointer);
    }
    moving.stacked(site, &frame, carries, scan.ys as usize)?;
    let mut carried = Vec::with_capacity(carries);
    for carry in 0..carries {
        let first = site.operands[consts + carry].pointer;
        carried.push(Carry::new(site, &frame, (carry, 1 + consts + carry), first, None)?);
    }
    // SAFETY: an operand of the site, and no states.
    carried.iter().for_each(|carry| unsafe { carry.begin(turns) });

    let ahead = ahead(site, reverse, index)?;
    for action in binomial::backwards(turns.count as u64, reverse.slots.into()) {
        let (wanted, slot) = match action {
            Move::Advance { slot, from, until, into } => {
                // SAFETY: the caller's promises.
                unsafe { ahead.advance(slot, from as usize, until as usize, into)? };
                continue;
            }
            Move::Turn { step, slot } => (step as usize, slot),
        };
        let turn = turns.count - 1 - wanted;
        // SAFETY: the layout has room for it.
        unsafe { index.write(turns.index(turn) as i64) };
        moving.place(&frame, turns.index(turn));
        for carry in &carried {
            carry.place(&frame, turns, turn);
        }
        // The state before the last iteration lies behind the slots.
        let slot = slot.or((turn == 0).then_some(reverse.slots as usize));
        for (state, other) in ahead.carries[..states].iter().enumerate() {
            let pointer = slot.map_or_else(|| other.on_the_way(wanted - 1), |slot| other.slot(slot));
            frame.place_input(1 + consts + carries + state, pointer);
        }
        // SAFETY: all inputs and outputs were placed, as the kernel's layout and the verified body say.
        unsafe { frame.run()? };
    }
    Ok(())
}

/// A loop whose number of iterations is an operand, over states of another one that chose slots as it went.
///
/// # Safety
/// As for `super::run`.
pub(super) unsafe fn rewind(site: &Site<'_>, rewind: Rewind) -> Result<()> {
    // SAFETY: the first operand is an int64 scalar.
    let count = unsafe { site.operands[0].pointer.cast::<i64>().read() }.max(0) as usize;
    let (own, other) = site.operands[1..].split_at(rewind.first_other());
    let (other_consts, slots) = other.split_at(rewind.other_consts as usize);
    let (kept, slots) = (slots[0], &slots[1..]);
    let (frame, consts) = (Frame::new(site, 0)?, rewind.consts as usize);
    for (constant, memory) in own[..consts].iter().enumerate() {
        frame.place_input(constant, memory.pointer);
    }
    let mut carried = Vec::with_capacity(rewind.carries as usize);
    for (carry, memory) in own[consts..].iter().enumerate() {
        carried.push(Carry::new(site, &frame, (carry, consts + carry), memory.pointer, None)?);
    }
    let ahead_frame = Frame::new(site, 1)?;
    for (constant, memory) in other_consts.iter().enumerate() {
        ahead_frame.place_input(constant, memory.pointer);
    }
    let mut all = Vec::with_capacity(slots.len());
    for (carry, memory) in slots.iter().enumerate() {
        let bytes = ahead_frame.body().output_bytes(carry);
        // SAFETY: the verified kernel takes slots of so many bytes.
        let slots = unsafe { own_slots(site, carry, *memory, bytes * rewind.slots as usize) };
        let places = site.layout.ahead[carry].map(|piece| site.at(piece));
        all.push(State { input: other_consts.len() + carry, bytes, slots, places });
    }
    let index = site.at(site.layout.index).cast::<i64>();
    let turns = Turns { count, reverse: false };
    let ahead = Ahead { frame: ahead_frame, index, turns, moving: Moving::new(), carries: all };

    // SAFETY: as many int64 numbers as there are slots; those in use come first.
    let kept = unsafe { std::slice::from_raw_parts(kept.pointer.cast::<i64>(), rewind.slots as usize) };
    let kept: Vec<u64> = kept.iter().map_while(|&state| u64::try_from(state).ok()).collect();
    let mut places = online::chosen(count as u64, rewind.slots as usize, &kept);
    let first = places.iter().map(|&slot| kept[slot]).collect();
    // The slots in the order in which they are used: those that are free come last.
    let free: Vec<usize> = (0..rewind.slots as usize).filter(|slot| !places.contains(slot)).collect();
    places.extend(free);
    let first_states = rewind.first_other();
    for action in binomial::backwards_from(count as u64, rewind.slots.into(), first) {
        let (wanted, slot) = match action {
            Move::Advance { slot, from, until, into } => {
                let into = into.map(|into| places[into]);
                // SAFETY: the caller's promises.
                unsafe { ahead.advance(places[slot], from as usize, until as usize, into)? };
                continue;
            }
            Move::Turn { step, slot } => (step as usize, slot.map(|slot| places[slot])),
        };
        for carry in &carried {
            carry.place_next(&frame, count - 1 - wanted);
        }
        for (state, other) in ahead.carries.iter().enumerate() {
            let pointer = slot.map_or_else(|| other.on_the_way(wanted - 1), |slot| other.slot(slot));
            frame.place_input(first_states + state, pointer);
        }
        // SAFETY: all inputs and outputs were placed, as the kernel's layout and the verified body say.
        unsafe { frame.run()? };
    }
    for carry in &carried {
        // SAFETY: the carry is where it was placed; its last place is of the site.
        unsafe { copy(carry.after(count), carry.last, carry.bytes) };
    }
    Ok(())
}

/// The slots of a carry: the operand itself if it was given up, or else a copy.
///
/// # Safety
/// The operand is that carry's of the site, of so many bytes.
unsafe fn own_slots(site: &Site<'_>, carry: usize, operand: Memory, bytes: usize) -> *mut u8 {
    match site.layout.slots[carry] {
        None => operand.pointer,
        Some(piece) => {
            // SAFETY: the caller's promise; the layout has as many for a copy.
            unsafe { copy(operand.pointer, site.at(piece), bytes) };
            site.at(piece)
        }
    }
}

fn ahead<'a>(site: &'a Site<'_>, reverse: Reverse, index: *mut i64) -> Result<Ahead<'a>> {
    let frame = Frame::new(site, 1)?;
    let turns = Turns { count: reverse.scan.trips as usize, reverse: !reverse.scan.reverse };
    let (consts, carries) = (reverse.consts as usize, reverse.carries as usize);
    frame.place_input(0, index.cast());
    let own = &site.operands[reverse.own()..];
    for (constant, memory) in own[..consts].iter().enumerate() {
        frame.place_input(1 + constant, memory.pointer);
    }
    let mut moving = Moving::new();
    for (x, memory) in own[consts..consts + reverse.xs as usize].iter().enumerate() {
        moving.input(&frame, 1 + consts + carries + x, memory.pointer);
    }
    let mut all = Vec::with_capacity(carries);
    for (carry, memory) in site.operands[reverse.first_slots()..].iter().enumerate() {
        let bytes = frame.body().output_bytes(carry);
        // SAFETY: the verified kernel takes slots of so many bytes.
        let slots = unsafe { own_slots(site, carry, *memory, bytes * (reverse.slots as usize + 1)) };
        let places = site.layout.ahead[carry].map(|piece| site.at(piece));
        all.push(State { input: 1 + consts + carry, bytes, slots, places });
    }
    Ok(Ahead { frame, index, turns, moving, carries: all })
}
