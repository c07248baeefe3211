//! The plan that `ckad.plan` returns, and how it is caught on its way to a run.
//!
//! While a `Planning` context is open on a thread, the first program that would run outside of any trace is handed
//! to it instead, and `Planned` is raised to unwind the user's call.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use ckad_graph::{Error, tables};
use ckad_plan::footprint::PeakBytes;
use ckad_plan::policy::Planned as Figures;
use ckad_plan::report::bytes_text;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::built::{Executable, Tables};
use crate::errors::raise;
use crate::lines::Lines;
use crate::looked_at::{self, LookedAt, frontier_of_all};
use crate::places::{Places, parts};
use crate::tape::ForcedRuns;

pyo3::create_exception!(ckad._core, Planned, PyBaseException, "Unwinds a call that was only to be planned.");

thread_local! {
    /// The contexts that are open on this thread, the innermost last.
    static PLANNING: RefCell<Vec<Arc<Caught>>> = const { RefCell::new(Vec::new()) };
    /// What forcing has cost since the outermost trace of this thread began.
    static FORCED: RefCell<ForcedRuns> =
        const { RefCell::new(ForcedRuns { count: 0, peak_bytes: 0, live_bytes: 0, flops: 0 }) };
}

/// A run that a call consists of.
#[derive(Clone)]
pub struct PlannedRun {
    program: Arc<Executable>,
    peak: PeakBytes,
    /// Bytes of copies of arguments and of results of runs before, and of what results are put together in: beside it.
    held: usize,
    /// How often it runs.
    times: u64,
}

impl PlannedRun {
    pub fn of(program: &Arc<Executable>, tables: &Tables<'_>, held: usize, times: u64) -> PlannedRun {
        PlannedRun { program: Arc::clone(program), peak: program.peak(tables), held, times }
    }

    fn peak_bytes(&self) -> usize {
        self.peak.total().saturating_add(self.held)
    }

    /// The sum over all times that it runs.
    fn in_all(&self, flops: impl Fn(&Figures) -> u64) -> u64 {
        flops(&self.program.compiled.planned.figures()).saturating_mul(self.times)
    }
}

/// What is known of a call before it runs.
#[pyclass(frozen, module = "ckad", name = "Plan")]
#[derive(Clone)]
pub struct PlanView {
    /// The runs of the call, but for forced ones, in their order.
    runs: Vec<PlannedRun>,
    /// The largest of them: it is explained.
    shown: usize,
    figures: Figures,
    forced: ForcedRuns,
    bytes_moved: u64,
    offloaded_bytes: u64,
    planning_bytes: usize,
    limit: Option<usize>,
    table: String,
    places: Arc<Places>,
    /// Lines that made arrays while they were traced, and their bytes.
    made_inside: Vec<(String, usize)>,
}

/// What comes of a context in which programs are planned.
#[derive(Default)]
struct Caught {
    plan: Mutex<Option<PlanView>>,
    /// What the run before the last that needs most beyond the limit would be refused with.
    refused: Mutex<Option<(usize, PyErr)>>,
}

/// A context in which programs are planned instead of run.
#[pyclass(frozen, module = "ckad._core")]
pub struct Planning {
    caught: Arc<Caught>,
}

#[pymethods]
impl Planning {
    #[new]
    fn new() -> Planning {
        Planning { caught: Arc::default() }
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        PLANNING.with_borrow_mut(|open| open.push(Arc::clone(&this.get().caught)));
        this
    }

    fn __exit__(&self, _kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _traceback: &Bound<'_, PyAny>) -> bool {
        PLANNING.with_borrow_mut(Vec::pop);
        false
    }

