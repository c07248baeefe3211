//! What a plan is explained from: the graph that was planned, its figures by line, and the names of its lines.
//!
//! It is kept where a program is built only to be looked at. Pictures of it are computed when they are asked for:
//! the timeline from the schedule, the frontier from the graph.

use std::sync::Arc;

use ckad_graph::{Constant, Graph, HostArray, Result, tables};
use ckad_plan::policy::Planned;
use ckad_plan::report::{Report, report};
use ckad_plan::timeline::{Timeline, timeline};
use ckad_plan::within::{Point, frontier};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustc_hash::FxHashMap;

use crate::boundary::enter;
use crate::errors::raise;
use crate::places::{Places, parts};

/// A graph that was planned.
pub struct LookedAt {
    pub report: Report,
    graph: Graph,
    /// What became of it where loops keep some of their states: what the plan is of.
    rewritten: Option<Graph>,
    /// By how many bytes the graph that was planned was larger than its copy: lists grow in leaps.
    leaps: usize,
    /// Which inputs are given up.
    donated: Vec<bool>,
    /// Operations that it does a second time, whatever the plan: of the linear part of a linearisation.
    pub repeated_flops: u64,
    /// Of the linear part: the other way to split the linearisation.
    pub other_way: Option<Box<OtherWay>>,
}

/// The parts of a linearisation that is split in another way than what was planned.
pub struct OtherWay {
    pub known: Box<LookedAt>,
    pub unknown: Box<LookedAt>,
    /// Bytes that its linear function owns, and those that the other's does.
    pub owned: usize,
    pub instead_of: usize,
}

/// Memory against work of a call of several runs, each with how often it runs: under a limit each takes its cheapest
/// plan.
pub fn frontier_of_all(runs: &[(Vec<Point>, u64)]) -> Result<Vec<Point>> {
    let all = runs.iter().flat_map(|(points, _)| points.iter().map(|point| point.bytes));
    let mut limits: Vec<usize> = tables::list("plan", all)?;
    limits.sort_unstable();
    limits.dedup();
    let mut found: Vec<Point> = Vec::new();
    for bytes in limits {
        let taken =
            runs.iter().map(|(points, times)| Some((points.iter().rfind(|point| point.bytes <= bytes)?, *times)));
        let Some(taken) = taken.collect::<Option<Vec<(&Point, u64)>>>() else { continue };
        let extra = taken.iter().map(|(point, times)| point.extra_flops.saturating_mul(*times));
        let extra_flops = extra.fold(0, u64::saturating_add);
        let mut names: Vec<&str> = taken.iter().map(|(point, _)| point.policy.as_str()).collect();
        names.dedup();
        if found.last().is_none_or(|last| extra_flops < last.extra_flops) {
            tables::push("plan", &mut found, Point { bytes, extra_flops, policy: names.join(", then ") })?;
        }
    }
    Ok(found)
}

/// Those of which no other needs as few bytes and as little work.
pub fn worth_taking(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by_key(|point| (point.bytes, point.extra_flops));
    let mut least = u64::MAX;
    points.retain(|point| {
        let is_less = point.extra_flops < least;
        least = least.min(point.extra_flops);
        is_less
    });
    points
}

/// `ckad.picture.data.FrontierPoint` of each; a forced run held `least` bytes.
pub fn points<'py>(py: Python<'py>, points: &[Point], least: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let class = py.import("ckad.picture.data")?.getattr("FrontierPoint")?;
    // Of those that the forced run makes equal, the one with the least work stands last.
    let hidden = points.iter().filter(|point| point.bytes <= least).count().saturating_sub(1);
    let shown = points[hidden..].iter();
    shown.map(|point| class.call1((point.bytes.max(least), point.extra_flops, &point.policy))).collect()
}

/// Stands for a captured array, of which a plan needs the size alone.
#[derive(Debug)]
struct SizeOf(usize);

impl HostArray for SizeOf {
    fn bytes(&self) -> &[u8] {
        &[]
    }

    fn owned_bytes(&self) -> usize {
        self.0
    }
}

