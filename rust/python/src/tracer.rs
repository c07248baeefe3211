//! The traced value: what a transformed function is given in place of a number or an array.
//!
//! What NumPy would return as a scalar is an immutable node; anything else is a view of a storage. The methods that
//! Python sees are in `class.rs`; this file knows how a value is held, read and written.

use std::sync::Arc;

use ckad_graph::{DType, Error, ErrorKind, ListId, NodeId, shape_text};
use pyo3::prelude::*;

use crate::errors::{raise, refusal};
use crate::guarded::dropping;
use crate::layout::Layout;
use crate::leaf;
use crate::operand::Operand;
use crate::storage::{NO_NODE, Storage, View, hold};
use crate::tape::{Tape, TapeCell};
use crate::trace::{home_of_new, recorded_once_inside};

/// A value that is being recorded. It belongs to one call of one transform and to one thread.
#[pyclass(frozen, mapping, subclass, name = "Tracer", module = "ckad")]
pub struct Tracer {
    kind: Kind,
}

/// A traced array: what in-place operators apply to. Scalars are of the base class, so that Python makes
/// `s = s + 1` of `s += 1`.
#[pyclass(frozen, mapping, subclass, extends = Tracer, name = "Tracer", module = "ckad")]
pub struct ArrayTracer;

pub enum Kind {
    /// What NumPy would return as a scalar.
    Scalar {
        tape: Arc<TapeCell>,
        node: NodeId,
        dtype: DType,
        /// It stands for a Python number, which takes the dtype of the array or NumPy scalar beside it.
        weak: bool,
    },
    Array {
        storage: Arc<Storage>,
        view: View,
    },
}

impl Tracer {
    /// An immutable value.
    pub fn scalar(py: Python<'_>, tape: Arc<TapeCell>, node: NodeId) -> PyResult<Tracer> {
        let dtype = tape.read(py, |tape| tape.builder.dtype(node))?;
        Tracer::new_scalar(py, tape, node, dtype)
    }

    /// A new storage, whose flat memory is `node`, seen through `layout`.
    pub fn array(
        py: Python<'_>,
        tape: Arc<TapeCell>,
        node: NodeId,
        layout: Layout,
        read_only: bool,
    ) -> PyResult<Tracer> {
        let dtype = tape.read(py, |tape| tape.builder.dtype(node))?;
        let storage = Storage::new(py, tape, dtype, node)?;
        Ok(Tracer::view_of(storage, View::new(layout, read_only)))
    }

    /// An argument, whose caller's array has these strides in bytes. It is our copy, writeable where the caller's array
    /// is.
    pub fn argument(
        py: Python<'_>,
        tape: &Arc<TapeCell>,
        node: NodeId,
        layout: Layout,
        numpy_strides: Vec<i64>,
        read_only: bool,
    ) -> PyResult<Tracer> {
        let dtype = tape.read(py, |tape| tape.builder.dtype(node))?;
        let view = View::of_argument(layout, &numpy_strides, dtype.size() as i64, read_only);
        Ok(Tracer::view_of(Storage::new(py, Arc::clone(tape), dtype, node)?, view))
    }

    pub fn new_scalar(py: Python<'_>, tape: Arc<TapeCell>, node: NodeId, dtype: DType) -> PyResult<Tracer> {
        hold(py, &tape, node)?;
        Ok(Tracer::held_scalar(tape, node, dtype))
    }

    /// As `new_scalar`, of a node that was retained when it was recorded.
    pub fn held_scalar(tape: Arc<TapeCell>, node: NodeId, dtype: DType) -> Tracer {
        Tracer { kind: Kind::Scalar { tape, node, dtype, weak: false } }
    }

    /// As `new_array`, of a node that was retained when it was recorded.
    pub fn held_array(tape: Arc<TapeCell>, node: NodeId, dtype: DType, layout: Layout) -> Tracer {
        Tracer::view_of(Storage::held(tape, dtype, node), View::new(layout, false))
    }

    pub fn new_array(
        py: Python<'_>,
        tape: Arc<TapeCell>,
        node: NodeId,
        dtype: DType,
        layout: Layout,
    ) -> PyResult<Tracer> {
        Ok(Tracer::view_of(Storage::new(py, tape, dtype, node)?, View::new(layout, false)))
    }

