//! Building and caching programs on behalf of a Python call.
//!
//! A recorded graph is looked up by its structure together with the transform and the policy. A hit skips transform,
//! plan and lower; a miss builds without the GIL.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ckad_graph::{CheckpointPolicy, Constant, Error, ErrorKind, Graph, Op, Result, ScalarBits, tables, working};
use ckad_plan::compile::{Compiled, compile_loops};
use ckad_plan::footprint::PeakBytes;
use ckad_plan::within::{Fitted, TooSmall, compile_loops_within};
use ckad_run::ProgramCache;
use ckad_transform::{Absorbed, Side, without_customs};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::ask::Ask;
use crate::boundary::enter;
use crate::chosen::with_lines;
use crate::convert::owned;
use crate::errors::{over_limit, to_python};
use crate::kind::Kind;
use crate::limited::{Around, fitting};
use crate::linearised::linearised;
use crate::lines::Lines;
use crate::looked_at::{LookedAt, OtherWay};
use crate::plan_view::is_planning;
use crate::trace::{Recorded, open_tapes};
use crate::value::Snapshot;
use crate::watching::is_watching;

/// What a cached program was built from, beside the graph.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub kind: Kind,
    pub ask: Ask,
    /// Under a limit: bytes of captured arrays that were copied, which count, and of the others, of which a linear
    /// function makes copies.
    captured: (usize, usize),
    /// Lengths of the tables of scalars and starts, behind which the program has its own: a graph may have entries that
    /// none of its nodes needs any more.
    pub recorded: (usize, usize),
}

/// A program with what a run of it needs to know.
pub struct Executable {
    pub compiled: Compiled,
    /// Tape position of each node: names the line of a step in whatever trace runs it.
    pub positions: Vec<u32>,
    /// What a plan is explained from, where the program was built only to be looked at.
    pub looked_at: Option<Box<LookedAt>>,
    /// The user's limit that it was planned for.
    pub limit: Option<usize>,
    /// Where it was built only to be looked at: the most bytes held while the graph was derived, planned and lowered,
    /// the recorded one included.
    pub planning_bytes: usize,
    /// Where somebody is watching: the program that says where products absorbed.
    pub watch: Option<Box<Watch>>,
}

/// A program whose results say, for each of these lines, whether a product absorbed there.
pub struct Watch {
    pub executable: Executable,
    pub lines: Vec<u32>,
}

/// What is wanted of a program beside running it. A program of which anything is wanted is not cached.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    pub report: bool,
    watch: bool,
}

impl Wanted {
    fn now() -> Wanted {
        Wanted { report: is_planning(), watch: is_watching() }
    }
}

/// Is a program wanted for more than its results on this thread? Then it is built anew.
pub fn is_looked_at() -> bool {
    Wanted::now() != Wanted::default()
}

/// What one recorded graph was built into.
pub enum Built {
    One(Arc<Executable>),
    /// A linearisation: the part that is known at the point, and the linear rest.
    Two {
        known: Arc<Executable>,
        unknown: Arc<Executable>,
        graph: Box<Graph>,
        sides: Vec<Side>,
        residuals: usize,
        /// Bytes that the linear function owns.
        owned: usize,
    },
}

impl Built {
    /// The program that runs first.
    fn first(&self) -> &Arc<Executable> {
        match self {
            Built::One(executable) | Built::Two { known: executable, .. } => executable,
        }
    }

    /// The most bytes held by either run and between them, where so many are held beside the second.
    pub fn most_held(&self, beside: usize) -> usize {
        let first = self.first().compiled.peak.total();
        let Built::Two { unknown, owned, .. } = self else { return first };
        first.max(unknown.compiled.peak.total().saturating_add(*owned).saturating_add(beside))
    }

    /// Has the other way to split the linearisation seen beside this one.
    pub fn look_at(&mut self, other: Built) {
        let Built::Two { unknown, owned, .. } = self else { return };
        let Built::Two { known: other_known, unknown: other_unknown, owned: other_owned, .. } = other else { return };
        let parts = [other_known, other_unknown].map(|part| Arc::into_inner(part).and_then(|part| part.looked_at));
        if let ([Some(known), Some(rest)], Some(unknown)) = (parts, Arc::get_mut(unknown))
            && let Some(looked_at) = &mut unknown.looked_at
        {
            let way = OtherWay { known, unknown: rest, owned: other_owned, instead_of: *owned };
            looked_at.other_way = Some(Box::new(way));
        }
    }

