//! What Python sees of a traced value: slots, attributes and methods, each one line to where it is written. What arrays
//! have beside is in `class_of_arrays`.

use ckad_graph::{ErrorKind, ReduceKind, shape_text};
use ckad_prim::Elementwise;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::elements::{Elements, Flags};
use crate::errors::{builtin, refusal};
use crate::function::{array_function, attribute, call_registered, plain_or_registered};
use crate::indexing::{get_item, set_item};
use crate::operators::{binary, compare, divide_with_remainder, matrix_product, positive, power, unary};
use crate::reductions::{reduce, reduced};
use crate::shapes::{self, Order, integer_or_bool, transpose_axes};
use crate::trace::home_of_new;
use crate::tracer::{Kind, Tracer};
use crate::ufunc::array_ufunc;
use crate::values;

type Any<'a, 'py> = &'a Bound<'py, PyAny>;

#[pymethods]
impl Tracer {
    fn __add__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Add, self, other, false)
    }

    fn __radd__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Add, self, other, true)
    }

    fn __sub__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Subtract, self, other, false)
    }

    fn __rsub__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Subtract, self, other, true)
    }

    fn __mul__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Multiply, self, other, false)
    }

    fn __rmul__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Multiply, self, other, true)
    }

    fn __truediv__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Divide, self, other, false)
    }

    fn __rtruediv__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Divide, self, other, true)
    }

    fn __floordiv__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::FloorDivide, self, other, false)
    }

    fn __rfloordiv__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::FloorDivide, self, other, true)
    }

    fn __mod__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Remainder, self, other, false)
    }

    fn __rmod__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::Remainder, self, other, true)
    }

    fn __and__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::BitwiseAnd, self, other, false)
    }

    fn __rand__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::BitwiseAnd, self, other, true)
    }

    fn __or__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::BitwiseOr, self, other, false)
    }

    fn __ror__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::BitwiseOr, self, other, true)
    }

    fn __xor__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::BitwiseXor, self, other, false)
    }

    fn __rxor__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::BitwiseXor, self, other, true)
    }

    fn __lshift__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::LeftShift, self, other, false)
    }

    fn __rlshift__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::LeftShift, self, other, true)
    }

    fn __rshift__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::RightShift, self, other, false)
    }

    fn __rrshift__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        binary(py, Elementwise::RightShift, self, other, true)
    }

    fn __pow__(&self, py: Python<'_>, exponent: Any<'_, '_>, modulus: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        match modulus {
            None => power(py, self, exponent),
            Some(_) => Ok(py.NotImplemented()),
        }
    }

    fn __rpow__(&self, py: Python<'_>, base: Any<'_, '_>, modulus: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        match modulus {
            None => binary(py, Elementwise::Power, self, base, true),
            Some(_) => Ok(py.NotImplemented()),
        }
    }

    fn __matmul__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        matrix_product(py, self, other, false)
    }

    fn __rmatmul__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        matrix_product(py, self, other, true)
    }

    fn __divmod__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        divide_with_remainder(py, self, other, false)
    }

    fn __rdivmod__(&self, py: Python<'_>, other: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        divide_with_remainder(py, self, other, true)
    }

    fn __neg__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        unary(py, Elementwise::Negative, self)
    }

    fn __pos__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        positive(py, self)
    }

    fn __abs__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        unary(py, Elementwise::Absolute, self)
    }

    fn __invert__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        unary(py, Elementwise::Invert, self)
    }

    fn __richcmp__(&self, py: Python<'_>, other: Any<'_, '_>, op: CompareOp) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        compare(py, op, self, other)
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_alive(py)?;
        values::truth(py, self)
    }

    fn __int__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::integer(py, self)
    }

    fn __index__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::index(py, self)
    }

    fn __float__(&self, py: Python<'_>) -> PyResult<f64> {
        self.check_alive(py)?;
        values::float(py, self)
    }

    #[pyo3(signature = (digits = None))]
    fn __round__(&self, py: Python<'_>, digits: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::round(py, self, digits)
    }

    fn __trunc__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::integer(py, self)
    }

    fn __format__(&self, py: Python<'_>, spec: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::format(py, self, spec)
    }

    fn __str__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::string(py, self)
    }

    fn __repr__(&self) -> String {
        values::representation(self)
    }

    fn __len__(&self) -> PyResult<usize> {
        match self.shape().first() {
            Some(&extent) => Ok(extent as usize),
            None => Err(refusal(ErrorKind::Type, "len", "len() of unsized object", "x.size is 1, x.ndim is 0")),
        }
    }

    fn __getitem__(&self, py: Python<'_>, index: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        get_item(py, self, index)
    }

    fn __setitem__(&self, py: Python<'_>, index: Any<'_, '_>, value: Any<'_, '_>) -> PyResult<()> {
        self.check_alive(py)?;
        set_item(py, self, index, value)
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<Elements> {
        slf.get().check_alive(slf.py())?;
        Elements::of(slf, false)
    }

    fn __reversed__(slf: Bound<'_, Self>) -> PyResult<Elements> {
        slf.get().check_alive(slf.py())?;
        Elements::of(slf, true)
    }

    fn __contains__(&self, py: Python<'_>, value: Any<'_, '_>) -> PyResult<bool> {
        self.check_alive(py)?;
        let equal = compare(py, CompareOp::Eq, self, value)?;
        let Ok(equal) = equal.bind(py).cast::<Tracer>() else { return Ok(false) };
        let axes: Vec<usize> = (0..equal.get().rank()).collect();
        values::truth(py, &reduce(py, ReduceKind::Any, equal.get(), &axes, None, false)?)
    }

    fn __copy__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        shapes::copy(py, self, Order::C)?.into_object(py)
    }

    fn __deepcopy__(&self, py: Python<'_>, _memo: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        shapes::copy(py, self, Order::C)?.into_object(py)
    }

    fn __reduce_ex__(&self, _protocol: Any<'_, '_>) -> PyResult<()> {
        let what = "a traced value cannot be pickled: it exists only while its function is recorded";
        let hint = "return it with has_aux=True and save it outside, or save np.asarray(ckad.stop_gradient(x))";
        Err(refusal(ErrorKind::Type, "pickle", what, hint))
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__(&self, py: Python<'_>, dtype: Option<Any<'_, '_>>, copy: Option<bool>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::to_array(py, self, dtype, copy)
    }

    #[pyo3(signature = (ufunc, method, *inputs, **keywords))]
    fn __array_ufunc__(
        &self,
        py: Python<'_>,
        ufunc: Any<'_, '_>,
        method: &str,
        inputs: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        array_ufunc(py, ufunc, method, inputs, keywords)
    }

    fn __array_function__(
        slf: &Bound<'_, Self>,
        function: Any<'_, '_>,
        _types: Any<'_, '_>,
        args: &Bound<'_, PyTuple>,
        kwargs: &Bound<'_, PyDict>,
    ) -> PyResult<Py<PyAny>> {
        array_function(slf, function, args, kwargs)
    }

    fn __getattr__<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        attribute(slf, name)
    }

    fn __setattr__(&self, name: &str, _value: Any<'_, '_>) -> PyResult<()> {
        let hint = match name {
            "shape" => "write x = x.reshape(shape)",
            "dtype" => "write x = x.astype(dtype)",
            "real" | "flat" => "write x[...] = values",
            _ => "keep it in a variable, and return it with has_aux=True where it is needed outside",
        };
        let what = format!("the attribute {name} of a traced value cannot be set");
        Err(builtin::<PyAttributeError>("attribute", what, hint))
    }

    fn __delattr__(&self, name: &str) -> PyResult<()> {
        let what = format!("the attribute {name} of a traced value cannot be deleted: it is not writable");
        Err(builtin::<PyAttributeError>("attribute", what, "del x lets go of the value itself"))
    }

    #[getter(shape)]
    fn shape_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.shape())
    }

    #[getter(dtype)]
    fn dtype_object(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        values::dtype_object(py, self.dtype())
    }

    #[getter]
    fn ndim(&self) -> usize {
        self.rank()
    }

    #[getter]
    fn size(&self) -> i64 {
        self.elements()
    }

    #[getter]
    fn itemsize(&self) -> usize {
        self.dtype().size()
    }

    #[getter]
    fn nbytes(&self) -> i64 {
        self.elements() * self.dtype().size() as i64
    }

    /// NumPy's strides, in bytes.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self.kind() {
            Kind::Scalar { .. } => Ok(PyTuple::empty(py)),
            Kind::Array { view, .. } => PyTuple::new(py, view.strides_in_bytes(self.dtype())),
        }
    }

    #[getter]
    fn flags(&self) -> Flags {
        match self.kind() {
            Kind::Scalar { .. } => Flags::new(false, true, true),
            Kind::Array { view, .. } => {
                Flags::new(!self.is_read_only(), view.is_c_contiguous(), view.is_f_contiguous())
            }
        }
    }

    #[getter(T)]
    fn transposed(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        shapes::transpose(py, self, None)?.into_object(py)
    }

    /// The last two axes turned round.
    #[getter(mT)]
    fn matrix_transposed(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        if self.rank() < 2 {
            let what = format!("matrix transpose with ndim < 2 is undefined: shape {}", shape_text(self.shape()));
            return Err(refusal(ErrorKind::Shape, "mT", what, "use x.T, or x[:, None] for a column"));
        }
        shapes::swap_axes(py, self, -1, -2)?.into_object(py)
    }

    /// Real values are their own real part.
    #[getter]
    fn real(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[getter]
    fn imag(slf: Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        slf.get().check_alive(slf.py())?;
        call_registered(slf.py(), "imag", (slf.clone(),), None)
    }

    /// Real values are their own conjugates.
    fn conj(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn conjugate(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*shape, order = None, copy = None))]
    fn reshape(
        &self,
        py: Python<'_>,
        shape: &Bound<'_, PyTuple>,
        order: Option<Any<'_, '_>>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        if copy.is_some() {
            let what = "copy= is not supported for traced values";
            let hint = "leave it out, or write x.copy().reshape(…) where the result must not share memory with x";
            return Err(refusal(ErrorKind::Type, "reshape", what, hint));
        }
        let shape = shapes::method_shape(self, shape)?;
        shapes::reshape(py, self, &shape, Order::parse(order, Order::C)?)?.into_object(py)
    }

    #[pyo3(signature = (order = None))]
    fn ravel(&self, py: Python<'_>, order: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        shapes::ravel(py, self, Order::parse(order, Order::C)?)?.into_object(py)
    }

    #[pyo3(signature = (order = None))]
    fn flatten(&self, py: Python<'_>, order: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        shapes::flatten(py, self, Order::parse(order, Order::C)?)?.into_object(py)
    }

    #[pyo3(signature = (*axes))]
    fn transpose(&self, py: Python<'_>, axes: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        let axes = transpose_axes(axes, self.shape())?;
        shapes::transpose(py, self, axes.as_deref())?.into_object(py)
    }

    fn swapaxes(&self, py: Python<'_>, axis1: Any<'_, '_>, axis2: Any<'_, '_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        shapes::swap_axes(py, self, integer_or_bool("swapaxes", axis1)?, integer_or_bool("swapaxes", axis2)?)?
            .into_object(py)
    }

    #[pyo3(signature = (axis = None))]
    fn squeeze(slf: &Bound<'_, Self>, axis: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        slf.get().check_alive(slf.py())?;
        match shapes::squeeze(slf.get(), axis)? {
            Some(squeezed) => squeezed.into_object(slf.py()),
            None => Ok(slf.clone().into_any().unbind()),
        }
    }

    #[pyo3(signature = (offset = None, axis1 = None, axis2 = None))]
    fn diagonal(
        &self,
        py: Python<'_>,
        offset: Option<Any<'_, '_>>,
        axis1: Option<Any<'_, '_>>,
        axis2: Option<Any<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        let given =
            |number: Option<Any<'_, '_>>, usual| number.map_or(Ok(usual), |number| integer_or_bool("diagonal", number));
        shapes::diagonal(self, given(offset, 0)?, given(axis1, 0)?, given(axis2, 1)?)?.into_object(py)
    }

    #[pyo3(signature = (order = None))]
    fn copy(&self, py: Python<'_>, order: Option<Any<'_, '_>>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        let copied = shapes::copy(py, self, Order::parse(order, Order::C)?)?;
        let home = home_of_new(self.tape());
        let copied = if home.depth > self.tape().depth { copied.within(py, &home)? } else { copied };
        copied.into_object(py)
    }

    #[pyo3(signature = (dtype, order = None, casting = "unsafe", subok = true, copy = true))]
    fn astype(
        slf: &Bound<'_, Self>,
        dtype: Any<'_, '_>,
        order: Option<Any<'_, '_>>,
        casting: &str,
        subok: bool,
        copy: bool,
    ) -> PyResult<Py<PyAny>> {
        let _ = subok;
        if casting != "unsafe" {
            let what = format!("casting={casting:?} is not supported for traced values, only 'unsafe'");
            let hint = "leave casting= out, after np.can_cast(x.dtype, dtype) where it matters";
            return Err(refusal(ErrorKind::Type, "astype", what, hint));
        }
        let (py, this) = (slf.py(), slf.get());
        this.check_alive(py)?;
        let dtype = values::parse_dtype(dtype)?;
        if !copy && dtype == this.dtype() {
            return Ok(slf.clone().into_any().unbind());
        }
        shapes::as_type(py, this, dtype, Order::parse(order, Order::K)?)?.into_object(py)
    }

    fn fill(&self, py: Python<'_>, value: Any<'_, '_>) -> PyResult<()> {
        self.check_alive(py)?;
        shapes::fill(py, self, value)
    }

    #[pyo3(signature = (*position))]
    fn item(&self, py: Python<'_>, position: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::item(py, self, position)
    }

    fn tolist(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.check_alive(py)?;
        values::to_list(py, self)
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn dot<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        plain_or_registered(slf, "dot", args, kwargs)
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn mean<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        plain_or_registered(slf, "mean", args, kwargs)
    }

    #[pyo3(signature = (axis = None, dtype = None, out = None, keepdims = None, **further))]
    fn sum<'py>(
        &self,
        py: Python<'py>,
        axis: Option<Any<'_, 'py>>,
        dtype: Option<Any<'_, 'py>>,
        out: Option<Any<'_, 'py>>,
        keepdims: Option<Any<'_, 'py>>,
        further: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        reduced(py, ReduceKind::Sum, self, [axis, dtype, out], keepdims, further)
    }

    #[pyo3(signature = (axis = None, out = None, keepdims = None, **further))]
    fn max<'py>(
        &self,
        py: Python<'py>,
        axis: Option<Any<'_, 'py>>,
        out: Option<Any<'_, 'py>>,
        keepdims: Option<Any<'_, 'py>>,
        further: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        reduced(py, ReduceKind::Max, self, [axis, None, out], keepdims, further)
    }

    #[pyo3(signature = (axis = None, out = None, keepdims = None, **further))]
    fn min<'py>(
        &self,
        py: Python<'py>,
        axis: Option<Any<'_, 'py>>,
        out: Option<Any<'_, 'py>>,
        keepdims: Option<Any<'_, 'py>>,
        further: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        reduced(py, ReduceKind::Min, self, [axis, None, out], keepdims, further)
    }

    #[pyo3(signature = (axis = None, out = None, keepdims = None, **further))]
    fn any<'py>(
        &self,
        py: Python<'py>,
        axis: Option<Any<'_, 'py>>,
        out: Option<Any<'_, 'py>>,
        keepdims: Option<Any<'_, 'py>>,
        further: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        reduced(py, ReduceKind::Any, self, [axis, None, out], keepdims, further)
    }

    #[pyo3(signature = (axis = None, out = None, keepdims = None, **further))]
    fn all<'py>(
        &self,
        py: Python<'py>,
        axis: Option<Any<'_, 'py>>,
        out: Option<Any<'_, 'py>>,
        keepdims: Option<Any<'_, 'py>>,
        further: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        reduced(py, ReduceKind::All, self, [axis, None, out], keepdims, further)
    }
}