    /// A fresh result in C order: a scalar where NumPy gives one.
    pub fn result(py: Python<'_>, tape: &Arc<TapeCell>, node: NodeId, dtype: DType, shape: &[i64]) -> PyResult<Tracer> {
        if shape.is_empty() {
            return Tracer::new_scalar(py, Arc::clone(tape), node, dtype);
        }
        Tracer::new_array(py, Arc::clone(tape), node, dtype, Layout::contiguous(shape))
    }

    pub fn view_of(storage: Arc<Storage>, view: View) -> Tracer {
        Tracer { kind: Kind::Array { storage, view } }
    }

    /// The same value under another object: the scalar, or the same view.
    pub fn alias(&self, py: Python<'_>) -> PyResult<Tracer> {
        match &self.kind {
            Kind::Scalar { tape, node, dtype, weak } => {
                Ok(Tracer::new_scalar(py, Arc::clone(tape), *node, *dtype)?.weak_if(*weak))
            }
            Kind::Array { storage, view } => Ok(Tracer::view_of(Arc::clone(storage), view.clone())),
        }
    }

    /// The scalar as a Python number's stand-in, or a NumPy scalar's. Arrays are strong.
    pub fn weak_if(mut self, python: bool) -> Tracer {
        if let Kind::Scalar { weak, .. } = &mut self.kind {
            *weak = python;
        }
        self
    }

    /// Does it stand for a Python number?
    pub fn is_weak(&self) -> bool {
        matches!(self.kind, Kind::Scalar { weak: true, .. })
    }

    /// Another view of the same storage; None for scalars.
    pub fn with_view(&self, change: impl FnOnce(&View) -> View) -> Option<Tracer> {
        match &self.kind {
            Kind::Scalar { .. } => None,
            Kind::Array { storage, view } => Some(Tracer::view_of(Arc::clone(storage), change(view))),
        }
    }

    /// The value as an array: a scalar becomes a 0-d array of its own.
    pub fn into_array(self, py: Python<'_>) -> PyResult<Tracer> {
        match &self.kind {
            Kind::Array { .. } => Ok(self),
            Kind::Scalar { tape, node, dtype, .. } => {
                Tracer::new_array(py, Arc::clone(tape), *node, *dtype, Layout::contiguous(&[]))
            }
        }
    }

    /// The Python object. Arrays are of the class that has in-place operators.
    pub fn into_object(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        leaf::object(py, self)
    }

    /// Lets go of the node where Python has dropped the value, and nobody else has what it refers to: the rest may be
    /// kept for another. False where it may not.
    #[inline]
    pub fn retire(&mut self, py: Python<'_>) -> bool {
        match &mut self.kind {
            Kind::Scalar { tape, node, .. } => {
                if tape.is_closed() {
                    return false;
                }
                tape.release(py, *node);
                *node = NO_NODE;
                true
            }
            Kind::Array { storage, view } => view.lies_as_numpys() && Storage::retire(py, storage),
        }
    }

    /// Makes a value that retired one of that trace, where it was of the same; false where it was not.
    #[inline]
    pub fn revive(
        &mut self,
        of: &Arc<TapeCell>,
        new: NodeId,
        dtype: DType,
        layout: Option<&Arc<Layout>>,
        is_weak: bool,
    ) -> bool {
        match (&mut self.kind, layout) {
            (Kind::Scalar { tape, node, dtype: own, weak }, None) if Arc::ptr_eq(tape, of) => {
                (*node, *own, *weak) = (new, dtype, is_weak);
                true
            }
            (Kind::Array { storage, view }, Some(layout)) if storage.revive(of, new, dtype) => {
                if !Arc::ptr_eq(&view.layout, layout) {
                    view.layout = Arc::clone(layout);
                }
                (view.read_only, view.unknown_layout) = (false, false);
                true
            }
            _ => false,
        }
    }

    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    pub fn is_scalar(&self) -> bool {
        matches!(self.kind, Kind::Scalar { .. })
    }

    /// Scalars are; so are views that NumPy makes so, and arguments that the caller may not write to.
    pub fn is_read_only(&self) -> bool {
        match &self.kind {
            Kind::Scalar { .. } => true,
            Kind::Array { view, .. } => view.read_only,
        }
    }

