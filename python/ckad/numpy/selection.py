"""Choosing elements: by condition, by bound, by index, by order."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadValueError, DTypeError
from ckad.numpy.axes import along_axis, array, axis_index, cast, from_order, in_order, memory_order, plain_axis_index
from ckad.numpy.registry import given, implements, refuse


@implements(np.where)
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    if x is None and y is None:
        return np.nonzero(np.asarray(cast(array(condition), np.bool_)))
    if x is None or y is None:
        what = "either both or neither of x and y should be given"
        raise CkadValueError.of("where", what, "write np.where(condition, x, 0.0)")
    chosen = _core.apply("select", cast(array(condition), np.bool_), x, y)
    # NumPy's where returns an array even of rank 0.
    return chosen


@implements(np.nonzero, method="nonzero")
def nonzero(a: Any) -> Any:
    """Which elements are nonzero carries no derivative: the value is looked at."""
    return np.nonzero(np.asarray(array(a) != 0))


@implements(np.clip)
def clip(
    a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None, **keywords: Any
) -> Any:
    refuse("clip", out=out, **keywords)
    low = given(a_min) if given(min) is None else min
    high = given(a_max) if given(max) is None else max
    # Of two zeros, that of the second operand.
    result = a
    if low is not None:
        result = np.maximum(low, result)
    if high is not None:
        result = np.minimum(high, result)
    return result if result is not a else np.positive(a)


def _clip_method(a: Any, min: Any = None, max: Any = None, out: Any = None, **keywords: Any) -> Any:
    return clip(a, min, max, out, **keywords)


_core.register_method("clip", _clip_method)


@implements(np.take, method="take")
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Any:
    refuse("take", out=out)
    a = array(a)
    if axis is None:
        a, axis = a.ravel(), 0
    along = plain_axis_index("take", axis, a.shape)
    if mode != "raise":
        indices = np.clip(indices, 0, a.shape[along] - 1) if mode == "clip" else np.remainder(indices, a.shape[along])
    wanted = indices if isinstance(indices, _core.Tracer) else np.asarray(indices)
    if wanted.dtype == np.bool_:
        wanted = cast(wanted, np.int64)
    index = tuple(wanted if i == along else slice(None) for i in range(along + 1))
    taken = a[index]
    return taken.copy("C") if isinstance(taken, _core.Tracer) and taken.ndim else taken


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    arr = array(arr)
    if axis is None:
        if np.ndim(indices) != 1:
            what = f"when axis=None, `indices` must have a single dimension: shape {np.shape(indices)}"
            raise CkadValueError.of("take_along_axis", what, "write x.ravel()[indices]")
        return arr.ravel()[array(indices).ravel()]
    if np.ndim(indices) != arr.ndim:
        what = "`indices` and `arr` must have the same number of dimensions"
        what = f"{what}: shapes {np.shape(indices)} and {arr.shape}"
        raise CkadValueError.of("take_along_axis", what, "insert axes with indices[:, None], or use np.take")
    return _along(arr, indices, axis_index("take_along_axis", axis, arr.shape))


def _along(x: Any, indices: Any, axis: int) -> Any:
    """x at `indices` along one axis and at its own place along the others."""
    shape = np.shape(indices)
    grids = [
        indices if i == axis else np.arange(shape[i]).reshape([-1 if j == i else 1 for j in range(len(shape))])
        for i in range(len(shape))
    ]
    return x[tuple(grids)]


@implements(np.argsort, method="argsort")
def argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    refuse("argsort", order=order)
    return _core.argsort(*along_axis("argsort", array(a), axis))


@implements(np.sort)
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    refuse("sort", order=order)
    a = array(a)
    if axis is None:
        a, axis = a.ravel(), 0
    order = memory_order(a)
    along = order.index(axis_index("sort", axis, a.shape))
    a = in_order(a, order)
    ascending = _along(a, _core.argsort(a, along), along)
    return from_order((_share_ties(ascending, along) if _core.is_active(a) else ascending).copy("C"), order)


def _sort_method(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> None:
    """`x.sort()` sorts in place."""
    a[...] = sort(a, axis, kind, order, stable=stable)


_core.register_method("sort", _sort_method)


def _share_ties(x: Any, axis: int) -> Any:
    """The sorted array itself, its derivative shared evenly among equal elements.

    With g the group of equals that an element is in and the constant c = x, the result is c + mean_g(x − c): the mean
    is zero in value and the even split in derivative, of every order.
    """
    if x.size == 0:
        return x
    moved = np.moveaxis(x, axis, -1)
    rows = moved.reshape((-1, moved.shape[-1]))
    count, length = rows.shape
    new_group = cast(rows[:, 1:] != rows[:, :-1], np.int64)
    offsets = np.arange(count).reshape((-1, 1)) * length
    group = np.concatenate([np.zeros((count, 1), np.int64), np.cumsum(new_group, axis=1)], axis=1) + offsets
    group = group.ravel()
    flat = rows.ravel()
    # Infinities and NaN would make the bracket NaN: they stay a permutation, unshared.
    is_finite = np.isfinite(flat)
    finite = np.where(is_finite, flat, np.zeros((), x.dtype))
    zeros = _core.zeros(x, (count * length,), x.dtype.name)
    sizes = _core.scatter_add(zeros, _core.stop_gradient(finite * 0 + 1), (group,))
    # Only derivatives are shared: the sum of large equals themselves would be infinite.
    moves = finite - _core.stop_gradient(finite)
    means = _core.scatter_add(zeros, moves, (group,)) / np.maximum(sizes, 1)
    shared = _core.gather(means, (group,))
    tied = _core.stop_gradient(finite) - (_core.stop_gradient(shared) - shared)  # −0 − 0 is −0 again
    result = np.where(is_finite & (_core.gather(sizes, (group,)) > 1), tied, flat)
    return np.moveaxis(result.reshape(moved.shape), -1, axis)


@implements(np.round, np.around, method="round")
def round(a: Any, decimals: Any = 0, out: Any = None) -> Any:
    refuse("round", out=out)
    a, decimals = array(a), operator.index(decimals)
    if a.dtype == np.bool_:
        raise DTypeError.of("round", "it is not defined for bool", "convert with `.astype(int)` first")
    if a.dtype.kind != "f":
        return a.copy() if decimals >= 0 else cast(round(cast(a, np.float64), decimals), a.dtype)
    if decimals == 0:
        return np.rint(a)
    if not a.flags.f_contiguous:
        a = a.copy("C")
    scale = 10.0 ** abs(decimals)
    return np.rint(a * scale) / scale if decimals > 0 else np.rint(a / scale) * scale


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> Any:
    a, b = (cast(x, np.result_type(x.dtype, 1.0)) for x in (array(a), array(b)))
    near = np.less_equal(np.abs(a - b), atol + rtol * np.abs(b)) & np.isfinite(b) | np.equal(a, b)
    return near | (np.isnan(a) & np.isnan(b)) if equal_nan else near


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: Any = False) -> bool:
    return bool(np.all(isclose(a, b, rtol, atol, equal_nan)))


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: Any = False) -> bool:
    refuse("array_equal", equal_nan=equal_nan or None)
    return np.shape(a1) == np.shape(a2) and bool(np.all(np.equal(a1, a2)))
