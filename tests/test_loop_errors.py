"""What loops as primitives refuse, and what the errors say."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import TracerError


def test_random_numbers_in_bodies_raise() -> None:
    generator = np.random.default_rng(0)
    drawn = r"was drawn from while the function was recorded: every iteration would.*Hint: draw before the loop"
    loops: dict[str, Callable[[Any], Any]] = {
        "scan": lambda x: ckad.scan(lambda c, _: (c + generator.normal(), None), x, None, 3)[0],
        "fori_loop": lambda x: ckad.fori_loop(0, 3, lambda _, c: c + np.random.rand(), x),  # noqa: NPY002
        "while_loop": lambda x: ckad.while_loop(lambda c: c < random.random(), lambda c: c + 1.0, x),
        "cond": lambda x: ckad.cond(x > 0, lambda x: x * generator.normal(), lambda x: x, x),
    }
    for name, loop in loops.items():
        for f in [ckad.jit(loop)] + [loop, ckad.grad(loop)] * (name != "cond"):
            with pytest.raises(TracerError, match=rf"\[{name}\] .*{drawn}"):
                f(0.5)
    # Where the value is known one function is called, and once.
    assert loops["cond"](-1.0) == -1.0
    assert loops["cond"](1.0) != loops["cond"](1.0)
    # Drawn before.
    assert ckad.scan(lambda c, x: (c + x, None), 0.0, generator.random(3))[0] > 0
