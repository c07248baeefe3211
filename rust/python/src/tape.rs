//! The tape: the graph that a transform is recording, and what is known of its nodes.
//!
//! First stage of the pipeline. Every traced value holds a [`TapeCell`]; a record goes through
//! [`TapeCell::record`], which checks thread and life, notes the user's line, and lets the caller append nodes.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ckad_graph::{
    Attributes, Constant, DType, Error, ErrorKind, Graph, NodeId, Op, RegionId, Result, shortage, tables,
};
use ckad_prim::Builder;
use pyo3::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::capture::CapturedArrays;
use crate::errors::{raise, to_python};
use crate::guarded::{Guarded, Hold};
use crate::leaf;
use crate::lines::Lines;
use crate::numbers::Numbers;
use crate::repeated::RepeatedOperations;
use crate::value::Value;

/// What a tape is for.
#[derive(Default)]
pub struct Purpose {
    /// The transform that records, as the user calls it.
    pub transform: String,
    /// What it records is run later, for other values of the arguments.
    pub jitted: bool,
    /// It is the body of a loop or branch: what it records is run for values that are not known yet.
    pub body: bool,
    /// It is the rule of a derivative: a body, too, but of this call alone.
    pub rule: bool,
    /// The most bytes that a run of it may allocate.
    pub limit: Option<usize>,
}

/// A tape and what may be asked without locking it.
pub struct TapeCell {
    /// Identity: no two tapes of a process share it.
    pub id: u64,
    /// 0 for a transform called from ordinary Python, n + 1 for one called while a tape of depth n records.
    pub depth: u32,
    /// The depth of the innermost `jit`, or body of a loop, that records here or around: arguments from this depth down
    /// are not known.
    pub jit_depth: Option<u32>,
    /// As `jit_depth`, but of those that record for others: nothing around them is known, either. A rule is recorded in
    /// each call, and can look at what is around it.
    pub others_depth: Option<u32>,
    /// The transform that records, as the user calls it.
    pub transform: String,
    /// It records the body of a loop or branch.
    pub is_body: bool,
    /// It records a rule.
    pub is_rule: bool,
    /// The most bytes that a run may allocate: its own, or else that of the trace around.
    pub limit: Option<usize>,
    thread: u64,
    closed: AtomicBool,
    tape: Guarded<Tape>,
    /// Nodes whose last traced value was dropped, noted without locking the tape.
    dropped: Guarded<Vec<NodeId>>,
    /// Nodes that Python still held when the recording ended, with their lines.
    survivors: Mutex<Vec<(NodeId, u32)>>,
    /// What is to be done when it closes.
    closing: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    /// Lines are shared by a trace and those nested in it. What `jit` records outlives the trace around it, and has
    /// lines of its own.
    pub lines: Arc<Lines>,
}

/// A value of an enclosing trace that this one uses: input `input` of this tape's graph.
pub struct Capture {
    pub tape: Arc<TapeCell>,
    pub node: NodeId,
}

pub struct Tape {
    pub builder: Builder,
    /// For each node: does it depend on a differentiated argument, of this trace or an enclosing one?
    active: Vec<bool>,
    /// For each node: the number of storages and scalars that Python still holds.
    live: Vec<u32>,
    /// Values that are known: those of inputs and constants, and those that were forced.
    pub values: FxHashMap<NodeId, Value>,
    /// Nodes that Python let go of since values were last dropped.
    unheld: Vec<NodeId>,
    /// All nodes before this one were looked at by a force.
    pub forced_until: u32,
    /// What each input beyond the arguments stands for, by input index.
    pub captures: FxHashMap<u32, Capture>,
    captured: FxHashMap<(u64, NodeId), NodeId>,
    /// The region that operations recorded now belong to.
    pub region: RegionId,
    pub arrays: CapturedArrays,
    /// As the cell's.
    pub jit_depth: Option<u32>,
    pub others_depth: Option<u32>,
    pub numbers: Numbers,
    pub repeated: RepeatedOperations,
    /// Those of the cell.
    pub lines: Arc<Lines>,
    /// The caller's own arrays behind inputs that are not differentiated: `np.asarray` gives them back.
    pub originals: FxHashMap<NodeId, Py<PyAny>>,
    /// Bytes of copies that were made of arguments.
    pub copied_arguments: usize,
    copied_constants: CopiedConstants,
}

/// Bytes of the graph's captured arrays that were copied, each counted once: as far as it has been looked at.
#[derive(Default)]
struct CopiedConstants {
    looked_at: usize,
    bytes: usize,
    seen: FxHashSet<usize>,
}

