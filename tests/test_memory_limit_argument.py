"""`memory_limit=`: what it may say, that it is kept to the byte, how it is refused, and the same bits throughout."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memray
import numpy as np
import pytest

import ckad
from ckad.errors import CkadError, CkadTypeError, CkadValueError, MemoryLimitError

RNG = np.random.default_rng(5)
WEIGHTS = [RNG.standard_normal((64, 64)).astype(np.float32) * np.float32(0.1) for _ in range(24)]
POINT = RNG.standard_normal((512, 64)).astype(np.float32)


def net(x: Any) -> Any:
    for weight in WEIGHTS:
        x = np.tanh(x @ weight)
    return np.sum(x * x)


def loop(x: Any) -> Any:
    for _ in range(60):
        x = x + np.sin(x) * 0.1
    return np.sum(x)


def in_place(u: Any) -> Any:
    u = u.copy()
    for _ in range(40):
        u[1:-1] += 0.1 * (u[:-2] - 2.0 * u[1:-1] + u[2:]) * u[1:-1]
    return np.sum(u * u)


def looking(x: Any) -> Any:
    for step in range(30):
        x = np.sin(x) * 1.1
        if step % 10 == 9 and np.max(x) > 0.0:
            x = x * 0.5
    return np.sum(x)


STATE = np.linspace(0.1, 1.0, 20_000)
PROGRAMS: list[tuple[Callable[..., Any], Any]] = [(net, POINT), (loop, STATE), (in_place, STATE)]


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (1, 1),
        (np.int32(4096), 4096),
        ("1B", 1),
        ("2KB", 2000),
        ("2 MB", 2_000_000),
        ("1GB", 10**9),
        ("1KiB", 1024),
        ("512MiB", 512 << 20),
        (" 1.5 GiB ", 3 << 29),
        ("2TiB", 2 << 40),
        ("0.5 TB", 500 * 10**9),
        ("0.0000001GiB", 107),
    ],
)
def test_limits_are_read(limit: Any, size: int) -> None:
    from ckad.transforms.limit import parse

    assert parse(limit) == size


MALFORMED: list[Any] = [
    *("512 bananas", "", "MiB", "-1MiB", "1e3MB", "nan", "0 MiB", "512", "1 2MB", "0.1B", "9" * 40 + "GB", "1..5MB"),
    *(0, -1, 2**63, 10**40, True, False, float("nan"), float("inf"), 512.0, np.float64(3), b"1MB", [1], object()),
]


@pytest.mark.parametrize("limit", MALFORMED, ids=lambda limit: repr(limit)[:20] if type(limit) is not object else "o")
def test_malformed_limits_are_refused(limit: Any) -> None:
    with pytest.raises(CkadValueError, match=r"^\[memory_limit\] .*Hint: "):
        ckad.grad(np.sum, memory_limit=limit)
    for refused in (
        lambda: ckad.value_and_grad(np.sum, memory_limit=limit),
        lambda: ckad.jvp(np.sin, (1.0,), (1.0,), memory_limit=limit),
        lambda: ckad.vjp(np.sin, 1.0, memory_limit=limit),
        lambda: ckad.linearize(np.sin, 1.0, memory_limit=limit),
        lambda: ckad.hvp(np.sin, 1.0, 1.0, memory_limit=limit),
        lambda: ckad.jacobian(np.sin, memory_limit=limit),
        lambda: ckad.jit(np.sin, memory_limit=limit),
        lambda: ckad.plan(np.sin, memory_limit=limit),
    ):
        with pytest.raises(ValueError, match="Hint"):
            refused()


def least(f: Callable[..., Any], *args: Any, **options: Any) -> MemoryLimitError:
    with pytest.raises(MemoryLimitError) as caught:
        ckad.grad(f, memory_limit=1, **options)(*args)
    return caught.value


@pytest.mark.parametrize(("f", "x"), PROGRAMS, ids=["net", "loop", "in_place"])
def test_limits_are_kept_and_change_no_bit(f: Callable[..., Any], x: Any) -> None:
    expected = ckad.grad(f, checkpoint="none")(x)
    none = ckad.plan(f, checkpoint="none")(x)
    minimum = least(f, x).minimum
    assert minimum < none.peak_bytes
    flops = None
    for limit in (minimum, (3 * minimum + none.peak_bytes) // 4, (minimum + none.peak_bytes) // 2, none.peak_bytes):
        plan = ckad.plan(f, memory_limit=limit)(x)
        assert plan.memory_limit == limit
        assert plan.peak_bytes <= limit
        assert flops is None or plan.flops <= flops
        flops = plan.flops
        np.testing.assert_array_equal(ckad.grad(f, memory_limit=limit)(x), expected)
    assert flops == none.flops
    with pytest.raises(MemoryLimitError) as caught:
        ckad.grad(f, memory_limit=minimum - 1)(x)
    assert caught.value.minimum == minimum


def test_the_error_says_what_holds_the_memory() -> None:
    error = least(net, POINT)
    assert isinstance(error, MemoryError)
    assert isinstance(error, CkadError)
    assert error.op == "memory_limit"
    assert error.lines
    assert all(place.startswith(__file__) and held > 0 for place, held in error.lines)
    assert error.lines[0][0] in str(error)
    assert f"memory_limit={error.minimum}" in str(error.hint)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.minimum, again.lines) == (str(error), error.minimum, error.lines)


def test_a_policy_beside_a_limit_is_kept() -> None:
    plan = ckad.plan(net, checkpoint="sqrt")(POINT)
    assert least(net, POINT, checkpoint="sqrt").minimum == plan.peak_bytes
    within = ckad.plan(net, checkpoint="sqrt", memory_limit=plan.peak_bytes)(POINT)
    assert within.extra_flops == plan.extra_flops
    assert least(net, POINT, checkpoint="none").minimum == ckad.plan(net, checkpoint="none")(POINT).peak_bytes


def test_every_transform_keeps_to_it() -> None:
    v = np.ones_like(STATE)

    def calls(**options: Any) -> list[Callable[[], Any]]:
        return [
            lambda: ckad.value_and_grad(loop, **options)(STATE)[1],
            lambda: ckad.jvp(loop, (STATE,), (v,), **options)[1],
            lambda: ckad.vjp(loop, STATE, **options)[1](1.0)[0],
            lambda: ckad.linearize(loop, STATE, **options)[1](v),
            lambda: ckad.hvp(loop, STATE, v, **options),
            lambda: ckad.jacobian(loop, **options)(STATE),
        ]

    for limited in calls(memory_limit=1):
        with pytest.raises(MemoryLimitError):
            limited()
    for limited, free in zip(calls(memory_limit="1GB"), calls(), strict=True):
        for value, expected in zip(np.atleast_1d(limited()), np.atleast_1d(free()), strict=True):
            np.testing.assert_array_equal(value, expected)


def test_two_limits_have_two_programs() -> None:
    error = least(net, POINT)
    none = ckad.plan(net, checkpoint="none")(POINT)
    tight, wide = ckad.plan(net, memory_limit=error.minimum)(POINT), ckad.plan(net, memory_limit="1GiB")(POINT)
    assert tight.peak_bytes < wide.peak_bytes == none.peak_bytes
    assert "limit " in str(tight)
    assert ckad.plan(net)(POINT).memory_limit is None


def test_an_inner_limit_is_refused() -> None:
    def inner(x: Any) -> Any:
        return np.sum(ckad.grad(loop, memory_limit="1GB")(x))

    with pytest.raises(CkadValueError, match=r"\[grad\] memory_limit= .* under ckad\.hvp.*Hint: give it to ckad\.hvp"):
        ckad.hvp(inner, STATE, STATE)
    with pytest.raises(CkadValueError, match=r"under ckad\.jit"):
        ckad.jit(inner)(STATE)
    np.testing.assert_array_equal(
        ckad.grad(lambda x: np.sum(ckad.grad(loop)(x)), memory_limit="1GB")(STATE),
        ckad.grad(lambda x: np.sum(ckad.grad(loop)(x)))(STATE),
    )


def test_what_has_no_limit_is_not_named_as_one_that_takes_it() -> None:
    def inner(x: Any) -> Any:
        return np.sum(ckad.grad(loop, memory_limit="1GB")(x))

    calls = {
        "scan": lambda: ckad.scan(lambda c, _: (c + inner(c), None), STATE, None, 2),
        "jacobian_mode": lambda: ckad.jacobian_mode(inner)(STATE),
        "trace": lambda: ckad.trace(inner)(STATE),
        "check_grads": lambda: ckad.check_grads(inner, (STATE,)),
    }
    for name, call in calls.items():
        with pytest.raises(CkadValueError, match=f"under ckad\\.{name}, .*Hint: give it to the transform around"):
            call()


def test_the_error_says_what_the_bytes_are_for() -> None:
    def chain(steps: int) -> Callable[..., Any]:
        def f(x: Any) -> Any:
            for _ in range(steps):
                x = np.sin(x) * x
            return np.sum(x)

        return f

    said = {}
    for steps, size in ((2000, 4), (4, 20_000)):
        with pytest.raises(MemoryLimitError) as caught:
            ckad.grad(chain(steps), memory_limit=1)(np.ones(size))
        said[size] = str(caught.value)
        plan = ckad.plan(ckad.grad(chain(steps), memory_limit=caught.value.minimum))(np.ones(size))
        recorded = ckad.errors.in_units(plan.parts["graph"] + plan.parts["program"])
        values = ckad.errors.in_units(sum(plan.parts[part] for part in ("arena", "outputs")))
        assert f"{recorded} of them for the graph and the program, {values} for values" in said[size]
    assert re.search(r"Hint: memory_limit=\d+, or a loop that is recorded once \(ckad.scan", said[4])
    assert re.search(r"Hint: memory_limit=\d+, or smaller arrays$", said[20_000])


def test_the_error_names_the_limit_the_policy_and_what_is_held() -> None:
    loss = lambda x: np.sum(np.sin(np.sin(x) * x))
    with pytest.raises(MemoryLimitError, match="keeps to the limit of 70000 bytes: the policy's plan needs") as caught:
        ckad.grad(loss, checkpoint="sqrt", memory_limit=70_000)(np.ones(20_000))
    assert "no checkpoint= beside it" in str(caught.value)
    with pytest.raises(
        MemoryLimitError, match="for copies of arguments and what the call makes beside its runs"
    ) as caught:
        ckad.jacobian(lambda x: np.sin(x) * x, memory_limit="1MiB")(np.ones(800))
    assert "a smaller result, or arguments that need no copy" in str(caught.value)


def test_forced_runs_keep_to_the_limit() -> None:
    expected = ckad.grad(looking)(STATE)
    peak = ckad.plan(looking)(STATE).peak_bytes
    np.testing.assert_array_equal(ckad.grad(looking, memory_limit=peak * 2)(STATE), expected)

    def forced(x: Any) -> Any:
        y = np.sin(x @ x)
        assert np.sum(y) != 0.0
        return np.sum(y)

    with pytest.raises(MemoryLimitError) as caught:
        ckad.grad(forced, memory_limit=1000)(np.ones((300, 300)))
    assert caught.value.minimum > 1000


def test_jit_keeps_to_a_limit() -> None:
    gradient = ckad.grad(net)
    expected = gradient(POINT)
    with pytest.raises(MemoryLimitError) as caught:
        ckad.jit(gradient, memory_limit=1)(POINT)
    least, free = ckad.jit(gradient, memory_limit=caught.value.minimum), ckad.jit(gradient)
    for _ in range(2):
        np.testing.assert_array_equal(least(POINT), expected)
        np.testing.assert_array_equal(free(POINT), expected)
    assert ckad.plan(least)(POINT).peak_bytes == caught.value.minimum < ckad.plan(free)(POINT).peak_bytes
    with pytest.raises(MemoryLimitError):
        ckad.jit(gradient, memory_limit=caught.value.minimum - 1)(POINT)
    # Recorded before or not, under another transform it is refused.
    for inner in (least, ckad.jit(gradient, memory_limit="1GB")):
        with pytest.raises(CkadValueError, match=r"\[jit\] memory_limit= .* under ckad\.vjp"):
            ckad.vjp(inner, POINT)
    # The limit of a trace around it is no property of the recording.
    with pytest.raises(MemoryLimitError):
        ckad.grad(lambda x: np.sum(x) + np.sum(free(POINT)), memory_limit=300_000)(np.ones(3))
    np.testing.assert_array_equal(free(POINT), expected)


@pytest.mark.parametrize("limit", ["64MiB", "1GiB"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_limit_inside_a_recording_is_refused_whatever_was_recorded(recorded: bool, limit: str) -> None:
    inner = ckad.jit(np.sin, memory_limit="64MiB")
    if recorded:
        inner(np.ones(3))
    with pytest.raises(CkadValueError, match=r"\[jit\] memory_limit= .* under ckad\.jit"):
        ckad.jit(lambda x: inner(x) * 2, memory_limit=limit)(np.ones(3))
    np.testing.assert_array_equal(inner(np.ones(3)), np.sin(np.ones(3)))


def test_an_outer_limit_rules_inner_runs() -> None:
    def f(x: Any) -> Any:
        return np.sum(x) + np.sum(ckad.grad(loop)(STATE))

    with pytest.raises(MemoryLimitError):
        ckad.grad(f, memory_limit=200_000)(np.ones(3))


def test_plan_takes_limits_of_plain_functions_only() -> None:
    with pytest.raises(CkadTypeError, match="memory_limit= of a transformed function"):
        ckad.plan(ckad.grad(loop), memory_limit=1)
    assert ckad.plan(ckad.grad(loop, memory_limit="1GB"))(STATE).memory_limit == 10**9


CHILD = """
import resource, sys
import numpy as np, ckad
sys.path.insert(0, {tests!r})
import test_memory_limit_argument as programs
f, x = programs.LARGE[{name!r}]()
ckad.grad(lambda x: np.sum(np.tanh(x)))(np.ones(8))
try:
    ckad.plan(ckad.grad(f, memory_limit=1))(x)
