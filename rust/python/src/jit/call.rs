//! What a call passes: which arguments are static, containers or leaves, and what a recording must know of each leaf.
//!
//! Two calls whose forms and specs agree can be served by one recording, whatever the values are.

use std::sync::Arc;

use ckad_graph::{Constant, DType, Error, NodeId, ScalarBits};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple};

use super::captured::{Content, same};
use crate::convert::{Foreign, TakenArgument, array_in_place, classify, scalar_bits};
use crate::errors::raise;
use crate::layout::Layout;
use crate::tape::TapeCell;
use crate::tracer::Tracer;

/// What is said of arguments where the function is wrapped. Those given by keyword are known by name.
pub struct Marked {
    pub positions: Vec<usize>,
    pub names: Vec<String>,
}

impl Marked {
    fn position(&self, position: usize) -> bool {
        self.positions.contains(&position)
    }

    fn name(&self, name: &str) -> bool {
        self.names.iter().any(|marked| marked == name)
    }
}

/// One argument.
pub enum Form {
    Leaf,
    /// A container: its structure as optree says it.
    Tree(Py<PyAny>),
    Static(Py<PyAny>),
}

impl Form {
    fn matches(&self, py: Python<'_>, other: &Form) -> PyResult<bool> {
        match (self, other) {
            (Form::Leaf, Form::Leaf) => Ok(true),
            (Form::Tree(a), Form::Tree(b)) => a.bind(py).eq(b),
            (Form::Static(a), Form::Static(b)) => equal(a.bind(py), b.bind(py)),
            _ => Ok(false),
        }
    }
}

