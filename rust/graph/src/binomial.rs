//! The binomial schedule: how to go through the steps of a chain backwards with a bounded number of kept states and
//! the fewest steps forward (Griewank and Walther, "Algorithm 799: revolve", 2000).
//!
//! With s slots and every step taken at most r times, a chain of C(s + r, s) steps can be turned round. The number of
//! slots counts the one that holds the first state. Numbers of steps forward leave the last step of the chain out:
//! turning a step round computes its inside anew anyway.

/// C(s + r, s), as far as a u64 holds it.
fn reach(slots: u64, times: u64) -> u64 {
    let fewer = slots.min(times);
    let mut product: u128 = 1;
    for k in 1..=fewer {
        // Each prefix is a binomial coefficient, so the division is exact.
        product = product * u128::from(slots.max(times) + k) / u128::from(k);
        if product > u128::from(u64::MAX) {
            return u64::MAX;
        }
    }
    product as u64
}

/// How often the steps of a chain are taken at most.
pub fn times(steps: u64, slots: u64) -> u64 {
    if slots == 1 {
        return steps.saturating_sub(1);
    }
    let mut times = 0;
    while reach(slots, times) < steps {
        times += 1;
    }
    times
}

/// The fewest steps forward with which a chain can be turned round.
pub fn forward_steps(steps: u64, slots: u64) -> u64 {
    if steps <= 1 || slots == 0 {
        return 0;
    }
    let times = times(steps, slots);
    // Griewank's closed form: t(n, s) = r n − C(s + r, r − 1).
    times * steps - reach(slots + 1, times - 1)
}

/// After how many steps the next state is to be kept, of a chain of at least two steps whose first state has one of
/// at least two slots.
pub fn next_kept(steps: u64, slots: u64) -> u64 {
    let times = times(steps, slots);
    // What comes before the new slot is turned round with all of them and one time fewer; what comes after with one
    // slot fewer. Any length between these bounds is as good.
    let most = reach(slots, times - 1).min(steps.saturating_sub(reach(slots - 1, times - 1)));
    most.clamp(1, steps - 1)
}

/// The steps before which the first sweep keeps the state.
pub fn first_sweep(steps: u64, slots: u64) -> Vec<u64> {
    let mut kept = Vec::new();
    let (mut from, mut free) = (0, slots);
    while from < steps && free > 0 {
        kept.push(from);
        if free == 1 || steps - from == 1 {
            break;
        }
        from += next_kept(steps - from, free);
        free -= 1;
    }
    kept
}

/// What to do next on the way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// From the state in the slot, which is the one before step `from`, go on to the one before `until`, into a slot or
    /// nowhere in particular.
    Advance { slot: usize, from: u64, until: u64, into: Option<usize> },
    /// Turn a step round: the state before it is in the slot, or where the last advance left it.
    Turn { step: u64, slot: Option<usize> },
}

/// All actions that turn a chain round after its first sweep, the last step first.
#[derive(Clone, Debug)]
pub struct Backwards {
    slots: usize,
    /// How many steps are still to be turned round.
    left: u64,
    /// Before which steps the states in the slots are.
    kept: Vec<u64>,
    /// The state that is wanted is at hand, in no slot.
    at_hand: bool,
}

/// The way back through a chain. The first sweep ends with the state before the last step at hand, beside those in
/// slots.
pub fn backwards(steps: u64, slots: u64) -> Backwards {
    Backwards { slots: slots as usize, left: steps, kept: first_sweep(steps, slots), at_hand: true }
}

/// The way back where the slots hold the states before these steps, the first one in the first slot; none is at hand.
pub fn backwards_from(steps: u64, slots: u64, kept: Vec<u64>) -> Backwards {
    Backwards { slots: slots as usize, left: steps, kept, at_hand: false }
}

impl Iterator for Backwards {
    type Item = Move;

