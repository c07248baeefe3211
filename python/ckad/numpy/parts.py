"""Real and imaginary parts of what is always real: traced values are never complex."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckad import _core
from ckad.numpy.axes import array, memory_order
from ckad.numpy.registry import implements


@implements(np.real)
def real(val: Any) -> Any:
    # What stands for a Python number stays one, as `(2.5).real` is one.
    return val if isinstance(val, _core.Tracer) else array(val)


@implements(np.imag, method="imag")
def imag(val: Any) -> Any:
    x = array(val)
    if isinstance(val, _core.Tracer) and x is not val:
        return x.dtype.type().item()  # of a Python number, one
    # NumPy's zeros are read-only.
    zeros = _core.zeros(x, x.shape, x.dtype.name, memory_order(x, "A"))
    return zeros[()] if _core.is_scalar(x) else _core.broadcast_view(zeros, x.shape)


@implements(np.isreal)
def isreal(x: Any) -> Any:
    return np.equal(imag(x), 0)


@implements(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """Constant: no array of a program that ckad records depends on it."""
    return np.zeros(array(x).shape, np.bool_)[()]


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    return True


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    return False


@implements(np.real_if_close)
def real_if_close(a: Any, tol: Any = 100) -> Any:
    return array(a)
