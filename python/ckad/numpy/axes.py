"""Axes: as arguments, as NumPy reads them, and as they lie in memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ckad import _core
from ckad.errors import CkadAxisError, CkadError, CkadTypeError, CkadValueError


def reduction_axes(name: str, axis: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes that `name` is to reduce, sorted; all of them for None."""
    return tuple(_core.reduction_axes(name, axis, shape))


def axis_indices(
    name: str, axis: Any, shape: tuple[int, ...], *, added: int = 0, repeated: bool = False
) -> tuple[int, ...]:
    """Axes given to the function `name` as one int or several, non-negative and, where not `repeated`, distinct; of an
    array of that shape, which gets `added` new ones.
    """
    ndim = len(shape) + added
    found = f"shape {shape}" + (f" with {added} more" if added else "")
    try:
        return normalize_axis_tuple(axis, ndim, allow_duplicate=repeated)
    except CkadError:
        raise
    except np.exceptions.AxisError as error:
        raise CkadAxisError.of(name, f"{error}: {found}", _core.axes_hint(ndim)) from None
    except ValueError as error:
        raise CkadValueError.of(name, f"{error}: {axis!r} of {found}", "name each axis once") from None
    except TypeError as error:
        raise CkadTypeError.of(name, str(error), "name one axis by its number: axis=0") from None


def as_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape given to the function `name` as one extent or several; bools are none."""
    extents = shape if np.iterable(shape) else (shape,)
    for extent in extents:
        if isinstance(extent, (bool, np.bool_)):
            raise CkadTypeError.of(name, f"an integer is required, not {extent}", f"write {int(extent)}")
    return tuple(whole(name, extent) for extent in extents)


def axis_index(name: str, axis: Any, shape: tuple[int, ...], *, added: int = 0) -> int:
    """One axis, non-negative."""
    return axis_indices(name, whole(name, axis), shape, added=added)[0]


def whole(name: str, number: Any) -> int:
    """A whole number among the arguments of the function `name`."""
    try:
        return operator.index(number)
    except CkadError:
        raise
    except TypeError as error:
        raise CkadTypeError.of(name, str(error), "give a whole number; int(n) makes one of a float") from None


def plain_axis_index(name: str, axis: Any, shape: tuple[int, ...]) -> int:
    """As `axis_index`, for the functions in which NumPy takes no bool for an axis."""
    if isinstance(axis, (bool, np.bool_)):
        raise CkadTypeError.of(name, "an integer is required for the axis", f"write axis={int(axis)}")
    return axis_index(name, axis, shape)


def along_axis(name: str, x: Any, axis: Any) -> tuple[Any, int]:
    """The array and the axis to walk along: flattened for None, and a value of rank 0 as one of a single element."""
    if axis is None:
        return np.reshape(x, (-1,)), 0
    whole_array = x if x.ndim else np.reshape(x, (1,))
    return whole_array, plain_axis_index(name, axis, whole_array.shape)


def with_kept_axes(result: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: Any) -> Any:
    """The reduced array with its reduced axes put back with length 1, where asked for."""
    if not keepdims or keepdims is np._NoValue or not axes:
        return result
    return np.reshape(result, tuple(1 if axis in axes else extent for axis, extent in enumerate(shape)))


def array(x: Any) -> Any:
    """The value as an array: traced values as they are (a Python number's as NumPy's scalar), lists that hold traced
    values stacked, others by NumPy.
    """
    if isinstance(x, _core.Tracer):
        return _core.strong(x)
    if isinstance(x, (list, tuple)) and _holds_traced(x):
        return np.stack([array(item) for item in x]).copy("C")
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


def memory_order(x: Any, order: Any = "K") -> list[int]:
    """The axes, outermost first, as they lie in a copy of the array by NumPy's `order`: 'C', 'F', 'A' or 'K'."""
    axes = list(range(x.ndim))
    if x.ndim < 2 or order == "C":
        return axes
    flags = x.flags
    if order == "F" or (flags.f_contiguous and not flags.c_contiguous):
        return axes[::-1]
    return axes if order == "A" or flags.c_contiguous else sorted(axes, key=lambda axis: -abs(x.strides[axis]))


def iteration_order(x: Any) -> list[int]:
    """The axes, outermost first, as they lie in what a ufunc makes of the array alone."""
    return _core.iteration_order(x.ndim, [strides(x)])


def strides(x: Any) -> list[int]:
    """NumPy's strides, 0 for the axes that say nothing about an order."""
    return [0 if extent == 1 else stride for extent, stride in zip(x.shape, x.strides, strict=True)]


def laid_out(x: Any, order: Sequence[int]) -> Any:
    """The array with its axes in memory in that order, outermost first: itself where they are."""
    if x.ndim < 2:
        return x
    turned = np.transpose(x, order)
    return x if turned.flags.c_contiguous else from_order(turned.copy("C"), order)


def in_order(x: Any, order: Sequence[int]) -> Any:
    """The axes turned into that order and packed: what is computed of it in C order goes back by `from_order`."""
    return np.transpose(x, order).copy("C")


def from_order(x: Any, order: Sequence[int]) -> Any:
    """The axes turned back from that order."""
    return np.transpose(x, [order.index(axis) for axis in range(x.ndim)])
