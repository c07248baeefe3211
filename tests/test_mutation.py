"""Would a wrong derivative be noticed? For each class of primitive, a wrong rule that `check_grads` must catch.

A wrong rule is planted without touching the core: `derived_from(right, wrong)` has the value of one function and the
derivatives, in both modes and of all orders, of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad import _core
from ckad.transforms import checking

_rng = np.random.default_rng(3)


def derived_from(right: Callable[..., Any], wrong: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the value of `right` and the derivatives of `wrong`."""

    def mutant(*args: Any) -> Any:
        bent = wrong(*args)
        return ckad.stop_gradient(right(*args)) + (bent - ckad.stop_gradient(bent))

    return mutant


def written(x: Any, v: Any, index: Any) -> Any:
    y = x.copy()
    y[index] = v
    return y


def added(x: Any, v: Any, index: Any) -> Any:
    y = x.copy()
    y[index] += v
    return y


def padded(x: Any, before: int, after: int) -> Any:
    """`np.pad`, which finite differences call, as the core's primitive."""
    return _core.pad(x, 0.0, [(before, after)]) if isinstance(x, ckad.Tracer) else np.pad(x, (before, after))


def accumulated(v: Any, rows: Any) -> Any:
    """`np.bincount` with weights, as the core's primitive."""
    if isinstance(v, ckad.Tracer):
        return _core.scatter_add(_core.zeros(v, (3,), "float64"), v, (rows,))
    return np.bincount(rows, v, 3)


def uniform(*shape: int) -> Any:
    return _rng.permutation(np.linspace(0.5, 1.5, int(np.prod(shape)))).reshape(shape)


ROWS = np.array([2, 0, 2, 1])
BACK = np.array([1, 2, 0, 2])

# Class of primitive → the function, one with its value's derivative gone wrong, and arguments.
MUTANTS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]] = {
    "elementwise, unary: wrong sign": (np.cos, lambda x: -np.cos(x), (uniform(4),)),
    "elementwise, unary: slightly wrong factor": (np.log2, lambda x: np.log2(x) * (1 + 1e-5), (uniform(4),)),
    "elementwise, binary: an operand forgotten": (
        np.multiply,
        lambda x, y: x * ckad.stop_gradient(y),
        (uniform(4), uniform(4)),
    ),
    "elementwise, binary: operands swapped": (
        np.arctan2,
        lambda y, x: np.arctan2(x, y),
        (uniform(4), uniform(4) + 0.1),
    ),
    "elementwise, broadcast: sum over the wrong axis": (
        lambda x, y: x + y,
        lambda x, y: x + y.reshape(-1, 1),
        (uniform(3, 3), uniform(3)),
    ),
    "reduce, sum: an element dropped": (np.sum, lambda x: np.sum(x[1:]), (uniform(4),)),
    "reduce, max: to the wrong element": (np.max, np.min, (uniform(4),)),
    "dot: operand not transposed": (lambda a, b: a @ b, lambda a, b: a.T @ b, (uniform(3, 3), uniform(3, 3))),
    "dot: batches mixed up": (np.matmul, lambda a, b: np.matmul(a[::-1], b), (uniform(2, 2, 3), uniform(2, 3, 2))),
    "reshape: the wrong order": (
        lambda x: x.reshape(3, 2),
        lambda x: x.reshape((3, 2), order="F"),
        (uniform(2, 3),),
    ),
    "transpose: the inverse permutation": (
        lambda x: x.transpose(1, 2, 0),
        lambda x: x.transpose(2, 0, 1),
        (uniform(2, 2, 2),),
    ),
    "broadcast: a copy not counted": (
        lambda x: np.broadcast_to(x, (3, 4)) * np.arange(12.0).reshape(3, 4),
        lambda x: np.broadcast_to(x, (3, 4)) * np.arange(4.0),
        (uniform(4),),
    ),
    "gather: duplicates counted once": (
        lambda x: x[ROWS],
        lambda x: x[ROWS] * np.array([0.0, 1.0, 1.0, 1.0]),
        (uniform(3),),
    ),
    "gather: the wrong index": (lambda x: x[ROWS], lambda x: x[BACK], (uniform(3),)),
    "scatter, set: overwritten elements still count": (
        lambda x, v: written(x, v, [0, 2]),
        lambda x, v: added(x, v, [0, 2]),
        (uniform(4), uniform(2)),
    ),
    "scatter, set: the first of duplicates wins": (
        lambda x, v: written(x, v, [1, 1]),
        lambda x, v: written(x, v[::-1], [1, 1]),
        (uniform(4), uniform(2)),
    ),
    "scatter, add: the wrong index": (lambda v: accumulated(v, ROWS), lambda v: accumulated(v, BACK), (uniform(4),)),
    "strided read: the wrong step": (lambda x: x[::2], lambda x: x[:2], (uniform(4),)),
    "strided read: overlapping windows counted once": (
        lambda x: x[1:] + x[:-1],
        lambda x: x[1:] + ckad.stop_gradient(x[:-1]),
        (uniform(4),),
    ),
    "strided write: overwritten elements still count": (
        lambda x, v: written(x, v, slice(1, 3)),
        lambda x, v: added(x, v, slice(1, 3)),
        (uniform(4), uniform(2)),
    ),
    "strided write: the value forgotten": (
        lambda x, v: written(x, v, slice(None, None, -2)),
        lambda x, v: written(x, ckad.stop_gradient(v), slice(None, None, -2)),
        (uniform(4), uniform(2)),
    ),
    "strided add: added twice": (
        lambda x, v: added(x, v, slice(1, 3)),
        lambda x, v: added(x, 2 * v, slice(1, 3)),
        (uniform(4), uniform(2)),
    ),
    "concatenate: pieces swapped": (
        lambda x, y: np.concatenate([x, y]),
        lambda x, y: np.concatenate([y, x]),
        (uniform(3), uniform(3)),
    ),
    "pad: the other side": (lambda x: padded(x, 1, 2), lambda x: padded(x, 2, 1), (uniform(3),)),
    "select: branches swapped": (
        lambda x, y: np.where(x > 1, x, y),
        lambda x, y: np.where(x > 1, y, x),
        (uniform(4), uniform(4)),
    ),
    "cumulative sum: the wrong direction": (np.cumsum, lambda x: np.cumsum(x[::-1])[::-1], (uniform(4),)),
    "recurrence, cumprod: the last factor forgotten": (
        np.cumprod,
        lambda x: np.cumprod(np.concatenate([x[:-1], ckad.stop_gradient(x[-1:])])),
        (uniform(4),),
    ),
    "recurrence, prod: by division, blind at a zero": (
        np.prod,
        lambda x: np.prod(ckad.stop_gradient(x)) * np.sum(np.log(np.abs(x) + 1e-30)),
        (np.array([0.0, 2.0, 3.0]),),
    ),
    "sort: unsorted": (np.sort, lambda x: x * 1.0, (np.array([0.9, 0.1, 0.5]),)),
}


