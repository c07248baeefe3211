"""docs/numpy.md lists what is recorded: each name is NumPy's, and none is refused on differentiated values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import TracerError

PAGE = (Path(__file__).parents[1] / "docs" / "numpy.md").read_text(encoding="utf-8")


def test_every_name_is_numpys() -> None:
    for name in re.findall(r"`np\.([\w.]+)`", PAGE):
        place: Any = np
        for part in name.split("."):
            place = getattr(place, part)
    for name in re.findall(r"`x\.(\w+)`", PAGE):
        assert hasattr(np.ndarray, name)


def test_no_name_is_refused_as_unsupported() -> None:
    refused: list[str] = []

    def f(x: Any) -> Any:
        for name in re.findall(r"`np\.([\w.]+)`", PAGE):
            function: Any = np
            for part in name.split("."):
                function = getattr(function, part)
            for count in (function.nin,) if isinstance(function, np.ufunc) else (1, 2, 3):
                try:
                    function(*[x] * count)
                except TracerError as error:
                    refused.extend([name] if "is not supported on traced values" in str(error) else [])
                except (TypeError, ValueError, IndexError):
                    pass  # arguments that do not fit
        refused.extend(name for name in re.findall(r"`x\.(\w+)`", PAGE) if not hasattr(x, name))
        return np.sum(x)

    with np.errstate(all="ignore"):
        ckad.grad(f)(np.eye(3))
    assert refused == []


@pytest.mark.parametrize("name", ["np.median", "np.fft.fft", "np.linalg.inv"])
def test_what_is_not_recorded_is_not_listed(name: str) -> None:
    assert f"`{name}`" not in PAGE
