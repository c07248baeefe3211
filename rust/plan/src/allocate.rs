//! Offsets of buffers in the arena, from the steps between which each is alive.
//!
//! Two planners, both deterministic. *Best-fit in time order* walks the steps with a free list, as an allocator would,
//! in n log n at worst. *Greedy by size* places the largest buffer first, each at the tightest gap among those it
//! overlaps in time (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020); it is
//! quadratic, so it is asked only where that is cheap or where best-fit left more than 1 % on the table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ckad_graph::{Error, Result, interrupt};
use rustc_hash::FxHashMap;

use crate::liveness::Lists;
use crate::tables::{collected, filled, room};

/// A buffer to place: its bytes are its own in the steps `first..=last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    pub first: u32,
    pub last: u32,
    pub bytes: usize,
}

/// An offset for each lifetime, and the bytes of the arena that holds them all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arena {
    pub offsets: Vec<usize>,
    pub bytes: usize,
}

/// Up to this many buffers greedy by size is always tried.
const GREEDY_ALWAYS: usize = 4096;
/// Up to this many it is tried when best-fit is more than 1 % above the least possible.
const GREEDY_AT_MOST: usize = 16384;

/// Places buffers so that those alive at the same step are disjoint. Every offset is a multiple of `alignment`.
/// Time and memory are linear in the number of buffers and the last step.
pub fn allocate(lifetimes: &[Lifetime], alignment: usize) -> Result<Arena> {
    let alignment = alignment.max(1);
    // Half of the address space leaves room for whatever fragmentation adds: no sum below can overflow.
    let limit = (isize::MAX / 4) as usize;
    if let Some(huge) = lifetimes.iter().find(|lifetime| lifetime.bytes > limit - alignment) {
        return Err(Error::memory("plan", huge.bytes));
    }
    let rounded: Vec<Lifetime> = collected(
        lifetimes.iter().map(|lifetime| Lifetime { bytes: lifetime.bytes.next_multiple_of(alignment), ..*lifetime }),
    )?;
    let turns = Turns::of(&rounded)?;
    let least = turns.live_peak(&rounded);
    let least = usize::try_from(least).ok().filter(|&bytes| bytes <= limit);
    let Some(least) = least else {
        return Err(Error::memory("plan", usize::MAX));
    };
    let forward = best_fit(&rounded, &turns)?;
    if forward.bytes <= least {
        return Ok(forward);
    }
    // Backwards in time the same algorithm meets other gaps; it costs as little.
    let reversed = reversed(&rounded)?;
    let mut best = smaller(forward, best_fit(&reversed, &Turns::of(&reversed)?)?);
    let off = best.bytes > least + least / 100;
    if best.bytes > least && (rounded.len() < GREEDY_ALWAYS || (off && rounded.len() < GREEDY_AT_MOST)) {
        best = smaller(best, greedy_by_size(&rounded)?);
    }
    Ok(best)
}

/// Who is born when, and who dies when.
struct Turns {
    /// Indices of lifetimes that have bytes, by first step; of one step the largest first.
    births: Vec<u32>,
    /// The same, by last step.
    deaths: Vec<u32>,
}

impl Turns {
    fn of(lifetimes: &[Lifetime]) -> Result<Turns> {
        let mut births = by_step(lifetimes, |lifetime| lifetime.first)?;
        for together in births.chunk_by_mut(|&a, &b| lifetimes[a as usize].first == lifetimes[b as usize].first) {
            together.sort_unstable_by_key(|&index| (Reverse(lifetimes[index as usize].bytes), index));
        }
        Ok(Turns { births, deaths: by_step(lifetimes, |lifetime| lifetime.last)? })
    }

    /// Calls back at each birth, in order, with all that died before it.
    fn play(&self, lifetimes: &[Lifetime], mut birth: impl FnMut(usize, &mut dyn Iterator<Item = usize>)) {
        let mut deaths = self.deaths.iter().map(|&index| index as usize).peekable();
        for index in self.births.iter().map(|&index| index as usize) {
            let first = lifetimes[index].first;
            birth(index, &mut std::iter::from_fn(|| deaths.next_if(|&dead| lifetimes[dead].last < first)));
        }
    }

    /// The most bytes alive at one step: no arena can be smaller.
    fn live_peak(&self, lifetimes: &[Lifetime]) -> u128 {
        let (mut live, mut peak) = (0u128, 0u128);
        self.play(lifetimes, |index, dead| {
            live -= dead.map(|dead| lifetimes[dead].bytes as u128).sum::<u128>();
            live += lifetimes[index].bytes as u128;
            peak = peak.max(live);
        });
        peak
    }
}

/// Indices of the lifetimes that have bytes, by step, then in order.
fn by_step(lifetimes: &[Lifetime], step: impl Fn(&Lifetime) -> u32) -> Result<Vec<u32>> {
    let steps = lifetimes.iter().map(|lifetime| step(lifetime) as usize + 1).max().unwrap_or(0);
    let with_bytes = (0u32..).zip(lifetimes).filter(|(_, lifetime)| lifetime.bytes > 0);
    Ok(Lists::group(steps, with_bytes.map(|(index, lifetime)| (step(lifetime), index)))?.into_items())
}

