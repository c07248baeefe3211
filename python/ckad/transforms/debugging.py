"""`ckad.debug_nans`: where a derivative met infinities and NaNs that it treated as nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ckad import _core
from ckad.transforms.gradient import value_and_grad_for
from ckad.transforms.recording import check_function, is_transform


def debug_nans(f: Callable[..., Any]) -> Callable[..., list[str]]:
    """A function that lists the source lines where derivatives absorbed a number that is not finite.

    A derivative is a sum of products, and a factor of exactly 0 makes its product 0 whatever the other factor is. So
    `np.where(x > 0, np.sqrt(x), 0)` has a finite gradient at 0. Where that hides an infinity or a NaN that should not
    be there, this finds it, also behind a literal 0, as in `0.0 * np.sqrt(x)`, and in the bodies of loops and branches.

    Args:
        f: a transformed function such as `ckad.grad(loss)`; or a plain function, whose `value_and_grad` is looked at.

    Returns:
        A function of the same arguments that runs `f` and returns a list of `file:line`, each line once: those of the
        operations in whose derivatives 0 met a number that is not finite.

    Raises:
        TypeError: `f` is no function.

    Source: docs/derivatives.md.

    >>> import numpy as np, ckad
    >>> loss = lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0.0))
    >>> ckad.grad(loss)(np.array([0.0, 1.0]))
    array([0. , 0.5])
    >>> len(ckad.debug_nans(loss)(np.array([0.0, 1.0]))), ckad.debug_nans(loss)(np.array([1.0, 4.0]))
    (1, [])
    """
    check_function("debug_nans", f)
    transformed = f if is_transform(f) else value_and_grad_for("debug_nans", f, 0)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> list[str]:
        with _core.Watching() as watching:
            transformed(*args, **kwargs)
            return watching.lines

    return wrapped