    #[getter]
    fn plan(&self) -> Option<PlanView> {
        self.caught.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error of a run before the last that keeps to no limit below what it names.
    #[getter]
    fn refused(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let refused = self.caught.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref().map(|(_, error)| error.clone_ref(py).into_value(py).into_any())
    }
}

/// Notes that a run before the last keeps to no limit below `minimum`.
pub fn note_refused(minimum: usize, error: PyErr) {
    let Some(caught) = PLANNING.with_borrow(|open| open.last().cloned()) else { return };
    let mut refused = caught.refused.lock().unwrap_or_else(PoisonError::into_inner);
    if refused.as_ref().is_none_or(|(least, _)| *least < minimum) {
        *refused = Some((minimum, error));
    }
}

/// Is a plan wanted on this thread?
pub fn is_planning() -> bool {
    PLANNING.with_borrow(|open| !open.is_empty())
}

/// Begins to count forced runs anew: an outermost trace has begun.
pub fn forget_forced() {
    FORCED.set(ForcedRuns::default());
    crate::made_inside::forget();
}

/// Counts a forced run: its peak with what is held beside it, its flops.
pub fn note_forced(peak_bytes: usize, executable: &Executable) {
    FORCED.with_borrow_mut(|forced| {
        forced.count += 1;
        forced.peak_bytes = forced.peak_bytes.max(peak_bytes);
        forced.live_bytes = forced.live_bytes.max(executable.compiled.planned.live_peak);
        forced.flops += executable.compiled.planned.flops;
    });
}

/// Raises `Planned` when a plan is wanted on this thread, of a call that consists of these runs.
pub fn intercept(py: Python<'_>, runs: Vec<PlannedRun>, tables: &Tables<'_>, lines: &Arc<Lines>) -> PyResult<()> {
    let Some(wanted) = PLANNING.with_borrow(|open| open.last().cloned()) else { return Ok(()) };
    let largest =
        runs.iter().enumerate().rev().filter(|(_, run)| run.times > 0).max_by_key(|(_, run)| run.peak_bytes());
    let Some((shown, executable)) = largest.map(|(index, run)| (index, Arc::clone(&run.program))) else {
        return Ok(());
    };
    let compiled = &executable.compiled;
    let Some(looked_at) = &executable.looked_at else { return Ok(()) };
    let places = Places::new(py, tables.graph, lines);
    let table = looked_at.report.text(&|line| places.short(line).to_owned()).map_err(raise)?;
    let made_inside = crate::made_inside::taken(py, lines);
    let table = table + &crate::made_inside::text(&made_inside);
    let plan = PlanView {
        shown,
        figures: compiled.planned.figures(),
        forced: FORCED.with_borrow(|f| *f),
        bytes_moved: compiled.program.bytes_moved(),
        offloaded_bytes: compiled.program.offloaded_bytes(),
        planning_bytes: executable.planning_bytes,
        limit: executable.limit,
        table,
        runs,
        places: Arc::new(places),
        made_inside,
    };
    *wanted.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    Err(Planned::new_err(()))
}

impl PlanView {
    /// The parts of the peak, in the order in which they are shown.
    fn named_parts(&self) -> [(&'static str, usize); 7] {
        let PlannedRun { peak, held, .. } = &self.runs[self.shown];
        [
            ("arena", peak.arena),
            ("outputs", peak.outputs),
            ("scratch", peak.scratch),
            ("constants", peak.constants),
            ("held", *held),
            ("graph", peak.graph),
            ("program", peak.program),
        ]
    }

    fn program(&self) -> &Executable {
        &self.runs[self.shown].program
    }

    fn looked_at(&self) -> PyResult<&LookedAt> {
        self.program().looked_at.as_deref().ok_or_else(not_explained)
    }
}

fn not_explained() -> PyErr {
    raise(Error::internal("plan", "nothing was kept to explain the plan from"))
}

#[pymethods]
impl PlanView {
    /// Bytes that the call holds at most: the sum of `parts`, or the peak of a forced run where that is more.
    #[getter]
    fn peak_bytes(&self) -> usize {
        self.runs.iter().map(PlannedRun::peak_bytes).fold(self.forced.peak_bytes, usize::max)
    }

    /// What the final run allocates, and what is held beside it, by what it is for.
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parts = PyDict::new(py);
        self.named_parts().iter().try_for_each(|(name, bytes)| parts.set_item(name, bytes))?;
        Ok(parts)
    }

    /// The most bytes that deriving, planning and lowering held before the run, as measured: the recorded graph, graphs
    /// derived from it, tables and the program. A structure that was planned before needs none of it.
    #[getter]
    fn planning_bytes(&self) -> usize {
        self.planning_bytes
    }

    /// The limit that it was planned for.
    #[getter]
    fn memory_limit(&self) -> Option<usize> {
        self.limit
    }

    /// The most bytes of values live at once in one run, outputs included.
    #[getter]
    fn live_bytes(&self) -> u64 {
        let runs = self.runs.iter().filter(|run| run.times > 0);
        runs.map(|run| run.program.compiled.planned.live_peak).fold(self.forced.live_bytes, u64::max)
    }

    /// Floating point operations of the call, forced runs included.
    #[getter]
    fn flops(&self) -> u64 {
        self.runs.iter().map(|run| run.in_all(|figures| figures.flops)).fold(self.forced.flops, u64::saturating_add)
    }

    /// Floating point operations of the recorded part, computed once.
    #[getter]
    fn forward_flops(&self) -> u64 {
        self.runs[0].program.compiled.planned.figures().forward_flops
    }

    /// Floating point operations beyond those of keeping everything.
    #[getter]
    fn extra_flops(&self) -> u64 {
        self.runs.iter().map(|run| run.in_all(|figures| figures.extra_flops)).fold(0, u64::saturating_add)
    }

    /// Bytes that kernels read and write in the final run, each operand and result once per kernel.
    #[getter]
    fn bytes_moved(&self) -> u64 {
        self.bytes_moved
    }

    /// Bytes of values that the final run writes to its file; they are read back as often as a later pass needs them.
    #[getter]
    fn offloaded_bytes(&self) -> u64 {
        self.offloaded_bytes
    }

