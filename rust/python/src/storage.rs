//! Storages and views: what makes a write through one name seen through another, as in NumPy.
//!
//! A [`Storage`] is a flat memory: the node that holds its elements now, and how often it was written. A [`View`]
//! is a layout over it. Reading records the view's elements (or finds the node that already is them); writing
//! records the memory with the view's elements replaced and makes that the current node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ckad_graph::{DType, NodeId, Result};
use pyo3::prelude::*;

use crate::errors::raise;
use crate::guarded::{Guarded, dropping};
use crate::layout::{Layout, inverse, is_identity, same_list};
use crate::tape::{Tape, TapeCell, next_id};

/// Reads of one version that are remembered.
const REMEMBERED_READS: usize = 8;

/// A flat memory that traced arrays share.
pub struct Storage {
    pub tape: Arc<TapeCell>,
    pub dtype: DType,
    /// The node of its elements, in C order of this node's shape. It changes while the tape is recorded, in the tape's
    /// thread alone; it is read more often than anything else, so not behind the lock.
    node: AtomicU32,
    /// The id that the next tape got when it was made.
    made_before: AtomicU64,
    state: Guarded<State>,
}

struct State {
    /// Views of the current node that were read, most recent last.
    reads: Vec<(Layout, NodeId)>,
    /// A reshape or ravel was taken of an array whose layout in NumPy is not known: view or copy, nobody can say.
    undecided_alias: bool,
}

/// What a value that retired refers to.
pub const NO_NODE: NodeId = NodeId(u32::MAX);

/// Notes that Python holds `node` until `TapeCell::release`.
pub fn hold(py: Python<'_>, tape: &Arc<TapeCell>, node: NodeId) -> PyResult<()> {
    tape.open(py).and_then(|mut tape| tape.retain(node)).map_err(raise)
}

impl Storage {
    pub fn new(py: Python<'_>, tape: Arc<TapeCell>, dtype: DType, node: NodeId) -> PyResult<Arc<Storage>> {
        hold(py, &tape, node)?;
        Ok(Storage::held(tape, dtype, node))
    }

    /// Of a node that was retained when it was recorded.
    pub fn held(tape: Arc<TapeCell>, dtype: DType, node: NodeId) -> Arc<Storage> {
        let state = Guarded::new(State { reads: Vec::new(), undecided_alias: false });
        let (node, made_before) = (AtomicU32::new(node.0), AtomicU64::new(next_id()));
        Arc::new(Storage { tape, dtype, node, made_before, state })
    }

    /// Lets go of the node for the only owner, where nothing else of the value is remembered.
    #[inline]
    pub fn retire(py: Python<'_>, this: &Arc<Storage>) -> bool {
        // Nobody has another reference that one could be made of.
        if Arc::strong_count(this) != 1 || this.tape.is_closed() {
            return false;
        }
        let Some(mut state) = this.state.try_hold(py) else { return false };
        if state.undecided_alias {
            return false;
        }
        state.reads.clear();
        drop(state);
        let node = this.node();
        this.node.store(NO_NODE.0, Ordering::Relaxed);
        this.tape.release(py, node);
        true
    }

    /// Makes what retired the memory of a new node of that tape and dtype; false where it was another's.
    #[inline]
    pub fn revive(&self, tape: &Arc<TapeCell>, node: NodeId, dtype: DType) -> bool {
        let same = Arc::ptr_eq(&self.tape, tape) && self.dtype == dtype;
        if same {
            self.node.store(node.0, Ordering::Relaxed);
            self.made_before.store(next_id(), Ordering::Relaxed);
        }
        same
    }

    /// Was it made before that tape?
    pub fn is_older_than(&self, tape: &TapeCell) -> bool {
        self.made_before.load(Ordering::Relaxed) <= tape.id
    }

