"""Sums, products, extrema, moments and norms, composed from the reductions and the linear recurrence of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError
from ckad.numpy.axes import (
    array,
    axis_index,
    cast,
    from_order,
    in_order,
    iteration_order,
    reduction_axes,
    with_kept_axes,
)
from ckad.numpy.registry import given, implements, refuse


def _accumulator_dtype(x: Any, dtype: Any) -> Any:
    """NumPy's dtype of sums and products: integers narrower than int64 are widened."""
    if dtype is not None:
        return np.dtype(dtype)
    if x.dtype.kind in "bi":
        return np.dtype(np.int64)
    return np.dtype(np.uint64) if x.dtype.kind == "u" else x.dtype


def _require_elements(name: str, x: Any, axes: tuple[int, ...]) -> None:
    if 0 in [x.shape[axis] for axis in axes]:
        raise ValueError(f"zero-size array to reduction operation {name} which has no identity")


def _reduced(kind: str, x: Any, axis: Any, keepdims: Any) -> Any:
    axes = reduction_axes(axis, x.ndim)
    return with_kept_axes(_core.reduce(kind, x, axes), x.shape, axes, keepdims)


@implements(np.sum, method="sum")
def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    refuse("sum", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    wanted = _accumulator_dtype(a, dtype)
    total = cast(_reduced("sum", cast(a, wanted), axis, keepdims), wanted)
    return total if given(initial) is None else total + cast(array(initial), wanted)


@implements(np.max, np.amax, method="max")
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = None
) -> Any:
    return _extremum("max", np.maximum, a, axis, out, keepdims, initial, where)


@implements(np.min, np.amin, method="min")
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None, where: Any = None
) -> Any:
    return _extremum("min", np.minimum, a, axis, out, keepdims, initial, where)


def _extremum(kind: str, pair: Any, a: Any, axis: Any, out: Any, keepdims: Any, initial: Any, where: Any) -> Any:
    refuse(kind, out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    initial = given(initial) if given(initial) is None else cast(array(initial), a.dtype)
    axes = reduction_axes(axis, a.ndim)
    if initial is None:
        _require_elements(pair.__name__, a, axes)
        return with_kept_axes(_core.reduce(kind, a, axes), a.shape, axes, keepdims)
    if a.size == 0:
        reduced = tuple(extent for i, extent in enumerate(a.shape) if i not in axes)
        return with_kept_axes(_core.zeros(a, reduced, a.dtype.name) + initial, a.shape, axes, keepdims)
    return pair(with_kept_axes(_core.reduce(kind, a, axes), a.shape, axes, keepdims), initial)


@implements(np.any, method="any")
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None) -> Any:
    refuse("any", out=given(out), where=None if given(where) is True else given(where))
    return _reduced("any", cast(array(a), np.bool_), axis, keepdims)


@implements(np.all, method="all")
def all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None) -> Any:
    refuse("all", out=given(out), where=None if given(where) is True else given(where))
    return _reduced("all", cast(array(a), np.bool_), axis, keepdims)


@implements(np.argmax, method="argmax")
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    return _arg_extremum("argmax", True, a, axis, out, keepdims)


@implements(np.argmin, method="argmin")
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    return _arg_extremum("argmin", False, a, axis, out, keepdims)


def _arg_extremum(name: str, greatest: bool, a: Any, axis: Any, out: Any, keepdims: Any) -> Any:
    refuse(name, out=given(out))
    a = array(a)
    shape = a.shape
    if axis is None:
        axes = tuple(range(a.ndim))
        flat, along = np.reshape(a, (-1,)), 0
    else:
        along = axis_index(axis, a.ndim)
        axes, flat = (along,), a
    if flat.shape[along] == 0:
        raise ValueError(f"attempt to get {name} of an empty sequence")
    return with_kept_axes(_core.arg_reduce(greatest, flat, along), shape, axes, keepdims)


def _scanned(x: Any, axis: Any) -> tuple[Any, int]:
    """The array and the axis to scan along; flattened for None, as NumPy does."""
    if axis is None:
        return np.reshape(x, (-1,)), 0
    if x.ndim == 0:
        axis_index(axis, 1)
        return np.reshape(x, (1,)), 0
    return x, axis_index(axis, x.ndim)


@implements(np.cumsum, method="cumsum")
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    refuse("cumsum", out=out)
    a = array(a)
    x, along = _scanned(cast(a, _accumulator_dtype(a, dtype)), axis)
    return _core.cumulative_sum(x, along)


def _running_products(x: Any, axis: int) -> Any:
    """s_0 = x_0, s_k = x_k·s_{k−1}: a linear recurrence, whose derivative is exact where factors are zero."""
    first = tuple(slice(0, 1) if i == axis else slice(None) for i in range(x.ndim))
    rest = tuple(extent - 1 if i == axis else extent for i, extent in enumerate(x.shape))
    # Adding −0 keeps the sign of a product that is zero.
    inhomogeneity = np.concatenate([x[first], np.negative(_core.zeros(x, rest, x.dtype.name))], axis=axis)
    return _core.linear_recurrence(x, inhomogeneity, axis)


