//! Chains of unequal steps: the least work within so much memory, from a table over all parts and all memories.
//!
//! C(s, t, m), the least work that reverses the steps from s up to t whose first state is at hand, is that of keeping
//! the first step, or of advancing to the best border; parts that follow have what is left of the memory. Parts of one
//! step are rebuilt. The recursion is that of Beaumont et al., Optimal checkpointing for heterogeneous chains (2019).

use ckad_graph::{Result, interrupt};

use crate::policy::chain::actions::Action;
use crate::tables::{collected, filled, push};

/// What a chain costs, in work and in units of memory.
pub(crate) struct Costs {
    /// Of each step the work of computing it.
    pub(crate) work: Vec<u64>,
    /// Of each step the work of computing it once more for its own adjoint, and the memory which that takes.
    pub(crate) rebuild: Vec<u64>,
    pub(crate) single: Vec<usize>,
    /// The memory of keeping what a step computes.
    pub(crate) keep: Vec<Option<usize>>,
    /// By steps s < x, s first: the memory of coming back to s when what follows border x is reversed.
    pub(crate) advance: Vec<usize>,
}

impl Costs {
    /// The same for all steps, in slots: what a state takes is one.
    pub(crate) fn slots(work: &[u64], keeps: bool) -> Result<Costs> {
        let steps = work.len();
        Ok(Costs {
            work: collected(work.iter().copied())?,
            rebuild: collected(work.iter().copied())?,
            single: filled(0, steps)?,
            keep: filled(keeps.then_some(1), steps)?,
            advance: filled(1, steps * steps)?,
        })
    }
}

pub(crate) struct Table {
    costs: Costs,
    steps: usize,
    memories: usize,
    /// Prefix sums of the work.
    done: Vec<u64>,
    /// By part, in [`Table::part`]'s order, and memory.
    least: Vec<u64>,
}

/// No memory is enough. Three of these do not overflow, so sums in the innermost loop need no care.
pub(crate) const NEVER: u64 = u64::MAX / 4;

impl Table {
    /// For all memories up to `most`.
    pub(crate) fn new(costs: Costs, most: usize) -> Result<Table> {
        let (steps, memories) = (costs.work.len(), most + 1);
        let mut done = vec![0u64];
        for &work in &costs.work {
            let before = done.last().copied().unwrap_or(0);
            push(&mut done, before.saturating_add(work).min(NEVER))?;
        }
        let least = filled(NEVER, steps * (steps + 1) / 2 * memories)?;
        let mut table = Table { costs, steps, memories, done, least };
        for length in 1..=steps {
            interrupt::check()?;
            for from in 0..=steps - length {
                table.fill(from, from + length);
            }
        }
        Ok(table)
    }

    /// Parts by their first step, then by their length.
    fn part(&self, from: usize, to: usize) -> usize {
        let before = from * self.steps - from * from.saturating_sub(1) / 2;
        (before + to - from - 1) * self.memories
    }

    pub(crate) fn least(&self, from: usize, to: usize, memory: usize) -> u64 {
        self.least[self.part(from, to) + memory]
    }

    fn row(&self, from: usize, to: usize) -> &[u64] {
        let start = self.part(from, to);
        &self.least[start..start + self.memories]
    }

