"""`np.pad` with constants, from the core's primitive."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError
from ckad.numpy.axes import array, axis_indices
from ckad.numpy.registry import implements


@implements(np.pad)
def pad(a: Any, pad_width: Any, mode: Any = "constant", *, constant_values: Any = 0, **keywords: Any) -> Any:
    """The array with constants around it; where axes meet, the later axis' constants stand in the corners."""
    if mode != "constant" or keywords:
        what = (
            f"mode={mode!r} is not supported for traced values" if mode != "constant" else f"{list(keywords)} unknown"
        )
        hint = (
            "index with padded positions, x[np.pad(np.arange(x.size), 1, mode='edge')] (also 'reflect', 'symmetric', "
            "'wrap'), or join with what stands around it: np.concatenate([before, x, after])"
        )
        raise CkadTypeError.of("pad", what, hint)
    a = array(a)
    widths = _widths(pad_width, a.shape)
    constants: Any = constant_values if isinstance(constant_values, _core.Tracer) else array(constant_values)
    if constants.ndim == 0:
        return _core.pad(a, constants[()], widths)
    try:
        pairs = np.broadcast_to(constants, (a.ndim, 2))
    except ValueError:
        words = "operands could not be broadcast together with remapped shapes"
        what = f"{words}: constant_values of shape {constants.shape} to {(a.ndim, 2)}"
        raise CkadValueError.of("pad", what, _PAIRS.replace("width", "constant")) from None
    # One side at a time; each step spans what the steps before have added.
    for axis, (before, after) in enumerate(widths):
        for side, step in enumerate([(before, 0), (0, after)]):
            a = _core.pad(a, pairs[axis, side], [step if i == axis else (0, 0) for i in range(a.ndim)])
    return a


_PAIRS = "give one width, one pair (before, after), or a pair for each axis"


def _widths(given: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """NumPy's `pad_width`, as (before, after) for each axis."""
    ndim = len(shape)
    if isinstance(given, dict):
        pairs: list[Any] = [(0, 0)] * ndim
        for axes, width in given.items():
            for axis in axis_indices("pad", axes, shape):
                pairs[axis] = (width, width) if np.ndim(width) == 0 else width
        given = pairs or np.empty((0, 2), np.int64)
    widths = np.asarray(given)
    if widths.dtype.kind not in "iu":
        raise CkadTypeError.of("pad", f"`pad_width` must be of integral type: {given!r:.80}", "write pad_width=1")
    if (widths < 0).any():
        what = f"index can't contain negative values: {given!r:.80}"
        raise CkadValueError.of("pad", what, "cut elements off with a slice: x[1:-1]")
    try:
        widths = np.broadcast_to(widths, (ndim, 2))
    except ValueError:
        what = f"pad_width {given!r:.80} does not fit an array of {ndim} axes"
        raise CkadValueError.of("pad", what, _PAIRS) from None
    return [(operator.index(before), operator.index(after)) for before, after in widths]
