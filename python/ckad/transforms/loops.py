"""Loops as primitives: `scan`, whose body is recorded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, ShapeError
from ckad.transforms.recording import check_function
from ckad.tree import flatten, unflatten

_LARGEST_LENGTH = 2**32 - 1


class Leaf:
    """dtype and shape of a value of a loop.

    `is_array`: an array, even of rank 0. `weak`: a number of Python's, which takes the dtype of what it meets.
    """

    def __init__(self, value: Any) -> None:
        self.weak = type(value) is float or (isinstance(value, _core.Tracer) and _core.is_weak(value))
        described = value if isinstance(value, (np.ndarray, np.generic, _core.Tracer)) else np.asarray(value)
        self.dtype: Any = described.dtype
        self.shape: tuple[int, ...] = tuple(described.shape)
        scalar = _core.is_scalar(value) if isinstance(value, _core.Tracer) else not isinstance(value, np.ndarray)
        self.is_array = not scalar or bool(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}{self.shape}"


def _argument(name: str, what: str, trace: _core.Trace, value: Any) -> Any:
    """A leaf of what a loop is given as a value of its trace."""
    if isinstance(value, (bool, int)):
        value = np.asarray(value)[()]
    elif not isinstance(value, (float, np.ndarray, np.generic, _core.Tracer)):
        hint = (
            "pass numbers and arrays, in tuples, lists, dicts and layers; what stays the same, f can read from outside"
        )
        raise CkadTypeError.of(name, f"a leaf of {what} has type {type(value).__name__}", hint)
    return trace.argument(value, False)


def _length(xs: Sequence[Any], length: Any) -> int:
    """The number of iterations."""
    if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer))):
        hint = "pass the number of iterations: length=100"
        raise CkadTypeError.of("scan", f"length must be an int, not of type {type(length).__name__}", hint)
    found = None if length is None else int(length)
    for x in xs:
        shape = tuple(np.shape(x)) if not isinstance(x, _core.Tracer) else tuple(x.shape)
        if not shape:
            hint = "pass arrays whose first axis is the iteration; what stays the same, f can read from outside"
            raise ShapeError.of("scan", "a leaf of xs is a scalar, which has no slices", hint)
        if found is not None and shape[0] != found:
            shapes = ", ".join(str(tuple(np.shape(x))) for x in xs)
            given = "" if length is None else f" and length={length}"
            hint = "give all leaves of xs as many slices along the first axis"
            raise ShapeError.of("scan", f"the lengths of xs differ: shapes {shapes}{given}", hint)
        found = shape[0]
    if found is None:
        raise CkadValueError.of("scan", "there is neither xs nor length", "say how often: length=100")
    if not 0 <= found <= _LARGEST_LENGTH:
        hint = "pass the number of iterations: length=100"
        raise CkadValueError.of("scan", f"length={found} is no number of iterations", hint)
    return found


def _check_carry(
    name: str, before: list[Leaf], before_tree: Any, after: list[Leaf], after_tree: Any
) -> list[Any] | None:
    """Refuses a carry that does not come out as it went in. None where it does; the dtypes to begin with, where numbers
    of Python's among the carries are to have other ones.
    """
    if before_tree != after_tree:
        hint = "return a carry of the structure of init"
        what = f"the carry goes in as {_structure(before_tree)} and comes out as {_structure(after_tree)}"
        raise CkadTypeError.of(name, what, hint)
    same = [a.dtype == b.dtype and a.shape == b.shape for a, b in zip(before, after, strict=True)]
    if all(same):
        return None
    weak = [
        b.dtype if a.weak and a.shape == b.shape and b.dtype.kind == "f" else a.dtype
        for a, b in zip(before, after, strict=True)
    ]
    if any(dtype != a.dtype for dtype, a in zip(weak, before, strict=True)):
        return weak
    into, out = unflatten(before_tree, before), unflatten(after_tree, after)
    hint = "make init what f returns: convert it with .astype, or give it the shape"
    raise ShapeError.of(name, f"the carry goes in as {into!r} and comes out as {out!r}", hint)


def _structure(tree: Any) -> str:
    return repr(unflatten(tree, [_Star()] * tree.num_leaves))


class _Star:
    def __repr__(self) -> str:
        return "*"


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """A loop that carries a value on and stacks what each iteration gives; its body is recorded once.

    ``carry, y = f(carry, x)`` for each slice x of `xs` along the first axis. Derivatives of every order, every
    checkpoint policy and `ckad.jit` apply. `f` cannot look at values: they stand for those of every iteration.

    Args:
        f: function of the carry and a slice of `xs` to the next carry, of the same structure, shapes and dtypes, and a
            value to stack (None for nothing).
        init: the first carry, a pytree of arrays and numbers.
        xs: a pytree of arrays with one slice per iteration along their first axes, or None.
        length: the number of iterations, where `xs` does not say it.
        reverse: from the last slice to the first; results are stacked in the order of `xs` all the same.

    Returns:
        The last carry, and the values of all iterations stacked along a first axis.

    Raises:
        ShapeError: lengths differ, or the carry comes out with another shape or dtype than it went in with.

    >>> import numpy as np, ckad
    >>> total, sums = ckad.scan(lambda s, x: (s + x, s + x), 0.0, np.array([1.0, 2.0, 3.0]))
    >>> print(total, sums)
    6.0 [1. 3. 6.]
    >>> ckad.grad(lambda a: ckad.scan(lambda s, _: (a * s, None), 1.0, length=3)[0])(2.0)
    np.float64(12.0)
    """
    check_function("scan", f)
    init_leaves, init_tree = flatten(init)
    xs_leaves, xs_tree = flatten(xs)
    trips = _length(xs_leaves, length)

    def body(_: Any, carry: Any, x: Any) -> Any:
        result = f(carry, x)
        if not isinstance(result, tuple) or len(result) != 2:
            kind = "None: it has no return" if result is None else f"a {type(result).__name__}"
            hint = "return (carry, y), with None for y where nothing is to be stacked"
            raise CkadTypeError.of("scan", f"the function must return a pair (carry, y), not {kind}", hint)
        return result

    return _looped("scan", body, (init_leaves, init_tree), (xs_leaves, xs_tree), trips, bool(reverse))


def _looped(
    name: str,
    body: Callable[[Any, Any, Any], tuple[Any, Any]],
    init: tuple[list[Any], Any],
    xs: tuple[list[Any], Any],
    trips: int,
    reverse: bool,
) -> tuple[Any, Any]:
    """Records `body(index, carry, x)` and the loop of it, and gives what the loop gives."""
    (init_leaves, init_tree), (xs_leaves, xs_tree) = init, xs
    trace = _core.Trace(name)
    try:
        carries = [_argument(name, "init", trace, leaf) for leaf in init_leaves]
        slices = [_argument(name, "xs", trace, leaf) for leaf in xs_leaves]
        specs = [Leaf(leaf) for leaf in init_leaves]
        sliced = [Leaf(leaf) for leaf in slices]
        for leaf in sliced:
            leaf.shape = leaf.shape[1:]
            leaf.is_array = bool(leaf.shape)
        made, y_tree, dtypes = _recorded(name, body, (specs, init_tree), (sliced, xs_tree), trips, reverse)
        while dtypes is not None:
            for spec, dtype in zip(specs, dtypes, strict=True):
                spec.weak = spec.weak and spec.dtype == dtype
                spec.dtype = dtype
            made, y_tree, dtypes = _recorded(name, body, (specs, init_tree), (sliced, xs_tree), trips, reverse)
        carries = [
            carry if carry.dtype == spec.dtype else _core.cast(carry, spec.dtype)
            for carry, spec in zip(carries, specs, strict=True)
        ]
        parts = _core.scan(trace, made, carries, slices, [spec.is_array for spec in specs])
        values = trace.evaluate(parts)
    finally:
        trace.close()
    return unflatten(init_tree, values[: len(carries)]), unflatten(y_tree, values[len(carries) :])


def _recorded(
    name: str,
    body: Callable[[Any, Any, Any], tuple[Any, Any]],
    carry: tuple[list[Leaf], Any],
    x: tuple[list[Leaf], Any],
    trips: int,
    reverse: bool,
) -> tuple[Any, Any, list[Any] | None]:
    """The body of a loop, and the structure of what it stacks; or the dtypes with which carries are to begin."""
    (carry_leaves, carry_tree), (x_leaves, x_tree) = carry, x
    trace = _core.Trace(name, body=True)
    try:
        index = trace.symbol(np.int64, (), False, False)
        symbols = [
            trace.symbol(leaf.dtype, leaf.shape, leaf.is_array, leaf.weak) for leaf in (*carry_leaves, *x_leaves)
        ]
        count = len(carry_leaves)
        out, y = body(index, unflatten(carry_tree, symbols[:count]), unflatten(x_tree, symbols[count:]))
        out_leaves, out_tree = flatten(out)
        y_leaves, y_tree = flatten(y)
        dtypes = _check_carry(name, carry_leaves, carry_tree, [Leaf(leaf) for leaf in out_leaves], out_tree)
        if dtypes is not None:
            return None, None, dtypes
        return trace.scan_body([*out_leaves, *y_leaves], trips, reverse, count, len(x_leaves)), y_tree, None
    finally:
        trace.close()
