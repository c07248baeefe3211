"""Every supported function returns arrays that lie in memory as NumPy's do.

Where a result lies otherwise, `reshape` and `ravel` of it are a view where NumPy copies, or the reverse, and a later
write gives another value without an error. The cases are held against the functions and methods that are registered,
so that none is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad
from ckad import _core

PYTHON = Path(ckad.__file__).parent
Case = Callable[[Any], Any]

RNG = np.random.default_rng(5)


def arrangements() -> dict[str, np.ndarray]:
    """Arrays laid out in every way that matters; distinct values, some of them negative."""
    flat = RNG.permutation(24).astype(float) - 7.5
    two, three = flat[:12].reshape(3, 4), flat.reshape(2, 3, 4)
    padded = np.zeros((6, 8))
    padded[::2, ::2] = two
    padded_three = np.zeros((4, 6, 8))
    padded_three[::2, ::2, ::2] = three
    swapped = np.ascontiguousarray(three.transpose(1, 2, 0))
    return {
        "C": two,
        "F": np.asfortranarray(two),
        "square C": flat[:9].reshape(3, 3),
        "square F": np.asfortranarray(flat[:9].reshape(3, 3)),
        "backwards": two[::-1, ::-1],
        "F, one axis backwards": np.asfortranarray(two)[:, ::-1],
        "every second": padded[::2, ::2],
        "every second, transposed": padded[::2, ::2].T,
        "broadcast": np.broadcast_to(flat[:4], (3, 4)),
        "broadcast column": np.broadcast_to(flat[:3, None], (3, 4)),
        "column": flat[:3].reshape(3, 1),
        "row": flat[:4].reshape(1, 4),
        "C 3": three,
        "F 3": np.asfortranarray(three),
        "last first 3": three.transpose(2, 0, 1),
        "first two swapped 3": three.transpose(1, 0, 2),
        "last two swapped 3": three.transpose(0, 2, 1),
        "first last 3": swapped.transpose(2, 0, 1),
        "every second 3": padded_three[::2, ::2, ::2],
        "one axis backwards 3": three[:, ::-1],
        "one long 3": np.ascontiguousarray(two[None]).T,
        "one in the middle 3": np.asfortranarray(two)[:, None],
        "one axis": flat[:5].copy(),
        "one axis backwards": flat[:5][::-1],
        "empty": np.zeros((0, 3)),
        "empty 3": np.zeros((2, 0, 3)).transpose(2, 0, 1),
    }


ARRAYS = arrangements()


def same_layout(x: np.ndarray) -> np.ndarray:
    """A copy with the very strides of x."""
    low = sum(min(0, s * (n - 1)) for s, n in zip(x.strides, x.shape, strict=True)) if x.size else 0
    high = sum(max(0, s * (n - 1)) for s, n in zip(x.strides, x.shape, strict=True)) if x.size else 0
    memory = np.zeros((high - low) // x.itemsize + 1, x.dtype)
    copy = np.ndarray(x.shape, x.dtype, memory, -low, x.strides)
    copy[...] = x
    return copy


def repeats(x: np.ndarray) -> bool:
    """Is an element in several places? What a write does there is of no interest."""
    return x.size > 0 and any(stride == 0 and extent > 1 for stride, extent in zip(x.strides, x.shape, strict=True))


def on(*ranks: int, needs: Callable[[Any], bool] = lambda x: True) -> Callable[[Case], Case]:
    """Restricts a case to some ranks."""

    def restrict(case: Case) -> Case:
        def restricted(x: Any) -> Any:
            return case(x) if x.ndim in ranks and needs(x) else None

        return restricted

    return restrict


def along(function: Callable[..., Any], *args: Any, **keywords: Any) -> Case:
    """The function along each axis in turn, and over all."""
    return lambda x: [function(x, *args, axis=axis, **keywords) for axis in [*range(x.ndim), None]]


def reduced(function: Callable[..., Any]) -> Case:
    return lambda x: (
        [function(x, axis=axis) for axis in [*range(x.ndim), None, (0, x.ndim - 1) if x.ndim > 1 else 0]]
        + [function(x, axis=axis, keepdims=True) for axis in range(x.ndim)]
        + [function(x, axis=(), keepdims=True)]
    )


def square(x: Any) -> bool:
    return x.ndim >= 2 and x.shape[-1] == x.shape[-2]


def full(x: Any) -> bool:
    return x.size > 0


def beside(x: Any) -> np.ndarray:
    """Another array of its shape, in C order."""
    return np.arange(float(x.size)).reshape(x.shape)


def einsums(x: Any, least: int = 1, **keywords: Any) -> Any:
    letters = "abc"[: x.ndim]
    last, first = letters[-1], letters[0]
    subscripts: dict[str, tuple[Any, ...]] = {
        f"{letters}->{letters[::-1]}": (x,),
        f"{letters}": (x,),
        "...->...": (x,),
        f"{letters}->{first}": (x,),
        f"{letters}->{last}": (x,),
        f"{letters}->": (x,),
        f"...{last}->...": (x,),
        f"{letters},{letters}->{letters}": (x, x),
        f"{letters},{letters}->{letters[::-1]}": (x, x),
        f"{letters},{letters}->{letters} ": (x, beside(x)),
        "...,...->...": (x, x),
        "...z,...z->...": (x, x),
        "...z,...->...z": (x, x[..., 0]),
        f"{letters},{letters}->": (x, x),
        f"{letters},{letters}->{first}": (x, x),
        f"{letters},{letters[:-1]}z->{last}z": (x, x),
        f"{letters},{letters[:-1]}z->z{last}": (x, x),
        f"{letters},z{letters[1:]}->{first}z": (x, x),
        f"{letters},z{letters[1:]}->z{first}": (x, x),
        f"{letters},z->z{letters}": (x, np.arange(2.0)),
        f"{letters},z->{letters}z": (x, np.arange(2.0)),
        f"{letters},{letters},{letters}->{letters}": (x, x, beside(x)),
        f"{letters},{last}z,{last}y->yz{first}": (x, np.ones((x.shape[-1], 2)), np.ones((x.shape[-1], 3))),
    }
    if x.ndim == 3:
        subscripts |= {
            "abc,abd->acd": (x, x),
            "abc,abd->adc": (x, x),
            "abc,abd->cda": (x, x),
            "...ij,...kj->...ik": (x, x),
            "...ij->...i": (x,),
            "abc,dbc->ad": (x, x),
        }
    if square(x):
        subscripts |= {"...ii->...i": (x,), "...ii->...": (x,), "...ii,...i->...i": (x, x[..., 0])}
    chosen = {text: operands for text, operands in subscripts.items() if len(operands) >= least}
    return [np.einsum(text, *operands, **keywords) for text, operands in chosen.items()]


def in_place_sort(x: Any) -> Any:
    y = np.copy(x)
    y.sort(0)
    return y


def filled(x: Any) -> Any:
    y = np.empty_like(x)
    y.fill(1.0)
    return y


FUNCTIONS: dict[str, Case] = {
    "dot": on(1, 2, 3, needs=full)(
        lambda x: (
            [np.dot(x, 2.0), np.dot(2.0, x), np.dot(x.astype(int), 2), np.dot(x, np.ones(x.shape[-1]))]
            + ([np.dot(x, x.T), np.dot(x.T, x), np.dot(x, x[0])] if x.ndim == 2 else [])
        )
    ),
    "vdot": lambda x: np.vdot(x, x),
    "inner": lambda x: [np.inner(x, x), np.inner(x, 2.0)],
    "outer": lambda x: np.outer(x, x),
    "tensordot": lambda x: [
        np.tensordot(x, x, ([0], [0])),
        np.tensordot(x, x, ([-1], [-1])),
        np.tensordot(x, x, x.ndim),
        np.tensordot(x, x, 0),
        np.tensordot(x, np.ones(x.shape[-1]), 1),
    ],
    "einsum": on(1, 2, 3, needs=full)(einsums),
    "shape": np.shape,
    "ndim": np.ndim,
    "size": np.size,
    "reshape": lambda x: [np.reshape(x, -1), np.reshape(x, x.shape[::-1]), np.reshape(x, x.shape[::-1], order="F")],
    "ravel": lambda x: [np.ravel(x, order) for order in "CFAK"],
    "transpose": lambda x: np.transpose(x, range(x.ndim)[::-1]),
    "swapaxes": lambda x: np.swapaxes(x, 0, -1),
    "moveaxis": lambda x: np.moveaxis(x, 0, -1),
    "expand_dims": lambda x: np.expand_dims(x, 1),
    "squeeze": np.squeeze,
    "broadcast_to": lambda x: np.broadcast_to(x, (2, *x.shape)),
    "broadcast_arrays": lambda x: np.broadcast_arrays(x, x),
    "flip": lambda x: [np.flip(x, 0), np.flip(x)],
    "flipud": np.flipud,
    "fliplr": on(2, 3)(np.fliplr),
    "roll": lambda x: (
        [np.roll(x, shift, axis) for shift in (0, 1, -2) for axis in [*range(x.ndim), None]]
        + [np.roll(x, (1, 0), (0, -1)), np.roll(x, (1, 2), (-1, 0))]
    ),
    "pad": lambda x: [
        np.pad(x, 1),
        np.pad(x, 0),
        np.pad(x, 2, constant_values=(3.0, 4.0)),
        np.pad(x, (1, 0), constant_values=x.reshape(-1)[:1].sum()),
    ],
    "append": lambda x: [np.append(x, x), np.append(x, x, 0), np.append(x, x, -1)],
    "column_stack": on(1, 2, 3)(lambda x: np.column_stack([x, x])),
    "dstack": lambda x: np.dstack([x, x]),
    "atleast_3d": np.atleast_3d,
    "tile": lambda x: [np.tile(x, reps) for reps in (1, 2, (2, 1), (1, 1, 1, 1), (3, 1, 2, 1), (0, 1))],
    "kron": lambda x: [np.kron(x, x), np.kron(x, np.arange(3.0)), np.kron(np.ones((2, 3)), x)],
    "tril": lambda x: [np.tril(x), np.tril(x, 1)],
    "triu": lambda x: [np.triu(x), np.triu(x, -1)],
    "real": np.real,
    "imag": np.imag,
    "isreal": np.isreal,
    "iscomplex": np.iscomplex,
    "isrealobj": np.isrealobj,
    "iscomplexobj": np.iscomplexobj,
    "real_if_close": np.real_if_close,
    "concatenate": lambda x: (
        [np.concatenate(pair, axis) for pair in ([x, x], [x, beside(x)]) for axis in (0, -1, None)]
        + [np.concatenate([x])]
    ),
    "stack": lambda x: [np.stack(pair, axis) for pair in ([x, x], [x, beside(x)]) for axis in (0, 1, -1)],
    "vstack": lambda x: np.vstack([x, x]),
    "hstack": lambda x: np.hstack([x, x]),
    "atleast_1d": np.atleast_1d,
    "atleast_2d": np.atleast_2d,
    "copy": lambda x: [np.copy(x)] + [np.copy(x, order) for order in "CFAK"],
    "diagonal": on(2, 3)(lambda x: [np.diagonal(x), np.diagonal(x, 1), np.diagonal(x, -1, 1, 0)]),
    "diag": on(1, 2)(lambda x: [np.diag(x), np.diag(x, 1)]),
    "trace": on(2, 3)(np.trace),
    "diff": lambda x: [np.diff(x, n, axis) for n in (0, 1, 2) for axis in range(x.ndim) if x.shape[axis] > n],
    "repeat": along(np.repeat, 2),
    "sum": reduced(np.sum),
    "max": on(1, 2, 3, needs=full)(reduced(np.max)),
    "amax": on(1, 2, 3, needs=full)(reduced(np.amax)),
    "min": on(1, 2, 3, needs=full)(reduced(np.min)),
    "amin": on(1, 2, 3, needs=full)(reduced(np.amin)),
    "any": reduced(np.any),
    "all": reduced(np.all),
    "argmax": on(1, 2, 3, needs=full)(along(np.argmax)),
    "argmin": on(1, 2, 3, needs=full)(along(np.argmin, keepdims=True)),
    "cumsum": along(np.cumsum),
    "cumprod": along(np.cumprod),
    "prod": reduced(np.prod),
    "mean": on(1, 2, 3, needs=full)(reduced(np.mean)),
    "var": on(1, 2, 3, needs=full)(reduced(np.var)),
    "std": on(1, 2, 3, needs=full)(reduced(np.std)),
    "linalg.norm": on(1, 2, 3, needs=full)(
        lambda x: (
            [
                np.linalg.norm(x, ord, axis, keepdims)
                for ord in (None, 1, 2, 3, np.inf, -np.inf, 0)
                for axis in range(x.ndim)
                for keepdims in (False, True)
            ]
            + [
                np.linalg.norm(x, ord, (0, x.ndim - 1), keepdims)
                for ord in ("fro", 1, np.inf, -1)
                for keepdims in (False, True)
                if x.ndim > 1
            ]
        )
    ),
    "where": lambda x: [np.where(x > 0, x, 1.0), np.where(x[:1] > 0, x, x), np.where(beside(x) > 0, x, 0), np.where(x)],
    "nonzero": lambda x: np.nonzero(x),
    "clip": lambda x: (
        [np.clip(x, *bounds) for bounds in ((-0.5, 0.5), (None, 0.5), (0, None), (None, None))]
        + [np.clip(x, beside(x), None), np.clip(x, beside(x), beside(x) + 1)]
    ),
    "take": lambda x: (
        [np.take(x, [0, 0], axis) for axis in [*range(x.ndim), None] if x.size]
        + [np.take(x, [[0], [0]], 0) if full(x) else None, np.take(x, 0, -1) if full(x) else None]
        + [np.take(x, np.arange(2 * 3).reshape(2, 3).T, 0, mode="clip") if full(x) else None]
    ),
    "take_along_axis": lambda x: (
        [np.take_along_axis(x, np.argsort(x, axis), axis) for axis in range(x.ndim)]
        + [np.take_along_axis(x, np.argsort(x, None), None)]
    ),
    "argsort": along(np.argsort, kind="stable"),
    "sort": along(np.sort),
    "round": lambda x: [np.round(x), np.round(x, 1), np.round(x, -1)],
    "around": lambda x: [np.around(x), np.around(x, 1), np.around(x * 3, -1)],
    "isclose": lambda x: [np.isclose(x, x), np.isclose(x, beside(x)), np.isclose(x, x[:1], equal_nan=True)],
    "allclose": lambda x: np.allclose(x, x),
    "array_equal": lambda x: np.array_equal(x, x),
    "zeros_like": lambda x: [np.zeros_like(x), np.zeros_like(x, int), np.zeros_like(x, shape=(2, *x.shape))],
    "ones_like": lambda x: [np.ones_like(x), np.ones_like(x, order="C"), np.ones_like(x, shape=x.shape[::-1])],
    "empty_like": filled,
    "full_like": lambda x: [np.full_like(x, 2), np.full_like(x, x), np.full_like(x[..., None], 3)],
    "zeros": lambda x: np.zeros(x.shape, like=x),
    "empty": lambda x: np.copysign(np.empty(x.shape, like=x) * 0, 1),
    "ones": lambda x: np.ones(x.shape, like=x),
    "full": lambda x: np.full(x.shape, 2.0, like=x),
    "array": lambda x: [
        np.array(x, like=x),
        np.array(x, like=x, order="C"),
        np.array(beside(x).T, like=x),
        np.array([x, x], like=x),
        np.array(x, np.float32, like=x),
        np.array(x, copy=None, like=x),
    ],
    "asarray": lambda x: [np.asarray(x, like=x), np.asarray(x, np.float32, like=x), np.asarray([x, x], like=x)],
    "arange": lambda x: np.arange(5.0, like=x),
    "eye": lambda x: np.eye(3, 4, like=x),
    "identity": lambda x: np.identity(3, like=x),
}

METHODS: dict[str, Case] = {
    "T": lambda x: x.T,
    "all": reduced(lambda x, **keywords: x.all(**keywords)),
    "any": reduced(lambda x, **keywords: x.any(**keywords)),
    "argmax": on(1, 2, 3, needs=full)(along(lambda x, axis: x.argmax(axis))),
    "argmin": on(1, 2, 3, needs=full)(along(lambda x, axis: x.argmin(axis))),
    "argsort": along(lambda x, axis: x.argsort(axis, kind="stable")),
    "astype": lambda x: [x.astype(np.float32), x.astype(float), x.astype(int, order="C"), x.astype(float, copy=False)],
    "clip": lambda x: [x.clip(-0.5, 0.5), x.clip(0)],
    "conj": lambda x: x.conj(),
    "imag": lambda x: x.imag,
    "real": lambda x: x.real,
    "conjugate": lambda x: x.conjugate(),
    "copy": lambda x: [x.copy()] + [x.copy(order) for order in "CFAK"],
    "cumprod": along(lambda x, axis: x.cumprod(axis)),
    "cumsum": along(lambda x, axis: x.cumsum(axis)),
    "diagonal": on(2, 3)(lambda x: x.diagonal()),
    "dot": on(2, needs=full)(lambda x: [x.dot(x.T), x.T.dot(x)]),
    "dtype": lambda x: x.dtype,
    "fill": filled,
    "flags": lambda x: x,
    "flatten": lambda x: [x.flatten(order) for order in "CFAK"],
    "item": lambda x: None,
    "itemsize": lambda x: x.itemsize,
    "mT": on(2, 3)(lambda x: x.mT),
    "max": on(1, 2, 3, needs=full)(reduced(lambda x, **keywords: x.max(**keywords))),
    "mean": on(1, 2, 3, needs=full)(reduced(lambda x, **keywords: x.mean(**keywords))),
    "min": on(1, 2, 3, needs=full)(reduced(lambda x, **keywords: x.min(**keywords))),
    "nbytes": lambda x: x.nbytes,
    "ndim": lambda x: x.ndim,
    "nonzero": lambda x: x.nonzero(),
    "prod": reduced(lambda x, **keywords: x.prod(**keywords)),
    "ravel": lambda x: [x.ravel(order) for order in "CFAK"],
    "repeat": along(lambda x, axis: x.repeat(2, axis)),
    "reshape": lambda x: [x.reshape(-1), x.reshape(x.shape[::-1]), x.reshape(x.shape[::-1], order="F")],
    "round": lambda x: [x.round(), x.round(1)],
    "shape": lambda x: x.shape,
    "size": lambda x: x.size,
    "sort": in_place_sort,
    "squeeze": lambda x: x.squeeze(),
    "std": on(1, 2, 3, needs=full)(reduced(lambda x, **keywords: x.std(**keywords))),
    "strides": lambda x: x,
    "sum": reduced(lambda x, **keywords: x.sum(**keywords)),
    "swapaxes": lambda x: x.swapaxes(0, -1),
    "take": lambda x: [x.take([0, 0], axis) for axis in [*range(x.ndim), None] if full(x)],
    "tolist": lambda x: None,
    "trace": on(2, 3)(lambda x: x.trace()),
    "transpose": lambda x: [x.transpose(), x.transpose(*range(x.ndim))],
    "var": on(1, 2, 3, needs=full)(reduced(lambda x, **keywords: x.var(**keywords))),
    "vecdot": lambda x: [np.vecdot(x, x), np.vecdot(x, beside(x))],
    "matvec": on(2, 3)(lambda x: [np.matvec(x, x[..., 0, :]) if full(x) else None, np.matvec(x, np.ones(x.shape[-1]))]),
    "vecmat": on(2, 3)(lambda x: [np.vecmat(x[..., 0], x) if full(x) else None, np.vecmat(np.ones(x.shape[-2]), x)]),
}

OPERATORS: dict[str, Case] = {
    "+": lambda x: [x + x, x + 1, 1 - x, x + beside(x), beside(x) + x, x + (x[0] if full(x) else 1), x[..., None] + 1],
    "**": lambda x: [x**2, x**3, x**1, x * 1, 2**x],
    "unary": lambda x: [-x, +x, abs(x), ~(x > 0)],
    "comparison": lambda x: [x > 0, x == x, x != beside(x)],
    "divmod": lambda x: [*divmod(x, 2.0), *np.modf(x)],
    "@": on(2, 3, needs=full)(
        lambda x: [
            x @ np.swapaxes(x, -1, -2),
            np.swapaxes(x, -1, -2) @ x,
            x @ np.ones(x.shape[-1]),
            np.ones(x.shape[-2]) @ x,
            np.ones((2, 1, 1, x.shape[-2])) @ x,
        ]
    ),
    "outer": lambda x: np.subtract.outer(x, x[0]) if full(x) else None,
    "reduce": on(1, 2, 3, needs=full)(
        lambda x: [
            ufunc.reduce(x, axis=axis)
            for ufunc in (np.add, np.multiply, np.maximum, np.logical_or)
            for axis in [*range(x.ndim), None]
        ]
    ),
    "index": lambda x: [x[1:], x[::-1], x[..., None], x[None], x[...], x[:0]],
    "index array": on(1, 2, 3, needs=full)(
        lambda x: [
            x[np.array([0, 0])],
            x[..., np.array([0, 0, 0])],
            x[np.array([[0], [0]])],
            x[np.array([0, 0]), ..., np.array([0, 0])] if x.ndim > 1 else None,
            x[np.array([0, 0]), ..., 0] if x.ndim > 1 else None,
            x[:, np.array([[0, 0]]).T] if x.ndim > 1 else None,
            x[x > 0],
            x[np.arange(x.shape[0]) % 2 == 0],
        ]
    ),
    "index of rank 0": on(1, 2, 3, needs=full)(
        lambda x: [
            x[np.array(0)],
            x[..., np.array(0)],
            x[np.array(0), ...],
            x[np.array(0), None],
            x[np.array(0), :1] if x.ndim > 1 else None,
            x[:, np.array(0)] if x.ndim > 1 else None,
            x[:, np.array(0), ...] if x.ndim > 1 else None,
            x[np.int64(0)],
            x[np.array(0), np.array(0)] if x.ndim > 1 else None,
            x[np.array(0), 0] if x.ndim > 1 else None,
            x[0, np.array(0)] if x.ndim > 1 else None,
            x[np.array(0), np.array([0, 0])] if x.ndim > 1 else None,
        ]
    ),
    "stop_gradient": lambda x: ckad.stop_gradient(x) if isinstance(x, _core.Tracer) else same_layout(x),
}

# Where NumPy's layout is not known; a write after reshape or ravel raises there.
UNKNOWN: dict[str, Case] = {
    "einsum(optimize=True)": lambda x: einsums(x, least=2, optimize=True),
}


def registered(decorator: str, pattern: str) -> Iterator[str]:
    for path in sorted((PYTHON / "numpy").glob("*.py")):
        for line in re.findall(rf"^@{decorator}\((.*)\)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield from re.findall(pattern, line)


def test_every_registered_function_and_method_has_a_case() -> None:
    assert set(registered("implements", r"np\.([\w.]+)")) | set(registered("creates", r"np\.(\w+)")) == set(FUNCTIONS)
    source = "".join(path.read_text(encoding="utf-8") for path in (PYTHON / "numpy").glob("*.py"))
    by_name = {*registered("implements", r'method="(\w+)"'), *re.findall(r'_core.register_method\("(\w+)"', source)}
    in_class = {name for name in dir(_core.Tracer) if not name.startswith("_")}
    assert by_name | in_class == set(METHODS)


def facts(y: Any) -> Any:
    """Scalar or array, its dtype, and how it lies; axes of length 1 may have any stride."""
    if isinstance(y, (list, tuple)):
        return [facts(part) for part in y]
    if not isinstance(y, (np.ndarray, np.generic, _core.Tracer)):
        return y
    scalar = _core.is_scalar(y) if isinstance(y, _core.Tracer) else isinstance(y, np.generic)
    if scalar:
        return "scalar", y.dtype
    strides = [s if n > 1 and y.size else None for n, s in zip(y.shape, y.strides, strict=True)]
    return y.shape, y.dtype, strides, y.flags.c_contiguous, y.flags.f_contiguous, y.flags.writeable and not repeats(y)


def leaves(y: Any) -> Iterator[Any]:
    if isinstance(y, (list, tuple)):
        for part in y:
            yield from leaves(part)
    elif isinstance(y, (np.ndarray, _core.Tracer)) and not (isinstance(y, _core.Tracer) and _core.is_scalar(y)):
        yield y


def run(case: Case, x: Any, seen: list[Any], layouts: bool) -> Any:
    """The results, x after each was written to, and each after a reshape of it was written to."""
    results = case(x)
    seen.append(facts(results) if layouts else None)
    values = [np.copy(y) for y in leaves(results)]
    for number, y in enumerate(leaves(results)):
        # Only what stays: the write shows whose memory it is.
        if y.flags.writeable and y.dtype.kind != "b" and not repeats(x):
            y[...] = number
            values.append(np.copy(x))
    return values


CASES = {
    **{f"np.{name}": case for name, case in FUNCTIONS.items()},
    **{f"x.{name}": case for name, case in METHODS.items()},
    **OPERATORS,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_lie_as_numpys(case: Case) -> None:
    for name, array in ARRAYS.items():
        check(case, name, array, layouts=True)


def check(case: Case, name: str, array: np.ndarray, layouts: bool) -> None:
    x = same_layout(array)
    expected_facts: list[Any] = []
    with np.errstate(all="ignore"):
        expected = run(case, x.copy("K") if x.flags.c_contiguous else same_layout(x), expected_facts, layouts)
    found_facts: list[Any] = []

    def program(x: Any) -> Any:
        return np.sum(x) * 0.0, run(case, x, found_facts, layouts)

    with np.errstate(all="ignore"):
        found = ckad.value_and_grad(program, has_aux=True)(x)[0][1]
    assert len(found) == len(expected), name
    differing = [
        f"{name}: result {number}: NumPy {a}, traced {b}"
        for number, (a, b) in enumerate(zip(pieces(expected_facts), pieces(found_facts), strict=True))
        if a != b
    ]
    assert not differing, "\n".join(differing)
    for number, (a, b) in enumerate(zip(expected, found, strict=True)):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-12, err_msg=f"{name}, value {number}")


def pieces(seen: list[Any]) -> list[Any]:
    return [piece for result in seen for piece in (result if isinstance(result, list) else [result])]


@pytest.mark.parametrize("case", UNKNOWN.values(), ids=UNKNOWN)
def test_a_write_after_a_reshape_raises_where_the_layout_is_unknown(case: Case) -> None:
    for name, array in ARRAYS.items():
        if array.size == 0:
            continue
        x = same_layout(array)
        expected = case(x)

        def program(x: Any) -> Any:
            results = case(x)
            for y in results:
                if y.ndim < 2:
                    continue
                flat = y.reshape(-1)
                with pytest.raises(ckad.errors.TracerError, match=r"Hint.*\.copy\(\)"):
                    flat[...] = 1.0
                with pytest.raises(ckad.errors.TracerError, match=r"Hint.*\.copy\(\)"):
                    y[...] = 1.0
                y.copy().reshape(-1)[...] = 1.0
            return np.sum(x) * 0.0, results

        found = ckad.value_and_grad(program, has_aux=True)(x)[0][1]
        for a, b in zip(expected, found, strict=True):
            assert isinstance(a, np.ndarray) == isinstance(b, np.ndarray), name
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_matrix_product_of_rank_0_is_an_array() -> None:
    """`u = t; t += 1` changes u where t is an array, not where it is a scalar."""
    x = np.arange(3.0)
    products: list[Case] = [
        lambda a: np.tensordot(a, a, 1),
        lambda a: np.tensordot(a, a, ([0], [0])),
        lambda a: np.einsum("i,i", a, a, optimize=True),
        lambda a: np.einsum("i,i->", a, a),
        lambda a: np.dot(a, a),
        lambda a: np.vdot(a, a),
        lambda a: np.inner(a, a),
        lambda a: a @ a,
    ]
    for product in products:

        def f(a: Any, product: Case = product) -> Any:
            t = product(a)
            u = t
            t += 1
            return u * 1.0

        assert ckad.value_and_grad(f)(x)[0] == f(x)
        np.testing.assert_array_equal(ckad.grad(f)(x), 2 * x)


def test_constants_in_einsum_are_contracted_among_themselves() -> None:
    a = RNG.standard_normal((3, 4))
    b, c = RNG.standard_normal((4, 2)), RNG.standard_normal((4, 3))
    f = lambda a: np.sum(np.einsum("ij,jk,jl->lki", a, b, c) ** 2)
    assert ckad.value_and_grad(f)(a)[0] == pytest.approx(f(a))
