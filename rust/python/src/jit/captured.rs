//! What a recorded function has taken from outside: compared before each call, because a recording holds for the values
//! that it saw.
//!
//! The Python layer finds what a function can reach (closures, globals, attributes, containers) and hands over a list;
//! here is noted what each held, and whether it still does. Numbers count by value, other objects by identity, arrays
//! by identity and content.

use std::sync::Arc;

use ckad_graph::{Constant, Error, Graph, NodeId, Op};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::PyTraverseError;
use pyo3::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyComplex, PyDict, PyFloat, PyInt, PyString, PyTuple};
use rustc_hash::FxHashMap;
use twox_hash::XxHash3_128;

use crate::capture::{ReadArrays, is_writeable};
use crate::convert::{array_in_place, is_array};
use crate::errors::raise;
use crate::tape::TapeCell;
use crate::tracer::Tracer;

/// Arrays up to this size are compared with a copy, larger ones by a hash.
const COPIED_BYTES: usize = 64 * 1024;

/// Are these the same for what a function does with them? Immutable values count by type and bits.
pub fn same(before: &Bound<'_, PyAny>, now: &Bound<'_, PyAny>) -> bool {
    if before.is(now) {
        return true;
    }
    if !before.get_type().is(now.get_type()) {
        return false;
    }
    if let (Ok(a), Ok(b)) = (before.cast_exact::<PyFloat>(), now.cast_exact::<PyFloat>()) {
        return a.value().to_bits() == b.value().to_bits();
    }
    if let (Ok(a), Ok(b)) = (before.cast_exact::<PyTuple>(), now.cast_exact::<PyTuple>()) {
        return a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a, &b));
    }
    let by_value = before.is_exact_instance_of::<PyInt>()
        || before.is_exact_instance_of::<PyBool>()
        || before.is_exact_instance_of::<PyString>()
        || before.is_exact_instance_of::<PyBytes>();
    if by_value {
        return before.eq(now).unwrap_or(false);
    }
    if before.is_exact_instance_of::<PyComplex>() {
        let text = |value: &Bound<'_, PyAny>| value.repr().map(|text| text.to_string()).ok();
        return text(before).is_some_and(|before| Some(before) == text(now));
    }
    // Left behind by transforms that have returned: nothing can be done with either.
    if let (Ok(a), Ok(b)) = (before.cast::<Tracer>(), now.cast::<Tracer>()) {
        return a.get().tape().is_closed() && b.get().tape().is_closed();
    }
    // NumPy's scalars, by their bytes.
    let bytes = |value: &Bound<'_, PyAny>| value.call_method0("tobytes").ok()?.extract::<Vec<u8>>().ok();
    let is_number = before.hasattr("itemsize").unwrap_or(false) && !is_array(before);
    is_number && bytes(before).is_some_and(|before| Some(before) == bytes(now))
}

/// What an array was: how its memory was read, which can be changed in place, too, and what that held.
pub struct Content {
    dtype: Py<PyAny>,
    shape: Vec<usize>,
    strides: Vec<isize>,
    held: Held,
}

enum Held {
    Bytes(Vec<u8>),
    /// What the recording has of it anyway.
    Captured(Constant),
    Hash(u128),
    /// Nobody can write to it.
    Fixed,
    /// Objects of Python's, in C order.
    Objects(Vec<Py<PyAny>>),
    /// Of a dtype that is not ours: NumPy's bytes of it.
    Foreign(Py<PyBytes>),
}

impl Content {
    /// Of an array; None for anything else.
    pub fn of_any(object: &Bound<'_, PyAny>) -> PyResult<Option<Content>> {
        if is_array(object) { Content::of(object).map(Some) } else { Ok(None) }
    }

    fn of(array: &Bound<'_, PyAny>) -> PyResult<Content> {
        let held = if is_fixed(array)? {
            Held::Fixed
        } else if let Ok(taken) = array_in_place(array) {
            Held::of_bytes(taken.constant.bytes())
        } else if array.cast::<PyUntypedArray>()?.dtype().kind() == b'O' {
            Held::Objects(objects(array)?.iter().map(|object| object.clone().unbind()).collect())
        } else {
            Held::Foreign(array.call_method0("tobytes")?.cast_into::<PyBytes>()?.unbind())
        };
        Content::with(array, held)
    }