    pub fn tape(&self) -> &Arc<TapeCell> {
        match &self.kind {
            Kind::Scalar { tape, .. } => tape,
            Kind::Array { storage, .. } => &storage.tape,
        }
    }

    /// An error that names the line which made the value where its transform has returned.
    pub fn check_alive(&self, py: Python<'_>) -> PyResult<()> {
        if self.tape().is_closed() { Err(self.tape().used_after_close(py, self.current_node())) } else { Ok(()) }
    }

    pub fn dtype(&self) -> DType {
        match &self.kind {
            Kind::Scalar { dtype, .. } => *dtype,
            Kind::Array { storage, .. } => storage.dtype,
        }
    }

    pub fn shape(&self) -> &[i64] {
        match &self.kind {
            Kind::Scalar { .. } => &[],
            Kind::Array { view, .. } => &view.layout.shape,
        }
    }

    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    pub fn elements(&self) -> i64 {
        self.shape().iter().product()
    }

    /// How its axes lie in its flat memory.
    pub fn layout(&self) -> Layout {
        match &self.kind {
            Kind::Scalar { .. } => Layout::contiguous(&[]),
            Kind::Array { view, .. } => Layout::clone(&view.layout),
        }
    }

    /// How the value would be copied: its axes from the outermost in memory to the innermost.
    pub fn memory_order(&self) -> Vec<usize> {
        match &self.kind {
            Kind::Scalar { .. } => Vec::new(),
            Kind::Array { view, .. } => view.memory_order(),
        }
    }

    /// The current elements that `layout` describes, on this value's own tape.
    pub fn read(&self, py: Python<'_>, tape: &mut Tape, layout: &Layout) -> ckad_graph::Result<NodeId> {
        match &self.kind {
            Kind::Scalar { node, .. } if layout.shape.is_empty() => Ok(*node),
            Kind::Scalar { node, .. } => tape.builder.broadcast(*node, &layout.shape),
            Kind::Array { storage, .. } => storage.read(py, tape, layout),
        }
    }

    /// The current value in C order of its shape, while its tape is being recorded.
    pub fn value(&self, py: Python<'_>, tape: &mut Tape) -> ckad_graph::Result<NodeId> {
        match &self.kind {
            Kind::Scalar { node, .. } => Ok(*node),
            Kind::Array { storage, view } => storage.read(py, tape, &view.layout),
        }
    }

    /// As [`Tracer::value`] of a scalar, or of a packed array in C order whose shape has the id `shape`.
    #[inline]
    pub fn plain_value(&self, py: Python<'_>, tape: &mut Tape, shape: ListId) -> ckad_graph::Result<NodeId> {
        match &self.kind {
            Kind::Scalar { node, .. } => Ok(*node),
            Kind::Array { storage, view } => {
                let node = storage.node();
                let same = tape.builder.graph().node(node).shape == shape;
                if same { Ok(node) } else { storage.read(py, tape, &view.layout) }
            }
        }
    }

    /// The node that holds the value's memory now.
    pub fn current_node(&self) -> NodeId {
        match &self.kind {
            Kind::Scalar { node, .. } => *node,
            Kind::Array { storage, .. } => storage.node(),
        }
    }

    /// The current value in C order of its shape.
    pub fn logical_node(&self, py: Python<'_>) -> PyResult<NodeId> {
        self.check_alive(py)?;
        match &self.kind {
            Kind::Scalar { node, tape, .. } => tape.read(py, |_| *node),
            Kind::Array { storage, view } => storage.tape.record(py, |tape| storage.read(py, tape, &view.layout)),
        }
    }

    /// The current value packed in its own order of axes, and how its axes lie in that.
    pub fn memory_node(&self, py: Python<'_>) -> PyResult<(NodeId, Layout)> {
        self.check_alive(py)?;
        match &self.kind {
            Kind::Scalar { node, tape, .. } => Ok((tape.read(py, |_| *node)?, Layout::contiguous(&[]))),
            Kind::Array { storage, view } => {
                let (layout, order) = view.in_memory_order();
                let node = storage.tape.record(py, |tape| storage.read(py, tape, &layout))?;
                Ok((node, Layout::ordered(&view.layout.shape, &order)))
            }
        }
    }

