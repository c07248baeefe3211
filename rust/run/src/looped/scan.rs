//! Loops of known length.

use ckad_graph::{Result, Scan, binomial};

use super::Site;
use super::carried::{Carry, Moving, Turns, copy};
use super::frame::Frame;

/// # Safety
/// As for `super::run`.
pub(super) unsafe fn run(site: &Site<'_>, scan: Scan) -> Result<()> {
    let frame = Frame::new(site, 0)?;
    let (consts, carries) = (scan.consts as usize, scan.carries as usize);
    let turns = Turns { count: scan.trips as usize, reverse: scan.reverse };
    let index = site.at(site.layout.index).cast::<i64>();
    frame.place_input(0, index.cast());
    for (constant, memory) in site.operands[..consts].iter().enumerate() {
        frame.place_input(1 + constant, memory.pointer);
    }
    let mut moving = Moving::new();
    for (x, memory) in site.operands.iter().enumerate().skip(consts + carries) {
        moving.input(&frame, 1 + x, memory.pointer);
    }
    moving.stacked(site, &frame, carries, scan.ys as usize)?;
    let mut carried = Vec::with_capacity(carries);
    let mut slots = Vec::with_capacity(carries);
    for carry in 0..carries {
        let states = site.result(scan.states(carry) as usize)?;
        let first = site.operands[consts + carry].pointer;
        let place = (carry, 1 + consts + carry);
        carried.push(Carry::new(site, &frame, place, first, states.filter(|_| scan.slots == 0))?);
        slots.push(states.filter(|_| scan.slots > 0));
    }
    // SAFETY: an operand of the site, and a result of it that has as many states as there are iterations.
    carried.iter().for_each(|carry| unsafe { carry.begin(turns) });
    let mut kept = binomial::first_sweep(turns.count as u64, scan.slots.into()).into_iter().enumerate().peekable();
    for turn in 0..turns.count {
        // SAFETY: the layout has room for it.
        unsafe { index.write(turns.index(turn) as i64) };
        moving.place(&frame, turns.index(turn));
        let slot = kept.next_if(|&(_, before)| before == turn as u64).map(|(slot, _)| slot);
        for (carry, slots) in carried.iter().zip(&slots) {
            let now = carry.place(&frame, turns, turn);
            let Some(slots) = slots else { continue };
            let behind = (turn + 1 == turns.count).then_some(scan.slots as usize);
            for slot in slot.into_iter().chain(behind) {
                // SAFETY: the carry was placed there, and slots are a result of one more than the loop keeps.
                unsafe { copy(now, slots.wrapping_add(slot * carry.bytes), carry.bytes) };
            }
        }
        // SAFETY: all inputs and outputs were placed, as the kernel's layout and the verified body say.
        unsafe { frame.run()? };
    }
    Ok(())
}