def caught(f: Callable[..., Any], args: tuple[Any, ...], **keywords: Any) -> None:
    with pytest.raises(AssertionError):
        ckad.check_grads(f, args, **keywords)


@pytest.mark.parametrize(
    ("right", "wrong", "args"), [pytest.param(*mutant, id=name) for name, mutant in MUTANTS.items()]
)
def test_a_wrong_rule_is_caught(right: Any, wrong: Any, args: Any) -> None:
    ckad.check_grads(right, args, order=2)
    mutant = derived_from(right, wrong)
    for modes in (("forward", "reverse"), ("forward",), ("reverse",)):
        caught(mutant, args, order=1, modes=modes)


def test_a_wrong_cast_is_caught() -> None:
    def narrowed(x: Any) -> Any:
        return x.astype(np.float32).astype(np.float64)

    # float32 rounds the differences: a larger step, a coarser bound.
    for mode in ("forward", "reverse"):
        bounds: dict[str, Any] = {"order": 1, "modes": (mode,), "rtol": 1e-4, "atol": 1e-4, "step": 0.1}
        ckad.check_grads(narrowed, (uniform(4),), **bounds)
        caught(derived_from(narrowed, lambda x: 1.01 * x), (uniform(4),), **bounds)
        caught(lambda x: ckad.stop_gradient(narrowed(x)), (uniform(4),), **bounds)


def test_a_wrong_second_derivative_is_caught() -> None:
    def linear(x: Any) -> Any:
        """The slope of sin, without a slope of its own."""
        return x * ckad.stop_gradient(np.cos(x))

    mutant = derived_from(np.sin, linear)
    ckad.check_grads(mutant, (uniform(4),), order=1)
    caught(mutant, (uniform(4),), order=2)


@pytest.mark.parametrize("error", [lambda g: 1.000001 * g, lambda g: g[::-1], lambda g: np.where(g == g[0], 0.0, g)])
def test_a_wrong_transpose_is_caught(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The modes are compared with each other much more closely than with finite differences."""
    right = checking.vjp

    def wrong(*args: Any) -> Any:
        out, pullback = right(*args)
        return out, lambda cotangent: tuple(map(error, pullback(cotangent)))

    ckad.check_grads(np.tanh, (uniform(5),), order=1)
    monkeypatch.setattr(checking, "vjp", wrong)
    caught(np.tanh, (uniform(5),), order=1)


def test_every_class_of_primitive_has_a_mutant() -> None:
    classes = (
        "elementwise reduce dot reshape transpose broadcast gather scatter strided concatenate pad select cumulative"
        " recurrence sort"
    )
    assert {name.split(",")[0].split(":")[0].split(" ")[0] for name in MUTANTS} == set(classes.split())
