"""Limits, least limits and frontiers of programs with loops that are recorded once: one list of plans."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import MemoryLimitError

X = np.linspace(0.1, 1.0, 2000)
Y = np.random.default_rng(0).uniform(0.1, 1.0, (2, 300, 8))


def scanned(x: Any) -> Any:
    return np.sum(ckad.scan(lambda c, _: (np.sin(c) * c + x, None), x, None, 100)[0])


def counted(x: Any) -> Any:
    return np.sum(ckad.fori_loop(0, 57, lambda i, c: np.tanh(c * 1.1) + x * i, x))


def until(x: Any) -> Any:
    return np.sum(ckad.while_loop(lambda c: c[0] < 40, lambda c: (c[0] + 1, np.sin(c[1]) * c[1]), (0, x))[1])


def nested(x: Any) -> Any:
    def body(i: Any, c: Any) -> Any:
        return np.sin(c) + ckad.scan(lambda d, _: (np.cos(d * c) * 0.5, None), c, None, 20)[0]

    return np.sum(ckad.fori_loop(0, 30, body, x))


def two(x: Any) -> Any:
    a = ckad.fori_loop(0, 40, lambda i, c: np.sin(c) * 1.1, x)
    return np.sum(ckad.fori_loop(0, 9, lambda i, c: np.cos(c) * a, a))


def beside(v: Any) -> Any:
    """A scan, and Python loops before and behind it."""
    x, y = v
    a = y + np.cos(y)
    b = y
    for _ in range(4):
        b = np.sin(b) * x + a
    c = ckad.scan(lambda c, _: (np.sin(c) * 0.9 + 0.1, None), b, None, 7)[0]
    d = c
    for _ in range(18):
        d = np.sin(d) * d + y
    return np.sum(c - np.mean(c, axis=1, keepdims=True)) + np.sum(y**2) + 0.0 * np.sum(d)


def second(v: Any) -> Any:
    return np.sum(ckad.grad(beside)(v) ** 2)


PROGRAMS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    **{f.__name__: (f, X) for f in (scanned, counted, until, nested, two)},
    **{f.__name__: (f, Y) for f in (beside, second)},
}
POLICIES: list[Any] = [
    *("none", "auto", "sqrt", "log", 1, 2, 3, 5, 8, 13, 40),
    *(ckad.Revolve(1), ckad.Revolve(3), ckad.Revolve(10), ckad.Mixed(1), ckad.Mixed(2), ckad.Mixed(6)),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_limits_the_least_one_and_the_frontier_agree(name: str) -> None:
    f, x = PROGRAMS[name]
    points = ckad.memory_frontier(ckad.grad(f))(x)
    assert len(points) > 3
    for one, other in itertools.pairwise(points):
        assert one.peak_bytes < other.peak_bytes
        assert one.extra_flops > other.extra_flops
    assert any("loops keep" in point.policy for point in points)
    with pytest.raises(MemoryLimitError) as caught:
        ckad.grad(f, memory_limit=points[0].peak_bytes - 1)(x)
    assert caught.value.minimum == points[0].peak_bytes
    plan = lambda **options: ckad.plan(ckad.grad(f, **options))(x)
    for point in points:
        limited = plan(memory_limit=point.peak_bytes)
        assert (limited.peak_bytes, limited.extra_flops) == point[:2]
    assert plan(memory_limit=points[0].peak_bytes).frontier() == points
    # Between two points the plan is that of the lower one: more memory never means more work.
    for one, other in itertools.pairwise(points):
        assert plan(memory_limit=(one.peak_bytes + other.peak_bytes) // 2).extra_flops == one.extra_flops
    expected = ckad.grad(f, checkpoint="none")(x)
    assert np.all(np.isfinite(expected))
    for point in points[:: max(1, len(points) // 4)]:
        assert ckad.grad(f, memory_limit=point.peak_bytes)(x).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_policy_needs_less_than_the_least_limit(name: str) -> None:
    f, x = PROGRAMS[name]
    least, *_ = ckad.memory_frontier(ckad.grad(f))(x)
    for policy in POLICIES:
        plan = ckad.plan(ckad.grad(f, checkpoint=policy))(x)
        assert least.peak_bytes <= plan.peak_bytes, policy
