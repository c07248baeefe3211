"""What is kept by hand: `ckad.checkpoint`, a part of the program that keeps only its inputs, and `ckad.save`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ckad import _core
from ckad.transforms.recording import check_function
from ckad.tree import flatten


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose inner values are recomputed in the backward part instead of kept.

    Args:
        fn: any function of traced values.

    Returns:
        A function with the same result. What `fn` records is a region of its own in the plan: values that enter it
        are kept, values inside it are not. Outside a transform it is `fn`.

    Raises:
        TypeError: `fn` is no function.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

    >>> import numpy as np, ckad
    >>> block = ckad.checkpoint(lambda x: np.tanh(np.sin(x)))
    >>> float(ckad.grad(block)(0.0))
    1.0
    """

    check_function("checkpoint", fn)

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _core.Region():
            return fn(*args, **kwargs)

    return wrapped


def save(x: Any) -> Any:
    """`x` itself, whose value every policy keeps from its computation to its last use.

    Args:
        x: a traced value, or a pytree of them. Anything else is returned as it is.

    Returns:
        `x`: value and derivatives are those without `save`.

    What is saved is computed once, under `'sqrt'`, within `ckad.checkpoint`, and within a `memory_limit`, too. Where a
    view is saved, that is the array behind it. Values that the backward part does not need are not kept by it, and what
    is written into `x` afterwards is a new value.

    Raises:
        TracerError: a traced value outlived the transform that made it.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016 (which results are kept is said by hand).

    >>> import numpy as np, ckad
    >>> def loss(w, x):
    ...     for layer in range(12):
    ...         x = np.tanh(x @ w)
    ...         if layer == 5:
    ...             x = ckad.save(x)
    ...     return np.sum(x)
    >>> w, x = np.eye(8) / 2, np.ones((4, 8))
    >>> ckad.grad(loss, checkpoint="sqrt")(w, x).shape
    (8, 8)
    """
    leaves, _ = flatten(x)
    for leaf in leaves:
        if isinstance(leaf, _core.Tracer):
            _core.keep(leaf)
    return x
