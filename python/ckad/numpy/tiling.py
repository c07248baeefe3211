"""Larger arrays from smaller ones, and triangles, put together as NumPy puts them together."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad.numpy.axes import array
from ckad.numpy.registry import implements


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    pieces = [array(arr), array(values)]
    return np.concatenate([piece.ravel() for piece in pieces] if axis is None else pieces, axis=axis or 0)


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    return np.concatenate([x if x.ndim > 1 else np.atleast_2d(x).T for x in map(array, tup)], axis=1)


@implements(np.atleast_3d)
def atleast_3d(*arys: Any) -> Any:
    results = tuple(x[:, :, np.newaxis] if x.ndim == 2 else _in_the_middle(x) for x in map(array, arys))
    return results[0] if len(results) == 1 else results


def _in_the_middle(x: Any) -> Any:
    return x.reshape((1, x.size, 1)) if x.ndim < 2 else x


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    return np.concatenate([atleast_3d(x) for x in tup], axis=2)


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    A = array(A)
    counts = (reps,) if np.ndim(reps) == 0 else tuple(reps)
    counts = (1,) * (A.ndim - len(counts)) + counts
    ahead = (np.newaxis,) * (len(counts) - A.ndim)
    if all(count == 1 for count in counts):
        return A.copy("K")[(*ahead, ...)]
    result = (A if A.flags.c_contiguous else A.copy("C"))[(*ahead, ...)]
    for axis, count in enumerate(counts):
        if count != 1:
            empty = result[tuple(slice(0) if i == axis else slice(None) for i in range(result.ndim))]
            result = np.concatenate([result] * int(count) or [empty], axis=axis)
    return result


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    a, b = array(a), array(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    rank = max(a.ndim, b.ndim)
    a, b = (x[(*(np.newaxis,) * (rank - x.ndim), ...)] for x in (a, b))
    apart = np.expand_dims(a, tuple(range(1, 2 * rank, 2))) * np.expand_dims(b, tuple(range(0, 2 * rank, 2)))
    return apart.reshape(tuple(m * n for m, n in zip(a.shape, b.shape, strict=True)))


@implements(np.tril)
def tril(m: Any, k: Any = 0) -> Any:
    m = array(m)
    return np.where(np.tri(*m.shape[-2:], k=k, dtype=bool), m, np.zeros(1, m.dtype))


@implements(np.triu)
def triu(m: Any, k: Any = 0) -> Any:
    m = array(m)
    return np.where(np.tri(*m.shape[-2:], k=k - 1, dtype=bool), np.zeros(1, m.dtype), m)