    fn fill(&mut self, from: usize, to: usize) {
        let start = self.part(from, to);
        // The row is written apart from those that it is made of.
        let mut row = std::mem::take(&mut self.least);
        {
            let (before, rest) = row.split_at_mut(start);
            let (own, after) = rest.split_at_mut(self.memories);
            let other = |from: usize, to: usize| {
                let other = self.part(from, to);
                let (list, other) =
                    if other < start { (&*before, other) } else { (&*after, other - start - self.memories) };
                &list[other..other + self.memories]
            };
            if to - from == 1 {
                let rebuild = self.costs.rebuild[from].min(NEVER);
                own.iter_mut().skip(self.costs.single[from]).for_each(|least| *least = rebuild);
            } else {
                if let Some(keep) = self.costs.keep[from] {
                    let rest = other(from + 1, to);
                    let work = self.done[from + 1] - self.done[from];
                    for (least, &rest) in own.iter_mut().skip(keep).zip(rest) {
                        *least = (*least).min(rest + work);
                    }
                }
                for border in from + 1..to {
                    let work = self.done[border] - self.done[from];
                    let units = self.costs.advance[from * self.steps + border];
                    let (behind, before) = (other(border, to), other(from, border));
                    let Some(own) = own.get_mut(units..) else { continue };
                    for ((least, &before), &behind) in own.iter_mut().zip(&before[units..]).zip(behind) {
                        *least = (*least).min(before + behind + work);
                    }
                }
            }
        }
        self.least = row;
    }

    /// What becomes of a part, with so much memory; where no memory is enough, what needs least.
    pub(crate) fn decide(&self, from: usize, to: usize, memory: usize) -> Action<usize> {
        let least = self.least(from, to, memory);
        let keep = self.costs.keep[from].filter(|&keep| keep <= memory);
        let kept = keep.map(|keep| (self.row(from + 1, to)[memory - keep].saturating_add(self.costs.work[from]), keep));
        if let Some((_, keep)) = kept.filter(|&(work, _)| work == least && least != NEVER) {
            return Action::Keep { rest: memory - keep };
        }
        let advances = (from + 1..to).map(|border| {
            let units = self.costs.advance[from * self.steps + border];
            let work = memory.checked_sub(units).map_or(NEVER, |left| {
                let work = self.done[border] - self.done[from];
                (work + self.least(border, to, left) + self.least(from, border, memory)).min(NEVER)
            });
            (work, units, border)
        });
        let (_, units, border) = advances.min_by_key(|&(work, units, _)| (work, units)).unwrap_or((0, 0, to - 1));
        Action::Advance { to: border, behind: memory.saturating_sub(units), before: memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::chain::binomial;

    /// Work of the decisions, each step computed for its own adjoint at the end of its part.
    pub(crate) fn work<M: Copy>(work: &[u64], memory: M, mut decide: impl FnMut(usize, usize, M) -> Action<M>) -> u64 {
        let mut parts = vec![(0, work.len(), memory)];
        let mut sum = 0;
        while let Some((mut from, to, mut memory)) = parts.pop() {
            while to - from > 1 {
                match decide(from, to, memory) {
                    Action::Keep { rest } => {
                        sum += work[from];
                        (from, memory) = (from + 1, rest);
                    }
                    Action::Advance { to: border, behind, before } => {
                        sum += work[from..border].iter().sum::<u64>();
                        parts.push((from, border, before));
                        (from, memory) = (border, behind);
                    }
                }
            }
            sum += work[from];
        }
        sum
    }

    #[test]
    fn equal_steps_need_what_the_closed_form_needs() {
        let steps = vec![3; 40];
        let table = Table::new(Costs::slots(&steps, false).unwrap(), 12).unwrap();
        for slots in 1..=12 {
            let closed = work(&steps, slots as u32, binomial::decide);
            assert_eq!(table.least(0, 40, slots), closed);
            assert_eq!(work(&steps, slots, |from, to, memory| table.decide(from, to, memory)), closed);
        }
    }

    #[test]
    fn unequal_steps_need_less_than_equal_slots_of_them() {
        let steps: Vec<u64> = (0..50).map(|step| if step % 10 == 0 { 40 } else { 3 }).collect();
        for keeps in [false, true] {
            let table = Table::new(Costs::slots(&steps, keeps).unwrap(), 9).unwrap();
            for slots in 1..=9 {
                let own = work(&steps, slots, |from, to, memory| table.decide(from, to, memory));
                assert_eq!(own, table.least(0, 50, slots));
                assert!(own <= work(&steps, slots as u32, binomial::decide));
            }
        }
    }
}
