"""NumPy's operators, universal functions and indexing on traced values: results, dtypes, errors."""

from __future__ import annotations

import copy
import itertools
import math
import operator
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import CkadIndexError, CkadRuntimeError, DTypeError, ShapeError, TracerError

DTYPES = ["bool", "int8", "int16", "int64", "uint8", "uint32", "uint64", "float32", "float64"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def traced(f: Callable[..., Any], *args: Any) -> list[Any]:
    """The values that f gives on traced, undifferentiated arguments, as a flat list."""

    def program(unused: Any, *traced: Any) -> Any:
        result = f(*traced)
        return unused, list(result) if isinstance(result, (tuple, list)) else [result]

    (_, values), _ = ckad.value_and_grad(program, has_aux=True)(1.0, *args)
    return values


def differentiated(f: Callable[..., Any], *args: Any) -> Any:
    """What f gives on differentiated arguments."""
    return ckad.vjp(f, *args)[0]


def compare(f: Callable[..., Any], *args: Any) -> None:
    """NumPy and the traced program agree in values, dtypes and shapes, or both refuse."""
    try:
        expected = f(*[np.copy(arg, "K") if isinstance(arg, np.ndarray) else arg for arg in args])
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        kinds = (OverflowError, ValueError, TypeError, IndexError)
        # An unsigned array to a negative power is refused for either of two reasons.
        kind = (OverflowError, ValueError) if isinstance(error, OverflowError) else kinds
        with pytest.raises(kind):
            traced(f, *args)
        return
    expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
    if any(np.asarray(value).dtype == np.float16 for value in expected):
        with pytest.raises(DTypeError, match=r"float16|not supported"):
            traced(f, *args)
        return
    found = traced(f, *args)
    for a, b in zip(expected, found, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        single = a.dtype == np.float32
        np.testing.assert_allclose(b.astype(float), a.astype(float), rtol=1e-5 if single else 1e-12)


UNSUPPORTED = {"isnat", "vecmat", "matvec", "vecdot"}
UFUNCS = sorted({u.__name__: u for u in vars(np).values() if isinstance(u, np.ufunc) and not u.signature}.items())


@pytest.mark.parametrize(("name", "ufunc"), UFUNCS)
def test_ufunc(name: str, ufunc: np.ufunc) -> None:
    for dtypes in itertools.product(DTYPES, repeat=ufunc.nin):
        args = [np.array([0, 1, 2, 3]).astype(dtype) for dtype in dtypes]
        if name in UNSUPPORTED:
            with pytest.raises(TracerError, match=name):
                traced(ufunc, *args)
        elif name == "reciprocal" and "float" not in dtypes[0]:
            with pytest.raises(DTypeError, match="reciprocal"):
                traced(ufunc, *args)
        elif name == "ldexp" and dtypes[1] == "uint64":
            with pytest.raises(DTypeError, match="uint64"):
                traced(ufunc, *args)
        else:
            compare(ufunc, *args)


OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift,
    operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge, divmod,
]  # fmt: skip
OTHERS = [True, 2, -3, 300, 0.5, 2.0, 1e300, np.float32(2), np.float64(3), np.int8(2), np.uint8(200), np.bool_(True),
          [1, 2, 3, 4], np.array(2.5, dtype="f4")]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATORS, ids=lambda f: f.__name__)
def test_operators_promote_as_numpys(operation: Callable[..., Any]) -> None:
    for dtype, other in itertools.product(DTYPES, OTHERS):
        x = np.array([1, 2, 3, 5]).astype(dtype)
        compare(lambda x: operation(x, other), x)  # noqa: B023
        compare(lambda x: operation(other, x), x)  # noqa: B023


def test_methods_of_ufuncs() -> None:
    x, y = np.array([[3.0, 1.0], [2.0, 5.0]]), np.array([1.0, 2.0, 3.0])
    for reduce in (np.add, np.multiply, np.maximum, np.minimum, np.logical_and, np.logical_or):
        for keywords in ({}, {"axis": 1}, {"axis": None}, {"keepdims": True}):
            compare(lambda x: reduce.reduce(x, **keywords), x)  # noqa: B023
    compare(lambda x: np.add.reduce(x, initial=3.0), x)
    compare(np.subtract.reduce, x)
    compare(np.subtract.outer, x, y)
    compare(lambda x: np.multiply(x, 2, out=x), x)
    compare(lambda x: np.negative(x, out=x, where=x > 2.5), x)
    compare(lambda x: np.add(x, 1, dtype=np.float32), x)
    for refused in (
        lambda x: np.add.at(x, 0, 1),
        lambda x: np.add.accumulate(x),
        lambda x: np.add(x, 1, where=x > 2),
        lambda x: np.add(x, 1, casting="no"),
        lambda x: np.frompyfunc(abs, 1, 1)(x),
    ):
        with pytest.raises(TracerError):
            differentiated(refused, x)
    # Where nothing is differentiated, NumPy itself does what ckad does not.
    compare(np.add.accumulate, x)
    compare(lambda x: np.multiply.reduceat(x, [0, 1]), x)


