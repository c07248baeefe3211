"""What a limit counts beside the arrays of a run: copies of arguments, results of runs before, a whole Jacobian."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import MemoryLimitError

RNG = np.random.default_rng(11)
COUNT = 120_000
VECTOR = RNG.uniform(0.1, 1.0, COUNT)
OTHER = RNG.uniform(0.1, 1.0, COUNT)
LEAVES = [RNG.uniform(0.1, 1.0, 1000) for _ in range(200)]
POINT = RNG.uniform(0.1, 1.0, 400)


def product(x: Any) -> Any:
    return np.sum(np.sin(x) * x)


def unaligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 1, np.uint8)
    found = memory[1:].view(array.dtype)
    found[:] = array
    return found


COPIED: dict[str, Any] = {
    "strided": np.repeat(VECTOR, 2).reshape(-1, 300)[:, ::2],
    "broadcast": np.broadcast_to(VECTOR[:300], (400, 300)),
    "swapped": VECTOR.astype(">f8"),
    "unaligned": unaligned(VECTOR),
}


def minimum(make: Callable[..., Callable[..., Any]], *args: Any) -> int:
    """The least limit of the whole call; it is kept, and a byte less is not."""
    with pytest.raises(MemoryLimitError) as refused:
        ckad.plan(make(memory_limit=1))(*args)
    least = refused.value.minimum
    make(memory_limit=least)(*args)
    plan = ckad.plan(make(memory_limit=least))(*args)
    assert (plan.memory_limit, plan.peak_bytes <= least) == (least, True)
    for call in (make(memory_limit=least - 1), ckad.plan(make(memory_limit=least - 1))):
        with pytest.raises(MemoryLimitError) as refused:
            call(*args)
        assert refused.value.minimum == least
    return least


@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize("jitted", [False, True], ids=["grad", "jit"])
def test_copies_of_arguments_count(name: str, jitted: bool) -> None:
    def make(**options: Any) -> Callable[..., Any]:
        return ckad.jit(ckad.grad(product), **options) if jitted else ckad.grad(product, **options)

    x = COPIED[name]
    packed = np.array(x, np.float64, order="C")
    assert ckad.plan(make())(packed).parts["held"] == 0
    plan = ckad.plan(make())(x)
    assert plan.parts["held"] == packed.nbytes
    assert plan.peak_bytes == sum(plan.parts.values())
    assert re.search(rf"^  held +{packed.nbytes:,} B ", str(plan), re.MULTILINE)
    least = minimum(make, x)
    assert least >= minimum(make, packed) + packed.nbytes
    assert ckad.memory_frontier(make())(x)[0].peak_bytes == least
    np.testing.assert_array_equal(make(memory_limit=least)(x), make()(packed))


def test_one_jitted_function_keeps_to_its_limit_for_any_layout() -> None:
    packed, strided = np.ascontiguousarray(COPIED["strided"]), COPIED["strided"]
    least = minimum(lambda **options: ckad.jit(product, **options), packed)
    limited = ckad.jit(product, memory_limit=least + packed.nbytes - 1)
    limited(packed)
    with pytest.raises(MemoryLimitError) as refused:
        limited(strided)
    assert refused.value.minimum == least + packed.nbytes
    limited(packed)
    limited = ckad.jit(product, memory_limit=least + packed.nbytes)
    assert limited(strided) == limited(packed) == limited(strided)


def test_small_arguments_are_copied_and_count() -> None:
    def total(leaves: list[Any]) -> Any:
        return sum(np.sum(np.sin(leaf)) for leaf in leaves)

    plan = ckad.plan(total)(LEAVES)
    assert plan.parts["held"] == sum(leaf.nbytes for leaf in LEAVES)
    assert minimum(lambda **options: ckad.grad(total, **options), LEAVES) == plan.peak_bytes


def test_directions_are_copied_where_they_must_be() -> None:
    x = np.ascontiguousarray(COPIED["strided"])

    def least(direction: Any) -> int:
        with pytest.raises(MemoryLimitError) as refused:
            ckad.jvp(product, (x,), (direction,), memory_limit=1)
        ckad.jvp(product, (x,), (direction,), memory_limit=refused.value.minimum)
        with pytest.raises(MemoryLimitError):
            ckad.jvp(product, (x,), (direction,), memory_limit=refused.value.minimum - 1)
        return refused.value.minimum

    assert least(COPIED["strided"]) == least(x) + x.nbytes

    # Of a linear function each time that it is applied: its run alone needs a result, and here a copy.
    def linear(limit: Any) -> Any:
        return ckad.linearize(lambda x: np.concatenate([x] * 3) * 2.0, x[:100], memory_limit=limit)[1]

    strided = COPIED["strided"][:100]
    with pytest.raises(MemoryLimitError) as refused:
        linear(1)
    tight, wide = linear(refused.value.minimum), linear("1GB")
    np.testing.assert_array_equal(tight(x[:100]), wide(strided))
    with pytest.raises(MemoryLimitError):
        tight(strided)


@pytest.mark.parametrize("size", [10, 50_000])
def test_directions_may_change_while_a_trace_records(size: int) -> None:
    x = np.ones(size)

    def pulled(x: Any) -> Any:
        cotangent = np.ones(size)
        result = ckad.vjp(lambda z: z * z, x)[1](cotangent)[0]
        cotangent[:] = 0.0
        return np.sum(result)

    def pushed(x: Any) -> Any:
        tangent = np.ones(size)
        result = ckad.jvp(lambda z: z * z, (x,), (tangent,))[1]
        tangent[:] = 0.0
        return np.sum(result)

    for f in (pulled, pushed):
        np.testing.assert_array_equal(ckad.grad(f)(x), 2.0 * x)


def kept_gradient(x: Any) -> Any:
    return np.sum(np.sin(x) * ckad.grad(product)(OTHER))


def dropped_gradient(x: Any) -> Any:
    total = np.sum(ckad.grad(product)(OTHER))
    return np.sum(np.sin(x) * total)


def kept_pullback(x: Any) -> Any:
    _, pull = ckad.vjp(lambda z: np.sin(z) * z, OTHER)
    return np.sum(pull(x)[0] * x)


def kept_jacobian(x: Any) -> Any:
    jacobian = ckad.jacobian(lambda z: np.sin(z) * z)(POINT)
    return np.sum(x[: POINT.size] @ jacobian)


def kept_by_jit(x: Any) -> Any:
    return np.sum(np.sin(x) * ckad.jit(lambda z: np.sin(z) * z)(OTHER))


def forced(x: Any) -> Any:
    y = np.sin(x)
    if np.sum(y) > 0.0:
        y = np.cos(y) * y
    return np.sum(y * x)


def kept_array(x: Any) -> Any:
    values = np.asarray(ckad.stop_gradient(np.sin(x)))
    return np.sum(values * x)


# What is held without a limit, and under the least.
INSIDE: list[tuple[Callable[..., Any], int, int]] = [
    (kept_gradient, OTHER.nbytes, OTHER.nbytes),
    (dropped_gradient, 0, 0),
    # A pullback holds what it reads, or the argument alone.
    (kept_pullback, 2 * OTHER.nbytes, OTHER.nbytes),
    (kept_jacobian, 8 * POINT.size**2, 8 * POINT.size**2),
    (kept_by_jit, OTHER.nbytes, OTHER.nbytes),
    (forced, 0, 0),
    (kept_array, VECTOR.nbytes, VECTOR.nbytes),
]


@pytest.mark.parametrize(("f", "held", "held_at_least"), INSIDE, ids=lambda value: getattr(value, "__name__", ""))
def test_results_of_runs_inside_count_while_they_live(f: Callable[..., Any], held: int, held_at_least: int) -> None:
    plan = ckad.plan(f)(VECTOR)
    # A derivative may read one of two values that are kept, and small arrays are copied.
    assert abs(plan.parts["held"] - held) <= 64 << 10
    least = minimum(lambda **options: ckad.grad(f, **options), VECTOR)
    assert least >= held_at_least + VECTOR.nbytes
    assert held_at_least == held or least < held + VECTOR.nbytes
    np.testing.assert_array_equal(ckad.grad(f, memory_limit=least)(VECTOR), ckad.grad(f)(VECTOR))


def test_what_a_recording_was_made_with_counts_in_each_call() -> None:
    make = lambda **options: ckad.jit(kept_gradient, **options)
    assert ckad.plan(make())(VECTOR).parts["held"] == OTHER.nbytes
    limited = make(memory_limit=minimum(make, VECTOR))
    assert limited(VECTOR) == limited(VECTOR)
    assert ckad.plan(limited)(VECTOR).parts["held"] == OTHER.nbytes


def test_jit_copies_small_captured_arrays_once() -> None:
    leaves = [leaf.copy() for leaf in LEAVES]
    f = ckad.jit(ckad.grad(lambda x: sum(np.sum(np.sin(x * leaf)) for leaf in leaves)))
    expected = f(LEAVES[0])
    assert ckad.plan(f)(LEAVES[0]).parts["constants"] == sum(leaf.nbytes for leaf in leaves)
    np.testing.assert_array_equal(f(LEAVES[0]), expected)
    leaves[3][:] = 0.0
    assert not np.array_equal(f(LEAVES[0]), expected)


def elementwise(x: Any) -> Any:
    return np.sin(x) * x


def sums_of_columns(x: Any) -> Any:
    return np.sum(np.cumsum(x[:, :2], axis=0) * 2, axis=0)


def products(x: Any) -> Any:
    return np.sum((SQUARE @ (SQUARE * x)) @ SQUARE)[None]


def deep(x: Any) -> Any:
    for _ in range(12):
        x = np.sin(x) * 1.1 + x
    return np.sum(x.reshape(4, -1), axis=1)


def two(x: Any) -> Any:
    return {"a": np.sin(x[0])[::-1] * x[1][0], "b": np.sum(x[1])}


SQUARE = RNG.uniform(0.0, 0.1, (120, 120))
JACOBIANS: list[tuple[Callable[..., Any], Any]] = [
    (elementwise, POINT),
    (sums_of_columns, np.asfortranarray(RNG.uniform(size=(60, 60)))),
    (sums_of_columns, RNG.uniform(size=(60, 120))[:, ::2]),
    (products, np.ones(1)),
    (deep, VECTOR[:4000]),
    (two, (np.asfortranarray(RNG.uniform(size=(5, 6)))[::-1], RNG.uniform(size=3).astype(np.float32))),
]


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("index", range(len(JACOBIANS)))
def test_a_jacobian_counts_its_result(index: int, mode: Any) -> None:
    f, x = JACOBIANS[index]
    make = lambda **options: ckad.jacobian(f, mode=mode, **options)
    plan, report = ckad.plan(make())(x), ckad.memory.profile(make(), x)
    assert plan.live_bytes == report.executor_bytes == report.planned_bytes
    assert plan.peak_bytes == sum(plan.parts.values())
    leaves = ckad.tree.flatten(report.result)[0]
    assert minimum(make, x) <= plan.peak_bytes
    assert minimum(make, x) > sum(leaf.nbytes for leaf in leaves)
    applied = sum(np.size(leaf) for leaf in ckad.tree.flatten(x if mode == "forward" else f(x))[0])
    assert f"1 of the function, {applied} of its derivative" in str(plan)
    for point in ckad.memory_frontier(make())(x):
        at_point = ckad.plan(make(memory_limit=point.peak_bytes))(x)
        assert (at_point.peak_bytes, at_point.extra_flops) == point[:2]


def test_jacobians_are_those_of_both_modes_and_of_values_of_a_trace() -> None:
    for f, x in JACOBIANS:
        forward, reverse = (ckad.tree.flatten(ckad.jacobian(f, mode=m)(x))[0] for m in ("forward", "reverse"))
        for one, other in zip(forward, reverse, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(one, other, rtol=1e-5)
        traced = ckad.tree.flatten(ckad.jit(ckad.jacobian(f, mode="reverse"))(x))[0]
        for one, other in zip(reverse, traced, strict=True):
            np.testing.assert_array_equal(one, other)


CHILD = """
import sys
import numpy as np, ckad
sys.path.insert(0, {tests!r})
import test_limits_hold as programs


