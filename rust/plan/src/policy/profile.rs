//! Bytes over tape positions: where the tape is thin, and how much each stretch must hold.

use ckad_graph::{Graph, Result};

use crate::policy::Material;
use crate::schedule::Clustering;
use crate::tables::{collected, filled, push};

/// Tape position and pass of each cluster, which are those of its root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Positions {
    /// For each cluster, its position, compressed to 0, 1, 2, ….
    pub(crate) of: Vec<u32>,
    pub(crate) pass: Vec<u16>,
    /// Number of different positions; at least 1.
    pub(crate) count: usize,
    /// For each compressed position, the one on the tape.
    tape: Vec<u32>,
}

impl Positions {
    pub(crate) fn new(graph: &Graph, clustering: &Clustering) -> Result<Positions> {
        let roots = clustering.clusters.iter().filter_map(|cluster| cluster.members.last());
        let attributes: Vec<_> = collected(roots.map(|&root| graph.attributes(root)))?;
        let mut tape: Vec<u32> = collected(attributes.iter().map(|attributes| attributes.position))?;
        tape.sort_unstable();
        tape.dedup();
        // Mostly beside that of the cluster before.
        let mut last = 0usize;
        let mut place = |position: u32| {
            let beside = [last, last + 1, last.wrapping_sub(1)];
            let found = beside.into_iter().find(|&index| tape.get(index) == Some(&position));
            last = found.unwrap_or_else(|| tape.partition_point(|&other| other < position));
            last as u32
        };
        let of = collected(attributes.iter().map(|attributes| place(attributes.position)))?;
        let pass = collected(attributes.iter().map(|attributes| attributes.pass))?;
        Ok(Positions { of, pass, count: tape.len().max(1), tape })
    }

    /// The positions on the tape before which these borders lie.
    pub(crate) fn on_tape(&self, borders: &[usize]) -> Result<Vec<u32>> {
        collected(borders.iter().filter_map(|&border| self.tape.get(border).copied()))
    }
}

/// A value from the first to the last position at which it is computed or used, in any pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    /// Where it is computed.
    pub(crate) made: u32,
    pub(crate) bytes: u64,
    /// Whether a later pass uses it.
    pub(crate) late: bool,
}

/// The spans of all values but those of the last pass and those that are pinned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// Sorted by `begin`.
    spans: Vec<Span>,
}

impl Profile {
    pub(crate) fn new(material: &Material<'_>) -> Result<Profile> {
        let (flow, positions) = (&material.flow, &material.positions);
        let mut spans = Vec::new();
        for value in flow.values().filter(|value| !material.pinned[value.index()]) {
            let producer = flow.producer[value.index()] as usize;
            let pass = positions.pass[producer];
            if pass + 1 >= flow.passes {
                continue;
            }
            let made = positions.of[producer];
            let mut span =
                Span { begin: made, end: made, made, bytes: material.graph.bytes(value) as u64, late: false };
            for &user in flow.users.get(value.index()) {
                let at = positions.of[user as usize];
                span.begin = span.begin.min(at);
                span.end = span.end.max(at);
                span.late |= positions.pass[user as usize] > pass;
            }
            push(&mut spans, span)?;
        }
        // Those that begin together count in any order.
        spans.sort_unstable_by_key(|span| (span.begin, span.made, span.end));
        Ok(Profile { spans })
    }

    /// The stretch from position `low` up to `high`. Spans within one of the `hidden` intervals do not count: a
    /// plan of their own covers them. No border may fall inside one of the `whole` intervals.
    pub(crate) fn stretch(&self, low: u32, high: u32, whole: &[Interval], hidden: &[Interval]) -> Result<Stretch> {
        let length = (high - low) as usize;
        let first = self.spans.partition_point(|span| span.begin < low);
        let last = self.spans.partition_point(|span| span.begin < high);
        let is_hidden = |span: &Span| {
            let at = hidden.partition_point(|interval| interval.low <= span.begin);
            at > 0 && span.end < hidden[at - 1].high
        };
        let inside = self.spans[first..last].iter().filter(|span| span.end < high && !is_hidden(span));
        let moved =
            inside.map(|span| Span { begin: span.begin - low, end: span.end - low, made: span.made - low, ..*span });
        let spans = collected(moved)?;
        let mut held = filled(0u64, length + 1)?;
        let mut begins = filled(0u32, length + 2)?;
        for span in &spans {
            begins[span.begin as usize + 1] += 1;
            held[span.made as usize + 1] += if span.late { span.bytes } else { 0 };
        }
        for position in 1..=length {
            held[position] += held[position - 1];
            begins[position] += begins[position - 1];
        }
        begins[length + 1] = begins[length];
        let mut by_end: Vec<u32> = collected(0..spans.len() as u32)?;
        by_end.sort_unstable_by_key(|&span| (spans[span as usize].end, span));
        let mut ends = filled(0u32, length + 2)?;
        for span in &spans {
            ends[span.end as usize + 1] += 1;
        }
        for position in 1..=length + 1 {
            ends[position] += ends[position - 1];
        }
        let mut allowed = filled(true, length + 1)?;
        allowed[0] = false;
        allowed[length] = false;
        for interval in whole {
            allowed[(interval.low + 1 - low) as usize..(interval.high - low) as usize].fill(false);
        }
        Ok(Stretch { length, spans, begins, by_end, ends, held, allowed })
    }
}

