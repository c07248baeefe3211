"""Python control flow and conversions on traced values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import TracerError


def test_if_on_a_value() -> None:
    f = lambda x: x**2 if x > 0 else -x
    assert ckad.grad(f)(3.0) == 6.0
    assert ckad.grad(f)(-3.0) == -1.0


def test_while_on_a_value(policy: str | int) -> None:
    def newton(a: Any) -> Any:
        x = a
        while abs(x * x - a) > 1e-13:
            x = 0.5 * (x + a / x)
        return x

    value, slope = ckad.value_and_grad(newton, checkpoint=policy)(2.0)
    assert value == pytest.approx(math.sqrt(2.0))
    assert slope == pytest.approx(0.5 / math.sqrt(2.0))


def test_forced_and_unforced_give_the_same_bits(rng: np.random.Generator) -> None:
    x = rng.standard_normal(50)

    def f(x: Any, look: bool) -> Any:
        for _ in range(10):
            x = np.sin(x) + 0.1 * x
            if look:
                assert bool(np.all(np.isfinite(x)))
        return np.sum(x)

    plain = ckad.grad(lambda x: f(x, False))(x)
    assert plain.tobytes() == ckad.grad(lambda x: f(x, True))(x).tobytes()


def test_integer_values_convert_and_index() -> None:
    table = np.array([10.0, 20.0, 30.0])

    def f(x: Any) -> Any:
        k = np.argmax(x)
        assert int(k) == 1
        assert table[int(k)] == 20.0
        return table[k] * x[k]

    np.testing.assert_array_equal(ckad.grad(f)(np.array([1.0, 3.0, 2.0])), [0.0, 20.0, 0.0])


def test_printing_shows_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        print(f"{x:.2f}", x)
        return x * x

    ckad.grad(f)(2.0)
    assert "2.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    "lose",
    [
        lambda x: float(x[0]),
        lambda x: math.sin(x[0]),
        lambda x: np.asarray(x),
        lambda x: np.array([x[0], x[1]]),
        lambda x: np.zeros(2).__setitem__(0, x[0]),
        lambda x: np.zeros(2).__iadd__(x),
        lambda x: np.full(2, 1.0).fill(x[0]),
    ],
    ids=["float", "math", "asarray", "array", "setitem", "iadd", "fill"],
)
def test_losing_a_gradient_raises(lose: Any) -> None:
    def f(x: Any) -> Any:
        lose(x)
        return np.sum(x)

    with pytest.raises((TracerError, TypeError, ValueError)) as caught:
        ckad.grad(f)(np.ones(2))
    if isinstance(caught.value, TracerError):
        assert "Hint" in str(caught.value)


def test_values_that_depend_on_nothing_differentiated_convert() -> None:
    data = np.array([[1.0, 2.0], [3.0, 4.0]])

    def f(w: Any, x: Any) -> Any:
        assert np.asarray(x) is data
        assert float(np.sum(x)) == 10.0
        assert float(ckad.stop_gradient(w)[0]) == 0.5
        return np.sum(x.dot(w))

    np.testing.assert_array_equal(ckad.grad(f)(np.array([0.5, 1.0]), data), [4.0, 6.0])


def test_hints_work() -> None:
    f = lambda x: np.sum(np.stack([x[0], 2 * x[1]]) ** 2)
    np.testing.assert_array_equal(ckad.grad(f)(np.array([1.0, 2.0])), [2.0, 16.0])

    def g(x: Any) -> Any:
        y = np.zeros(3, like=x)
        y[1] = x[0] ** 2
        return np.sum(np.array([[y[1], 1.0], [x[1], 2.0]], like=x))

    np.testing.assert_array_equal(ckad.grad(g)(np.array([3.0, 2.0])), [6.0, 1.0])


def test_a_loop_that_looks_computes_each_step_once() -> None:
    def f(x: Any, steps: int) -> Any:
        n = 0
        while n < steps:
            x = x * 1.01 + 0.001
            n += 1 if x > -1e9 else 2
        return x

    assert ckad.grad(f)(1.0, 300) == pytest.approx(1.01**300)
    few, many = (ckad.plan(ckad.grad(f))(1.0, steps) for steps in (150, 300))
    assert (few.forced_runs[0], many.forced_runs[0]) == (150, 300)
    assert many.flops < 2.1 * few.flops


def test_captured_array_is_read_only_while_it_is_needed() -> None:
    big = np.ones(100_000)

    def f(x: Any) -> Any:
        y = np.sum(x * big)
        big[0] = 5.0
        return y

    with pytest.raises(ValueError, match="read-only"):
        ckad.grad(f)(np.ones(100_000))
    big[0] = 2.0
    assert big[0] == 2.0


def test_small_captured_array_that_changes_is_two_snapshots() -> None:
    small = np.array([1.0, 2.0])

    def f(x: Any) -> Any:
        y = np.sum(x * small)
        small[:] = 10.0
        return y + np.sum(x * small)

    np.testing.assert_array_equal(ckad.grad(f)(np.ones(2)), [11.0, 12.0])


def test_surviving_values_raise() -> None:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        kept.append(x * 2)
        return np.sum(x)

    ckad.grad(f)(np.ones(2))
    with pytest.raises(TracerError, match="has_aux"):
        kept[0] + 1


def test_traced_values_are_unhashable_and_not_picklable() -> None:
    import pickle

    def f(x: Any) -> Any:
        with pytest.raises(TypeError):
            hash(x)
        with pytest.raises((TypeError, TracerError)):
            pickle.dumps(x)
        return np.sum(x)

    ckad.grad(f)(np.ones(2))
