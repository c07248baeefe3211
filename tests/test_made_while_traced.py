"""Plans list arrays that the function made while it was traced, and say how to draw them so that nothing is held."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import ckad
from ckad import random

N = 20_000
DATA = np.linspace(0, 1, N)
rng = np.random.default_rng(0)


def made(f: Any, *args: Any) -> dict[int, int]:
    """Line (from the function's first) → bytes."""
    first = inspect.getsourcelines(f)[1]
    text = str(ckad.plan(ckad.grad(f))(*args))
    _, _, table = text.partition("\nmade while traced")
    assert ("Hint: ckad.random" in table) == bool(table)
    rows = re.findall(r"test_made_while_traced\.py:(\d+) +([\d,]+) B", table)
    return {int(line) - first: int(size.replace(",", "")) for line, size in rows}


def test_arrays_drawn_from_a_generator_are_listed_by_line() -> None:
    def f(x: Any) -> Any:
        noise = rng.normal(size=x.shape)
        mask = np.random.rand(N) < 0.5  # noqa: NPY002
        y = x * noise
        z = np.where(mask, y, 0) * rng.random(10)[:1]
        return np.sum(z)

    assert made(f, np.ones(N)) == {3: 8 * N, 4: N + 8}
    assert made(f, np.ones(N)) == {3: 8 * N, 4: N + 8}


def test_draws_in_nested_transforms_and_regions_are_listed() -> None:
    def f(x: Any) -> Any:
        y = ckad.checkpoint(lambda x: np.sin(x) * rng.random(N))(x)
        g = ckad.grad(lambda y: np.sum(y * y * rng.random(N)))(y)
        return np.sum(g)

    assert made(f, np.ones(N)) == {1: 8 * N, 2: 8 * N}


def test_what_was_there_before_is_not_listed() -> None:
    kept: list[Any] = []
    layer = ckad.nn.Linear(1, 1, rng=0)
    drawn = rng.random(N)

    def f(x: Any, scale: Any) -> Any:
        view, local = DATA[:], drawn
        kept.append(rng.random(N))
        y = x * view * local[::-1] * scale[0] * np.sum(scale[1]["a"]) * kept[-1]
        return np.sum(layer(y[:, None])) + np.sum(x * DATA) + 0.5 * np.sum(np.zeros(0) * x[:0])

    assert made(f, np.ones(N), [np.ones(N), {"a": DATA}]) == {}


def test_ckad_random_makes_no_constants() -> None:
    def f(x: Any, key: Any) -> Any:
        return np.sum(x * random.normal(key, x.shape) * random.uniform(random.key(3), x.shape))

    assert made(f, np.ones(N), random.key(0)) == {}
    parts = ckad.plan(ckad.grad(f))(np.ones(N), random.key(0)).parts
    assert parts["constants"] <= 64


def test_an_error_on_the_way_leaves_nothing_behind() -> None:
    def failing(x: Any) -> Any:
        np.sum(x * rng.random(N))
        ckad.grad(lambda y: np.sum(y * rng.random(N)))(x)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        ckad.plan(ckad.grad(failing))(np.ones(N))
    assert made(lambda x: np.sum(x * DATA), np.ones(N)) == {}
