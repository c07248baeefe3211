"""New arrays that traced values can be written into: `np.zeros_like(x)`, `np.zeros(n, like=x)` and their kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadValueError
from ckad.numpy.axes import array, as_shape, laid_out, memory_order
from ckad.numpy.registry import creates, implements, refuse


def _axes(name: str, shape: Any, order: Any) -> list[int]:
    if order not in ("C", "F"):
        raise CkadValueError.of(
            "order", f"only 'C' or 'F' order is permitted, not {order!r}", "leave it out for C order"
        )
    return list(range(len(as_shape(name, shape))))[:: -1 if order == "F" else 1]


def _filled(name: str, like: Any, shape: Any, value: Any, dtype: Any, order: Any = None) -> Any:
    result = _core.zeros(like, as_shape(name, shape), np.dtype(float if dtype is None else dtype).name, order)
    if not (isinstance(value, (int, float)) and value == 0 and not np.signbit(value)):
        result[...] = value
    return result


def _like(name: str, a: Any, value: Any, dtype: Any, order: Any, subok: Any, shape: Any) -> Any:
    refuse(name, subok=None if subok else True)
    a = array(a)
    shape = a.shape if shape is None else as_shape(name, shape)
    # Of another rank, NumPy takes C order for its 'K' and 'A'.
    axes = memory_order(a, order) if len(shape) == a.ndim else _axes(name, shape, "F" if order == "F" else "C")
    return _filled(name, a, shape, value, a.dtype if dtype is None else dtype, axes)


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
    refuse("zeros", **keywords)
    return _filled("zeros", like, shape, 0, dtype, _axes("zeros", shape, order))


@creates(np.empty)
def empty(like: Any, shape: Any, dtype: Any = float, order: Any = "C", **keywords: Any) -> Any:
    refuse("empty", **keywords)
    return _filled("empty", like, shape, 0, dtype, _axes("empty", shape, order))


@creates(np.ones)
def ones(like: Any, shape: Any, dtype: Any = None, order: Any = "C", **keywords: Any) -> Any:
    refuse("ones", **keywords)
    return _filled("ones", like, shape, 1, dtype, _axes("ones", shape, order))


@creates(np.full)
def full(like: Any, shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **keywords: Any) -> Any:
    refuse("full", **keywords)
    kind = getattr(fill_value, "dtype", None) or np.asarray(fill_value).dtype if dtype is None else dtype
    return _filled("full", like, shape, fill_value, kind, _axes("full", shape, order))


@creates(np.array)
def array_like(
    like: Any, object: Any, dtype: Any = None, *, copy: Any = True, order: Any = "K", ndmin: Any = 0, **keywords: Any
) -> Any:
    refuse("array", ndmin=ndmin or None, **keywords)
    result = _traced(like, object, dtype, order)
    return result.copy("K") if result is object and copy else result


@creates(np.asarray)
def asarray(like: Any, a: Any, dtype: Any = None, order: Any = None, **keywords: Any) -> Any:
    refuse("asarray", **keywords)
    return _traced(like, a, dtype, order)


def _traced(like: Any, value: Any, dtype: Any, order: Any = "K") -> Any:
    """Numbers, traced values, arrays and nested lists of them as one traced array, itself where it is one already."""
    joined = array(value)
    if not isinstance(joined, _core.Tracer):
        joined = _core.lift(joined, like)
    if dtype is not None and joined.dtype != dtype:
        joined = joined.astype(dtype)
    if _core.is_scalar(joined):
        return _core.as_array(joined)
    return laid_out(joined, memory_order(joined, "K" if order is None else order)) if order in ("C", "F") else joined


@creates(np.arange)
def arange(like: Any, *args: Any, **keywords: Any) -> Any:
    return _traced(like, np.arange(*args, **keywords), None)


@creates(np.eye)
def eye(like: Any, *args: Any, **keywords: Any) -> Any:
    return _traced(like, np.eye(*args, **keywords), None)


@creates(np.identity)
def identity(like: Any, n: int, dtype: Any = None) -> Any:
    return _traced(like, np.identity(n, dtype), None)
