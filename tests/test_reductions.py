"""Reductions, scans, sorts and searches of the shapes and values at which implementations differ from NumPy: rank 0,
no elements, one element, zeros of either sign, infinities and NaN. Compared are values by their bits, shapes, dtypes,
scalar or array, and which exception is raised.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import DTypeError

NOT_GIVEN = object()

OPERANDS: dict[str, Any] = {
    "scalar": np.float64(2.5),
    "negative zero scalar": np.float64(-0.0),
    "rank 0": np.array(2.5),
    "negative zero of rank 0": np.array(-0.0),
    "NaN of rank 0": np.array(np.nan),
    "infinity of rank 0": np.array(np.inf, np.float32),
    "one element": np.array([-3.0]),
    "one negative zero": np.array([-0.0]),
    "one negative zero in two axes": np.array([[-0.0]], np.float32),
    "zeros of both signs": np.array([[-0.0, -0.0], [-0.0, 0.0]]),
    "not finite": np.array([[1.0, np.inf, -0.0], [np.nan, -np.inf, 2.0]]),
    "infinities": np.array([np.inf, np.inf, -np.inf]),
    "two in F order": np.asfortranarray([[0.75, -0.5], [2.0, -0.0]]),
    "nothing": np.zeros(0),
    "no rows": np.zeros((0, 3)),
    "no columns": np.zeros((2, 0), np.float32),
    "none of three axes": np.zeros((2, 0, 3)),
    "integer of rank 0": np.array(3),
    "one small integer": np.array([3], np.uint8),
    "no integers": np.zeros((0, 2), np.int32),
    "boolean of rank 0": np.array(True),
    "booleans": np.array([[True, False], [True, True]]),
    "no booleans": np.zeros((3, 0), np.bool_),
}

AXES: list[Any] = [NOT_GIVEN, None, 0, -1, 1, 2, -3, (), (0,), (-1,), (0, 1), (0, 0), (0, -1), np.int64(0), 0.0, [0]]
STARTS: list[Any] = [NOT_GIVEN, None, -0.0, 0, -1.0, 2.5, np.inf, -np.inf, np.nan, True, np.float64(-0.0)]

# What each function takes beside its operand and axis.
FUNCTIONS: dict[str, list[tuple[str, list[Any]]]] = {
    "sum": [("keepdims", [True, False]), ("initial", STARTS)],
    "prod": [("keepdims", [True, False]), ("initial", STARTS)],
    "max": [("keepdims", [True, False]), ("initial", STARTS)],
    "min": [("keepdims", [True, False]), ("initial", STARTS)],
    "any": [("keepdims", [NOT_GIVEN, True, False])],
    "all": [("keepdims", [NOT_GIVEN, True, False])],
    "mean": [("keepdims", [NOT_GIVEN, True, False])],
    "var": [("keepdims", [NOT_GIVEN, True, False]), ("ddof", [NOT_GIVEN, 1])],
    "std": [("keepdims", [NOT_GIVEN, True, False]), ("ddof", [NOT_GIVEN, 1])],
    "argmax": [("keepdims", [NOT_GIVEN, True, False])],
    "argmin": [("keepdims", [NOT_GIVEN, True, False])],
    "cumsum": [],
    "cumprod": [],
    "sort": [],
    "argsort": [],
    "linalg.norm": [("keepdims", [NOT_GIVEN, True]), ("ord", [NOT_GIVEN, 1, np.inf, 0])],
}
METHODS = [name for name in FUNCTIONS if name not in ("sort", "linalg.norm")]
UFUNCS = ["add", "multiply", "maximum", "minimum", "fmax", "fmin", "logical_and", "logical_or", "logical_xor"]
UFUNCS += ["hypot", "logaddexp", "subtract", "divide", "bitwise_and", "bitwise_or", "gcd", "equal"]
# Folded in halves here and one by one there, of which each rounds in its own way.
ROUNDED = {"hypot", "logaddexp"}
# Which of two zeros these give depends on NumPy's vector instructions.
ZEROS_OF_EITHER_SIGN = {"fmax", "fmin"}


def keywords_of(name: str) -> Iterator[dict[str, Any]]:
    further = [[(key, value) for value in values] for key, values in FUNCTIONS[name]]
    for axis in AXES:
        for chosen in itertools.product([("axis", axis)], *further):
            yield {key: value for key, value in chosen if value is not NOT_GIVEN}


def outcome(call: Callable[[Any], Any], x: Any) -> Any:
    """What the call returns, or the exception that it raises."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call(x)
        except Exception as error:
            return error


def outcomes(calls: list[Callable[[Any], Any]], x: Any) -> list[Any]:
    """The same of traced operands, all in one trace."""

    def recorded(anchor: Any, x: Any) -> Any:
        return anchor * 0.0, [outcome(call, x) for call in calls]

    if x.dtype.kind == "f":
        found = ckad.value_and_grad(lambda x: recorded(np.sum(x), x), has_aux=True)(x)[0][1]
    else:
        found = ckad.value_and_grad(recorded, has_aux=True)(1.0, x)[0][1]
    return found


def bits(x: Any) -> bytes:
    """Of floats, all NaN alike."""
    x = np.asarray(x)
    return np.where(np.isnan(x), np.asarray(np.nan, x.dtype), x).tobytes() if x.dtype.kind == "f" else x.tobytes()


