//! Chains of equal steps with so many slots, each of which holds a state or what one step computes.
//!
//! The optimum is that of Maddison, Step-based checkpointing with high-level algorithmic differentiation (2024). For
//! one more step the best borders lie no farther than one place from those before, so few are looked at.

use ckad_graph::{Result, interrupt};

use crate::policy::chain::actions::Action;
use crate::tables::{filled, push};

/// The most entries of the table.
const ENTRIES: usize = 1 << 22;

/// How far to advance, by slots less two and steps; 0 where the first step is kept.
pub(crate) struct Mixed {
    advances: Vec<Vec<u32>>,
}

/// The most steps for which there is a table with so many slots.
pub(crate) fn most_steps(slots: u32) -> usize {
    ENTRIES / slots as usize
}

impl Mixed {
    pub(crate) fn new(steps: usize, slots: u32) -> Result<Mixed> {
        let slots = (slots as usize).min(steps.saturating_sub(1));
        let mut advances: Vec<Vec<u32>> = Vec::new();
        // Computed steps, their own adjoints' included, with one slot.
        let mut before = filled(0u64, steps + 1)?;
        for (count, work) in before.iter_mut().enumerate() {
            *work = if count < 2 { count as u64 } else { (count as u64) * (count as u64 + 1) / 2 - 1 };
        }
        for slot in 2..=slots {
            interrupt::check()?;
            let mut row = filled(0u64, steps + 1)?;
            let mut advance = filled(0u32, steps + 1)?;
            // Where the best borders lie for a step less.
            let mut best = 2..=steps;
            for count in 1..=steps {
                if count <= slot + 1 {
                    row[count] = count as u64;
                    continue;
                }
                let work = |border: usize| border as u64 + row[border] + before[count - border];
                let near = best.start().saturating_sub(1).max(2)..=(best.end() + 1).min(count - 1);
                let advanced = near.clone().map(work).min().unwrap_or(u64::MAX);
                let is_best = |&border: &usize| work(border) == advanced;
                let (first, last) = (near.clone().find(is_best), near.rev().find(is_best));
                best = first.unwrap_or(2)..=last.unwrap_or(2);
                let kept = 1 + before[count - 1];
                advance[count] = if kept < advanced { 0 } else { *best.end() as u32 };
                row[count] = advanced.min(kept);
            }
            push(&mut advances, advance)?;
            before = row;
        }
        Ok(Mixed { advances })
    }

    pub(crate) fn decide(&self, from: usize, to: usize, slots: u32) -> Action<u32> {
        let steps = to - from;
        if steps <= slots as usize + 1 {
            return Action::Keep { rest: slots - 1 };
        }
        if slots == 1 {
            return Action::Advance { to: to - 1, behind: 0, before: 1 };
        }
        match self.advances[slots as usize - 2][steps] {
            0 => Action::Keep { rest: slots - 1 },
            steps => Action::Advance { to: from + steps as usize, behind: slots - 1, before: slots },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn computed(mixed: &Mixed, steps: usize, slots: u32) -> u64 {
        let mut parts = vec![(0, steps, slots)];
        let mut count = 0;
        while let Some((mut from, to, mut slots)) = parts.pop() {
            while to - from > 1 {
                match mixed.decide(from, to, slots) {
                    Action::Keep { rest } => {
                        count += 1;
                        (from, slots) = (from + 1, rest);
                    }
                    Action::Advance { to: border, behind, before } => {
                        count += (border - from) as u64;
                        parts.push((from, border, before));
                        (from, slots) = (border, behind);
                    }
                }
            }
            count += 1;
        }
        count
    }

    #[test]
    fn as_few_as_the_oracle_finds() {
        let most = 300;
        let mut before: Vec<u64> = (0..=most as u64).map(|n| if n < 2 { n } else { n * (n + 1) / 2 - 1 }).collect();
        let mixed = Mixed::new(most, most as u32).unwrap();
        for slots in 2..most {
            let mut least = vec![0; most + 1];
            for n in 1..=most {
                let advanced = (2..n).map(|x| x as u64 + least[x] + before[n - x]).min();
                let kept = if n == 1 { 1 } else { 1 + before[n - 1] };
                least[n] = advanced.unwrap_or(kept).min(kept);
                if slots < 9 || slots % 31 == 0 {
                    assert_eq!(computed(&mixed, n, slots as u32), least[n], "{n} steps, {slots} slots");
                }
            }
            before = least;
        }
    }
}
