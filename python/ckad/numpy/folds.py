"""`ufunc.reduce` beyond the reductions of the core: every binary ufunc, and `initial=` and `where=` with all of them.

What is associative is folded in halves, so that a reduction of n elements records log n operations; what is not, one
element after the other, as NumPy does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, DTypeError
from ckad.numpy.axes import (
    array,
    cast,
    iteration_order,
    laid_out,
    reduction_axes,
    with_kept_axes,
)
from ckad.numpy.reductions import start_value, sum_from
from ckad.numpy.registry import implements, refuse

# Folded by one operation of the core or a few, over all axes at once.
_WHOLE: dict[np.ufunc, Callable[[Any, tuple[int, ...]], Any]] = {
    np.multiply: lambda x, axes: np.prod(x, axis=axes, dtype=x.dtype),
    np.maximum: lambda x, axes: _core.reduce("max", x, axes),
    np.minimum: lambda x, axes: _core.reduce("min", x, axes),
    np.fmax: lambda x, axes: _without_nan("max", x, axes, -np.inf),
    np.fmin: lambda x, axes: _without_nan("min", x, axes, np.inf),
    np.logical_and: lambda x, axes: _core.reduce("all", x, axes),
    np.logical_or: lambda x, axes: _core.reduce("any", x, axes),
    np.logical_xor: lambda x, axes: cast(_core.reduce("sum", cast(x, np.int64), axes) & 1, np.bool_),
}

_IN_HALVES = frozenset({np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.gcd, np.hypot, np.logaddexp, np.logaddexp2})

# What these make of their identity and one element alone is not always that element: −3 becomes 3.
_FROM_IDENTITY = frozenset({np.gcd, np.hypot, np.logaddexp, np.logaddexp2})


def _without_nan(kind: str, x: Any, axes: tuple[int, ...], worst: float) -> Any:
    """The extremum of the numbers; NaN where there are none."""
    if x.dtype.kind != "f":
        return _core.reduce(kind, x, axes)
    missing = np.isnan(x)
    found = _core.reduce(kind, np.where(missing, np.asarray(worst, x.dtype), x), axes)
    return np.where(_core.reduce("all", missing, axes), np.asarray(np.nan, x.dtype), found)[()]


def _probe(ufunc: np.ufunc, x: Any, axis: Any, dtype: Any, initial: Any, where: Any) -> Any:
    """The dtype that NumPy gives, or the error that it raises: asked of NumPy itself, on ones."""
    ones = np.ones([min(extent, 1) for extent in x.shape], x.dtype)
    keywords: dict[str, Any] = {} if where is True else {"where": np.ones(ones.shape, np.bool_)}
    if initial is not np._NoValue:
        keywords["initial"] = None if initial is None else 1
    name = f"{ufunc.__name__}.reduce"
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(ufunc.reduce(ones, axis=axis, dtype=dtype, **keywords)).dtype
    except ValueError as error:
        raise CkadValueError.of(name, str(error), "give initial=, and fold one axis at a time: axis=0") from None
    except TypeError as error:
        raise CkadTypeError.of(
            name, str(error), f"convert with x.astype(int) or x.astype(float) first, whichever {ufunc.__name__} takes"
        ) from None
    if found == np.float16:
        hint = "convert with x.astype(np.float32) first"
        raise DTypeError.of(name, "NumPy gives float16 here, which is not supported", hint)
    return found


@implements(method="ufunc.reduce")
def fold(
    ufunc: np.ufunc,
    a: Any,
    axis: Any = 0,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = np._NoValue,
    where: Any = True,
) -> Any:
    """`ufunc.reduce(a, …)` on traced values."""
    name = f"{ufunc.__name__}.reduce"
    refuse(name, out=None if out in (None, (None,)) else out)
    x: Any = array(a)
    axes = reduction_axes(name, axis, x.shape)
    found = _probe(ufunc, x, axis, dtype, initial, where)
    start = start_value(name, ufunc.__name__, initial, found, 0 in (x.shape[i] for i in axes))
    if initial is np._NoValue and ufunc in _FROM_IDENTITY:
        start = _identity(ufunc, found)
    if ufunc is not np.ldexp:
        x = cast(x, found)
    if type(x) is np.ndarray:
        # Only the start value or the mask is traced: the array joins them.
        joined: Any = next(value for value in (start, where) if isinstance(value, _core.Tracer))
        x = np.asarray(x, like=joined)
    mask = None if where is True else np.broadcast_to(cast(array(where), np.bool_), x.shape)
    kept = tuple(extent for i, extent in enumerate(x.shape) if i not in axes)
    if 0 in (x.shape[i] for i in axes):
        result = _core.zeros(x, kept, found.name)
        result[...] = _identity(ufunc, found) if start is None else start
        result = result[()]
    elif ufunc is np.add or ufunc in _WHOLE or ufunc in _IN_HALVES:
        if mask is not None:
            x = np.where(mask, x, _neutral(ufunc, start, found))
        if ufunc is np.add:
            result = sum_from(x, axes, initial, start)
        elif ufunc in _WHOLE:
            result = _WHOLE[ufunc](x, axes)
        else:
            result = _in_halves(ufunc, _lines(x, axes))
        if start is not None and ufunc is not np.add:
            result = cast(ufunc(start, result), found)
            if mask is not None:
                # Where nothing is folded, the start value stays as it is.
                order = iteration_order(result)
                result = laid_out(np.where(np.any(mask, axis=axes), result, start)[()], order)
    else:
        result = _one_by_one(ufunc, _lines(x, axes), None if mask is None else _lines(mask, axes), start, found)
    return with_kept_axes(result, x.shape, axes, keepdims)


def _neutral(ufunc: np.ufunc, start: Any, dtype: Any) -> Any:
    """What stands for elements left out: the start value where the function is idempotent, else its identity."""
    if ufunc.identity is None:
        return start
    if ufunc is np.add:
        return np.negative(np.zeros((), dtype))  # of the two zeros, the one that changes no other
    return _identity(ufunc, dtype)


def _identity(ufunc: np.ufunc, dtype: Any) -> Any:
    """What NumPy starts from."""
    # All bits set, which -1 is not in an unsigned dtype.
    return np.invert(np.zeros((), dtype)) if ufunc is np.bitwise_and else np.asarray(ufunc.identity, dtype)


def _lines(x: Any, axes: tuple[int, ...]) -> Any:
    """The reduced axes as one, in front."""
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    count = int(np.prod([x.shape[i] for i in axes], dtype=np.int64))
    return np.reshape(np.transpose(x, axes + kept), (count, *(x.shape[i] for i in kept)))


def _in_halves(ufunc: np.ufunc, lines: Any) -> Any:
    while lines.shape[0] > 1:
        half = lines.shape[0] // 2
        folded = ufunc(lines[:half], lines[half : 2 * half])
        lines = np.concatenate([folded, lines[2 * half :]]) if lines.shape[0] % 2 else folded
    return lines[0]


def _one_by_one(ufunc: np.ufunc, lines: Any, mask: Any, start: Any, dtype: Any) -> Any:
    result, first = (lines[0], 1) if start is None else (start, 0)
    result = cast(result, dtype)
    for i in range(first, lines.shape[0]):
        step = cast(ufunc(result, lines[i]), dtype)
        result = step if mask is None else np.where(mask[i], step, result)
    if np.shape(result) != lines.shape[1:]:
        result = np.broadcast_to(result, lines.shape[1:]).copy()
    return result[()] if np.ndim(result) == 0 else result
