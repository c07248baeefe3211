//! Which states a loop keeps while nobody knows how long it goes on, and which of them the way back then uses.
//!
//! States are kept at every iteration, then at every second one, and so on: whenever the slots are full, the distance
//! doubles, and each state at the new distance takes the slot of one at an odd multiple of the old one, from the first
//! on. So the slots stay full, no two neighbours are farther apart than two slots' share of the iterations, and of n
//! iterations only about slots × log₂ (n / slots) / 2 leave a state. When the loop is done, the way back gives up some
//! of the states, so that slots are free where it needs them: a dynamic program finds those with which the fewest
//! iterations are computed anew. What lies between is filled in by the binomial schedule.
//!
//! One of the choices is states at every 4n / slots iterations in half of the slots, while the other half serves each
//! gap: so iterations are computed once, and on average at most as often again as the binomial schedule computes those
//! of a gap with half of the slots.

use crate::binomial::forward_steps;

/// Which slot the next state goes into.
#[derive(Clone, Debug)]
pub struct Thinning {
    slots: usize,
    /// Before which iteration the state in each slot is.
    kept: Vec<u64>,
    distance: u64,
    /// The next state that is kept.
    next: u64,
    /// The next one that is given up, where the slots are full.
    oldest: u64,
    /// The last one that was kept at half of the distance.
    last: u64,
}

impl Thinning {
    pub fn new(slots: usize) -> Thinning {
        Thinning { slots, kept: Vec::with_capacity(slots), distance: 1, next: 0, oldest: 0, last: 0 }
    }

    /// The slot for the state before the iteration, if it is to be kept. Asked for each iteration in turn.
    #[inline]
    pub fn slot(&mut self, iteration: u64) -> Option<usize> {
        if iteration == self.next { self.keep() } else { None }
    }

    fn keep(&mut self) -> Option<usize> {
        if self.slots == 0 {
            return None;
        }
        let state = self.next;
        if self.kept.len() < self.slots {
            self.kept.push(state);
            self.next += self.distance;
            if self.kept.len() == self.slots {
                self.double(state);
            }
            return Some(self.kept.len() - 1);
        }
        let slot = self.kept.iter().position(|&kept| kept == self.oldest)?;
        self.kept[slot] = state;
        self.oldest += self.distance;
        self.next = state.saturating_add(self.distance);
        if self.oldest > self.last {
            self.double(state);
        }
        Some(slot)
    }

    /// All slots hold states at equal distances, the last one this.
    fn double(&mut self, last: u64) {
        self.oldest = self.distance;
        self.last = last;
        self.distance = self.distance.saturating_mul(2);
        // One slot holds the first state for ever.
        self.next = if self.slots == 1 { u64::MAX } else { (last / self.distance + 1).saturating_mul(self.distance) };
    }

    /// Before which iteration the state in each slot is; slots behind have none yet.
    pub fn kept(&self) -> &[u64] {
        &self.kept
    }
}

/// The fewest steps forward with which chains are turned round with so many slots: `binomial::forward_steps`, asked for
/// often.
struct Fewest {
    slots: u64,
    /// The longest chains whose steps are taken at most 0, 1, 2 … times.
    reach: [u64; 8],
}

impl Fewest {
    fn new(slots: usize) -> Fewest {
        let slots = slots as u64;
        let mut reach = [1; 8];
        for times in 1..reach.len() {
            // C(s + r, r) from C(s + r - 1, r - 1); the division is exact.
            let next = u128::from(reach[times - 1]) * u128::from(slots + times as u64) / times as u128;
            reach[times] = u64::try_from(next).unwrap_or(u64::MAX);
        }
        Fewest { slots, reach }
    }

    fn steps(&self, chain: u64) -> u64 {
        match self.reach.iter().position(|&reach| reach >= chain) {
            Some(0) => 0,
            // C(s + r, r - 1) is C(s + r, r) r / (s + 1).
            Some(times) if self.reach[times] < u64::MAX / 8 => {
                times as u64 * chain - self.reach[times] * times as u64 / (self.slots + 1)
            }
            _ => forward_steps(chain, self.slots),
        }
    }
}

