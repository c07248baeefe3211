//! The steps of a chain, read off the tape.
//!
//! A step ends where little crosses. In a loop such a place comes again: positions that compute the same operations
//! on the same shapes are one class of places, and a class of many places that little crosses ends the steps. What no
//! class divides (a first step that differs, one loop after the other, a body that is sometimes longer) is looked at
//! again by itself, and in the end divided where it is thin, at about the work of a step.
//! Without any repetition the tape is divided into so many pieces of about equal work.
//!
//! What becomes of the steps says `chained`, policy by policy: by the closed form of `binomial`, `mixed`'s program for
//! slots of either kind, or a `table` over parts and memory. `actions` makes cells of what they decide.

pub(crate) mod actions;
pub(crate) mod binomial;
pub(crate) mod chained;
pub(crate) mod mixed;
mod table;

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};

use ckad_graph::{Graph, NodeId, Op, Result, StartId, interrupt};
use rustc_hash::FxHasher;

use crate::policy::Material;
use crate::policy::profile::Stretch;
use crate::tables::{collected, filled, push};

/// Steps where nothing repeats itself.
const PIECES: u64 = 64;

/// What crosses a place is as good as the least if it is at most so many hundredths of it.
const THIN: u128 = 115;

/// A class is about as good as the best if that is at most so many times better: where as few bytes cross.
const ABOUT: f64 = 1.3;

/// So many of them are compared.
const CLASSES: usize = 8;

/// A class has at least so many places.
const LEAST_PLACES: usize = 3;

/// The steps of a stretch. Step i lies between border i and border i + 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    /// From 0 to the length of the stretch.
    pub(crate) borders: Vec<usize>,
    /// Operations of each step before the last pass, and one for each position.
    pub(crate) work: Vec<u64>,
    /// Of each step the bytes that a later pass uses and that do not cross its end.
    pub(crate) inner: Vec<u64>,
}

impl Chain {
    /// Of the stretch that begins at position `low`.
    pub(crate) fn new(material: &Material<'_>, low: usize, stretch: &Stretch) -> Result<Chain> {
        let tape = Tape::new(material, low, stretch)?;
        let mut borders = vec![0];
        let mut waiting = vec![Interval { from: 0, to: stretch.length, typical: None }];
        while let Some(interval) = waiting.pop() {
            interrupt::check_at(borders.len())?;
            match tape.divided(&interval)? {
                None => push(&mut borders, interval.to)?,
                Some(parts) => parts.into_iter().rev().try_for_each(|part| push(&mut waiting, part))?,
            }
        }
        Chain::at(&tape, stretch, borders)
    }

    fn at(tape: &Tape<'_>, stretch: &Stretch, borders: Vec<usize>) -> Result<Chain> {
        let ends = || borders.iter().zip(&borders[1..]);
        let work = collected(ends().map(|(&from, &to)| tape.work(from, to)))?;
        let inner = collected(stretch.inner_bytes(&borders)?.into_iter())?;
        Ok(Chain { borders, work, inner })
    }

    pub(crate) fn steps(&self) -> usize {
        self.work.len()
    }

    /// Operations of all steps but the last one and so many of the others, those with the most work.
    pub(crate) fn again(&self, kept: usize) -> Result<u64> {
        let (_, but_last) = self.work.split_last().map_or((&0, &[][..]), |split| split);
        let mut sorted = collected(but_last.iter().copied())?;
        sorted.sort_unstable();
        let less = &sorted[..sorted.len().saturating_sub(kept)];
        let positions = self.borders.last().copied().unwrap_or(0) as u64;
        Ok(less.iter().fold(0u64, |sum, &work| sum.saturating_add(work)).saturating_sub(positions))
    }

    /// Whether all steps take the same work and hold the same, but for the first and the last one.
    pub(crate) fn is_uniform(&self) -> bool {
        let between = |values: &[u64]| values.get(1..values.len().saturating_sub(1)).unwrap_or(&[]).to_vec();
        let same = |values: &[u64]| between(values).windows(2).all(|pair| pair[0] == pair[1]);
        same(&self.work) && same(&self.inner)
    }
}

