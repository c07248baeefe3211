"""dtype and shape of one value that goes in or out of a body or a rule: what `loops` and `custom` compare."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core

# By kind of dtype: numbers of a lower rank become those of a higher one where they meet.
_RANKS = {"b": 0, "i": 1, "u": 1, "f": 2}


class Leaf:
    """dtype and shape of a value.

    `is_array`: an array, even of rank 0. `weak`: a number of Python's, which takes the dtype of what it meets.
    """

    def __init__(self, value: Any) -> None:
        number = type(value) in (bool, int, float)
        self.weak = number or (isinstance(value, _core.Tracer) and _core.is_weak(value))
        described = value if isinstance(value, (np.ndarray, np.generic, _core.Tracer)) else np.asarray(value)
        self.dtype: Any = described.dtype
        self.shape: tuple[int, ...] = tuple(described.shape)
        scalar = _core.is_scalar(value) if isinstance(value, _core.Tracer) else not isinstance(value, np.ndarray)
        self.is_array = not scalar or bool(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}{self.shape}"

    def is_like(self, other: Leaf) -> bool:
        """Of the same dtype and shape?"""
        return self.dtype == other.dtype and self.shape == other.shape

    def takes(self, other: Leaf) -> bool:
        """Is it a number of Python's that becomes one of the other's dtype where the two meet?"""
        if not self.weak or self.shape != other.shape or self.dtype == other.dtype:
            return False
        rank, rank_of_other = (_RANKS.get(leaf.dtype.kind, -1) for leaf in (self, other))
        return rank < rank_of_other or (rank == rank_of_other and not other.weak)

    def take(self, other: Leaf) -> None:
        """It has the other's dtype from here on."""
        self.dtype, self.weak = other.dtype, other.weak

    def of(self, name: str, value: Any) -> Any:
        """A value, with its dtype where it is a number of Python's."""
        if isinstance(value, _core.Tracer):
            return value if value.dtype == self.dtype else _core.cast(value, self.dtype)
        if type(value) not in (bool, int, float):
            return value
        try:
            return np.asarray(value, self.dtype)[()]
        except OverflowError as error:
            raise OverflowError(f"[{name}] {error}. Hint: convert what it meets to a wider dtype first") from None