/// Of the slots, those whose states the way back through so many iterations begins with, the first state first. `kept`
/// says before which iteration the state in each slot is, 0 among them; there are at least as many slots, at most 256.
pub fn chosen(steps: u64, slots: usize, kept: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_unstable_by_key(|&slot| kept[slot]);
    let states: Vec<u64> = order.iter().map(|&slot| kept[slot]).collect();
    let count = states.len();
    if steps <= count as u64 {
        // There is one before each iteration.
        return order;
    }
    // By the number of free slots and the state that the rest begins with, the state's own slot among the free ones:
    // the next state that is used. A state that has others before it has one slot fewer for each.
    let mut follows = vec![0u8; (slots + 1) * count];
    let (mut fewest, mut with_one_less) = (vec![u64::MAX; count], vec![u64::MAX; count]);
    for free in 1..=slots {
        std::mem::swap(&mut fewest, &mut with_one_less);
        let with = Fewest::new(free);
        let mut until = count - 1;
        for from in (slots - free..count).rev() {
            let (mut least, mut next) = (u64::MAX, until);
            // The longer a gap, the dearer each step: the best next state moves with the first one.
            for other in (from + 1..=until).filter(|_| free > 1) {
                let all = with.steps(states[other] - states[from]).saturating_add(with_one_less[other]);
                if all < least {
                    (least, next) = (all, other);
                }
            }
            until = next;
            let alone = with.steps(steps - states[from]);
            fewest[from] = least.min(alone);
            follows[free * count + from] = if least < alone { next as u8 } else { 0 };
        }
    }
    let (mut chosen, mut state, mut free) = (vec![order[0]], 0, slots);
    while free > 0 && follows[free * count + state] != 0 {
        state = follows[free * count + state].into();
        chosen.push(order[state]);
        free -= 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binomial::{Move, backwards_from, times};

    /// What a loop of so many iterations leaves in its slots.
    fn swept(steps: u64, slots: usize) -> Vec<u64> {
        let mut thinning = Thinning::new(slots);
        let mut held = Vec::new();
        for iteration in 0..steps {
            match thinning.slot(iteration) {
                Some(slot) if slot == held.len() => held.push(iteration),
                Some(slot) => held[slot] = iteration,
                None => {}
            }
        }
        assert_eq!(held, thinning.kept());
        held
    }

    /// Steps of the way back.
    fn again(steps: u64, slots: usize) -> u64 {
        let kept = swept(steps, slots);
        let chosen = chosen(steps, slots, &kept);
        let ends = chosen[1..].iter().map(|&slot| kept[slot]).chain([steps]);
        let gaps = chosen.iter().zip(ends).enumerate();
        gaps.map(|(before, (&slot, end))| Fewest::new(slots - before).steps(end - kept[slot])).sum()
    }

    #[test]
    fn counts_are_those_of_the_binomial_schedule() {
        for slots in [1, 2, 3, 8, 64] {
            for chain in (0..400).chain([2145, 2146, 47_905, 47_906, 1_000_000]) {
                assert_eq!(Fewest::new(slots).steps(chain), forward_steps(chain, slots as u64), "{chain}, {slots}");
            }
        }
    }

    #[test]
    fn slots_are_full_and_evenly_filled() {
        assert!(swept(0, 3).is_empty());
        for slots in [1usize, 2, 3, 4, 7, 8, 64] {
            for steps in [1, 2, 5, 8, 9, 63, 64, 65, 66, 127, 128, 129, 1000, 4096, 5001] {
                let mut kept = swept(steps, slots);
                assert_eq!(kept.len() as u64, steps.min(slots as u64));
                kept.sort_unstable();
                assert_eq!(kept[0], 0);
                if slots > 1 {
                    let gaps = kept.iter().zip(kept[1..].iter().chain([&steps])).map(|(a, b)| b - a);
                    assert!(gaps.max().is_none_or(|gap| gap <= (2 * steps).div_ceil(slots as u64 - 1).max(1)));
                }
            }
        }
    }

    #[test]
    fn the_states_that_are_used_take_the_fewest_steps() {
        for slots in [1, 2, 3, 5, 8] {
            for steps in (1..60).chain([100, 129, 200, 333, 500]) {
                let mut kept = swept(steps, slots);
                kept.sort_unstable();
                // All ways to use some of them.
                let best = (0..1u32 << (kept.len() - 1)).map(|used| {
                    let some = kept[1..].iter().enumerate().filter(|(index, _)| used >> index & 1 == 1);
                    let states: Vec<u64> = [0].into_iter().chain(some.map(|(_, &state)| state)).collect();
                    let ends = states[1..].iter().copied().chain([steps]);
                    let gaps = states.iter().zip(ends).enumerate();
                    gaps.map(|(before, (&from, end))| forward_steps(end - from, (slots - before) as u64)).sum::<u64>()
                });
                assert_eq!(Some(again(steps, slots)), best.min(), "{steps} steps, {slots} slots");
            }
        }
    }

    #[test]
    fn the_way_back_turns_every_step_round() {
        for slots in [1usize, 2, 3, 8, 64] {
            for steps in [0, 1, 2, 3, 10, 64, 65, 66, 200, 1000, 3000] {
                let kept = swept(steps, slots);
                let chosen = chosen(steps, slots, &kept);
                let mut held: Vec<u64> = chosen.iter().map(|&slot| kept[slot]).collect();
                let first = held.clone();
                held.resize(slots, u64::MAX);
                let (mut at_hand, mut computed, mut turned) = (None, 0, Vec::new());
                for action in backwards_from(steps, slots as u64, first) {
                    match action {
                        Move::Advance { slot, from, until, into } => {
                            assert_eq!(held[slot], from);
                            computed += until - from;
                            at_hand = Some(until);
                            if let Some(into) = into {
                                held[into] = until;
                            }
                        }
                        Move::Turn { step, slot } => {
                            assert_eq!(slot.map_or(at_hand, |slot| Some(held[slot])), Some(step));
                            turned.push(step);
                        }
                    }
                }
                assert!(turned.iter().copied().eq((0..steps).rev()));
                assert_eq!(computed, if steps == 0 { 0 } else { again(steps, slots) }, "{steps} steps, {slots} slots");
            }
        }
    }

    /// What the decision about loops says: with 64 slots, against the least possible where the length is known, and
    /// with any number of slots, how often an iteration is computed.
    #[test]
    fn no_length_takes_much_more_than_the_optimum() {
        let mut worst = 0.0f64;
        for steps in (2..3000).chain((3000..100_001).step_by(97)).chain([47_905, 47_906, 65_536, 100_000]) {
            let (online, offline) = (steps + again(steps, 64), 1 + forward_steps(steps, 64));
            // Going through the loop once more would take all that and a sweep.
            assert!(online < steps + forward_steps(steps, 64), "{steps} steps");
            worst = worst.max(online as f64 / offline as f64);
            let times = 1 + times((4 * steps).div_ceil(64), 32);
            assert!(online <= times * steps, "{steps} steps");
        }
        assert!(worst < 1.07, "{worst}");
    }
}
