"""Differentiated Python numbers are weak, as in NumPy: what they meet keeps its dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad

X = np.array([0.5, 1.5, 2.5], np.float32)
S = np.float32(1.25)
I8 = np.array([1, 2, 3], np.int8)

PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "times an array": lambda a: a * X,
    "times an array, reflected": lambda a: X * a,
    "times a NumPy scalar": lambda a: a * S,
    "NumPy scalar, reflected": lambda a: S * a,
    "times integers": lambda a: a * I8,
    "times a Python number": lambda a: (a * 2.0 + 1) * X,
    "Python number first": lambda a: (1 / a - 3.0) ** 2 * X,
    "both from one number": lambda a: (a * a - a / 3) * X,
    "negative, absolute, positive": lambda a: abs(-(+a)) * X,
    "power": lambda a: (a**0.5 + a**-1 + 2.0**a) * X,
    "divmod": lambda a: divmod(a, 0.7)[1] * X,
    "quotient": lambda a: (a // 0.7) * X,
    "round to digits": lambda a: round(a, 1) * X,
    "copies": lambda a: copy.copy(a) * copy.deepcopy(a) * X,
    "comparison": lambda a: (a > 1.0) * X,
    "comparison times number": lambda a: (a > 1.0) * a * X,
    "sum of comparisons": lambda a: ((a > 1.0) + (a > 2.0)) * I8,
    "and of comparisons": lambda a: ((a > 1.0) & (a < 2.0)) * I8,
    "a ufunc's result is strong": lambda a: np.sin(a) * X,
    "np.multiply is strong": lambda a: np.multiply(a, 2.0) * X,
    "np.sum is strong": lambda a: np.sum(a) * X,
    "np.round is strong": lambda a: np.round(a, 1) * X,
    "np.dot is strong": lambda a: np.dot(a, X),
    "np.stack is strong": lambda a: np.stack([a, X[0]]),
    "np.outer is strong": lambda a: np.outer(a, X),
    "np.reshape is strong": lambda a: np.reshape(a, (1,)) * X,
    "ufunc beside an array": lambda a: np.maximum(a, X) + np.hypot(X, a) + np.power(X, a),
    "ufunc outer is strong": lambda a: np.multiply.outer(X, a),
    "where": lambda a: np.where(X > 1, a, X),
    "where, both Python numbers": lambda a: np.where(X > 1, a, 0.0) * X,
    "clip": lambda a: np.clip(X, 0.0, a),
    "an element is strong": lambda a: (a * X)[0] * a,
    "beside float64": lambda a: a * X.astype(np.float64),
}


def run(f: Callable[[Any], Any], a: float) -> Any:
    return ckad.value_and_grad(lambda a: (a, f(a)), has_aux=True)(a)[0][1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_have_numpys_dtype(name: str) -> None:
    expected, found = PROGRAMS[name](2.5), run(PROGRAMS[name], 2.5)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradients_are_float64_scalars() -> None:
    value, gradient = ckad.value_and_grad(lambda a: np.sum(a * X))(2.5)
    assert type(value) is np.float32
    assert type(gradient) is np.float64
    assert gradient == np.sum(X)
    assert "float64(3,)" not in str(ckad.trace(lambda a: np.sum(a * X))(2.5))


def test_numpy_scalars_stay_strong() -> None:
    assert ckad.value_and_grad(lambda a: np.sum(a * X))(np.float64(2.5))[0].dtype == np.float64


def test_transforms_pass_weakness_on() -> None:
    value, tangent = ckad.jvp(lambda a: a * X, (2.5,), (1.0,))
    assert value.dtype == tangent.dtype == np.float32
    value, pullback = ckad.vjp(lambda a: a * X, 2.5)
    assert value.dtype == np.float32
    assert pullback(X)[0].dtype == np.float64
    # A nested transform is given the number itself; its gradient is NumPy's scalar, as outside of a trace.
    seen: list[Any] = []

    def inner(b: Any) -> Any:
        product = b * X
        seen.append(product.dtype)
        return np.sum(product)

    def outer(a: Any) -> Any:
        gradient = ckad.grad(inner)(a)
        seen.append((gradient * X).dtype)
        return gradient * a

    ckad.grad(outer)(2.5)
    assert seen == [np.float32, np.float64]


def test_weakness_survives_regions_pytrees_forcing_and_stop_gradient() -> None:
    seen: list[Any] = []

    def f(p: Any) -> Any:
        a = ckad.checkpoint(lambda a: a * 2.0)(p["a"])
        while a > 1.0:
            a = a / 2
        seen.append((a * X).dtype)
        seen.append((ckad.stop_gradient(a) * X).dtype)
        return np.sum(a * X)

    assert ckad.value_and_grad(f)({"a": 2.5})[0].dtype == np.float32
    assert seen == [np.float32, np.float32]


def test_in_place_writes_of_python_numbers() -> None:
    def f(a: Any, x: Any) -> Any:
        y = x * 1
        y += a
        y[0] = a
        return np.sum(y * a)

    value, gradient = ckad.value_and_grad(f, argnums=(0, 1))(2.5, X)
    assert value.dtype == np.float32
    assert gradient[1].dtype == np.float32
