"""Memory against work: `ckad.memory_frontier` and the data of a plan's pictures agree with the plans themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import MemoryLimitError

RNG = np.random.default_rng(3)
WEIGHTS = [RNG.standard_normal((32, 32)).astype(np.float32) * np.float32(0.2) for _ in range(30)]
POINT = RNG.standard_normal((256, 32)).astype(np.float32)
STATE = np.linspace(0.1, 1.0, 5000)


def net(x: Any) -> Any:
    for weight in WEIGHTS:
        x = np.tanh(x @ weight)
    return np.sum(x * x)


def loop(x: Any) -> Any:
    for _ in range(40):
        x = x + np.sin(x) * 0.1
    return np.sum(x)


def looking(x: Any) -> Any:
    for step in range(30):
        x = np.sin(x) * 1.1
        if step % 10 == 9 and np.max(x) > 0.0:
            x = x * 0.5
    return np.sum(x)


PROGRAMS: dict[str, tuple[Callable[[Any], Any], Any]] = {"net": (net, POINT), "loop": (loop, STATE)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_point_is_the_plan_under_its_limit(name: str) -> None:
    f, x = PROGRAMS[name]
    points = ckad.memory_frontier(f)(x)
    assert len(points) > 3
    for one, other in itertools.pairwise(points):
        assert one.peak_bytes < other.peak_bytes
        assert one.extra_flops > other.extra_flops
    for point in (points[0], points[len(points) // 2], points[-1]):
        plan = ckad.plan(f, memory_limit=point.peak_bytes)(x)
        assert (plan.peak_bytes, plan.extra_flops) == point[:2]
    with pytest.raises(MemoryLimitError) as caught:
        ckad.plan(f, memory_limit=1)(x)
    assert caught.value.minimum == points[0].peak_bytes
    none = ckad.plan(f, checkpoint="none")(x)
    assert points[-1].extra_flops == 0
    assert points[-1].peak_bytes <= none.peak_bytes
    assert points[-1].policy in ("none", "auto")


def test_the_policy_of_the_function_does_not_matter() -> None:
    points = ckad.memory_frontier(ckad.grad(net))(POINT)
    assert points == ckad.memory_frontier(ckad.grad(net, checkpoint="sqrt"))(POINT)
    assert points == ckad.plan(ckad.grad(net, checkpoint=3))(POINT).frontier()
    sqrt = ckad.plan(ckad.grad(net, checkpoint="sqrt"))(POINT)
    assert any(point.peak_bytes <= sqrt.peak_bytes and point.extra_flops <= sqrt.extra_flops for point in points)


def test_captured_arrays_count_and_need_not_live() -> None:
    def planned() -> ckad.Plan:
        small = RNG.standard_normal(1000)
        f = lambda x: np.sum(np.sin(x) * small * np.cos(x * small))
        return ckad.plan(f, checkpoint="none")(np.ones(1000))

    plan = planned()
    assert plan.parts["constants"] == 8000
    assert plan.frontier()[-1].peak_bytes == plan.peak_bytes


def test_of_equal_peaks_the_least_work_is_left() -> None:
    # The forced run holds more than any plan of the last one.
    def f(x: Any) -> Any:
        assert np.sum(np.tanh(x @ x.T) @ np.ones((2000, 2))) != 0.0
        return loop(x[0])

    (point,) = ckad.memory_frontier(f)(np.ones((2000, 5)) * 0.01)
    plan = ckad.plan(f, checkpoint="none")(np.ones((2000, 5)) * 0.01)
    assert point[:2] == (plan.forced_runs[1], 0)


def test_arguments_are_checked() -> None:
    with pytest.raises(TypeError, match=r"\[memory_frontier\] argnums= of a transformed function.*Hint: "):
        ckad.memory_frontier(ckad.grad(net), 0)
    with pytest.raises(TypeError, match=r"\[memory_frontier\] .*Hint: "):
        ckad.memory_frontier(3)  # type: ignore[arg-type]
    (first, *_), (second, *_) = (
        ckad.memory_frontier(lambda a, b: np.sum(np.sin(a) * b), n)(STATE, STATE) for n in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize("name", [*PROGRAMS, "looking"])
def test_the_timeline_is_what_a_run_holds(name: str, policy: str | int) -> None:
    f, x = PROGRAMS.get(name, (looking, STATE))
    gradient = ckad.grad(f, checkpoint=policy)
    plan = ckad.plan(gradient)(x)
    whole, coarse = plan.timeline(columns=10**6), plan.timeline(columns=10, lines=1)
    assert whole["step"] == list(range(whole["steps"]))
    assert len(coarse["step"]) <= 11
    assert len(coarse["lines"]) == 1
    for timeline in (whole, coarse):
        assert max(timeline["live"]) == plan.live_bytes
        assert len(timeline["held"]) == len(timeline["lines"]) + 1
        assert [sum(column) for column in zip(*timeline["held"], strict=True)] == timeline["live"]
        assert all(live <= allocated for live, allocated in zip(timeline["live"], timeline["allocated"], strict=True))
        assert all(file == __file__ for file, _ in timeline["lines"])
        assert timeline["computes"][-1] is None
        # What is made again inside other kernels is no step, and not every policy has segments.
        assert any(timeline["recomputed"]) or plan.segments == 1
        assert not any(timeline["recomputed"]) or plan.extra_flops > 0
        assert any(timeline["forward"])
        assert any(timeline["backward"])
    report = ckad.memory.profile(gradient, x)
    assert max(whole["live"]) == report.executor_bytes
    # Both say which line holds how much at most.
    for (file, line), held in zip(whole["lines"], whole["held"], strict=False):
        assert max(held) <= report.executor_bytes
        assert f"{file}:{line}" in report.lines


def test_lines_are_the_table() -> None:
    plan = ckad.plan(ckad.grad(net, checkpoint="sqrt"))(POINT)
    text = str(plan)
    assert sum(cost.peak_bytes for cost in plan.lines) == plan.live_bytes
    assert sum(cost.flops for cost in plan.lines) == plan.flops
    for cost in plan.lines:
        assert cost.file == __file__
        (row,) = (row for row in text.splitlines() if f"test_frontier.py:{cost.line} " in row)
        assert f"{cost.peak_bytes:,} B" in row
        assert f"{cost.saved_bytes:,} B" in row
        assert row.endswith(f"{cost.computed}×")