except ckad.errors.MemoryLimitError as error:
    minimum = error.minimum
none = ckad.plan(f, checkpoint="none")(x).peak_bytes
limit = (minimum * 3 + none) // 4 if {between} else minimum
plan = ckad.plan(f, memory_limit=limit)(x)
# Threads of the pool and what the linear algebra library maps are there before.
g = ckad.grad(f, memory_limit=limit)
ckad.grad(lambda x: np.sum(np.tanh(x @ x)))(np.ones((256, 256), x.dtype))
ckad.memory.release()
with open("/proc/self/statm") as statm:
    mapped = int(statm.read().split()[0]) * resource.getpagesize()
slack = plan.planning_bytes + (4 << 20)
assert none > limit + slack, (none, limit, slack)
resource.setrlimit(resource.RLIMIT_AS, (mapped + limit + slack, resource.RLIM_INFINITY))
print(float(np.sum(g(x))))
refused = False
try:
    ckad.grad(f, checkpoint="none")(x)
except MemoryError:
    refused = True
print(refused)
"""


def large_net() -> tuple[Callable[..., Any], Any]:
    weights = [RNG.standard_normal((128, 128)).astype(np.float32) * np.float32(0.1) for _ in range(40)]

    def f(x: Any) -> Any:
        for weight in weights:
            x = np.tanh(x @ weight)
        return np.sum(x * x)

    return f, np.ones((4096, 128), np.float32)


def large_loop() -> tuple[Callable[..., Any], Any]:
    return loop, np.linspace(0.1, 1.0, 400_000)


def large_in_place() -> tuple[Callable[..., Any], Any]:
    return in_place, np.linspace(0.1, 1.0, 400_000)


LARGE = {"net": large_net, "loop": large_loop, "in_place": large_in_place}


@pytest.mark.parametrize("between", [False, True], ids=["least", "between"])
@pytest.mark.parametrize("name", LARGE)
def test_the_process_keeps_to_it(name: str, between: bool) -> None:
    program = CHILD.format(tests=os.path.dirname(__file__), name=name, between=between)
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "1",
        "CKAD_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    value, refused = done.stdout.split()
    assert np.isfinite(float(value))
    assert refused == "True"


@pytest.mark.parametrize("name", LARGE)
def test_a_run_allocates_no_more_than_the_limit(name: str, tmp_path: Path) -> None:
    f, x = LARGE[name]()
    with pytest.raises(MemoryLimitError) as caught:
        ckad.grad(f, memory_limit=1)(x)
    limit = caught.value.minimum
    gradient = ckad.grad(f, memory_limit=limit)
    gradient(x)  # The program is cached, the pool's threads are there.
    ckad.memory.release()
    planning = ckad.plan(gradient)(x).planning_bytes
    with memray.Tracker(tmp_path / "capture.bin"):
        gradient(x)
    with memray.FileReader(tmp_path / "capture.bin") as reader:
        assert reader.metadata.peak_memory <= limit + planning + (1 << 20)


def test_planning_does_not_grow_with_the_arrays() -> None:
    # Which is why the limit does not bound it: docs/adr/0019.
    held = []
    for size in (1_000, 100_000):
        u = np.linspace(0.0, 1.0, size)
        with pytest.raises(MemoryLimitError) as error:
            ckad.grad(in_place, memory_limit=1)(u)
        ckad.memory.release()
        plan = ckad.plan(ckad.grad(in_place, memory_limit=error.value.minimum))(u)
        held.append((plan.planning_bytes, plan.peak_bytes))
    (small, peak), (large, larger_peak) = held
    assert small == pytest.approx(large, rel=0.01)
    assert larger_peak > 10 * peak
