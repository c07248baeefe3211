//! What Python sees of a traced array alone: the in-place operators, each one line to where it is written.

use ckad_prim::Elementwise;
use pyo3::prelude::*;

use crate::operators::{in_place, in_place_matrix_product, in_place_power};
use crate::tracer::ArrayTracer;

type Any<'a, 'py> = &'a Bound<'py, PyAny>;

#[pymethods]
impl ArrayTracer {
    fn __iadd__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::Add, slf.as_super().get(), other)
    }

    fn __isub__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::Subtract, slf.as_super().get(), other)
    }

    fn __imul__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::Multiply, slf.as_super().get(), other)
    }

    fn __itruediv__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::Divide, slf.as_super().get(), other)
    }

    fn __ifloordiv__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::FloorDivide, slf.as_super().get(), other)
    }

    fn __imod__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::Remainder, slf.as_super().get(), other)
    }

    fn __iand__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::BitwiseAnd, slf.as_super().get(), other)
    }

    fn __ior__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::BitwiseOr, slf.as_super().get(), other)
    }

    fn __ixor__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::BitwiseXor, slf.as_super().get(), other)
    }

    fn __ilshift__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::LeftShift, slf.as_super().get(), other)
    }

    fn __irshift__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place(slf.py(), Elementwise::RightShift, slf.as_super().get(), other)
    }

    fn __imatmul__(slf: &Bound<'_, Self>, other: Any<'_, '_>) -> PyResult<()> {
        in_place_matrix_product(slf.py(), slf.as_super().get(), other)
    }

    fn __ipow__(slf: &Bound<'_, Self>, exponent: Any<'_, '_>, _modulus: Option<Any<'_, '_>>) -> PyResult<()> {
        in_place_power(slf.py(), slf.as_super().get(), exponent)
    }
}
