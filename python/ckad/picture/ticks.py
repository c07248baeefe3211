"""Round numbers on an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ckad.errors import in_units


def ticks(top: float, about: int, binary: bool = False) -> list[float]:
    """From 0 up to `top`, about so many steps apart; of bytes, in round numbers of a unit of 1024.

    >>> ticks(95, 5), ticks(70 * 2**20, 4, binary=True)[1] / 2**20
    ([0.0, 20.0, 40.0, 60.0, 80.0], 20.0)
    """
    if not top > 0:
        return [0.0]
    unit = 1024.0 ** math.floor(math.log(top / 2, 1024)) if binary and top > 2048 else 1.0
    raw = top / unit / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999) * unit
    return [step * number for number in range(int(top / step + 1e-9) + 1)]


MANY_TIMES: Final = 1000.0
"""Extra work in percent from which on an axis is logarithmic: plans of few states take tens of times the work."""


def spread(top: float) -> Callable[[float], float]:
    """How high a percentage stands on an axis up to `top`: linear, or like log(1 + x).

    >>> spread(50)(20), round(spread(50_000)(99))
    (20, 2)
    """
    if top <= MANY_TIMES:
        return lambda percent: percent
    return lambda percent: math.log10(1 + percent)


def percent_ticks(top: float) -> list[float]:
    """Ticks of such an axis.

    >>> percent_ticks(50), percent_ticks(50_000)
    ([0.0, 20.0, 40.0], [0.0, 10.0, 100.0, 1000.0, 10000.0])
    """
    if top <= MANY_TIMES:
        return ticks(top, 4)
    return [0.0, *(10.0**power for power in range(1, int(math.log10(top)) + 1))]


def round_amount(size: float) -> str:
    """Bytes at a tick.

    >>> round_amount(0), round_amount(20 * 2**20), round_amount(1536)
    ('0', '20 MiB', '1.5 KiB')
    """
    return in_units(int(size)).replace(".0 ", " ") if size else "0"
