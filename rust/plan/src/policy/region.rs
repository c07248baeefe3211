//! Regions: parts of the tape with a policy of their own, and the tree of cells that comes of nesting them.
//!
//! The outermost policy plans the whole tape with the regions as wholes: no border of its own falls inside one.
//! Inside, each region's own policy rules: "recompute" makes the region one cell, so only what enters and leaves
//! it belongs outside; segments of a region are cells beside those of the policy around it, so what crosses
//! its borders is kept as the outer policy keeps; "none" and "auto" leave the region to the cell around it.

use ckad_graph::{CheckpointPolicy, Graph, RegionId, Result};

use crate::policy::cells::{Cells, ROOT};
use crate::policy::chain::actions::Leaf;
use crate::policy::chain::chained;
use crate::policy::chain::chained::Chains;
use crate::policy::profile::{Interval, Profile, Stretch};
use crate::policy::sqrt::{Budgets, Pace};
use crate::policy::{Material, segments, sqrt};
use crate::tables::{collected, filled, push, room};

/// Whether some region recomputes.
pub(crate) fn asks_for_recomputation(graph: &Graph) -> bool {
    graph.regions.iter().skip(1).any(|region| region.policy.recomputes())
}

/// Whether some region has a policy of its own that recomputes, beside those that are marked by hand.
pub(crate) fn names_policies(graph: &Graph) -> bool {
    let named = |policy: CheckpointPolicy| policy.recomputes() && policy != CheckpointPolicy::Recompute;
    graph.regions.iter().skip(1).any(|region| named(region.policy))
}

/// How regions may be heeded less than all.
pub(crate) fn less_heed(graph: &Graph) -> &'static [Heed] {
    match (asks_for_recomputation(graph), names_policies(graph)) {
        (false, _) => &[],
        (true, false) => &[Heed::Nothing],
        (true, true) => &[Heed::Marked, Heed::Nothing],
    }
}

/// Which regions are heeded. A policy of a region is replaced by keeping everything where that needs less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Heed {
    All,
    /// Those that are marked by hand.
    Marked,
    Nothing,
}

impl Heed {
    fn is_heeded(self, policy: CheckpointPolicy) -> bool {
        match self {
            Heed::All => true,
            Heed::Marked => policy == CheckpointPolicy::Recompute,
            Heed::Nothing => false,
        }
    }
}

/// What is tried: a policy for the tape around all regions, and how the walks of "sqrt" go.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Variant {
    pub(crate) policy: CheckpointPolicy,
    pub(crate) pace: Pace,
    /// Instead of the policy: the least work within so many units of a chain's table.
    pub(crate) units: Option<usize>,
    pub(crate) heed: Heed,
}

impl Variant {
    pub(crate) fn new(policy: CheckpointPolicy, pace: Pace) -> Variant {
        Variant { policy, pace, units: None, heed: Heed::All }
    }
}

/// What variants that heed the same regions find out about the parts of the tape.
#[derive(Default)]
pub(crate) struct Known {
    budgets: Budgets,
    chains: Chains,
    /// Whether slots for states or steps hold states only.
    pub(crate) states_only: bool,
}

/// What is worth trying for a policy: itself in several sizes, and on short tapes equal segments too, which win
/// where more than two passes hold values at once.
pub(crate) fn variants(material: &Material<'_>, policy: CheckpointPolicy, heed: Heed) -> Vec<Variant> {
    let inner = material.graph.regions.iter().skip(1).map(|region| region.policy);
    let inner = inner.filter(|&policy| heed.is_heeded(policy));
    let sized = inner.chain([policy]).any(|policy| policy == CheckpointPolicy::Sqrt);
    let short = material.positions.count <= sqrt::SHORT;
    let paces = match (sized, short) {
        (true, true) => sqrt::PACES_OF_SHORT,
        (true, false) => sqrt::PACES,
        _ => &[sqrt::ANY],
    };
    let mut variants: Vec<_> = paces.iter().map(|&pace| Variant::new(policy, pace)).collect();
    if policy == CheckpointPolicy::Sqrt && short {
        let equal = sqrt::EQUAL_SEGMENTS.iter().map(|&count| CheckpointPolicy::Segments(count));
        variants.extend(equal.map(|policy| Variant::new(policy, sqrt::ANY)));
    }
    variants.iter_mut().for_each(|variant| variant.heed = heed);
    variants
}

