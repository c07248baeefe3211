//! Loops that go on while a test holds, and branches.

use ckad_graph::online::Thinning;
use ckad_graph::{Branch, Result, While};

use super::Site;
use super::carried::{Carry, copy};
use super::frame::Frame;

/// # Safety
/// As for `super::run`.
pub(super) unsafe fn repeat(site: &Site<'_>, looped: While) -> Result<()> {
    let (test, step) = (Frame::new(site, 0)?, Frame::new(site, 1)?);
    let (tests, consts) = (looped.test_consts as usize, looped.consts as usize);
    let (of_test, rest) = site.operands.split_at(tests);
    let goes_on = site.at(site.layout.index);
    test.place_output(0, goes_on);
    for (constant, memory) in of_test.iter().enumerate() {
        test.place_input(constant, memory.pointer);
    }
    for (constant, memory) in rest[..consts].iter().enumerate() {
        step.place_input(constant, memory.pointer);
    }
    let mut carried = Vec::with_capacity(looped.carries as usize);
    let mut slots = Vec::new();
    for (carry, memory) in rest[consts..].iter().enumerate() {
        carried.push(Carry::new(site, &step, (carry, consts + carry), memory.pointer, None)?);
        test.place_input(tests + carry, memory.pointer);
        slots.extend(site.result(looped.states(carry) as usize)?.map(|first| (carry, first)));
    }
    let kept = site.result(looped.kept() as usize)?;
    let is_turned_round = kept.is_some() || !slots.is_empty();
    let mut thinning = Thinning::new(if is_turned_round { looped.slots as usize } else { 0 });
    let mut turns = 0;
    loop {
        // SAFETY: all inputs and outputs were placed, as the kernel's layout and the verified bodies say; the test
        // writes one byte.
        unsafe {
            test.run()?;
            if goes_on.read() == 0 {
                break;
            }
        }
        if let Some(slot) = thinning.slot(turns as u64) {
            for &(carry, first) in &slots {
                let carry = &carried[carry];
                // SAFETY: the carry was placed there, and slots are a result of as many as the loop keeps.
                unsafe { copy(carry.after(turns), first.wrapping_add(slot * carry.bytes), carry.bytes) };
            }
        }
        for (carry, place) in carried.iter().enumerate() {
            test.place_input(tests + carry, place.place_next(&step, turns));
        }
        // SAFETY: as above.
        unsafe { step.run()? };
        turns += 1;
    }
    for carry in &carried {
        // SAFETY: the carry is where it was placed; its last place is of the site.
        unsafe { copy(carry.after(turns), carry.last, carry.bytes) };
    }
    if let Some(count) = site.result(looped.count() as usize)? {
        // SAFETY: the result is an int64 number.
        unsafe { copy((turns as i64).to_ne_bytes().as_ptr(), count, size_of::<i64>()) };
    }
    if let Some(kept) = kept {
        let states = thinning.kept().iter().map(|&state| state as i64).chain(std::iter::repeat(-1));
        for (slot, state) in states.take(looped.slots as usize).enumerate() {
            let place = kept.wrapping_add(slot * size_of::<i64>());
            // SAFETY: the result has an int64 number for each slot.
            unsafe { copy(state.to_ne_bytes().as_ptr(), place, size_of::<i64>()) };
        }
    }
    Ok(())
}

/// # Safety
/// As for `super::run`.
pub(super) unsafe fn branch(site: &Site<'_>, branch: Branch) -> Result<()> {
    // SAFETY: the first operand is a bool scalar.
    let chosen = unsafe { site.operands[0].pointer.read() } != 0;
    let frame = Frame::new(site, usize::from(chosen))?;
    for (value, memory) in site.operands[1..].iter().enumerate() {
        frame.place_input(value, memory.pointer);
    }
    for part in 0..branch.results as usize {
        let place = site.result(part)?.unwrap_or_else(|| site.at(site.layout.unread));
        frame.place_output(part, place);
    }
    // SAFETY: all inputs and outputs were placed, as the kernel's layout and the verified body say.
    unsafe { frame.run() }
}
