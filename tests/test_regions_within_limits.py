"""Regions (of `ckad.checkpoint`, and with policies of their own) beside 'none' and beside limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import MemoryLimitError

WEIGHT = np.eye(16) * 0.5 + 0.01
SMALL, LARGE = np.random.default_rng(0).uniform(0.1, 1.0, (2, 3, 16)), np.full((2, 200, 16), 0.3)


class Borders:
    """A policy of the user's: a segment for each of so many positions."""

    def __init__(self, positions: int) -> None:
        self.positions = positions

    def choose(self, clusters: ckad.Clusters) -> Any:
        return {"borders": range(0, clusters.positions, self.positions)}


class Nothing:
    """Keeps no value."""

    def choose(self, clusters: ckad.Clusters) -> Any:
        return {"keep": []}


MINE = [Borders(4), Borders(1), Nothing()]
POLICIES: list[Any] = [*("auto", "sqrt", "log", 1, 2, 3, 5), ckad.Revolve(1), ckad.Revolve(2), ckad.Mixed(1)]


def program(seed: int) -> Callable[[Any, Any], Any]:
    """Branches, loops and products, some of them in a region."""
    rng = np.random.default_rng(seed)
    lines: list[tuple[int, int, int, bool]] = []
    for count in range(2, 8):
        lines.append((int(rng.integers(7)), *(int(n) for n in rng.integers(0, count, 2)), bool(rng.random() < 0.4)))
    tail = [int(n) for n in rng.integers(2, 8, 3)]

    def loop(x: Any, y: Any) -> Any:
        for _ in range(3):
            x = np.tanh(x @ WEIGHT) + y
        return x

    kinds: list[Callable[[Any, Any], Any]] = [
        lambda x, y: np.sin(x) * y,
        lambda x, y: np.cos(np.sin(x) + y),
        lambda x, y: x - np.mean(y, axis=1, keepdims=True),
        lambda x, y: np.concatenate([x[1:], y[:1]]) * y[::-1],
        lambda x, y: np.tanh(x @ WEIGHT) + y,
        lambda x, y: np.sum(x, axis=0) * y,
        loop,
    ]

    def f(x: Any, y: Any) -> Any:
        values = [x, y]
        for kind, a, b, apart in lines:
            line = ckad.checkpoint(kinds[kind]) if apart else kinds[kind]
            values.append(line(values[a], values[b]))
        return sum(np.sum(values[k] ** 2) for k in tail)

    return f


def planned(f: Callable[..., Any], args: Any, jitted: bool, limit: int | None = None, **options: Any) -> Any:
    if not jitted:
        return ckad.plan(ckad.grad(f, argnums=(0, 1), memory_limit=limit, **options))(*args)
    # An inner policy is that of a region.
    return ckad.plan(ckad.jit(ckad.grad(f, argnums=(0, 1), **options), memory_limit=limit))(*args)


@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "jit"])
@pytest.mark.parametrize("args", [SMALL, LARGE], ids=["small", "large"])
def test_no_policy_is_above_none_or_below_the_least_limit(args: Any, jitted: bool) -> None:
    for seed in range(25):
        f = program(seed)
        none = planned(f, args, jitted, checkpoint="none")
        for policy in ["none", *POLICIES, *([] if jitted else MINE)]:
            plan = planned(f, args, jitted, checkpoint=policy)
            assert plan.peak_bytes <= none.peak_bytes, (seed, policy)
            # Regions under 'auto' (which 'none' in a region is, too) are compared by their peaks.
            assert jitted or policy == "auto" or plan.live_bytes <= none.live_bytes, (seed, policy)
            # The frontier of a region with another policy is another one.
            least = plan.frontier()[0].peak_bytes
            assert least <= plan.peak_bytes or policy in MINE, (seed, policy)
            if policy in ("none", 3):
                inner = {"checkpoint": policy} if jitted else {}
                with pytest.raises(MemoryLimitError) as caught:
                    planned(f, args, jitted, 1, **inner)
                assert caught.value.minimum == least
                assert planned(f, args, jitted, plan.peak_bytes, **inner).peak_bytes <= plan.peak_bytes


def test_a_policy_that_needs_more_says_so() -> None:
    for seed in range(25):
        plan = planned(program(seed), LARGE, True, checkpoint=ckad.Mixed(1))
        free = planned(program(seed), LARGE, True, checkpoint="none")
        assert plan.note is None or "everything is kept" in plan.note
        assert plan.note is None or plan.peak_bytes == free.peak_bytes or plan.extra_flops < free.extra_flops
