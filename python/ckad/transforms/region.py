"""`ckad.checkpoint`: a part of the program that keeps only its inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ckad import _core
from ckad.transforms.recording import check_function


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose inner values are recomputed in the backward part instead of kept.

    Args:
        fn: any function of traced values.

    Returns:
        A function with the same result. What `fn` records is a region of its own in the plan: values that enter it
        are kept, values inside it are not. Outside a transform it is `fn`.

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
