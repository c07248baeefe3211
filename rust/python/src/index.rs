//! What stands between the brackets of `x[…]`: an index expression taken apart by NumPy's rules.
//!
//! Integers, slices, `None` and `...` give a view. As soon as an integer array or a mask occurs, integers count as
//! index arrays too, and the axes that are indexed so are left whole for `indexing.rs` to gather or scatter.

use ckad_graph::{DType, Error, ErrorKind, shape_text};
use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyInt, PyList, PySlice, PyTuple};

use crate::convert::{array_dtype, as_array};
use crate::errors::{TracerError, raise};
use crate::storage::View;
use crate::trace::innermost_jit;
use crate::tracer::Tracer;
use crate::values::{forced_array, forced_integer};

/// One item of an index.
pub enum Item<'py> {
    Integer(i64),
    /// An integer array of rank 0: an integer, of which NumPy makes a copy in place of a view.
    IntegerArray(i64),
    Slice(Bound<'py, PySlice>),
    NewAxis,
    Ellipsis,
    /// An array of integers known now, of any rank but 0.
    Fixed(Bound<'py, PyUntypedArray>),
    /// A traced array of integers.
    Traced(Bound<'py, Tracer>),
    /// An array of bools; of rank 0 for `True` and `False`.
    Mask(Bound<'py, PyUntypedArray>),
    /// A traced array of bools.
    TracedMask(Bound<'py, Tracer>),
}

fn index_error(what: impl Into<String>, hint: impl Into<String>) -> PyErr {
    raise(Error::new(ErrorKind::Index, "index", what).with_hint(hint))
}

fn not_an_index() -> PyErr {
    index_error(
        "only integers, slices (:), ellipsis (...), np.newaxis (None) and integer or boolean arrays are valid indices",
        "convert a float with int(i), an array of floats with .astype(int)",
    )
}

/// Takes an index expression apart.
pub fn parse<'py>(index: &Bound<'py, PyAny>) -> PyResult<Vec<Item<'py>>> {
    match index.cast::<PyTuple>() {
        Ok(tuple) => tuple.iter().map(|item| parse_item(&item)).collect(),
        Err(_) => Ok(vec![parse_item(index)?]),
    }
}

fn parse_item<'py>(item: &Bound<'py, PyAny>) -> PyResult<Item<'py>> {
    let py = item.py();
    if item.is_exact_instance_of::<PyInt>() {
        return item
            .extract()
            .map(Item::Integer)
            .map_err(|_| index_error(format!("index {item} is out of bounds"), "indices are 64-bit integers"));
    }
    if let Ok(slice) = item.cast::<PySlice>() {
        return Ok(Item::Slice(slice.clone()));
    }
    if item.is_none() {
        return Ok(Item::NewAxis);
    }
    if item.is(PyEllipsis::get(py)) {
        return Ok(Item::Ellipsis);
    }
    if let Ok(tracer) = item.cast::<Tracer>() {
        return parse_traced(py, tracer);
    }
    let sequence = item.is_instance_of::<PyList>() || item.is_instance_of::<PyTuple>();
    if sequence || item.is_instance_of::<PyBool>() || item.cast::<PyUntypedArray>().is_ok() {
        return parse_array(&as_array(item)?, sequence);
    }
    if let Ok(integer) = item.extract::<i64>()
        && !item.is_instance_of::<pyo3::types::PyFloat>()
    {
        return Ok(Item::Integer(integer));
    }
    // NumPy's bools.
    match as_array(item) {
        Ok(array) if array_dtype(&array).is_ok_and(|dtype| dtype == DType::Bool) => parse_array(&array, false),
        _ => Err(not_an_index()),
    }
}

fn parse_array<'py>(array: &Bound<'py, PyUntypedArray>, sequence: bool) -> PyResult<Item<'py>> {
    if sequence && array.len() == 0 && array_dtype(array)? != DType::Bool {
        let empty = array.call_method1("astype", ("int64",))?;
        return Ok(Item::Fixed(empty.cast_into::<PyUntypedArray>()?));
    }
    let dtype = array_dtype(array)?;
    if dtype.is_float() {
        return Err(index_error(
            "arrays used as indices must be of integer (or boolean) type",
            "convert with .astype(int)",
        ));
    }
    Ok(match (dtype.is_integer(), array.ndim()) {
        (true, 0) => Item::IntegerArray(array.call_method0("item")?.extract()?),
        (true, _) => Item::Fixed(array.clone()),
        (false, _) => Item::Mask(array.clone()),
    })
}

