//! A plan as its user reads it: the figures, and for each source line what its values cost.

use std::collections::BTreeMap;
use std::fmt::Write;

use ckad_graph::{Graph, Result};

use crate::cost::node_flops;
use crate::policy::Planned;
use crate::schedule::Action;
use crate::simulate::{base_taken, simulate};
use crate::tables::filled;

/// What the nodes of one source line cost, derivatives included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LineCost {
    /// Id in the trace's line table; 0 is unknown.
    pub line: u32,
    /// Bytes of its values that are live at the peak.
    pub peak_bytes: u64,
    /// Bytes of its values that wait for the backward part: live when the first later pass begins.
    pub saved_bytes: u64,
    /// The most times that one of its nodes is computed.
    pub computed: u32,
    /// Operations executed.
    pub flops: u64,
}

/// The figures of a plan with its lines, those with most bytes at the peak first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub live_peak: u64,
    pub flops: u64,
    pub forward_flops: u64,
    pub extra_flops: u64,
    pub segments: usize,
    pub note: Option<String>,
    /// Bytes live during each action of the schedule.
    pub live: Vec<u64>,
    pub lines: Vec<LineCost>,
}

/// Reads the plan's table off its schedule.
pub fn report(graph: &Graph, planned: &Planned) -> Result<Report> {
    let schedule = &planned.schedule;
    let simulation = simulate(graph, schedule)?;
    let clusters = &schedule.clustering.clusters;
    let backward = schedule.actions.iter().position(|action| match action {
        Action::Compute(id) => {
            let root = clusters[id.0 as usize].members.last();
            root.is_some_and(|&root| graph.attributes(root).pass > 0)
        }
        Action::Free(_) => false,
    });
    let mut lines: BTreeMap<u32, LineCost> = BTreeMap::new();
    let mut alive = filled(false, graph.len())?;
    let mut runs = filled(0u32, graph.len())?;
    for (index, action) in schedule.actions.iter().enumerate() {
        if backward == Some(index) {
            for node in graph.ids().filter(|node| alive[node.index()]) {
                lines.entry(graph.attributes(node).line).or_default().saved_bytes += graph.bytes(node) as u64;
            }
        }
        match *action {
            Action::Compute(id) => {
                for &member in &clusters[id.0 as usize].members {
                    runs[member.index()] += 1;
                }
                for &value in &schedule.stores[index] {
                    alive[value.index()] = true;
                }
            }
            Action::Free(value) => alive[value.index()] = false,
        }
        if index == simulation.peak_action {
            let taken = base_taken(graph, schedule, index);
            for node in graph.ids().filter(|&node| alive[node.index()] && taken != Some(node)) {
                lines.entry(graph.attributes(node).line).or_default().peak_bytes += graph.bytes(node) as u64;
            }
        }
    }
    for node in graph.ids().filter(|node| runs[node.index()] > 0) {
        let line = lines.entry(graph.attributes(node).line).or_default();
        let runs = runs[node.index()];
        line.computed = line.computed.max(runs);
        line.flops = line.flops.saturating_add(node_flops(graph, node).saturating_mul(u64::from(runs)));
    }
    let mut lines: Vec<LineCost> = lines.into_iter().map(|(line, cost)| LineCost { line, ..cost }).collect();
    lines.sort_by_key(|cost| std::cmp::Reverse((cost.peak_bytes, cost.saved_bytes, cost.flops)));
    Ok(Report {
        live_peak: simulation.peak,
        flops: planned.flops,
        forward_flops: planned.forward_flops,
        extra_flops: planned.extra_flops,
        segments: planned.segments,
        note: planned.note.clone(),
        live: simulation.live,
        lines,
    })
}

impl Report {
    /// The table as text; `line` names a line id, as in `model.py:12`.
    pub fn text(&self, line: &dyn Fn(u32) -> String) -> String {
        let mut out = String::new();
        let share = self.extra_flops as f64 / (self.flops - self.extra_flops).max(1) as f64;
        let _ = writeln!(out, "live bytes at the peak  {}", bytes_text(self.live_peak));
        let _ = writeln!(out, "operations              {:.4e}", self.flops as f64);
        let _ = writeln!(out, "  forward               {:.4e}", self.forward_flops as f64);
        let _ = writeln!(out, "  recomputed            {:.4e} ({:.1} %)", self.extra_flops as f64, 100.0 * share);
        let _ = writeln!(out, "segments                {}", self.segments);
        if let Some(note) = &self.note {
            let _ = writeln!(out, "note                    {note}");
        }
        let rows = self.by_name(line);
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(4);
        let _ = writeln!(out, "\n{:width$}  {:>12}  {:>12}  {:>8}", "line", "at the peak", "saved", "computed");
        for (name, cost) in rows {
            let (peak, saved) = (bytes_text(cost.peak_bytes), bytes_text(cost.saved_bytes));
            let _ = writeln!(out, "{name:width$}  {peak:>12}  {saved:>12}  {:>7}×", cost.computed);
        }
        out
    }
}

impl Report {
    /// The lines by name, most bytes at the peak first. Several ids may name one line: an id stands for an
    /// instruction of it.
    fn by_name(&self, line: &dyn Fn(u32) -> String) -> Vec<(String, LineCost)> {
        let mut rows: BTreeMap<String, LineCost> = BTreeMap::new();
        for cost in &self.lines {
            let row = rows.entry(line(cost.line)).or_default();
            row.peak_bytes += cost.peak_bytes;
            row.saved_bytes += cost.saved_bytes;
            row.computed = row.computed.max(cost.computed);
            row.flops = row.flops.saturating_add(cost.flops);
        }
        let mut rows: Vec<(String, LineCost)> = rows.into_iter().collect();
        rows.sort_by_key(|(_, cost)| std::cmp::Reverse((cost.peak_bytes, cost.saved_bytes, cost.flops)));
        rows
    }
}

/// `3.2 MiB`; exact below one KiB.
pub fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(100 << 20), "100.0 MiB");
    }
}
