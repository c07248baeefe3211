"""The dtypes that a floating-point array may be given by name: of a draw, of a layer's parameters."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from ckad.errors import DTypeError

FLOATS: Final = (np.dtype(np.float64), np.dtype(np.float32))


def float_dtype(op: str, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, which must be one that can be differentiated."""
    found = np.dtype(dtype)
    if found not in FLOATS:
        raise DTypeError.of(op, f"dtype {found} is not supported", "use numpy.float64 or numpy.float32")
    return found
