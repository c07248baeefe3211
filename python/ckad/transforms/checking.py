"""`check_grads`: derivatives against finite differences and against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ckad.errors import CkadTypeError, CkadValueError
from ckad.transforms.gradient import grad
from ckad.transforms.linear import directional_derivative, vjp
from ckad.transforms.recording import check_function
from ckad.tree import flatten, unflatten

_WHERE_TO_LOOK = (
    "look for a kink near the point, for values that f takes out of the trace (stop_gradient), or for an f that is not "
    "the same in each call"
)


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    modes: Sequence[str] = ("forward", "reverse"),
    *,
    rtol: float = 1e-6,
    atol: float = 1e-7,
    step: float = 1e-3,
    seed: int = 0,
) -> None:
    """Checks the derivatives of `f` at `args`, in a random direction.

    Forward mode is compared with five-point central differences, reverse mode with forward mode by
    ⟨u, J v⟩ = ⟨Jᵀ u, v⟩; for `order` 2 and above the same is done to the gradient of a random projection of `f`.

    Args:
        f: function of arrays (or pytrees of them); leaves are float64.
        args: tuple of its arguments.
        order: highest order of derivatives to check.
        modes: which modes to check: 'forward', 'reverse', or both.
        rtol, atol: tolerances of the finite differences; the dot-product identity is held to 1e-9.
        step: finite-difference step.
        seed: of the random directions.

    Raises:
        AssertionError: a derivative is off; the message says which, by how much, and in which mode.
        ValueError: an unknown mode or an order below 1.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., section 3.1; Fornberg, Generation of Finite
    Difference Formulas, Mathematics of Computation 51 (1988).

    >>> import numpy as np, ckad
    >>> ckad.check_grads(np.sin, (0.5,))
    """
    unknown = set(modes) - {"forward", "reverse"}
    if unknown or not modes:
        hint = "use 'forward', 'reverse' or both"
        raise CkadValueError.of("check_grads", f"unknown modes {sorted(map(str, unknown))!r} of {modes!r}", hint)
    if order < 1:
        raise CkadValueError.of("check_grads", f"order={order} is below 1", "use order=1 for first derivatives alone")
    check_function("check_grads", f)
    if not isinstance(args, (tuple, list)):
        what = f"args must be a tuple of the function's arguments, not {type(args).__name__}"
        raise CkadTypeError.of("check_grads", what, "write check_grads(f, (x,))")
    rng = np.random.default_rng(seed)
    args = tuple(args)
    leaves, structure = flatten(args)
    v = unflatten(structure, [_direction(rng, leaf) for leaf in leaves])
    out, tangent = directional_derivative("check_grads", f, args, v)
    if "forward" in modes:
        expected = _five_point(f, args, v, step)
        _compare("forward mode against finite differences", tangent, expected, rtol, atol)
    u = unflatten(flatten(out)[1], [_direction(rng, leaf) for leaf in flatten(out)[0]])
    if "reverse" in modes:
        reference = tangent if "forward" in modes else _five_point(f, args, v, step)
        tolerance = 1e-9 if "forward" in modes else max(rtol, 1e-6)
        cotangents = vjp(f, *args)[1](u)
        left, right = _inner(u, reference), _inner(cotangents, v)
        scale = max(abs(left), abs(right), _norm(u) * _norm(reference) * 1e-3, atol)
        if not abs(left - right) <= tolerance * scale:
            raise AssertionError(
                f"[check_grads] reverse mode disagrees with the directional derivative: ⟨u, J v⟩ = {left!r}, "
                f"⟨Jᵀ u, v⟩ = {right!r}. Hint: {_WHERE_TO_LOOK}"
            )
    if order > 1:

        def projection(*point: Any) -> Any:
            values = flatten(f(*point))[0]
            return sum(np.sum(value * weight) for value, weight in zip(values, flatten(u)[0], strict=True))

        gradient = grad(projection, argnums=tuple(range(len(args))))
        check_grads(gradient, args, order - 1, modes, rtol=rtol * 10, atol=atol * 10, step=step, seed=seed + 1)


def _direction(rng: np.random.Generator, leaf: Any) -> Any:
    direction = rng.standard_normal(np.shape(leaf))
    return direction if np.shape(leaf) else np.float64(direction)


def _five_point(f: Callable[..., Any], args: tuple[Any, ...], v: Any, step: float) -> Any:
    """(f(x−2h) − 8 f(x−h) + 8 f(x+h) − f(x+2h)) / 12h along v."""
    leaves, structure = flatten(args)
    directions = flatten(v)[0]

    def at(multiple: float) -> list[Any]:
        shift = multiple * step
        moved = [np.asarray(leaf) + shift * np.asarray(d) for leaf, d in zip(leaves, directions, strict=True)]
        moved = [value if np.shape(value) else value[()] for value in moved]
        return [np.asarray(value, np.float64) for value in flatten(f(*unflatten(structure, moved)))[0]]

    stencil = zip(at(-2), at(-1), at(1), at(2), strict=True)
    return [(a - 8 * b + 8 * c - d) / (12 * step) for a, b, c, d in stencil]


def _compare(what: str, found: Any, expected: Sequence[Any], rtol: float, atol: float) -> None:
    for index, (value, reference) in enumerate(zip(flatten(found)[0], expected, strict=True)):
        np.testing.assert_allclose(
            np.asarray(value),
            reference,
            rtol=rtol,
            atol=atol,
            err_msg=f"[check_grads] {what}, output leaf {index}. Hint: {_WHERE_TO_LOOK}",
        )


def _inner(a: Any, b: Any) -> float:
    pairs = zip(flatten(a)[0], flatten(b)[0], strict=True)
    return float(sum(np.vdot(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs))


def _norm(tree: Any) -> float:
    return float(np.sqrt(_inner(tree, tree)))
