//! A plan as its user reads it: the figures, and for each source line what its values cost.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

use ckad_graph::{CallKind, Graph, NodeId, Op, Result, interrupt, tables};

use crate::cost::node_flops;
use crate::policy::Planned;
use crate::schedule::Action;
use crate::simulate::{base_taken, simulate};
use crate::tables::{collected, filled};

/// What the nodes of one source line cost, derivatives included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LineCost {
    /// Id in the trace's line table; 0 is unknown.
    pub line: u32,
    /// Bytes of its values that are live at the peak.
    pub peak_bytes: u64,
    /// Bytes of its values that wait for the backward part: live when the first later pass begins.
    pub saved_bytes: u64,
    /// The most times that one of its nodes is computed, or an iteration of one of its loops.
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
        Action::Free(_) | Action::Store(_) | Action::Load(_) => false,
    });
    let mut lines: BTreeMap<u32, LineCost> = BTreeMap::new();
    let mut alive = filled(false, graph.len())?;
    let mut runs = filled(0u32, graph.len())?;
    for (index, action) in schedule.actions.iter().enumerate() {
        interrupt::check_at(index)?;
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
            Action::Store(_) => {}
            Action::Load(value) => alive[value.index()] = true,
        }
        if index == simulation.peak_action {
            let taken = base_taken(graph, schedule, index);
            for node in graph.ids().filter(|&node| alive[node.index()] && taken != Some(node)) {
                lines.entry(graph.attributes(node).line).or_default().peak_bytes += graph.bytes(node) as u64;
            }
        }
    }
    if simulation.peak_action == schedule.actions.len() {
        for &output in &graph.outputs {
            lines.entry(graph.attributes(output).line).or_default().peak_bytes += graph.bytes(output) as u64;
        }
    }
    for node in graph.ids().filter(|node| runs[node.index()] > 0) {
        interrupt::check_at(node.index())?;
        let line = lines.entry(graph.attributes(node).line).or_default();
        let runs = runs[node.index()];
        line.computed = line.computed.max(runs.saturating_mul(sweeps(graph, node)));
        line.flops = line.flops.saturating_add(node_flops(graph, node).saturating_mul(u64::from(runs)));
    }
    let mut lines: Vec<LineCost> = collected(lines.into_iter().map(|(line, cost)| LineCost { line, ..cost }))?;
    lines.sort_unstable_by_key(|cost| (Reverse((cost.peak_bytes, cost.saved_bytes, cost.flops)), cost.line));
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

/// How often a loop's kernel and the one whose states it computes anew go through an iteration at most.
fn sweeps(graph: &Graph, node: NodeId) -> u32 {
    match (graph.op(node), graph.call(node).map(|call| call.kind)) {
        (Op::Call(_), Some(CallKind::Reverse(reverse))) => u32::try_from(reverse.most_computed()).unwrap_or(u32::MAX),
        _ => 1,
    }
}

/// What the figures mean, below the table.
const LEGEND: &str = "\
peak         what the call allocates: also results from the beginning, scratch, copied constants, the graph and the
             program, and what is held beside the run: copies of arguments, results of runs before; not what is used up
             row by row
live         the most bytes of values alive at one time
at the peak  a line's values, those of their derivatives included, when the live bytes are most
saved        a line's values that are alive when the backward part begins: they are kept for it
computed 2×  some value of the line, or an iteration of a loop that is recorded once, is computed twice: in the forward
             part, and again for the backward part; more often where it is recomputed for what lies in several segments
";

impl Report {
    /// The figures and the table as text; `line` names a line id, as in `model.py:12`.
    pub fn text(&self, line: &dyn Fn(u32) -> String) -> Result<String> {
        let mut out = String::new();
        let once = (self.flops - self.extra_flops).max(1);
        let share = 100.0 * self.extra_flops as f64 / once as f64;
        let _ = writeln!(out, "operations   {:>17}", grouped(self.flops));
        let _ = writeln!(out, "  forward    {:>17}", grouped(self.forward_flops));
        let _ = writeln!(
            out,
            "  recomputed {:>17}, {share:.1} % of the operations without them",
            grouped(self.extra_flops)
        );
        let _ = writeln!(out, "segments     {:>17}", self.segments);
        if let Some(note) = &self.note {
            let _ = writeln!(out, "note         {note}");
        }
        let rows = self.by_name(line)?;
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(4);
        let _ = writeln!(out, "\n{:width$}  {:>31}  {:>31}  {:>8}", "line", "at the peak", "saved", "computed");
        for (name, cost) in rows {
            let (peak, saved) = (bytes_text(cost.peak_bytes), bytes_text(cost.saved_bytes));
            let row = format!("{name:width$}  {peak}  {saved}  {:>7}×\n", cost.computed);
            tables::write("plan", &mut out, &row)?;
        }
        tables::write("plan", &mut out, &format!("\n{LEGEND}"))?;
        Ok(out)
    }
}

impl Report {
    /// The lines by name, most bytes at the peak first. Several ids may name one line: an id stands for an
    /// instruction of it.
    pub fn by_name(&self, line: &dyn Fn(u32) -> String) -> Result<Vec<(String, LineCost)>> {
        let mut rows: BTreeMap<String, LineCost> = BTreeMap::new();
        for cost in &self.lines {
            let row = rows.entry(line(cost.line)).or_default();
            row.peak_bytes += cost.peak_bytes;
            row.saved_bytes += cost.saved_bytes;
            row.computed = row.computed.max(cost.computed);
            row.flops = row.flops.saturating_add(cost.flops);
        }
        let order = |cost: &LineCost| Reverse((cost.peak_bytes, cost.saved_bytes, cost.flops));
        let mut rows: Vec<(String, LineCost)> = collected(rows.into_iter())?;
        rows.sort_unstable_by(|(a, left), (b, right)| order(left).cmp(&order(right)).then_with(|| a.cmp(b)));
        Ok(rows)
    }
}

/// `3,355,443 B     3.2 MiB`, in columns: exact, and to read.
pub fn bytes_text(bytes: u64) -> String {
    format!("{:>17} B {:>7.1} MiB", grouped(bytes), bytes as f64 / f64::from(1 << 20))
}

/// The number with a comma before every third digit from the right.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes_text(0).trim_start(), "0 B     0.0 MiB");
        assert_eq!(bytes_text(1023).trim_start(), "1,023 B     0.0 MiB");
        assert_eq!(bytes_text(3_355_443).trim_start(), "3,355,443 B     3.2 MiB");
        assert_eq!(bytes_text(100 << 20).trim_start(), "104,857,600 B   100.0 MiB");
    }
}