    /// Number of stretches of the program that are recomputed as one; 1 where nothing is.
    #[getter]
    fn segments(&self) -> usize {
        self.figures.segments
    }

    /// Number of runs that control flow on values forced, and the most bytes that one of them held.
    #[getter]
    fn forced_runs(&self) -> (usize, usize) {
        (self.forced.count, self.forced.peak_bytes)
    }

    /// Why the plan is not what the policy would have been, where it is not.
    #[getter]
    fn note(&self) -> Option<&str> {
        self.figures.note.as_deref()
    }

    /// What each source line costs, derivatives included: the lines that hold most at the peak first.
    #[getter]
    fn lines<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.looked_at()?.lines(py, &self.places)
    }

    /// (file, line, bytes) of arrays that the function made with functions of NumPy's own while it was traced, by the
    /// line that reads them first: constants that are held until the call ends.
    #[getter]
    fn made_while_traced(&self) -> Vec<(&str, u32, usize)> {
        let made = self.made_inside.iter().map(|(text, bytes)| (parts(text), *bytes));
        made.map(|((file, line), bytes)| (file, line, bytes)).collect()
    }

    /// The plans of which no other needs as few bytes and as little work, the least memory first.
    fn frontier<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let (mut all, mut other_way) = (Vec::new(), None);
        for run in self.runs.iter().filter(|run| run.times > 0) {
            let looked_at = run.program.looked_at.as_deref().ok_or_else(not_explained)?;
            all.push((looked_at.frontier(py, run.held)?, run.times));
            other_way = other_way.or(looked_at.other_way.as_deref());
        }
        let mut points = frontier_of_all(&all).map_err(raise)?;
        if let (Some(other), [first, last]) = (other_way, self.runs.as_slice()) {
            let held = (last.held + other.owned).saturating_sub(other.instead_of);
            let (known, unknown) = (other.known.frontier(py, first.held)?, other.unknown.frontier(py, held)?);
            let others = frontier_of_all(&[(known, first.times), (unknown, last.times)]).map_err(raise)?;
            tables::extend("plan", &mut points, others).map_err(raise)?;
        }
        let points = looked_at::worth_taking(points);
        looked_at::points(py, &points, self.forced.peak_bytes)
    }

    /// Live bytes over the steps of the final run, by source line.
    #[pyo3(signature = (columns = 600, lines = 12))]
    fn timeline<'py>(&self, py: Python<'py>, columns: usize, lines: usize) -> PyResult<Bound<'py, PyDict>> {
        self.looked_at()?.timeline(py, &self.program().compiled.planned, &self.places, columns, lines)
    }

    /// The plan as one page.
    #[pyo3(signature = (path = None))]
    fn to_html<'py>(this: &Bound<'py, Self>, path: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("ckad.picture.page")?.call_method1("write_page", (this, path))
    }

    /// The page inside a notebook's.
    fn _repr_html_<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("ckad.picture.page")?.call_method1("frame", (this,))
    }

    /// The timeline and the frontier as a PNG file.
    fn to_png<'py>(this: &Bound<'py, Self>, path: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("ckad.picture.png")?.call_method1("write_png", (this, path))
    }

    fn __str__(&self) -> String {
        let row = |name: &str, bytes: u64| format!("{name:<12} {}\n", bytes_text(bytes));
        let mut text = row("peak", self.peak_bytes() as u64);
        if let Some(limit) = self.limit {
            text.push_str(&row("limit", limit as u64));
        }
        for (name, bytes) in self.named_parts() {
            text.push_str(&row(&format!("  {name}"), bytes as u64));
        }
        text.push_str(&row("live", self.live_bytes()));
        if let [_, linear] = &*self.runs {
            let shown = if self.shown == 0 { "the function" } else { "its derivative" };
            let times = "runs         1 of the function,";
            text.push_str(&format!(
                "{times} {} of its derivative; parts and lines are those of {shown}\n",
                linear.times
            ));
        }
        if self.offloaded_bytes > 0 {
            let on_disk = row("on disk", self.offloaded_bytes);
            text.push_str(&format!("{}, in a file while they wait\n", on_disk.trim_end()));
        }
        if self.forced.count > 0 {
            let largest = row("forced runs", self.forced.peak_bytes as u64);
            text.push_str(&format!("{}, the peak of the largest of {}\n", largest.trim_end(), self.forced.count));
        }
        let planning = row("planning", self.planning_bytes as u64);
        text.push_str(&format!("{}, held before the run\n", planning.trim_end()));
        text.push_str(&self.table);
        text
    }

    fn __repr__(&self) -> String {
        format!(
            "<ckad.Plan: peak {} bytes, {} flops, {} extra, {} segments>",
            self.peak_bytes(),
            self.flops(),
            self.extra_flops(),
            self.figures.segments
        )
    }
}
