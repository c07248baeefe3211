"""Distributions of floats, each a short formula of uniform numbers: short enough to be fused into what reads it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ckad import _core
from ckad.errors import CkadValueError
from ckad.numpy.dtypes import float_dtype
from ckad.random.drawing import check_key, converted, draw, shape_of
from ckad.random.keys import raw_bits

_SINGLE = np.dtype(np.float32)
_WORD = np.dtype(np.uint32)
_BLOCK = np.dtype(np.uint64)


def unit(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any) -> Any:
    """Multiples of 2⁻²³ (float32) or 2⁻⁵² (float64) in [0, 1), each as probable as any other."""
    word, kept = (_WORD, 23) if dtype == _SINGLE else (_BLOCK, 52)
    return (raw_bits(shape, word, key) >> 8 * word.itemsize - kept).astype(dtype) * 2.0**-kept


def uniform(
    key: Any,
    shape: int | tuple[int, ...] = (),
    dtype: DTypeLike = np.float64,
    minval: Any = 0.0,
    maxval: Any = 1.0,
) -> NDArray[Any]:
    """Uniform numbers in [minval, maxval).

    Args:
        key: a key, uint32 of shape (2,).
        shape: the shape of the result.
        dtype: float64 or float32.
        minval, maxval: numbers or arrays that broadcast to the shape; they are differentiated where they are traced,
            and compared where they are not.

    Returns:
        An array of that shape and dtype.

    Raises:
        TypeError, ValueError: `key` is no key, another dtype, or `maxval` is not above `minval`.

    Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.1.

    >>> import ckad
    >>> uniform(ckad.random.key(0), (3,), minval=-1, maxval=1).round(3)
    array([-0.163, -0.567,  0.931])
    """
    check_key("uniform", key)
    fixed = shape_of("uniform", shape), float_dtype("uniform", dtype)
    if not _holds(np.less, minval, maxval):
        what = f"minval={minval!r:.60} is not below maxval={maxval!r:.60}"
        raise CkadValueError.of("uniform", what, "give the least number first")
    if _is_real(minval) and _is_real(maxval) and (minval, maxval) == (0, 1):
        return draw(unit, fixed, key)
    return draw(_uniform, fixed, key, minval, maxval)


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _holds(comparison: np.ufunc, low: Any, high: Any) -> bool:
    """Whether a comparison holds for all elements, as far as anybody knows them."""
    if isinstance(low, _core.Tracer) or isinstance(high, _core.Tracer):
        return True
    try:
        return bool(np.all(comparison(low, high)))
    except ValueError:  # Shapes that do not fit are refused with the shape of the draw.
        return True


def _uniform(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any, minval: Any, maxval: Any) -> Any:
    low, high = converted(minval, dtype), converted(maxval, dtype)
    spread = np.maximum(unit(shape, dtype, key) * (high - low) + low, low)
    # The sum may round to the upper bound.
    return np.minimum(spread, np.nextafter(high, low))


def normal(key: Any, shape: int | tuple[int, ...] = (), dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Numbers of the standard normal distribution.

    They are finite: at most 8.6 in magnitude (5.8 in float32). The bits are `jax.random`'s, the numbers are not, as
    JAX inverts the distribution function, which takes several times the operations.

    Args:
        key: a key, uint32 of shape (2,).
        shape: the shape of the result.
        dtype: float64 or float32.

    Returns:
        An array of that shape and dtype.

    Raises:
        TypeError, ValueError: `key` is no key, or another dtype.

    Source: Box and Muller, A note on the generation of random normal deviates (1958).

    >>> import ckad, numpy as np
    >>> x = normal(ckad.random.key(0), (10_000,))
    >>> bool(abs(np.mean(x)) < 0.03), bool(abs(np.std(x) - 1) < 0.03)
    (True, True)
    """
    check_key("normal", key)
    return draw(_normal, (shape_of("normal", shape), float_dtype("normal", dtype)), key)


def _normal(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any) -> Any:
    blocks = raw_bits(shape, _BLOCK, key)
    if dtype == _SINGLE:  # One block has bits for both numbers.
        kept, radius, angle = 24, blocks >> 40, blocks.astype(_WORD) >> 8
    else:
        kept, radius, angle = 53, blocks >> 11, raw_bits(shape, _BLOCK, key, math.prod(shape)) >> 11
    # The logarithm of 1 − u, which is not 0.
    length = np.sqrt(-2.0 * np.log1p(radius.astype(dtype) * -(2.0**-kept)))
    return length * np.cos(angle.astype(dtype) * (2.0 * math.pi * 2.0**-kept))