    fn with(array: &Bound<'_, PyAny>, held: Held) -> PyResult<Content> {
        let array = array.cast::<PyUntypedArray>()?;
        let (shape, strides) = (array.shape().to_vec(), array.strides().to_vec());
        Ok(Content { dtype: array.dtype().into_any().unbind(), shape, strides, held })
    }

    /// Does the array still hold it?
    pub fn holds(&self, array: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(untyped) = array.cast::<PyUntypedArray>() else { return Ok(false) };
        let before = self.dtype.bind(array.py());
        let dtype = untyped.dtype();
        if untyped.shape() != self.shape
            || untyped.strides() != self.strides
            || !(dtype.is(before) || dtype.eq(before)?)
        {
            return Ok(false);
        }
        match &self.held {
            Held::Fixed => is_fixed(array),
            Held::Foreign(before) => array.call_method0("tobytes")?.eq(before),
            Held::Objects(before) => {
                let now = objects(array)?;
                Ok(before.len() == now.len() && before.iter().zip(&now).all(|(a, b)| same(a.bind(array.py()), b)))
            }
            Held::Bytes(before) => Ok(array_in_place(array).is_ok_and(|now| now.constant.bytes() == before)),
            Held::Captured(before) => Ok(array_in_place(array).is_ok_and(|now| now.constant.bytes() == before.bytes())),
            Held::Hash(before) => Ok(array_in_place(array).is_ok_and(|now| hash(now.constant.bytes()) == *before)),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.held {
            Held::Objects(objects) => objects.iter().try_for_each(|object| visit.call(object)),
            _ => Ok(()),
        }
    }
}

impl Held {
    fn of_bytes(bytes: &[u8]) -> Held {
        if bytes.len() <= COPIED_BYTES { Held::Bytes(bytes.to_vec()) } else { Held::Hash(hash(bytes)) }
    }
}

/// The elements of an array of objects.
fn objects<'py>(array: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    array.call_method0("ravel")?.call_method0("tolist")?.extract()
}

fn hash(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

/// Read-only, with read-only memory below it; not where a trace made it so for as long as it lasts.
fn is_fixed(array: &Bound<'_, PyAny>) -> PyResult<bool> {
    let mut array = array.clone();
    loop {
        let Ok(untyped) = array.cast::<PyUntypedArray>() else { return Ok(false) };
        if is_writeable(untyped) {
            return Ok(false);
        }
        let base = untyped.getattr("base")?;
        if base.is_none() {
            return Ok(true);
        }
        array = base;
    }
}

/// A place that was read, and what it held. None: it was empty.
enum Watch {
    Cell(Py<PyAny>, Option<Py<PyAny>>),
    Item(Py<PyDict>, Py<PyAny>, Option<Py<PyAny>>),
    Attribute(Py<PyAny>, Py<PyString>, Option<Py<PyAny>>),
    /// What a class itself has under a name, in the view of its attributes: asked for by name, a method would be
    /// another object each time.
    Member(Py<PyAny>, Py<PyString>, Option<Py<PyAny>>),
    /// An object's class and its attributes' dict: both can be exchanged.
    Instance(Py<PyAny>, Py<PyAny>, Option<Py<PyAny>>),
    /// What calling something gives.
    Answer(Py<PyAny>, Py<PyAny>),
    /// A list, set or other container that may change.
    Elements(Py<PyAny>, Vec<Py<PyAny>>),
    Entries(Py<PyDict>, Vec<(Py<PyAny>, Py<PyAny>)>),
    Array(Py<PyAny>, Content),
    /// A value of a trace around the call, and the node that it was.
    Traced(Py<PyAny>, Arc<TapeCell>, NodeId),
}

fn unchanged(py: Python<'_>, before: Option<&Py<PyAny>>, now: Option<Bound<'_, PyAny>>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => same(before.bind(py), &now),
        (None, None) => true,
        _ => false,
    }
}

/// What an attribute holds; None where there is none.
fn attribute<'py>(object: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    object.getattr(name).ok()
}

fn namespace<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    object.getattr(pyo3::intern!(object.py(), "__dict__")).ok()
}

