"""`ckad.jit`: recorded once, run without Python, and never wrong about what it was recorded for."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jitted import Calls, Counted, assert_equal_bits
from programs import PROGRAMS
from test_functions import EVERY, VARIABLES, evaluated, function_of, names_in

import ckad
from ckad.errors import CkadIndexError, CkadTypeError, CkadValueError, TracerError
from ckad.transforms.reach import Reach

# What NumPy's functions say -----------------------------------------------------------------------------------------

VALUE_DEPENDENT = (
    "np.where(x > 1)",
    "np.allclose(x, y)",
    "np.array_equal(x, y)",
    "np.nonzero(x > 1)",
    "x.nonzero()",
    "x[x > 1]",
)
"""Their shape, or the flow of their own code, depends on values."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("expression", EVERY)
def test_every_function_under_jit(expression: str, dtype: str) -> None:
    f = function_of(expression)
    args = [np.asarray(VARIABLES[name]) for name in names_in(expression)]
    args = [x.astype(dtype) if x.dtype.kind == "f" else x for x in args]
    jitted = ckad.jit(f)
    if expression in VALUE_DEPENDENT:
        with pytest.raises(TracerError, match="stands for any value"):
            jitted(*args)
        return
    expected = evaluated(f, *args)
    assert_equal_bits(jitted(*args), expected)
    assert_equal_bits(jitted(*args), expected)


# Programs and transforms --------------------------------------------------------------------------------------------

NO_CONTROL_FLOW = [name for name in PROGRAMS if name != "while_loop"]


@pytest.mark.parametrize("name", NO_CONTROL_FLOW)
def test_programs_compose_with_transforms(name: str, policy: str | int) -> None:
    f, args = PROGRAMS[name]
    expected = ckad.value_and_grad(f, checkpoint=policy)(*args)
    inside = Counted(ckad.value_and_grad(f, checkpoint=policy))
    outside = ckad.value_and_grad(ckad.jit(f), checkpoint=policy)
    for _ in range(2):
        assert_equal_bits(inside(*args), expected)
        assert_equal_bits(outside(*args), expected)
    assert inside.count == 1


@pytest.mark.parametrize("name", ["layer_norm", "heat", "rolled", "matrix_products"])
def test_second_order(name: str) -> None:
    f, args = PROGRAMS[name]
    v = np.ones_like(args[0])
    expected = ckad.hvp(lambda x: f(x, *args[1:]), args[0], v)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(ckad.hvp(lambda x: ckad.jit(f)(x, *args[1:]), args[0], v), expected, **close)
    inner = ckad.jit(ckad.grad(f))
    np.testing.assert_allclose(ckad.jvp(lambda x: inner(x, *args[1:]), (args[0],), (v,))[1], expected, **close)
    both = ckad.jit(lambda x, v: ckad.hvp(lambda x: f(x, *args[1:]), x, v))
    np.testing.assert_allclose(both(args[0], v), expected, **close)


def test_jacobian_linearize_and_vjp_inside_and_outside() -> None:
    def f(x: Any) -> Any:
        return np.stack([np.sin(x[0]) * x[1], x[1] ** 2, x[0] - x[2]])

    x = np.array([0.3, 1.2, -0.7])
    expected = ckad.jacobian(f)(x)
    assert_equal_bits(ckad.jacobian(ckad.jit(f))(x), expected)
    assert_equal_bits(ckad.jit(ckad.jacobian(f))(x), expected)
    out, pullback = ckad.vjp(ckad.jit(f), x)
    assert_equal_bits(out, ckad.vjp(f, x)[0])
    np.testing.assert_allclose(pullback(np.ones(3))[0], np.ones(3) @ expected)
    np.testing.assert_allclose(ckad.linearize(ckad.jit(f), x)[1](x), expected @ x)
    ckad.check_grads(ckad.jit(f), (x,))


def test_a_jitted_function_in_a_jitted_function() -> None:
    inner = Counted(lambda x: np.tanh(x) * 2.0)
    outer = Counted(lambda x: inner(x) + inner(x + 1.0))
    x = np.linspace(-1, 1, 5)
    for _ in range(3):
        assert_equal_bits(outer(x), evaluated(lambda x: np.tanh(x) * 2.0 + np.tanh(x + 1.0) * 2.0, x))
    assert (inner.count, outer.count) == (1, 1)


