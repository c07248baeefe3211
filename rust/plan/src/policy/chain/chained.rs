//! The policies over chains: recursive halving, slots for states, slots for states or steps, and the least work
//! within so many bytes. Each decides what becomes of a part of the chain; [`actions`](super::actions) makes cells of
//! it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ckad_graph::{CheckpointPolicy, Error, Result};

use crate::policy::Material;
use crate::policy::cells::Cells;
use crate::policy::chain::Chain;
use crate::policy::chain::actions::{Action, Leaf, leaves};
use crate::policy::chain::binomial;
use crate::policy::chain::mixed::{self, Mixed};
use crate::policy::chain::table::{Costs, NEVER, Table};
use crate::policy::profile::Stretch;
use crate::tables::{collected, filled, push};

/// The most steps of a table over bytes, and its units of memory: it takes a few hundredths of a second.
const STEPS: usize = 64;
const UNITS: usize = 400;

/// The most steps of a table over slots.
const STEPS_IN_SLOTS: usize = 128;

/// Computing more steps than that would take for ever.
const TOO_MANY: u64 = 20_000_000;

/// Chains by the part of the tape.
#[derive(Default)]
pub(crate) struct Chains {
    whole: BTreeMap<usize, Chain>,
    within: BTreeMap<usize, (Vec<usize>, Table)>,
}

impl Chains {
    pub(crate) fn of(&mut self, part: usize, material: &Material<'_>, low: usize, stretch: &Stretch) -> Result<&Chain> {
        Ok(match self.whole.entry(part) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(Chain::new(material, low, stretch)?),
        })
    }

    /// The borders of a table over bytes, and the table.
    pub(crate) fn table(
        &mut self,
        part: usize,
        material: &Material<'_>,
        low: usize,
        stretch: &Stretch,
    ) -> Result<&(Vec<usize>, Table)> {
        if !self.within.contains_key(&part) {
            let chain = self.of(part, material, low, stretch)?.thinned(stretch, STEPS)?;
            let table = Table::new(bytes(&chain, stretch)?, UNITS)?;
            self.within.insert(part, (chain.borders, table));
        }
        Ok(&self.within[&part])
    }
}

/// What the steps hold in units of what later passes use in all.
fn bytes(chain: &Chain, stretch: &Stretch) -> Result<Costs> {
    let steps = chain.steps();
    let unit = (stretch.total() / UNITS as u64).max(1);
    let units = |bytes: u64| usize::try_from(bytes.div_ceil(unit)).unwrap_or(usize::MAX);
    let mut advance = filled(usize::MAX, steps * steps)?;
    let mut keep = filled(None, steps)?;
    for (from, &start) in chain.borders[..steps].iter().enumerate() {
        let mut fresh = stretch.new_bytes(start);
        let mut at = start;
        for to in from + 1..=steps {
            let crossing = fresh.nth(chain.borders[to] - at - 1).map_or(0, |crossing| crossing.bytes);
            at = chain.borders[to];
            if to == from + 1 {
                keep[from] = Some(units(crossing.saturating_add(chain.inner[from])));
            }
            if to < steps {
                advance[from * steps + to] = units(crossing);
            }
        }
    }
    // What a step's adjoint reads besides states is what the step is computed once more for.
    let rebuild = chain.work.iter().zip(&chain.inner).map(|(&work, &inner)| if inner > 0 { work } else { 0 });
    Ok(Costs {
        work: collected(chain.work.iter().copied())?,
        rebuild: collected(rebuild)?,
        single: collected(chain.inner.iter().map(|&inner| units(inner)))?,
        keep,
        advance,
    })
}

/// Whether the policy is one over chains.
pub(crate) fn is_chained(policy: CheckpointPolicy) -> bool {
    matches!(policy, CheckpointPolicy::Log | CheckpointPolicy::Revolve(_) | CheckpointPolicy::Mixed(_))
}

/// Whether a policy whose slots hold either is left with states, for want of a table for so many steps and slots.
pub(crate) fn holds_states_only(policy: CheckpointPolicy, chain: &Chain) -> bool {
    let CheckpointPolicy::Mixed(slots) = policy else { return false };
    let steps = chain.steps();
    is_without_table(chain) && steps > mixed::most_steps(slots.min(steps as u32).max(1))
}

/// Whether the steps are equal, or too many for a table over all parts of them.
fn is_without_table(chain: &Chain) -> bool {
    chain.is_uniform() || chain.steps() > STEPS_IN_SLOTS
}

/// With more than two passes: as many borders as states.
pub(crate) fn borders(policy: CheckpointPolicy, stretch: &Stretch) -> u32 {
    match policy {
        CheckpointPolicy::Revolve(slots) | CheckpointPolicy::Mixed(slots) => slots,
        _ => stretch.length.ilog2(),
    }
}

