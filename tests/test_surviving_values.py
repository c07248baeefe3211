"""A traced value that outlives its transform raises at whatever is done with it, and says which line made it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_layouts import CASES

import ckad
from ckad.errors import TracerError


def survivors() -> tuple[Any, Any, Any]:
    """A vector, a scalar and an array of two axes, of a transform that has returned."""
    keep: list[Any] = []

    def f(x: Any) -> Any:
        keep.extend([x * 2, np.sum(x), x[None] * x[:, None]])  # made here
        return np.sum(x)

    ckad.grad(f)(np.ones(3))
    return keep[0], keep[1], keep[2]


USES: dict[str, Callable[[Any], Any]] = {
    "==": lambda x: x == 1,
    "!=": lambda x: x != 1,
    ">": lambda x: x > 1,
    "+": lambda x: x + 1,
    "1 -": lambda x: 1 - x,
    "**": lambda x: x**2,
    "@": lambda x: x @ x,
    "-": lambda x: -x,
    "divmod": lambda x: divmod(x, 2),
    "abs": abs,
    "bool": bool,
    "float": float,
    "int": int,
    "round": round,
    "str": str,
    "format": lambda x: f"{x:.3f}",
    "in": lambda x: 1.0 in x,
    "iter": lambda x: list(x),
    "reversed": lambda x: list(reversed(x)),
    "np.asarray": np.asarray,
    "np.copy": np.copy,
    "np.sin": np.sin,
    "np.add(out=)": lambda x: np.add(x, 1, out=x),
    "np.add.reduce": np.add.reduce,
    "stop_gradient": ckad.stop_gradient,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "fill": lambda x: x.fill(1),
    "x[0]": lambda x: x[0],
    "x[0] = 1": lambda x: x.__setitem__(0, 1.0),
    "+=": lambda x: x.__iadd__(1),
    "**=": lambda x: x.__ipow__(2),
    "@=": lambda x: x.__imatmul__(np.eye(3)),
    "T": lambda x: x.T,
    "as an index": lambda x: np.arange(3)[x > 0],
    "beside a new one": lambda x: ckad.grad(lambda y: np.sum(x * y))(np.ones(3)),
    "as an argument": lambda x: ckad.grad(np.sum)(x),
    "as a captured output": lambda x: ckad.jvp(lambda y: x, (1.0,), (1.0,)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_use_names_the_line(use: Callable[[Any], Any]) -> None:
    vector, scalar, square = survivors()
    with pytest.raises(TracerError, match=r"after the transform .* returned.*test_surviving_values\.py"):
        use(vector)
    for x in (scalar, square):
        with pytest.raises((TracerError, AttributeError, TypeError, ValueError, IndexError)) as caught:
            use(x)
        assert not isinstance(caught.value, TracerError) or "test_surviving_values.py" in str(caught.value)


# They look at no value: facts of the array, and what hands it back.
SILENT = {"shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides", "flags", "conj", "conjugate"} | {
    "item",
    "tolist",
    "broadcast_arrays",
    "atleast_1d",
    "atleast_2d",
    "real",
    "real_if_close",
    "iscomplex",
    "isrealobj",
    "iscomplexobj",
}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_every_function_and_method_names_the_line(name: str, case: Callable[[Any], Any]) -> None:
    if name.rpartition(".")[2] in SILENT:
        return
    _, _, square = survivors()
    with pytest.raises(TracerError, match=r"after the transform .* returned.*test_surviving_values\.py"):
        case(square)