/// A copy that may outlive the arrays that the graph captures.
fn without_arrays(graph: &Graph) -> Result<Graph> {
    let mut graph = graph.copied()?;
    // One that is captured twice counts once.
    let mut stand_ins: FxHashMap<*const u8, Constant> = FxHashMap::default();
    for constant in &mut graph.constants {
        let stand_in = stand_ins.entry(Arc::as_ptr(constant).cast());
        *constant = Arc::clone(stand_in.or_insert_with(|| Arc::new(SizeOf(constant.owned_bytes()))));
    }
    Ok(graph)
}

impl LookedAt {
    pub fn new(graph: &Graph, rewritten: Option<&Graph>, planned: &Planned, donated: &[bool]) -> Result<LookedAt> {
        let report = report(rewritten.unwrap_or(graph), planned)?;
        let copy = without_arrays(graph)?;
        Ok(LookedAt {
            report,
            rewritten: rewritten.map(without_arrays).transpose()?,
            leaps: graph.own_bytes().saturating_sub(copy.own_bytes()),
            graph: copy,
            donated: tables::list("plan", donated.iter().copied())?,
            repeated_flops: 0,
            other_way: None,
        })
    }

    /// `ckad.picture.data.LineCost` of each line.
    pub fn lines<'py>(&self, py: Python<'py>, places: &Places) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let class = py.import("ckad.picture.data")?.getattr("LineCost")?;
        let rows = self.report.by_name(&|line| places.text(line).to_owned()).map_err(raise)?;
        let made = rows.iter().map(|(name, cost)| {
            let (file, line) = parts(name);
            class.call1((file, line, cost.peak_bytes, cost.saved_bytes, cost.computed, cost.flops))
        });
        made.collect()
    }

    /// Memory against work of the run, beside `held` bytes.
    pub fn frontier(&self, py: Python<'_>, held: usize) -> PyResult<Vec<Point>> {
        let points = || frontier(&self.graph, self.leaps, &ckad_run::target()?, &self.donated);
        let mut points = enter(py, points)?.map_err(raise)?;
        for point in &mut points {
            point.bytes = point.bytes.saturating_add(held);
            if self.repeated_flops > 0 {
                point.extra_flops = point.extra_flops.saturating_add(self.repeated_flops);
                point.policy = format!("all again, {}", point.policy);
            }
        }
        Ok(points)
    }

    /// The run as plain data: see `ckad._core.Plan.timeline`.
    pub fn timeline<'py>(
        &self,
        py: Python<'py>,
        planned: &Planned,
        places: &Places,
        columns: usize,
        shown: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (rows, of_line) = places.rows();
        let graph = self.rewritten.as_ref().unwrap_or(&self.graph);
        let row = |node| of_line.get(&graph.attributes(node).line).copied().unwrap_or(0);
        let drawn = enter(py, || timeline(graph, planned, (&row, rows.len()), shown, columns))?.map_err(raise)?;
        let Timeline { steps, rows: shown, columns } = drawn;
        let name = |row: usize| rows.get(row).map_or(("", 0), |name| parts(name));
        let data = PyDict::new(py);
        data.set_item("steps", steps)?;
        data.set_item("lines", shown.iter().map(|&row| name(row)).collect::<Vec<_>>())?;
        data.set_item("first_step", columns.iter().map(|column| column.first_step).collect::<Vec<_>>())?;
        data.set_item("step", columns.iter().map(|column| column.step).collect::<Vec<_>>())?;
        data.set_item("live", columns.iter().map(|column| column.live).collect::<Vec<_>>())?;
        data.set_item("allocated", columns.iter().map(|column| column.allocated).collect::<Vec<_>>())?;
        let held = (0..=shown.len()).map(|row| columns.iter().map(|column| column.held[row]).collect::<Vec<_>>());
        data.set_item("held", held.collect::<Vec<_>>())?;
        data.set_item(
            "computes",
            columns.iter().map(|column| column.computes.map(|node| name(row(node)))).collect::<Vec<_>>(),
        )?;
        for (index, work) in ["forward", "recomputed", "backward"].into_iter().enumerate() {
            data.set_item(work, columns.iter().map(|column| column.reach[index]).collect::<Vec<_>>())?;
        }
        Ok(data)
    }
}
