"""Policies with so many slots: what `checkpoint=` takes beside names and numbers of segments."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

from ckad.errors import CkadTypeError, CkadValueError


class _Slots:
    """A number of slots, checked when it is given; equal and hashed by it."""

    __slots__ = ("slots",)

    slots: int

    def __init__(self, slots: SupportsIndex) -> None:
        name = f"ckad.{type(self).__name__}"
        hint = f"write the number of states held at one time, such as {name}(10)"
        if isinstance(slots, bool) or not hasattr(slots, "__index__"):
            raise CkadTypeError.of(name, f"slots is an int, not {type(slots).__name__}", hint)
        count = operator.index(slots)
        if not 1 <= count < 2**31:
            shown = str(count) if abs(count) < 10**15 else "a number of that size"
            raise CkadValueError.of(name, f"slots must be between 1 and 2**31 − 1, not {shown}", hint)
        object.__setattr__(self, "slots", count)

    def __setattr__(self, name: str, value: object) -> None:
        made = type(self).__name__
        raise AttributeError(f"[ckad.{made}] a policy does not change. Hint: make another one, {made}(slots)")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Slots) and other.slots == self.slots

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.slots))

    def __repr__(self) -> str:
        return f"ckad.{type(self).__name__}({self.slots})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.slots,)


class Revolve(_Slots):
    """Hold so many states of a loop, and recompute the others from them with the least work.

    The steps are read off the recorded program; no loop has to be rewritten. For n steps that cost the same this is
    the binomial optimum: with r the least number for which C(slots + r, slots) ≥ n, r·n − C(slots + r, r − 1) steps are
    computed before their own adjoints, and none more than r times. Unequal steps, up to 128 of them, are planned by
    their work.

    Args:
        slots: states held at one time, that at the beginning included; at least 1.

    Raises:
        ValueError: slots is less than 1; or, when a function is planned, so few that its steps would be computed far
            too often.

    Source: A. Griewank and A. Walther, Algorithm 799: Revolve (2000).

    >>> import numpy as np, ckad
    >>> def f(x):
    ...     for _ in range(100):
    ...         x = x + 0.1 * np.sin(x)
    ...     return np.sum(x)
    >>> ckad.grad(f, checkpoint=ckad.Revolve(5))(np.zeros(1000))[0].round(3)
    np.float64(13780.612)
    """

    __slots__ = ()


class Mixed(_Slots):
    """Hold in each of so many slots either the state before a step of a loop or what that step computes.

    A step whose values are held is not recomputed for its own adjoint. Where states and what a step's adjoint reads are
    about as large, this takes less work than `Revolve` with as many slots.

    Args:
        slots: how much is held at one time; at least 1.

    Raises:
        ValueError: slots is less than 1; or, when a function is planned, so few that its steps would be computed far
            too often.

    Source: J. R. Maddison, Step-based checkpointing with high-level algorithmic differentiation (2024).

    >>> import numpy as np, ckad
    >>> def f(x):
    ...     for _ in range(100):
    ...         x = x + 0.1 * np.sin(x)
    ...     return np.sum(x)
    >>> ckad.grad(f, checkpoint=ckad.Mixed(5))(np.zeros(1000))[0].round(3)
    np.float64(13780.612)
    """

    __slots__ = ()