    /// This value as one of a trace inside of its own. What is written into it is written there.
    pub fn within(&self, py: Python<'_>, tape: &Arc<TapeCell>) -> PyResult<Tracer> {
        let (node, layout) = self.memory_node(py)?;
        let node = tape.record(py, |inner| inner.capture(py, self.tape(), node))?;
        match self.is_scalar() {
            true => Ok(Tracer::scalar(py, Arc::clone(tape), node)?.weak_if(self.is_weak())),
            false => Tracer::array(py, Arc::clone(tape), node, layout, self.is_read_only()),
        }
    }

    /// Does it depend on a differentiated argument?
    pub fn is_active(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.dtype().is_float() {
            return Ok(false);
        }
        let node = self.current_node();
        self.tape().read(py, |tape| tape.is_active(node))
    }

    /// The storage and view to write through, or the error that says why not.
    pub fn writable(&self, py: Python<'_>, name: &str) -> PyResult<(&Arc<Storage>, &View)> {
        match &self.kind {
            Kind::Scalar { .. } => Err(raise(
                Error::new(ErrorKind::Tracer, name, "a traced scalar cannot be changed in place")
                    .with_hint("make a new value: s = s + 1"),
            )),
            Kind::Array { view, .. } if view.read_only => Err(refusal(
                ErrorKind::Value,
                name,
                format!("assignment destination is read-only: an array of shape {}", shape_text(self.shape())),
                match self.tape().jit_depth {
                    None => "write to x.copy()",
                    Some(_) => {
                        "write to x.copy(); where jit does not know i, write x[i] = x[i] + 1 in place of x[i] += 1"
                    }
                },
            )),
            Kind::Array { storage, .. } if storage.has_undecided_alias(py) => Err(raise(
                Error::new(
                    ErrorKind::Tracer,
                    name,
                    "the array was reshaped, and whether NumPy would have made a view or a copy of it is not known",
                )
                .with_hint("take .copy() before the reshape or ravel, or before writing"),
            )),
            Kind::Array { storage, view } => match recorded_once_inside(&storage.tape) {
                Some(body) if storage.is_older_than(&body) => Err(written_once(name, &body)),
                _ => Ok((storage, view)),
            },
        }
    }

    /// Refuses to write values of a nested trace into this array of an enclosing one, and differentiated values
    /// into integers.
    pub fn check_owns(&self, py: Python<'_>, name: &str, operands: &[Operand<'_, '_>]) -> PyResult<()> {
        for operand in operands {
            let Operand::Traced(value) = operand else { continue };
            if value.tape().depth > self.tape().depth {
                let hint = match home_of_new(self.tape()).depth > self.tape().depth {
                    true => "write to x.copy(), which is the inner function's own",
                    false => "return the value from the inner function and write it outside",
                };
                return Err(raise(
                    Error::new(
                        ErrorKind::Tracer,
                        name,
                        "a value of an inner transform cannot be written into an array of the function around it",
                    )
                    .with_hint(hint),
                ));
            }
            refuse_lost_gradient(py, name, self.dtype(), value)?;
        }
        Ok(())
    }
}

/// The refusal to write, while `body` records, into an array that was there before it.
fn written_once(name: &str, body: &TapeCell) -> PyErr {
    let transform = &body.transform;
    let what = format!(
        "an array from around is written to in a function that ckad.{transform} records once: the write would happen \
         once, however often the function runs"
    );
    let hint = match body.is_body {
        true => "let the function take the array (in the carry) and return it, or write to x.copy()",
        false => "let the function take the array and return it, or write to x.copy()",
    };
    refusal(ErrorKind::Tracer, name, what, hint)
}

/// Refuses a differentiated value where it would become an element of an array of integers.
pub fn refuse_lost_gradient(py: Python<'_>, name: &str, dtype: DType, value: &Tracer) -> PyResult<()> {
    if dtype.is_float() || !value.is_active(py)? {
        return Ok(());
    }
    let what = format!("a differentiated value written into an array of {dtype} loses its gradient");
    let hint = "make the array of a float dtype, or write ckad.stop_gradient(value)";
    Err(refusal(ErrorKind::Tracer, name, what, hint))
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // A storage releases its node itself, when its last view goes.
        if let Kind::Scalar { tape, node, .. } = &self.kind
            && *node != NO_NODE
        {
            // SAFETY: as for storages.
            tape.release(unsafe { dropping() }, *node);
        }
    }
}