fn parse_traced<'py>(py: Python<'py>, tracer: &Bound<'py, Tracer>) -> PyResult<Item<'py>> {
    let value = tracer.get();
    let dtype = value.dtype();
    if dtype.is_float() {
        return Err(index_error(
            "arrays used as indices must be of integer (or boolean) type",
            "convert with .astype(int)",
        ));
    }
    Ok(match (dtype.is_integer(), value.rank()) {
        // A single position is needed now, to know which elements a view shows.
        (true, 0) if is_unknown(py, value)? => Item::Traced(tracer.clone()),
        (true, 0) if value.is_scalar() => Item::Integer(forced_integer(py, value)?),
        (true, 0) => Item::IntegerArray(forced_integer(py, value)?),
        (true, _) => Item::Traced(tracer.clone()),
        (false, 0) => Item::Mask(forced_array(py, value)?),
        (false, _) => Item::TracedMask(tracer.clone()),
    })
}

/// Does the value depend on what `jit` does not know? Then an element is gathered where otherwise a view would show it.
fn is_unknown(py: Python<'_>, value: &Tracer) -> PyResult<bool> {
    if innermost_jit().is_none() {
        return Ok(false);
    }
    match forced_integer(py, value) {
        Err(error) if error.is_instance_of::<TracerError>(py) => Ok(true),
        known => known.map(|_| false),
    }
}

/// What indexes one axis beside a view: one of NumPy's "advanced" indices.
pub enum Positions<'py> {
    Integer(i64),
    Fixed(Bound<'py, PyUntypedArray>),
    Traced(Bound<'py, Tracer>),
}

/// An index applied to a view.
pub struct Selection<'py> {
    /// After integers, slices and new axes; axes with positions are whole.
    pub view: View,
    /// Axes of `view` with their positions, ascending.
    pub positions: Vec<(usize, Positions<'py>)>,
    /// Before which axis of the result, counted among those without positions, the axes of the positions come.
    pub placement: usize,
    /// Every axis was given an integer: NumPy returns a scalar.
    pub scalar: bool,
    /// NumPy shows a part of the array, which is not known yet: what stands for it must not be written to.
    pub stands_for_view: bool,
    /// NumPy copies what the view shows.
    pub copied: bool,
}

/// The position `index` of an axis, wrapped, or NumPy's error.
pub fn wrap(index: i64, axis: usize, extent: i64) -> PyResult<i64> {
    let wrapped = if index < 0 { index + extent } else { index };
    if (0..extent).contains(&wrapped) {
        Ok(wrapped)
    } else {
        let hint = match extent {
            0 => "the axis is empty: check x.size first".to_owned(),
            _ => format!("indices go from {} to {}", -extent, extent - 1),
        };
        Err(index_error(format!("index {index} is out of bounds for axis {axis} with size {extent}"), hint))
    }
}

fn axes_taken(item: &Item<'_>) -> usize {
    match item {
        Item::NewAxis | Item::Ellipsis => 0,
        Item::Mask(mask) => mask.ndim(),
        Item::TracedMask(mask) => mask.get().rank(),
        _ => 1,
    }
}

/// Applies an index to a view.
pub fn select<'py>(py: Python<'py>, view: &View, items: Vec<Item<'py>>) -> PyResult<Selection<'py>> {
    let rank = view.layout.rank();
    let taken: usize = items.iter().map(axes_taken).sum();
    if taken > rank {
        let what = format!("too many indices for array: array is {rank}-dimensional, but {taken} were indexed");
        let shape = shape_text(&view.layout.shape);
        return Err(index_error(what, format!("the array has shape {shape}; a mask counts for each of its axes")));
    }
    if items.iter().filter(|item| matches!(item, Item::Ellipsis)).count() > 1 {
        return Err(index_error("an index can only have a single ellipsis ('...')", "write : for the other axes"));
    }
    let advanced =
        items.iter().any(|item| matches!(item, Item::Fixed(_) | Item::Traced(_) | Item::Mask(_) | Item::TracedMask(_)));
    let is_array = |item: &Item<'_>| match item {
        Item::Traced(tracer) => tracer.get().rank() > 0,
        Item::Fixed(_) | Item::Mask(_) | Item::TracedMask(_) => true,
        _ => false,
    };
    let of_arrays = items.iter().any(is_array);
    let copied = items.iter().any(|item| matches!(item, Item::IntegerArray(_)));
    let has_ellipsis = items.iter().any(|item| matches!(item, Item::Ellipsis));
    let mut walk = Walk {
        selection: Selection {
            view: view.clone(),
            positions: Vec::new(),
            placement: 0,
            scalar: false,
            stands_for_view: false,
            copied,
        },
        axis: 0,
        original_axis: 0,
        run: Run::None,
        whole: rank - taken,
    };
    for item in items {
        walk.step(py, item, advanced)?;
    }
    let mut selection = walk.selection;
    let rank = selection.view.layout.rank() - selection.positions.len();
    selection.scalar = !of_arrays && !has_ellipsis && rank == 0;
    selection.stands_for_view = advanced && !of_arrays && !copied && !selection.scalar;
    Ok(selection)
}

/// Are the advanced indices one run? NumPy puts their axes where the run is, and in front if there are several.
#[derive(PartialEq)]
enum Run {
    None,
    Inside,
    Ended,
    Several,
}

