//! Regions: parts of the tape with a policy of their own, and the tree of cells that comes of nesting them.
//!
//! The outermost policy plans the whole tape with the regions as wholes: no border of its own falls inside one.
//! Inside, each region's own policy rules: "recompute" makes the region one cell, so only what enters and leaves
//! it belongs outside; segments of a region are cells beside those of the policy around it, so what crosses
//! its borders is kept as the outer policy keeps; "none" and "auto" leave the region to the cell around it.

use ckad_graph::{CheckpointPolicy, Graph, RegionId, Result};

use crate::policy::Material;
use crate::policy::cells::{Cells, ROOT};
use crate::policy::profile::{Interval, Profile};
use crate::policy::sqrt::{Budgets, Pace};
use crate::policy::{segments, sqrt};
use crate::tables::{collected, filled, push};

/// Whether some region recomputes.
pub(crate) fn asks_for_recomputation(graph: &Graph) -> bool {
    graph.regions.iter().skip(1).any(|region| recomputes(region.policy))
}

fn recomputes(policy: CheckpointPolicy) -> bool {
    !matches!(policy, CheckpointPolicy::None | CheckpointPolicy::Auto | CheckpointPolicy::Offload(_))
}

/// What is worth trying for a policy: itself in several sizes, and on short tapes equal segments too, which win
/// where more than two passes hold values at once.
pub(crate) fn variants(material: &Material<'_>, policy: CheckpointPolicy) -> Vec<(CheckpointPolicy, Pace)> {
    let inner = material.graph.regions.iter().skip(1).map(|region| region.policy);
    let sized = inner.chain([policy]).any(|policy| policy == CheckpointPolicy::Sqrt);
    let short = material.positions.count <= sqrt::SHORT;
    let paces = match (sized, short) {
        (true, true) => sqrt::PACES_OF_SHORT,
        (true, false) => sqrt::PACES,
        _ => &[sqrt::ANY],
    };
    let mut variants: Vec<_> = paces.iter().map(|&pace| (policy, pace)).collect();
    if policy == CheckpointPolicy::Sqrt && short {
        variants.extend(sqrt::EQUAL_SEGMENTS.iter().map(|&count| (CheckpointPolicy::Segments(count), sqrt::ANY)));
    }
    variants
}

/// An interval of the tape with its policy; children lie inside, in order, and do not overlap.
struct Part {
    interval: Interval,
    policy: CheckpointPolicy,
    children: Vec<usize>,
}

/// The cells of the policy and of all regions.
pub(crate) fn cells(
    material: &Material<'_>,
    profile: &Profile,
    budgets: &mut Budgets,
    policy: CheckpointPolicy,
    pace: Pace,
) -> Result<Cells> {
    let count = material.positions.count;
    let parts = parts(material, policy)?;
    let mut cells = Cells::whole(count)?;
    let mut waiting = vec![(0, ROOT)];
    while let Some((index, parent)) = waiting.pop() {
        let part = &parts[index];
        let Interval { low, high } = part.interval;
        let borders = match part.policy {
            CheckpointPolicy::None | CheckpointPolicy::Auto | CheckpointPolicy::Offload(_) => {
                cells.paint(low as usize, high as usize, parent);
                part.children.iter().try_for_each(|&child| push(&mut waiting, (child, parent)))?;
                continue;
            }
            CheckpointPolicy::Recompute => Vec::new(),
            CheckpointPolicy::Sqrt | CheckpointPolicy::Segments(_) => {
                let whole: Vec<Interval> = collected(part.children.iter().map(|&child| parts[child].interval))?;
                let hidden = part.children.iter().filter(|&&child| recomputes(parts[child].policy));
                let hidden: Vec<Interval> = collected(hidden.map(|&child| parts[child].interval))?;
                let stretch = profile.stretch(low, high, &whole, &hidden)?;
                match part.policy {
                    CheckpointPolicy::Segments(count) => segments::borders(&stretch, count)?,
                    _ => budgets.borders(index, &stretch, pace)?,
                }
            }
        };
        let mut start = low as usize;
        let mut children = part.children.iter().peekable();
        let ends = borders.iter().map(|border| low as usize + border).chain([high as usize]);
        for end in ends {
            // One segment for everything is the whole: it would never be left and entered again.
            let cell = if end - start == count { parent } else { cells.add(parent)? };
            cells.paint(start, end, cell);
            while let Some(child) = children.next_if(|&&child| parts[child].interval.high as usize <= end) {
                push(&mut waiting, (*child, cell))?;
            }
            start = end;
        }
    }
    Ok(cells)
}

/// The tape as part 0 and the regions that hold clusters, nested by their intervals. A region that overlaps
/// another without lying inside it is left to the part around it.
fn parts(material: &Material<'_>, policy: CheckpointPolicy) -> Result<Vec<Part>> {
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
        let RegionId(region) = graph.attributes(root).region;
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
    let held = intervals.iter().enumerate().skip(1).filter_map(|(region, interval)| Some(((*interval)?, region)));
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