def test_products_of_bools_are_logical() -> None:
    rng = np.random.default_rng(5)
    vector, matrix, stack = (rng.random(shape) < 0.4 for shape in [(4,), (4, 4), (2, 4, 4)])
    for a, b in itertools.product((vector, matrix, stack), repeat=2):
        for product in (np.matmul, np.dot, np.inner, np.vdot, np.vecdot, np.matvec, operator.matmul):
            compare(product, a, b)
    compare(lambda a: np.einsum("ij,jk", a, a), matrix)
    compare(lambda a: np.tensordot(a, a), matrix)
    many = np.ones(300, np.bool_)
    compare(np.dot, many, many)
    for dtype in ("int8", "uint8", "int32", "uint64"):
        compare(np.matmul, (matrix * 100).astype(dtype), (matrix * 3).astype(dtype))
        compare(np.dot, (matrix * 100).astype(dtype), matrix)


def test_negative_powers_of_integers_raise() -> None:
    base = np.array([2, 3, 1])
    for exponent in (-1, np.int64(-2), np.array([1, -1, 0]), np.array([-3], np.int8), np.array([0, 1, 2])):
        compare(operator.pow, base, exponent)
        compare(lambda e: np.power(np.array([2, 3, 1]), e), np.asarray(exponent))
        compare(lambda x, e=exponent: x**e, base)
    with pytest.raises(ValueError, match=r"\[power\] integers to negative integer powers.*Hint"):
        traced(operator.pow, base, np.array([1, -1, 0]))
    compare(lambda x, e: x ** (e - 3), np.array([2.0]), base)


@pytest.mark.parametrize(
    "index",
    [5, (0, 9), (0, 0, 0), [5], 0.5, (..., ...), [0.5], np.array([True, False]), ([0, 1], [0, 1, 2]), 2**70, "a"],
    ids=str,
)
def test_index_errors_say_what_to_do(index: Any) -> None:
    x = np.zeros((3, 4))
    with pytest.raises(IndexError):
        x[index]
    with pytest.raises(CkadIndexError, match=r"^\[index\] .*Hint: ") as caught:
        traced(lambda x: x[index], x)
    assert caught.value.op == "index"
    assert caught.value.hint


def test_products() -> None:
    shapes = [(3,), (3, 3), (2, 3), (3, 2), (2, 3, 3), (1, 3, 3), (2, 1, 3, 3), (4, 2, 3, 3)]
    for a, b in itertools.product(shapes, shapes):
        left = np.arange(float(math.prod(a))).reshape(a)
        right = np.arange(float(math.prod(b))).reshape(b) - 2
        compare(operator.matmul, left, right)
        compare(operator.matmul, np.asfortranarray(left), right[..., ::-1])
    compare(lambda x, y: x.T @ y.T, np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)[:, :2])


def in_place(name: str) -> Callable[[Any, Any], Any]:
    def f(x: Any, y: Any) -> Any:
        alias = x[:]
        x = getattr(operator, name)(x, y)
        return x, alias

    return f


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"])
def test_in_place(name: str) -> None:
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    compare(in_place(name), x, x.T + 1)
    compare(in_place(name), x, np.float32(2) if name != "imatmul" else x)
    integers = np.array([[1, 2], [3, 4]])
    compare(in_place(name), integers, 1.5)


def test_indices_that_are_traced() -> None:
    x, i = np.arange(12.0).reshape(3, 4), np.array([2, 0, -1])
    compare(lambda x, i: x[i], x, i)
    compare(lambda x, i: x[:, i], x, i)
    compare(lambda x, i: x[i, i], x, i)
    compare(lambda x, i: x[i[0]], x, i)
    compare(lambda x, i: x[i[1] : i[0], 1], x, i)
    compare(lambda x, i: x[x > 4], x, i)
    compare(lambda x, i: x[x[:, 0] > 1], x, i)
    compare(lambda x, i: np.arange(9.0)[i], x, i)
    compare(lambda x, i: [1, 2, 3][i[0]], x, i)

    def write(x: Any, i: Any) -> Any:
        x[i, 1] = [1.0, 2.0, 3.0]
        x[i[0]] += 1
        x[x > 6] = 0
        return x

    compare(write, x, i)
    for index in (3, -4, (0, 4), (slice(None), [0, 4]), [3], (0, 0, 0), 1.0, "a", np.array([True, False]), (..., ...)):
        compare(lambda x, index=index: x[index], x)
    with pytest.raises(IndexError):
        traced(lambda x, i: x[i + 5], x, i)


