"""What the tests of `ckad.jit` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ckad
from ckad.tree import flatten


def assert_equal_bits(found: Any, expected: Any) -> None:
    (found_leaves, found_structure), (leaves, structure) = flatten(found), flatten(expected)
    assert found_structure == structure
    for a, b in zip(found_leaves, leaves, strict=True):
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


class Counted:
    """A function that counts how often Python runs it."""

    def __init__(self, f: Callable[..., Any]) -> None:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.count_one()
            return f(*args, **kwargs)

        self.calls = calls = Calls()
        self.jitted = ckad.jit(counted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.jitted(*args, **kwargs)

    @property
    def count(self) -> int:
        return self.calls.count


class Calls:
    """Counts under a name that no code names: a captured counter would change, and the function be recorded anew."""

    def __init__(self) -> None:
        self.__dict__["hidden count"] = 0

    def count_one(self) -> None:
        self.__dict__["hidden count"] += 1

    @property
    def count(self) -> int:
        return self.__dict__["hidden count"]
