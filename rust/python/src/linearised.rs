//! Linearisations: which way one is split, and the programs of its two parts.
//!
//! The linear part owns the values that it reads, or the arguments alone, and computes the rest again ([`Split`]). A
//! policy that recomputes takes what holds less; within a limit the first way is taken where it fits.

use std::sync::Arc;

use ckad_graph::{CheckpointPolicy, Graph, Op};
use ckad_transform::Partition;
use rustc_hash::FxHashSet;

use crate::ask::Ask;
use crate::built::{Built, Key, Stop, Wanted, finished};
use crate::kind::Split;

/// A linearisation of a recorded graph, in the way that its policy or its limit asks for.
pub fn linearised(graph: &Graph, key: &Key, wanted: Wanted) -> Result<Built, Stop> {
    let ways = Ways { graph, key, wanted };
    let ask = key.ask;
    let by_policy = ask.limit.is_none() && !ask.leaves_room && ask.policy.is_some_and(CheckpointPolicy::recomputes);
    let (mut made, other) = if by_policy { ways.lesser()? } else { ways.first_that_fits()? };
    if wanted.report && ask.applied.is_some() {
        let free = Ask { limit: None, policy: Some(CheckpointPolicy::Auto), ..ask };
        made.look_at(ways.parts(other, free)?);
    }
    Ok(made)
}

struct Ways<'a> {
    graph: &'a Graph,
    key: &'a Key,
    wanted: Wanted,
}

impl Ways<'_> {
    /// The one that holds less, and the other.
    fn lesser(&self) -> Result<(Built, Split), Stop> {
        let ask = self.key.ask;
        let (again, kept) = (self.parts(Split::Again, ask)?, self.parts(Split::Keeping, ask)?);
        // More work for next to nothing is nothing that a policy asks for.
        let beside = ask.applied.unwrap_or(0);
        let is_less = again.most_held(beside) < kept.most_held(beside) / 8 * 7;
        Ok(if is_less { (again, Split::Keeping) } else { (kept, Split::Again) })
    }

    /// The one with less work where it fits, and the other.
    fn first_that_fits(&self) -> Result<(Built, Split), Stop> {
        let ask = self.key.ask;
        let (mut first, mut second) = (Split::Keeping, Split::Again);
        // What later runs are left must not shrink as the limit grows.
        if ask.leaves_room && self.owned(second)? < self.owned(first)? {
            (first, second) = (second, first);
        }
        match self.parts(first, ask) {
            Err(Stop::TooSmall(refused)) => {
                let made = self.parts(second, ask).map_err(|stop| stop.or_smaller(refused))?;
                Ok((made, first))
            }
            made => Ok((made?, second)),
        }
    }

    fn partition(&self, way: Split) -> Result<Partition, Stop> {
        Ok(self.key.kind.partition(self.graph, way)?)
    }

    fn owned(&self, way: Split) -> Result<usize, Stop> {
        Ok(owned_bytes(&self.partition(way)?, self.graph.outputs.len(), self.key.ask))
    }

    fn parts(&self, way: Split, ask: Ask) -> Result<Built, Stop> {
        in_parts(self.partition(way)?, self.graph.outputs.len(), ask, self.key.recorded, self.wanted)
    }
}

/// Bytes that a linear function owns: what crosses over, and copies of captured arrays.
fn owned_bytes(parts: &Partition, values: usize, ask: Ask) -> usize {
    let crossing: usize = parts.kept(values).map(|index| parts.known.bytes(parts.known.outputs[index])).sum();
    crossing + copies(parts, ask)
}

/// Bytes of captured arrays that are copied when the function has run, where the linear part outlives the call.
fn copies(parts: &Partition, ask: Ask) -> usize {
    if ask.applied.is_some() {
        return 0;
    }
    let graph = &parts.unknown;
    let read = graph.ids().filter_map(|id| match graph.op(id) {
        Op::Constant(index) => Some(&graph.constants[index as usize]),
        _ => None,
    });
    let mut seen = FxHashSet::default();
    let others = read.filter(|constant| constant.owned_bytes() == 0);
    others
        .filter(|constant| seen.insert(Arc::as_ptr(constant).cast::<u8>()))
        .map(|constant| constant.bytes().len())
        .sum()
}

/// The programs of both parts.
fn in_parts(
    parts: Partition,
    values: usize,
    ask: Ask,
    recorded: (usize, usize),
    wanted: Wanted,
) -> Result<Built, Stop> {
    let owned = owned_bytes(&parts, values, ask);
    // Copies are made before the function's run is over, and are the linear part's own from then on.
    let copied = copies(&parts, ask);
    let asks = [ask, ask.of_linear_part(owned)].map(|ask| ask.beside_more(copied));
    let run = |graph, of: Ask| {
        finished(graph, of, recorded, wanted).map_err(|stop| match stop {
            // As the user's limit counts.
            Stop::TooSmall(mut refused) => {
                refused.minimum = refused.minimum.saturating_add(of.held).saturating_sub(ask.held);
                Stop::TooSmall(refused)
            }
            failed => failed,
        })
    };
    let (known, unknown) = (run(&parts.known, asks[0]), run(&parts.unknown, asks[1]));
    // A limit that both parts can keep is named at once.
    let (known, mut unknown) = match (known, unknown) {
        (Err(Stop::TooSmall(known)), Err(Stop::TooSmall(unknown))) => {
            return Err(Stop::TooSmall(if known.minimum < unknown.minimum { unknown } else { known }));
        }
        (known, unknown) => (known?, unknown?),
    };
    let planned = &mut unknown.compiled.planned;
    planned.extra_flops = planned.extra_flops.saturating_add(parts.repeated_flops);
    if let Some(looked_at) = &mut unknown.looked_at {
        looked_at.repeated_flops = parts.repeated_flops;
    }
    let mut graph = parts.unknown;
    graph.constants = Vec::new();
    Ok(Built::Two {
        known: Arc::new(known),
        unknown: Arc::new(unknown),
        graph: Box::new(graph),
        sides: parts.outputs,
        residuals: parts.residuals,
        owned,
    })
}