fn smaller(a: Arena, b: Arena) -> Arena {
    if b.bytes < a.bytes { b } else { a }
}

fn reversed(lifetimes: &[Lifetime]) -> Result<Vec<Lifetime>> {
    let end = lifetimes.iter().map(|lifetime| lifetime.last).max().unwrap_or(0);
    let turned = |lifetime: &Lifetime| Lifetime { first: end - lifetime.last, last: end - lifetime.first, ..*lifetime };
    collected(lifetimes.iter().map(turned))
}

/// Holes below the high water mark, by place and by size.
///
/// What was given back is first kept whole, for the next buffer of just that size: most programs have few sizes.
/// Only when another size is asked for do these holes join their neighbours.
#[derive(Default)]
struct Holes {
    whole: Vec<Whole>,
    /// By size, the last of those kept whole, and in which round it was.
    last_of_size: FxHashMap<usize, (u32, u32)>,
    /// How often holes were joined: what was noted in an earlier round counts no more.
    round: u32,
    by_offset: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
    high_water: usize,
}

/// No round has this number: there is one a buffer at most.
const NEVER: u32 = u32::MAX;

/// A hole as it was given back.
struct Whole {
    offset: usize,
    /// 0 once it is taken.
    bytes: usize,
    /// The one of the same size before it.
    before: Option<u32>,
}

impl Holes {
    fn remove(&mut self, offset: usize, bytes: usize) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(bytes, offset));
    }

    fn insert(&mut self, offset: usize, bytes: usize) {
        self.by_offset.insert(offset, bytes);
        self.by_size.insert((bytes, offset));
    }

    /// The smallest hole that fits, or new bytes on top (over a hole that touches the top).
    fn take(&mut self, bytes: usize) -> usize {
        if let Some(offset) = self.take_whole(bytes) {
            return offset;
        }
        self.join_all();
        if let Some(&(size, offset)) = self.by_size.range((bytes, 0)..).next() {
            self.remove(offset, size);
            if size > bytes {
                self.insert(offset + bytes, size - bytes);
            }
            return offset;
        }
        let top = self.by_offset.last_key_value().map(|(&offset, &size)| (offset, size));
        let offset = match top {
            Some((offset, size)) if offset + size == self.high_water => {
                self.remove(offset, size);
                offset
            }
            _ => self.high_water,
        };
        self.high_water = offset + bytes;
        offset
    }

    fn take_whole(&mut self, bytes: usize) -> Option<usize> {
        let (round, index) = self.last_of_size.get_mut(&bytes)?;
        let hole = self.whole.get_mut(*index as usize).filter(|_| *round == self.round)?;
        match hole.before {
            Some(before) => *index = before,
            None => *round = NEVER,
        }
        hole.bytes = 0;
        Some(hole.offset)
    }

    fn give_back(&mut self, offset: usize, bytes: usize) {
        let index = self.whole.len() as u32;
        let last = self.last_of_size.entry(bytes).or_insert((NEVER, 0));
        let before = Some(last.1).filter(|_| last.0 == self.round);
        *last = (self.round, index);
        self.whole.push(Whole { offset, bytes, before });
    }

    fn join_all(&mut self) {
        self.round += 1;
        let mut whole = std::mem::take(&mut self.whole);
        for hole in whole.drain(..).filter(|hole| hole.bytes > 0) {
            self.join(hole.offset, hole.bytes);
        }
        // With its memory, for the next round.
        self.whole = whole;
    }

    fn join(&mut self, mut offset: usize, mut bytes: usize) {
        if let Some((&below, &size)) = self.by_offset.range(..offset).next_back()
            && below + size == offset
        {
            self.remove(below, size);
            (offset, bytes) = (below, size + bytes);
        }
        if let Some(&size) = self.by_offset.get(&(offset + bytes)) {
            self.remove(offset + bytes, size);
            bytes += size;
        }
        self.insert(offset, bytes);
    }
}

fn best_fit(lifetimes: &[Lifetime], turns: &Turns) -> Result<Arena> {
    let mut offsets = filled(0, lifetimes.len())?;
    let mut holes = Holes { whole: room(lifetimes.len())?, ..Holes::default() };
    turns.play(lifetimes, |index, dead| {
        for dead in dead {
            holes.give_back(offsets[dead], lifetimes[dead].bytes);
        }
        offsets[index] = holes.take(lifetimes[index].bytes);
    });
    Ok(Arena { offsets, bytes: holes.high_water })
}

