//! Which budgets of evictions are tried: equal steps, and more of them where the work leaps from one to the next.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ckad_graph::Result;

use crate::policy::Material;
use crate::policy::limit::candidate::{Candidate, Made, Over};
use crate::policy::limit::evict::{self, Eviction, Evictions, WEIGHTS, Weight};
use crate::tables::push;

/// From one budget of evictions to the next the work leaps by more than one in so many parts of it; so many leaps are
/// looked at.
const LEAP: u64 = 30;
const LEAPS: usize = 6;

/// Programs of evictions over one clustering. `everything` is what keeping everything allocates, `once` its operations.
pub(crate) fn evicted(material: &Material<'_>, over: Over, everything: u64, once: u64) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    let evictions = Evictions::new(material)?;
    let mut tried = |eviction: Eviction| -> Result<Option<u64>> {
        let Some(sequence) = evictions.sequence(eviction)? else { return Ok(None) };
        let figures = sequence.figures(material)?;
        push(&mut candidates, Candidate::new(Made::Evicted { over, eviction }, None, figures))?;
        Ok(Some(figures.flops))
    };
    // Of each budget, the largest first, the least work and the weight that takes it.
    let mut least: BTreeMap<Reverse<u64>, (u64, Weight)> = BTreeMap::new();
    for &weight in WEIGHTS {
        let mut failures = 0;
        for budget in evictions.budgets(everything) {
            if evictions.is_long_enough() {
                break;
            }
            let Some(flops) = tried(Eviction { budget, weight })? else {
                failures += 1;
                if failures == evict::FAILURES {
                    break;
                }
                continue;
            };
            let best = least.entry(Reverse(budget)).or_insert((flops, weight));
            if flops < best.0 {
                *best = (flops, weight);
            }
        }
    }
    // Where the work leaps from one budget to the next, those between are worth a look.
    let pairs = least.iter().zip(least.iter().skip(1));
    let leaps = pairs.filter(|((_, (more, _)), (_, (less, _)))| less.saturating_sub(*more) > once / LEAP);
    for ((&Reverse(high), &(_, first)), (&Reverse(low), &(_, second))) in leaps.take(LEAPS) {
        let weights = if first == second { &[first][..] } else { &[first, second] };
        for &weight in weights {
            for quarter in 1..4 {
                if evictions.is_long_enough() {
                    return Ok(candidates);
                }
                tried(Eviction { budget: low + (high - low) * quarter / 4, weight })?;
            }
        }
    }
    Ok(candidates)
}
