//! Chains of equal steps with so many slots: the closed form, in which no step is computed more often than it must.
//!
//! With s states held, the one at the beginning included, and no step advanced over more than r times, a chain of
//! C(s + r, s) steps can be reversed. The part that is come back to may be advanced over once less, the part behind has
//! a slot less; any border that leaves either within its reach needs the least work, r·n − C(s + r, r − 1) advances for
//! n steps (Griewank and Walther, Algorithm 799: Revolve, 2000).

use ckad_graph::binomial;

use crate::policy::chain::actions::Action;

/// How often a chain of so many steps advances over one of them, at most.
pub(crate) fn repeats(steps: usize, slots: u32) -> u64 {
    binomial::times(steps as u64, slots.into())
}

/// The fewest slots with which no step is advanced over more often.
pub(crate) fn fewest_slots(steps: usize, repeats: u64) -> u32 {
    binomial::least_slots(steps as u64, repeats) as u32
}

/// What becomes of the part of a uniform chain.
pub(crate) fn decide(from: usize, to: usize, slots: u32) -> Action<u32> {
    if slots <= 1 {
        return Action::Advance { to: to - 1, behind: 1, before: 1 };
    }
    // More than one step and at least two slots.
    let advance = binomial::next_kept((to - from) as u64, slots.into());
    Action::Advance { to: from + advance as usize, behind: slots - 1, before: slots }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advances that the decisions come to, and the most slots in use.
    fn advances(steps: usize, slots: u32) -> u64 {
        let mut parts = vec![(0, steps, slots)];
        let mut count = 0;
        while let Some((mut from, to, mut slots)) = parts.pop() {
            while to - from > 1 {
                let Action::Advance { to: border, behind, before } = decide(from, to, slots) else { unreachable!() };
                assert!(slots > 1 || border == to - 1);
                count += (border - from) as u64;
                parts.push((from, border, before));
                (from, slots) = (border, behind);
            }
        }
        count
    }

    #[test]
    fn as_few_as_the_oracle_finds() {
        let most = 300;
        // By slots and steps; no step is advanced over where there is one only.
        let mut before: Vec<u64> = (0..=most as u64).map(|n| n * n.saturating_sub(1) / 2).collect();
        for slots in 2..=most as u32 {
            let mut least = vec![0; most + 1];
            for n in 2..=most {
                least[n] = (1..n).map(|x| x as u64 + least[x] + before[n - x]).min().unwrap_or(0);
                if slots < 12 || slots % 17 == 0 {
                    assert_eq!(advances(n, slots), least[n], "{n} steps, {slots} slots");
                }
            }
            before = least;
        }
    }

    #[test]
    fn as_few_as_the_closed_form_says() {
        for steps in [2, 3, 10, 99, 1000, 1001, 3333, 10_000] {
            for slots in [2, 3, 5, 8, 13, 40, 56, 100, 1000, 20_000] {
                assert_eq!(
                    advances(steps, slots),
                    binomial::forward_steps(steps as u64, slots.into()),
                    "{steps} steps, {slots} slots"
                );
            }
        }
        assert_eq!((binomial::forward_steps(1000, 56), binomial::forward_steps(10_000, 100)), (1942, 24_747));
        assert_eq!([2, 3, 4].map(|repeats| fewest_slots(1000, repeats)), [44, 17, 10]);
        assert_eq!(advances(100, 1), 4950);
        assert_eq!((repeats(1000, 1), repeats(1, 7)), (999, 0));
    }
}
