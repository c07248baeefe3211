"""New arrays that traced values can be written into: `np.zeros_like(x)`, `np.zeros(n, like=x)` and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.numpy.axes import array, cast
from ckad.numpy.registry import creates, implements, refuse


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(extent) for extent in shape)


def _filled(like: Any, shape: Any, value: Any, dtype: Any) -> Any:
    result = _core.zeros(like, _shape(shape), np.dtype(float if dtype is None else dtype).name)
    if not (isinstance(value, (int, float)) and value == 0):
        result[...] = value
    return result


def _like(name: str, a: Any, value: Any, dtype: Any, order: Any, subok: Any, shape: Any) -> Any:
    refuse(name, order=None if order in ("K", "C") else order, subok=None if subok else True)
    a = array(a)
    return _filled(a, a.shape if shape is None else shape, value, a.dtype if dtype is None else dtype)


@implements(np.zeros_like)
def zeros_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None
) -> Any:
    refuse("zeros_like", device=device)
    return _like("zeros_like", a, 0, dtype, order, subok, shape)


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None
) -> Any:
    refuse("ones_like", device=device)
    return _like("ones_like", a, 1, dtype, order, subok, shape)


@implements(np.empty_like)
def empty_like(
    prototype: Any, /, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *, device: Any = None
) -> Any:
    refuse("empty_like", device=device)
    return _like("empty_like", prototype, 0, dtype, order, subok, shape)


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: Any = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    refuse("full_like", device=device)
    a = array(a)
    return _like("full_like", a, fill_value, dtype, order, subok, shape)


@creates(np.zeros)
def zeros(like: Any, shape: Any, dtype: Any = float, order: Any = "C", **keywords: Any) -> Any:
    refuse("zeros", order=None if order == "C" else order, **keywords)
    return _filled(like, shape, 0, dtype)


@creates(np.empty)
def empty(like: Any, shape: Any, dtype: Any = float, order: Any = "C", **keywords: Any) -> Any:
    refuse("empty", order=None if order == "C" else order, **keywords)
    return _filled(like, shape, 0, dtype)


@creates(np.ones)
def ones(like: Any, shape: Any, dtype: Any = None, order: Any = "C", **keywords: Any) -> Any:
    refuse("ones", order=None if order == "C" else order, **keywords)
    return _filled(like, shape, 1, dtype)


@creates(np.full)
def full(like: Any, shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **keywords: Any) -> Any:
    refuse("full", order=None if order == "C" else order, **keywords)
    kind = getattr(fill_value, "dtype", None) or np.asarray(fill_value).dtype if dtype is None else dtype
    return _filled(like, shape, fill_value, kind)


@creates(np.array)
def array_like(
    like: Any, object: Any, dtype: Any = None, *, copy: Any = True, order: Any = "K", ndmin: Any = 0, **keywords: Any
) -> Any:
    refuse("array", order=None if order in ("K", "C") else order, ndmin=ndmin or None, **keywords)
    result = _traced(like, object, dtype)
    return result.copy() if copy and isinstance(object, _core.Tracer) else result


@creates(np.asarray)
def asarray(like: Any, a: Any, dtype: Any = None, order: Any = None, **keywords: Any) -> Any:
    refuse("asarray", order=None if order in (None, "K", "C") else order, **keywords)
    return _traced(like, a, dtype)


def _traced(like: Any, value: Any, dtype: Any) -> Any:
    """Numbers, traced values, arrays and nested lists of them as one traced array."""
    joined = array(value)
    if not isinstance(joined, _core.Tracer):
        result = _core.zeros(like, joined.shape, joined.dtype.name)
        result[...] = joined
        joined = result
    return joined if dtype is None else cast(joined, dtype)


@creates(np.arange)
def arange(like: Any, *args: Any, **keywords: Any) -> Any:
    return _traced(like, np.arange(*args, **keywords), None)


@creates(np.eye)
def eye(like: Any, *args: Any, **keywords: Any) -> Any:
    return _traced(like, np.eye(*args, **keywords), None)


@creates(np.identity)
def identity(like: Any, n: int, dtype: Any = None) -> Any:
    return _traced(like, np.identity(n, dtype), None)
