"""No float becomes an integer unasked: `dtype=` and `initial=` are taken where NumPy takes them, and where a gradient
would be lost they are refused.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import CkadError, TracerError

DTYPES = [np.bool_, np.int8, np.uint8, np.int64, np.float32, np.float64]
VALUES: dict[str, Any] = {
    "floats": np.array([0.5, 0.25]),
    "singles": np.array([0.5, 0.25], np.float32),
    "integers": np.array([1, 2]),
    "bytes": np.array([1, 2], np.uint8),
    "bools": np.array([True, False]),
    "number": 0.5,
}

# What takes dtype= but is not supported on traced values, or not with it, under a refusal of its own.
REFUSED = {"matmul", "vecdot", "matvec", "vecmat", "float_power", "bitwise_count", "isnat"}
# Kinds of dtypes that NumPy computes in and ckad refuses.
UNDEFINED = {"reciprocal": "biu", "prod": "b", "cumsum": "b", "cumprod": "b", "add.reduce": "b"}
UFUNCS = sorted(
    name
    for name, ufunc in vars(np).items()
    if isinstance(ufunc, np.ufunc) and ufunc.__name__ == name and name not in REFUSED and ufunc.signature is None
)

FUNCTIONS: dict[str, Any] = {
    "sum": lambda x, dtype: np.sum(x, dtype=dtype),
    "prod": lambda x, dtype: np.prod(x, dtype=dtype),
    "mean": lambda x, dtype: np.mean(x, dtype=dtype),
    "var": lambda x, dtype: np.var(x, dtype=dtype),
    "cumsum": lambda x, dtype: np.cumsum(x, dtype=dtype),
    "cumprod": lambda x, dtype: np.cumprod(x, dtype=dtype),
    "trace": lambda x, dtype: np.trace(np.outer(x, x), dtype=dtype),
    "add.reduce": lambda x, dtype: np.add.reduce(np.atleast_1d(x), dtype=dtype),
    "maximum.reduce": lambda x, dtype: np.maximum.reduce(np.atleast_1d(x), dtype=dtype),
    "logical_and.reduce": lambda x, dtype: np.logical_and.reduce(np.atleast_1d(x), dtype=dtype),
    "hypot.reduce": lambda x, dtype: np.hypot.reduce(np.atleast_1d(x), dtype=dtype),
    "concatenate": lambda x, dtype: np.concatenate([np.atleast_1d(x), np.ones(1)], dtype=dtype),
    "stack": lambda x, dtype: np.stack([x, x], dtype=dtype),
    "hstack": lambda x, dtype: np.hstack([x, x], dtype=dtype),
    "vstack": lambda x, dtype: np.vstack([x, x], dtype=dtype),
    "zeros_like": lambda x, dtype: np.zeros_like(x, dtype=dtype),
    "full_like": lambda x, dtype: np.full_like(x, 2.5, dtype=dtype),
    "asarray": lambda x, dtype: np.asarray(x, dtype=dtype, like=np.atleast_1d(x)),
    "astype": lambda x, dtype: np.atleast_1d(x).astype(dtype),
}


def traced(f: Any, x: Any) -> Any:
    """What f gives on a traced argument, differentiated where it is a float."""
    argnums = (0, 1) if np.result_type(x).kind == "f" else 0
    return ckad.value_and_grad(lambda zero, x: (zero * 1.0, f(x)), argnums, has_aux=True)(0.0, x)[0][1]


def outcome(f: Any, x: Any) -> Any:
    """The value, or that it was refused as a type."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return f(x)
        except TypeError as error:
            return error


def agree(f: Any, x: Any, undefined: bool) -> None:
    expected = outcome(f, x)
    found = outcome(lambda x: traced(f, x), x)
    if undefined and isinstance(found, CkadError):
        return
    several = expected if isinstance(expected, tuple) else (expected,)
    if isinstance(expected, TypeError) or any(np.result_type(each) == np.float16 for each in several):
        assert isinstance(found, CkadError), (expected, found)
        return
    assert not isinstance(found, TypeError), found
    for wanted, given in zip(several, found if isinstance(found, tuple) else (found,), strict=True):
        assert np.result_type(given) == np.result_type(wanted)
        np.testing.assert_allclose(np.asarray(given, float), np.asarray(wanted, float), rtol=1e-6)


