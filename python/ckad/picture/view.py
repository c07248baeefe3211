"""All that pictures of a plan show, read off the plan once: the page and the PNG file draw the same figures."""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from typing import Any, Final

from ckad._core import Plan
from ckad.errors import in_units
from ckad.picture.data import FrontierPoint, LineCost

COLOURS: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
"""Of the lines that are told apart; they are seen on white and on black."""

OTHERS: Final = "#9498a0"
"""The colour of all other lines."""

COLUMNS: Final = 600

LONGEST_COMPARED: Final = 150_000
"""Steps of a run whose rivals are planned for the picture: of longer ones each takes seconds."""

_LONGEST: Final = 160


@dataclass(frozen=True)
class Row:
    """A source line in the table: `colour` is that of the timeline's, None where it has none of its own."""

    cost: LineCost
    name: str
    source: str
    colour: int | None


@dataclass(frozen=True)
class View:
    """A plan to be drawn. `names` and `sources` are those of the timeline's lines. `frontier` is empty where a program
    is so long that planning it in many ways takes minutes."""

    plan: Plan
    timeline: dict[str, Any]
    names: list[str]
    sources: list[str]
    rows: list[Row]
    frontier: list[FrontierPoint]

    @property
    def top(self) -> float:
        """Bytes up to which the timeline is drawn."""
        highest = max(*self.timeline["live"], *self.timeline["allocated"], 1)
        lines = [height for height in (self.plan.peak_bytes, self.plan.memory_limit or 0) if height <= 1.7 * highest]
        return 1.06 * max(highest, *lines)

    @property
    def share(self) -> float:
        """Operations computed again, in percent of the others."""
        return self.percent(self.plan.extra_flops)

    def percent(self, extra: int) -> float:
        """Extra operations in percent of those of keeping everything."""
        return 100.0 * extra / max(self.plan.flops - self.plan.extra_flops, 1)

    @property
    def recomputed(self) -> list[tuple[int, int]]:
        """The stretches in which something is computed again, in columns: first, and one behind the last. None where
        they are too many to be told apart."""
        found: list[tuple[int, int]] = []
        for column, reach in enumerate(self.timeline["recomputed"]):
            if reach is not None:
                begins = found and found[-1][1] == column
                found[-1:] = [(found[-1][0], column + 1)] if begins else [*found[-1:], (column, column + 1)]
        return found if len(found) <= 60 else []


def view(plan: Plan) -> View:
    """What there is to draw.

    >>> import numpy as np, ckad
    >>> seen = view(ckad.plan(lambda x: np.sum(np.sin(x)))(np.ones(10)))
    >>> seen.share, len(seen.frontier)
    (0.0, 1)
    """
    timeline = plan.timeline(COLUMNS, len(COLOURS))
    places: list[tuple[str, int]] = timeline["lines"]
    index = {place: number for number, place in enumerate(places)}
    rows = [
        Row(cost, name_of(cost.file, cost.line), source_of(cost.file, cost.line), index.get((cost.file, cost.line)))
        for cost in plan.lines
    ]
    names, sources = [name_of(*place) for place in places], [source_of(*place) for place in places]
    frontier = plan.frontier() if timeline["steps"] <= LONGEST_COMPARED else []
    return View(plan, timeline, names, sources, rows, frontier)


def name_of(file: str, line: int) -> str:
    """The end of the path and the number of a line, as they are shown."""
    short = "/".join(file.split("/")[-2:])
    return shown(f"{short}:{line}") if file else "line unknown"


def source_of(file: str, line: int) -> str:
    """The text of a line, as it is shown; "" where it is not to be had."""
    return shown(linecache.getline(file, line).strip()) if file else ""


def shown(text: str) -> str:
    r"""Text that looks like what it is: invisible characters are written out, and what is very long ends in dots.

    >>> shown("a\u202eb"), len(shown("x" * 1000))
    ('a\\u202eb', 160)
    """
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def amount(size: float) -> str:
    """Bytes to read."""
    return in_units(int(size))


def count(number: float) -> str:
    """Operations to read.

    >>> count(1234), count(133_416_615_944)
    ('1,234', '133.4·10⁹')
    """
    for power, name in ((12, "12"), (9, "9"), (6, "6")):
        if number >= 10**power:
            return f"{number / 10**power:,.1f}·10{name.translate(_RAISED)}"
    return f"{int(number):,}"


_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
