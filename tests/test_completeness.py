"""The elementwise table, its documentation and NumPy name the same operations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import ckad
from ckad import _core

TABLE = _core.elementwise_table()
DOCS = Path(__file__).parent.parent / "docs"


def test_every_row_is_documented_and_every_documented_row_exists() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", (DOCS / "primitives.md").read_text(), re.MULTILINE)
    assert documented == [row["name"] for row in TABLE]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["name"])
def test_every_row_has_all_its_fields(row: dict[str, object]) -> None:
    assert row["doc"]
    assert row["cost"]
    assert row["wgsl"]
    assert row["dtypes"]
    assert len(row["sample"]) == row["arity"]  # type: ignore[arg-type]
    assert not row["numpy"] or hasattr(np, str(row["numpy"]))


@pytest.mark.parametrize("ufunc", sorted(name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)))
def test_every_ufunc_is_recorded_or_refused_by_name(ufunc: str) -> None:
    function = getattr(np, ufunc)

    def f(x: object) -> object:
        square = np.stack([x, x])  # type: ignore[list-item]
        stacked = {"vecmat": [x, square], "matvec": [square, x]}
        operands = stacked.get(ufunc, [x, x + 0.5][: function.nin])  # type: ignore[operator]
        result = function(*operands)
        first = result[0] if isinstance(result, tuple) else result
        return np.sum(first.astype(np.float64))

    refusal = ""
    try:
        # Every function is defined on one of the two sides of 1.
        below, above = (ckad.value_and_grad(f)(point) for point in (np.array([0.3, 0.6]), np.array([1.3, 1.6])))
    except (TypeError, ckad.CkadError) as error:
        refusal = str(error)
    if refusal:
        assert ufunc in refusal or function.__name__ in refusal
    else:
        value, gradient = below if np.isfinite(below[0]) else above
        assert np.isfinite(value)
        assert np.shape(gradient) == (2,)