    fn planned_in(mut self, bytes: usize) -> Built {
        let executables = match &mut self {
            Built::One(one) => vec![one],
            Built::Two { known, unknown, .. } => vec![known, unknown],
        };
        // Nobody else has them yet.
        for executable in executables.into_iter().filter_map(Arc::get_mut) {
            executable.planning_bytes = bytes;
        }
        self
    }
}

/// The values of a graph that are inputs of its program.
pub struct Tables<'a> {
    /// Whose they are: names lines.
    pub graph: &'a Graph,
    pub scalars: &'a [ScalarBits],
    pub starts: &'a [i64],
    pub constants: &'a [Constant],
}

impl<'a> Tables<'a> {
    pub fn of(graph: &'a Graph) -> Tables<'a> {
        Tables { graph, scalars: &graph.scalars, starts: &graph.starts, constants: &graph.constants }
    }

    /// Bytes of captured arrays that were copied, each counted once.
    pub fn owned_constants(&self) -> usize {
        self.captured().0
    }

    /// The same, and bytes of those that are the caller's.
    fn captured(&self) -> (usize, usize) {
        let mut seen = rustc_hash::FxHashSet::default();
        let distinct = self.constants.iter().filter(|constant| seen.insert(Arc::as_ptr(constant).cast::<u8>()));
        distinct.fold((0, 0), |(owned, others), constant| match constant.owned_bytes() {
            0 => (owned, others + constant.bytes().len()),
            bytes => (owned + bytes, others),
        })
    }

    /// A copy of a derived graph with these values in front of those that rules added.
    /// `outlives`: it is to outlive the call.
    pub fn applied_to(&self, derived: &Graph, outlives: bool) -> Result<Graph> {
        let mut graph = derived.copied()?;
        graph.scalars[..self.scalars.len()].copy_from_slice(self.scalars);
        graph.starts[..self.starts.len()].copy_from_slice(self.starts);
        graph.constants = tables::list("linear", self.constants.iter().cloned())?;
        // What it reads after the call must be its own, and what it does not read must not be held.
        let mut read = tables::filled("linear", false, graph.constants.len())?;
        for id in graph.ids() {
            if let Op::Constant(index) = graph.op(id) {
                read[index as usize] = true;
            }
        }
        for (constant, read) in graph.constants.iter_mut().zip(read) {
            if !read {
                *constant = Snapshot::shared(&[])?;
            } else if outlives {
                *constant = owned(constant)?;
            }
        }
        Ok(graph)
    }
}

/// Most bytes of programs that are kept.
const CACHE_BYTES: usize = 256 << 20;

static CACHE: LazyLock<ProgramCache<Key, Built>> = LazyLock::new(|| ProgramCache::new(CACHE_BYTES));

/// Forgets every program.
pub fn clear_cache() {
    CACHE.clear();
}

/// Floating point operations of one run.
pub fn flops_of(executable: &Executable) -> u64 {
    executable.compiled.planned.flops
}

/// Why there is no program.
pub enum Stop {
    Failed(Error),
    TooSmall(TooSmall),
}

impl Stop {
    /// Of two refusals, the one with the lower limit.
    pub fn or_smaller(self, other: TooSmall) -> Stop {
        match self {
            Stop::TooSmall(own) if other.minimum < own.minimum => Stop::TooSmall(other),
            own => own,
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

pub fn finished(graph: &Graph, ask: Ask, recorded: (usize, usize), wanted: Wanted) -> Result<Executable, Stop> {
    finished_donating(graph, ask, recorded, wanted, &[])
}

fn finished_donating(
    graph: &Graph,
    ask: Ask,
    recorded: (usize, usize),
    wanted: Wanted,
    donated: &[bool],
) -> Result<Executable, Stop> {
    let target = ckad_run::target()?;
    let plain = without_customs(graph)?;
    let graph = plain.as_ref().unwrap_or(graph);
    let watch = if wanted.watch { watch(graph, recorded)? } else { None };
    let begun = Instant::now();
    let planned = match ask.limit {
        None => {
            let policy = ask.policy.unwrap_or(CheckpointPolicy::Auto);
            compile_loops(graph, policy, &target, donated).map(|(compiled, rewritten)| Ok((compiled, rewritten)))
        }
        Some(limit) => compile_loops_within(graph, ask.policy, limit, &target, donated).map(|fitted| match fitted {
            (Fitted::Fits(compiled), rewritten) => Ok((*compiled, rewritten)),
            (Fitted::TooSmall(refused), _) => Err(Stop::TooSmall(refused)),
        }),
    };
    BUILDING.set(Building { planning: begun.elapsed(), nodes: graph.len(), ..BUILDING.get() });
    let (mut compiled, rewritten) = planned??;
    let looked_at = match wanted.report {
        true => Some(Box::new(LookedAt::new(graph, rewritten.as_ref(), &compiled.planned, donated)?)),
        false => None,
    };
    let graph = rewritten.as_ref().unwrap_or(graph);
    compiled.program.set_recorded(graph, recorded.0, recorded.1)?;
    let positions = tables::list("plan", graph.ids().map(|id| graph.attributes(id).position))?;
    let limit = ask.limit.map(|limit| limit.saturating_add(ask.held));
    Ok(Executable { compiled, positions, looked_at, limit, planning_bytes: 0, watch })
}

fn watch(graph: &Graph, recorded: (usize, usize)) -> Result<Option<Box<Watch>>, Stop> {
    let Absorbed { graph, lines } = ckad_transform::absorbed(graph)?;
    if lines.is_empty() {
        return Ok(None);
    }
    let executable = finished(&graph, CheckpointPolicy::None.into(), recorded, Wanted::default())?;
    Ok(Some(Box::new(Watch { executable, lines })))
}

/// A program for a graph that was transformed already.
pub fn compile(py: Python<'_>, graph: &Graph, policy: CheckpointPolicy, lines: &Arc<Lines>) -> PyResult<Executable> {
    let recorded = (graph.scalars.len(), graph.starts.len());
    let wanted = Wanted::now();
    build(py, graph, lines, policy.into(), || finished(graph, policy.into(), recorded, wanted))
}

fn build<R: Send>(
    py: Python<'_>,
    graph: &Graph,
    lines: &Arc<Lines>,
    ask: Ask,
    job: impl FnOnce() -> Result<R, Stop> + Send,
) -> PyResult<R> {
    with_lines(lines, || enter(py, job))?.map_err(|stop| match stop {
        Stop::Failed(error) => to_python(&error, &refused_at(py, graph, &error, lines)),
        Stop::TooSmall(refused) => over_limit(py, &refused, ask, lines),
    })
}

/// The line of what is refused, "" where no operation is at fault. A planner's table belongs to none: it is refused to
/// whoever asked for the result.
pub fn refused_at(py: Python<'_>, graph: &Graph, error: &Error, lines: &Arc<Lines>) -> String {
    let result = graph.outputs.first().filter(|_| error.kind == ErrorKind::Memory && error.line == 0);
    let line = result.map_or(error.line, |&output| graph.attributes(output).line);
    lines.text(py, line)
}

/// The program for a recorded graph under a transform and a policy, from the cache or newly built. `applied`: as
/// [`Ask::applied`] has it.
pub fn built(
    py: Python<'_>,
    recorded: &Recorded,
    kind: Kind,
    policy: Option<CheckpointPolicy>,
    around: Around,
    applied: Option<usize>,
) -> PyResult<Arc<Built>> {
    let made = |ask| cached(py, &recorded.graph, kind.clone(), ask, &recorded.lines);
    if around.enclosed {
        let leaves_room = open_tapes().last().is_some_and(|tape| tape.limit.is_some());
        let free = made(Ask { leaves_room, ..Ask::beside(0, None, policy) })?;
        let tables = Tables::of(&recorded.graph);
        let needs = |built: &Arc<Built>| built.first().peak_bytes(&tables);
        return fitting(py, around.held, free, needs, |ask| made(Ask { policy, leaves_room, ..ask }));
    }
    made(Ask { applied, ..Ask::beside(around.held, recorded.limit, policy) })
}

/// The program that computes a graph's outputs as they are.
pub fn evaluated(
    py: Python<'_>,
    graph: &Graph,
    kind: &Kind,
    ask: Ask,
    lines: &Arc<Lines>,
) -> PyResult<Arc<Executable>> {
    Ok(Arc::clone(cached(py, graph, kind.clone(), ask, lines)?.first()))
}

fn cached(py: Python<'_>, graph: &Graph, kind: Kind, mut ask: Ask, lines: &Arc<Lines>) -> PyResult<Arc<Built>> {
    if ask.limit.is_none() {
        ask.policy = ask.policy.or(Some(CheckpointPolicy::Auto));
    }
    let captured = ask.limit.map_or((0, 0), |_| Tables::of(graph).captured());
    let key = Key { kind, ask, captured, recorded: (graph.scalars.len(), graph.starts.len()) };
    let wanted = Wanted::now();
    if wanted != Wanted::default() {
        return Ok(Arc::new(build(py, graph, lines, ask, || {
            let (made, held) = working::measure(|| make(graph, &key, wanted));
            Ok(made?.planned_in(graph.own_bytes() + held.most.unsigned_abs()))
        })?));
    }
    CACHE.get_or_make(graph, key.clone(), || {
        let made = build(py, graph, lines, ask, || make(graph, &key, wanted))?;
        let bytes = bytes_of(&made);
        Ok((made, bytes))
    })
}

fn make(graph: &Graph, key: &Key, wanted: Wanted) -> Result<Built, Stop> {
    BUILDING.set(Building::default());
    if ckad_plan::verify::verifying() {
        ckad_prim::verify(graph)?;
    }
    let recorded = key.recorded;
    if matches!(key.kind, Kind::Linearize(_) | Kind::Vjp(_)) {
        return linearised(graph, key, wanted);
    }
    let begun = Instant::now();
    let derived = key.kind.transform(graph)?;
    BUILDING.set(Building { deriving: begun.elapsed(), ..Building::default() });
    let donated = match &key.kind {
        Kind::Donating(donated) => donated.as_slice(),
        _ => &[],
    };
    Ok(Built::One(Arc::new(finished_donating(&derived, key.ask, recorded, wanted, donated)?)))
}

thread_local! {
    /// What the last program of this thread took.
    static BUILDING: Cell<Building> = Cell::default();
}

/// How long a program took to derive, and to plan and lower, and of how many nodes it is.
#[derive(Clone, Copy, Default)]
struct Building {
    deriving: Duration,
    planning: Duration,
    nodes: usize,
}

/// For `benches/scaling.py` and `benches/planning.py`, which have no other way to tell the stages of a call apart:
/// seconds of deriving, seconds of planning and lowering, and how many nodes were planned, of the last program that
/// this thread made, or refused because of a limit.
#[pyfunction]
pub fn building() -> (f64, f64, usize) {
    let Building { deriving, planning, nodes } = BUILDING.get();
    (deriving.as_secs_f64(), planning.as_secs_f64(), nodes)
}

fn bytes_of(built: &Built) -> usize {
    match built {
        Built::One(one) => one.own_bytes(),
        Built::Two { known, unknown, graph, .. } => known.own_bytes() + unknown.own_bytes() + graph.own_bytes(),
    }
}

impl Executable {
    /// Bytes that the program itself occupies.
    pub fn own_bytes(&self) -> usize {
        self.compiled.peak.program + self.compiled.peak.graph + self.positions.len() * size_of::<u32>()
    }

    /// File and line of each node's recorded operation.
    pub fn places(&self, py: Python<'_>, recorded: &Graph, lines: &Lines) -> Result<Vec<(Arc<str>, u32)>> {
        let unknown: (Arc<str>, u32) = (Arc::from("<ckad>"), 0);
        let mut line_at: FxHashMap<u32, u32> = FxHashMap::default();
        tables::room_for_keys("profile", &mut line_at, recorded.len())?;
        let mut by_line: FxHashMap<u32, (Arc<str>, u32)> = FxHashMap::default();
        for id in recorded.ids() {
            let attributes = recorded.attributes(id);
            line_at.insert(attributes.position, attributes.line);
            if !by_line.contains_key(&attributes.line) {
                tables::room_for_keys("profile", &mut by_line, 1)?;
                let place = lines.resolve(py, attributes.line).map(|(file, line)| (Arc::from(file), line));
                by_line.insert(attributes.line, place.unwrap_or_else(|| unknown.clone()));
            }
        }
        let place = |position| line_at.get(position).and_then(|line| by_line.get(line)).unwrap_or(&unknown).clone();
        tables::list("profile", self.positions.iter().map(place))
    }

    /// What a run allocates, by what it is for. A cached program's constants are those of the call that built it.
    pub fn peak(&self, tables: &Tables<'_>) -> PeakBytes {
        PeakBytes { constants: tables.owned_constants(), ..self.compiled.peak }
    }

    /// What a run allocates.
    pub fn peak_bytes(&self, tables: &Tables<'_>) -> usize {
        self.peak(tables).total()
    }
}