@implements(np.cumprod, method="cumprod")
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    refuse("cumprod", out=out)
    a = array(a)
    x, along = _scanned(cast(a, _accumulator_dtype(a, dtype)), axis)
    if x.shape[along] == 0:
        return x.copy()
    order = iteration_order(x)
    return from_order(_running_products(in_order(x, order), order.index(along)), order)


@implements(np.prod, method="prod")
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = None,
) -> Any:
    refuse("prod", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    x = cast(a, _accumulator_dtype(a, dtype))
    axes = reduction_axes(axis, x.ndim)
    # What is kept lies as the array does.
    kept = tuple(i for i in iteration_order(x) if i not in axes)
    rows = tuple(x.shape[i] for i in kept)
    count = int(np.prod([x.shape[i] for i in axes], dtype=np.int64))
    if count == 0:
        product = _core.zeros(x, rows, x.dtype.name) + np.ones((), x.dtype)
    elif not axes:
        product = np.transpose(x, kept).copy("C")
    else:
        lines = np.reshape(np.transpose(x, kept + axes), (*rows, count))
        product = _running_products(lines, len(rows))[..., -1].copy("C")
        product = product[()] if product.ndim == 0 else product
    product = np.transpose(product, [kept.index(i) for i in sorted(kept)])
    product = with_kept_axes(product, x.shape, axes, keepdims)
    return product if given(initial) is None else product * cast(array(initial), x.dtype)


@implements(np.mean, method="mean")
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None
) -> Any:
    refuse("mean", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    if dtype is not None:
        a = cast(a, dtype)
    elif a.dtype.kind in "biu":
        a = cast(a, np.float64)
    axes = reduction_axes(axis, a.ndim)
    return _reduced("sum", a, axis, keepdims) / _count(a, axes)


def _count(a: Any, axes: tuple[int, ...]) -> int:
    return int(np.prod([a.shape[axis] for axis in axes], dtype=np.int64))


@implements(np.var, method="var")
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = None,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    refuse("var", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    if dtype is not None:
        a = cast(a, dtype)
    elif a.dtype.kind in "biu":
        a = cast(a, np.float64)
    if given(correction) is not None:
        ddof = correction
    axes = reduction_axes(axis, a.ndim)
    count = _count(a, axes)
    centre = _reduced("sum", a, axis, True) / count if given(mean) is None else mean
    deviation = a - centre
    degrees = count - ddof
    return _reduced("sum", deviation * deviation, axis, keepdims) / (degrees if degrees > 0 else 0)


@implements(np.std, method="std")
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = None,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    return np.sqrt(var(a, axis, dtype, out, ddof, keepdims, where=where, mean=mean, correction=correction))


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Any:
    x = array(x)
    if x.dtype.kind != "f":
        x = cast(x, np.float64)
    if x.size == 0 and isinstance(x, _core.Tracer):
        # A constant, or an error: which, is for NumPy to say.
        return _core.lift(np.linalg.norm(np.zeros(x.shape, x.dtype), ord, axis, keepdims), x)
    if (axis is None and (ord is None or x.ndim == 1 or (x.ndim == 2 and ord == "fro"))) or axis is None:
        axes = tuple(range(x.ndim))
    else:
        axes = axis if isinstance(axis, tuple) else (axis_index(axis, x.ndim),)
    if ord is None or (len(axes) == 1 and ord == 2) or (len(axes) == 2 and ord == "fro"):
        return np.sqrt(np.sum(x * x, axis=axes, keepdims=keepdims))
    if len(axes) == 1:
        return _vector_norm(x, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, ord, axes, keepdims)
    raise ValueError("Improper number of dimensions to norm.")


def _vector_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: Any) -> Any:
    magnitude = np.abs(x)
    if ord == np.inf:
        return np.max(magnitude, axis=axes, keepdims=keepdims)
    if ord == -np.inf:
        return np.min(magnitude, axis=axes, keepdims=keepdims)
    if ord == 0:
        return np.sum(cast(x != 0, x.dtype), axis=axes, keepdims=keepdims)
    if ord == 1:
        return np.sum(magnitude, axis=axes, keepdims=keepdims)
    if isinstance(ord, str):
        raise ValueError(f"Invalid norm order '{ord}' for vectors")
    return np.sum(magnitude**ord, axis=axes, keepdims=keepdims) ** (1.0 / ord)


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: Any) -> Any:
    row, column = (axis_index(axis, x.ndim) for axis in axes)
    if row == column:
        raise ValueError("Duplicate axes given.")
    sums = {
        1: (row, column, np.max),
        -1: (row, column, np.min),
        np.inf: (column, row, np.max),
        -np.inf: (column, row, np.min),
    }
    if ord not in sums:
        hint = "use ord=None, 'fro', 1 or inf"
        raise CkadTypeError(
            f"[norm] matrix norm ord={ord!r} is not supported for traced values. Hint: {hint}", op="norm", hint=hint
        )
    summed, compared, extremum = sums[ord]
    result = extremum(np.sum(np.abs(x), axis=summed), axis=compared - (compared > summed))
    return with_kept_axes(result, x.shape, (row, column), keepdims)
