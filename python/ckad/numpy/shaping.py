"""Rearranging elements: views where NumPy gives views, joins, rolls and tilings."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadError, CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.numpy.axes import (
    array,
    as_shape,
    axis_index,
    axis_indices,
    cast,
    from_order,
    memory_order,
    plain_axis_index,
    whole,
)
from ckad.numpy.registry import given, implements, refuse


@implements(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    return array(a).shape


@implements(np.ndim)
def ndim(a: Any) -> int:
    return array(a).ndim


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    a = array(a)
    return a.size if axis is None else a.shape[axis_index("size", axis, a.shape)]


@implements(np.reshape)
def reshape(a: Any, /, shape: Any = None, order: Any = "C", *, newshape: Any = None, copy: Any = None) -> Any:
    refuse("reshape", copy=copy)
    return array(a).reshape(shape if newshape is None else newshape, order=order)


@implements(np.ravel)
def ravel(a: Any, order: Any = "C") -> Any:
    return array(a).ravel(order)


@implements(np.transpose)
def transpose(a: Any, axes: Any = None) -> Any:
    a = array(a)
    return a.transpose() if axes is None else a.transpose(axes)


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: Any, axis2: Any) -> Any:
    return array(a).swapaxes(axis1, axis2)


@implements(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    a = array(a)
    sources = axis_indices("moveaxis", source, a.shape)
    destinations = axis_indices("moveaxis", destination, a.shape)
    if len(sources) != len(destinations):
        what = "`source` and `destination` arguments must have the same number of elements"
        raise CkadValueError.of("moveaxis", f"{what}: {source!r} and {destination!r}", "give each axis its new place")
    order = [axis for axis in range(a.ndim) if axis not in sources]
    for target, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(target, axis)
    return a.transpose(order)


@implements(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    a = array(a)
    wanted = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = axis_indices("expand_dims", wanted, a.shape, added=len(wanted))
    return a[tuple(np.newaxis if i in axes else slice(None) for i in range(a.ndim + len(axes)))]


@implements(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    return array(a).squeeze(axis)


_FITTING = "from the last axis backwards, extents must be equal or 1; insert axes with x[:, None]"


@implements(np.broadcast_to)
def broadcast_to(array_: Any, shape: Any, subok: Any = False) -> Any:
    refuse("broadcast_to", subok=subok or None)
    wanted = as_shape("broadcast_to", shape)
    if any(extent < 0 for extent in wanted):
        what = f"all elements of broadcast shape must be non-negative: {wanted}"
        raise CkadValueError.of("broadcast_to", what, "give the whole shape, as np.broadcast_shapes does")
    x = array(array_)
    missing = len(wanted) - x.ndim
    fits = missing >= 0 and all(n in (1, m) for n, m in zip(x.shape, wanted[max(missing, 0) :], strict=missing >= 0))
    if not fits:
        what = f"operands could not be broadcast together with remapped shapes: {x.shape} to {wanted}"
        raise ShapeError.of("broadcast_to", what, _FITTING)
    return _core.broadcast_view(x, wanted)


@implements(np.broadcast_arrays)
def broadcast_arrays(*arrays: Any, subok: Any = False) -> tuple[Any, ...]:
    refuse("broadcast_arrays", subok=subok or None)
    arrays = tuple(array(x) for x in arrays)
    try:
        wanted = np.broadcast_shapes(*(x.shape for x in arrays))
    except ValueError as error:
        raise ShapeError.of("broadcast_arrays", str(error), _FITTING) from None
    return arrays if all(x.shape == wanted for x in arrays) else tuple(np.broadcast_to(x, wanted) for x in arrays)


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    m = array(m)
    axes = range(m.ndim) if axis is None else axis_indices("flip", axis, m.shape)
    return m[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(m.ndim))]


@implements(np.flipud)
def flipud(m: Any) -> Any:
    return flip(m, 0)


@implements(np.fliplr)
def fliplr(m: Any) -> Any:
    return flip(m, 1)


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    a = array(a)
    if axis is None:
        return roll(a.ravel(), shift, 0).reshape(a.shape)
    order = memory_order(a)
    axes = [order.index(along) for along in axis_indices("roll", axis, a.shape, repeated=True)]
    shifts = np.broadcast_to(shift, (len(axes),))
    a = np.transpose(a, order)
    for along, distance in zip(axes, shifts.tolist(), strict=True):
        extent = a.shape[along]
        distance = int(distance) % extent if extent else 0
        if distance:
            tail = a[_along(a, along, slice(extent - distance, None))]
            head = a[_along(a, along, slice(None, extent - distance))]
            a = np.concatenate([tail, head], axis=along)
    return from_order(a.copy(), order)


def _along(a: Any, axis: int, index: Any) -> tuple[Any, ...]:
    return tuple(index if i == axis else slice(None) for i in range(a.ndim))


@implements(np.concatenate)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Any:
    refuse("concatenate", out=out, casting=None if casting == "same_kind" else casting)
    pieces = [array(piece) for piece in arrays]
    if not pieces:
        raise CkadValueError.of(
            "concatenate", "need at least one array to concatenate", "pass a list that is not empty"
        )
    if axis is None:
        pieces, axis = [piece.ravel() for piece in pieces], 0
    if any(piece.ndim == 0 for piece in pieces):
        raise CkadValueError.of("concatenate", "zero-dimensional arrays cannot be concatenated", "use np.stack")
    common = np.result_type(*(piece.dtype for piece in pieces)) if dtype is None else np.dtype(dtype)
    for piece in pieces:
        if not np.can_cast(piece.dtype, common, "same_kind"):
            what = f"Cannot cast array data from {piece.dtype!r} to {common!r} according to the rule 'same_kind'"
            raise DTypeError.of("concatenate", what, "convert what is joined with .astype, if the loss is meant")
    along = plain_axis_index("concatenate", axis, pieces[0].shape)
    return _core.concatenate([cast(piece, common) for piece in pieces], along)


@implements(np.stack)
def stack(arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    refuse("stack", out=out, casting=None if casting == "same_kind" else casting)
    pieces = [array(piece) for piece in arrays]
    if not pieces:
        raise CkadValueError.of("stack", "need at least one array to stack", "pass a list that is not empty")
    shapes = {piece.shape for piece in pieces}
    if len(shapes) != 1:
        what = f"all input arrays must have the same shape, not {sorted(shapes)}"
        raise ShapeError.of("stack", what, "use np.concatenate, or np.broadcast_to first")
    along = axis_index("stack", axis, pieces[0].shape, added=1)
    index = tuple(np.newaxis if i == along else slice(None) for i in range(pieces[0].ndim + 1))
    return concatenate([_with_axis(piece, index) for piece in pieces], along, dtype=dtype)


def _with_axis(piece: Any, index: tuple[Any, ...]) -> Any:
    return piece.reshape((1,)) if piece.ndim == 0 else piece[index]


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    return concatenate([np.atleast_2d(array(piece)) for piece in tup], 0, dtype=dtype, casting=casting)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    pieces = [np.atleast_1d(array(piece)) for piece in tup]
    return concatenate(pieces, 0 if pieces and pieces[0].ndim == 1 else 1, dtype=dtype, casting=casting)


@implements(np.atleast_1d)
def atleast_1d(*arys: Any) -> Any:
    results = tuple(x.reshape((1,)) if x.ndim == 0 else x for x in map(array, arys))
    return results[0] if len(results) == 1 else results


@implements(np.atleast_2d)
def atleast_2d(*arys: Any) -> Any:
    results = tuple(x.reshape((1, x.size)) if x.ndim < 2 else x for x in map(array, arys))
    return results[0] if len(results) == 1 else results


@implements(np.copy)
def copy(a: Any, order: Any = "K", subok: Any = False) -> Any:
    refuse("copy", subok=subok or None)
    return array(a).copy(order)


@implements(np.diagonal, method="diagonal")
def diagonal(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1) -> Any:
    a = array(a)
    if a.ndim < 2:
        what = f"diag requires an array of at least two dimensions, not shape {a.shape}"
        raise CkadValueError.of("diagonal", what, "np.diag(x) makes a matrix of a vector")
    first, second = (axis_index("diagonal", axis, a.shape) for axis in (axis1, axis2))
    if first == second:
        what = f"axis1 and axis2 cannot be the same: both are {first}"
        raise CkadValueError.of("diagonal", what, "name two axes, or leave them out")
    return _core.diagonal_view(a, whole("diagonal", offset), first, second, True)


@implements(np.diag)
def diag(v: Any, k: Any = 0) -> Any:
    v = array(v)
    if v.ndim == 2:
        return np.diagonal(v, k)
    if v.ndim != 1:
        raise CkadValueError.of(
            "diag", f"Input must be 1- or 2-d, not of shape {v.shape}", "use np.diagonal for stacks"
        )
    n = v.shape[0] + abs(k)
    matrix = _core.zeros(v, (n, n), v.dtype.name)
    rows = np.arange(v.shape[0]) + np.maximum(-k, 0)
    columns = np.arange(v.shape[0]) + np.maximum(k, 0)
    matrix[rows, columns] = v
    return matrix


@implements(np.trace, method="trace")
def trace(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1, dtype: Any = None, out: Any = None) -> Any:
    refuse("trace", out=given(out))
    return np.sum(np.diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@implements(np.diff)
def diff(a: Any, n: Any = 1, axis: Any = -1, prepend: Any = None, append: Any = None) -> Any:
    refuse("diff", prepend=given(prepend), append=given(append))
    a = array(a)
    n = whole("diff", n)
    if n < 0:
        raise CkadValueError.of("diff", f"order must be non-negative but got {n}", "np.cumsum is its inverse")
    if n == 0:
        return a
    along = axis_index("diff", axis, a.shape)
    difference = np.not_equal if a.dtype == np.bool_ else np.subtract
    for _ in range(n):
        a = difference(a[_along(a, along, slice(1, None))], a[_along(a, along, slice(None, -1))])
    return a


_COUNTS = "give one count, or one for each element along the axis"


@implements(np.repeat, method="repeat")
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    a = array(a)
    if axis is None:
        a, axis = a.ravel(), 0
    along = plain_axis_index("repeat", axis, a.shape)
    try:
        chosen = np.repeat(np.arange(a.shape[along]), repeats)
    except CkadError:
        raise
    except ValueError as error:
        raise CkadValueError.of("repeat", f"{error}: {repeats!r:.80} along an axis of {a.shape}", _COUNTS) from None
    except TypeError as error:
        raise CkadTypeError.of("repeat", f"{error}: {repeats!r:.80}", _COUNTS) from None
    return np.take(a, chosen, axis=along)