    fn next(&mut self) -> Option<Move> {
        let step = self.left.checked_sub(1)?;
        let slot = self.kept.len().checked_sub(1)?;
        let from = self.kept[slot];
        let free = self.slots - self.kept.len();
        let at_hand = std::mem::take(&mut self.at_hand);
        if from == step || at_hand {
            self.left = step;
            let slot = (from == step).then_some(slot);
            if slot.is_some() {
                self.kept.pop();
            }
            return Some(Move::Turn { step, slot });
        }
        if free == 0 {
            self.at_hand = true;
            return Some(Move::Advance { slot, from, until: step, into: None });
        }
        let until = from + next_kept(step + 1 - from, free as u64 + 1);
        self.kept.push(until);
        Some(Move::Advance { slot, from, until, into: Some(slot + 1) })
    }
}

/// The fewest slots with which every step is taken at most so often.
pub fn least_slots(steps: u64, times: u64) -> u64 {
    let mut slots = 1;
    while reach(slots, times) < steps {
        slots += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dynamic program over all places of the next slot.
    fn oracle(steps: usize, slots: usize) -> Vec<Vec<u64>> {
        let mut best = vec![vec![0; steps + 1]; slots + 1];
        for s in 1..=slots {
            for n in 2..=steps {
                let all_again = (n * (n - 1) / 2) as u64;
                let kept = (1..n).map(|m| m as u64 + best[s - 1][n - m] + best[s][m]);
                best[s][n] = if s == 1 { all_again } else { kept.min().unwrap() };
            }
        }
        best
    }

    #[test]
    fn counts_are_the_fewest() {
        let best = oracle(300, 12);
        for (slots, row) in best.iter().enumerate().skip(1) {
            for (steps, &count) in row.iter().enumerate().skip(1) {
                assert_eq!(forward_steps(steps as u64, slots as u64), count, "{steps} steps, {slots} slots");
            }
        }
    }

    #[test]
    fn kept_states_are_where_that_is_reached() {
        for slots in 2..12u64 {
            for steps in 2..300u64 {
                let next = next_kept(steps, slots);
                let split = next + forward_steps(steps - next, slots - 1) + forward_steps(next, slots);
                assert_eq!(split, forward_steps(steps, slots), "{steps} steps, {slots} slots");
                let kept = first_sweep(steps, slots);
                assert!(
                    kept[0] == 0 && kept.is_sorted() && kept.len() as u64 <= slots && kept.iter().all(|&k| k < steps)
                );
            }
        }
    }

    #[test]
    fn the_way_back_takes_the_fewest_steps() {
        for slots in [1, 2, 3, 5, 12, 44] {
            for steps in [1u64, 2, 3, 10, 57, 300, 1000] {
                // Before which step the state in each slot is.
                let mut held: Vec<Option<u64>> = vec![None; slots as usize];
                for (slot, before) in first_sweep(steps, slots).into_iter().enumerate() {
                    held[slot] = Some(before);
                }
                let (mut at_hand, mut again, mut turned) = (Some(steps - 1), 0, Vec::new());
                for action in backwards(steps, slots) {
                    match action {
                        Move::Advance { slot, from, until, into } => {
                            assert_eq!(held[slot], Some(from));
                            again += until - from;
                            at_hand = Some(until);
                            if let Some(into) = into {
                                held[into] = Some(until);
                            }
                        }
                        Move::Turn { step, slot } => {
                            assert_eq!(slot.map_or(at_hand, |slot| held[slot]), Some(step));
                            turned.push(step);
                        }
                    }
                }
                assert!(turned.iter().copied().eq((0..steps).rev()));
                assert_eq!(steps - 1 + again, forward_steps(steps, slots), "{steps} steps, {slots} slots");
            }
        }
    }

    #[test]
    fn twice_each_takes_about_the_root_of_twice_the_steps() {
        assert_eq!(least_slots(1000, 2), 44);
        assert_eq!(least_slots(1, 2), 1);
        assert!(forward_steps(1000, 44) <= 2 * 1000);
    }
}
