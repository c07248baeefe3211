"""NumPy's functions, as a module lists them: shared by tests of what is supported and of what is not."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any


def dispatched(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Name and function of all that dispatch on the type of their arguments."""
    for name in dir(module):
        function = getattr(module, name)
        if hasattr(function, "_implementation") and not name.startswith("_"):
            yield f"{module.__name__}.{name}".removeprefix("numpy."), function