def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


make, args = programs.LARGE[{name!r}]()
try:
    ckad.plan(make(memory_limit=1))(*args)
except ckad.errors.MemoryLimitError as error:
    minimum = error.minimum
call = make(memory_limit=minimum)
call(*args)
ckad.memory.release()
with open("/proc/self/clear_refs", "w") as marks:
    marks.write("5")
before = status("VmRSS")
result = call(*args)
print(minimum, status("VmHWM") - before)
"""


def large_strided() -> Any:
    return lambda **options: ckad.grad(product, **options), (np.ones((1000, 2000))[:, ::2],)


def large_jitted() -> Any:
    return lambda **options: ckad.jit(product, **options), (np.ones((1000, 2000))[:, ::2],)


def large_inside() -> Any:
    other = np.ones(1_000_000)
    f = lambda x: np.sum(np.sin(x) * ckad.grad(product)(other))
    return lambda **options: ckad.grad(f, **options), (np.ones(1_000_000),)


def large_jacobian() -> Any:
    return lambda **options: ckad.jacobian(elementwise, **options), (np.ones(1000),)


def large_before_a_jacobian() -> Any:
    """The function's own run leaves a large arena idle."""
    matrix = np.ones((1000, 1000))

    def f(x: Any) -> Any:
        far = np.sort(np.cumsum(np.cumsum(matrix * x[0], axis=0), axis=1), axis=0)
        return x * ckad.stop_gradient(np.sum(far))

    return lambda **options: ckad.jacobian(f, mode="reverse", **options), (np.ones(1500),)


