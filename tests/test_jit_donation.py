"""`ckad.jit` with arguments that are given up: results over their memory."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jitted import assert_equal_bits

import ckad
from ckad.errors import CkadIndexError, CkadValueError
from ckad.tree import flatten

# Donation -----------------------------------------------------------------------------------------------------------


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def adam_problem(layers: int = 6, width: int = 128) -> tuple[Any, Any, Any, Callable[..., Any]]:
    rng = np.random.default_rng(0)
    shapes = [(width, width)] * layers
    params = [(rng.standard_normal(s).astype(np.float32) / 8, np.zeros(s[1], np.float32)) for s in shapes]
    x = rng.standard_normal((256, width)).astype(np.float32)
    init, update = ckad.optim.adam(1e-3)

    def loss(params: Any, x: Any) -> Any:
        for w, b in params:
            x = np.tanh(x @ w + b)
        return np.mean(x * x)

    gradient = ckad.value_and_grad(loss, checkpoint="sqrt")

    def step(params: Any, state: Any, x: Any) -> Any:
        value, grads = gradient(params, x)
        params, state = update(grads, state, params)
        return value, params, state

    return params, init(params), x, step


def copied(tree: Any) -> Any:
    return ckad.tree.map_leaves(np.copy, tree)


def test_a_donated_training_step() -> None:
    params, state, x, step = adam_problem()
    jitted = ckad.jit(step, donate_argnums=(0, 1))
    ours = copied(params), copied(state) | {"step": 0}
    theirs = params, state
    places = {address(leaf) for leaf in flatten(ours)[0] if np.ndim(leaf) == 2}
    for _ in range(4):
        value, *ours = jitted(*ours, x)
        expected, *theirs = step(*theirs, x)
        assert value == expected
    assert_equal_bits(tuple(ours), tuple(theirs))
    now = [address(leaf) for leaf in flatten(ours)[0] if np.ndim(leaf) == 2]
    assert len(places & set(now)) >= len(now) - 1


def test_the_plan_counts_donation() -> None:
    params, state, x, step = adam_problem(16)
    held = sum(leaf.nbytes for leaf in flatten((params, state))[0] if isinstance(leaf, np.ndarray))
    kept = ckad.plan(ckad.jit(step))(params, state, x)
    given = ckad.plan(ckad.jit(step, donate_argnums=(0, 1)))(params, state, x)
    assert kept.parts["outputs"] >= held
    assert given.parts["outputs"] <= 0.03 * held
    assert given.parts["arena"] == kept.parts["arena"]
    # Planned only: nothing was used up.
    assert params[0][0].dtype == np.float32


def test_donated_arrays_are_unusable() -> None:
    f = ckad.jit(lambda x, y: x * 2 + y, donate_argnums=0)
    x, y = np.ones(100_000), np.ones(100_000)
    place = address(x)
    result = f(x, y)
    assert address(result) == place
    assert result[0] == 3.0
    for use in (
        lambda: x + 1,
        lambda: np.sin(x),
        lambda: x.sum(),
        lambda: float(x[0]),
        lambda: f(x, y),
        lambda: ckad.grad(np.sum)(x),
        lambda: x.__setitem__(0, 1.0),
    ):
        with pytest.raises((TypeError, ValueError)):
            use()
    assert "donated_to_ckad_jit" in repr(x.dtype)
    gc.collect()
    assert result[999] == 3.0
    again = f(result, y)
    assert address(again) == place
    assert again[999] == 7.0


def test_what_cannot_be_donated() -> None:
    f = ckad.jit(lambda x, y: x * 2 + y, donate_argnums=0)
    base, other = np.ones((10, 100)), np.ones((10, 100))
    read_only = np.ones((10, 100))
    read_only.flags.writeable = False
    captured = np.ones((10, 100))
    result = f(np.ones((10, 100)), other)
    for array, y, what in [
        (base[:5], other[:5], "view of memory"),
        (base, base, "shares memory"),
        (base, base[::-1], "shares memory"),
        (read_only, other, "read-only"),
        (result[:], other, "view of memory"),
        (np.broadcast_to(1.0, (10, 100)), other, "read-only"),
    ]:
        with pytest.raises(CkadValueError, match=what):
            f(array, y)
    large = np.ones((100, 200))
    g = ckad.jit(lambda x: x * large, donate_argnums=0)
    with pytest.raises(CkadValueError, match="shares memory"):
        g(large)
    assert base[0, 0] == result[0, 0] / 3 == captured[0, 0] == large[0, 0] == 1.0
    with pytest.raises(CkadValueError, match="static_argnums and in donate_argnums"):
        ckad.jit(lambda x: x, static_argnums=0, donate_argnums=0)


def test_a_failed_call_gives_nothing_up() -> None:
    def f(x: Any, i: Any) -> Any:
        picked = x[i]
        return x * 2 + picked

    jitted = ckad.jit(f, donate_argnums=0)
    x = np.ones(1000)
    with pytest.raises(CkadIndexError):
        jitted(x, 5000)
    assert x[0] == 1.0
    assert jitted(x, 5)[0] == 3.0


def test_threads_cannot_give_up_the_same_array() -> None:
    f = ckad.jit(lambda x: x * 2.0, donate_argnums=0)
    f(np.ones(200_000))
    for _ in range(20):
        x = np.ones(200_000)
        found: list[float] = []

        def give_up(x: Any = x, found: list[float] = found) -> None:
            with contextlib.suppress(TypeError, ValueError):
                found.append(float(f(x)[0]))

        threads = [threading.Thread(target=give_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [2.0]


def test_donation_inside_another_transform_is_no_donation() -> None:
    f = ckad.jit(lambda x: x * x, donate_argnums=0)
    x = np.ones(1000)
    assert ckad.grad(lambda x: np.sum(f(x)))(x)[0] == 2.0
    assert x[0] == 1.0


@pytest.mark.parametrize("seed", range(30))
def test_donation_changes_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, n = 4, int(rng.choice([40, 3000, 70000]))
    shape = (n,) if rng.random() < 0.5 else (n // 10, 10)
    choices = rng.integers(0, 9, 14)
    picks = rng.integers(0, 1 << 30, (14, 2))

    def program(values: Any) -> Any:
        values = list(values)
        for choice, (i, j) in zip(choices, picks, strict=True):
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(
                [
                    lambda a, b: a + b,
                    lambda a, b: a * b,
                    lambda a, b: np.tanh(a) - b,
                    lambda a, b: a[::-1] * 0.5,
                    lambda a, b: np.roll(a, 3, axis=0) + b,
                    lambda a, b: a - np.mean(b),
                    lambda a, b: a * np.sum(b, axis=-1, keepdims=True),
                    lambda a, b: np.cumsum(a, axis=0) * 1e-3,
                    lambda a, b: np.where(a > b, a, b),
                ][choice](a, b)
            )
        order = picks[:, 0] % len(values)
        return [values[k] for k in order[:5]] + [np.sum(values[-1]), values[0], values[1]]

    arrays = [rng.standard_normal(shape) for _ in range(count)]
    kept = ckad.jit(program)(arrays)
    given = ckad.jit(program, donate_argnums=0)(copied(arrays))
    assert_equal_bits(given, kept)


def test_arrays_that_a_trace_around_reads_are_compared_and_not_donated() -> None:
    a = np.ones(100_000)
    g = ckad.jit(lambda x: np.sum(x * (a * 2.0)))

    def outer(x: Any) -> Any:
        return np.sum(x * a) + g(x)

    assert ckad.value_and_grad(outer)(1.0)[1] == 300_000
    a[:] = 2.0
    assert ckad.value_and_grad(outer)(1.0)[1] == 600_000

    step = ckad.jit(lambda y, i: y[i] + y * 2.0, donate_argnums=0)

    def donating(x: Any) -> Any:
        y = np.sum(x * a)
        with pytest.raises(CkadValueError, match="still to be read"):
            step(a, 0)
        with pytest.raises(CkadValueError, match="still to be read"):
            step(a, 200_000)
        assert not a.flags.writeable
        return y

    assert ckad.grad(donating)(1.0) == 200_000
    assert a.flags.writeable


def test_memory_of_others_is_not_donated() -> None:
    buffer = bytearray(80_000)
    f = ckad.jit(lambda x: x + 1.0, donate_argnums=0)
    for array in (np.frombuffer(buffer), np.frombuffer(buffer).reshape(100, 100)):
        with pytest.raises(CkadValueError, match="belongs to something else"):
            f(array)
    with pytest.raises(CkadValueError, match="byte order"):
        f(np.ones(1000, ">f8"))
    assert bytes(buffer) == bytes(80_000)
    assert f(np.ones(10_000).reshape(100, 100))[0, 0] == 2.0
