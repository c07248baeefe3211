"""Reverse mode of scalar functions: `grad` and `value_and_grad`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ckad.errors import DTypeError, ShapeError
from ckad.transforms.limit import MemoryLimit
from ckad.transforms.limit import parse as parse_limit
from ckad.transforms.policy import INHERIT, Checkpoint, parse
from ckad.transforms.recording import (
    Recording,
    check_argnums,
    check_function,
    check_returned,
    mark_transform,
    split_auxiliary,
)


def value_and_grad(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Callable[..., Any]:
    """A function that returns `f`'s value and its gradient.

    Args:
        f: function of arrays (or pytrees of them) to a scalar.
        argnums: position or positions of the arguments to differentiate; their leaves are float64 or float32.
        has_aux: `f` returns `(value, aux)`; `aux` is handed through, traced values in it evaluated.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed.
        memory_limit: the most bytes that the run may allocate (arrays, scratch, program), an int or a text such as
            '512MiB': of the plans tried, the one with the least work that keeps to it is taken. What planning holds
            before the run (`plan.planning_bytes`) does not count.

    Returns:
        A function of the same arguments that returns `(value, gradient)`, or `((value, aux), gradient)`. The
        gradient has the structure of the argument, or is a tuple of such where `argnums` is a tuple.

    Raises:
        ShapeError: `f` returned no scalar.
        DTypeError: a leaf to differentiate, or the value, is not a float.
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., chapter 3 (reverse mode).

    >>> import numpy as np, ckad
    >>> value, gradient = ckad.value_and_grad(lambda x: np.sum(x * x))(np.array([1.0, 2.0]))
    >>> print(value, gradient)
    5.0 [2. 4.]
    """
    return value_and_grad_for(
        "value_and_grad", f, argnums, has_aux=has_aux, checkpoint=checkpoint, memory_limit=memory_limit
    )


def value_and_grad_for(
    name: str,
    f: Callable[..., Any],
    argnums: int | Sequence[int],
    *,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Callable[..., Any]:
    """`value_and_grad` on behalf of the transform of that name, which its errors name."""
    check_function(name, f)
    check_argnums(name, argnums)
    policy, limit = parse(checkpoint), parse_limit(memory_limit)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with Recording(name, f, args, kwargs, argnums, limit) as recording:
            value, aux = split_auxiliary(name, recording.call(), has_aux)
            _check_scalar(name, value)
            values, gradients = recording.trace.value_and_grad([value, *aux.traced], policy)
            gradient = recording.like_arguments(gradients)
            if has_aux:
                return (values[0], aux.with_values(values[1:])), gradient
            return values[0], gradient

    return mark_transform(wrapped)


def grad(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    has_aux: bool = False,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Callable[..., Any]:
    """A function that returns the gradient of `f`.

    Args:
        f: function of arrays (or pytrees of them) to a scalar.
        argnums: position or positions of the arguments to differentiate.
        has_aux: `f` returns `(value, aux)`; the result is then `(gradient, aux)`.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed.
        memory_limit: the most bytes that the run may allocate (arrays, scratch, program), an int or a text such as
            '512MiB': of the plans tried, the one with the least work that keeps to it is taken. What planning holds
            before the run (`plan.planning_bytes`) does not count.

    Returns:
        A function of the same arguments that returns the gradient, in the structure of the argument.

    Raises:
        ShapeError: `f` returned no scalar.
        DTypeError: a leaf to differentiate, or the value, is not a float.
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., chapter 3 (reverse mode).

    >>> import numpy as np, ckad
    >>> float(ckad.grad(np.sin)(0.0))
    1.0
    """
    both = value_and_grad_for("grad", f, argnums, has_aux=has_aux, checkpoint=checkpoint, memory_limit=memory_limit)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if has_aux:
            (_, aux), gradient = both(*args, **kwargs)
            return gradient, aux
        return both(*args, **kwargs)[1]

    return mark_transform(wrapped)


def _check_scalar(name: str, value: Any) -> None:
    # Given a plain function, these two look at its gradient; a function that calls a transform is one, too.
    of_transform = (
        f", or pass the transformed function itself: ckad.{name}(ckad.grad(f)), ckad.{name}(ckad.jacobian(f)); a "
        f"function that calls ckad.hvp, ckad.jvp or a pullback goes as ckad.{name}(ckad.jit(f))"
    )
    further = of_transform if name in ("plan", "debug_nans") else ", or use ckad.jacobian"
    check_returned(name, value)
    if isinstance(value, (list, tuple, dict)):
        hint = "return one scalar" + (
            further if name in ("plan", "debug_nans") else ", and (value, aux) under has_aux=True"
        )
        raise ShapeError.of(name, f"the function returned a {type(value).__name__}, not a scalar", hint)
    shape = np.shape(value)
    if shape != ():
        what = f"the function returned an array of shape {shape}, not a scalar"
        raise ShapeError.of(name, what, f"return np.sum(…) or np.mean(…){further}")
    dtype = getattr(value, "dtype", None)
    if dtype not in (None, np.float64, np.float32) or (dtype is None and not isinstance(value, float)):
        kind = dtype if dtype is not None else type(value).__name__
        raise DTypeError.of(name, f"the function returned {kind}, not a float", "return a float: y.astype(float)")