def strides_that_count(x: Any) -> list[int]:
    """Strides of axes of length 1 and of empty arrays mean nothing."""
    return [s for s, n in zip(x.strides, x.shape, strict=True) if n > 1 and x.size]


def test_positions_of_axes_with_integer_arrays() -> None:
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    i, j = np.array([[0], [1]]), np.array([1, 0])
    for index in (
        (i,), (slice(None), i), (slice(None), i, j), (i, slice(None), j), (0, slice(None), j), (slice(None), 0, j),
        (..., j), (None, i, j), (i, None, j), (j, ..., 0), (slice(None), [True, False, True]), (True, j), (False,),
        np.array(1), (np.array(1), slice(None)), [], ([], 0),
    ):  # fmt: skip
        compare(lambda x, index=index: x[index], x)
        compare(lambda x, index=index: strides_that_count(x[index]), x)


def test_no_gradient_is_lost_silently() -> None:
    a = np.zeros(3)
    cases: list[Callable[[Any], Any]] = [
        float, complex, math.sin, np.asarray, np.float64, lambda x: np.array([x, x]),
        lambda x: a.__setitem__(0, x), lambda x: a.fill(x), lambda x: a.__iadd__(x), lambda x: np.copyto(a, x),
        lambda x: np.add(a, x, out=a), lambda x: np.full(3, x), lambda x: np.full_like(a, x), lambda x: x.item(),
        lambda x: np.array([1.0, x]), lambda x: a.dot(np.stack([x, x, x])), lambda x: np.arange(x),
        lambda x: np.vectorize(abs)(x), lambda x: np.nan_to_num(a, nan=x),
        lambda x: np.zeros(3, int, like=x).__setitem__(0, x),
    ]  # fmt: skip
    for case in cases:
        with pytest.raises(TracerError, match="Hint"):
            differentiated(case, 0.5)
        assert not a.any()
    # What depends on nothing differentiated converts, and ckad.stop_gradient is the way to say so.
    assert traced(lambda x: float(x[0]) + math.sin(x[1]), np.arange(3.0))[0] == pytest.approx(math.sin(1))
    assert differentiated(lambda x: x * float(ckad.stop_gradient(x)), 3.0) == 9.0


def test_arguments_convert_back_to_the_very_array() -> None:
    x = np.arange(6.0).reshape(2, 3).T

    def f(unused: Any, y: Any) -> Any:
        assert np.asarray(y) is x
        assert np.asarray(y.T) is not x
        y[0, 0] = 5.0
        assert np.asarray(y)[0, 0] == 5.0
        return unused

    ckad.grad(f)(1.0, x)
    assert x[0, 0] == 0


def test_errors_say_what_and_what_to_do() -> None:
    x = np.ones((3, 4))
    cases: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
        (lambda x: x + np.ones(5), ShapeError, r"\(3, 4\) and \(5,\)"),
        (lambda x: x @ np.ones(3), ShapeError, r"\(3, 4\) @ \(3,\)"),
        (lambda x: x.reshape(5), ShapeError, r"size 12 into shape \(5,\)"),
        (lambda x: x[3], CkadIndexError, "index 3 is out of bounds for axis 0 with size 3"),
        (lambda x: x.__setitem__(0, np.ones(3)), ShapeError, r"\(3,\) into shape \(4,\)"),
        (lambda x: x + 1j, DTypeError, "complex"),
        (lambda x: np.fft.fft(x), TracerError, r"np\.fft\.fft"),
        (lambda x: x.nothing, AttributeError, "'nothing'"),
        (lambda x: bool(x), ValueError, "ambiguous"),
        (lambda x: hash(x), TypeError, "unhashable"),
        (lambda x: pickle.dumps(x), TypeError, "pickled"),
        (lambda x: len(x[0, 0]), TypeError, "unsized"),
        (lambda x: list(x[0, 0]), TypeError, "0-d"),
        (lambda x: x.diagonal().__setitem__(0, 1), ValueError, "read-only"),
        (lambda x: x[0, 0].__setitem__((), 1), TracerError, "in place"),
        (lambda x: [1, 2, 3][x[0, 0]], TypeError, "index"),
    ]
    for case, kind, text in cases:
        with pytest.raises(kind, match=text):
            differentiated(case, x)