# When it is recorded ------------------------------------------------------------------------------------------------


def test_once_per_shape_dtype_and_structure() -> None:
    f = Counted(lambda x, k=1.0: {"a": np.sum(x["a"]) * k, "b": x["b"] + 1})
    for _ in range(2):
        f({"a": np.ones(3), "b": 2.0})
        f({"a": np.zeros(3), "b": 5.0})
    assert f.count == 1
    f({"a": np.ones(4), "b": 2.0})
    f({"a": np.ones(3, np.float32), "b": 2.0})
    f({"a": np.ones(3), "b": 2})
    f({"a": np.ones(3), "b": np.float64(2)})
    f({"a": np.ones(3), "b": 2.0}, k=2.0)
    f({"a": np.asfortranarray(np.ones((3, 2))), "b": 2.0})
    assert f.count == 7
    f({"a": np.ones((3, 2)), "b": 2.0})
    assert f.count == 8
    f({"b": 1.0, "a": np.ones(3)})
    assert f.count == 8


def test_static_arguments_are_recorded_by_value() -> None:
    calls = Calls()

    def f(x: Any, n: int, how: str = "sum") -> Any:
        calls.count_one()
        total = x
        for _ in range(n):
            total = total * x
        return np.sum(total) if how == "sum" else np.max(total)

    jitted = ckad.jit(f, static_argnums=(1, -1))
    x = np.array([1.0, 2.0])
    assert [float(jitted(x, n)) for n in (1, 2, 1, 2)] == [5.0, 9.0, 5.0, 9.0]
    assert calls.count == 2
    assert float(jitted(x, n=2)) == 9.0
    assert float(jitted(x, 1, how="max")) == 4.0
    assert float(jitted(x, 1, "max")) == 4.0
    with pytest.raises(CkadTypeError, match="not hashable"):
        jitted(x, [1])
    assert [float(ckad.jit(lambda x, n: x * n, static_argnums=1)(x[0], n)) for n in (1, True, 1.0)] == [1.0] * 3
    for wrong in (3, -4, "1", None, True):
        with pytest.raises((CkadValueError, CkadTypeError), match="Hint"):
            ckad.jit(f, static_argnums=wrong)  # type: ignore[arg-type]


def test_other_leaves_are_compared() -> None:
    f = Counted(lambda x, mode, scale=None: x * 2 if mode == "double" else x if scale is None else x * scale)
    x = np.ones(2)
    assert f(x, "double")[0] == 2.0
    assert f(x, "no")[0] == 1.0
    assert f(x, "no", np.array([3.0, 3.0]))[0] == 3.0
    assert f(x, "double")[0] == 2.0
    assert f.count == 3
    unsupported = np.array([1j])
    g = Counted(lambda x, c: x * abs(c[0]))
    assert g(x, unsupported)[0] == 1.0
    unsupported[0] = 2j
    assert g(x, unsupported)[0] == 2.0


# What it refuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x if x > 0 else -x,
        lambda x: float(x),
        lambda x: np.zeros(int(x)),
        lambda x: f"{x}",
        lambda x: np.asarray(x),
        lambda x: [i * x for i in range(x.astype(int))],
        lambda x: max(x, 2.0),
        lambda x: ckad.grad(lambda y: y * 2 if x > 0 else y)(x),
        lambda x: ckad.grad(lambda y: y * 2 if y > 0 else y)(x),
    ],
)
def test_control_flow_on_values_raises(f: Callable[[Any], Any]) -> None:
    with pytest.raises(TracerError, match=r"while ckad\.jit records.*Hint: .*static_argnums"):
        ckad.jit(f)(np.float64(1.0))


def test_a_value_of_the_trace_around_is_not_looked_at() -> None:
    def f(y: Any) -> Any:
        return ckad.jit(lambda x: x * y if y > 0 else x)(2.0)

    with pytest.raises(TracerError, match=r"while ckad\.jit records"):
        ckad.grad(f)(1.0)


def test_constants_may_be_looked_at() -> None:
    def f(x: Any) -> Any:
        steps = np.zeros(3, like=x) + 2.0
        return x * 2 if np.sum(steps) > 5 else x

    assert ckad.jit(f)(np.ones(2))[0] == 2.0
    assert ckad.grad(lambda x: np.sum(ckad.jit(f)(x)))(np.ones(2))[0] == 2.0


class Drawing:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)


