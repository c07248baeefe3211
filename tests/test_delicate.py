"""Derivatives where they are delicate, row by row as docs/derivatives.md states them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckad

inf, nan = np.inf, np.nan

# (what, function of one array or float to a scalar, point, gradient)
ROWS: list[tuple[str, Any, Any, Any]] = [
    ("maximum, tie", lambda x: np.maximum(x[0], x[1]), [1.0, 1.0], [0.5, 0.5]),
    ("minimum, tie", lambda x: np.minimum(x[0], x[1]), [1.0, 1.0], [0.5, 0.5]),
    ("max, tie of three", np.max, [2.0, 2.0, 1.0, 2.0], [1 / 3, 1 / 3, 0, 1 / 3]),
    ("min, tie", np.min, [2.0, 1.0, 1.0], [0, 0.5, 0.5]),
    ("sort, tie", lambda x: np.sum(np.sort(x) * np.array([1.0, 2.0, 4.0])), [1.0, 0.0, 1.0], [3.0, 1.0, 3.0]),
    ("abs at 0", lambda x: np.sum(np.abs(x)), [0.0, -2.0, 2.0], [0, -1, 1]),
    ("sign", lambda x: np.sum(np.sign(x)), [0.0, -2.0], [0, 0]),
    ("sqrt at 0", lambda x: np.sum(np.sqrt(x)), [0.0, 4.0], [inf, 0.25]),
    ("sqrt(x)² at 0", lambda x: np.sum(np.sqrt(x) ** 2), [4.0], [1.0]),
    ("norm at 0", np.linalg.norm, [0.0, 0.0], [0, 0]),
    ("norm² at 0", lambda x: np.linalg.norm(x) ** 2, [0.0, 0.0], [0, 0]),
    ("std at equal values", np.std, [1.0, 1.0, 1.0], [0, 0, 0]),
    ("hypot at 0", lambda x: np.hypot(x[0], x[1]), [0.0, 0.0], [0, 0]),
    ("max(x, −x)² at 0", lambda x: np.sum(np.maximum(x, -x) ** 2), [0.0], [0.0]),
    ("power, 0 ** 2", lambda x: np.sum(x**2), [0.0], [0.0]),
    ("power, 0 ** 1", lambda x: np.sum(np.power(x, 1.0)), [0.0], [1.0]),
    ("power, 0 ** 0", lambda x: np.sum(np.power(x, 0.0)), [0.0], [0.0]),
    ("power of a negative base", lambda x: np.sum(x**3), [-2.0], [12.0]),
    ("power, exponent's derivative at base 0", lambda y: np.sum(np.power(0.0, y)), [2.0], [0.0]),
    ("prod with one zero", np.prod, [2.0, 0.0, 3.0], [0, 6, 0]),
    ("prod with two zeros", np.prod, [0.0, 0.0, 3.0], [0, 0, 0]),
    ("cumprod with a zero", lambda x: np.sum(np.cumprod(x)), [2.0, 0.0, 3.0], [1, 8, 0]),
    ("logaddexp at −∞", lambda x: np.logaddexp(x[0], x[1]), [-inf, 1.0], [0, 1]),
    ("logaddexp of two −∞", lambda x: np.logaddexp(x[0], x[1]), [-inf, -inf], [0.5, 0.5]),
    ("logaddexp at +∞", lambda x: np.logaddexp(x[0], x[1]), [inf, 1.0], [1, 0]),
    ("max with NaN", np.max, [1.0, nan, 2.0], [0, 1, 0]),
    ("where/sqrt at x ≤ 0", lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0.0)), [0.0, -1.0, 4.0], [0, 0, 0.25]),
    ("where/log at 0", lambda x: np.sum(np.where(x > 0, np.log(x), 0.0)), [0.0, 2.0], [0, 0.5]),
    ("0·∞ is absorbed", lambda x: np.sum(0.0 * np.sqrt(x)), [0.0], [0.0]),
    ("x[[0, 0]] += 1 counts once", lambda x: _added_twice(x), [1.0, 2.0], [1.0, 1.0]),
    ("x[[0, 0]] = v: the last wins", lambda v: _written_twice(v), [1.0, 2.0], [0.0, 1.0]),
    ("floor and remainder", lambda x: np.sum(np.floor(x) + x % 1.5), [2.2], [1.0]),
]


def _added_twice(x: Any) -> Any:
    y = x.copy()
    y[[0, 0]] += 1
    return np.sum(y)


def _written_twice(v: Any) -> Any:
    y = np.zeros_like(v)
    y[[0, 0]] = v
    return np.sum(y)


@pytest.mark.parametrize(("f", "x", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_first_order(f: Any, x: Any, expected: Any) -> None:
    point = np.array(x)
    with np.errstate(all="ignore"):
        found = ckad.grad(f)(point)
        forward = np.array([ckad.jvp(f, (point,), (unit,))[1] for unit in np.eye(len(x))])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(forward, expected, rtol=1e-12)


SECOND = [
    ("sin(x)²/2 at 0", lambda x: np.sin(x) ** 2 / 2, 0.0, 1.0),
    ("where/sqrt at −1", lambda x: np.where(x > 0, np.sqrt(x), 0.0)[()], -1.0, 0.0),
    ("where/sqrt at 0", lambda x: np.where(x > 0, np.sqrt(x), 0.0)[()], 0.0, 0.0),
    ("x² at 0", lambda x: x**2, 0.0, 2.0),
    ("x³ at 0", lambda x: x**3, 0.0, 0.0),
    ("x·x·x at 0", lambda x: x * x * x, 0.0, 0.0),
    ("max(x, x) tie", lambda x: np.maximum(x * x, x * x), 1.0, 2.0),
    ("norm² at 3", lambda x: np.linalg.norm(np.stack([x, x])) ** 2, 3.0, 4.0),
]


@pytest.mark.parametrize(("f", "x", "expected"), [pytest.param(*row[1:], id=row[0]) for row in SECOND])
def test_second_order(f: Any, x: float, expected: float) -> None:
    assert ckad.grad(ckad.grad(f))(x) == pytest.approx(expected)
    assert ckad.hvp(f, x, 1.0) == pytest.approx(expected)
