//! `ckad.jit`: a function recorded once per shapes and dtypes, and run without Python from then on.
//!
//! `call` says what a call passes, `captured` what a recording depends on beside it, `donation` what the caller gives
//! up, `entry` is one recording: a graph that is run, or spliced where the call belongs to a trace. Whether a recording
//! serves a call is asked before each.

mod call;
mod captured;
mod donation;
mod entry;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ckad_graph::Attributes;
use pyo3::PyTraverseError;
use pyo3::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::convert::is_array;
use crate::errors::raise;
use crate::plan_view::forget_forced;
use crate::trace::{Trace, open_tapes};
use crate::tracer::Tracer;
use call::{Call, Leaf, Marked};
use captured::Watches;
use entry::{Entry, Returned, Returns};

/// Most recordings that one function keeps, and most bytes of their graphs and programs: those that were used longest
/// ago go.
const MOST_ENTRIES: usize = 256;
const MOST_BYTES: usize = 256 << 20;

/// Recordings, the most recently used first.
type Entries = Mutex<Arc<Vec<Arc<Entry>>>>;

/// The recordings of every jitted function.
static ALL: Mutex<Vec<Weak<Entries>>> = Mutex::new(Vec::new());

/// Drops all programs of recordings: they are found or made anew when they are wanted.
pub fn forget_programs() {
    let all: Vec<Arc<Entries>> =
        ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
    for entries in all {
        let entries = Arc::clone(&entries.lock().unwrap_or_else(PoisonError::into_inner));
        entries.iter().for_each(|entry| entry.forget_program());
    }
}

/// A jitted function's recordings.
#[pyclass(frozen, module = "ckad._core", weakref)]
pub struct Jitted {
    statics: Marked,
    donated: Marked,
    entries: Arc<Entries>,
}

/// The arguments of one call that is to be recorded.
#[pyclass(frozen, module = "ckad._core")]
pub struct JitCall {
    call: Call,
}

#[pymethods]
impl JitCall {
    /// The leaves that are neither numbers nor arrays of numbers.
    #[getter]
    fn held(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let held = |leaf: &Leaf| match leaf {
            Leaf::Held(object) => Some(object.clone_ref(py)),
            Leaf::Traced(..) => None,
        };
        self.call.leaves.iter().filter_map(held).collect()
    }

    /// The arguments as traced values of a jitted trace.
    fn traced<'py>(&self, py: Python<'py>, trace: &Trace) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let mut leaves = Vec::with_capacity(self.call.leaves.len());
        for leaf in &self.call.leaves {
            let spec = match leaf {
                Leaf::Held(object) => {
                    leaves.push(object.bind(py).clone());
                    continue;
                }
                Leaf::Traced(spec, _) => spec,
            };
            let mut tape = trace.tape.open(py).map_err(raise)?;
            tape.builder.set_attributes(Attributes::default());
            let node = tape.input(spec.dtype, &spec.extents, spec.active, None).map_err(raise)?;
            drop(tape);
            let tracer = match (spec.is_array, &spec.strides) {
                (false, _) => Tracer::scalar(py, Arc::clone(&trace.tape), node)?.weak_if(spec.weak),
                (true, None) => Tracer::array(py, Arc::clone(&trace.tape), node, spec.layout.clone(), spec.read_only)?,
                (true, Some(strides)) => {
                    Tracer::argument(py, &trace.tape, node, spec.layout.clone(), strides.clone(), spec.read_only)?
                }
            };
            leaves.push(tracer.into_object(py)?.into_bound(py));
        }
        self.call.rebuilt(py, leaves)
    }
}

/// What [`Jitted::call`] returns where no recording serves.
#[pyclass(frozen, module = "ckad._core")]
pub struct NotRecorded;