/// Positions from `low` up to `high`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interval {
    pub(crate) low: u32,
    pub(crate) high: u32,
}

/// What straddles a border.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Crossing {
    pub(crate) bytes: u64,
    /// Of these the bytes that a later pass uses.
    pub(crate) late: u64,
}

/// A part of the profile, its positions counted from 0. A border at q lies before position q.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) length: usize,
    spans: Vec<Span>,
    begins: Vec<u32>,
    by_end: Vec<u32>,
    ends: Vec<u32>,
    /// Prefix sums over positions of the bytes computed there that a later pass uses.
    pub(crate) held: Vec<u64>,
    /// Whether a border may lie there.
    pub(crate) allowed: Vec<bool>,
}

impl Stretch {
    /// Bytes of the spans that begin at `from` or later and straddle a border, for the borders `from + 1`,
    /// `from + 2`, ….
    pub(crate) fn new_bytes(&self, from: usize) -> impl Iterator<Item = Crossing> + '_ {
        let mut crossing = Crossing::default();
        (from..self.length).map(move |position| {
            for span in &self.spans[self.begins[position] as usize..self.begins[position + 1] as usize] {
                if span.end as usize > position {
                    crossing.bytes += span.bytes;
                    crossing.late += if span.late { span.bytes } else { 0 };
                }
            }
            for &span in &self.by_end[self.ends[position] as usize..self.ends[position + 1] as usize] {
                let span = &self.spans[span as usize];
                if (span.begin as usize) < position && span.begin as usize >= from {
                    crossing.bytes -= span.bytes;
                    crossing.late -= if span.late { span.bytes } else { 0 };
                }
            }
            crossing
        })
    }

    /// Bytes of the spans shorter than `length` positions that straddle each border.
    pub(crate) fn crossing_for_less_than(&self, length: usize) -> Result<Vec<u64>> {
        let mut crossing = filled(0u64, self.length + 2)?;
        for span in self.spans.iter().filter(|span| ((span.end - span.begin) as usize) < length) {
            // Differences, whose sums are never below 0.
            let (first, behind) = (span.begin as usize + 1, span.end as usize + 1);
            crossing[first] = crossing[first].wrapping_add(span.bytes);
            crossing[behind] = crossing[behind].wrapping_sub(span.bytes);
        }
        for border in 1..crossing.len() {
            crossing[border] = crossing[border].wrapping_add(crossing[border - 1]);
        }
        Ok(crossing)
    }

    /// Between each border and the next one the bytes that a later pass uses and that cross neither.
    pub(crate) fn inner_bytes(&self, borders: &[usize]) -> Result<Vec<u64>> {
        let mut inner = filled(0u64, borders.len().saturating_sub(1))?;
        let begins = |border: Option<&usize>| border.map_or(0, |&border| self.begins[border] as usize);
        let mut step = 0;
        for span in self.spans[begins(borders.first())..begins(borders.last())].iter().filter(|span| span.late) {
            while borders.get(step + 1).is_some_and(|&end| end <= span.begin as usize) {
                step += 1;
            }
            if borders.get(step + 1).is_some_and(|&end| (span.end as usize) < end) {
                inner[step] += span.bytes;
            }
        }
        Ok(inner)
    }

    /// Bytes that a later pass uses, in all.
    pub(crate) fn total(&self) -> u64 {
        self.held[self.length]
    }
}