@pytest.mark.parametrize("name", UFUNCS)
def test_a_ufunc_takes_the_dtypes_that_numpy_takes(name: str) -> None:
    ufunc = getattr(np, name)
    for dtype in DTYPES:
        undefined = np.dtype(dtype).kind in UNDEFINED.get(name, "")
        for kind, x in VALUES.items():
            if ufunc.nin == 1:
                agree(lambda x, dtype=dtype: ufunc(x, dtype=dtype), x, undefined)
            else:
                for y in (VALUES["floats"], VALUES["integers"], 1, 0.5) if kind != "number" else (0.5,):
                    agree(lambda x, y=y, dtype=dtype: ufunc(x, y, dtype=dtype), x, undefined)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_the_dtypes_that_numpy_takes(name: str) -> None:
    for dtype in DTYPES:
        undefined = np.dtype(dtype).kind in UNDEFINED.get(name, "")
        for x in VALUES.values():
            agree(lambda x, dtype=dtype: FUNCTIONS[name](x, dtype), x, undefined)


X = np.array([1.5, 2.75, 3.9])


@pytest.mark.parametrize(
    "f",
    [
        lambda x, n: np.sum(n, initial=x[0]),
        lambda x, n: np.prod(n, initial=x[0]),
        lambda x, n: np.max(n, initial=x[0]),
        lambda x, n: n.min(initial=x[0]),
        lambda x, n: n.sum(initial=x[0], dtype=np.int32),
        lambda x, n: np.sum(x > 2, initial=x[0]),
        lambda x, n: np.sum(x, dtype=int, initial=x[0]),
        lambda x, n: np.add.reduce(n, initial=x[0]),
        lambda x, n: np.multiply.reduce(n, initial=x[0]),
        lambda x, n: np.bitwise_or.reduce(n, initial=x[0]),
        lambda x, n: np.pad(n, 1, constant_values=x[0]),
        lambda x, n: np.full_like(n, x[0]),
        lambda x, n: np.full(2, x[0], dtype=int, like=x),
    ],
)
def test_a_differentiated_number_among_integers_is_refused(f: Any) -> None:
    n = np.arange(1, 4)
    for transform in (ckad.value_and_grad, lambda f: lambda x: ckad.jvp(f, (x,), (x,))):
        with pytest.raises(TracerError, match="differentiated .* loses its gradient"):
            transform(lambda x: np.sum(f(x, np.asarray(n, like=x))) * 1.0)(X)
    # What is not differentiated is truncated, as NumPy does it.
    constant = lambda x: np.sum(f(ckad.stop_gradient(x), np.asarray(n, like=x))) * 1.0 + np.sum(x)
    value, gradient = ckad.value_and_grad(constant)(X)
    np.testing.assert_allclose(value, np.sum(f(X, n)) + np.sum(X))
    np.testing.assert_array_equal(gradient, np.ones(3))


def test_moments_are_given_in_their_dtype() -> None:
    for dtype in (np.int32, np.int64, np.float32, np.uint8):
        for x in (X, X.astype(np.float32), np.array([1, 2, 5]), np.array([True, True, False])):
            for axis in (None, 0):
                agree(lambda x, axis=axis, dtype=dtype: np.mean(x, axis, dtype), x, False)
                agree(lambda x, axis=axis, dtype=dtype: np.var(x, axis, dtype), x, False)
                agree(lambda x, axis=axis, dtype=dtype: np.var(x, axis, dtype, mean=1.5, correction=1), x, False)
    agree(lambda x: np.mean(x, 1, int), np.array([[1.5, 2.5], [-1.5, -2.75]]), False)
    agree(lambda x: np.std(x, dtype=np.float32), X, False)
    with pytest.raises(TypeError, match=r"np\.std\(x\)\.astype"):
        traced(lambda x: np.std(x, dtype=int), X)