fn cell_contents<'py>(cell: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    cell.getattr(pyo3::intern!(cell.py(), "cell_contents")).ok()
}

impl Watch {
    /// One entry of the Python layer's list: `(kind, object)` or `(kind, object, name)`. None: it holds for ever.
    fn new(place: &Bound<'_, PyTuple>) -> PyResult<Option<Watch>> {
        let py = place.py();
        let (kind, object) = (place.get_item(0)?, place.get_item(1)?);
        let name = || place.get_item(2);
        let kept = |value: Option<Bound<'_, PyAny>>| value.map(Bound::unbind);
        Ok(Some(match kind.extract::<&str>()? {
            "cell" => Watch::Cell(object.clone().unbind(), kept(cell_contents(&object))),
            "item" => {
                let dict = object.cast_into::<PyDict>()?;
                let value = kept(dict.get_item(name()?)?);
                Watch::Item(dict.unbind(), name()?.unbind(), value)
            }
            "attribute" => {
                let name = name()?.cast_into::<PyString>()?;
                let value = kept(attribute(&object, &name));
                Watch::Attribute(object.unbind(), name.unbind(), value)
            }
            "member" => {
                let name = name()?.cast_into::<PyString>()?;
                let members = object.getattr(pyo3::intern!(py, "__dict__"))?;
                let value = kept(members.get_item(&name).ok());
                Watch::Member(members.unbind(), name.unbind(), value)
            }
            "instance" => {
                let namespace = kept(namespace(&object));
                Watch::Instance(object.clone().unbind(), object.get_type().into_any().unbind(), namespace)
            }
            "answer" => {
                let value = object.call0()?.unbind();
                Watch::Answer(object.unbind(), value)
            }
            "elements" => {
                let elements = object.try_iter()?.map(|element| Ok(element?.unbind())).collect::<PyResult<_>>()?;
                Watch::Elements(object.unbind(), elements)
            }
            "entries" => {
                let dict = object.cast_into::<PyDict>()?;
                let entries = dict.iter().map(|(key, value)| (key.unbind(), value.unbind())).collect();
                Watch::Entries(dict.unbind(), entries)
            }
            "array" => Watch::Array(object.clone().unbind(), Content::of(&object)?),
            "traced" => {
                let tracer = object.cast::<Tracer>()?.get();
                if tracer.tape().is_closed() {
                    return Ok(None);
                }
                Watch::Traced(object.clone().unbind(), Arc::clone(tracer.tape()), tracer.current_node())
            }
            other => return Err(raise(Error::internal("jit", format!("a place of kind {other}")))),
        }))
    }

    fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(match self {
            Watch::Cell(cell, value) => unchanged(py, value.as_ref(), cell_contents(cell.bind(py))),
            Watch::Item(dict, key, value) => unchanged(py, value.as_ref(), dict.bind(py).get_item(key)?),
            Watch::Attribute(object, name, value) => {
                unchanged(py, value.as_ref(), attribute(object.bind(py), name.bind(py)))
            }
            Watch::Member(members, name, value) => {
                unchanged(py, value.as_ref(), members.bind(py).get_item(name.bind(py)).ok())
            }
            Watch::Instance(object, class, before) => {
                let object = object.bind(py);
                let now = namespace(object);
                object.get_type().is(class.bind(py))
                    && now.as_ref().map(Bound::as_ptr) == before.as_ref().map(Py::as_ptr)
            }
            Watch::Answer(asked, before) => same(before.bind(py), &asked.bind(py).call0()?),
            Watch::Elements(container, before) => {
                let mut now = container.bind(py).try_iter()?;
                let agree = |value: &Py<PyAny>, now: Option<PyResult<Bound<'_, PyAny>>>| {
                    now.is_some_and(|now| now.is_ok_and(|now| same(value.bind(py), &now)))
                };
                before.iter().all(|value| agree(value, now.next())) && now.next().is_none()
            }
            Watch::Entries(dict, before) => {
                let dict = dict.bind(py);
                let agree = |((key, value), (now_key, now)): (&(Py<PyAny>, Py<PyAny>), _)| {
                    same(key.bind(py), &now_key) && same(value.bind(py), &now)
                };
                dict.len() == before.len() && before.iter().zip(dict.iter()).all(agree)
            }
            Watch::Array(array, content) => content.holds(array.bind(py))?,
            Watch::Traced(object, tape, node) => {
                let tracer = object.bind(py).cast::<Tracer>()?.get();
                !tape.is_closed() && tracer.current_node() == *node
            }
        })
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Watch::Cell(object, value) | Watch::Attribute(object, _, value) | Watch::Member(object, _, value) => {
                visit.call(object)?;
                visit.call(value)
            }
            Watch::Instance(object, class, namespace) => {
                visit.call(object)?;
                visit.call(class)?;
                visit.call(namespace)
            }
            Watch::Answer(asked, value) => {
                visit.call(asked)?;
                visit.call(value)
            }
            Watch::Item(dict, key, value) => {
                visit.call(dict)?;
                visit.call(key)?;
                visit.call(value)
            }
            Watch::Elements(container, elements) => {
                visit.call(container)?;
                elements.iter().try_for_each(|element| visit.call(element))
            }
            Watch::Entries(dict, entries) => {
                visit.call(dict)?;
                entries.iter().try_for_each(|(key, value)| {
                    visit.call(key)?;
                    visit.call(value)
                })
            }
            Watch::Array(object, content) => {
                visit.call(object)?;
                content.traverse(visit)
            }
            Watch::Traced(object, ..) => visit.call(object),
        }
    }
}

