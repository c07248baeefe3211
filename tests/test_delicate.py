"""Derivatives where they are delicate: the tables of docs/derivatives.md, row by row, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad

PAGE = Path(__file__).parent.parent / "docs" / "derivatives.md"


def table(heading: str) -> dict[str, dict[str, str]]:
    """The rows of the table under a heading: place → column → text, without backticks."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = cells
    found = {row[0]: {name: cell.strip("`") for name, cell in zip(header, row, strict=True)} for row in rows}
    assert len(found) == len(rows), "a place stands in the table twice"
    return found


def number(text: str) -> Any:
    return np.array(eval(text, {"inf": np.inf, "nan": np.nan}), dtype=np.float64)


def function(text: str) -> Callable[[Any], Any]:
    """The function of x that a cell says: statements, and the value at last."""
    *statements, value = text.split(";")
    body = [*(statement.strip() for statement in statements), f"return {value.strip()}"]
    scope: dict[str, Any] = {"np": np}
    exec("def f(x):\n    " + "\n    ".join(body), scope)
    return scope["f"]


FIRST = table("First derivatives")
SECOND = table("Second derivatives")
DISAGREEMENTS = table("Where forward and reverse mode disagree")


@pytest.mark.parametrize("row", [pytest.param(row, id=place) for place, row in FIRST.items()])
def test_first_derivative(row: dict[str, str], policy: str | int) -> None:
    f, x, expected = function(row["function"]), number(row["at"]), number(row["gradient"])
    found = ckad.grad(f, checkpoint=policy)(x)
    forward = [ckad.jvp(f, (x,), (unit,))[1] for unit in np.eye(len(x))]
    np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg="reverse mode")
    np.testing.assert_allclose(forward, expected, rtol=1e-12, err_msg="forward mode")


@pytest.mark.parametrize("row", [pytest.param(row, id=place) for place, row in SECOND.items()])
def test_second_derivative(row: dict[str, str], policy: str | int) -> None:
    f, x, expected = function(row["function"]), number(row["at"]), number(row["Hessian"])
    gradient = ckad.grad(f, checkpoint=policy)
    over_reverse = [ckad.hvp(f, x, unit, checkpoint=policy) for unit in np.eye(len(x))]
    twice_reverse = [ckad.grad(lambda x, k=k: gradient(x)[k])(x) for k in range(len(x))]
    twice_forward = [
        [ckad.jvp(lambda x, v=v: ckad.jvp(f, (x,), (v,))[1], (x,), (w,))[1] for w in np.eye(len(x))]
        for v in np.eye(len(x))
    ]
    np.testing.assert_allclose(over_reverse, expected, rtol=1e-12, atol=1e-15, err_msg="forward over reverse")
    np.testing.assert_allclose(twice_reverse, expected, rtol=1e-12, atol=1e-15, err_msg="reverse over reverse")
    np.testing.assert_allclose(twice_forward, expected, rtol=1e-12, atol=1e-15, err_msg="forward over forward")


@pytest.mark.parametrize("row", [pytest.param(row, id=place) for place, row in DISAGREEMENTS.items()])
def test_known_disagreement(row: dict[str, str], policy: str | int) -> None:
    f, x, v = function(row["function"]), number(row["at"]), number(row["direction"])
    np.testing.assert_array_equal(ckad.jvp(f, (x,), (v,), checkpoint=policy)[1], number(row["forward"]))
    np.testing.assert_array_equal(ckad.grad(f, checkpoint=policy)(x), number(row["gradient"]))


def test_the_page_says_all_that_it_should() -> None:
    """Deleting a row from the page deletes its test: this says that it was one of these."""
    text = " ".join([*FIRST, *SECOND, *DISAGREEMENTS])
    topics = (
        "maximum minimum max min sort abs sign sqrt norm std hypot arctan2 power prod cumprod logaddexp NaN where/sqrt"
        " 0·∞ max(x,−x)² sqrt(x)² norm² x[[0,0]]=v x[[0,0]]+=1 sin(x)²/2 cancellation underflow overwritten"
    )
    compact = text.replace(" ", "")
    assert [topic for topic in topics.split() if topic not in compact] == []
