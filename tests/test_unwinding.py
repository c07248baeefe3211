"""Whatever is raised, wherever: flags are given back, the stack of traces is as it was, everything works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import ckad

BIG = 20_000


def assert_nothing_is_left(*arrays: np.ndarray) -> None:
    """The arrays are writeable, and no trace is open: forced runs are counted from the outermost one on."""
    for array in arrays:
        assert array.flags.writeable
    looks = ckad.grad(lambda x: x * x if x > 0 else -x)
    assert looks(3.0) == 6.0
    assert ckad.plan(looks)(3.0).forced_runs[0] == 1


class Unusual(BaseException):
    pass


EXCEPTIONS = [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecursionError, Unusual]

TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, x: ckad.grad(f)(x),
    "value_and_grad": lambda f, x: ckad.value_and_grad(f, checkpoint="sqrt")(x),
    "jvp": lambda f, x: ckad.jvp(f, (x,), (x,)),
    "vjp": lambda f, x: ckad.vjp(f, x),
    "linearize": lambda f, x: ckad.linearize(f, x),
    "jacobian": lambda f, x: ckad.jacobian(f)(x),
    "hvp": lambda f, x: ckad.hvp(f, x, x),
    "trace": lambda f, x: ckad.trace(f)(x),
    "plan": lambda f, x: ckad.plan(f)(x),
    "profile": lambda f, x: ckad.memory.profile(ckad.grad(f), x),
    "nested": lambda f, x: ckad.grad(lambda y: ckad.jvp(lambda z: f(z * y), (y,), (y,))[1])(x),
    "region": lambda f, x: ckad.grad(ckad.checkpoint(lambda y: np.sum(ckad.grad(f)(y))))(x),
}


@pytest.mark.parametrize("exception", EXCEPTIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_exception_in_the_function(transform: str, exception: type[BaseException]) -> None:
    x, captured = np.ones(BIG), np.full(BIG, 2.0)

    def f(y: Any) -> Any:
        total = np.sum(y * captured)
        assert not captured.flags.writeable
        if total != -1.0:
            raise exception("from within")
        return total

    with pytest.raises(exception):
        TRANSFORMS[transform](f, x)
    assert_nothing_is_left(x, captured)


def test_an_exception_in_an_inner_trace_that_the_outer_one_survives() -> None:
    outer, inner = np.full(BIG, 2.0), np.full(BIG, 3.0)

    def fails(y: Any) -> Any:
        raise KeyError(np.sum(y * inner).shape)

    def f(x: Any) -> Any:
        total = np.sum(x * outer)
        with pytest.raises(KeyError):
            ckad.grad(fails)(x)
        assert not outer.flags.writeable
        return total

    np.testing.assert_array_equal(ckad.grad(f)(np.ones(BIG)), outer)
    assert_nothing_is_left(outer, inner)


def test_an_exception_in_a_run() -> None:
    captured = np.full(BIG, 2.0)

    def f(x: Any) -> Any:
        # The index is known when the program runs: it is then that it is out of bounds.
        return np.sum((x * captured)[np.argmax(x) + np.array([BIG])])

    with pytest.raises(IndexError):
        ckad.grad(f)(np.ones(BIG))
    assert_nothing_is_left(captured)


def interrupt_after(steps: int, call: Callable[[], Any]) -> bool:
    """Calls with a KeyboardInterrupt at the n-th line that ckad's own Python files run; was there one?"""
    left = steps
    folder = ckad.__file__.removesuffix("__init__.py")

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if event in ("call", "line"):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_ctrl_c_between_any_two_lines(nested: bool) -> None:
    x, captured = np.ones(BIG), np.full(BIG, 2.0)

    def f(y: Any) -> Any:
        with_region = ckad.checkpoint(np.sin)(y * captured)
        return np.sum(with_region) if np.sum(y) > 0 else np.sum(y)

    def call() -> Any:
        if nested:
            return ckad.grad(lambda y: np.sum(ckad.grad(f)(y)))(x)
        return ckad.value_and_grad(f, checkpoint="sqrt")(x)

    steps = 1
    while interrupt_after(steps, call):
        assert_nothing_is_left(x, captured)
        steps += 1
    assert steps > 50
