"""`memory_limit=` where a call has several runs: forced ones, linear functions, gradients of a training loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import MemoryLimitError

STATE = np.linspace(0.1, 1.0, 20_000)
WEIGHTS = [np.random.default_rng(seed).standard_normal((32, 32)) / 6 for seed in range(8)]
BATCH = np.random.default_rng(9).standard_normal((256, 32))


def growing(x: Any) -> Any:
    """Each run needs more than the one before."""
    y = x
    for size in range(5):
        z = y
        for _ in range(2 * size + 1):
            z = np.tanh(z * 1.1)
        y = np.concatenate([y, z])
        if np.sum(y) > 1e9:
            return np.sum(y)
    return np.sum(y * y)


def keeping(x: Any) -> Any:
    """What earlier runs computed is held beside the later ones."""
    kept = []
    for _ in range(8):
        x = np.sin(x) * 1.1
        kept.append(np.cos(x))
        if np.max(x) > 5.0:
            x = x * 0.5
    return np.sum(x) + sum(np.sum(k * k) for k in kept)


def first_largest(x: Any) -> Any:
    """The first run needs most."""
    y = np.concatenate([x] * 8)
    if np.sum(np.tanh(y) * np.sin(y)) > 1e9:
        return np.sum(y)
    return np.sum(x * x)


def loop(x: Any) -> Any:
    for _ in range(30):
        x = np.sin(x) + 0.1 * x
    return x


def net(weights: Any, x: Any) -> Any:
    for w in weights:
        x = np.tanh(x @ w)
    return np.mean(x**2)


def trained(rate: Any, steps: int = 4) -> Any:
    weights = WEIGHTS
    for _ in range(steps):
        gradients = ckad.grad(net)(weights, BATCH)
        weights = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
    return net(weights, BATCH)


def climbed(call: Callable[[int], Any]) -> tuple[int, Any]:
    """The limit at which the call succeeds, by the limits that its errors name; and the result."""
    limits = [1]
    while True:
        try:
            result = call(limits[-1])
        except MemoryLimitError as error:
            limits.append(error.minimum)
        else:
            assert all(low < high for low, high in itertools.pairwise(limits))
            return limits[-1], result


@pytest.mark.parametrize("f", [growing, keeping, first_largest])
def test_the_least_limit_of_all_runs_is_known_from_a_plan(f: Callable[[Any], Any]) -> None:
    with pytest.raises(MemoryLimitError) as refused:
        ckad.plan(f, memory_limit=1)(STATE)
    least = refused.value.minimum
    assert refused.value.lines[0][0].startswith(__file__)
    np.testing.assert_array_equal(ckad.grad(f, memory_limit=least)(STATE), ckad.grad(f)(STATE))
    for call in (ckad.grad(f, memory_limit=least - 1), ckad.plan(f, memory_limit=least - 1)):
        with pytest.raises(MemoryLimitError) as refused:
            call(STATE)
    # The error of a plan names the same from any limit below.
    assert refused.value.minimum == least
    plan = ckad.plan(f, memory_limit=least)(STATE)
    assert plan.peak_bytes <= least
    # Call by call, each error names more, and no less than that is enough.
    assert climbed(lambda limit: ckad.grad(f, memory_limit=limit)(STATE))[0] == least


def test_linear_functions_inside_keep_to_the_limit() -> None:
    _, forward = ckad.linearize(loop, STATE)
    _, pull = ckad.vjp(loop, STATE)
    ones = np.ones_like(STATE)

    def on_traced(x: Any) -> Any:
        return np.sum(forward(x * 2.0) ** 2) + np.sum(pull(np.cos(x))[0] ** 2)

    def made_inside(x: Any) -> Any:
        y, line = ckad.linearize(loop, x)
        _, back = ckad.vjp(loop, y)
        return np.sum(line(x) ** 2) + np.sum(back(np.cos(x))[0] ** 2)

    def at_once(x: Any) -> Any:
        return np.sum(x * pull(ones)[0]) + np.sum(x * forward(ones))

    for f in (on_traced, made_inside, at_once):
        least, gradient = climbed(lambda limit, f=f: ckad.grad(f, memory_limit=limit)(STATE))
        np.testing.assert_array_equal(gradient, ckad.grad(f)(STATE))
        with pytest.raises(MemoryLimitError) as refused:
            ckad.grad(f, memory_limit=least - 1)(STATE)
        assert refused.value.minimum == least
    # A run of the linear function itself: three arrays at least.
    with pytest.raises(MemoryLimitError):
        ckad.grad(lambda x: np.sum(x[:10] * pull(ones)[0][:10]), memory_limit=STATE.nbytes)(STATE[:100])


def test_a_jitted_function_inside_keeps_to_the_limit() -> None:
    jitted = ckad.jit(lambda x: np.sum(np.tanh(loop(x)) ** 2))
    jitted(STATE)

    def f(x: Any) -> Any:
        return np.sum(x) * jitted(STATE)

    least, gradient = climbed(lambda limit: ckad.grad(f, memory_limit=limit)(np.ones(4)))
    np.testing.assert_array_equal(gradient, ckad.grad(f)(np.ones(4)))
    with pytest.raises(MemoryLimitError) as refused:
        ckad.grad(f, memory_limit=least - 1)(np.ones(4))
    assert refused.value.minimum == least


def test_a_training_loop_keeps_to_a_limit() -> None:
    expected = ckad.grad(trained)(0.1)
    none = ckad.plan(trained, checkpoint="none")(0.1)
    sqrt = ckad.plan(trained, checkpoint="sqrt")(0.1)
    assert sqrt.live_bytes < 0.6 * none.live_bytes
    assert ckad.grad(trained, checkpoint="sqrt")(0.1) == expected
    least, found = climbed(lambda limit: ckad.grad(trained, memory_limit=limit)(0.1))
    assert found == expected
    assert least <= sqrt.peak_bytes
    for limit in (least, (least + none.peak_bytes) // 2):
        plan = ckad.plan(trained, memory_limit=limit)(0.1)
        assert plan.peak_bytes <= limit
        assert ckad.grad(trained, memory_limit=limit)(0.1) == expected
    with pytest.raises(MemoryLimitError) as refused:
        ckad.grad(trained, memory_limit=least - 1)(0.1)
    assert refused.value.minimum == least
    # More steps: states are kept, not all that each step computes.
    peaks = [ckad.plan(lambda rate, n=n: trained(rate, n), checkpoint="sqrt")(0.1).live_bytes for n in (4, 16)]
    nones = [ckad.plan(lambda rate, n=n: trained(rate, n), checkpoint="none")(0.1).live_bytes for n in (4, 16)]
    assert peaks[1] < 2.2 * peaks[0] < nones[1]


def in_place(u: Any, steps: int) -> Any:
    u = u.copy()
    for _ in range(steps):
        u[1:-1] += 0.1 * (u[:-2] - 2.0 * u[1:-1] + u[2:]) * u[1:-1]
    return np.sum(u * u)


def test_a_thousand_steps_in_place_keep_some_tens_of_states() -> None:
    u = np.linspace(0.0, 1.0, 4000)
    sqrt, none = (ckad.plan(lambda u: in_place(u, 1000), checkpoint=policy)(u) for policy in ("sqrt", "none"))
    assert sqrt.live_bytes <= 70 * u.nbytes
    assert none.live_bytes > 900 * u.nbytes
    assert sqrt.extra_flops <= 0.5 * none.flops
    gradients = [ckad.grad(lambda u: in_place(u, 1000), checkpoint=policy)(u) for policy in ("sqrt", "none")]
    assert gradients[0].tobytes() == gradients[1].tobytes()
    limit = 100 * u.nbytes + (8 << 20)
    assert ckad.plan(lambda u: in_place(u, 1000), memory_limit=limit)(u).peak_bytes <= limit
