"""What `memory_limit=` may say, checked where the user says it."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any, Final

import numpy as np

import ckad
from ckad.errors import CkadValueError

UNITS: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TB": 10**12,
    "TIB": 2**40,
}

_ALLOWED: Final = (
    "use a number of bytes (an int ≥ 1) or a text such as '512MiB', in B, KB, MB, GB, TB, KiB, MiB, GiB or TiB"
)
_TEXT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", re.ASCII)

MemoryLimit = int | str | np.integer[Any] | None


def parse(limit: MemoryLimit) -> int | None:
    """The limit in bytes, rounded down; None where there is none.

    Raises:
        ValueError: it is no amount of memory.

    >>> parse("1.5 KiB"), parse("2MB"), parse(10)
    (1536, 2000000, 10)
    """
    if limit is None:
        return None
    if isinstance(limit, str):
        found = _TEXT.fullmatch(limit)
        unit = UNITS.get(found[2].upper()) if found else None
        if found is None or unit is None:
            raise CkadValueError.of("memory_limit", f"{limit!r:.60} is no amount of memory", _ALLOWED)
        whole, _, fraction = found[1].partition(".")
        # In whole numbers: as a float, a large limit would be rounded, and perhaps up.
        amount = (int(whole + fraction) * unit) // 10 ** len(fraction) if len(found[1]) <= 30 else -1
        given = repr(limit)
    elif isinstance(limit, (int, np.integer)) and not isinstance(limit, bool):
        amount = int(limit)
        given = str(amount) if abs(amount) < 10**18 else f"an int of {amount.bit_length()} bits"
    else:
        shown = isinstance(limit, (float, bool, np.floating, np.bool_))
        given = repr(limit) if shown else f"a value of type {type(limit).__name__}"
        is_amount = isinstance(limit, float) and math.isfinite(limit) and limit >= 1
        hint = f"write memory_limit={int(limit)}" if is_amount else _ALLOWED
        raise CkadValueError.of("memory_limit", f"{given:.60} is no amount of memory", hint)
    if not 1 <= amount < 2**63:
        raise CkadValueError.of("memory_limit", f"a limit is between 1 and 2**63 − 1 bytes, not {given:.60}", _ALLOWED)
    return amount


def takes_limit(transform: str) -> bool:
    """Has `ckad.<transform>` an argument `memory_limit`? For the core's errors.

    >>> takes_limit("grad"), takes_limit("scan")
    (True, False)
    """
    function = getattr(ckad, transform, None)
    return callable(function) and "memory_limit" in inspect.signature(function).parameters
