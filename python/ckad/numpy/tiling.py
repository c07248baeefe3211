"""Larger arrays from smaller ones, and triangles, put together as NumPy puts them together."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad.errors import CkadError, CkadTypeError, CkadValueError
from ckad.numpy.axes import array, whole
from ckad.numpy.registry import implements
from ckad.numpy.shaping import concatenate


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    pieces = [array(arr), array(values)]
    return concatenate(
        [piece.ravel() for piece in pieces] if axis is None else pieces, axis=0 if axis is None else axis
    )


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    return concatenate([x if x.ndim > 1 else np.atleast_2d(x).T for x in map(array, tup)], axis=1)


@implements(np.atleast_3d)
def atleast_3d(*arys: Any) -> Any:
    results = tuple(x[:, :, np.newaxis] if x.ndim == 2 else _in_the_middle(x) for x in map(array, arys))
    return results[0] if len(results) == 1 else results


def _in_the_middle(x: Any) -> Any:
    return x.reshape((1, x.size, 1)) if x.ndim < 2 else x


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    return concatenate([atleast_3d(x) for x in tup], axis=2)


def _counts(reps: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        given = tuple(reps)
    except TypeError:
        given = (reps,)
    counts = tuple(1 if count == 1 else whole("tile", count) for count in given)
    if any(count < 0 for count in counts):
        what = f"negative dimensions are not allowed: {counts} of shape {shape}"
        raise CkadValueError.of("tile", what, "give counts of 0 or more, one for each axis")
    return counts


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    A = array(A)
    counts = _counts(reps, A.shape)
    counts = (1,) * (A.ndim - len(counts)) + counts
    ahead = (np.newaxis,) * (len(counts) - A.ndim)
    if all(count == 1 for count in counts):
        return A.copy("K")[(*ahead, ...)]
    result = A[(*ahead, ...)]
    # Each axis beside one that repeats it, and the pairs as one axis: a single copy, however many repeats.
    apart = tuple(part for count, extent in zip(counts, result.shape, strict=True) for part in (count, extent))
    repeated = np.broadcast_to(np.expand_dims(result, tuple(range(0, 2 * len(counts), 2))), apart)
    return repeated.copy("C").reshape(tuple(m * n for m, n in zip(counts, result.shape, strict=True)))


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    rank = max(a.ndim, b.ndim)
    a, b = (x[(*(np.newaxis,) * (rank - x.ndim), ...)] for x in (a, b))
    apart = np.expand_dims(a, tuple(range(1, 2 * rank, 2))) * np.expand_dims(b, tuple(range(0, 2 * rank, 2)))
    return apart.reshape(tuple(m * n for m, n in zip(a.shape, b.shape, strict=True)))


_DIAGONAL = "k= is the number of one diagonal: k=1 is above the main one"


def _lower(name: str, m: Any, k: Any, less: int) -> Any:
    """Where the lower triangle up to the diagonal k − less is."""
    if m.ndim == 0:
        what = "tri() missing 1 required positional argument: 'N': the shape is ()"
        raise CkadTypeError.of(name, what, "give a matrix, or a vector: x.reshape(1)")
    try:
        return np.tri(*m.shape[-2:], k=k - less, dtype=bool)
    except CkadError:
        raise
    except ValueError as error:
        raise CkadValueError.of(name, str(error), _DIAGONAL) from None
    except TypeError as error:
        raise CkadTypeError.of(name, str(error), _DIAGONAL) from None


@implements(np.tril)
def tril(m: Any, k: Any = 0) -> Any:
    m = array(m)
    return np.where(_lower("tril", m, k, 0), m, np.zeros(1, m.dtype))


@implements(np.triu)
def triu(m: Any, k: Any = 0) -> Any:
    m = array(m)
    return np.where(_lower("triu", m, k, 1), np.zeros(1, m.dtype), m)