/// For the tape around all regions: the memories that are worth trying in a chain's table, at most so many and with at
/// most so many times the least work; the number of steps, and what computing them again takes at least where so many
/// are kept.
pub(crate) fn sizes(
    material: &Material<'_>,
    profile: &Profile,
    known: &mut Known,
    (most, repeats): (usize, u64),
    kept: usize,
) -> Result<(Vec<usize>, usize, u64)> {
    let parts = parts(material, CheckpointPolicy::Log, Heed::All)?;
    let stretch = stretch(profile, &parts, 0)?;
    let chain = known.chains.of(0, material, 0, &stretch)?;
    let (steps, again) = (chain.steps(), chain.again(kept)?);
    // One memory of a table, which is of some of the steps, is nothing beside the closed form over all of them.
    if most == 1 && chain.is_uniform() {
        return Ok((Vec::new(), steps, again));
    }
    Ok((chained::sizes(known.chains.table(0, material, 0, &stretch)?, most, repeats)?, steps, again))
}

/// An interval of the tape with its policy; children lie inside, in order, and do not overlap.
struct Part {
    interval: Interval,
    policy: CheckpointPolicy,
    children: Vec<usize>,
}

/// What the policy of a part divides: what its regions recompute is hidden, no border falls inside them.
fn stretch(profile: &Profile, parts: &[Part], index: usize) -> Result<Stretch> {
    let part = &parts[index];
    let whole: Vec<Interval> = collected(part.children.iter().map(|&child| parts[child].interval))?;
    let hidden = part.children.iter().filter(|&&child| parts[child].policy.recomputes());
    let hidden: Vec<Interval> = collected(hidden.map(|&child| parts[child].interval))?;
    profile.stretch(part.interval.low, part.interval.high, &whole, &hidden)
}

/// The cells of the policy and of all regions.
pub(crate) fn cells(material: &Material<'_>, profile: &Profile, known: &mut Known, variant: Variant) -> Result<Cells> {
    let count = material.positions.count;
    let parts = parts(material, variant.policy, variant.heed)?;
    let mut cells = Cells::whole(count)?;
    let mut waiting = vec![(0, ROOT)];
    while let Some((index, parent)) = waiting.pop() {
        let part = &parts[index];
        let Interval { low, high } = part.interval;
        let (low, high) = (low as usize, high as usize);
        // One segment for everything is the whole: it would never be left and entered again.
        let returns = high - low < count;
        let units = variant.units.filter(|_| index == 0);
        let leaves = match part.policy {
            _ if units.is_some() => {
                let stretch = stretch(profile, &parts, index)?;
                let table = known.chains.table(index, material, low, &stretch)?;
                chained::within(&mut cells, parent, table, units.unwrap_or_default())?
            }
            CheckpointPolicy::None
            | CheckpointPolicy::Auto
            | CheckpointPolicy::Offload(_)
            | CheckpointPolicy::Keep
            | CheckpointPolicy::User(_) => {
                cells.paint(low, high, parent);
                part.children.iter().try_for_each(|&child| push(&mut waiting, (child, parent)))?;
                continue;
            }
            policy if chained::is_chained(policy) && material.flow.passes <= 2 => {
                let stretch = stretch(profile, &parts, index)?;
                let chain = known.chains.of(index, material, low, &stretch)?;
                known.states_only |= chained::holds_states_only(policy, chain);
                chained::cells(&mut cells, parent, returns, chain, policy)?
            }
            policy => {
                let stretch = || stretch(profile, &parts, index);
                let borders = match policy {
                    CheckpointPolicy::Recompute => Vec::new(),
                    CheckpointPolicy::Segments(count) => segments::borders(&stretch()?, count)?,
                    CheckpointPolicy::Sqrt => known.budgets.borders(index, &stretch()?, variant.pace)?,
                    _ => {
                        let stretch = stretch()?;
                        segments::borders(&stretch, chained::borders(policy, &stretch).saturating_add(1))?
                    }
                };
                let mut segments = room(borders.len() + 1)?;
                for end in borders.into_iter().chain([high - low]) {
                    let whole = !returns && segments.is_empty() && end == count;
                    segments.push(Leaf { end, cell: if whole { parent } else { cells.add(parent)? } });
                }
                segments
            }
        };
        let mut start = low;
        let mut children = part.children.iter().peekable();
        for Leaf { end, cell } in leaves {
            let end = low + end;
            cells.paint(start, end, cell);
            while let Some(child) = children.next_if(|&&child| parts[child].interval.high as usize <= end) {
                push(&mut waiting, (*child, cell))?;
            }
            start = end;
        }
    }
    Ok(cells)
}

