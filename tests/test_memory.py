"""What a run allocates is what its plan says, byte for byte, whatever kernels it is made of; memray is the witness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import memray
import numpy as np
import optree
import pytest
from programs import PROGRAMS

import ckad

_rng = np.random.default_rng(0)
COUNT = 100_000
VECTOR = _rng.standard_normal(COUNT)
MATRIX = _rng.standard_normal((250, 400))
INDICES = _rng.integers(0, COUNT, COUNT)
POSITIONS = np.arange(COUNT)
SQUARE = _rng.standard_normal((250, 250)) / 16
STACKS = _rng.standard_normal((10, 100, 100))


def scatter(x: Any) -> Any:
    y = x * 1.0
    y[INDICES] = x * 2.0
    return np.sum(y * y)


def heat(u: Any) -> Any:
    u = u.copy()
    for _ in range(6):
        u[1:-1] += 0.1 * (u[2:] - 2 * u[1:-1] + u[:-2])
    return np.sum(u**2)


def softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return np.sum((e / np.sum(e, axis=1, keepdims=True)) ** 2)


def deep(x: Any) -> Any:
    for _ in range(40):
        x = np.tanh(x @ SQUARE) + 0.1 * x
    return np.sum(x)


def looking(x: Any) -> Any:
    while np.sum(x * x) > 1000.0:
        x = np.sin(0.7 * x)
    return np.sum(np.exp(x))


LARGE: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "elementwise": (lambda x: np.sum(np.sin(x) * np.exp(-x * x)), VECTOR),
    "float32": (lambda x: np.sum(np.tanh(x) ** 2), VECTOR.astype(np.float32)),
    "backwards": (lambda x: np.sum(np.sin(x[::-1]) * x), VECTOR[::-1]),
    "fortran": (lambda x: np.sum(np.sin(x) * MATRIX), np.asfortranarray(MATRIX)),
    "transposed": (lambda x: np.sum(np.sin(x.T.copy()) * x.reshape(400, 250)), MATRIX),
    "where": (lambda x: np.sum(np.where(x > 0, np.sqrt(np.abs(x)), x)), VECTOR),
    "sums of rows": (lambda x: np.sum(np.sum(np.sin(x), axis=1) ** 2), MATRIX),
    "sums of columns": (lambda x: np.sum(np.sum(np.sin(x), axis=0) ** 2), MATRIX),
    "maxima of columns": (lambda x: np.sum(np.max(x, axis=0) ** 2), MATRIX),
    "std": (lambda x: np.sum(np.std(x, axis=0)), MATRIX),
    "softmax": (softmax, MATRIX),
    "sort": (lambda x: np.sum(np.sort(x) * POSITIONS), VECTOR),
    "sort of columns": (lambda x: np.sum(np.sort(x, axis=0) ** 2), MATRIX),
    "argsort": (lambda x: np.sum(x[np.argsort(x)] * POSITIONS), VECTOR),
    "cumsum": (lambda x: np.sum(np.cumsum(x, axis=0) ** 2), MATRIX),
    "cumprod": (lambda x: np.sum(np.cumprod(1 + 1e-6 * x)), VECTOR),
    "prod": (lambda x: np.prod(1 + 1e-6 * x), VECTOR),
    "gather": (lambda x: np.sum(x[INDICES] ** 2), VECTOR),
    "scatter": (scatter, VECTOR),
    "concatenate": (lambda x: np.sum(np.concatenate([x, 2 * x, np.sin(x)]) ** 3), VECTOR),
    "roll": (lambda x: np.sum(np.roll(x, 7) * np.sin(x)), VECTOR),
    "heat": (heat, VECTOR),
    "outer": (lambda x: np.sum(np.outer(x[:300], x[:400]) ** 2), VECTOR),
    "matrix by vector": (lambda x: np.sum((x @ np.ones(400)) ** 2), MATRIX),
    "matrix by matrix": (lambda x: np.sum(np.tanh(x @ x.T) @ x), MATRIX),
    "batched products": (lambda x: np.sum(np.einsum("bij,bjk->bik", x, x) ** 2), STACKS),
    "deep": (deep, _rng.standard_normal((300, 250))),
    "looking": (looking, VECTOR),
}

# What Python, the tape and the tables of a run may take beside.
BESIDE = 64 << 10


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("policy", ["none", "sqrt"])
def test_the_process_allocates_what_the_plan_says(name: str, policy: str, tmp_path: Path) -> None:
    f, x = LARGE[name]
    gradient = ckad.grad(f, checkpoint=policy)
    plan = ckad.plan(gradient)(x)
    gradient(x)
    # Without an idle arena the run has to ask for all that it needs.
    ckad.memory.release()
    with memray.Tracker(tmp_path / "capture.bin"):
        result = gradient(x)
    with memray.FileReader(tmp_path / "capture.bin") as reader:
        measured = int(reader.metadata.peak_memory)
        large = [r.size for r in reader.get_allocation_records() if r.size >= BESIDE]
    assert plan.peak_bytes - BESIDE < measured < plan.peak_bytes + BESIDE
    block = -(-plan.parts["arena"] // 64) * 64 + plan.parts["scratch"]
    expected = [size for size in (block, result.nbytes) if size >= BESIDE]
    if plan.forced_runs[0] == 0:
        # One block for everything that the run needs at once, the results, nothing else.
        assert sorted(large) == sorted(expected)
        assert plan.peak_bytes == sum(plan.parts.values())
    else:
        # A run that a value forces holds its results beside those of earlier ones.
        assert plan.peak_bytes >= sum(plan.parts.values())
    # The value is a result too.
    assert plan.parts["outputs"] == result.nbytes + result.itemsize


def test_planning_bytes_are_what_planning_takes(tmp_path: Path, policy: str | int) -> None:
    def f(x: Any) -> Any:
        for _ in range(5000):
            x = np.sin(x) * 1.01
        return np.sum(x)

    gradient, x = ckad.grad(f, checkpoint=policy), np.linspace(0.1, 0.9, 8)
    gradient(x)
    plan = ckad.plan(gradient)(x)
    assert ckad.plan(gradient)(x).planning_bytes == plan.planning_bytes > plan.peak_bytes
    ckad.memory.release()
    with memray.Tracker(tmp_path / "capture.bin"):
        gradient(x)
    with memray.FileReader(tmp_path / "capture.bin") as reader:
        measured = int(reader.metadata.peak_memory)
    # What recording leaves beside the graph comes to the rest.
    assert 0.85 * measured < plan.planning_bytes < 1.1 * measured


@pytest.mark.parametrize(
    ("transform", "args"),
    [
        (ckad.grad(lambda a, c: np.sum(a * c)), (np.ones(1000), np.linspace(-1.0, 1.0, 1000))),
        (ckad.grad(lambda a, b: np.sum(np.sin(a + b)), argnums=(0, 1)), (np.ones(1000), np.ones(1000))),
        (ckad.value_and_grad(lambda x: (np.sum(np.tanh(x)), x), has_aux=True), (np.ones(1000),)),
        (ckad.value_and_grad(lambda a, x: (a * a, (x, x)), has_aux=True), (1.0, np.ones(1000))),
    ],
    ids=["an argument", "one value twice", "an argument as aux", "an argument as aux twice"],
)
def test_outputs_that_are_copies_are_live_bytes(transform: Any, args: tuple[Any, ...]) -> None:
    plan, report = ckad.plan(transform)(*args), ckad.memory.profile(transform, *args)
    assert report.executor_bytes == report.planned_bytes == plan.live_bytes >= 8000


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_separate_buffers_of_a_profile_give_the_same_bits(name: str, policy: str | int) -> None:
    # They are poisoned before and after their lives: a value that is read too late or too early would show.
    f, args = PROGRAMS[name]
    gradient = ckad.grad(f, checkpoint=policy)
    expected = optree.tree_leaves(gradient(*args))
    report = ckad.memory.profile(gradient, *args)
    assert [g.tobytes() for g in optree.tree_leaves(report.result)] == [g.tobytes() for g in expected]
    assert report.executor_bytes == report.planned_bytes


@pytest.mark.limit_memory("40 MB")
def test_sqrt_keeps_a_deep_gradient_in_little_memory() -> None:
    # 128 values of 1 MB each, of which 'none' would keep all.
    x, w = np.full((512, 256), 0.1), np.eye(256)

    def f(x: Any) -> Any:
        for _ in range(128):
            x = np.tanh(x @ w)
        return np.sum(x)

    ckad.grad(f, checkpoint="sqrt")(x)