def steps(x: np.ndarray) -> list[int]:
    """The strides that mean something."""
    return [stride for extent, stride in zip(x.shape, x.strides, strict=True) if extent > 1]


def is_near(found: Any, expected: Any, ulps: int) -> bool:
    if bits(found) == bits(expected):
        return True
    near = (
        np.isclose(found, expected, rtol=ulps * np.finfo(expected.dtype).eps, atol=0, equal_nan=True) if ulps else False
    )
    return bool(np.all(near & (np.signbit(found) == np.signbit(expected))))


def difference(found: Any, expected: Any, ulps: int) -> str | None:
    """What distinguishes the two, or None."""
    if isinstance(expected, Exception) or isinstance(found, Exception):
        if isinstance(expected, Exception) and isinstance(found, Exception):
            classes = [kind for kind in (IndexError, TypeError, ValueError) if isinstance(expected, kind)]
            missing = [kind.__name__ for kind in classes if not isinstance(found, kind)]
            return f"{found!r} is no {missing}, which {expected!r} is" if missing else None
        return f"{found!r} instead of {expected!r}"
    if type(found) is not type(expected):
        return f"{type(found)} instead of {type(expected)}"
    if (np.shape(found), found.dtype) != (np.shape(expected), expected.dtype):
        return f"{found.dtype}{np.shape(found)} instead of {expected.dtype}{np.shape(expected)}"
    if not is_near(found, expected, ulps):
        return f"{found!r} instead of {expected!r}"
    if isinstance(expected, np.ndarray) and expected.size and steps(found) != steps(expected):
        return f"strides {found.strides} instead of {expected.strides}"
    return None


def is_float16(x: Any) -> bool:
    """NumPy computes some functions of small integers in float16, which is refused here."""
    return getattr(x, "dtype", None) == np.float16


def assert_numpys(named: list[tuple[str, Callable[[Any], Any]]], x: Any, ulps: int = 0) -> None:
    found = outcomes([call for _, call in named], x)
    wrong = []
    for (name, call), result in zip(named, found, strict=True):
        expected = outcome(call, x)
        what = None if is_float16(expected) and isinstance(result, DTypeError) else difference(result, expected, ulps)
        if what is not None:
            wrong.append(f"{name}: {what}")
    assert not wrong, f"{len(wrong)} of {len(named)} for {x!r}:\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, operand: str) -> None:
    function: Any = np.linalg.norm if name == "linalg.norm" else getattr(np, name)
    calls: list[tuple[str, Callable[[Any], Any]]] = []
    for given in keywords_of(name):
        calls.append((f"np.{name}(x, **{given})", lambda x, given=given: function(x, **given)))
    assert_numpys(calls, OPERANDS[operand])


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str, operand: str) -> None:
    calls: list[tuple[str, Callable[[Any], Any]]] = []
    for given in keywords_of(name):
        calls.append((f"x.{name}(**{given})", lambda x, given=given: getattr(x, name)(**given)))
    assert_numpys(calls, OPERANDS[operand])


@pytest.mark.parametrize("operand", OPERANDS)
@pytest.mark.parametrize("name", UFUNCS)
def test_reductions_of_ufuncs(name: str, operand: str) -> None:
    reduce = getattr(np, name).reduce
    # A sum with +0 has one kind of zero.
    alike: Any = (lambda x: x + np.zeros((), x.dtype)) if name in ZEROS_OF_EITHER_SIGN else lambda x: x
    calls: list[tuple[str, Callable[[Any], Any]]] = []
    starts = [NOT_GIVEN, None, -0.0, -1.0, np.inf, True]
    axes = [NOT_GIVEN, None, 0, -1, 2, (), (0, 1)]
    further = [(False, NOT_GIVEN), (True, NOT_GIVEN), (False, True), (True, False)]
    for axis, start, (keepdims, where) in itertools.product(axes, starts, further):
        given = {"axis": axis, "keepdims": keepdims, "initial": start, "where": where}
        given = {key: value for key, value in given.items() if value is not NOT_GIVEN}
        calls.append((f"np.{name}.reduce(x, **{given})", lambda x, given=given: alike(reduce(x, **given))))
    assert_numpys(calls, OPERANDS[operand], ulps=2 if name in ROUNDED else 0)


def test_the_derivative_of_a_sum_is_one_at_zeros_of_either_sign() -> None:
    zeros = np.array([-0.0, -0.0])
    for start in (None, -0.0, 0.0):
        total = lambda x, start=start: np.sum(x, initial=start)
        np.testing.assert_array_equal(ckad.grad(total)(zeros), [1.0, 1.0])
        np.testing.assert_array_equal(ckad.jvp(total, (zeros,), (np.ones(2),))[1], 2.0)
        np.testing.assert_array_equal(ckad.hvp(total, zeros, np.ones(2)), [0.0, 0.0])
    value, gradient = ckad.value_and_grad(lambda start, x: np.sum(x, initial=start))(-0.0, zeros)
    assert np.signbit(value)
    assert gradient == 1.0
    assert ckad.grad(np.sum)(np.array([-0.0])) == 1.0