struct Walk<'py> {
    selection: Selection<'py>,
    /// The next axis of the selection's view.
    axis: usize,
    /// The same in the indexed array, for errors.
    original_axis: usize,
    run: Run,
    /// The axes that an ellipsis stands for.
    whole: usize,
}

impl<'py> Walk<'py> {
    fn step(&mut self, py: Python<'py>, item: Item<'py>, advanced: bool) -> PyResult<()> {
        let is_advanced = advanced
            && matches!(
                item,
                Item::Integer(_)
                    | Item::IntegerArray(_)
                    | Item::Fixed(_)
                    | Item::Traced(_)
                    | Item::Mask(_)
                    | Item::TracedMask(_)
            );
        if is_advanced {
            self.begin_run();
        } else if self.run == Run::Inside {
            self.run = Run::Ended;
        }
        let extent = self.selection.view.layout.shape.get(self.axis).copied().unwrap_or(1);
        match item {
            Item::Integer(index) | Item::IntegerArray(index) => {
                let index = wrap(index, self.original_axis, extent)?;
                if advanced {
                    self.push(Positions::Integer(index));
                } else {
                    let axis = self.axis;
                    self.selection.view = self.selection.view.map(|layout| layout.indexed(axis, index));
                    self.original_axis += 1;
                }
            }
            Item::Slice(slice) => {
                let indices = slice.indices(extent as isize)?;
                let (start, step) = if indices.slicelength == 0 { (0, 1) } else { (indices.start, indices.step) };
                let axis = self.axis;
                self.selection.view = self
                    .selection
                    .view
                    .map(|layout| layout.sliced(axis, start as i64, step as i64, indices.slicelength as i64));
                self.axis += 1;
                self.original_axis += 1;
            }
            Item::NewAxis => self.insert_axis(),
            Item::Ellipsis => {
                self.axis += self.whole;
                self.original_axis += self.whole;
            }
            Item::Fixed(array) => {
                self.check_range(&array, extent)?;
                self.push(Positions::Fixed(array));
            }
            Item::Traced(tracer) => self.push(Positions::Traced(tracer)),
            Item::Mask(mask) => self.mask(&mask)?,
            Item::TracedMask(mask) => {
                let mask = forced_array(py, mask.get())?;
                self.mask(&mask)?;
            }
        }
        Ok(())
    }

    fn begin_run(&mut self) {
        self.run = match self.run {
            Run::None => {
                self.selection.placement = self.axis - self.selection.positions.len();
                Run::Inside
            }
            Run::Inside => Run::Inside,
            Run::Ended | Run::Several => {
                self.selection.placement = 0;
                Run::Several
            }
        };
    }

    fn insert_axis(&mut self) {
        let axis = self.axis;
        self.selection.view = self.selection.view.map(|layout| layout.expanded(axis));
        self.axis += 1;
    }

    fn push(&mut self, positions: Positions<'py>) {
        self.selection.positions.push((self.axis, positions));
        self.axis += 1;
        self.original_axis += 1;
    }

    fn check_range(&self, array: &Bound<'py, PyUntypedArray>, extent: i64) -> PyResult<()> {
        if array.len() == 0 {
            return Ok(());
        }
        for end in ["min", "max"] {
            wrap(array.call_method0(end)?.extract()?, self.original_axis, extent)?;
        }
        Ok(())
    }

    /// A mask is the positions where it holds, one array for each of its axes.
    fn mask(&mut self, mask: &Bound<'py, PyUntypedArray>) -> PyResult<()> {
        if mask.ndim() == 0 {
            let positions = mask.call_method1("reshape", (1,))?.call_method0("nonzero")?.get_item(0)?;
            self.insert_axis();
            self.selection.positions.push((self.axis - 1, Positions::Fixed(positions.cast_into()?)));
            return Ok(());
        }
        for (offset, &extent) in mask.shape().iter().enumerate() {
            let size = self.selection.view.layout.shape[self.axis + offset];
            if extent as i64 != size {
                let what = format!(
                    "boolean index did not match indexed array along axis {}; size of axis is {size} but size of \
                     corresponding boolean axis is {extent}",
                    self.original_axis + offset
                );
                return Err(index_error(what, "a mask has the extents of the axes that it selects from"));
            }
        }
        let positions = mask.call_method0("nonzero")?;
        for axis in 0..mask.ndim() {
            self.push(Positions::Fixed(positions.get_item(axis)?.cast_into()?));
        }
        Ok(())
    }
}

/// The error for index arrays that do not broadcast.
pub fn shapes_do_not_broadcast(shapes: &[&[i64]]) -> PyErr {
    let shapes = shapes.iter().map(|shape| shape_text(shape)).collect::<Vec<_>>().join(" ");
    index_error(
        format!("shape mismatch: indexing arrays could not be broadcast together with shapes {shapes}"),
        "from the last axis backwards, extents must be equal or 1; for a grid use x[i[:, None], j]",
    )
}
