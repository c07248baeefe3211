"""Sums, products, extrema, moments and norms, composed from the reductions and the linear recurrence of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadError, CkadTypeError, CkadValueError, DTypeError, TracerError
from ckad.numpy.axes import (
    along_axis,
    array,
    axis_index,
    axis_indices,
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
        what = f"zero-size array to reduction operation {name} which has no identity: shape {x.shape}"
        raise CkadValueError.of(name, what, "give initial=, the result where there are no elements")


def _reduced(name: str, kind: str, x: Any, axis: Any, keepdims: Any) -> Any:
    axes = reduction_axes(name, axis, x.shape)
    return with_kept_axes(_core.reduce(kind, x, axes), x.shape, axes, keepdims)


def start_value(name: str, operation: str, initial: Any, dtype: Any, empty: bool) -> Any:
    """`initial=` in the dtype of the accumulator; None where the elements alone are to be reduced."""
    if initial is np._NoValue or initial is None:
        if initial is None and empty:
            what = f"zero-size array to reduction operation {operation} which has no identity"
            raise CkadValueError.of(name, what, "check x.size first, or pass initial=")
        return None
    if isinstance(initial, _core.Tracer):
        start = array(initial)
        if np.dtype(dtype).kind != "f" and _core.is_active(start):
            what = f"a differentiated initial= beside elements of {np.dtype(dtype)} loses its gradient"
            raise TracerError.of(
                name, what, "convert the array with .astype(float), or write ckad.stop_gradient(initial)"
            )
        return cast(start, dtype)
    start = np.empty((), dtype)
    try:
        start[()] = initial
    except CkadError:
        raise
    except ValueError as error:
        raise CkadValueError.of(name, str(error).rstrip("."), "initial= takes one number") from None
    except TypeError as error:
        raise CkadTypeError.of(name, str(error).rstrip("."), "initial= takes one number") from None
    return start


def sum_from(x: Any, axes: tuple[int, ...], initial: Any, start: Any) -> Any:
    """The sum that starts from a value, or from the first element where `initial` is None: in either case a sum of
    −0 alone is −0, which it is not where NumPy starts from 0.
    """
    total = _core.reduce("sum", x, axes)
    if initial is np._NoValue:
        return total
    keeps_sign = x.dtype.kind == "f" and (
        start is None or isinstance(start, _core.Tracer) or (start == 0 and np.signbit(start))
    )
    if keeps_sign:
        all_negative = _core.reduce("all", (x == 0) & np.signbit(x), axes)
        # −(0 − 0) is −0, and as a function of the sum its derivative is 1.
        total = np.where(all_negative, -(0.0 - total), total)[()]
    return total if start is None else start + total


@implements(np.sum, method="sum")
def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = np._NoValue,
    where: Any = None,
) -> Any:
    refuse("sum", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    wanted = _accumulator_dtype(a, dtype)
    axes = reduction_axes("sum", axis, a.shape)
    start = start_value("sum", "add", initial, wanted, 0 in (a.shape[i] for i in axes))
    total = cast(sum_from(cast(a, wanted), axes, initial, start), wanted)
    return with_kept_axes(total, a.shape, axes, keepdims)


@implements(np.max, np.amax, method="max")
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = np._NoValue, where: Any = None
) -> Any:
    return _extremum("max", np.maximum, a, axis, out, keepdims, initial, where)


@implements(np.min, np.amin, method="min")
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = np._NoValue, where: Any = None
) -> Any:
    return _extremum("min", np.minimum, a, axis, out, keepdims, initial, where)


def _extremum(kind: str, pair: Any, a: Any, axis: Any, out: Any, keepdims: Any, initial: Any, where: Any) -> Any:
    refuse(kind, out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    axes = reduction_axes(kind, axis, a.shape)
    start = start_value(kind, pair.__name__, initial, a.dtype, 0 in (a.shape[i] for i in axes))
    if start is None:
        _require_elements(pair.__name__, a, axes)
        result = _core.reduce(kind, a, axes)
    elif a.size == 0:
        result = _core.zeros(a, tuple(extent for i, extent in enumerate(a.shape) if i not in axes), a.dtype.name)
        result[...] = start
        result = result[()]
    else:
        # Of two zeros, that of the second operand.
        result = pair(start, _core.reduce(kind, a, axes))
    return with_kept_axes(result, a.shape, axes, keepdims)


@implements(np.any, method="any")
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None) -> Any:
    refuse("any", out=given(out), where=None if given(where) is True else given(where))
    return _reduced("any", "any", cast(array(a), np.bool_), axis, keepdims)


@implements(np.all, method="all")
def all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None) -> Any:
    refuse("all", out=given(out), where=None if given(where) is True else given(where))
    return _reduced("all", "all", cast(array(a), np.bool_), axis, keepdims)


@implements(np.argmax, method="argmax")
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    return _arg_extremum("argmax", True, a, axis, out, keepdims)


@implements(np.argmin, method="argmin")
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    return _arg_extremum("argmin", False, a, axis, out, keepdims)


def _arg_extremum(name: str, greatest: bool, a: Any, axis: Any, out: Any, keepdims: Any) -> Any:
    refuse(name, out=given(out))
    a = array(a)
    flat, along = along_axis(name, a, axis)
    axes = tuple(range(a.ndim)) if axis is None or a.ndim == 0 else (along,)
    if flat.shape[along] == 0:
        what = f"attempt to get {name} of an empty sequence: shape {a.shape}"
        raise CkadValueError.of(name, what, "check x.size first")
    return with_kept_axes(_core.arg_reduce(greatest, flat, along), a.shape, axes, keepdims)


@implements(np.cumsum, method="cumsum")
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    refuse("cumsum", out=out)
    a = array(a)
    x, along = along_axis("cumsum", cast(a, _accumulator_dtype(a, dtype)), axis)
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
    x, along = along_axis("cumprod", cast(a, _accumulator_dtype(a, dtype)), axis)
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
    initial: Any = np._NoValue,
    where: Any = None,
) -> Any:
    refuse("prod", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    x = cast(a, _accumulator_dtype(a, dtype))
    axes = reduction_axes("prod", axis, x.shape)
    # What is kept lies as the array does.
    kept = tuple(i for i in iteration_order(x) if i not in axes)
    rows = tuple(x.shape[i] for i in kept)
    count = int(np.prod([x.shape[i] for i in axes], dtype=np.int64))
    start = start_value("prod", "multiply", initial, x.dtype, count == 0)
    if count == 0:
        product = _core.zeros(x, rows, x.dtype.name) + np.ones((), x.dtype)
    elif not axes:
        product = np.transpose(x, kept).copy("C")
    else:
        lines = np.reshape(np.transpose(x, kept + axes), (*rows, count))
        product = _running_products(lines, len(rows))[..., -1].copy("C")
    product = np.transpose(product, [kept.index(i) for i in sorted(kept)]) if kept else product[()]
    return with_kept_axes(product if start is None else start * product, x.shape, axes, keepdims)


@implements(np.mean, method="mean")
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = None
) -> Any:
    refuse("mean", out=given(out), where=None if given(where) is True else given(where))
    a = array(a)
    return _mean("mean", a, axis, _moment_dtype(a, dtype), keepdims)


def _moment_dtype(a: Any, dtype: Any) -> Any:
    """The dtype of a moment, which NumPy takes each sum in and gives each quotient back in."""
    if dtype is None:
        return a.dtype if a.dtype.kind == "f" else np.dtype(np.float64)
    return np.dtype(dtype)


def _mean(name: str, a: Any, axis: Any, dtype: Any, keepdims: Any) -> Any:
    # The sum of bools in bool: is there one that is true?
    total = _reduced(name, "any" if dtype.kind == "b" else "sum", cast(a, dtype), axis, keepdims)
    return cast(cast(total, dtype) / _count(name, a, axis), dtype)


def _count(name: str, a: Any, axis: Any) -> int:
    """The number of elements that a moment is taken of. Unlike a sum, it has no axis 0 at rank 0."""
    if axis is None:
        return a.size
    counted = axis if isinstance(axis, tuple) else (axis,)
    return int(np.prod([a.shape[axis_index(name, each, a.shape)] for each in counted], dtype=np.int64))


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
    return _variance("var", a, axis, dtype, ddof if given(correction) is None else correction, keepdims, mean)


def _variance(name: str, a: Any, axis: Any, dtype: Any, ddof: Any, keepdims: Any, mean: Any) -> Any:
    a = array(a)
    wanted = _moment_dtype(a, dtype)
    if dtype is None:
        a = cast(a, wanted)
    count = _count(name, a, axis)
    deviation = a - (_mean(name, a, axis, wanted, True) if given(mean) is None else mean)
    degrees = count - ddof
    total = _reduced(name, "sum", cast(deviation * deviation, wanted), axis, keepdims)
    return cast(cast(total, wanted) / (degrees if degrees > 0 else 0), wanted)


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
    refuse("std", out=given(out), where=None if given(where) is True else given(where))
    if dtype is not None and np.dtype(dtype).kind != "f":
        what = f"a standard deviation is not rounded to {np.dtype(dtype)}"
        raise DTypeError.of("std", what, "leave dtype= out, and convert the result: np.std(x).astype(int)")
    ddof = ddof if given(correction) is None else correction
    return np.sqrt(_variance("std", a, axis, dtype, ddof, keepdims, mean))


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
        axes = axis_indices("norm", axis if isinstance(axis, tuple) else _whole(axis), x.shape, repeated=True)
    if len(axes) not in (1, 2) and not (axis is None and ord is None):
        what = f"Improper number of dimensions to norm: {len(axes)} of shape {x.shape}"
        raise CkadValueError.of("norm", what, "name one axis or two with axis=, or norm x.ravel()")
    if ord is None or (len(axes) == 1 and ord == 2) or (len(axes) == 2 and ord == "fro"):
        return np.sqrt(np.sum(x * x, axis=axes, keepdims=keepdims))
    if len(axes) == 1:
        return _vector_norm(x, ord, axes, keepdims)
    return _matrix_norm(x, ord, axes, keepdims)


def _whole(axis: Any) -> int:
    """As `np.linalg.norm`, which takes what converts to an integer."""
    try:
        return int(axis)
    except TypeError as error:
        what = f"'axis' must be None, an integer or a tuple of integers, not {axis!r}"
        raise CkadTypeError.of("norm", what, "name one axis or two with axis=") from error


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
        raise CkadValueError.of("norm", f"Invalid norm order '{ord}' for vectors", "use a number, inf or -inf")
    return np.sum(magnitude**ord, axis=axes, keepdims=keepdims) ** (1.0 / ord)


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: Any) -> Any:
    row, column = axes
    if row == column:
        raise CkadValueError.of("norm", f"Duplicate axes given: {axes}", "name two different axes, or one")
    sums = {
        1: (row, column, np.max),
        -1: (row, column, np.min),
        np.inf: (column, row, np.max),
        -np.inf: (column, row, np.min),
    }
    if ord not in sums:
        hint = "use ord=None, 'fro', 1 or inf"
        if ord not in (2, -2, "nuc"):
            raise CkadValueError.of("norm", f"Invalid norm order for matrices: {ord!r}", hint)
        raise CkadTypeError.of("norm", f"matrix norm ord={ord!r} is not supported for traced values", hint)
    summed, compared, extremum = sums[ord]
    result = extremum(np.sum(np.abs(x), axis=summed), axis=compared - (compared > summed))
    return with_kept_axes(result, x.shape, (row, column), keepdims)