def test_python_protocols() -> None:
    x = np.array([1.25, 2.5, 3.0])

    def f(x: Any) -> Any:
        assert len(x) == 3
        assert 2.5 in x
        assert 7 not in x
        assert [float(ckad.stop_gradient(v)) for v in reversed(x)] == [3.0, 2.5, 1.25]
        assert f"{x[0]:.3f} {x[1]}" == "1.250 2.5"
        assert str(x) == str(np.array([1.25, 2.5, 3.0]))
        assert "float64[3]" in repr(x)
        assert int(x[2]) == 3
        assert round(x[1]) == 2
        assert x[0] == copy.copy(x)[0] == copy.deepcopy(x)[0]
        assert [bool(v) for v in (x > 2)] == [False, True, True]
        a, b, c = x
        return divmod(a + b + c, 2.0)

    quotient, remainder = differentiated(f, x)
    assert (quotient, remainder) == divmod(6.75, 2.0)
    gradient = ckad.grad(lambda x: round(x, 1) + x)(1.26)
    assert gradient == 1.0


def test_a_value_of_an_inner_trace_is_not_written_outside() -> None:
    def outer(x: Any) -> Any:
        def inner(y: Any) -> Any:
            x[0] = y
            return y * 2

        return ckad.grad(inner)(3.0) + np.sum(x)

    with pytest.raises(TracerError, match="inner"):
        ckad.grad(outer)(np.ones(3))


def test_outer_arrays_inside() -> None:
    def outer(x: Any) -> Any:
        view = x[::-1].T

        def inner(y: Any) -> Any:
            return np.sum(view * y) * x[0]

        return ckad.grad(inner)(x)[1]

    # d/dy₁ of Σ reversed(x)·y · x₀ is x₁ x₀ for three elements.
    np.testing.assert_allclose(ckad.grad(outer)(np.array([2.0, 3.0, 5.0])), [3.0, 2.0, 0.0])


def test_a_write_that_might_miss_an_alias_raises() -> None:
    def f(x: Any) -> Any:
        unknown = ckad._core.with_unknown_layout(x * 2)
        flat = unknown.reshape(-1)
        for written in (unknown, flat):
            with pytest.raises(TracerError, match="copy"):
                written[0] = 1
        copied = unknown.copy().reshape(-1)
        copied[0] = 1
        return copied

    assert differentiated(f, np.ones((2, 2)))[0] == 1


def test_values_that_outlive_their_trace() -> None:
    kept: list[Any] = []
    ckad.grad(lambda x: kept.append(x) or x * 2)(1.0)
    with pytest.raises(TracerError, match="has_aux"):
        kept[0] + 1
    with pytest.raises(TracerError, match="has_aux"):
        float(kept[0])


def operations(f: Callable[..., Any], *args: Any) -> list[str]:
    """The names of the operations that f records."""
    lines = str(ckad.trace(f)(*args)).splitlines()
    names = [line.split(" = ")[1].split("(")[0] for line in lines if " = " in line]
    return [name for name in names if name not in ("input", "literal", "scalar", "constant")]


def test_nothing_superfluous_is_recorded() -> None:
    c, f = np.ones((3, 4)), np.asfortranarray(np.ones((3, 4)))
    assert operations(lambda x, y: x.T @ y, c, c) == ["dot"]
    assert operations(lambda x, y: x @ y.T, c, f) == ["dot"]
    assert operations(lambda x: np.sin(x) * 2, f) == ["sin", "multiply"]
    assert operations(lambda x: (x.T + x.T).T, c) == ["add"]
    assert operations(lambda x: x.reshape(2, 6)[0], c)[-1] == "strided_read"

    def increment(x: Any) -> Any:
        x[1] += 2
        return x

    assert operations(increment, c) == ["strided_read", "add", "strided_write"]

    def everything(x: Any) -> Any:
        x.T[...] = np.sin(x.T)
        x += 1
        return x

    assert operations(everything, c) == ["sin", "add"]


def test_what_is_missing_is_a_ckad_error(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ckad.trace(np.sin)(1.0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CkadRuntimeError, match=r"^\[trace\] cannot run Graphviz.*Hint: install") as caught:
        graph.to_svg()
    assert caught.value.op == "trace"
    with pytest.raises(CkadRuntimeError, match=r"^\[plan\] .*Hint: pass a transformed"):
        ckad.plan(ckad.transforms.recording.mark_transform(lambda x: x))(1.0)