/// What is kept is no part of the tape of its own: the region around it.
fn around_kept(graph: &Graph, region: RegionId) -> RegionId {
    let own = graph.regions[region.0 as usize];
    if own.policy == CheckpointPolicy::Keep { own.parent } else { region }
}

/// The tape as part 0 and the regions that are heeded and hold clusters, nested by their intervals. A region that
/// overlaps another without lying inside it is left to the part around it.
fn parts(material: &Material<'_>, policy: CheckpointPolicy, heed: Heed) -> Result<Vec<Part>> {
    let graph = material.graph;
    let everything = Interval { low: 0, high: material.positions.count as u32 };
    let mut parts = vec![Part { interval: everything, policy, children: Vec::new() }];
    if graph.regions.len() <= 1 {
        return Ok(parts);
    }
    let mut intervals: Vec<Option<Interval>> = filled(None, graph.regions.len())?;
    let widen = |interval: &mut Option<Interval>, other: Interval| {
        let own = interval.get_or_insert(other);
        own.low = own.low.min(other.low);
        own.high = own.high.max(other.high);
    };
    for (index, cluster) in material.clustering.clusters.iter().enumerate() {
        let Some(&root) = cluster.members.last() else { continue };
        let RegionId(region) = around_kept(graph, graph.attributes(root).region);
        let position = material.positions.of[index];
        widen(&mut intervals[region as usize], Interval { low: position, high: position + 1 });
    }
    // A region is opened after the one around it.
    for region in (1..graph.regions.len()).rev() {
        let RegionId(parent) = graph.regions[region].parent;
        if let Some(interval) = intervals[region].filter(|_| (parent as usize) < region) {
            widen(&mut intervals[parent as usize], interval);
        }
    }
    let heeded = |&region: &usize| heed.is_heeded(graph.regions[region].policy);
    let held = (1..intervals.len()).filter(heeded).filter_map(|region| Some((intervals[region]?, region)));
    let mut regions: Vec<(Interval, usize)> = collected(held)?;
    regions.sort_unstable_by_key(|&(interval, region)| (interval.low, std::cmp::Reverse(interval.high), region));
    let mut around = vec![0];
    for (interval, region) in regions {
        while let Some(&outer) = around.last().filter(|&&outer| parts[outer].interval.high <= interval.low) {
            debug_assert!(outer != 0);
            around.pop();
        }
        let outer = around.last().copied().unwrap_or(0);
        if interval.high > parts[outer].interval.high {
            continue;
        }
        push(&mut parts, Part { interval, policy: graph.regions[region].policy, children: Vec::new() })?;
        let index = parts.len() - 1;
        push(&mut parts[outer].children, index)?;
        push(&mut around, index)?;
    }
    Ok(parts)
}
