"""Pullbacks, linear functions and Jacobians under policies and limits: fewer bytes, the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import memray
import numpy as np
import optree
import pytest

import ckad

POLICIES = ["none", "auto", "sqrt", "log", 4, ckad.Revolve(3), ckad.Mixed(3), ckad.Offload(min_bytes=1)]

WEIGHTS = [np.random.default_rng(index).standard_normal((8, 8)) / 3 for index in range(12)]

POINT = np.random.default_rng(5).uniform(0.2, 0.9, (6, 8))


def net(x: Any) -> Any:
    for w in WEIGHTS:
        x = np.tanh(x @ w) + 0.5 * x
    return x


def marked(x: Any) -> Any:
    half = ckad.checkpoint(lambda x: np.sin(np.exp(x) @ WEIGHTS[0]))
    return half(half(x)) * x


def saved(x: Any) -> Any:
    for w in WEIGHTS:
        x = ckad.save(np.tanh(x @ w))
    return x


def in_place(x: Any) -> Any:
    u = x.copy()
    for _ in range(20):
        u[1:-1] += 0.1 * (u[:-2] - 2.0 * u[1:-1] + u[2:]) * np.sin(u[1:-1])
    return u


def scanned(x: Any) -> Any:
    last, all_of = ckad.scan(lambda u, w: (np.tanh(u @ w), np.sum(u)), x, np.stack(WEIGHTS))
    return last, all_of


def looped(x: Any) -> Any:
    return ckad.while_loop(lambda u: np.sum(u) > 1.0, lambda u: 0.8 * u * np.cos(u), x)


def branched(x: Any) -> Any:
    return ckad.cond(np.sum(x) > 0.0, lambda x: np.sin(x) * x, lambda x: x, x)


def dropped_out(x: Any) -> Any:
    for key in ckad.random.split(ckad.random.key(3), 5):
        x = np.tanh(x) * ckad.random.bernoulli(key, 0.7, x.shape)
    return x


@ckad.custom_vjp
def clipped(x: Any) -> Any:
    return np.sin(x) * x


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (np.clip(g, -0.5, 0.5) * np.cos(x),))


def with_rule(x: Any) -> Any:
    for _ in range(6):
        x = clipped(x) + 0.1 * x
    return x


def several(x: Any) -> Any:
    """An argument as it is, a constant, integers, what does not depend on the argument, one value twice."""
    y = np.exp(-x) * np.sin(x)
    return x, np.ones(3), np.argmax(y), y, y


def linear(x: Any) -> Any:
    return x @ WEIGHTS[0]


def gradient(x: Any) -> Any:
    return ckad.grad(lambda x: np.sum(net(x) ** 2))(x)


PROGRAMS = [
    net,
    marked,
    saved,
    in_place,
    scanned,
    looped,
    branched,
    dropped_out,
    several,
    linear,
    gradient,
    with_rule,
]


def bits(values: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in ckad.tree.flatten(values)[0]]


def like(values: Any) -> Any:
    """Cotangents for a function's values."""
    rng = np.random.default_rng(7)
    return optree.tree_map(lambda leaf: rng.standard_normal(np.shape(leaf)), values)


def check_every_policy(transform: Any, program: Callable[[Any], Any], at: Any) -> None:
    """The function's values and two calls of the linear function, whose argument has changed since."""
    expected = None
    for policy in POLICIES:
        point = POINT.copy()
        found, function = transform(program, point, checkpoint=policy)
        point[:] = np.nan
        results = (found, function(at), function(at))
        expected = expected or bits(results)
        assert bits(results) == expected, policy


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_every_policy_gives_the_same_pullback(program: Callable[[Any], Any]) -> None:
    check_every_policy(ckad.vjp, program, like(program(POINT)))


@pytest.mark.parametrize("program", [one for one in PROGRAMS if one is not with_rule], ids=lambda one: one.__name__)
def test_every_policy_gives_the_same_linear_function(program: Callable[[Any], Any]) -> None:
    check_every_policy(ckad.linearize, program, like(POINT))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("program", [net, marked, in_place, dropped_out])
def test_every_policy_gives_the_same_jacobian(program: Callable[[Any], Any], mode: Any) -> None:
    rows = lambda x: np.sum(program(x), axis=0)
    expected = ckad.jacobian(rows, mode=mode)(POINT)
    for policy in POLICIES:
        found = ckad.jacobian(rows, mode=mode, checkpoint=policy)(POINT)
        np.testing.assert_array_equal(found, expected)


