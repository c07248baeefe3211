"""What the core says of a plan, by name: it makes these tuples, tables and pictures read them."""

from __future__ import annotations

from typing import NamedTuple


class LineCost(NamedTuple):
    """What the values of one source line cost in a plan, those of its derivatives included.

    Attributes:
        file: the file, "" where it is not known.
        line: the number of the line.
        peak_bytes: bytes of its values that are alive when most bytes are.
        saved_bytes: bytes of its values that are alive when the backward part begins.
        computed: the most times that one of its operations is computed.
        flops: floating point operations executed.
    """

    file: str
    line: int
    peak_bytes: int
    saved_bytes: int
    computed: int
    flops: int


class FrontierPoint(NamedTuple):
    """A plan of which no other needs as few bytes and as little work.

    Attributes:
        peak_bytes: the least `memory_limit` that it keeps.
        extra_flops: floating point operations beyond those of keeping everything.
        policy: how it came about, to read: "none", "auto", "sqrt, 12 segments".
    """

    peak_bytes: int
    extra_flops: int
    policy: str
