"""Hand-written slots record what those of the classes below record, and objects that Python drops are used again."""

from __future__ import annotations

import gc
import operator
import pathlib
import re
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad

_below = ckad.Tracer


def _ufunc(ufunc: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return ufunc, lambda *args: _below.__array_ufunc__(next(a for a in args if _is(a)), ufunc, "__call__", *args)


def _function(function: Any, **keywords: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def there(*args: Any) -> Any:
        return _below.__array_function__(next(a for a in args if _is(a)), function, (), args, keywords)

    return lambda *args: function(*args, **keywords), there


def _is(value: Any) -> bool:
    return isinstance(value, _below)


ROUTES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (operator.add, _below.__add__),
    "subtract": (operator.sub, _below.__sub__),
    "multiply": (operator.mul, _below.__mul__),
    "divide": (operator.truediv, _below.__truediv__),
    "power": (operator.pow, _below.__pow__),
    "less": (operator.lt, _below.__lt__),
    "equal": (operator.eq, _below.__eq__),
    "matmul": (operator.matmul, _below.__matmul__),
    "np.maximum": _ufunc(np.maximum),
    "np.power": _ufunc(np.power),
    "np.dot": _function(np.dot),
}

# With a number or an ordinary array on the left: Python and NumPy ask the traced value on the right.
REFLECTED: dict[str, Callable[..., Any]] = {
    "add": _below.__radd__,
    "subtract": _below.__rsub__,
    "multiply": _below.__rmul__,
    "divide": _below.__rtruediv__,
    "power": _below.__rpow__,
    "less": _below.__gt__,
    "equal": _below.__eq__,
    "matmul": _below.__rmatmul__,
}

SINGLE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "negative": (operator.neg, _below.__neg__),
    "np.sin": _ufunc(np.sin),
    "np.sum": _function(np.sum),
    "np.sum of rows": _function(np.sum, axis=-1),
    "np.max of columns": _function(np.max, axis=0, keepdims=True),
    "np.mean": _function(np.mean),
    "np.mean of rows": _function(np.mean, axis=1, keepdims=True),
    "an element": (lambda x: x[-1], lambda x: _below.__getitem__(x, -1)),
}

_rng = np.random.default_rng(3)
VALUES: dict[str, Any] = {
    "float": 1.5,
    "scalar": np.float64(0.5),
    "vector": _rng.random(4),
    "matrix": _rng.random((4, 4)),
    "F order": np.asfortranarray(_rng.random((4, 4))),
    "reversed": _rng.random(4)[::-1],
    "column": _rng.random((4, 1)),
    "float32": _rng.random((4, 4)).astype(np.float32),
    "one": np.ones(1),
    "nothing": np.ones((0, 4)),
}
NUMBERS: dict[str, Any] = {"2": 2, "2.0": 2.0, "0.5": 0.5, "-1": -1, "3": 3, "2**70": 2**70, "True": True}


def _seen(call: Callable[..., Any], *args: Any) -> Any:
    """The graph without its lines, and what the result is, or the exception."""
    kinds: list[Any] = []

    def noted(*args: Any) -> Any:
        result = call(*args)
        if _is(result):
            kinds.append((result.shape, result.strides, result.dtype, result.flags.writeable, result.ndim))
            kinds.append((result * np.float32(1.0)).dtype)
        return result

    try:
        return re.sub(r"\s+#.*", "", str(ckad.trace(noted)(*args))), kinds
    except Exception as error:
        return type(error), re.sub(r"\S+\.py:\d+", "", str(error))


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("value", VALUES)
def test_functions_of_one_value(name: str, value: str) -> None:
    here, below = SINGLE[name]
    assert _seen(here, VALUES[value]) == _seen(below, VALUES[value])


@pytest.mark.parametrize("name", ROUTES)
def test_functions_of_two_values(name: str) -> None:
    here, below = ROUTES[name]
    reflected = REFLECTED.get(name, lambda right, left: below(left, right))
    for one in VALUES.values():
        for other in VALUES.values():
            assert _seen(here, one, other) == _seen(below, one, other)
            captured = [lambda x, f=f, other=other: f(x, other) for f in (here, below)]
            assert _seen(captured[0], one) == _seen(captured[1], one)
            if name not in ("less", "equal"):  # NumPy makes ufuncs of these
                behind = (lambda x, other=other: here(other, x), lambda x, other=other: reflected(x, other))
                assert _seen(behind[0], one) == _seen(behind[1], one)
        for number in NUMBERS.values():
            beside = [lambda x, f=f, number=number: f(x, number) for f in (here, below)]
            assert _seen(beside[0], one) == _seen(beside[1], one)
            behind = (lambda x, number=number: here(number, x), lambda x, number=number: reflected(x, number))
            assert _seen(behind[0], one) == _seen(behind[1], one)