/// All that one recording depends on beside its arguments.
#[derive(Default)]
pub struct Watches(Vec<Watch>);

impl Watches {
    pub fn new(places: &[Bound<'_, PyTuple>]) -> PyResult<Watches> {
        places.iter().filter_map(|place| Watch::new(place).transpose()).collect::<PyResult<_>>().map(Watches)
    }

    pub fn extend(&mut self, others: Watches) {
        self.0.extend(others.0);
    }

    /// Adds arrays that were used and that are not watched yet.
    pub fn add_arrays(&mut self, py: Python<'_>, arrays: ReadArrays) -> PyResult<()> {
        for (array, constant) in arrays {
            let known = |watch: &Watch| matches!(watch, Watch::Array(known, _) if known.is(&array));
            if self.0.iter().any(known) {
                continue;
            }
            if !is_array(array.bind(py)) || is_fixed(array.bind(py))? {
                continue;
            }
            // As it was captured, which is before anything could change it.
            let content = Content::with(array.bind(py), Held::of_bytes(constant.bytes()))?;
            self.0.push(Watch::Array(array, content));
        }
        Ok(())
    }

    /// Drops copies of small arrays of which the recording has one, too.
    pub fn share_with(&mut self, constants: &[Constant]) {
        let copies = constants.iter().filter(|constant| constant.is_ours() && constant.bytes().len() <= COPIED_BYTES);
        let by_hash: FxHashMap<u128, &Constant> = copies.map(|constant| (hash(constant.bytes()), constant)).collect();
        for watch in &mut self.0 {
            if let Watch::Array(_, content) = watch
                && let Held::Bytes(before) = &content.held
                && let Some(constant) = by_hash.get(&hash(before)).filter(|constant| constant.bytes() == before)
            {
                content.held = Held::Captured(Arc::clone(constant));
            }
        }
    }

    /// Is everything as it was?
    pub fn hold(&self, py: Python<'_>) -> PyResult<bool> {
        for watch in &self.0 {
            if !watch.holds(py)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Is the node of that trace a watched value, or read from one? If not, nobody would notice that the function means
    /// another one in the next call.
    pub fn covers(&self, tape: &TapeCell, graph: &Graph, node: NodeId) -> bool {
        let mut node = node;
        loop {
            let watched = |watch: &Watch| matches!(watch, Watch::Traced(_, at, of) if at.id == tape.id && *of == node);
            if self.0.iter().any(watched) {
                return true;
            }
            let of_view = matches!(graph.op(node), Op::Reshape | Op::Transpose { .. } | Op::StridedRead { .. });
            match graph.operands(node).first() {
                Some(&read) if of_view => node = read,
                _ => return false,
            }
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.iter().try_for_each(|watch| watch.traverse(visit))
    }
}
