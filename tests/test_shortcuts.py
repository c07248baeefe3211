"""Routes past the Python layer record what it records: the same graph, layout and errors."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.numpy import products, reductions, selection, shaping

_rng = np.random.default_rng(5)


def _array(*shape: int, dtype: Any = np.float64) -> Any:
    return (_rng.random(shape) * 5).astype(dtype)


ARRAYS: dict[str, Any] = {
    "scalar": np.float64(1.5),
    "rank 0": np.array(1.5),
    "vector": _array(4),
    "reversed": _array(4)[::-1],
    "every other": _array(8)[::2],
    "matrix": _array(3, 4),
    "F order": np.asfortranarray(_array(4, 3)),
    "strided": _array(6, 8)[::2, ::-2],
    "one column": _array(3, 1),
    "one element": _array(1, 1),
    "three axes": _array(2, 3, 4),
    "axes turned": _array(2, 3, 4).transpose(2, 0, 1),
    "no rows": np.zeros((0, 4)),
    "no columns": np.zeros((3, 0)),
    "float32": _array(3, 4, dtype=np.float32),
    "int32": _array(4, 4, dtype=np.int32),
    "uint8": _array(4, dtype=np.uint8),
    "bool": _array(3, 4, dtype=np.int8) > 2,
}


def recorded(call: Callable[..., Any], *args: Any) -> Any:
    """The graph without its lines and the layout of the result, or the exception."""
    layouts: list[Any] = []

    def noted(*args: Any) -> Any:
        result = call(*args)
        flags = result.flags
        # Strides of axes of length 1 mean nothing.
        steps = [stride for extent, stride in zip(result.shape, result.strides, strict=True) if extent != 1]
        layouts.append((type(result), result.shape, steps, result.dtype, flags.writeable, flags.c_contiguous))
        # Whether it is a view shows when it is written to.
        if result.ndim and flags.writeable and result.dtype.kind == "f":
            result[...] = 2.0
        return (result, *(x for x in args if isinstance(x, ckad._core.Tracer)))

    with np.errstate(all="ignore"):
        try:
            graph = ckad.trace(noted)(*args)
        except Exception as error:
            return type(error), str(error)
    return re.sub(r"\S+\.py:\d+", "", str(graph)), layouts


def assert_same_route(plain: Callable[..., Any], general: Callable[..., Any], *args: Any) -> Any:
    found, expected = recorded(plain, *args), recorded(general, *args)
    assert found == expected
    return found


REDUCTIONS = {
    np.sum: reductions.sum,
    np.max: reductions.max,
    np.amax: reductions.max,
    np.min: reductions.min,
    np.amin: reductions.min,
    np.any: reductions.any,
    np.all: reductions.all,
    np.mean: reductions.mean,
}
AXES: list[Any] = [None, 0, 1, -1, 2, 3, (), (0,), (0, -1), (1, 0), (0, 0), [0], 0.5, "0"]
KEYWORDS: list[dict[str, Any]] = [
    {**axis, **keepdims}
    for axis in [{}, *({"axis": axis} for axis in AXES)]
    for keepdims in ({}, {"keepdims": True}, {"keepdims": False}, {"keepdims": 1})
]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda function: function.__name__)
def test_reductions(function: Any, array: str) -> None:
    handler = REDUCTIONS[function]
    for keywords in KEYWORDS:
        assert_same_route(lambda x: function(x, **keywords), lambda x: handler(x, **keywords), ARRAYS[array])  # noqa: B023
    assert_same_route(lambda x: function(x, 0), lambda x: handler(x, 0), ARRAYS[array])
    if function is np.mean:
        assert_same_route(lambda x: x.mean(0), lambda x: handler(x, 0), ARRAYS[array])
        assert_same_route(lambda x: x.mean(keepdims=True), lambda x: handler(x, keepdims=True), ARRAYS[array])
        assert_same_route(lambda x: x.mean(0, np.float32), lambda x: handler(x, 0, np.float32), ARRAYS[array])


@pytest.mark.parametrize("first", ARRAYS)
@pytest.mark.parametrize("second", ARRAYS)
def test_products(first: str, second: str) -> None:
    a, b = ARRAYS[first], ARRAYS[second]
    found = assert_same_route(np.dot, products.dot, a, b)
    assert_same_route(lambda a, b: a.dot(b), products.dot, a, b)
    assert_same_route(lambda a, b: np.dot(b.T, a.T), lambda a, b: products.dot(b.T, a.T), a, b)
    # Beside an array that is not traced.
    assert_same_route(lambda a: np.dot(a, b), lambda a: products.dot(a, b), a)
    assert_same_route(lambda b: np.dot(a, b), lambda b: products.dot(a, b), b)
    if a.dtype == b.dtype and {np.ndim(a), np.ndim(b)} <= {1, 2} and not isinstance(found[0], type):
        assert recorded(lambda a, b: a @ b, a, b) == recorded(np.matmul, a, b) == found


def test_products_with_lists_and_out() -> None:
    x = ARRAYS["matrix"]
    for other in ([1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4], 2.0, 2, "text", None):
        assert_same_route(lambda x: np.dot(x, other), lambda x: products.dot(x, other), x)  # noqa: B023
        assert_same_route(lambda x: x.dot(other), lambda x: products.dot(x, other), x)  # noqa: B023
    assert_same_route(lambda x: np.dot(x, x[0], out=None), lambda x: products.dot(x, x[0]), x)
    assert_same_route(lambda x: x.dot(b=x[0]), lambda x: products.dot(x, b=x[0]), x)


SHAPES: list[Any] = [(), 1, -1, 4, 12, (12,), (-1,), (3, 4), (4, 3), (2, -1), (-1, 2), (2, 2, 3), (1, -1, 1), (-1, -1)]
SHAPES += [(5,), (0,), (0, -1), (-2,), [4, 3], [12], (np.int64(4), 3), np.array([4, 3]), (2.0, 6), 12.0, "12", None]


@pytest.mark.parametrize("array", ARRAYS)
def test_reshapes(array: str) -> None:
    for shape in SHAPES:
        assert_same_route(lambda x: np.reshape(x, shape), lambda x: shaping.reshape(x, shape), ARRAYS[array])  # noqa: B023


@pytest.mark.parametrize(
    "condition", ["rank 0", "vector", "matrix", "strided", "bool", "int32", "scalar", "three axes"]
)
def test_choices(condition: str) -> None:
    values = [ARRAYS[name] for name in ("scalar", "vector", "matrix", "strided", "float32", "int32", "one column")]
    for x, y in itertools.product([*values, 2.0, 1, True, [1.0, 2.0, 3.0, 4.0]], repeat=2):
        for mask in (lambda c: c > 1, lambda c: c):
            plain = lambda c, x, y, mask=mask: np.where(mask(c), x, y)
            general = lambda c, x, y, mask=mask: selection.where(mask(c), x, y)
            assert_same_route(plain, general, ARRAYS[condition], x, y)


def python_frames(f: Callable[..., Any], *args: Any) -> int:
    """Frames of ckad's Python layer that recording f enters."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and f"{os.sep}ckad{os.sep}numpy" in frame.f_code.co_filename:
            entered.append(frame.f_code.co_name)

    def watched(*args: Any) -> Any:
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            return 0.0 * args[0].sum(), f(*args)
        finally:
            sys.setprofile(before)

    ckad.value_and_grad(watched, has_aux=True)(*args)
    return len(entered)


def test_plain_calls_enter_no_python() -> None:
    x = ARRAYS["matrix"]
    for f in (
        np.sum,
        np.mean,
        np.max,
        lambda x: x.mean(axis=0),
        lambda x: np.min(x, axis=0),
        lambda x: np.sum(x, 1, keepdims=True),
        lambda x: np.where(x > 1, x, 0.0),
        lambda x: np.dot(x, x.T),
        lambda x: np.dot(x, np.ones(4)),
        lambda x: x.dot(x[0]),
        lambda x: x @ x[0],
        lambda x: np.reshape(x, (2, -1)),
    ):
        assert python_frames(f, x) == 0
    assert python_frames(lambda x: np.sum(x, initial=1.0), x) > 0