def test_a_captured_matrix_that_changes_is_another() -> None:
    w = np.eye(3)

    def f(x: Any) -> Any:
        first = x @ w + x @ w
        w[0, 0] = 5.0
        second = x @ w
        w.shape = (1, 9)
        third = x[:1] @ w
        w.shape = (3, 3)
        w[0, 0] = 1.0
        return np.sum(first) + np.sum(second) + 0.0 * np.sum(third)

    value, gradient = ckad.value_and_grad(f)(np.ones(3))
    assert value == 6.0 + 7.0
    assert np.array_equal(gradient, [7.0, 3.0, 3.0])


_read_only = _rng.random((3, 4))
_read_only.flags.writeable = False
_large = _rng.random((100, 100))
CAPTURED: dict[str, Any] = {
    "vector": _rng.random(4),
    "vector reversed": _rng.random(4)[::-1],
    "vector with gaps": _rng.random(8)[::2],
    "matrix": _rng.random((4, 4)),
    "matrix transposed": _rng.random((4, 4)).T,
    "wide": _rng.random((4, 3)),
    "F order": np.asfortranarray(_rng.random((4, 3))),
    "tall": _rng.random((3, 4)),
    "column": _rng.random((4, 1)),
    "column, transposed": _rng.random((1, 4)).T,
    "column of a matrix": _rng.random((4, 3))[:, 1:2],
    "row": _rng.random((1, 4)),
    "row, transposed": _rng.random((4, 1)).T,
    "row of a matrix": _rng.random((3, 4))[1:2],
    "row in F order": np.asfortranarray(_rng.random((1, 4))),
    "one": np.ones((1, 1)),
    "one, a vector": np.ones(1),
    "no rows": np.ones((0, 4)),
    "no columns": np.ones((4, 0)),
    "neither": np.ones((0, 0)),
    "read-only": _read_only,
    "large": _large,
    "large, transposed": _large.T,
    "large column": _rng.random((10000, 1)),
    "large column, transposed": _rng.random((1, 10000)).T,
    "foreign byte order": _rng.random((4, 3)).astype(">f8"),
    "float32": _rng.random((4, 3)).astype(np.float32),
    "integers": np.arange(12).reshape(4, 3),
    "bools": np.eye(4, dtype=bool),
    "three axes": _rng.random((2, 4, 3)),
    "list": _rng.random((4, 3)).tolist(),
    "large list": _rng.random((100, 100)).tolist(),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_operands_used_twice(name: str) -> None:
    w = CAPTURED[name]
    shape = np.shape(w)
    left, right = np.ones((3, shape[-2] if len(shape) > 1 else shape[0])), np.ones((shape[-1], 3))

    def products(x: Any, y: Any) -> tuple[Any, ...]:
        vectors = (x[0], y[:, 0])
        functions = (operator.matmul, np.dot)
        found = [f(each, w) for f in functions for each in (x, vectors[0]) for _ in range(3)]
        found += [f(w, each) for f in functions for each in (y, vectors[1]) for _ in range(3)]
        return tuple(found) if isinstance(w, np.ndarray) else tuple(found[:6])

    def below(x: Any, y: Any) -> tuple[Any, ...]:
        matmul = _below.__matmul__
        dot = _function(np.dot)[1]
        vectors = (x[0], y[:, 0])
        found = [f(each, w) for f in (matmul, dot) for each in (x, vectors[0]) for _ in range(3)]
        reflected = (lambda a, b: _below.__rmatmul__(b, a), dot)
        found += [f(w, each) for f in reflected for each in (y, vectors[1]) for _ in range(3)]
        return tuple(found)

    expected = products(left, right)
    for one, other in zip(ckad.jit(products)(left, right), expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6)
    total = lambda x, y: sum(np.sum(product) for product in products(x, y))
    for gradient, argument in zip(ckad.grad(total, argnums=(0, 1))(left, right), (left, right), strict=True):
        assert gradient.shape == argument.shape
    if isinstance(w, np.ndarray):
        assert _seen_all(products, left, right) == _seen_all(below, left, right)


def _seen_all(call: Callable[..., Any], *args: Any) -> str:
    return re.sub(r"\s+#.*", "", str(ckad.trace(call)(*args)))


def test_a_transposed_column_twice() -> None:
    column = np.ones((1, 5)).T
    x = np.ones((3, 5))
    assert np.array_equal(ckad.grad(lambda x: np.sum(x @ column) + np.sum(x @ column))(x), 2.0 * x)
    y = np.ones((1, 3))
    assert np.array_equal(ckad.grad(lambda y: np.sum(np.dot(column, y)) * np.sum(np.dot(column, y)))(y), 150.0 * y)


@pytest.mark.parametrize("side", [4, 200])
@pytest.mark.parametrize("change", ["int64", ">f8", "vector", "half as tall"])
def test_a_captured_array_seen_otherwise_is_another(side: int, change: str) -> None:
    """Its dtype or shape is assigned between uses; small arrays are copied, large ones are read in place."""
    w = _rng.integers(1, 100, (side, side)).astype(np.float64)
    found: list[Any] = []

    def f(x: Any) -> Any:
        first = x * w + x @ w + x @ w
        if change in ("int64", ">f8"):
            w.dtype = change
        else:
            w.shape = -1 if change == "vector" else (side // 2, 2 * side)
        found.append(w.copy())
        row = x.reshape(-1)[: w.shape[0]]
        return first, x[0, 0] * w, row @ w, row @ w

    x = np.full((side, side), 2.0)
    expected = x * w + x @ w + x @ w
    first, *second = ckad.jit(f)(x)
    np.testing.assert_allclose(first, expected)
    now = found[0]
    assert np.array_equal(second[0], 2.0 * now)
    for product in second[1:]:
        np.testing.assert_allclose(product, np.full(now.shape[0], 2.0) @ now)


def test_a_list_that_changes_is_another() -> None:
    for side in (3, 120):
        rows = np.eye(side).tolist()

        def f(x: Any, rows: Any = rows) -> Any:
            first = x @ rows + x @ rows
            rows[0][0] = 5.0
            return np.sum(first) + np.sum(x @ rows)

        assert ckad.value_and_grad(f)(np.ones(side))[0] == 3.0 * side + 4.0


def test_objects_that_are_used_again_are_new_values() -> None:
    def f(x: Any) -> Any:
        total = np.sum(x) * 0.0
        rows = []
        for step in range(100):
            y = x * float(step)
            view = y[1:]
            rows.append(view if step % 7 == 0 else None)
            if step % 3 == 0:
                y[0] = 100.0
            total = total + np.sum(view) + y[0] * 0.0
            del y, view
        kept = [row for row in rows if row is not None]
        return total + sum(np.sum(row) for row in kept)

    x = np.ones(4)
    expected = 3.0 * (sum(range(100)) + sum(range(0, 100, 7)))
    assert ckad.value_and_grad(f)(x)[0] == expected

    # Scalars, arrays of other dtypes and shapes in turn, and a trace within.
    def g(x: Any) -> Any:
        small = np.sum(x.astype(np.float32) * 2.0)
        inner = ckad.grad(lambda t: np.sum(t * t * x))(x)
        return np.sum(inner * inner) + small.astype(np.float64) + np.sum(np.outer(x, x) * 3.0)

    assert ckad.value_and_grad(g)(x)[0] == 4.0 * 4.0 + 8.0 + 48.0


def test_a_value_that_outlives_its_trace_raises() -> None:
    held: list[Any] = []

    def f(x: Any) -> Any:
        held.extend([x * 2.0, np.sum(x), x[1:]])
        return np.sum(x * x)

    ckad.grad(f)(np.ones(3))
    for value in held:
        for use in (lambda v: v + 1.0, np.sin, np.sum, lambda v: v @ v, lambda v: v[0], lambda v: v < 1.0):
            with pytest.raises((ckad.errors.TracerError, ckad.errors.CkadError)):
                use(value)
    held.clear()
    gc.collect()
    assert np.array_equal(ckad.grad(f)(np.ones(3)), [2.0, 2.0, 2.0])
    held.clear()


def test_values_of_traces_in_several_threads() -> None:
    def f(x: Any) -> Any:
        for _ in range(300):
            x = np.tanh(x * 1.01 + np.mean(x) * 0.1)
        return np.sum(x)

    expected = ckad.grad(f)(np.linspace(0.1, 0.5, 5))
    found: list[Any] = []
    run = lambda: found.append(ckad.grad(f)(np.linspace(0.1, 0.5, 5)))
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(np.array_equal(gradient, expected) for gradient in found)


def test_references_to_code_do_not_grow() -> None:
    """Of frames that lines are read from, the library's, which are passed over, and the user's."""
    text = """
def library(x, call):
    for _ in range(1000):
        x = call(x * 1.5 + x)
    return x
"""
    made: dict[str, Any] = {}
    exec(compile(text, str(pathlib.Path(ckad.__file__).parent / "made.py"), "exec"), made)
    code = made["library"].__code__
    assert code.co_filename.startswith(str(pathlib.Path(ckad.__file__).parent))
    calls = (lambda x: x, lambda x: np.sum(x[1:]) * 0.5 + x, lambda x: x * np.float64(0.5))
    codes = (code, *(call.__code__ for call in calls))

    def f(x: Any) -> Any:
        for call in calls:
            before = [sys.getrefcount(each) for each in codes]
            made["library"](x, call)
            after = [sys.getrefcount(each) for each in codes]
            # One for each instruction that records.
            assert all(now <= then + 8 for now, then in zip(after, before, strict=True))
        return np.sum(x)

    ckad.trace(f)(np.ones(3))


def test_lines_while_classes_look_at_their_own_destruction() -> None:
    """Python runs where code objects and arrays go, and records itself."""
    seen: list[Any] = []

    class Recording:
        def __init__(self, x: Any) -> None:
            self.x = x
            self.itself = self

        def __del__(self) -> None:
            seen.append(self.x * 2.0 + 1.0)

    def f(x: Any) -> Any:
        total = np.sum(x)
        for step in range(30):
            Recording(x)
            made: dict[str, Any] = {}
            exec(compile(f"def g(x):\n    return x * {step}.5 + x", f"made{step}.py", "exec"), made)
            gc.collect(0)
            total = total + np.sum(made["g"](x))
        return total

    enabled = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        value = ckad.value_and_grad(f)(np.ones(3))[0]
    finally:
        gc.set_threshold(*enabled)
    assert value == 3.0 + 3.0 * sum(step + 1.5 for step in range(30))
    assert seen
    seen.clear()


def test_traces_within_and_beside_keep_their_objects() -> None:
    """A trace that ends lets go of its own objects alone."""

    def inner(t: Any) -> Any:
        return np.sum(t * t + t)

    def f(x: Any) -> Any:
        kept = [x * float(step) for step in range(40)]
        del kept[::2]
        total = np.sum(x)
        for value in kept:
            total = total + np.sum(ckad.grad(inner)(np.ones(3)) * value)
            total = total + np.sum(ckad.grad(lambda t, value=value: inner(t * value))(np.ones(3)))
        return total

    x = np.full(3, 2.0)
    odd = range(1, 40, 2)
    expected = 6.0 + sum(3.0 * 3.0 * 2.0 * step for step in odd)
    expected += sum(3.0 * (2.0 * (2.0 * step) ** 2 + 2.0 * step) for step in odd)
    assert ckad.value_and_grad(f)(x)[0] == expected


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="the interpreter counts no references")
def test_objects_that_are_used_again_are_counted() -> None:
    run = lambda: ckad.grad(lambda x: np.sum(x * x + x))(np.ones(3))
    for _ in range(20):
        run()
    before = sys.gettotalrefcount()  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(100):
        run()
    assert sys.gettotalrefcount() - before < 100  # pyright: ignore[reportAttributeAccessIssue]


def test_memory_of_objects_that_are_used_again_is_traced() -> None:
    tracemalloc.start()
    try:

        def f(x: Any) -> Any:
            y = x * 2.0
            del y
            y = x * 3.0
            made = tracemalloc.get_object_traceback(y)
            assert made is not None
            first = f.__code__.co_firstlineno
            assert (made[0].filename, made[0].lineno) == (__file__, first + 3)
            return np.sum(y)

        ckad.grad(f)(np.ones(3))
    finally:
        tracemalloc.stop()


def test_what_python_sees_of_the_class() -> None:
    def f(x: Any) -> Any:
        assert isinstance(x, ckad.Tracer)
        assert type(x).__name__ == "Tracer"
        assert type(x).__module__ == "ckad"
        with pytest.raises(TypeError, match="unhashable"):
            hash(x)
        with pytest.raises(TypeError):
            type(x)()
        return np.sum(x)

    ckad.grad(f)(np.ones(3))
