"""`debug_nans` names the lines where a derivative absorbed a number that is not finite, and only those."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad

TINY, INFINITE = np.array([0.0, 1.0, 4.0]), np.array([np.inf, 1.0])


def root(x: Any) -> Any:
    y = np.sqrt(x)  # here
    return np.sum(np.where(x > 0, y, 0.0))


def quotient(x: Any) -> Any:
    safe = 1.0 / x  # here
    return np.sum(np.where(x > 0.5, safe, x))


def product(x: Any) -> Any:
    w = np.array([[np.inf, 1.0, 2.0], [0.5, 1.0, 2.0]])
    y = w @ np.sin(x)  # here
    return y[1] * 1.0


def running_product(x: Any) -> Any:
    p = np.cumprod(x / np.array([1.0, 0.0, 1.0]))  # here
    return p[0] + 0.0 * x[1]


def root_in_a_loop(x: Any) -> Any:
    total = 0.0
    for _ in range(3):
        x = x * 1.5
        total = total + np.sum(np.where(x > 0, np.sqrt(x), 0.0))  # here
    return total


def literal_zero(x: Any) -> Any:
    y = np.sqrt(x)  # here
    return np.sum(0.0 * y) + np.sum(x)


def literal_zero_behind(x: Any) -> Any:
    y = np.log(x)  # here
    z = np.stack([np.tanh(y), x])
    return np.sum(z[1]) - 0.0 * np.sum(y)


def in_a_scan(x: Any) -> Any:
    def step(c: Any, y: Any) -> Any:
        c = np.where(c > 0, np.sqrt(c), 0.0) + 0.0 * y  # here
        return c, np.sum(c)

    c, sums = ckad.scan(step, x, np.ones((4, 3)))
    return np.sum(c) + np.sum(sums)


def in_slices(x: Any) -> Any:
    def step(c: Any, y: Any) -> Any:
        root = np.sqrt(y)  # here
        return c + np.where(y > 0, root, 0.0), 0.0 * root

    c, _ = ckad.scan(step, 0.0, x, reverse=True)
    return c


def in_a_fori_loop(x: Any) -> Any:
    def body(i: Any, c: Any) -> Any:
        safe = 1.0 / c  # here
        return np.where(c > 0.5, safe, c)

    return np.sum(ckad.fori_loop(0, 3, body, x))


def in_a_loop_of_unknown_length(x: Any) -> Any:
    def body(state: Any) -> Any:
        i, c = state
        return i + 1, np.where(c > 0, np.sqrt(c), 0.0)  # here

    return np.sum(ckad.jit(lambda x: ckad.while_loop(lambda state: state[0] < 2, body, (0, x))[1])(x))


def in_a_branch(x: Any) -> Any:
    def taken(x: Any) -> Any:
        return np.where(x > 0, np.log(x), 0.0) + 0.0 * np.sqrt(x)  # here

    def other(x: Any) -> Any:
        return np.where(x > 0, np.sqrt(x), 0.0)

    return np.sum(ckad.jit(lambda x: ckad.cond(np.sum(x) > 0, taken, other, x))(x))


def in_loops_in_loops(x: Any) -> Any:
    def taken(c: Any) -> Any:
        return ckad.fori_loop(0, 2, lambda i, c: np.where(c > 0, c**0.3, 0.0), c)  # here

    def step(c: Any, _: Any) -> Any:
        return ckad.cond(np.sum(c) > 0.0, taken, lambda c: c, c), None

    return np.sum(ckad.scan(step, x, length=3)[0])


def literal_zero_in_a_loop(x: Any) -> Any:
    def step(c: Any, y: Any) -> Any:
        root = np.sqrt(y)  # here
        return c + 0.0 * root, None

    return ckad.scan(step, 0.0, x)[0] + np.sum(x)


def lines_of(f: Callable[..., Any]) -> list[int]:
    source, first = inspect.getsourcelines(f)
    return [first + i for i, line in enumerate(source) if "# here" in line]


WITH_ABSORPTION = [
    root,
    quotient,
    product,
    running_product,
    root_in_a_loop,
    literal_zero,
    literal_zero_behind,
    in_a_scan,
    in_slices,
    in_a_fori_loop,
    in_a_loop_of_unknown_length,
    in_a_branch,
    in_loops_in_loops,
    literal_zero_in_a_loop,
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("f", WITH_ABSORPTION, ids=lambda f: f.__name__)
def test_absorbed_numbers_are_found(f: Any) -> None:
    found = ckad.debug_nans(f)(TINY)
    assert sorted({int(line.rsplit(":", 1)[1]) for line in found}) == lines_of(f)
    assert all("test_debugging.py:" in line for line in found)
    # The same through any transform, in any state of the cache.
    ckad.grad(f)(TINY)
    assert ckad.debug_nans(ckad.grad(f, checkpoint="sqrt"))(TINY) == found


def test_finite_derivatives_have_none() -> None:
    for f in (root, quotient, root_in_a_loop, in_a_scan, in_slices, in_a_loop_of_unknown_length, in_loops_in_loops):
        assert ckad.debug_nans(f)(np.array([1.0, 2.0, 4.0])) == []


def test_what_is_not_absorbed_is_no_matter() -> None:
    # An infinite derivative that is really there.
    assert ckad.grad(lambda x: np.sum(np.sqrt(x)))(TINY)[0] == np.inf
    assert ckad.debug_nans(lambda x: np.sum(np.sqrt(x)))(TINY) == []
    assert ckad.debug_nans(lambda x: np.sum(x * x))(INFINITE) == []


def test_forced_and_nested_runs_are_looked_at() -> None:
    def forced(x: Any) -> Any:
        inner = ckad.grad(root)(np.array([0.0, 1.0]))
        return np.sum(x * inner) if np.sum(x) > 0 else np.sum(x)

    assert [int(line.rsplit(":", 1)[1]) for line in ckad.debug_nans(forced)(np.ones(2))] == lines_of(root)
    with pytest.raises(ZeroDivisionError):
        ckad.debug_nans(lambda x: 1 / 0)(1.0)
    # The context is over: nothing is built for it any more.
    assert ckad.debug_nans(lambda x: x * 1.0)(1.0) == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("f", [in_a_scan, in_a_loop_of_unknown_length, in_a_branch, in_loops_in_loops])
def test_every_transform_of_a_loop_is_looked_at(f: Any) -> None:
    for run in (
        lambda: ckad.jit(ckad.grad(f))(TINY),
        lambda: ckad.grad(f, memory_limit="1MiB")(TINY),
        lambda: ckad.vjp(f, TINY)[1](1.0),
        lambda: ckad.jvp(f, (TINY,), (1.0 - np.sign(TINY),)),
        lambda: ckad.linearize(f, TINY)[1](1.0 - np.sign(TINY)),
        lambda: ckad.hvp(f, TINY, 1.0 - np.sign(TINY)),
    ):
        with ckad._core.Watching() as watching:
            run()
        assert {int(line.rsplit(":", 1)[1]) for line in watching.lines} == set(lines_of(f))


def test_contexts_nest() -> None:
    def inner(x: np.ndarray) -> Any:
        return np.sum(np.where(x > 0, np.sqrt(x), 0.0))

    def outer(x: Any) -> Any:
        # Debugging another program meanwhile leaves what watches this one alone.
        assert len(ckad.debug_nans(inner)(np.array([0.0, 1.0]))) == 1
        return np.sum(np.where(x > 0, np.sqrt(x), 0.0))

    assert len(ckad.debug_nans(outer)(np.array([0.0, 1.0]))) == 1


def test_literal_zeros_are_seen_through_every_transform() -> None:
    for run in (
        lambda: ckad.grad(literal_zero)(TINY),
        lambda: ckad.jvp(literal_zero, (TINY,), (np.ones(3),)),
        lambda: ckad.vjp(literal_zero, TINY)[1](1.0),
        lambda: ckad.linearize(literal_zero, TINY)[1](np.ones(3)),
        lambda: ckad.grad(lambda x: np.sum(ckad.grad(literal_zero)(x)))(TINY),
        lambda: ckad.grad(lambda a: np.sum(ckad.grad(lambda x: literal_zero(x) * a)(TINY)))(1.0),
    ):
        found = ckad.debug_nans(lambda x, run=run: (run(), np.sum(x))[1])(np.ones(2))
        # Backwards the infinity is the root's derivative; forwards it has become a tangent, which the next line drops.
        (line,) = lines_of(literal_zero)
        assert {int(text.rsplit(":", 1)[1]) for text in found} & {line, line + 1}
    assert ckad.debug_nans(literal_zero)(np.array([1.0, 2.0, 4.0])) == []


def test_looking_changes_no_bit() -> None:
    gradients: list[Any] = []

    def looked_at(x: Any) -> Any:
        gradients.append([ckad.grad(f)(TINY) for f in WITH_ABSORPTION])
        return np.sum(x)

    with np.errstate(all="ignore"):
        looked_at(TINY)
        ckad.debug_nans(looked_at)(TINY)
    for plain, watched in zip(*gradients, strict=True):
        np.testing.assert_array_equal(plain, watched)
        np.testing.assert_array_equal(np.signbit(plain), np.signbit(watched))
