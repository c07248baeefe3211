"""What `checkpoint=` may say, checked where the user says it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ckad.errors import CkadValueError
from ckad.transforms.offload import Offload
from ckad.transforms.slots import Mixed, Revolve
from ckad.transforms.user_policy import Policy, is_policy, number

_COMMON: Final = "'none', 'auto', 'sqrt', 'log', a number of segments (an int ≥ 1), ckad.Revolve(…), ckad.Mixed(…)"
NAMED: Final = f"{_COMMON} or ckad.Offload()"
"""Policies of ckad's own: all that a transform inside another one takes; the core's errors name them."""
ALLOWED: Final = f"{_COMMON}, ckad.Offload() or an object with a method choose"


class _Inherit:
    """The signature's default: take the policy of the enclosing transform, 'auto' where there is none."""

    def __repr__(self) -> str:
        return "'auto'"


INHERIT: Final = _Inherit()

Checkpoint = str | int | np.integer[Any] | Revolve | Mixed | Offload | Policy | None | _Inherit


def within(checkpoint: Checkpoint) -> Checkpoint:
    """What a transform says that a transform of ckad's own applies inside: a policy object plans the whole run."""
    return INHERIT if is_policy(checkpoint) else checkpoint


def parse(checkpoint: Checkpoint) -> str | int | tuple[str, int] | None:
    """The policy as the core reads it: a name, a number of segments, a name and its number, or None to inherit.

    Raises:
        ValueError: the policy is not one of those allowed.
    """
    if isinstance(checkpoint, _Inherit):
        return None
    if checkpoint is None:
        return "none"
    if isinstance(checkpoint, Offload):
        return "offload", int(checkpoint.min_bytes)
    if is_policy(checkpoint):
        return "user", number(checkpoint)
    if isinstance(checkpoint, np.integer):
        checkpoint = int(checkpoint)
    if isinstance(checkpoint, int) and not isinstance(checkpoint, bool) and 1 <= checkpoint < 2**31:
        return checkpoint
    if isinstance(checkpoint, str) and checkpoint in ("none", "auto", "sqrt", "log"):
        return checkpoint
    if isinstance(checkpoint, (Revolve, Mixed)):
        return ("revolve" if isinstance(checkpoint, Revolve) else "mixed", checkpoint.slots)
    if checkpoint is Offload:
        raise CkadValueError.of("checkpoint", "the class ckad.Offload", "give an object of it: ckad.Offload()")
    if isinstance(checkpoint, type) and issubclass(checkpoint, (Revolve, Mixed)):
        name = f"ckad.{checkpoint.__name__}"
        raise CkadValueError.of("checkpoint", f"the class {name}", f"say how many slots, such as {name}(10)")
    if isinstance(checkpoint, int) and not isinstance(checkpoint, bool):
        what = f"a number of segments must be between 1 and 2**31 − 1, not {_number(checkpoint)}"
        raise CkadValueError.of("checkpoint", what, f"use {ALLOWED}; more segments than operations are none")
    if isinstance(checkpoint, type) and hasattr(checkpoint, "choose"):
        what = f"the class {checkpoint.__name__} in place of a policy"
        raise CkadValueError.of("checkpoint", what, f"give an object of it: checkpoint={checkpoint.__name__}()")
    plain = isinstance(checkpoint, (str, float, bool))
    what = f"unknown policy {checkpoint!r:.60}" if plain else f"a policy of type {type(checkpoint).__name__}"
    raise CkadValueError.of("checkpoint", what, f"use {ALLOWED}")


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**15 else f"{'−' if value < 0 else ''}2**{value.bit_length() - 1} or more"