def least_limit(program: Callable[[Any], Any]) -> int:
    """The least limit of a call: of the last of its runs, where the function has others first."""
    least = 1
    for _ in range(3):
        try:
            ckad.vjp(program, POINT, memory_limit=least)
        except ckad.errors.MemoryLimitError as refused:
            least = refused.minimum
    return least


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_least_limit_of_a_pullback_is_kept(program: Callable[[Any], Any]) -> None:
    least = least_limit(program)
    values, pullback = ckad.vjp(program, POINT, memory_limit=least)
    expected, expected_pullback = ckad.vjp(program, POINT)
    cotangents = like(values)
    assert bits((values, pullback(cotangents))) == bits((expected, expected_pullback(cotangents)))
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.vjp(program, POINT, memory_limit=least - 1)
    assert refused.value.minimum == least


def peak_of_pullback(program: Any, point: Any, policy: Any, folder: Path) -> int:
    """The most bytes that a function's value and a pullback hold at once, as memray sees them."""
    ckad.memory.release()
    path = folder / f"{policy}.bin"
    with memray.Tracker(path):
        pullback = ckad.vjp(program, point, checkpoint=policy)[1]
        pullback(point)
    with memray.FileReader(path) as reader:
        return reader.metadata.peak_memory


def deep(x: Any) -> Any:
    for _ in range(48):
        x = np.tanh(x @ WEIGHTS[0])
    return x


def deep_marked(x: Any) -> Any:
    part = ckad.checkpoint(lambda x: np.tanh(np.tanh(np.tanh(np.tanh(x @ WEIGHTS[0]) @ WEIGHTS[1]))))
    for _ in range(12):
        x = part(x)
    return x


def deep_scan(x: Any) -> Any:
    return ckad.scan(lambda x, _: (np.tanh(x), None), x, None, 100)[0]


@pytest.mark.parametrize(
    ("program", "policy", "most"),
    [
        (deep, "sqrt", 20),
        (deep, ckad.Revolve(4), 16),
        (deep_marked, "none", 20),
        (deep_scan, "sqrt", 20),
        (deep_scan, ckad.Revolve(3), 10),
    ],
)
def test_pullbacks_hold_what_their_policy_keeps(program: Any, policy: Any, most: int, tmp_path: Path) -> None:
    point = np.linspace(0.0, 1.0, 8 * 20_000).reshape(-1, 8)

    def arrays(policy: Any) -> float:
        return peak_of_pullback(program, point, policy, tmp_path) / point.nbytes

    assert arrays(policy) <= most
    if program is not deep_marked:
        assert arrays("auto") >= 2 * most


def test_a_jacobian_grows_like_a_root() -> None:
    def rows(steps: int) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            for _ in range(steps):
                x = x + 0.1 * np.sin(x)
            return np.sum(np.reshape(x, (4, -1)), axis=1)

        return f

    x = np.ones(20_000)
    make = lambda steps, policy: ckad.plan(ckad.jacobian(rows(steps), mode="reverse", checkpoint=policy))(x)
    few, many = make(50, "sqrt"), make(200, "sqrt")
    assert many.parts["arena"] <= 2.2 * few.parts["arena"]
    assert many.peak_bytes < make(200, "none").peak_bytes / 4


def test_forward_mode_holds_no_values_between_columns() -> None:
    rows = np.linspace(0.0, 1.0, 4000).reshape(-1, 1)
    means = lambda x: np.mean(deep(rows * x), axis=0)
    make = lambda policy: ckad.plan(ckad.jacobian(means, mode="forward", checkpoint=policy))(np.ones(8))
    assert make("sqrt").peak_bytes < make("none").peak_bytes / 5


def test_captured_arrays_are_not_copied_in_place_of_fewer_values(tmp_path: Path) -> None:
    captured = [np.random.default_rng(index).uniform(size=(20, 20_000)) for index in range(12)]

    def program(x: Any) -> Any:
        for array in captured:
            x = np.sin(np.mean(x + array, axis=0))
        return x

    point = np.linspace(0.0, 1.0, 20_000)
    none, sqrt = (peak_of_pullback(program, point, policy, tmp_path) for policy in ("none", "sqrt"))
    assert sqrt <= 1.01 * none


