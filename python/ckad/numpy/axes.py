"""Axis arguments as NumPy reads them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ckad import _core


def reduction_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes to reduce, sorted; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(normalize_axis_tuple(axis, ndim)))


def axis_index(axis: Any, ndim: int) -> int:
    """One axis, non-negative."""
    return normalize_axis_index(operator.index(axis), ndim)


def with_kept_axes(result: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: Any) -> Any:
    """The reduced array with its reduced axes put back with length 1, where asked for."""
    if not keepdims or keepdims is np._NoValue:
        return result
    return np.reshape(result, tuple(1 if axis in axes else extent for axis, extent in enumerate(shape)))


def array(x: Any) -> Any:
    """The value as an array: traced values as they are (a Python number's as NumPy's scalar), lists that hold traced
    values stacked, others by NumPy.
    """
    if isinstance(x, _core.Tracer):
        return _core.strong(x)
    if isinstance(x, (list, tuple)) and _holds_traced(x):
        return np.stack([array(item) for item in x])
    return np.asarray(_core.supported(x))


def _holds_traced(items: Any) -> bool:
    return any(
        isinstance(item, _core.Tracer) or (isinstance(item, (list, tuple)) and _holds_traced(item)) for item in items
    )


def cast(x: Any, dtype: Any) -> Any:
    """The value in that dtype, itself where it has it already."""
    if x.dtype == dtype:
        return x
    return _core.cast(x, np.dtype(dtype).name) if isinstance(x, _core.Tracer) else x.astype(dtype)
