"""Loops and branches as primitives: `scan`, `fori_loop`, `while_loop` and `cond`. Their bodies are recorded once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, ShapeError, TracerError
from ckad.transforms.leaf import Leaf
from ckad.transforms.recording import check_function
from ckad.tree import flatten, unflatten

_LARGEST_LENGTH = 2**32 - 1


class _Tree:
    """A pytree of values as leaves and a structure."""

    def __init__(self, tree: Any) -> None:
        self.leaves, self.structure = flatten(tree)
        self.specs = [Leaf(leaf) for leaf in self.leaves]

    def __repr__(self) -> str:
        return repr(unflatten(self.structure, self.specs))

    def is_like(self, other: _Tree) -> bool:
        """Of the same structure, with leaves of the same dtypes and shapes?"""
        same = self.structure == other.structure
        return same and all(a.is_like(b) for a, b in zip(self.specs, other.specs, strict=True))


_GIVEN = "pass numbers and arrays, in tuples, lists, dicts and layers; the function can read other things"
_STACKED = "return numbers and arrays to be stacked, in tuples, lists, dicts and layers, or None"


def _check_leaves(name: str, what: str, leaves: Sequence[Any], hint: str = _GIVEN) -> None:
    for leaf in leaves:
        if not isinstance(leaf, (bool, int, float, np.ndarray, np.generic, _core.Tracer)):
            raise CkadTypeError.of(name, f"a leaf of {what} has type {type(leaf).__name__}", hint)


def _arguments(name: str, what: str, trace: _core.Trace, leaves: Sequence[Any]) -> list[Any]:
    """Leaves of what a loop is given as values of its trace."""
    _check_leaves(name, what, leaves)
    numbers = [np.asarray(leaf)[()] if isinstance(leaf, (bool, int)) else leaf for leaf in leaves]
    return [trace.argument(number, False) for number in numbers]


def _symbols(trace: _core.Trace, specs: Sequence[Leaf]) -> list[Any]:
    return [trace.symbol(leaf.dtype, leaf.shape, leaf.is_array, leaf.weak) for leaf in specs]


def _length(xs: Sequence[Any], length: Any) -> int:
    """The number of iterations."""
    if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer))):
        hint = "pass the number of iterations: length=100"
        raise CkadTypeError.of("scan", f"length must be an int, not of type {type(length).__name__}", hint)
    found = None if length is None else int(length)
    shapes = [tuple(x.shape) if isinstance(x, _core.Tracer) else np.shape(x) for x in xs]
    for shape in shapes:
        if not shape:
            hint = "pass arrays whose first axis is the iteration; what stays the same, f can read from outside"
            raise ShapeError.of("scan", "a leaf of xs is a scalar, which has no slices", hint)
        if found is not None and shape[0] != found:
            given = "" if length is None else f" and length={length}"
            hint = "give all leaves of xs as many slices along the first axis"
            what = f"the lengths of xs differ: shapes {', '.join(map(str, shapes))}{given}"
            raise ShapeError.of("scan", what, hint)
        found = shape[0]
    if found is None:
        raise CkadValueError.of("scan", "there is neither xs nor length", "say how often: length=100")
    if not 0 <= found <= _LARGEST_LENGTH:
        hint = "pass the number of iterations: length=100"
        raise CkadValueError.of("scan", f"length={found} is no number of iterations", hint)
    return found


def _adapted(name: str, before: _Tree, after: _Tree) -> bool:
    """Refuses a carry that does not come out as it went in. True where numbers of Python's among the carries were given
    the dtypes that come out: the body is to be recorded again.
    """
    adapted, fits = False, before.structure == after.structure
    for one, other in zip(before.specs, after.specs, strict=True) if fits else ():
        if one.takes(other):
            one.take(other)
            adapted = True
        fits = fits and (one.is_like(other) or other.takes(one))
    if not adapted and not fits:
        hint = "let the first carry be what the function returns: the same structure, shapes and dtypes"
        raise ShapeError.of(name, f"the carry goes in as {before!r} and comes out as {after!r}", hint)
    return adapted


def _carries(name: str, trace: _core.Trace, carry: _Tree) -> list[Any]:
    """The first carries, of the dtypes that the body gives them."""
    pairs = zip(carry.leaves, carry.specs, strict=True)
    leaves = [leaf if isinstance(leaf, _core.Tracer) else spec.of(name, leaf) for leaf, spec in pairs]
    return _of_dtypes(name, _arguments(name, "the first carry", trace, leaves), carry.specs)


def _of_dtypes(name: str, values: Sequence[Any], specs: Sequence[Leaf]) -> list[Any]:
    """Values of which some may be numbers of Python's, of the dtypes that they are to have."""
    return [spec.of(name, value) for value, spec in zip(values, specs, strict=True)]


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
        ShapeError: lengths differ, or the carry does not come out as it went in.
        TracerError: `f` looks at a value, or draws from a random generator.

    Source: Griewank and Walther, Algorithm 799: revolve, 2000 (which states of a loop are kept).

    >>> import numpy as np, ckad
    >>> total, sums = ckad.scan(lambda s, x: (s + x, s + x), 0.0, np.array([1.0, 2.0, 3.0]))
    >>> print(total, sums)
    6.0 [1. 3. 6.]
    >>> print(ckad.grad(lambda a: ckad.scan(lambda s, _: (a * s, None), 1.0, length=3)[0])(2.0))
    12.0
    """
    check_function("scan", f)
    slices = _Tree(xs)
    trips = _length(slices.leaves, length)

    def body(_: Any, carry: Any, x: Any) -> Any:
        result = f(carry, x)
        if not isinstance(result, tuple) or len(result) != 2:
            kind = "None: it has no return" if result is None else f"a {type(result).__name__}"
            hint = "return (carry, y), with None for y where nothing is to be stacked"
            raise CkadTypeError.of("scan", f"the function must return a pair (carry, y), not {kind}", hint)
        return result

    return _scanned("scan", body, _Tree(init), slices, trips, bool(reverse))


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """``for i in range(lower, upper): value = body(i, value)``; the body is recorded once.

    Args:
        lower, upper: ints; values that `ckad.jit` or another loop traces make it a loop of unknown length
            (:func:`while_loop`).
        body: function of the index, an int64 scalar, and the value to the next value, of the same structure, shapes and
            dtypes.
        init: the first value, a pytree of arrays and numbers.

    Returns:
        The last value.

    Raises:
        TypeError: a bound is no integer.
        ValueError: a bound is no int64, or there are 2³² iterations or more of a length that Python knows.
        ShapeError: the value does not come out of `body` as it went in.
        TracerError: `body` looks at a value, or draws from a random generator.

    Source: Griewank and Walther, Algorithm 799: revolve, 2000 (which states of a loop are kept).

    >>> import ckad
    >>> print(ckad.fori_loop(1, 5, lambda i, product: product * i, 1.0))
    24.0
    """
    check_function("fori_loop", body)
    first, end = _index("lower", lower), _index("upper", upper)
    if first is not None and end is not None:
        trips = max(0, end - first)
        if trips > _LARGEST_LENGTH:
            hint = f"at most {_LARGEST_LENGTH} iterations make a loop; write more of them as a loop of loops"
            raise CkadValueError.of("fori_loop", f"{trips} iterations from {first} to {end}", hint)

        def step(i: Any, value: Any, _: Any) -> Any:
            return body(i + np.int64(first) if first else i, value), None

        return _scanned("fori_loop", step, _Tree(init), _Tree(None), trips, False)[0]

    def goes_on(state: Any) -> Any:
        return state[0] < upper

    def next_state(state: Any) -> Any:
        i, value = state
        return i + np.int64(1), body(i, value)

    # An index that is traced may be of any integer dtype.
    start = lower if isinstance(lower, _core.Tracer) else np.int64(lower)
    return _repeated("fori_loop", goes_on, next_state, _Tree((start + np.int64(0), init)))[1]


def _index(what: str, value: Any) -> int | None:
    """A bound of a loop; None where nobody knows it yet."""
    dtype = getattr(value, "dtype", None)
    if isinstance(value, bool) or (dtype is not None and dtype.kind not in "iu"):
        given = f"dtype {dtype}" if dtype is not None else "type bool"
        raise CkadTypeError.of("fori_loop", f"{what} has {given}", "pass an int")
    try:
        found = operator.index(value)
    except TracerError:
        return None
    except TypeError:
        what = f"{what} is of type {type(value).__name__}"
        raise CkadTypeError.of("fori_loop", what, "pass an int") from None
    if not -(2**63) <= found < 2**63:
        raise CkadValueError.of("fori_loop", f"{what}={found} is no int64", "the index is one: count from 0")
    return found


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init: Any) -> Any:
    """``while cond_fun(value): value = body_fun(value)``; both functions are recorded once.

    Called outside of `ckad.jit` and of other loops, it is run once, keeping nothing, to learn its length (the plan
    counts that as a forced run), and is then a loop of known length: derivatives of every order and every checkpoint
    policy apply. Inside of them the length is not known: for reverse mode the loop keeps at most 64 states (an int says
    how many), from which the others are computed; reverse mode of that raises, `ckad.hvp` does not.

    Args:
        cond_fun: function of the value to a bool.
        body_fun: function of the value to the next one, of the same structure, shapes and dtypes.
        init: the first value, a pytree of arrays and numbers.

    Returns:
        The first value for which `cond_fun` does not hold.

    Raises:
        ShapeError: the value does not come out of `body_fun` as it went in.
        TracerError: reverse mode of reverse mode of a loop of unknown length; or a function looks at a value or draws
            from a random generator.

    Source: Griewank and Walther, Algorithm 799: revolve, 2000 (which states of a loop are kept).

    >>> import ckad
    >>> root = lambda a: ckad.while_loop(lambda x: abs(x * x - a) > 1e-12, lambda x: (x + a / x) / 2, a)
    >>> print(round(float(root(2.0)), 12), round(float(ckad.grad(root)(2.0)), 12))
    1.414213562373 0.353553390593
    """
    check_function("while_loop", cond_fun)
    check_function("while_loop", body_fun)
    return _repeated("while_loop", cond_fun, body_fun, _Tree(init))


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """``true_fn(*operands) if pred else false_fn(*operands)``, where `pred` may be traced.

    Where the value of `pred` is known, the function that it chooses is called, and nothing else is recorded. While
    `ckad.jit` or a loop records, both functions are, and a run computes one of them; so do derivatives.

    Args:
        pred: a scalar.
        true_fn, false_fn: functions of the operands to results of one structure, with the same shapes and dtypes.
        operands: pytrees of arrays and numbers.

    Returns:
        The result of the function that was chosen.

    Raises:
        ShapeError: `pred` is not a scalar, or the functions return different structures, shapes or dtypes.
        TracerError: where both are recorded, a function looks at a value or draws from a random generator.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., chapter 14 (branches).

    >>> import numpy as np, ckad
    >>> halved = ckad.jit(lambda x: ckad.cond(np.sum(x) > 10.0, lambda x: x / 2, lambda x: x, x))
    >>> print(halved(np.array([8.0, 4.0])), halved(np.array([1.0, 2.0])))
    [4. 2.] [1. 2.]
    """
    check_function("cond", true_fn)
    check_function("cond", false_fn)
    if not isinstance(pred, (bool, int, float, np.generic, np.ndarray, _core.Tracer)):
        hint = "pass a comparison of scalars, or np.any(…) or np.all(…) of one of arrays"
        raise CkadTypeError.of("cond", f"pred is of type {type(pred).__name__}", hint)
    shape = tuple(getattr(pred, "shape", ()))
    if shape:
        hint = "np.where(pred, a, b) chooses element by element; np.any(pred) or np.all(pred) is a scalar"
        raise ShapeError.of("cond", f"pred has shape {shape}", hint)
    try:
        chosen = bool(pred)
    except TracerError:
        return _chosen(pred, true_fn, false_fn, operands)
    return true_fn(*operands) if chosen else false_fn(*operands)


def _scanned(
    name: str, body: Callable[[Any, Any, Any], tuple[Any, Any]], carry: _Tree, xs: _Tree, trips: int, reverse: bool
) -> tuple[Any, Any]:
    """The loop of ``carry, y = body(index, carry, x)``."""
    trace = _core.Trace(name)
    try:
        arrays = _arguments(name, "xs", trace, xs.leaves)
        slices = [Leaf(array) for array in arrays]
        for leaf in slices:
            leaf.shape = leaf.shape[1:]
            leaf.is_array = bool(leaf.shape)
        made, y_structure = _recorded_step(name, body, carry, slices, xs.structure)
        are_arrays = [spec.is_array for spec in carry.specs]
        parts = _core.scan(trace, made, _carries(name, trace, carry), arrays, trips, reverse, are_arrays)
        values = trace.evaluate(parts)
    finally:
        trace.close()
    count = len(carry.leaves)
    return unflatten(carry.structure, values[:count]), unflatten(y_structure, values[count:])


def _recorded_step(
    name: str, body: Callable[[Any, Any, Any], tuple[Any, Any]], carry: _Tree, slices: list[Leaf], xs_structure: Any
) -> tuple[_core.Body, Any]:
    """The body of a loop, and the structure of what it stacks."""
    _check_leaves(name, "the first carry", carry.leaves)
    count = len(carry.leaves)
    while True:
        trace = _core.Trace(name, body=True)
        try:
            index = trace.symbol(np.int64, (), False, False)
            symbols = _symbols(trace, [*carry.specs, *slices])
            given = unflatten(carry.structure, symbols[:count])
            with _drawing_refused(name, body):
                out, y = body(index, given, unflatten(xs_structure, symbols[count:]))
            after = _Tree(out)
            if not _adapted(name, carry, after):
                y_leaves, y_structure = flatten(y)
                _check_leaves(name, "what is stacked", y_leaves, _STACKED)
                carries = _of_dtypes(name, after.leaves, carry.specs)
                return trace.body([*carries, *y_leaves], 1 + len(symbols)), y_structure
        finally:
            trace.close()


def _repeated(name: str, goes_on: Callable[[Any], Any], body: Callable[[Any], Any], carry: _Tree) -> Any:
    """``while goes_on(carry): carry = body(carry)``."""
    trace = _core.Trace(name)
    try:
        nothing = flatten(None)[1]
        step, _ = _recorded_step(name, lambda _, value, __: (body(value), None), carry, [], nothing)
        test = _recorded_test(name, goes_on, carry)
        carries = _carries(name, trace, carry)
        are_arrays = [spec.is_array for spec in carry.specs]
        *parts, count = _core.while_loop(trace, test, step, carries, are_arrays)
        if trace.is_enclosed:
            try:
                trips = int(count)
            except TracerError:
                pass
            else:
                parts = _core.scan(trace, step, carries, [], trips, False, are_arrays)
        values = trace.evaluate(parts)
    finally:
        trace.close()
    return unflatten(carry.structure, values)


def _drawing_refused(name: str, function: Callable[..., Any]) -> AbstractContextManager[None]:
    # Only here: who has no loops need not wait for it.
    from ckad.transforms.drawn import drawing_refused

    return drawing_refused(name, [function])


def _recorded_test(name: str, goes_on: Callable[[Any], Any], carry: _Tree) -> _core.Body:
    trace = _core.Trace(name, body=True)
    try:
        symbols = _symbols(trace, carry.specs)
        with _drawing_refused(name, goes_on):
            found = goes_on(unflatten(carry.structure, symbols))
        leaf = Leaf(found) if not isinstance(found, (tuple, list, dict, type(None))) else None
        if leaf is None or leaf.shape or leaf.dtype.kind not in "biuf":
            kind = "nothing" if found is None else repr(leaf) if leaf is not None else f"a {type(found).__name__}"
            hint = "return a comparison of scalars, or np.any(…) or np.all(…) of one of arrays"
            raise ShapeError.of(name, f"the test gives {kind}, not a bool", hint)
        if leaf.dtype != np.bool_:
            found = found != 0
        return trace.body([found], len(symbols))
    finally:
        trace.close()


def _chosen(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """Both functions as the two sides of a branch."""
    given = _Tree(operands)
    trace = _core.Trace("cond")
    try:
        values = _arguments("cond", "the operands", trace, given.leaves)
        choice = trace.argument(pred, False)
        choice = choice if choice.dtype == np.bool_ else choice != 0
        if_false, one = _recorded_side(false_fn, given, None)
        if_true, other = _recorded_side(true_fn, given, one)
        if one.structure == other.structure and any(a.takes(b) for a, b in zip(one.specs, other.specs, strict=True)):
            if_false, one = _recorded_side(false_fn, given, other)
        if not one.is_like(other):
            hint = "let both return the same structure, shapes and dtypes: convert with .astype, or broadcast"
            raise ShapeError.of("cond", f"true_fn returns {other!r} and false_fn {one!r}", hint)
        are_arrays = [a.is_array or b.is_array for a, b in zip(one.specs, other.specs, strict=True)]
        parts = _core.cond(trace, choice, (if_false, if_true), values, are_arrays)
        results = trace.evaluate(parts)
    finally:
        trace.close()
    return unflatten(one.structure, results)


def _recorded_side(function: Callable[..., Any], given: _Tree, like: _Tree | None) -> tuple[_core.Body, _Tree]:
    """One side of a branch, and what it returns: numbers of Python's take the dtypes of what the other side returns."""
    side = _core.Trace("cond", body=True)
    try:
        symbols = _symbols(side, given.specs)
        with _drawing_refused("cond", function):
            result = _Tree(function(*unflatten(given.structure, symbols)))
        if like is not None and like.structure == result.structure:
            for one, other in zip(result.specs, like.specs, strict=True):
                if one.takes(other):
                    one.take(other)
        return side.body(_of_dtypes("cond", result.leaves, result.specs), len(symbols)), result
    finally:
        side.close()
