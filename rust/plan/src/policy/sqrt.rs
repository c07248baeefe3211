//! Segments that shrink towards the loss, so that checkpoints made so far plus one segment stay constant.
//!
//! For n equal steps this is about √(2n) segments and a peak of √(2n) steps. For any other program the greedy
//! walk below takes borders where the tape is thin, and bisection finds the least budget that it can serve.

use ckad_graph::{Result, interrupt};

use crate::policy::profile::Stretch;
use crate::tables::push;

/// Budgets above the least one that are tried too: the walk counts no passing values, the simulator does.
pub(crate) const SLACKS: &[f64] = &[1.0, 1.03, 1.07];

/// The same for short tapes, where more can be tried and passing values weigh more.
pub(crate) const SLACKS_OF_SHORT: &[f64] = &[1.0, 1.03, 1.07, 1.15, 1.3, 1.5, 2.0];

/// Numbers of equal segments that are tried on short tapes.
pub(crate) const EQUAL_SEGMENTS: &[u32] = &[3, 5, 7, 10, 14];

/// The most positions of a short tape.
pub(crate) const SHORT: usize = 1024;

const BISECTIONS: usize = 30;

/// Borders for the least budget times `slack`.
pub(crate) fn borders(stretch: &Stretch, slack: f64) -> Result<Vec<usize>> {
    let (mut refused, mut served) = (0, stretch.total());
    let Some(mut best) = walk(stretch, served)? else { return Ok(Vec::new()) };
    for _ in 0..BISECTIONS {
        interrupt::check()?;
        if served - refused <= 1 {
            break;
        }
        let budget = refused + (served - refused) / 2;
        match walk(stretch, budget)? {
            Some(borders) => (served, best) = (budget, borders),
            None => refused = budget,
        }
    }
    if slack == 1.0 {
        return Ok(best);
    }
    Ok(walk(stretch, (served as f64 * slack) as u64)?.unwrap_or(best))
}

/// Borders such that checkpoints so far plus the segment at hand never exceed the budget; `None` if the walk
/// gets stuck.
fn walk(stretch: &Stretch, budget: u64) -> Result<Option<Vec<usize>>> {
    let mut borders = Vec::new();
    let (mut start, mut kept) = (0, 0u64);
    let mut fresh: Vec<u64> = Vec::new();
    loop {
        let fits = |border: usize| kept + stretch.held[border] - stretch.held[start] <= budget;
        if fits(stretch.length) {
            return Ok(Some(borders));
        }
        fresh.clear();
        let reachable = (start + 1..stretch.length).take_while(|&border| fits(border)).count();
        stretch.new_bytes(start).take(reachable).try_for_each(|bytes| push(&mut fresh, bytes))?;
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