_CENTRE = (
    (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    (-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    (-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


def _inverse_error_function(x: Any) -> Any:
    """Giles, Approximating the erfinv function (2010), table 5: within 4e-7 of the result."""
    w = -np.log1p(-x * x)
    near = w < 5.0
    w = np.where(near, w - 2.5, np.sqrt(w) - 3.0)
    series: Any = 0.0
    for centre, tail in zip(sum(_CENTRE, ()), sum(_TAIL, ()), strict=True):
        series = series * w + np.where(near, converted(centre, x.dtype), converted(tail, x.dtype))
    return series * x


def truncated_normal(
    key: Any, lower: float, upper: float, shape: int | tuple[int, ...] = (), dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """Numbers of the standard normal distribution given that they lie between two bounds.

    Args:
        key: a key, uint32 of shape (2,).
        lower, upper: the bounds, numbers. Scale and shift the result for another distribution.
        shape: the shape of the result.
        dtype: float64 or float32.

    Returns:
        An array of that shape and dtype, of numbers in [lower, upper]; quantiles are within 1e-6.

    Raises:
        TypeError, ValueError: `key` is no key, another dtype, or `upper` is not above `lower`.

    Source: Giles, Approximating the erfinv function (2010): the distribution function, inverted.

    >>> import ckad
    >>> truncated_normal(ckad.random.key(0), -1, 1, (3,)).round(3)
    array([-0.14 , -0.506,  0.907])
    """
    check_key("truncated_normal", key)
    fixed = shape_of("truncated_normal", shape), float_dtype("truncated_normal", dtype)
    if not (_is_real(lower) and _is_real(upper) and lower < upper):
        what = f"lower={lower!r} and upper={upper!r} are not two numbers, the lesser one first"
        raise CkadValueError.of("truncated_normal", what, "truncated_normal(key, -2, 2, shape), scaled and shifted")
    return draw(_truncated_normal, (*fixed, float(lower), float(upper)), key)


def _truncated_normal(shape: tuple[int, ...], dtype: np.dtype[Any], lower: float, upper: float, key: Any) -> Any:
    below, above = (dtype.type(math.erf(bound / math.sqrt(2.0))) for bound in (lower, upper))
    place = unit(shape, dtype, key) * (above - below) + below
    # Where the distribution function rounds to ±1, so far out that it is as good as a bound.
    place = np.clip(place, np.nextafter(dtype.type(-1), dtype.type(0)), np.nextafter(dtype.type(1), dtype.type(0)))
    return np.clip(_inverse_error_function(place) * math.sqrt(2.0), dtype.type(lower), dtype.type(upper))


def bernoulli(key: Any, p: Any = 0.5, shape: int | tuple[int, ...] | None = None) -> NDArray[np.bool_]:
    """True with probability p.

    Args:
        key: a key, uint32 of shape (2,).
        p: a number or array of probabilities, which may be traced: then nobody checks them. Those of float32 are
            compared with numbers of float32.
        shape: the shape of the result, to which p broadcasts; that of p if left out.

    Returns:
        A bool array.

    Raises:
        TypeError, ValueError: `key` is no key, `p` is no probability, or does not broadcast to `shape`.

    Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.1.

    >>> import ckad
    >>> bernoulli(ckad.random.key(0), 0.3, (5,))
    array([False,  True, False, False, False])
    """
    check_key("bernoulli", key)
    if not isinstance(p, (np.ndarray, np.generic, _core.Tracer)):
        p = float(p) if _is_real(p) else np.asarray(p, np.float64)
    if not (_holds(np.less_equal, 0, p) and _holds(np.less_equal, p, 1)):
        what = f"p={p!r} is no probability" if _is_real(p) else f"p={p!r:.60} holds what is no probability"
        raise CkadValueError.of("bernoulli", what, "give numbers between 0 and 1")
    dtype = _SINGLE if getattr(p, "dtype", None) == _SINGLE else np.dtype(np.float64)
    return draw(_bernoulli, (shape_of("bernoulli", np.shape(p) if shape is None else shape), dtype), key, p)


def _bernoulli(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any, p: Any) -> Any:
    return unit(shape, dtype, key) < converted(p, dtype)


def exponential(key: Any, shape: int | tuple[int, ...] = (), dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Numbers of the exponential distribution of mean 1, which are finite and may be 0.

    Args:
        key: a key, uint32 of shape (2,).
        shape: the shape of the result.
        dtype: float64 or float32.

    Returns:
        An array of that shape and dtype.

    Raises:
        TypeError, ValueError: `key` is no key, or another dtype.

    Source: Knuth, The Art of Computer Programming, volume 2, section 3.4.1 (the logarithm method).

    >>> import ckad
    >>> exponential(ckad.random.key(0), (3,)).round(3)
    array([0.542, 0.244, 3.362])
    """
    check_key("exponential", key)
    return draw(_exponential, (shape_of("exponential", shape), float_dtype("exponential", dtype)), key)


def _exponential(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any) -> Any:
    return -np.log1p(-unit(shape, dtype, key))


def gumbel(key: Any, shape: int | tuple[int, ...] = (), dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Numbers of the standard Gumbel distribution: the greatest of logits plus these is a draw from their softmax.

    Args:
        key: a key, uint32 of shape (2,).
        shape: the shape of the result.
        dtype: float64 or float32.

    Returns:
        An array of that shape and dtype, of finite numbers.

    Raises:
        TypeError, ValueError: `key` is no key, or another dtype.

    Source: Maddison, Tarlow and Minka, A* sampling (2014).

    >>> import ckad
    >>> gumbel(ckad.random.key(0), (3,)).round(3)
    array([ 0.138, -0.426,  3.344])
    """
    check_key("gumbel", key)
    return draw(raw_gumbel, (shape_of("gumbel", shape), float_dtype("gumbel", dtype)), key)


def raw_gumbel(shape: tuple[int, ...], dtype: np.dtype[Any], key: Any) -> Any:
    """−log(−log u), u in (0, 1)."""
    return -np.log(-np.log(np.maximum(unit(shape, dtype, key), np.finfo(dtype).tiny)))
