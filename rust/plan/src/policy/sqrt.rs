//! Segments that shrink towards the loss, so that checkpoints made so far plus one segment stay constant.
//!
//! For n equal steps this is about √(2n) segments and a peak of √(2n) steps. For any other program the greedy
//! walk below takes borders where the tape is thin, and bisection finds the least budget that it can serve.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ckad_graph::{Result, interrupt};

use crate::policy::profile::{Crossing, Stretch};
use crate::tables::{collected, push};

/// How the walk goes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Pace {
    /// The budget, in least ones: the walk counts no passing values, the simulator does.
    pub(crate) slack: f64,
    /// The budget is no less than so many twentieths of what later passes use in all.
    pub(crate) twentieths: u8,
    /// Whether what crosses the end of a segment counts as held by it, and not only by the segments after it. The
    /// backward part of a net reads it before it rebuilds the segment, that of another program may need it until then.
    pub(crate) with_end: bool,
    /// Whether what the budget leaves is taken from the first segment: else the last one, which is never recomputed,
    /// is as short as it comes.
    pub(crate) late_start: bool,
    /// Where it is: only as far as that takes no further segment, so that the last one is as long as it comes.
    pub(crate) fewest: bool,
}

const fn pace(slack: f64, with_end: bool, late_start: bool) -> Pace {
    Pace { slack, twentieths: 0, with_end, late_start, fewest: false }
}

/// How a policy without budgets goes.
pub(crate) const ANY: Pace = pace(1.0, true, false);

/// What is tried.
pub(crate) const PACES: &[Pace] = &[
    pace(1.0, true, false),
    pace(1.03, true, false),
    pace(1.0, true, true),
    pace(1.0, false, false),
    pace(1.0, false, true),
];

/// The same for short tapes, where more can be tried and passing values weigh more.
pub(crate) const PACES_OF_SHORT: &[Pace] = &[
    pace(1.0, true, false),
    pace(1.03, true, false),
    pace(1.07, true, false),
    pace(1.15, true, false),
    pace(1.3, true, false),
    pace(1.5, true, false),
    pace(2.0, true, false),
    pace(1.0, true, true),
    pace(1.03, true, true),
    pace(1.07, true, true),
    pace(1.0, false, false),
    pace(1.03, false, false),
    pace(1.07, false, false),
    pace(1.0, false, true),
    pace(1.03, false, true),
    pace(1.07, false, true),
];

/// Numbers of equal segments that are tried on short tapes.
pub(crate) const EQUAL_SEGMENTS: &[u32] = &[3, 5, 7, 10, 14];

/// The most positions of a short tape.
pub(crate) const SHORT: usize = 1024;

const BISECTIONS: usize = 30;

/// How closely the first segment is fitted: to about one in 2⁸ of the budget.
const BISECTIONS_OF_START: usize = 8;

/// A budget and the borders that keep to it.
struct Served {
    budget: u64,
    borders: Vec<usize>,
}

/// The least budgets found so far.
#[derive(Default)]
pub(crate) struct Budgets {
    /// By the part of the tape and whether ends count; `None` where no budget serves.
    least: BTreeMap<(usize, bool), Option<Served>>,
}

impl Budgets {
    /// Borders for the least budget of the stretch, which is that of the part, times the slack.
    pub(crate) fn borders(&mut self, part: usize, stretch: &Stretch, pace: Pace) -> Result<Vec<usize>> {
        let walk = |budget, first| walk(stretch, pace.with_end, budget, first);
        let least = match self.least.entry((part, pace.with_end)) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(bisected(stretch.total(), BISECTIONS, |budget| walk(budget, budget))?),
        };
        let Some(least) = least else { return Ok(Vec::new()) };
        let share = u128::from(stretch.total()) * u128::from(pace.twentieths) / 20;
        let budget = ((least.budget as f64 * pace.slack) as u64).max(share as u64);
        let most = match pace.fewest {
            true => walk(budget, budget)?.map_or(usize::MAX, |borders| borders.len()),
            false => usize::MAX,
        };
        let start = |first| Ok(walk(budget, first)?.filter(|borders| borders.len() <= most));
        let found = match pace.late_start {
            true => bisected(budget, BISECTIONS_OF_START, start)?.map(|served| served.borders),
            false if budget > least.budget => walk(budget, budget)?,
            false => None,
        };
        found.map_or_else(|| collected(least.borders.iter().copied()), Ok)
    }
}

/// The least budget up to `most` that the walk can serve, as far as so many steps find it.
fn bisected(most: u64, steps: usize, walk: impl Fn(u64) -> Result<Option<Vec<usize>>>) -> Result<Option<Served>> {
    let Some(borders) = walk(most)? else { return Ok(None) };
    let (mut refused, mut best) = (0, Served { budget: most, borders });
    for _ in 0..steps {
        interrupt::check()?;
        if best.budget - refused <= 1 {
            break;
        }
        let budget = refused + (best.budget - refused) / 2;
        match walk(budget)? {
            Some(borders) => best = Served { budget, borders },
            None => refused = budget,
        }
    }
    Ok(Some(best))
}

/// Borders such that checkpoints so far plus the segment at hand never exceed the budget, and the first segment not its
/// own; `None` if the walk gets stuck.
fn walk(stretch: &Stretch, with_end: bool, budget: u64, first: u64) -> Result<Option<Vec<usize>>> {
    let mut borders = Vec::new();
    let (mut start, mut kept) = (0, 0u64);
    let mut fresh: Vec<u64> = Vec::new();
    loop {
        let budget = if start == 0 { first } else { budget };
        let held = |border: usize| kept + stretch.held[border] - stretch.held[start];
        if held(stretch.length) <= budget {
            return Ok(Some(borders));
        }
        fresh.clear();
        let end = |crossing: Crossing| if with_end { 0 } else { crossing.late };
        let ahead = (start + 1..stretch.length).zip(stretch.new_bytes(start));
        let reach = ahead.take_while(|&(border, crossing)| held(border).saturating_sub(end(crossing)) <= budget);
        reach.map(|(_, crossing)| crossing.bytes).try_for_each(|bytes| push(&mut fresh, bytes))?;
        let Some(offset) = best_border(&fresh, &stretch.allowed[start + 1..]) else { return Ok(None) };
        kept += fresh[offset];
        start += offset + 1;
        push(&mut borders, start)?;
    }
}

/// Of the last half of the reach (of all of it where no border is allowed there), the farthest border whose new
/// bytes are within 15 % of the least.
fn best_border(fresh: &[u64], allowed: &[bool]) -> Option<usize> {
    let least_from = |from: usize| (from..fresh.len()).filter(|&at| allowed[at]).map(|at| fresh[at]).min();
    let half = fresh.len() / 2;
    let (from, least) = match least_from(half) {
        Some(least) => (half, least),
        None => (0, least_from(0)?),
    };
    let most = u128::from(least) * 115;
    (from..fresh.len()).rev().find(|&at| allowed[at] && u128::from(fresh[at]) * 100 <= most)
}