def test_random_numbers_raise() -> None:
    generator = np.random.default_rng(0)
    legacy = np.random.RandomState(0)
    held = {"rng": [generator]}
    holder = Drawing()
    reference, draw = weakref.ref(holder), random.Random(0).random

    def drawn(rng: Any) -> Any:
        while True:
            yield rng.normal()

    numbers = drawn(np.random.default_rng(1))
    functions: list[Callable[[Any], Any]] = [
        lambda x: x + generator.normal(),
        lambda x: x + legacy.rand(),
        lambda x: x + held["rng"][0].random(),
        lambda x: x + np.random.rand(),  # noqa: NPY002
        lambda x: x + random.random(),
        lambda x: x + reference().rng.normal(),  # type: ignore[union-attr]
        lambda x: x + draw(),
        lambda x: x + next(numbers),
        lambda x: x + generator.spawn(1)[0].normal(),
    ]
    for f in functions:
        with pytest.raises(TracerError, match=r"drawn from.*Hint: draw outside"):
            ckad.jit(f)(1.0)
    with pytest.raises(TracerError, match="Generator was drawn from"):
        ckad.jit(lambda x, rng: x + rng.normal())(1.0, generator)
    with pytest.raises(TracerError, match="Generator was drawn from"):
        ckad.jit(lambda x, rng: x + rng.normal(), static_argnums=1)(1.0, generator)
    assert ckad.jit(lambda x, rng: x * 2)(1.0, generator) == 2.0