/// The cells of the policy inside `parent`.
pub(crate) fn cells(
    cells: &mut Cells,
    parent: u32,
    returns: bool,
    chain: &Chain,
    policy: CheckpointPolicy,
) -> Result<Vec<Leaf>> {
    let steps = chain.steps();
    let in_table = !is_without_table(chain);
    let few = |slots: u32| slots.min(steps as u32).max(1);
    let mut grow = |borders: &[usize], slots: u32, decide: &dyn Fn(usize, usize, u32) -> Action<u32>| {
        leaves(cells, parent, borders, returns, slots, decide)
    };
    let from_table = |table: &Table, from, to, slots: u32| match table.decide(from, to, slots as usize) {
        Action::Keep { rest } => Action::Keep { rest: rest as u32 },
        Action::Advance { to, behind, before } => Action::Advance { to, behind: behind as u32, before: before as u32 },
    };
    match policy {
        CheckpointPolicy::Revolve(slots) => {
            enough("Revolve", steps, slots)?;
            let slots = few(slots);
            if !in_table {
                return grow(&chain.borders, slots, &binomial::decide);
            }
            let table = Table::new(Costs::slots(&chain.work, false)?, slots as usize)?;
            grow(&chain.borders, slots, &|from, to, slots| from_table(&table, from, to, slots))
        }
        CheckpointPolicy::Mixed(slots) => {
            enough("Mixed", steps, slots)?;
            let slots = few(slots);
            if in_table {
                let table = Table::new(Costs::slots(&chain.work, true)?, slots as usize)?;
                return grow(&chain.borders, slots, &|from, to, slots| from_table(&table, from, to, slots));
            }
            if holds_states_only(policy, chain) {
                return grow(&chain.borders, slots, &binomial::decide);
            }
            let mixed = Mixed::new(steps, slots)?;
            grow(&chain.borders, slots, &|from, to, slots| mixed.decide(from, to, slots))
        }
        _ => leaves(cells, parent, &chain.borders, returns, (), |from, to, ()| Action::Advance {
            to: chain.middle(from, to),
            behind: (),
            before: (),
        }),
    }
}

/// Refuses a number of slots with which the steps would be computed far too often.
fn enough(name: &str, steps: usize, slots: u32) -> Result<()> {
    let often = |slots| binomial::repeats(steps, slots);
    let is_enough = |slots: u32| often(slots).saturating_mul(steps as u64) <= TOO_MANY;
    if is_enough(slots) {
        return Ok(());
    }
    let least = (slots..=steps as u32).find(|&slots| is_enough(slots)).unwrap_or(steps as u32);
    let what = format!("{name}({slots}) would compute some of the {steps} steps {} times", often(slots));
    Err(Error::value("checkpoint", what).with_hint(format!("use at least {least} slots, or 'log'")))
}

impl Chain {
    /// The border that halves the work of a part.
    fn middle(&self, from: usize, to: usize) -> usize {
        let all: u64 = self.work[from..to].iter().sum();
        let mut before = 0;
        for step in from..to - 1 {
            let with = before + self.work[step];
            if 2 * with >= all {
                // The nearer one of the two borders.
                let nearer = step > from && all - 2 * before < 2 * with - all;
                return if nearer { step } else { step + 1 };
            }
            before = with;
        }
        to - 1
    }

    /// At most so many steps, each of several of these that hold about equal bytes.
    fn thinned(&self, stretch: &Stretch, most: usize) -> Result<Chain> {
        let steps = self.steps();
        if steps <= most {
            return Ok(self.clone());
        }
        let total = u128::from(stretch.total());
        let mut chosen = vec![0];
        for share in 1..most {
            let least = total * share as u128 / most as u128;
            let step = self.borders.partition_point(|&border| u128::from(stretch.held[border]) < least);
            if chosen.last().is_some_and(|&last| last < step) && step < steps {
                push(&mut chosen, step)?;
            }
        }
        push(&mut chosen, steps)?;
        let parts = || chosen.windows(2).map(|pair| pair[0]..pair[1]);
        let borders = collected(chosen.iter().map(|&step| self.borders[step]))?;
        let work = collected(parts().map(|part| self.work[part].iter().sum()))?;
        let inner = stretch.inner_bytes(&borders)?;
        Ok(Chain { borders, work, inner })
    }
}

/// The cells with the least work within so many units.
pub(crate) fn within(
    cells: &mut Cells,
    parent: u32,
    (borders, table): &(Vec<usize>, Table),
    units: usize,
) -> Result<Vec<Leaf>> {
    leaves(cells, parent, borders, false, units, |from, to, units| table.decide(from, to, units))
}

/// Memories at which the least work changes, the least one first, at most so many; none for which the work is more than
/// `repeats` times that of the largest.
pub(crate) fn sizes((borders, table): &(Vec<usize>, Table), most: usize, repeats: u64) -> Result<Vec<usize>> {
    let steps = borders.len() - 1;
    let least = |units| table.least(0, steps, units);
    let is_enough = |units: &usize| least(*units) != NEVER && least(*units) <= least(UNITS).saturating_mul(repeats);
    let changes = (0..=UNITS).filter(is_enough).filter(|&units| units == 0 || least(units) < least(units - 1));
    let all: Vec<usize> = collected(changes)?;
    let count = all.len().min(most);
    collected((0..count).map(|index| all[index * all.len() / count]))
}