impl Jitted {
    fn entries(&self) -> Arc<Vec<Arc<Entry>>> {
        Arc::clone(&self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The recording that serves a call.
    fn find(&self, py: Python<'_>, call: &Call) -> PyResult<Option<Arc<Entry>>> {
        // Comparing runs Python code, maybe this very function: not under the lock.
        let entries = self.entries();
        let (mut stale, mut found) = (Vec::new(), None);
        for (position, entry) in entries.iter().enumerate() {
            if !entry.is_for(py, call)? {
                continue;
            }
            if entry.holds(py)? {
                found = Some((position, Arc::clone(entry)));
                break;
            }
            stale.push(Arc::clone(entry));
        }
        // Whoever else looks at the list makes a change copy it.
        drop(entries);
        if !stale.is_empty() {
            take_out(&self.entries, |entry| stale.iter().any(|old| Arc::ptr_eq(old, entry)));
        }
        let Some((position, entry)) = found else { return Ok(None) };
        if position > 0 {
            change(&self.entries, |entries| {
                if let Some(at) = entries.iter().position(|other| Arc::ptr_eq(other, &entry)) {
                    entries[..=at].rotate_right(1);
                }
            });
        }
        Ok(Some(entry))
    }

    /// Keeps a recording as long as the traces whose values it reads are open.
    fn keep(&self, entry: &Arc<Entry>) {
        for tape in entry.tapes() {
            let (entries, entry) = (Arc::downgrade(&self.entries), Arc::downgrade(entry));
            tape.when_closed(Box::new(move || {
                if let (Some(entries), Some(entry)) = (entries.upgrade(), entry.upgrade()) {
                    take_out(&entries, |other| Arc::ptr_eq(other, &entry));
                }
            }));
        }
        let oldest = change(&self.entries, |entries| {
            entries.insert(0, Arc::clone(entry));
            let mut bytes = 0usize;
            let fits = |entry: &Arc<Entry>| {
                bytes = bytes.saturating_add(entry.own_bytes());
                bytes <= MOST_BYTES
            };
            let kept = entries.iter().map(fits).take(MOST_ENTRIES).take_while(|fits| *fits).count();
            entries.split_off(kept.max(1))
        });
        drop(oldest);
    }
}

/// What `how` takes out is dropped by the caller: that may run Python code, which must not be under the lock.
fn change<R>(entries: &Entries, how: impl FnOnce(&mut Vec<Arc<Entry>>) -> R) -> R {
    how(Arc::make_mut(&mut entries.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Takes out those for which `gone` holds.
fn take_out(entries: &Entries, gone: impl Fn(&Arc<Entry>) -> bool) {
    let taken: Vec<Arc<Entry>> = change(entries, |entries| entries.extract_if(.., |entry| gone(entry)).collect());
    drop(taken);
}

#[pymethods]
impl Jitted {
    #[new]
    fn new(
        static_positions: Vec<usize>,
        static_names: Vec<String>,
        donated_positions: Vec<usize>,
        donated_names: Vec<String>,
    ) -> Jitted {
        let entries = Arc::default();
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|entries| entries.strong_count() > 0);
        all.push(Arc::downgrade(&entries));
        drop(all);
        Jitted {
            statics: Marked { positions: static_positions, names: static_names },
            donated: Marked { positions: donated_positions, names: donated_names },
            entries,
        }
    }

    /// The results of a recording that serves these arguments; `NotRecorded` where there is none.
    fn call<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if open_tapes().is_empty() {
            forget_forced();
        }
        let call = Call::new(&self.statics, &self.donated, args, kwargs)?;
        match self.find(py, &call)? {
            Some(entry) => entry.results(py, &call),
            None => Ok(py.get_type::<NotRecorded>().into_any()),
        }
    }

    /// The arguments of a call, to be recorded.
    fn bind(&self, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<JitCall> {
        Ok(JitCall { call: Call::new(&self.statics, &self.donated, args, kwargs)? })
    }

    /// Keeps what was recorded for a call, and runs it. `leaves` and `structure` are what the function returned, the
    /// structure None for a single leaf; `places` is what it could reach before.
    fn record<'py>(
        &self,
        py: Python<'py>,
        call: &JitCall,
        trace: &Trace,
        leaves: Vec<Bound<'py, PyAny>>,
        structure: Option<Py<PyAny>>,
        mut watches: PyRefMut<'py, JitWatches>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let outputs = PyList::empty(py);
        let mut returned = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            let tracer = leaf.cast::<Tracer>().ok().map(|tracer| tracer.get().is_weak());
            if tracer.is_some() || (is_array(&leaf) && crate::convert::classify(&leaf).is_ok()) {
                returned.push(Returned::Output { index: outputs.len(), weak: tracer.unwrap_or(false) });
                outputs.append(leaf)?;
            } else {
                returned.push(Returned::Constant(leaf.unbind()));
            }
        }
        let mut watches = watches.0.take().unwrap_or_default();
        let (recorded, arrays) = trace.take_with_arrays(py, &outputs)?;
        let arrays_read = arrays.iter().map(|(array, constant)| (array.clone_ref(py), Arc::clone(constant)));
        watches.add_arrays(py, arrays_read.collect())?;
        watches.share_with(&recorded.graph.constants);
        let returns = Returns { leaves: returned, structure };
        let entry = Arc::new(Entry::new(py, &call.call, watches, returns, recorded, arrays)?);
        if entry.can_be_kept(py)? {
            self.keep(&entry);
        }
        // The run belongs to the traces around this one.
        trace.end(py);
        entry.results(py, &call.call)
    }

    /// How many recordings are kept.
    fn __len__(&self) -> usize {
        self.entries().len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A thread that holds the lock is using the function: it is no garbage.
        match self.entries.try_lock() {
            Ok(entries) => entries.iter().try_for_each(|entry| entry.traverse(&visit)),
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        take_out(&self.entries, |_| true);
    }
}

/// What a function can reach before it is recorded, noted as it is then.
#[pyclass(module = "ckad._core")]
pub struct JitWatches(Option<Watches>);

#[pymethods]
impl JitWatches {
    /// Adds places that were not there when it was made.
    fn add(&mut self, places: Vec<Bound<'_, PyTuple>>) -> PyResult<()> {
        let added = Watches::new(&places)?;
        self.0.get_or_insert_default().extend(added);
        Ok(())
    }

    #[new]
    fn new(places: Vec<Bound<'_, PyTuple>>) -> PyResult<JitWatches> {
        Watches::new(&places).map(|watches| JitWatches(Some(watches)))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Jitted>()?;
    module.add_class::<JitCall>()?;
    module.add_class::<JitWatches>()?;
    module.add_class::<NotRecorded>()
}
