"""How a NumPy function finds its traced implementation.

NumPy hands `np.sum(x)` with a traced `x` to `Tracer.__array_function__`, which looks the function up in the core's
table and calls what is registered here. A handler has NumPy's signature; a keyword that it does not support raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ckad import _core
from ckad.errors import CkadTypeError
from ckad.numpy.keywords import keyword_hint

Handler = TypeVar("Handler", bound=Callable[..., Any])

SUPPORTED: Final[set[str]] = set()
"""Names of NumPy's functions with a traced implementation, as they stand behind `np.`."""

CREATING: Final[set[str]] = set()
"""Of those with one under `like=`."""

METHODS: Final[set[str]] = set()
"""Names of methods of traced values that the Python layer gives; the others are the class's own."""


def implements(*functions: Any, method: str | None = None) -> Callable[[Handler], Handler]:
    """Registers a handler for NumPy functions, and as a method of traced values where `method` names one."""

    def register(handler: Handler) -> Handler:
        for function in functions:
            _core.register_function(function, handler)
            SUPPORTED.add(f"{function.__module__}.{function.__name__}".removeprefix("numpy."))
        if method is not None:
            _core.register_method(method, handler)
            METHODS.add(method)
        return handler

    return register


def creates(function: Any) -> Callable[[Handler], Handler]:
    """Registers a handler for a creation function: it gets the array given as `like=` first."""

    def register(handler: Handler) -> Handler:
        _core.register_creation(function, handler)
        CREATING.add(function.__name__)
        return handler

    return register


def refuse(function: str, **keywords: Any) -> None:
    """Raises for the first keyword that was given (is not None): none is ignored."""
    for name, value in keywords.items():
        if value is not None:
            what = f"{name}= is not supported for traced values"
            raise CkadTypeError.of(function, what, keyword_hint(function, name))


def given(value: Any) -> Any:
    """The value, or None where NumPy's own 'not given' marker arrived."""
    import numpy as np

    return None if value is np._NoValue else value
