"""Keys, and the bits that are drawn with them.

A block of the generator is two words of 32 bits, a function of the key and of a counter. Element i of an array of bits
has the counter i; key i of a split is block i; what a number is folded into is the block of that number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.random.drawing import check_key, draw, shape_of

_WIDEST = np.dtype(np.uint64)


def key(seed: Any) -> NDArray[np.uint32]:
    """The key of a seed.

    Args:
        seed: an integer of up to 64 bits, which may be negative or traced.

    Returns:
        A uint32 array of shape (2,): the high and the low half of the seed.

    Raises:
        TypeError: the seed is no integer.
        ValueError: it has more than 64 bits.

    Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (2011).

    >>> key(42), key(-1)
    (array([ 0, 42], dtype=uint32), array([4294967295, 4294967295], dtype=uint32))
    """
    if isinstance(seed, _core.Tracer):
        if seed.shape != () or seed.dtype.kind not in "iu":
            what = f"a seed is one integer, not {seed.dtype} of shape {seed.shape}"
            raise CkadTypeError.of("key", what, "give one integer, such as key(0)")
        return _words(seed.astype(np.uint64))
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        what = f"a seed is an integer, not a value of type {type(seed).__name__}"
        raise CkadTypeError.of("key", what, "give an integer, such as key(0)")
    if not -(2**63) <= seed < 2**64:
        raise CkadValueError.of("key", f"a seed has at most 64 bits: {seed}", "give a number below 2**64")
    whole = int(seed) % 2**64
    return np.array([whole >> 32, whole % 2**32], np.uint32)


PRNGKey = key
"""JAX's older name of `key`."""


def _words(blocks: Any) -> Any:
    """Blocks as pairs of words, along a last axis of their own."""
    halves = [(blocks >> 32).astype(np.uint32), blocks.astype(np.uint32)]
    return np.stack(halves, axis=-1)


def split(key: Any, num: int | tuple[int, ...] = 2) -> NDArray[np.uint32]:
    """Keys that are independent of each other and of the given one, which should not be used again.

    Args:
        key: a key, uint32 of shape (2,).
        num: how many, or the shape of an array of keys.

    Returns:
        A uint32 array of shape (num, 2), or (*num, 2).

    Raises:
        TypeError, ValueError: `key` is no key, or `num` no shape.

    Source: Claessen and Pałka, Splittable pseudorandom number generators using cryptographic hashing (2013).

    >>> import ckad
    >>> split(ckad.random.key(0))
    array([[1797259609, 2579123966],
           [ 928981903, 3453687069]], dtype=uint32)
    """
    check_key("split", key)
    return draw(_split, (shape_of("split", num),), key)


def _split(shape: tuple[int, ...], key: Any) -> Any:
    return _words(_core.random_bits(key, 0, shape or (1,), _WIDEST).reshape(shape))


def fold_in(key: Any, data: Any) -> NDArray[np.uint32]:
    """The key for a number under a key, such as that of a training step.

    Args:
        key: a key, uint32 of shape (2,).
        data: an integer in [0, 2³²), which may be traced; of a traced one the low 32 bits count.

    Returns:
        A key.

    Raises:
        TypeError, ValueError: `key` is no key, or `data` no such integer.

    Source: Claessen and Pałka, Splittable pseudorandom number generators using cryptographic hashing (2013).

    >>> import ckad
    >>> fold_in(ckad.random.key(0), 7)
    array([2716826189,  292468403], dtype=uint32)
    """
    check_key("fold_in", key)
    if isinstance(data, np.ndarray) and data.shape == ():
        data = data[()]
    if not isinstance(data, (_core.Tracer, int, np.integer)) or isinstance(data, bool):
        what = f"an integer is folded in, not a value of type {type(data).__name__}"
        raise CkadTypeError.of("fold_in", what, "give the number of a step or layer: fold_in(key, 3)")
    if isinstance(data, _core.Tracer):
        if data.shape != () or data.dtype.kind not in "iu":
            what = f"one integer is folded in, not {data.dtype} of shape {data.shape}"
            raise CkadTypeError.of("fold_in", what, "fold in one number after the other")
    elif not 0 <= data < 2**32:
        raise CkadValueError.of("fold_in", f"{data} is not in [0, 2**32)", "fold in the number of a step or layer")
    return draw(_fold_in, (), key, data)


def _fold_in(key: Any, data: Any) -> Any:
    counter = data.astype(np.uint32) if isinstance(data, _core.Tracer) else np.uint32(data)
    return _words(_core.random_bits(key, counter, (1,), _WIDEST).reshape(()))


def bits(key: Any, shape: int | tuple[int, ...] = (), dtype: DTypeLike = np.uint32) -> NDArray[Any]:
    """Random bits: every value of the dtype with the same probability.

    Args:
        key: a key, uint32 of shape (2,).
        shape: the shape of the result.
        dtype: uint8, uint16, uint32 or uint64.

    Returns:
        An array of that shape and dtype.

    Raises:
        TypeError, ValueError: `key` is no key, another dtype, or `shape` is no shape.

    Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (2011): Threefry2x32, 20 rounds.

    >>> import ckad
    >>> bits(ckad.random.key(0), (3,))
    array([4070199207, 4202968722, 1427181096], dtype=uint32)
    """
    check_key("bits", key)
    found = np.dtype(dtype)
    if found.kind != "u":
        hint = "use numpy.uint32, or ckad.random.randint for other integers"
        raise DTypeError.of("bits", f"bits have an unsigned dtype, not {found}", hint)
    return draw(raw_bits, (shape_of("bits", shape), found), key)


def raw_bits(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any, first: int = 0) -> Any:
    """Bits of the counters from `first` on."""
    if math.prod(shape) > 2**62:
        raise ShapeError.of("bits", f"no machine holds {math.prod(shape)} elements", "draw fewer at a time")
    return _core.random_bits(key, first, shape, dtype)