/// Are these the same static argument? Equal is not enough for numbers: 1 and 1.0 are not computed with alike.
fn equal(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> PyResult<bool> {
    if a.is(b) || !a.get_type().is(b.get_type()) {
        return Ok(a.is(b));
    }
    if let (Ok(a), Ok(b)) = (a.cast_exact::<PyTuple>(), b.cast_exact::<PyTuple>()) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(b) {
            if !equal(&a, &b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if a.is_exact_instance_of::<PyFloat>() { Ok(same(a, b)) } else { a.eq(b) }
}

/// What a recording knows of a traced leaf.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    pub dtype: DType,
    /// Extents of its memory, from the outermost axis in.
    pub extents: Vec<i64>,
    /// How its axes lie in that memory.
    pub layout: Layout,
    /// The caller's strides in bytes, where they are not those of packed memory.
    pub strides: Option<Vec<i64>>,
    pub is_array: bool,
    /// It stands for a Python number.
    pub weak: bool,
    pub read_only: bool,
    /// A transform around the call differentiates it.
    pub active: bool,
}

impl Spec {
    fn scalar(dtype: DType, weak: bool) -> Spec {
        let layout = Layout::contiguous(&[]);
        Spec {
            dtype,
            extents: Vec::new(),
            layout,
            strides: None,
            is_array: false,
            weak,
            read_only: true,
            active: false,
        }
    }
}

/// The value of a traced leaf in this call.
pub enum LeafValue {
    Scalar(ScalarBits),
    /// Read where it lies; the object keeps it there.
    Array(Constant, Py<PyAny>),
    /// A value of an enclosing trace.
    Outer(Arc<TapeCell>, NodeId),
}

/// A leaf of the arguments.
pub enum Leaf {
    Traced(Spec, LeafValue),
    /// Neither number nor array of numbers: handed on as it is.
    Held(Py<PyAny>),
}

/// The arguments of one call.
pub struct Call {
    /// By position, then by name in alphabetical order.
    pub forms: Vec<Form>,
    pub names: Vec<String>,
    pub leaves: Vec<Leaf>,
    /// Which leaves are of donated arguments.
    pub donated: Vec<bool>,
}

/// What a recording keeps of the leaf of a call.
pub enum LeafPattern {
    Traced(Spec),
    Held(Py<PyAny>, Option<Content>),
}

/// optree's functions, and the namespace in which containers are registered.
struct Trees {
    flatten: Py<PyAny>,
    unflatten: Py<PyAny>,
    namespace: Py<PyDict>,
    number: Py<PyAny>,
}

fn trees(py: Python<'_>) -> PyResult<&'static Trees> {
    static TREES: PyOnceLock<Trees> = PyOnceLock::new();
    TREES.get_or_try_init(py, || {
        let optree = py.import("optree")?;
        let namespace = PyDict::new(py);
        namespace.set_item("namespace", py.import("ckad.tree")?.getattr("NAMESPACE")?)?;
        Ok(Trees {
            flatten: optree.getattr("tree_flatten")?.unbind(),
            unflatten: optree.getattr("tree_unflatten")?.unbind(),
            namespace: namespace.unbind(),
            number: py.import("numpy")?.getattr("generic")?.unbind(),
        })
    })
}

/// Leaves of a container, and its structure.
pub fn flatten<'py>(tree: &Bound<'py, PyAny>) -> PyResult<(Vec<Bound<'py, PyAny>>, Bound<'py, PyAny>)> {
    let py = tree.py();
    let trees = trees(py)?;
    trees.flatten.bind(py).call((tree,), Some(trees.namespace.bind(py)))?.extract()
}

/// The container of a structure with these leaves.
pub fn unflatten<'py>(
    py: Python<'py>,
    structure: &Py<PyAny>,
    leaves: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    trees(py)?.unflatten.bind(py).call1((structure, leaves))
}

/// Is it a leaf, seen at a glance? Most arguments are.
fn is_plain_leaf(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    Ok(object.is_exact_instance_of::<PyFloat>()
        || object.get_type().is(py.get_type::<numpy::PyUntypedArray>())
        || object.cast::<Tracer>().is_ok()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_instance(trees(py)?.number.bind(py))?)
}

impl Call {
    pub fn new(
        statics: &Marked,
        donated: &Marked,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Call> {
        let keywords = kwargs.map_or(0, |kwargs| kwargs.len());
        let count = args.len() + keywords;
        let mut call = Call {
            forms: Vec::with_capacity(count),
            names: Vec::with_capacity(keywords),
            leaves: Vec::with_capacity(count),
            donated: Vec::with_capacity(count),
        };
        for (position, argument) in args.iter().enumerate() {
            call.push(&argument, statics.position(position), donated.position(position))?;
        }
        if let Some(kwargs) = kwargs {
            let mut named: Vec<(String, Bound<'_, PyAny>)> =
                kwargs.iter().map(|(name, value)| Ok((name.extract()?, value))).collect::<PyResult<_>>()?;
            named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            for (name, argument) in named {
                call.push(&argument, statics.name(&name), donated.name(&name))?;
                call.names.push(name);
            }
        }
        Ok(call)
    }

    fn push(&mut self, argument: &Bound<'_, PyAny>, is_static: bool, donated: bool) -> PyResult<()> {
        if is_static {
            self.forms.push(Form::Static(argument.clone().unbind()));
            return Ok(());
        }
        if is_plain_leaf(argument)? {
            self.forms.push(Form::Leaf);
            self.leaves.push(Leaf::new(argument)?);
        } else {
            let (leaves, structure) = flatten(argument)?;
            self.forms.push(Form::Tree(structure.unbind()));
            for leaf in &leaves {
                self.leaves.push(Leaf::new(leaf)?);
            }
        }
        self.donated.resize(self.leaves.len(), donated);
        Ok(())
    }

    /// The arguments with `leaves` in place of theirs, as Python passes them.
    pub fn rebuilt<'py>(
        &self,
        py: Python<'py>,
        leaves: Vec<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let mut leaves = leaves.into_iter();
        let mut arguments = Vec::with_capacity(self.forms.len());
        for form in &self.forms {
            arguments.push(match form {
                Form::Static(value) => value.bind(py).clone(),
                Form::Leaf => leaves.next().ok_or_else(|| raise(Error::internal("jit", "too few leaves")))?,
                Form::Tree(structure) => {
                    let count: usize = structure.bind(py).getattr("num_leaves")?.extract()?;
                    unflatten(py, structure, leaves.by_ref().take(count).collect())?
                }
            });
        }
        let keywords = PyDict::new(py);
        let positional = arguments.len() - self.names.len();
        for (name, value) in self.names.iter().zip(arguments.drain(positional..)) {
            keywords.set_item(name, value)?;
        }
        Ok((PyTuple::new(py, arguments)?, keywords))
    }

    /// For each traced leaf, whether its memory is given up.
    pub fn donated_inputs(&self) -> Vec<bool> {
        let leaves = self.leaves.iter().zip(&self.donated);
        leaves.filter(|(leaf, _)| matches!(leaf, Leaf::Traced(..))).map(|(_, &donated)| donated).collect()
    }

    pub fn traced(&self) -> impl Iterator<Item = (&Spec, &LeafValue)> {
        self.leaves.iter().filter_map(|leaf| match leaf {
            Leaf::Traced(spec, value) => Some((spec, value)),
            Leaf::Held(_) => None,
        })
    }
}

/// What a recording keeps of the arguments that it was made for.
pub struct Pattern {
    pub forms: Vec<Form>,
    names: Vec<String>,
    pub leaves: Vec<LeafPattern>,
}

impl Pattern {
    pub fn of(py: Python<'_>, call: &Call) -> PyResult<Pattern> {
        let form = |form: &Form| match form {
            Form::Leaf => Form::Leaf,
            Form::Tree(structure) => Form::Tree(structure.clone_ref(py)),
            Form::Static(value) => Form::Static(value.clone_ref(py)),
        };
        let leaf = |leaf: &Leaf| {
            Ok(match leaf {
                Leaf::Traced(spec, _) => LeafPattern::Traced(spec.clone()),
                Leaf::Held(object) => LeafPattern::Held(object.clone_ref(py), Content::of_any(object.bind(py))?),
            })
        };
        Ok(Pattern {
            forms: call.forms.iter().map(form).collect(),
            names: call.names.clone(),
            leaves: call.leaves.iter().map(leaf).collect::<PyResult<_>>()?,
        })
    }

    /// Was it made for such a call?
    pub fn matches(&self, py: Python<'_>, call: &Call) -> PyResult<bool> {
        if self.forms.len() != call.forms.len() || self.leaves.len() != call.leaves.len() || self.names != call.names {
            return Ok(false);
        }
        for (pattern, leaf) in self.leaves.iter().zip(&call.leaves) {
            let agree = match (pattern, leaf) {
                (LeafPattern::Traced(spec), Leaf::Traced(now, _)) => spec == now,
                (LeafPattern::Held(object, content), Leaf::Held(now)) => {
                    let unchanged = same(object.bind(py), now.bind(py));
                    unchanged && content.as_ref().map_or(Ok(true), |content| content.holds(now.bind(py)))?
                }
                _ => false,
            };
            if !agree {
                return Ok(false);
            }
        }
        for (form, now) in self.forms.iter().zip(&call.forms) {
            if !form.matches(py, now)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Leaf {
    fn new(object: &Bound<'_, PyAny>) -> PyResult<Leaf> {
        if let Ok(tracer) = object.cast::<Tracer>() {
            return Leaf::of_tracer(object.py(), tracer.get());
        }
        // Arrays of other dtypes (text, dates, complex) and classes are Python's business.
        let Ok(foreign) = classify(object) else { return Ok(Leaf::Held(object.clone().unbind())) };
        let (dtype, weak) = match foreign {
            Foreign::PythonFloat(_) => (DType::F64, true),
            Foreign::PythonInt => (DType::I64, true),
            Foreign::NumpyScalar(dtype) => (dtype, false),
            // True and False are flags, and Python's arithmetic with them is that of ints.
            Foreign::PythonBool(_) | Foreign::Other => return Ok(Leaf::Held(object.clone().unbind())),
            Foreign::Array => {
                let TakenArgument { constant, extents, layout, dtype, strides, read_only } = array_in_place(object)?;
                let spec =
                    Spec { dtype, extents, layout, strides, is_array: true, weak: false, read_only, active: false };
                return Ok(Leaf::Traced(spec, LeafValue::Array(constant, object.clone().unbind())));
            }
        };
        match scalar_bits(object, dtype) {
            Ok(bits) => Ok(Leaf::Traced(Spec::scalar(dtype, weak), LeafValue::Scalar(bits))),
            // An int of Python's that has no place in 64 bits is Python's business, too.
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => {
                Ok(Leaf::Held(object.clone().unbind()))
            }
            Err(error) => Err(error),
        }
    }

    fn of_tracer(py: Python<'_>, tracer: &Tracer) -> PyResult<Leaf> {
        let (node, layout) = tracer.memory_node(py)?;
        let tape = tracer.tape();
        let (extents, active) =
            tape.read(py, |open| (open.builder.graph().shape(node).to_vec(), open.is_active(node)))?;
        let spec = Spec {
            dtype: tracer.dtype(),
            extents,
            layout,
            strides: None,
            is_array: !tracer.is_scalar(),
            weak: tracer.is_weak(),
            read_only: tracer.is_read_only(),
            active,
        };
        Ok(Leaf::Traced(spec, LeafValue::Outer(Arc::clone(tape), node)))
    }
}
