"""How a draw comes to its result: recorded where something records, and else run at once, by the same program.

Each distribution is a function of NumPy's and ckad's primitives over `_core.random_bits`. Run outside of a trace, it is
jitted, so that NumPy arrays come out with the bits that a traced function computes with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.numpy.axes import as_shape
from ckad.transforms.jit import jit

_KEY: Final = np.dtype(np.uint32)


def draw(build: Callable[..., Any], fixed: tuple[Any, ...], key: Any, *operands: Any) -> Any:
    """`build(*fixed, key, *operands)`.

    Args:
        build: the draw in terms of primitives.
        fixed: shapes, dtypes and flags: hashable.
        key: the key; it and `operands` are arrays, numbers or traced values.
    """
    if _core.is_recording() or any(isinstance(value, _core.Tracer) for value in (key, *operands)):
        return build(*fixed, key, *operands)
    return _at_once(build, fixed)(key, *operands)


@functools.lru_cache(maxsize=256)
def _at_once(build: Callable[..., Any], fixed: tuple[Any, ...]) -> Callable[..., Any]:
    return jit(functools.partial(build, *fixed))


def check_key(op: str, key: Any) -> None:
    """Refuses what is no key."""
    hint = "make one with ckad.random.key(0)"
    if not isinstance(key, (np.ndarray, _core.Tracer)):
        what = f"a key is an array of two uint32, not a value of type {type(key).__name__}"
        raise CkadTypeError.of(op, what, f"{hint}; ckad.random.{op} takes the key first")
    if key.dtype != _KEY:
        raise DTypeError.of(op, f"a key has dtype uint32, not {key.dtype}", hint)
    if key.shape != (2,):
        what = f"a key has shape (2,), not {key.shape}"
        raise ShapeError.of(op, what, "take one of several keys: keys[0]" if key.shape[-1:] == (2,) else hint)


def shape_of(op: str, shape: Any) -> tuple[int, ...]:
    """The shape of a draw, given as one extent or several."""
    extents = as_shape(op, shape)
    if any(extent < 0 for extent in extents):
        raise CkadValueError.of(op, f"negative dimensions are not allowed: {extents}", "extents are at least 0")
    return extents


def converted(value: Any, dtype: np.dtype[Any]) -> Any:
    """A number, array or traced value in a dtype."""
    if isinstance(value, (np.ndarray, np.generic, _core.Tracer)):
        return value if value.dtype == dtype else value.astype(dtype)
    return dtype.type(value) if np.ndim(value) == 0 else np.asarray(value, dtype)
