"""Derivatives as linear functions: `jvp`, `vjp`, `linearize`, and what is built on them alone (`hvp`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, DTypeError, ShapeError
from ckad.transforms.gradient import value_and_grad_for
from ckad.transforms.limit import MemoryLimit
from ckad.transforms.limit import parse as parse_limit
from ckad.transforms.policy import INHERIT, Checkpoint, parse, within
from ckad.transforms.recording import Recording, split_auxiliary
from ckad.tree import flatten, is_leaf, unflatten

_LIKE = {"tangent": "the arguments", "cotangent": "the function's output"}


def _matching_leaves(name: str, what: str, tree: Any, structure: Any, primals: Sequence[Any]) -> list[Any]:
    """Leaves of `tree`, checked to have the structure and shapes of `primals`."""
    leaves, found = flatten(tree)
    if found != structure:
        hint = (
            f"pass the {what} in the structure of {_LIKE[what]}: tuples, lists and dicts alike, and arrays for arrays"
        )
        if any(np.shape(primal) for primal in primals):
            hint += ", np.array([1.0, 0.0]) and not [1.0, 0.0]"
        wanted = _in_words(unflatten(structure, primals), name)
        raise ShapeError.of(name, f"the {what} is {_in_words(tree, name)}, expected {wanted}", hint)
    for leaf, primal in zip(leaves, primals, strict=True):
        if np.shape(leaf) != np.shape(primal):
            wrong = f"a {what} leaf has shape {np.shape(leaf)}, expected {np.shape(primal)}"
            raise ShapeError.of(name, wrong, f"each leaf has the shape of that of {_LIKE[what]}: np.ones_like(leaf)")
    return [_as_dtype(name, what, leaf, primal) for leaf, primal in zip(leaves, primals, strict=True)]


def _in_words(tree: Any, name: str) -> str:
    """A structure as one would write it, arrays and numbers by what they are; of hvp, its one argument."""
    if name == "hvp" and isinstance(tree, tuple) and len(tree) == 1:
        tree = tree[0]
    return _written(tree, 0)


def _written(tree: Any, depth: int) -> str:
    if depth > 3:
        return "…"
    if isinstance(tree, dict):
        inner = [f"{key!r}: {_written(value, depth + 1)}" for key, value in list(tree.items())[:4]]
        return "{" + ", ".join([*inner, "…"] if len(tree) > 4 else inner) + "}"
    if isinstance(tree, (tuple, list)):
        inner = [_written(value, depth + 1) for value in tree[:4]]
        text = ", ".join([*inner, "…"] if len(tree) > 4 else inner)
        if isinstance(tree, list):
            return f"[{text}]"
        return f"({text},)" if len(tree) == 1 else f"({text})"
    if tree is None or not is_leaf(tree):
        return "None" if tree is None else f"a {type(tree).__name__}"
    shape = np.shape(tree)
    return f"array of shape {shape}" if shape else "number"


def _as_dtype(name: str, what: str, leaf: Any, primal: Any) -> Any:
    """The leaf in the dtype of its primal; only casts that keep floats floats are made."""
    wanted = getattr(primal, "dtype", np.dtype(np.float64))
    found = getattr(leaf, "dtype", None)
    if found == wanted:
        return leaf
    if found is not None and found.kind not in "fiub":
        hint = f"convert it with np.asarray(leaf, np.{wanted})" + (", or take its .real" if found.kind == "c" else "")
        raise DTypeError.of(name, f"a {what} leaf has dtype {found}, expected {wanted}", hint)
    return leaf.astype(wanted) if hasattr(leaf, "astype") else np.asarray(leaf, wanted)[()]


def jvp(
    f: Callable[..., Any],
    args: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Any:
    """The value of `f` and its directional derivative: forward mode.

    Args:
        f: function of arrays (or pytrees of them).
        args: tuple of its arguments; all leaves are float64 or float32.
        tangents: tuple of directions, of the arguments' structure, shapes and dtypes.
        has_aux: `f` returns `(out, aux)`; the result is then `(out, tangent, aux)`.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed.
        memory_limit: the most bytes that the run may allocate (arrays, scratch, program), an int or a text such as
            '512MiB': of the plans tried, the one with the least work that keeps to it is taken. What planning holds
            before the run (`plan.planning_bytes`) does not count.

    Returns:
        `(out, tangent)`, both of the structure that `f` returns.

    Raises:
        ShapeError: the tangents do not fit the arguments.
        DTypeError: an argument is not a float.
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., section 3.1 (forward mode).

    >>> import numpy as np, ckad
    >>> value, tangent = ckad.jvp(lambda x: x**3, (2.0,), (1.0,))
    >>> print(value, tangent)
    8.0 12.0
    """
    if not isinstance(args, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        kinds = f"{type(args).__name__} and {type(tangents).__name__}"
        raise CkadTypeError.of("jvp", f"args and tangents must be tuples, not {kinds}", "write jvp(f, (x,), (v,))")
    return directional_derivative(
        "jvp", f, tuple(args), tuple(tangents), has_aux=has_aux, checkpoint=checkpoint, memory_limit=memory_limit
    )


def directional_derivative(
    name: str,
    f: Callable[..., Any],
    args: tuple[Any, ...],
    tangents: Any,
    *,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Any:
    """`jvp` on behalf of the transform of that name, which its errors name."""
    with Recording(name, f, args, {}, tuple(range(len(args))), parse_limit(memory_limit)) as recording:
        structure = flatten(args)[1]
        directions = _matching_leaves(name, "tangent", tangents, structure, recording.leaves)
        out, aux = split_auxiliary(name, recording.call(), has_aux)
        leaves, out_structure = flatten(out)
        values, out_tangents = recording.trace.jvp([*leaves, *aux.traced], directions, parse(checkpoint))
        count = len(leaves)
        result = (unflatten(out_structure, values[:count]), unflatten(out_structure, out_tangents[:count]))
        return (*result, aux.with_values(values[count:])) if has_aux else result


def linearize(
    f: Callable[..., Any],
    *args: Any,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Any:
    """The value of `f` and its derivative there as a linear function, for many directions.

    Args:
        f: function of arrays (or pytrees of them).
        args: the point; all leaves are float64 or float32.
        has_aux: `f` returns `(out, aux)`; the result is then `(out, linear, aux)`.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed. Under one that recomputes, the linear function owns
            the arguments and captured arrays, and computes what else it reads in each call.
        memory_limit: the most bytes that each run may allocate, the function's and that of the linear function,
            an int or a text such as '512MiB'.

    Returns:
        `(out, linear)`; `linear(*tangents)` is the tangent of `out`. It owns what it needs: changing the arguments
        afterwards changes nothing.

    Raises:
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Radul et al., You Only Linearize Once, POPL 2023.

    >>> import numpy as np, ckad
    >>> value, linear = ckad.linearize(np.sin, 0.0)
    >>> print(value, linear(2.0))
    0.0 2.0
    """
    with Recording("linearize", f, args, {}, tuple(range(len(args))), parse_limit(memory_limit)) as recording:
        structure = flatten(args)[1]
        out, aux = split_auxiliary("linearize", recording.call(), has_aux)
        leaves, out_structure = flatten(out)
        values, linear_map = recording.trace.linearize([*leaves, *aux.traced], parse(checkpoint))
        primals = [_Signature(leaf) for leaf in recording.leaves]
        count = len(leaves)

        def linear(*tangents: Any) -> Any:
            directions = _matching_leaves("linearize", "tangent", tangents, structure, primals)
            return unflatten(out_structure, linear_map(directions)[:count])

        value = unflatten(out_structure, values[:count])
        return (value, linear, aux.with_values(values[count:])) if has_aux else (value, linear)


def vjp(
    f: Callable[..., Any],
    *args: Any,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Any:
    """The value of `f` and its pullback: reverse mode.

    Args:
        f: function of arrays (or pytrees of them).
        args: the point; all leaves are float64 or float32.
        has_aux: `f` returns `(out, aux)`; the result is then `(out, pullback, aux)`.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed. Under one that recomputes, the linear function owns
            the arguments and captured arrays, and computes what else it reads in each call.
        memory_limit: the most bytes that each run may allocate, the function's and that of the linear function,
            an int or a text such as '512MiB'.

    Returns:
        `(out, pullback)`; `pullback(cotangent)` is a tuple with a cotangent per argument. It owns what it needs.

    Raises:
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., section 3.2 (reverse mode).

    >>> import numpy as np, ckad
    >>> value, pullback = ckad.vjp(lambda x, y: x * y, 2.0, 3.0)
    >>> print(*(float(cotangent) for cotangent in pullback(1.0)))
    3.0 2.0
    """
    with Recording("vjp", f, args, {}, tuple(range(len(args))), parse_limit(memory_limit)) as recording:
        out, aux = split_auxiliary("vjp", recording.call(), has_aux)
        leaves, out_structure = flatten(out)
        values, linear_map = recording.trace.vjp([*leaves, *aux.traced], parse(checkpoint))
        outs = [_Signature(leaf) for leaf in values]
        count = len(leaves)

        def pullback(cotangent: Any) -> Any:
            cotangents = _matching_leaves("vjp", "cotangent", cotangent, out_structure, outs[:count])
            zeros = [np.zeros(leaf.shape, leaf.dtype) for leaf in outs[count:]]
            return recording.like_arguments(linear_map([*cotangents, *zeros]))

        value = unflatten(out_structure, values[:count])
        return (value, pullback, aux.with_values(values[count:])) if has_aux else (value, pullback)


class _Signature:
    """Shape and dtype of a leaf, without the leaf."""

    def __init__(self, leaf: Any) -> None:
        self.shape = np.shape(leaf)
        self.dtype = np.dtype(getattr(leaf, "dtype", np.float64))


def hvp(
    f: Callable[..., Any], x: Any, v: Any, *, checkpoint: Checkpoint = INHERIT, memory_limit: MemoryLimit = None
) -> Any:
    """The product of the Hessian of `f` at `x` with `v`, without the Hessian.

    Args:
        f: function of one array (or pytree) to a scalar.
        x: the point.
        v: the direction, of the structure, shapes and dtypes of `x`.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed.
        memory_limit: the most bytes that the run may allocate (arrays, scratch, program), an int or a text such as
            '512MiB': of the plans tried, the one with the least work that keeps to it is taken. What planning holds
            before the run (`plan.planning_bytes`) does not count.

    Returns:
        ∇²f(x)·v, in the structure of `x`.

    Raises:
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6 (1994): forward over reverse.

    >>> import numpy as np, ckad
    >>> print(ckad.hvp(lambda x: np.sum(x**3), np.array([1.0, 2.0]), np.array([1.0, 0.0])))
    [6. 0.]
    """
    gradient = value_and_grad_for("hvp", f, 0, checkpoint=within(checkpoint))
    return directional_derivative(
        "hvp", lambda x: gradient(x)[1], (x,), (v,), checkpoint=checkpoint, memory_limit=memory_limit
    )[1]


def stop_gradient(x: Any) -> Any:
    """The value of `x` as a constant: no derivative flows through.

    Args:
        x: a pytree of values.

    Returns:
        The same values.

    Source: docs/derivatives.md.

    >>> import ckad
    >>> float(ckad.grad(lambda x: x * ckad.stop_gradient(x))(3.0))
    3.0
    """
    leaves, structure = flatten(x)
    return unflatten(
        structure, [_core.stop_gradient(leaf) if isinstance(leaf, _core.Tracer) else leaf for leaf in leaves]
    )