    #[inline]
    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Relaxed))
    }

    pub fn mark_undecided_alias(&self, py: Python<'_>) {
        self.state.hold(py).undecided_alias = true;
    }

    pub fn has_undecided_alias(&self, py: Python<'_>) -> bool {
        self.state.hold(py).undecided_alias
    }

    /// The elements that `layout` describes, as a node of the layout's shape. `tape` is the storage's own.
    pub fn read(&self, py: Python<'_>, tape: &mut Tape, layout: &Layout) -> Result<NodeId> {
        let node = self.node();
        if same_list(&layout.shape, tape.builder.graph().shape(node)) && layout.offset == 0 && layout.is_c_contiguous(1)
        {
            return Ok(node);
        }
        let mut state = self.state.hold(py);
        if let Some((_, known)) = state.reads.iter().find(|(read, _)| read == layout) {
            return Ok(*known);
        }
        let read = read_layout(tape, node, layout)?;
        if state.reads.len() == REMEMBERED_READS {
            state.reads.remove(0);
        }
        state.reads.push((layout.clone(), read));
        Ok(read)
    }

    /// Records a write: `value` gives a node of the layout's shape and the storage's dtype.
    pub fn write(
        &self,
        py: Python<'_>,
        layout: &Layout,
        value: impl FnOnce(&mut Tape) -> Result<NodeId>,
    ) -> PyResult<()> {
        let node = self.tape.record(py, |tape| {
            let value = value(tape)?;
            let base = self.node();
            let node = write_layout(tape, base, layout, value)?;
            tape.retain(node)?;
            Ok(node)
        })?;
        let mut state = self.state.hold(py);
        let before = NodeId(self.node.swap(node.0, Ordering::Relaxed));
        state.reads.clear();
        drop(state);
        self.tape.release(py, before);
        Ok(())
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if self.node() != NO_NODE {
            // SAFETY: Python drops traced values, and so does what records them, with the interpreter's lock.
            let py = unsafe { dropping() };
            self.tape.release(py, self.node());
        }
    }
}

/// The elements of `node`'s flat memory that `layout` describes, as a node of the layout's shape.
pub fn read_layout(tape: &mut Tape, node: NodeId, layout: &Layout) -> Result<NodeId> {
    let builder = &tape.builder;
    if layout.is_plain() && same_list(&layout.shape, builder.graph().shape(node)) {
        return Ok(node);
    }
    let elements = builder.graph().elements(node) as i64;
    match layout.covering_order(elements) {
        Some(order) => {
            let memory = builder.reshape(node, &layout.transposed(&order).shape)?;
            builder.transpose(memory, &inverse(&order))
        }
        None if layout.elements() == 0 => builder.zeros(builder.dtype(node), &layout.shape),
        None => builder.strided_read(node, &layout.shape, &layout.strides, layout.offset),
    }
}

/// The memory `base` with `value` at the elements that `layout` describes.
fn write_layout(tape: &mut Tape, base: NodeId, layout: &Layout, value: NodeId) -> Result<NodeId> {
    let builder = &tape.builder;
    let elements = builder.graph().elements(base) as i64;
    if layout.elements() == 0 {
        return Ok(base);
    }
    // A write of everything is the value itself, in the order of the memory.
    let (upright, flipped) = layout.unflipped();
    if let Some(order) = upright.covering_order(elements) {
        let value = if flipped.is_empty() {
            value
        } else {
            let mut turned = Layout::contiguous(&layout.shape);
            for axis in flipped {
                let extent = turned.shape[axis];
                turned = turned.sliced(axis, extent - 1, -1, extent);
            }
            builder.strided_read(value, &turned.shape, &turned.strides, turned.offset)?
        };
        return builder.transpose(value, &order);
    }
    builder.strided_write(base, value, &layout.strides, layout.offset)
}