LARGE: dict[str, Callable[[], Any]] = {
    f.__name__: f for f in (large_strided, large_jitted, large_inside, large_jacobian, large_before_a_jacobian)
}


@pytest.mark.parametrize("name", LARGE)
def test_the_process_grows_by_no_more(name: str) -> None:
    program = CHILD.format(tests=os.path.dirname(__file__), name=name)
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "1",
        "CKAD_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    least, grown = map(int, done.stdout.split())
    # Pages that the process has not touched before beside them: tables, the tape, the last page of each array.
    assert grown <= least + 1_300_000


def test_frontiers_of_a_jacobian_add_up() -> None:
    def f(x: Any) -> Any:
        y = x
        for _ in range(30):
            y = np.sin(y) * y + x
        return np.sum(y.reshape(2, -1), axis=1)

    points = ckad.memory_frontier(ckad.jacobian(f, mode="reverse"))(VECTOR)
    assert len(points) > 5
    for one, other in itertools.pairwise(points):
        assert one.peak_bytes < other.peak_bytes
        assert one.extra_flops > other.extra_flops
    # Its least has all values computed again, its last none.
    assert points[0].peak_bytes == minimum(lambda **options: ckad.jacobian(f, mode="reverse", **options), VECTOR)
    assert "all again, " in points[0].policy
    assert points[-1].extra_flops == 0
    assert points[0].peak_bytes < points[-1].peak_bytes / 3
