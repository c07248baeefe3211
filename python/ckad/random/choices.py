"""Integers, orders and choices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.numpy.axes import axis_index
from ckad.random.drawing import check_key, converted, draw, shape_of
from ckad.random.floats import raw_gumbel, unit
from ckad.random.keys import raw_bits, split

_INT = np.dtype(np.int64)
_WORD = np.dtype(np.uint32)
_ARRAYS = (np.ndarray, _core.Tracer)


def randint(
    key: Any, shape: int | tuple[int, ...], minval: Any, maxval: Any, dtype: DTypeLike = np.int64
) -> NDArray[Any]:
    """Integers in [minval, maxval).

    Args:
        key: a key, uint32 of shape (2,).
        shape: the shape of the result.
        minval, maxval: integers, or arrays of them that broadcast to the shape.
        dtype: an integer dtype that holds minval and maxval − 1.

    Returns:
        An array of that shape and dtype. Probabilities differ by at most maxval − minval parts in 2⁶⁴ (int32: 2³²).

    Raises:
        TypeError, ValueError: `key` is no key, another dtype, no integers between the bounds, or bounds that the dtype
            does not hold.

    Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.1.

    >>> import ckad
    >>> randint(ckad.random.key(0), (8,), -5, 17)
    array([-4,  4, -4, -2, -4, -4, 11,  7])
    """
    check_key("randint", key)
    found: np.dtype[Any] = np.dtype(dtype)
    if found.kind not in "iu":
        raise DTypeError.of("randint", f"dtype {found} is not one of integers", "use numpy.int64 or numpy.int32")
    shape = shape_of("randint", shape)
    for name, bound in (("minval", minval), ("maxval", maxval)):
        if not _is_integer(bound) and not (isinstance(bound, _ARRAYS) and bound.dtype.kind in "iu"):
            raise CkadTypeError.of("randint", f"{name}={bound!r:.60} is no integer", "randint(key, shape, 0, 10)")
    if not (_is_integer(minval) and _is_integer(maxval)):
        return draw(_between, (shape, found), key, minval, maxval)
    low, high = int(minval), int(maxval)
    limits = np.iinfo(found)
    if not limits.min <= low < high <= int(limits.max) + 1:
        what = f"no {found} is at least minval={low} and below maxval={high}, or not all of them are one"
        raise CkadValueError.of("randint", what, "give the least integer first, and a dtype that holds all of them")
    return draw(_from, (shape, found, low, high - low), key)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _halves(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any) -> tuple[Any, Any]:
    """Bits twice as wide as the dtype, in two parts."""
    keys = split(key)
    return raw_bits(shape, dtype, keys[0]), raw_bits(shape, dtype, keys[1])


def _from(shape: tuple[int, ...], dtype: np.dtype[Any], low: int, span: int, key: Any) -> Any:
    word = np.dtype(f"u{dtype.itemsize}")
    high, offset = _halves(shape, word, key)
    width = 8 * word.itemsize
    if span < 2**width:
        above = 2**width % span
        offset = offset % span if above == 0 else (high % span * above + offset % span) % span
    return (offset + low % 2**width).astype(dtype)


def _between(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any, minval: Any, maxval: Any) -> Any:
    word = np.dtype(f"u{dtype.itemsize}")
    high, offset = _halves(shape, word, key)
    low = converted(minval, dtype)
    span = np.maximum((converted(maxval, dtype) - low).astype(word), 1)
    root = 2 ** (4 * word.itemsize) % span
    above = root * root % span
    offset = (high % span * above + offset % span) % span
    return low + offset.astype(dtype)


def permutation(key: Any, x: Any, axis: int = 0) -> NDArray[Any]:
    """A random order: of the integers below x, or of the entries of x along an axis.

    Args:
        key: a key, uint32 of shape (2,).
        x: an integer or an array.
        axis: the axis of x whose entries change places, each as a whole.

    Returns:
        An array of shape (x,), int64; or one like x.

    Raises:
        TypeError, ValueError: `key` is no key, x is negative, or has no such axis.

    Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.2 (random sampling and shuffling).

    >>> import ckad
    >>> permutation(ckad.random.key(0), 10)
    array([0, 1, 8, 5, 6, 4, 3, 2, 7, 9])
    """
    check_key("permutation", key)
    if np.ndim(x) == 0 and not _is_integer(x):
        what = f"{x!r:.60} is neither an integer nor an array of an axis or more"
        raise CkadTypeError.of("permutation", what, "permutation(key, 10), or permutation(key, rows)")
    if np.ndim(x) == 0:
        (count,) = shape_of("permutation", x)
        return draw(_order, (count,), key)
    x = x if isinstance(x, _ARRAYS) else np.asarray(x)
    return draw(_permuted, (axis_index("permutation", axis, x.shape),), key, x)


def _order(count: int, key: Any) -> Any:
    """0, 1, …, count − 1 in a random order: sorted by random words, so often that equal ones have no say."""
    order = None
    for _ in range(max(1, math.ceil(3 * math.log(max(1, count)) / math.log(2**32 - 1)))):
        keys = split(key)
        key = keys[0]
        by = np.argsort(raw_bits((count,), _WORD, keys[1]), kind="stable")
        order = by if order is None else order[by]
    return order


def _permuted(axis: int, key: Any, x: Any) -> Any:
    return _taken(x, _order(x.shape[axis], key), axis)


def _taken(array: Any, places: Any, axis: int) -> Any:
    """Entries of an array, which is a constant of the program where the places are traced."""
    is_traced = isinstance(places, _core.Tracer)
    return np.take(_core.lift(array, places) if is_traced else array, places, axis=axis)


def choice(
    key: Any, a: Any, shape: int | tuple[int, ...] = (), replace: bool = True, p: ArrayLike | None = None, axis: int = 0
) -> NDArray[Any]:
    """Entries of an array, or integers below a number, at random.

    Args:
        key: a key, uint32 of shape (2,).
        a: an integer or an array.
        shape: how many, as a shape.
        replace: whether one may be chosen twice.
        p: the probability of each entry; all the same if left out.
        axis: the axis of `a` from which entries are chosen.

    Returns:
        An array whose axes of `shape` take the place of the axis.

    Raises:
        TypeError, ValueError: `key` is no key, there is nothing to choose from, too little for a choice without
            `replace`, or not one probability for each.

    Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.2; Maddison, Tarlow and Minka, A* sampling
    (2014), for weights without replacement.

    >>> import ckad
    >>> choice(ckad.random.key(0), 10, (4,)), choice(ckad.random.key(0), 10, (4,), replace=False)
    (array([5, 1, 5, 7]), array([0, 1, 8, 5]))
    """
    check_key("choice", key)
    wanted = shape_of("choice", shape)
    if np.ndim(a) == 0 and not _is_integer(a):
        what = f"{a!r:.60} is neither an integer nor an array of an axis or more"
        raise CkadTypeError.of("choice", what, "choice(key, 10, shape), or choice(key, rows, shape)")
    array: Any = None
    if np.ndim(a) == 0:
        count = int(a)
    else:
        array = a if isinstance(a, _ARRAYS) else np.asarray(a)
        axis = axis_index("choice", axis, array.shape)
        count = array.shape[axis]
    if count < 1 and math.prod(wanted):
        raise CkadValueError.of("choice", f"there are {count} entries to choose from", "give one or more")
    if not replace and math.prod(wanted) > count:
        what = f"{math.prod(wanted)} of {count} entries without replacement"
        raise CkadValueError.of("choice", what, "choose fewer, or leave replace=True")
    if p is not None:
        p = p if isinstance(p, _ARRAYS) else np.asarray(p, np.float64)
        if np.shape(p) != (count,):
            what = f"p has shape {np.shape(p)} for {count} entries"
            raise ShapeError.of("choice", what, f"give one probability for each: shape ({count},)")
    probabilities = () if p is None else (p,)
    chosen = draw(_chosen, (count, wanted, bool(replace)), key, *probabilities)
    return chosen if array is None else _taken(array, chosen, axis)


def _chosen(count: int, shape: tuple[int, ...], replace: bool, key: Any, p: Any = None) -> Any:
    number = math.prod(shape)
    if p is None and replace:
        return _from(shape, _INT, 0, max(count, 1), key)
    if p is None:
        return _order(count, key)[:number].reshape(shape)
    if not replace:
        # The order of the greatest is that of a choice of one after the other.
        return np.argsort(-(raw_gumbel((count,), p.dtype, key) + np.log(p)), kind="stable")[:number].reshape(shape)
    sums = np.cumsum(p)
    place = sums[-1] * (1.0 - unit(shape, sums.dtype, key))
    return np.sum(sums < place[..., None], axis=-1)


def categorical(key: Any, logits: Any, axis: int = -1, shape: int | tuple[int, ...] | None = None) -> NDArray[np.int64]:
    """Classes at random, with the probabilities softmax(logits).

    Args:
        key: a key, uint32 of shape (2,).
        logits: array of floats, unnormalised log-probabilities.
        axis: the axis of the classes.
        shape: the shape of the result, which ends in that of logits without the axis; that alone if left out.

    Returns:
        An int64 array.

    Raises:
        TypeError, ValueError: `key` is no key, `logits` are no floats, or `shape` does not end as it must.

    Source: Maddison, Tarlow and Minka, A* sampling (2014).

    >>> import ckad, numpy as np
    >>> categorical(ckad.random.key(0), np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])))
    array([2, 0])
    """
    check_key("categorical", key)
    logits = logits if isinstance(logits, _ARRAYS) else np.asarray(logits)
    if logits.dtype.kind != "f" or logits.dtype.itemsize not in (4, 8):
        what = f"logits have dtype {logits.dtype}"
        raise DTypeError.of("categorical", what, "give floats: logits.astype(numpy.float64)")
    axis = axis_index("categorical", axis, logits.shape)
    batch = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    wanted = batch if shape is None else shape_of("categorical", shape)
    if wanted[len(wanted) - len(batch) :] != batch:
        what = f"shape {wanted} does not end in {batch}, that of logits without the classes"
        raise ShapeError.of("categorical", what, "put the axes that are new first")
    return draw(_categorical, (wanted[: len(wanted) - len(batch)], axis), key, logits)


def _categorical(more: tuple[int, ...], axis: int, key: Any, logits: Any) -> Any:
    return np.argmax(raw_gumbel((*more, *logits.shape), logits.dtype, key) + logits, axis=len(more) + axis)