def test_errors_are_at_the_users_line_and_leave_nothing_behind() -> None:
    f = ckad.jit(lambda x, i: x[i])
    with pytest.raises(CkadIndexError, match=r"out of bounds.*test_jit\.py"):
        f(np.ones(3), 7)
    assert f(np.ones(3), 2) == 1.0

    def broken(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ckad.jit(broken)(1.0)
    with pytest.raises(CkadTypeError, match="no return"):
        ckad.jit(lambda x: None)(1.0)
    leaked: list[Any] = []
    ckad.jit(lambda x: leaked.append(x) or x * 1.0)(1.0)
    with pytest.raises(TracerError, match="after the transform"):
        leaked[0] + 1.0
    assert ckad.grad(np.sin)(0.0) == 1.0


# Values that Python needs -------------------------------------------------------------------------------------------


def test_numbers_come_back_as_they_would_without() -> None:
    def f(x: Any, n: Any, flag: Any) -> Any:
        return x * 2, n + 1, n / 2, np.sin(x), x > 1, np.where(flag, x, n), "text", 3, None

    for x in (1.5, np.float64(1.5), np.float32(1.5), np.array(1.5), np.array([1.5])):
        found = ckad.jit(f)(x, 3, True)
        expected = f(x, 3, True)
        for a, b in zip(found, expected, strict=True):
            assert type(a) is type(b), (x, a, b)
            assert a is b or np.array_equal(a, b)


def test_integers_beyond_64_bits() -> None:
    f = ckad.jit(lambda x, n: (x * (n // 2**60), n + 1))
    for n in (2**70, 2**80, -(2**90), 2**61):
        assert f(1.5, n) == (1.5 * (n // 2**60), n + 1)


def test_indices_that_are_arguments() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    cases: list[Callable[[Any, Any], Any]] = [
        lambda x, i: x[i],
        lambda x, i: x[:, i],
        lambda x, i: x[i, :, i],
        lambda x, i: x[-i, 2, i],
        lambda x, i: x[i, None, ..., 0],
        lambda x, i: x[i, [0, 1]],
        lambda x, i: x[i][0],
        lambda x, i: np.take(x, i, axis=1),
    ]
    for f in cases:
        assert_equal_bits(ckad.jit(f)(x, 1), f(x, 1))
        gradient = ckad.grad(lambda x, i, f=f: np.sum(np.sin(f(x, i))))
        assert_equal_bits(ckad.jit(gradient)(x, 1), gradient(x, 1))

    def write(x: Any, i: Any) -> Any:
        x = x.copy()
        x[i] = x[i] * 2
        x[0, i, i] = -1.0
        return x

    assert_equal_bits(ckad.jit(write)(x, 1), write(x, 1))

    def through_a_view(x: Any, i: Any) -> Any:
        row = x.copy()[i]
        row += 1.0
        return row

    with pytest.raises(CkadValueError, match=r"x\[i\] = x\[i\] \+ 1"):
        ckad.jit(through_a_view)(x, 1)


def test_results_are_fresh() -> None:
    constant = np.ones(3)
    f = ckad.jit(lambda x: (x, constant, x.T, np.zeros(2)))
    x = np.ones((2, 2))
    first = f(x)
    for array in first:
        array[...] = 7.0
    assert x[0, 0] == constant[0] == 1.0
    assert [float(array.ravel()[0]) for array in f(x)] == [1.0, 1.0, 1.0, 0.0]
    names = ckad.jit(lambda x: (x, np.array(["a", "b"])))
    names(x)[1][0] = "changed"
    assert names(x)[1].tolist() == ["a", "b"]


def test_layouts_and_empty_arrays() -> None:
    base = np.arange(24.0).reshape(4, 6)
    f = ckad.jit(lambda x: (x * 2.0, x.T, x[::-1].copy(), x.ravel(), np.sum(x, axis=0)))
    for x in (base, base.T, base[::2, 1::2], base[::-1], np.asfortranarray(base), base[:, :0], base[:1]):
        for _ in range(2):
            found, expected = f(x), evaluated(f.__wrapped__, x)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.strides == b.strides or a.size < 2


# Looking at it ------------------------------------------------------------------------------------------------------


def test_plan_profile_trace_and_debugging() -> None:
    f = ckad.jit(lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0.0)))
    x = np.array([0.0, 1.0, 4.0])
    assert f(x) == 3.0
    plan = ckad.plan(f)(x)
    assert plan.parts["outputs"] == 8
    assert plan.forced_runs == (0, 0)
    assert "test_jit.py" in str(plan)
    assert len(ckad.trace(f)(x)) > 2
    assert len(ckad.debug_nans(ckad.jit(ckad.grad(f)))(x)) == 1
    report = ckad.memory.profile(ckad.jit(ckad.grad(f)), x)
    assert report.executor_bytes == report.planned_bytes


def test_recordings_are_collected() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.rate = 0.1
            self.step = ckad.jit(self.plain)

        def plain(self, x: Any) -> Any:
            return x - self.rate * x

    trainer = Trainer()
    trainer.step(np.ones(3))
    watch = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert watch() is None


def test_as_a_decorator_and_as_a_method() -> None:
    class Layer:
        def __init__(self, w: Any) -> None:
            self.w = w

        @ckad.jit
        def free(x: Any, w: Any) -> Any:
            return x * w

    assert Layer.free(2.0, 3.0) == 6.0

    @ckad.jit
    def documented(x: Any) -> Any:
        """Doubles."""
        return x * 2

    assert documented.__doc__ == "Doubles."
    assert documented(2.0) == 4.0


def test_what_a_function_can_reach() -> None:
    class Node:
        def __init__(self) -> None:
            self.next: Any = self
            self.value = 1.0

    node = Node()
    cyclic: list[Any] = [node]
    cyclic.append(cyclic)

    def f() -> Any:
        return cyclic, node.value, node.next

    places = Reach([f]).places
    assert sum(place[0] == "elements" and place[1] is cyclic for place in places) == 1
    assert any(place[0] == "item" and place[2] == "value" for place in places)


def test_release_frees_the_programs_of_recordings() -> None:
    def f(x: Any) -> Any:
        for _ in range(300):
            x = np.sin(x) * 1.1
        return x

    jitted = Counted(f)
    first = jitted(np.ones(5))
    ckad.memory.release()
    assert_equal_bits(jitted(np.ones(5)), first)
    assert jitted.count == 1


def test_static_and_donated_arguments_by_keyword_beside_any_number() -> None:
    def f(x: Any, n: int, *rest: Any) -> Any:
        return x * sum(1.0 for _ in range(n))

    assert ckad.jit(f, static_argnums=1)(1.0, n=2) == 2.0
    assert ckad.jit(f, static_argnums=(1, 2))(1.0, 3, "rest") == 3.0


def test_true_and_false_are_pythons() -> None:
    f = Counted(lambda a, b: (a + b, ~a, -a, a * 1.5))
    assert f(True, True) == (2, -2, -1, 1.5)
    assert f(False, True) == (1, -1, 0, 0.0)
    assert f(True, True) == (2, -2, -1, 1.5)
    assert f.count == 2
    assert ckad.jit(lambda x, flag: x if flag else -x)(2.0, False) == -2.0