def test_what_lies_outside_of_a_region_is_not_computed_again() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 64)) / 8

    def program(part: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            for _ in range(10):
                x = np.tanh(x @ weights)
            return np.sum(part(x), axis=1)[:8]

        return f

    cheap = lambda x: np.sin(np.exp(np.tanh(x)))
    x = np.random.default_rng(1).standard_normal((200, 64))
    plain, marked = (
        ckad.plan(ckad.jacobian(program(part), mode="reverse"))(x) for part in (cheap, ckad.checkpoint(cheap))
    )
    assert marked.peak_bytes < plain.peak_bytes
    assert marked.flops < 1.02 * plain.flops


def test_a_value_and_a_pullback_compute_the_function_three_times() -> None:
    loss = lambda x: np.sum(deep(x) ** 2)
    x = np.linspace(0.0, 1.0, 8 * 2000).reshape(-1, 8)
    gradient = ckad.plan(ckad.grad(loss, checkpoint="sqrt"))(x)
    row = ckad.plan(ckad.jacobian(loss, mode="reverse", checkpoint="sqrt"))(x)
    assert row.flops - gradient.flops == pytest.approx(gradient.forward_flops, rel=0.02)
    assert row.extra_flops - gradient.extra_flops == pytest.approx(gradient.forward_flops, rel=0.02)


def test_points_of_a_jacobians_frontier_are_taken() -> None:
    rows = lambda x: np.sum(np.reshape(deep(x), (2, -1)), axis=1)
    x = np.linspace(0.0, 1.0, 8 * 2000).reshape(-1, 8)
    make = lambda **options: ckad.plan(ckad.jacobian(rows, mode="reverse", **options))(x)
    points = ckad.memory_frontier(ckad.jacobian(rows, mode="reverse"))(x)
    for point in [*points[::9], points[-1]]:
        taken = make(memory_limit=point.peak_bytes)
        assert taken.peak_bytes <= point.peak_bytes
        assert taken.extra_flops == point.extra_flops


def test_a_larger_limit_refuses_nothing_that_a_smaller_one_had_room_for() -> None:
    other = np.random.default_rng(0).standard_normal((4000, 8))

    def f(x: Any) -> Any:
        pullback = ckad.vjp(deep, other)[1]
        z = np.sin(x)
        for _ in range(6):
            z = np.exp(np.sin(z))
        return np.sum(z) * float(np.sum(pullback(other)[0]))

    def is_kept(limit: int) -> bool:
        try:
            ckad.grad(f, memory_limit=limit)(np.ones(100_000))
        except ckad.errors.MemoryLimitError:
            return False
        return True

    kept = [is_kept(limit) for limit in range(1 << 20, 20 << 20, 1 << 19)]
    assert kept == sorted(kept)
    assert not kept[0]
    assert kept[-1]


def test_a_raising_policy_is_asked_once() -> None:
    class Raising:
        calls = 0

        def choose(self, clusters: Any) -> Any:
            self.calls += 1
            raise RuntimeError(f"call {self.calls}")

    with pytest.raises(RuntimeError, match="call 1"):
        ckad.vjp(deep, POINT, checkpoint=Raising())


def test_copies_of_captured_arrays_count_within_a_limit(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).uniform(size=(300, 300)) / 300
    x = np.ones((100, 300))
    product = lambda x: x @ weight
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.vjp(product, x, memory_limit=1)
    least = refused.value.minimum
    # The first call makes what threads need.
    ckad.vjp(product, x)
    ckad.memory.release()
    with memray.Tracker(tmp_path / "product.bin"):
        values, pullback = ckad.vjp(product, x, memory_limit=least)
    with memray.FileReader(tmp_path / "product.bin") as reader:
        # Python's objects come on top.
        assert reader.metadata.peak_memory <= least + (64 << 10)
    expected = values @ weight.T
    weight[:] = np.nan
    np.testing.assert_allclose(pullback(values)[0], expected, rtol=1e-13)


def test_a_policy_holds_for_linear_functions_inside_of_a_limit() -> None:
    x = np.linspace(0.1, 1.0, 8 * 4000).reshape(-1, 8)

    def f(y: Any) -> Any:
        rows = ckad.jacobian(lambda z: np.ravel(deep(z))[:3], mode="reverse", checkpoint="sqrt")(x)
        return np.sum(rows * y)

    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.plan(ckad.grad(f, memory_limit=1))(x)
    least = refused.value.minimum
    ckad.grad(f, memory_limit=least)(x)
    with pytest.raises(ckad.errors.MemoryLimitError):
        ckad.grad(f, memory_limit=least - 1)(x)


def test_jacobians_of_python_numbers() -> None:
    assert ckad.jacobian(lambda x: x * 3.0)(1.0) == 3.0
    for mode in ("forward", "reverse"):
        of_array, of_number = ckad.jacobian(lambda x, y: y * 2.0, (0, 1), mode=mode)(np.ones((3, 2)), 1.0)
        np.testing.assert_array_equal(of_array, np.zeros((3, 2)))
        assert of_number == 2.0