/// A window on a storage.
#[derive(Clone, Debug)]
pub struct View {
    /// Over the storage's packed memory, in elements. Results mostly lie as their operands do.
    pub layout: Arc<Layout>,
    /// NumPy's own layout and itemsize, in bytes, where the caller's array is laid out more loosely than our
    /// packed copy of it: it alone decides what is contiguous and what is a view.
    loose: Option<Box<(Layout, i64)>>,
    pub read_only: bool,
    /// We do not know how NumPy would have laid this array out.
    pub unknown_layout: bool,
}

impl View {
    pub fn new(layout: impl Into<Arc<Layout>>, read_only: bool) -> View {
        View { layout: layout.into(), loose: None, read_only, unknown_layout: false }
    }

    /// Of an argument: `strides` are the caller's, in bytes.
    pub fn of_argument(layout: Layout, strides: &[i64], itemsize: i64, read_only: bool) -> View {
        let packed = layout.strides.iter().zip(strides).all(|(ours, theirs)| ours * itemsize == *theirs);
        let loose = (!packed).then(|| {
            let theirs = Layout { offset: 0, shape: layout.shape.clone(), strides: strides.to_vec() };
            Box::new((theirs, itemsize))
        });
        View { layout: Arc::new(layout), loose, read_only, unknown_layout: false }
    }

    /// The layout that NumPy would see and the stride of adjacent elements in it.
    pub fn numpy(&self) -> (&Layout, i64) {
        match &self.loose {
            Some(loose) => (&loose.0, loose.1),
            None => (&self.layout, 1),
        }
    }

    /// NumPy's strides in bytes.
    pub fn strides_in_bytes(&self, dtype: DType) -> Vec<i64> {
        let (layout, unit) = self.numpy();
        let scale = dtype.size() as i64 / unit.max(1);
        layout.strides.iter().map(|stride| stride * scale).collect()
    }

    /// A view of this view: `change` is applied to our layout and to NumPy's.
    pub fn map(&self, change: impl Fn(Layout) -> Layout) -> View {
        View {
            layout: Arc::new(change(Layout::clone(&self.layout))),
            loose: self.loose.as_ref().map(|loose| Box::new((change(loose.0.clone()), loose.1))),
            read_only: self.read_only,
            unknown_layout: self.unknown_layout,
        }
    }

    /// The view under another shape where NumPy makes no copy.
    pub fn reshaped(&self, shape: &[i64]) -> Option<View> {
        let loose = match &self.loose {
            Some(loose) => Some(Box::new((loose.0.reshaped(shape, loose.1)?, loose.1))),
            None => None,
        };
        let layout = Arc::new(self.layout.reshaped(shape, 1)?);
        Some(View { layout, loose, read_only: self.read_only, unknown_layout: self.unknown_layout })
    }

    pub fn is_c_contiguous(&self) -> bool {
        let (layout, unit) = self.numpy();
        layout.is_c_contiguous(unit)
    }

    pub fn is_f_contiguous(&self) -> bool {
        let (layout, unit) = self.numpy();
        layout.is_f_contiguous(unit)
    }

    /// An array of at least one axis, packed in C order, here and in NumPy.
    pub fn is_plain(&self) -> bool {
        self.loose.is_none() && self.layout.is_plain()
    }

    /// Is our layout NumPy's too?
    #[inline]
    pub fn lies_as_numpys(&self) -> bool {
        self.loose.is_none()
    }

    /// The order of axes in memory of a copy that keeps the layout.
    pub fn memory_order(&self) -> Vec<usize> {
        let (layout, unit) = self.numpy();
        layout.memory_order(unit)
    }

    /// The view with its axes in memory order, and whether that changed anything.
    pub fn in_memory_order(&self) -> (Layout, Vec<usize>) {
        let order = self.memory_order();
        if is_identity(&order) { (Layout::clone(&self.layout), order) } else { (self.layout.transposed(&order), order) }
    }

    /// Is `other` the same elements in the same places?
    pub fn same_place(&self, other: &View) -> bool {
        self.layout == other.layout
    }
}