/// A part of the tape that may be divided.
struct Interval {
    from: usize,
    to: usize,
    /// A step of the loop around it, where there is one.
    typical: Option<Typical>,
}

#[derive(Clone, Copy)]
struct Typical {
    work: u64,
    crossing: u64,
}

/// Places that end the same operations.
struct Class<'p> {
    /// The border after each.
    places: &'p [(u64, u32)],
    /// What crosses one of them, on average.
    crossing: u64,
}

impl Class<'_> {
    /// More steps are better, thinner borders too: twice as many bytes are worth it for four times the steps.
    fn worth(&self) -> f64 {
        self.places.len() as f64 / (self.crossing.max(1) as f64).powi(2)
    }

    fn rank(&self) -> (usize, u32) {
        (self.places.len(), self.places.last().map_or(0, |&(_, border)| border))
    }
}

/// What the steps are read off.
struct Tape<'a> {
    stretch: &'a Stretch,
    /// Prefix sums over positions of the operations before the last pass; each position has some.
    done: Vec<u64>,
    /// What each position computes.
    computes: Vec<u64>,
    /// Bytes that cross each border and live for less than half the tape.
    crossing: Vec<u64>,
}

impl<'a> Tape<'a> {
    fn new(material: &Material<'_>, low: usize, stretch: &'a Stretch) -> Result<Tape<'a>> {
        let (flow, positions) = (&material.flow, &material.positions);
        let mut done = filled(0u64, stretch.length + 1)?;
        let mut computes = filled(0u64, stretch.length)?;
        for (index, cluster) in material.clustering.clusters.iter().enumerate() {
            interrupt::check_at(index)?;
            let at = (positions.of[index] as usize).checked_sub(low).filter(|&at| at < stretch.length);
            let Some(at) = at.filter(|_| positions.pass[index] + 1 < flow.passes) else { continue };
            done[at + 1] = done[at + 1].saturating_add(flow.flops[index]);
            let mut hasher = FxHasher::default();
            computes[at].hash(&mut hasher);
            cluster.members.iter().for_each(|&member| identify(material.graph, member).hash(&mut hasher));
            computes[at] = hasher.finish();
        }
        for position in 0..stretch.length {
            done[position + 1] = done[position + 1].saturating_add(done[position]).saturating_add(1);
        }
        Ok(Tape { stretch, done, computes, crossing: stretch.crossing_for_less_than(stretch.length / 2)? })
    }

    fn work(&self, from: usize, to: usize) -> u64 {
        self.done[to] - self.done[from]
    }

    fn allowed(&self, from: usize, to: usize) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (from + 1..to).filter(|&border| self.stretch.allowed[border])
    }

    /// The parts of the interval; `None` if it is a step.
    fn divided(&self, interval: &Interval) -> Result<Option<Vec<Interval>>> {
        let &Interval { from, to, typical } = interval;
        // What precedes and what follows a loop belongs to a step of it.
        let halves = if from == 0 || to == self.stretch.length { 5 } else { 3 };
        if to - from < 2 || typical.is_some_and(|step| 2 * self.work(from, to) <= halves * step.work) {
            return Ok(None);
        }
        if let Some(parts) = self.repeated(from, to)? {
            return Ok(Some(parts));
        }
        let piece = Typical { work: self.work(from, to) / PIECES, crossing: u64::MAX };
        let typical = typical.unwrap_or(piece);
        let parts = |border| {
            [(from, border), (border, to)].map(|(from, to)| Interval { from, to, typical: Some(typical) }).into()
        };
        Ok(self.thin_place(from, to, typical).map(parts))
    }

    /// Parts that end where the same is computed again and again.
    fn repeated(&self, from: usize, to: usize) -> Result<Option<Vec<Interval>>> {
        let mut places = collected(self.allowed(from, to).map(|border| (self.computes[border - 1], border as u32)))?;
        places.sort_unstable();
        let all = self.work(from, to);
        let classes = || {
            let same = places.chunk_by(|a, b| a.0 == b.0).filter(|places| places.len() >= LEAST_PLACES);
            let covering = same.filter(|places| match places {
                [(_, first), .., (_, last)] => self.work(*first as usize, *last as usize) >= all / 2,
                _ => false,
            });
            covering.map(|places| {
                let crossing = places.iter().map(|&(_, border)| u128::from(self.crossing[border as usize]));
                Class { places, crossing: (crossing.sum::<u128>() / places.len() as u128) as u64 }
            })
        };
        let most = classes().map(|class| class.worth()).fold(0.0, f64::max);
        // Of classes that are about as good, that between which later passes read least, and which ends the body of a
        // loop and not a part of it.
        let mut best = None;
        for class in classes().filter(|class| class.worth() * ABOUT >= most).take(CLASSES) {
            let places = class.places.iter().map(|&(_, border)| border as usize);
            let borders = collected([from].into_iter().chain(places).chain([to]))?;
            let rank = (Reverse(self.stretch.inner_bytes(&borders)?.iter().sum::<u64>()), class.rank());
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, class));
            }
        }
        let Some((_, class)) = best else { return Ok(None) };
        let crossing = class.crossing;
        let borders = self.steady(from, to, class.places)?;
        let mut works = collected(borders.windows(2).map(|pair| self.work(pair[0], pair[1])))?;
        works.sort_unstable();
        let typical = Some(Typical { work: works[works.len() / 2], crossing });
        let parts = borders.windows(2).map(|pair| Interval { from: pair[0], to: pair[1], typical });
        // A single part would be looked at for ever.
        if borders.len() > 2 { collected(parts).map(Some) } else { Ok(None) }
    }

    /// All borders from `from` to `to` without those that would leave little between them: a body with a loop inside
    /// is one step, and what precedes and follows a loop belongs to its first and its last step.
    fn steady(&self, from: usize, to: usize, places: &[(u64, u32)]) -> Result<Vec<usize>> {
        let little = self.work(from, to) / (4 * (places.len() as u64 + 1));
        let mut borders = vec![from];
        let mut last = from;
        for &(_, border) in places {
            if self.work(last, border as usize) >= little {
                last = border as usize;
                push(&mut borders, last)?;
            }
        }
        let inner = collected(borders.get(1..).unwrap_or(&[]).windows(2).map(|pair| self.work(pair[0], pair[1])))?;
        let step = inner.get(inner.len() / 2).copied().unwrap_or(0);
        if borders.len() > 2 && self.work(last, to) <= step {
            borders.pop();
        }
        if borders.len() > 2 && self.work(from, borders[1]) < step {
            borders.remove(1);
        }
        push(&mut borders, to)?;
        Ok(borders)
    }

    /// Of the places that cross least, and no more than between typical steps, the one that is nearest to the middle
    /// of the work.
    fn thin_place(&self, from: usize, to: usize, typical: Typical) -> Option<usize> {
        let worth = |&border: &usize| 2 * self.work(from, border).min(self.work(border, to)) >= typical.work;
        let candidates = || self.allowed(from, to).filter(worth);
        let least = candidates().map(|border| self.crossing[border]).min()?;
        if 100 * u128::from(least) > THIN * u128::from(typical.crossing) {
            return None;
        }
        let thin = candidates().filter(|&border| 100 * u128::from(self.crossing[border]) <= THIN * u128::from(least));
        thin.min_by_key(|&border| self.work(from, border).abs_diff(self.work(border, to)))
    }
}

/// What the node computes, but for where a slice starts.
fn identify(graph: &Graph, node: NodeId) -> (Op, u32, u8) {
    let op = match graph.op(node) {
        Op::StridedRead { strides, .. } => Op::StridedRead { strides, start: StartId(0) },
        Op::StridedWrite { strides, .. } => Op::StridedWrite { strides, start: StartId(0) },
        Op::StridedAdd { strides, .. } => Op::StridedAdd { strides, start: StartId(0) },
        op => op,
    };
    (op, graph.node(node).shape.0, graph.node(node).dtype as u8)
}
