"""Second derivatives under 'sqrt' of programs four times as deep: memory grows like a root, work is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.transforms.recording import mark_transform

Made = tuple[Callable[[Any], Any], Any]


def deep(depth: int) -> Made:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((16, 16)) / 4 for _ in range(depth)]
    x = rng.standard_normal((512, 16))

    def f(weights: Any) -> Any:
        h = x
        for w in weights:
            h = np.tanh(h @ w)
        return np.mean(h**2)

    return f, weights


def recurrent(steps: int) -> Made:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 16))

    def f(w: Any) -> Any:
        h = x
        for _ in range(steps):
            h = np.tanh(h @ w)
        return np.mean(h * h)

    return f, rng.standard_normal((16, 16)) / 4


def lstm(steps: int) -> Made:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((8, 128, 16))

    def f(weights: Any) -> Any:
        h = c = np.zeros((128, 16))
        for t in range(steps):
            z = inputs[t % 8] @ weights[0] + h @ weights[1]
            i, g, o = (1.0 / (1.0 + np.exp(-z[:, 16 * k : 16 * k + 16])) for k in range(3))
            c = g * c + i * np.tanh(z[:, 48:])
            h = o * np.tanh(c)
        return np.mean(h * h)

    return f, [rng.standard_normal((16, 64)) / 4 for _ in range(2)]


def heat(steps: int) -> Made:
    def f(u: Any) -> Any:
        for _ in range(steps):
            flow = (u[:-2] - 2.0 * u[1:-1] + u[2:]) * u[1:-1] ** 2
            u = u + 0.1 * np.concatenate([u[:1] * 0.0, flow, u[-1:] * 0.0])
        return np.sum(u * u)

    return f, np.linspace(0.0, 1.0, 4000)


def heat_in_place(steps: int) -> Made:
    def f(u: Any) -> Any:
        u = u.copy()
        for _ in range(steps):
            u[1:-1] += 0.1 * (u[:-2] - 2.0 * u[1:-1] + u[2:]) * u[1:-1] ** 2
        return np.sum(u * u)

    return f, np.linspace(0.0, 1.0, 4000)


def hvp(f: Callable[[Any], Any], checkpoint: str) -> Callable[[Any], Any]:
    return mark_transform(lambda x: ckad.hvp(f, x, x, checkpoint=checkpoint))


def gradient_of_gradient(f: Callable[[Any], Any], checkpoint: str) -> Callable[[Any], Any]:
    def norm(x: Any) -> Any:
        return sum(np.sum(g * g) for g in ckad.tree.flatten(ckad.grad(f)(x))[0])

    return ckad.grad(norm, checkpoint=checkpoint)


def logistic(steps: int) -> Made:
    def f(x: Any) -> Any:
        for _ in range(steps):
            x = 3.5 * x * (1.0 - x)
        return np.sum(x * x)

    return f, np.linspace(0.1, 0.9, 20_000)


def verlet(steps: int) -> Made:
    def f(x: Any) -> Any:
        v = np.zeros_like(x)
        for _ in range(steps):
            v = v - 0.05 * np.sin(x)
            x = x + 0.1 * v
            v = v - 0.05 * np.sin(x)
        return np.sum(x * x + v * v)

    return f, np.linspace(0.1, 0.9, 20_000)


def chosen(steps: int) -> Made:
    def f(x: Any) -> Any:
        for _ in range(steps):
            x = np.where(x > 0.5, x * x, x + 0.1 * np.sin(x))
        return np.sum(x * x)

    return f, np.linspace(0.1, 0.9, 20_000)


def with_mean(steps: int) -> Made:
    def f(x: Any) -> Any:
        for _ in range(steps):
            x = x + 0.1 * np.sin(x) * np.mean(x)
        return np.sum(x * x)

    return f, np.linspace(0.1, 0.9, 20_000)


def pendulum(steps: int) -> Made:
    def f(x: Any) -> Any:
        for _ in range(steps):
            x = x + 0.1 * np.sin(x)
        return np.sum(x * x)

    return f, np.linspace(0.1, 0.9, 20_000)


def exponentials(steps: int) -> Made:
    def f(x: Any) -> Any:
        for _ in range(steps):
            x = np.exp(-x)
        return np.sum(x * x)

    return f, np.linspace(0.1, 0.9, 20_000)


PROGRAMS = [
    # The most extra work of hvp, and of a gradient of a gradient; loops without heavy operations have the larger ones.
    (deep, 24, 0.5, 1.3),
    (recurrent, 30, 0.5, 1.3),
    (lstm, 20, 0.5, 1.3),
    (heat, 80, 0.5, 1.8),
    (heat_in_place, 80, 0.5, 1.8),
    (logistic, 40, 0.8, 1.8),
    (verlet, 40, 0.8, 1.8),
    (chosen, 40, 0.8, 1.8),
    (with_mean, 40, 0.8, 1.8),
    # Nearly all of the work is one sine or exponential a step, which three passes compute again.
    (pendulum, 40, 0.8, 2.0),
    (exponentials, 80, 0.8, 2.2),
]


@pytest.mark.parametrize(
    ("made", "depth", "of_hvp", "of_gradient"), PROGRAMS, ids=[case[0].__name__ for case in PROGRAMS]
)
@pytest.mark.parametrize("derivative", [hvp, gradient_of_gradient])
def test_second_derivatives_grow_like_a_root(
    derivative: Any, made: Any, depth: int, of_hvp: float, of_gradient: float
) -> None:
    held = []
    for size in (depth, 4 * depth):
        f, x = made(size)
        sqrt, none = (ckad.plan(derivative(f, policy))(x) for policy in ("sqrt", "none"))
        assert sqrt.note is None
        assert sqrt.extra_flops <= (of_hvp if derivative is hvp else of_gradient) * none.flops
        held.append((sqrt.live_bytes - sqrt.parts["outputs"], sqrt.parts["arena"]))
    for before, after in zip(*held, strict=True):
        assert after <= 2.2 * before


@pytest.mark.parametrize(
    ("made", "depth"), [case[:2] for case in PROGRAMS], ids=[case[0].__name__ for case in PROGRAMS]
)
def test_a_policy_within_jit_holds_as_little(made: Any, depth: int) -> None:
    f, x = made(4 * depth)
    alone = ckad.plan(hvp(f, "sqrt"))(x)
    within = ckad.plan(ckad.jit(lambda x: ckad.hvp(f, x, x, checkpoint="sqrt")))(x)
    assert within.peak_bytes <= 1.25 * alone.peak_bytes


@pytest.mark.parametrize("policy", ["none", "sqrt"])
@pytest.mark.parametrize("derivative", [hvp, gradient_of_gradient])
def test_a_scan_of_scans_grows_like_a_root_too(derivative: Any, policy: str) -> None:
    def heat(side: int) -> Callable[[Any], Any]:
        def stretch(u: Any, _: Any) -> Any:
            return ckad.scan(lambda u, _: (u + 0.1 * np.sin(u) * u, None), u, None, side)[0], None

        return lambda u: np.sum(ckad.scan(stretch, u, None, side)[0] ** 2)

    few, many = (ckad.plan(derivative(heat(side), policy))(np.ones(4000)) for side in (12, 24))
    assert many.parts["arena"] <= 2.2 * few.parts["arena"]