impl CopiedConstants {
    fn look_at(&mut self, constants: &[Constant]) -> Result<usize> {
        for constant in &constants[self.looked_at..] {
            let bytes = constant.owned_bytes();
            if bytes > 0 {
                self.seen.try_reserve(1).map_err(|_| Error::memory("record", constants.len()))?;
                let new = self.seen.insert(Arc::as_ptr(constant).cast::<u8>() as usize);
                self.bytes += if new { bytes } else { 0 };
            }
            self.looked_at += 1;
        }
        Ok(self.bytes)
    }
}

/// What forcing values has cost so far; the plan counts it.
#[derive(Clone, Copy, Default)]
pub struct ForcedRuns {
    pub count: usize,
    pub peak_bytes: usize,
    /// The most bytes of values live at once in one of them.
    pub live_bytes: u64,
    pub flops: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The id that the next tape gets: ids grow.
#[inline]
pub fn next_id() -> u64 {
    NEXT_ID.load(Ordering::Relaxed)
}

/// A number that no other thread of the process ever has. Asked for each operation: a constant to begin with, so that
/// there is nothing to look after but the number itself.
#[inline]
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static ID: Cell<u64> = const { Cell::new(0) });
    ID.with(|id| {
        if id.get() == 0 {
            id.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        id.get()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held was reported where it happened; the data stays usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Most traced values whose lines are remembered after their transform.
const MOST_SURVIVORS: usize = 1000;

#[cold]
fn of_another_thread() -> Error {
    Error::new(ErrorKind::Tracer, "record", "a traced value was used from another thread")
        .with_hint("call the transform in the thread that uses its values")
}

#[cold]
fn closed() -> Error {
    Error::new(ErrorKind::Tracer, "record", "a traced value was used after the transform that made it had returned")
        .with_hint("return it from the function with has_aux=True")
}

impl TapeCell {
    pub fn new(parent: Option<&Arc<TapeCell>>, purpose: Purpose) -> Arc<TapeCell> {
        let Purpose { transform, jitted, body, rule, limit } = purpose;
        // What `jit` records outlives the trace around it.
        let limit = limit.or_else(|| parent.filter(|_| !jitted).and_then(|parent| parent.limit));
        let depth = parent.map_or(0, |parent| parent.depth + 1);
        let own = |here: bool, around: fn(&TapeCell) -> Option<u32>| {
            if here { Some(depth) } else { parent.and_then(|parent| around(parent)) }
        };
        let jit_depth = own(jitted || body || rule, |parent| parent.jit_depth);
        let others_depth = own(jitted || body, |parent| parent.others_depth);
        let lines = parent.filter(|_| !jitted).map_or_else(Arc::default, |parent| Arc::clone(&parent.lines));
        Arc::new(TapeCell {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            depth,
            jit_depth,
            others_depth,
            transform,
            is_body: body,
            is_rule: rule,
            limit,
            thread: this_thread(),
            closed: AtomicBool::new(false),
            tape: Guarded::new(Tape {
                builder: Builder::new(Graph::new()),
                active: Vec::new(),
                live: Vec::new(),
                values: FxHashMap::default(),
                unheld: Vec::new(),
                forced_until: 0,
                captures: FxHashMap::default(),
                captured: FxHashMap::default(),
                region: RegionId(0),
                arrays: CapturedArrays::default(),
                jit_depth,
                others_depth,
                numbers: Numbers::default(),
                repeated: RepeatedOperations::default(),
                lines: Arc::clone(&lines),
                originals: FxHashMap::default(),
                copied_arguments: 0,
                copied_constants: CopiedConstants::default(),
            }),
            dropped: Guarded::default(),
            survivors: Mutex::new(Vec::new()),
            closing: Mutex::default(),
            lines,
        })
    }

    /// Does it record around what records for others, at that depth? What that does with its values must hold for any.
    pub fn is_around(&self, others_depth: Option<u32>) -> bool {
        others_depth.is_some_and(|depth| self.depth < depth)
    }

    /// Frees what was recorded; traced values that survive raise from now on.
    pub fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Relaxed);
        leaf::forget_closed(py);
        let mut tape = self.tape.hold(py);
        self.note_survivors(py, &mut tape);
        let mut arrays = std::mem::take(&mut tape.arrays);
        let emptied = (
            std::mem::take(&mut tape.values),
            std::mem::take(&mut tape.captures),
            std::mem::take(&mut tape.originals),
            std::mem::take(&mut tape.numbers),
        );
        tape.captured = FxHashMap::default();
        tape.repeated = RepeatedOperations::default();
        tape.active = Vec::new();
        tape.live = Vec::new();
        tape.unheld = Vec::new();
        let graph = std::mem::replace(&mut tape.builder, Builder::new(Graph::new()));
        drop(tape);
        // Without the hold: where arrays and values go, Python code may run.
        arrays.restore(py);
        drop((arrays, emptied, graph));
        let closing = std::mem::take(&mut *lock(&self.closing));
        closing.into_iter().for_each(|then| then());
    }

    /// Does `then` when the tape closes.
    pub fn when_closed(&self, then: Box<dyn FnOnce() + Send>) {
        lock(&self.closing).push(then);
    }

    /// What a line of another table is in this tape's.
    pub fn line_from(&self, py: Python<'_>, table: &Arc<Lines>, line: u32) -> u32 {
        if Arc::ptr_eq(table, &self.lines) {
            return line;
        }
        table.place(py, line).map_or(0, |(code, lasti)| self.lines.of_place(&code, lasti))
    }

    /// Remembers the lines of what Python holds now, for [`TapeCell::used_after_close`].
    pub fn note_survivors(&self, py: Python<'_>, tape: &mut Tape) {
        self.settle(py, tape);
        let graph = tape.builder.graph();
        let held = graph.ids().filter(|id| tape.live.get(id.index()).is_some_and(|&count| count > 0));
        let found: Vec<_> = held.take(MOST_SURVIVORS).map(|id| (id, graph.attributes(id).line)).collect();
        if !found.is_empty() {
            *lock(&self.survivors) = found;
        }
    }

    /// The error for a traced value that outlived its transform.
    pub fn used_after_close(&self, py: Python<'_>, node: NodeId) -> PyErr {
        let line = lock(&self.survivors).iter().find(|(survivor, _)| *survivor == node).map(|(_, line)| *line);
        let place = line.map_or_else(String::new, |line| self.lines.text(py, line));
        to_python(&closed(), &place)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The tape for reading and recording, after checking that it is this thread's and still open.
    #[inline]
    pub fn open<'a>(&'a self, py: Python<'a>) -> Result<Hold<'a, Tape>> {
        if self.thread != this_thread() {
            return Err(of_another_thread());
        }
        if self.is_closed() {
            return Err(closed());
        }
        Ok(self.tape.hold(py))
    }

    /// Appends what `append` builds, under the user's current line, and returns what it returns.
    #[inline]
    pub fn record<R>(&self, py: Python<'_>, append: impl FnOnce(&mut Tape) -> Result<R>) -> PyResult<R> {
        let line = self.lines.current(py);
        shortage::check("record").map_err(raise)?;
        let mut tape = self.open(py).map_err(raise)?;
        let position = tape.builder.graph().len() as u32;
        tape.builder.set_attributes(Attributes { line, position, pass: 0, region: tape.region });
        let result = append(&mut tape).and_then(|value| tape.builder.take_error().map(|()| value));
        tape.note_new_nodes().and(result).map_err(raise)
    }

    /// Remembers the caller's array behind an input.
    pub fn keep_original(&self, node: NodeId, array: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut tape = self.open(array.py()).map_err(raise)?;
        tables::room_for_keys("record", &mut tape.originals, 1).map_err(raise)?;
        tape.originals.insert(node, array.clone().unbind());
        Ok(())
    }

    /// The caller's array behind an input that is not differentiated.
    pub fn original(&self, py: Python<'_>, node: NodeId) -> Option<Py<PyAny>> {
        self.open(py).ok()?.originals.get(&node).map(|array| array.clone_ref(py))
    }

    /// Reads from the tape.
    pub fn read<R>(&self, py: Python<'_>, look: impl FnOnce(&Tape) -> R) -> PyResult<R> {
        self.open(py).map(|tape| look(&tape)).map_err(raise)
    }

    /// Notes that Python holds `node`; each call is balanced by one `release`.
    pub fn release(&self, py: Python<'_>, node: NodeId) {
        if self.is_closed() {
            return;
        }
        // Nobody can be told here. A node that is not noted counts as held until the trace ends, which only costs
        // memory.
        let Some(mut dropped) = self.dropped.try_hold(py) else { return };
        if tables::push("record", &mut dropped, node).is_err() {
            shortage::note(size_of::<NodeId>());
        }
    }

    /// Takes note of every released node.
    pub fn settle(&self, py: Python<'_>, tape: &mut Tape) {
        let dropped = std::mem::take(&mut *self.dropped.hold(py));
        for node in dropped {
            let count = &mut tape.live[node.index()];
            *count = count.saturating_sub(1);
            if *count == 0 && tables::push("record", &mut tape.unheld, node).is_err() {
                // As in `release`: its value stays until the trace ends.
                shortage::note(size_of::<NodeId>());
            }
        }
    }
}

impl Tape {
    /// Extends the per-node tables over nodes appended since the last call.
    #[inline]
    fn note_new_nodes(&mut self) -> Result<()> {
        let (from, until) = (self.active.len(), self.builder.graph().len());
        if from == until { Ok(()) } else { self.note_nodes(from, until) }
    }

    fn note_nodes(&mut self, from: usize, until: usize) -> Result<()> {
        let graph = self.builder.graph();
        let refused = |_| Error::memory("record", until);
        self.active.try_reserve(until - from).map_err(refused)?;
        self.live.try_reserve(until - from).map_err(refused)?;
        for id in (from as u32..until as u32).map(NodeId) {
            let carries = graph.dtype(id).is_float() && !matches!(graph.op(id), Op::StopGradient);
            let active = carries && graph.operands(id).iter().any(|operand| self.active[operand.index()]);
            self.active.push(active);
            self.live.push(0);
        }
        Ok(())
    }

    /// [`Tape::retain`] of a node with its dtype that was just recorded and is no leaf.
    #[inline]
    pub fn retain_new(&mut self, node: NodeId, dtype: DType, operands: &[NodeId]) -> Result<()> {
        self.builder.take_error()?;
        let index = node.index();
        if self.active.len() == index && self.active.capacity() > index && self.live.capacity() > index {
            let active = dtype.is_float() && operands.iter().any(|operand| self.active[operand.index()]);
            self.active.push(active);
            self.live.push(1);
            return Ok(());
        }
        self.note_new_nodes()?;
        self.live[index] += 1;
        Ok(())
    }

    /// Bytes of the copies that were made of arguments and of captured arrays.
    pub fn copied_bytes(&mut self) -> Result<usize> {
        let graph = self.builder.graph();
        Ok(self.copied_arguments + self.copied_constants.look_at(&graph.constants)?)
    }

    /// The recorded graph; the tape starts again from nothing.
    pub fn take_graph(&mut self) -> Graph {
        self.unheld.clear();
        self.repeated = RepeatedOperations::default();
        self.copied_constants = CopiedConstants::default();
        let graph = std::mem::take(&mut *self.builder.graph_mut());
        *self.builder.graph_mut() = Graph::new();
        graph
    }

    /// Does the node depend on a differentiated argument of this trace or an enclosing one?
    pub fn is_active(&self, node: NodeId) -> bool {
        self.active[node.index()]
    }

    /// Notes that Python holds `node` from now on; it may be one that is just being recorded. The last thing that may
    /// fail while that is: nobody would release the node.
    pub fn retain(&mut self, node: NodeId) -> Result<()> {
        self.builder.take_error()?;
        self.note_new_nodes()?;
        self.live[node.index()] += 1;
        Ok(())
    }

    /// Values that nobody can ask for any more, to be dropped by the caller once the tape is unlocked. Only when all
    /// that is live has a value: until then pending nodes read those that were released.
    pub fn take_unheld(&mut self) -> Vec<Value> {
        let mut freed = Vec::new();
        for node in std::mem::take(&mut self.unheld) {
            if !self.is_live(node) && !self.builder.graph().op(node).is_leaf() {
                freed.extend(self.values.remove(&node));
            }
        }
        freed
    }

    pub fn is_live(&self, node: NodeId) -> bool {
        self.live[node.index()] > 0
    }

    /// Appends an argument. `active`: it is differentiated.
    pub fn input(&mut self, dtype: DType, shape: &[i64], active: bool, value: Option<Value>) -> Result<NodeId> {
        let shape = self.builder.intern(shape)?;
        let attributes = self.builder.attributes();
        let node = self.builder.graph_mut().push_input(dtype, shape, attributes)?;
        self.note_new_nodes()?;
        self.active[node.index()] = active && dtype.is_float();
        if let Some(value) = value {
            tables::room_for_keys("record", &mut self.values, 1)?;
            self.values.insert(node, value);
        }
        Ok(node)
    }

    /// The input of this tape that stands for a node of an enclosing tape; the same one at each use.
    pub fn capture(&mut self, py: Python<'_>, outer: &Arc<TapeCell>, node: NodeId) -> Result<NodeId> {
        if let Some(&known) = self.captured.get(&(outer.id, node)) {
            return Ok(known);
        }
        let (dtype, shape, active, value) = {
            let tape = outer.open(py)?;
            let graph = tape.builder.graph();
            let value = tape.values.get(&node).filter(|_| !outer.is_around(self.others_depth)).cloned();
            (graph.dtype(node), graph.shape(node).to_vec(), tape.is_active(node), value)
        };
        let input = self.input(dtype, &shape, active, value)?;
        let index = self.builder.graph().inputs.len() as u32 - 1;
        tables::room_for_keys("record", &mut self.captures, 1)?;
        tables::room_for_keys("record", &mut self.captured, 1)?;
        self.captures.insert(index, Capture { tape: Arc::clone(outer), node });
        self.captured.insert((outer.id, node), input);
        Ok(input)
    }
}
