"""Numbers of the program text: one that comes to the same place again is recorded once, whatever its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad

X = np.linspace(0.5, 1.5, 4)
STEPS = 20
DT = np.float32(0.25)


def nodes(f: Callable[..., Any], *args: Any) -> int:
    return len(ckad.trace(f)(*args))


def numpy_scalar(x: Any) -> Any:
    for _ in range(STEPS):
        x = x + DT
    return x


def closed_over(x: Any, dt: float = 0.01) -> Any:
    def step(x: Any) -> Any:
        return x * dt

    for _ in range(STEPS):
        x = step(x)
    return x


def literal(x: Any) -> Any:
    for _ in range(STEPS):
        x = 1.0 - x
    return x


def integer(x: Any) -> Any:
    for _ in range(STEPS):
        x = x * 3
    return x


@pytest.mark.parametrize("f", [numpy_scalar, closed_over, literal, integer])
def test_a_number_that_comes_again_is_one_node(f: Callable[[Any], Any]) -> None:
    assert nodes(f, X) == 1 + STEPS + 1
    np.testing.assert_allclose(ckad.value_and_grad(lambda x: np.sum(f(x)))(X)[0], np.sum(f(X)), rtol=1e-14)


def scaled(x: Any, factors: list[float]) -> Any:
    for factor in factors:
        x = x * factor
    return x


def test_which_numbers_are_one_object_does_not_change_the_structure() -> None:
    # Equal or not, the first two may be one object; from then on the place shares nothing.
    one, other = float("1.5"), float("2.5")
    patterns = [[one] * 3 + [other] * 5, [one, other] * 4, [one] * 8, [float("1.5") for _ in range(8)]]
    assert nodes(lambda x: scaled(x, patterns[0]), X) == 1 + 8 + (1 + 5)
    assert {nodes(lambda x, p=pattern: scaled(x, p), X) for pattern in patterns} == {1 + 8 + 8}
    for pattern in patterns:
        np.testing.assert_allclose(ckad.grad(lambda x, p=pattern: np.sum(scaled(x, p)))(X), np.prod(pattern))


def test_one_place_in_two_dtypes_and_regions() -> None:
    def step(x: Any) -> Any:
        return x * 0.1

    def f(x: Any, y: Any) -> Any:
        inside = ckad.checkpoint(step)
        return np.sum(step(x)) + np.sum(step(y)) + np.sum(inside(x)) + np.sum(step(inside(x)))

    narrow = X.astype(np.float32)
    for policy in ("none", "sqrt"):
        dx, dy = ckad.grad(f, argnums=(0, 1), checkpoint=policy)(X, narrow)
        np.testing.assert_allclose(dx, 0.21)
        np.testing.assert_array_equal(dy, np.float32(0.1))


def test_an_inner_transform_has_nodes_of_its_own() -> None:
    def f(x: Any) -> Any:
        total = x
        for _ in range(3):
            total = total + ckad.grad(lambda y: y * y * 0.7)(total) * 0.3
        return total

    np.testing.assert_allclose(ckad.grad(f)(1.25), (1 + 1.4 * 0.3) ** 3)


def test_a_loop_that_looks() -> None:
    def f(x: Any) -> Any:
        while x < 10.0:
            x = x * 1.7
        return x

    value, slope = ckad.value_and_grad(f)(1.0)
    np.testing.assert_allclose((value, slope), (1.7**5, 1.7**5))
