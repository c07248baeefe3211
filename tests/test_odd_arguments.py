"""What NumPy makes of odd arguments: the same result, or an error of the same class in ckad's form."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

import ckad

FORM = re.compile(r"^\[[^\]\n]+\] .+\. Hint: .+", re.DOTALL)

ARRAYS = {
    "scalar": np.float64(1.5),
    "vector": np.array([0.4, 1.7, -0.6]),
    "matrix": np.arange(6.0).reshape(2, 3),
    "three axes": np.arange(12.0).reshape(2, 3, 2),
    "integers": np.arange(3),
    "nothing": np.zeros((2, 0)),
}

COUNTS = [
    "0",
    "-1",
    "2",
    "1.0",
    "1.5",
    "True",
    "np.int32(2)",
    "'a'",
    "None",
    "()",
    "[]",
    "(2, 0)",
    "(1, -1)",
    "[2, 1, 2]",
]
COUNTS += ["(1.0, 1)", "(2.0, 1)", "np.array([2, 2])", "np.array(2)", "np.array(1.5)", "[[1, 2]]"]
AXES = ["0", "-1", "1", "3", "-4", "0.0", "1.5", "'a'", "None", "[0]", "(0,)", "(0, 0)", "np.int64(0)", "[0, 1]"]

CALLS = [
    *(f"np.tile(x, {count})" for count in COUNTS),
    *(f"np.repeat(x, {count})" for count in COUNTS),
    *(f"np.{name}(x, {k})" for name in ("tril", "triu") for k in COUNTS),
    *(f"np.pad(x, {width})" for width in COUNTS),
    *(f"np.pad(x, 1, constant_values={value})" for value in COUNTS if value not in ("None", "'a'")),
    *(call for shape in COUNTS if shape not in ("None", "True")
      for call in (f"np.broadcast_to(x, {shape})", f"np.reshape(x, {shape})", f"x.reshape({shape})")),
    *(f"np.diff(x, {n})" for n in COUNTS),
    *(f"np.roll(x, {n}, 0)" for n in ("0", "-1", "1.5", "7")),
    *(f"np.append(x, {values})" for values in ("1", "x", "[]", "[[1.0, 2.0]]", "True")),
    *(f"np.append(x, x, axis={axis})" for axis in AXES),
    *(f"np.kron(x, {b})" for b in ("x", "2", "[]", "[[1, 2]]", "'a'", "np.ones((2, 1, 2))", "np.zeros((0, 2))")),
    *(f"np.{name}({arrays})" for name in ("column_stack", "dstack")
      for arrays in ("x", "[x]", "[x, x]", "(x, 1.0)", "[x, [1.0, 2.0]]", "[x, np.ones((2, 2))]")),
    *(f"np.atleast_3d({arrays})" for arrays in ("x", "x, 1.0", "x, [1, 2]")),
    *(f"np.{name}(x, axis={axis})" for axis in AXES
      for name in ("sum", "prod", "max", "any", "mean", "std", "cumsum", "cumprod", "argmax", "squeeze", "flip", "sort",
                   "argsort", "expand_dims")),
    *(f"np.take_along_axis(x, np.zeros(x.shape, int), {axis})" for axis in AXES),
    *(f"np.add.reduce(x, axis={axis})" for axis in AXES),
    *(f"np.{name}(x, initial={start})" for name in ("sum", "prod", "max", "min")
      for start in ("1", "[1, 2]", "[1]", "'a'", "np.ones(2)", "np.array(1.0)", "1.5", "()")),
    *(f"np.{name}([x, x], axis={axis})" for name in ("concatenate", "stack") for axis in AXES),
    *(f"x.{name}({axis}, 0)" for name in ("swapaxes", "transpose") for axis in AXES),
    *(f"x.diagonal({axis})" for axis in AXES if axis != "None"),
    *(f"x.{name}(order={order})" for name in ("ravel", "flatten", "copy") for order in ("'C'", "'Z'", "3", "None")),
    *(f"x.astype({dtype})" for dtype in ("'foo'", "float", "None", "3")),
    *(f"x.sum(keepdims={keep})" for keep in ("0", "1", "True")),
]  # fmt: skip


# Either error is right: where two things are wrong, ours may be the other one, and an array stands for its truth value.
OTHER_CLASS = re.compile(r"np\.tile\(x, ('a'|\[\[1, 2\]\])\)|np\.diff\(x, np\.array\(\[2, 2\]\)\)")
OTHER_CLASS_OF_SCALARS = re.compile(r"np\.(append\(.*axis=|concatenate|diff)")
# Here a count is the same whatever the array: NumPy refuses 1.0 for scalars alone, and takes -1 where there is nothing.
ONE_RULE = {("scalar", "np.tile(x, 1.0)"), ("scalar", "np.tile(x, (1.0, 1))")}
ONE_RULE |= {("nothing", "np.tile(x, -1)"), ("nothing", "np.tile(x, (1, -1))")}


def flat(value: Any) -> list[Any]:
    return [part for item in value for part in flat(item)] if isinstance(value, (list, tuple)) else [value]


def outcome(call: str, x: Any) -> Any:
    try:
        return flat(eval(call, {"np": np, "x": x}))
    except Exception as error:
        return error


def same_class(name: str, call: str, found: Exception, expected: Exception) -> bool:
    if OTHER_CLASS.match(call) or (name == "scalar" and OTHER_CLASS_OF_SCALARS.match(call)):
        return True
    return any(isinstance(found, kind) and isinstance(expected, kind) for kind in (TypeError, ValueError, IndexError))


def agrees(name: str, call: str, found: Any, expected: Any) -> bool:
    if isinstance(found, Exception) or isinstance(expected, Exception):
        if not (isinstance(found, Exception) and isinstance(expected, Exception)):
            return (name, call) in ONE_RULE
        return bool(FORM.match(str(found))) and same_class(name, call, found, expected)
    for one, other in zip(found, expected, strict=True):
        value = np.asarray(ckad.stop_gradient(one))
        if value.shape != np.shape(other) or not np.allclose(value, other, rtol=1e-13, equal_nan=True):
            return False
    return True


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_arguments(name: str) -> None:
    array, wrong = ARRAYS[name], []

    def recorded(x: Any, unit: Any) -> Any:
        for call in CALLS:
            found, expected = outcome(call, x), outcome(call, np.copy(array)[()])
            if not agrees(name, call, found, expected):
                wrong.append(f"{call}: {found!r:.200} and not {expected!r:.200}")
        return unit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # means of nothing
        ckad.vjp(recorded, array, 1.0) if array.dtype.kind == "f" else ckad.grad(recorded, argnums=1)(array, 1.0)
    assert not wrong, "\n".join(wrong)