fn greedy_by_size(lifetimes: &[Lifetime]) -> Result<Arena> {
    let mut order: Vec<usize> = (0..lifetimes.len()).filter(|&index| lifetimes[index].bytes > 0).collect();
    order.sort_unstable_by_key(|&index| (Reverse(lifetimes[index].bytes), lifetimes[index].first, index));
    let mut offsets = filled(0, lifetimes.len())?;
    // What is placed so far, by offset.
    let mut placed: Vec<(usize, Lifetime)> = Vec::with_capacity(order.len());
    let mut high_water = 0;
    for index in order {
        interrupt::check()?;
        let lifetime = lifetimes[index];
        let mut best: Option<(usize, usize)> = None;
        let mut end = 0;
        for &(offset, other) in &placed {
            if other.first > lifetime.last || other.last < lifetime.first {
                continue;
            }
            if offset >= end + lifetime.bytes && best.is_none_or(|(gap, _)| offset - end < gap) {
                best = Some((offset - end, end));
            }
            end = end.max(offset + other.bytes);
        }
        let offset = best.map_or(end, |(_, offset)| offset);
        offsets[index] = offset;
        high_water = high_water.max(offset + lifetime.bytes);
        let at = placed.partition_point(|&(other, _)| other < offset);
        placed.insert(at, (offset, lifetime));
    }
    Ok(Arena { offsets, bytes: high_water })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numerical Recipes' linear congruential generator: the same cases on every machine.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % n
        }
    }

    fn random_lifetimes(random: &mut Random, n: usize) -> Vec<Lifetime> {
        (0..n)
            .map(|_| {
                let first = random.below(n as u64) as u32;
                let length = if random.below(8) == 0 { random.below(n as u64) } else { random.below(12) } as u32;
                let bytes = 1usize << random.below(14);
                let bytes = bytes + random.below(bytes as u64) as usize * random.below(2) as usize;
                Lifetime { first, last: (first + length).min(n as u32), bytes }
            })
            .collect()
    }

    fn check(lifetimes: &[Lifetime], arena: &Arena, alignment: usize) {
        for (i, a) in lifetimes.iter().enumerate() {
            assert_eq!(arena.offsets[i] % alignment, 0);
            assert!(arena.offsets[i] + a.bytes <= arena.bytes || a.bytes == 0);
            for (j, b) in lifetimes.iter().enumerate().skip(i + 1) {
                let in_time = a.first <= b.last && b.first <= a.last;
                let (x, y) = (arena.offsets[i], arena.offsets[j]);
                let in_space = x < y + b.bytes && y < x + a.bytes;
                assert!(!(in_time && in_space), "{a:?} at {x} and {b:?} at {y}");
            }
        }
    }

    #[test]
    fn overlapping_lifetimes_are_disjoint_and_the_arena_is_tight() {
        let mut random = Random(7);
        for case in 0..200 {
            let n = 2 + random.below(if case % 20 == 0 { 1500 } else { 60 }) as usize;
            let lifetimes = random_lifetimes(&mut random, n);
            let arena = allocate(&lifetimes, 64).unwrap();
            check(&lifetimes, &arena, 64);
            let rounded: Vec<_> = lifetimes
                .iter()
                .map(|lifetime| Lifetime { bytes: lifetime.bytes.next_multiple_of(64), ..*lifetime })
                .collect();
            let turns = Turns::of(&rounded).unwrap();
            let least = turns.live_peak(&rounded) as f64;
            assert!(arena.bytes as f64 <= 1.13 * least, "case {case}: {} above {least}", arena.bytes);
            check(&rounded, &best_fit(&rounded, &turns).unwrap(), 64);
            check(&rounded, &greedy_by_size(&rounded).unwrap(), 64);
        }
    }

    #[test]
    fn a_training_step_needs_no_more_than_its_live_peak() {
        // Forward values of growing age, freed last in first out; a temporary at each step.
        let n = 3000u32;
        let mut lifetimes = Vec::new();
        for i in 0..n {
            lifetimes.push(Lifetime { first: i, last: 2 * n - i, bytes: 1 << 20 });
            lifetimes.push(Lifetime { first: i, last: i, bytes: 1 << 18 });
            lifetimes.push(Lifetime { first: 2 * n - i, last: 2 * n - i + 1, bytes: 1 << 19 });
        }
        let arena = allocate(&lifetimes, 64).unwrap();
        assert!(arena.bytes as f64 <= 1.01 * Turns::of(&lifetimes).unwrap().live_peak(&lifetimes) as f64);
    }

    #[test]
    fn nothing_takes_nothing() {
        assert_eq!(allocate(&[], 64).unwrap(), Arena::default());
        let empty = [Lifetime { first: 0, last: 9, bytes: 0 }, Lifetime { first: 0, last: 9, bytes: 0 }];
        assert_eq!(allocate(&empty, 64).unwrap().bytes, 0);
    }

    #[test]
    fn what_no_machine_has_is_a_memory_error() {
        let huge = Lifetime { first: 0, last: 0, bytes: usize::MAX / 2 };
        assert_eq!(allocate(&[huge], 64).unwrap_err().kind, ckad_graph::ErrorKind::Memory);
        let large = Lifetime { first: 0, last: 0, bytes: isize::MAX as usize / 5 };
        assert_eq!(allocate(&[large; 4], 64).unwrap_err().kind, ckad_graph::ErrorKind::Memory);
    }
}
