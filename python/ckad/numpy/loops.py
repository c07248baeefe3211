"""`dtype=` of a ufunc: which NumPy takes, asked of NumPy itself before the core records the call."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import DTypeError
from ckad.numpy.registry import implements


@implements(method="ufunc.dtype")
def check_dtype(ufunc: np.ufunc, dtype: Any, *operands: Any) -> None:
    """Refuses what NumPy refuses: a dtype that the ufunc is not defined for, or that operands are not cast to."""
    try:
        with np.errstate(all="ignore"):
            ufunc(*map(_stand_in, operands), dtype=dtype)
    except TypeError as error:
        hint = "convert the operands with .astype, or the result: np.floor(x).astype(int)"
        raise DTypeError.of(ufunc.__name__, str(error), hint) from None


def _stand_in(x: Any) -> Any:
    """A one that is as strong as x."""
    if isinstance(x, _core.Tracer):
        one = np.ones((), x.dtype)
        return one if _core.strong(x) is x else one.item()
    if isinstance(x, (bool, int, float)) and not isinstance(x, np.generic):
        return type(x)(1)
    return np.ones((), np.asarray(x).dtype)
