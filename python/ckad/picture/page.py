"""A plan as one HTML page that needs nothing else: no request leaves it, and its policy forbids the browser any.

Whatever is the user's (names of files, source text, notes) is escaped where it is written, and the page's script only
ever sets it as text. Style and script are ours alone: the page names them by their hashes, so no other would run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from html import escape
from pathlib import Path
from typing import Final

from ckad._core import Plan
from ckad.picture import charts
from ckad.picture.view import COLOURS, OTHERS, Row, View, amount, count, name_of, source_of, view

_PARTS: Final = {
    "arena": "values between the steps of the run",
    "outputs": "the results",
    "scratch": "what kernels use while they run",
    "constants": "captured arrays that were copied",
    "held": "copies of arguments, and results of runs before this one",
    "graph": "the graph that was planned",
    "program": "the steps of the run",
}
_PART_COLOURS: Final = ("#4269d0", "#6cc5b0", "#efb118", "#ff725c", "#9c6b4e", "#a463f2", "#9498a0")

ROWS: Final = 300
"""So many lines are in the table: the others hold little."""

FRAME_HEIGHT: Final = 760
"""Of the page inside a notebook, in pixels."""


def write_page(plan: Plan, path: str | os.PathLike[str] | None = None) -> str | None:
    """The page as text; with a path it is written there instead.

    >>> import numpy as np, ckad
    >>> write_page(ckad.plan(lambda x: np.sum(np.sin(x)))(np.ones(10)))[:15]
    '<!doctype html>'
    """
    text = page(view(plan))
    if path is None:
        return text
    Path(path).write_text(text, encoding="utf-8")
    return None


def frame(plan: Plan) -> str:
    """The page inside another one, such as a notebook's: of a world of its own, where only its script runs.

    >>> import numpy as np, ckad
    >>> frame(ckad.plan(lambda x: np.sum(np.sin(x)))(np.ones(10))).count("<")
    2
    """
    return (
        f'<iframe title="a plan of ckad" sandbox="allow-scripts" width="100%" height="{FRAME_HEIGHT}" frameborder="0" '
        f'srcdoc="{escape(page(view(plan)))}"></iframe>'
    )


def page(seen: View) -> str:
    """What is drawn, as a page."""
    style, script = _asset("page.css") + _colours(), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>ckad plan: {amount(seen.plan.peak_bytes)}</title><style>{style}</style></head><body><main>",
            _head(seen),
            _run(seen),
            f'<div class="pair">{_peak(seen)}{_frontier(seen)}</div>',
            _table(seen),
            '</main><div id="hint" role="status"></div>',
            f'<script type="application/json" id="data">{_data(seen)}</script>',
            f"<script>{script}</script></body></html>",
        ]
    )


@functools.cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _colours() -> str:
    lines = [*((str(index), colour) for index, colour in enumerate(COLOURS)), ("others", OTHERS)]
    rules = [f"svg .l{name}{{fill:{colour}}}.s{name}{{background:{colour}}}" for name, colour in lines]
    # Lines that are told apart have numbers, the others' layer a name.
    rules[-1] = rules[-1].replace("svg .lothers", "svg .others")
    rules += [f"svg .p{i}{{fill:{colour}}}.q{i}{{background:{colour}}}" for i, colour in enumerate(_PART_COLOURS)]
    kinds = ("forward", "backward", "recomputed")
    return "".join([*rules, *(f".k-{kind}{{background:var(--{kind})}}" for kind in kinds)])


def _data(seen: View) -> str:
    """What the script shows: numbers, and texts that it sets as text."""
    data = seen.timeline
    labels: dict[tuple[str, int], int] = {}
    computes = [None if place is None else labels.setdefault(place, len(labels)) for place in data["computes"]]
    shown = {
        **{name: data[name] for name in ("steps", "first_step", "step", "live", "allocated", "held")},
        **{name: [int(reach is not None) for reach in data[name]] for name in ("forward", "recomputed", "backward")},
        "names": seen.names,
        "labels": [(name_of(*place), source_of(*place)) for place in labels],
        "computes": computes,
        "left": charts.LEFT,
        "right": charts.RIGHT,
    }
    # No text can end the element that it stands in.
    return json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c")


def _head(seen: View) -> str:
    plan = seen.plan
    cards = [(amount(plan.peak_bytes), "peak: the most that the call allocates")]
    if plan.memory_limit is not None:
        cards.append((amount(plan.memory_limit), "limit: memory_limit="))
    cards.append((f"{seen.share:.1f} %", "extra work: computed again"))
    if plan.segments > 1:
        cards.append((f"{plan.segments:,}", "segments, each computed again as one"))
    elif plan.extra_flops > 0 or any(seen.timeline["recomputed"]):
        cards.append(("1", "segment: values, or iterations of loops, are computed again one by one"))
    else:
        cards.append(("1", "segment: none is computed again"))
    cards.append((count(plan.flops), "operations"))
    cards.append((f"{seen.timeline['steps'] - 1:,}", "steps: kernels that run"))
    if plan.forced_runs[0]:
        number, held = plan.forced_runs
        cards.append((amount(held), f"held by the largest of {number:,} forced runs"))
    if plan.offloaded_bytes:
        cards.append((amount(plan.offloaded_bytes), "in a file while they wait"))
    text = "".join(f"<div><b>{value}</b><span>{what}</span></div>" for value, what in cards)
    note = f'<section class="note">{escape(plan.note)}</section>' if plan.note else ""
    if plan.made_while_traced:
        held = "".join(
            f"<tr><td>{escape(name_of(file, line))}<code>{escape(source_of(file, line))}</code></td>"
            f"<td>{amount(size)}</td></tr>"
            for file, line, size in plan.made_while_traced[:ROWS]
        )
        note += (
            '<section class="note"><h2>Made while traced</h2><p>Arrays that the function makes with functions of '
            "NumPy's own, by the line that reads them first. They are constants, held until the call ends; ckad.random "
            f"draws numbers that are drawn again where they are needed again.</p><table>{held}</table></section>"
        )
    return (
        "<h1>Plan of a run</h1><p>What ckad allocates and computes again, known before the run.</p>"
        f'<div class="cards">{text}</div>{note}'
    )


def _run(seen: View) -> str:
    entries = [
        f'<li data-row="{row}"><span class="swatch s{row}"></span>{escape(name)} <code>{escape(source)}</code></li>'
        for row, (name, source) in enumerate(zip(seen.names, seen.sources, strict=True))
    ]
    if any(seen.timeline["held"][-1]):
        row = len(seen.names)
        entries.append(f'<li data-row="{row}"><span class="swatch sothers"></span>all other lines</li>')
    entries.append('<li><span class="stroke"></span>with all results, which have their memory from the beginning</li>')
    if seen.plan.peak_bytes <= seen.top:
        entries.append('<li><span class="stroke dashed"></span>peak, all parts</li>')
    if (seen.plan.memory_limit or seen.top + 1) <= seen.top:
        entries.append('<li><span class="stroke limit"></span>limit</li>')
    kinds = {"forward": "forward", "recomputed": "computed again", "backward": "backward"}
    works = "".join(f'<li><span class="swatch k-{kind}"></span>{text}</li>' for kind, text in kinds.items())
    return (
        '<section id="run"><h2>Live bytes over the steps of the run</h2>'
        "<p>By the source line whose values they are, those of its derivatives included. Shaded: a segment is computed "
        "again. What is used up row by row while it is computed counts as live, though it never lies in memory as a "
        "whole; so the peak can be lower.</p>"
        f'{charts.timeline(seen)}<ul class="legend">{"".join(entries)}</ul>'
        "<h2>Where in the program the run is</h2>"
        f'{charts.places(seen)}<ul class="legend">{works}</ul></section>'
    )


def _peak(seen: View) -> str:
    parts = seen.plan.parts
    rows = "".join(
        f'<tr><td><span class="swatch q{index}"></span>{name} <small>{_PARTS[name]}</small></td>'
        f"<td>{amount(size)}</td></tr>"
        for index, (name, size) in enumerate(parts.items())
    )
    forced = ""
    if seen.plan.peak_bytes > sum(parts.values()):
        forced = "<p>The peak of the call is that of a run before it, which control flow on values forced.</p>"
    return (
        "<section><h2>The parts of the peak</h2>"
        f"<p>{amount(sum(parts.values()))} in the final run. "
        f"Arguments themselves are the caller's and do not count.</p>{forced}"
        f"{charts.bar(list(parts.values()))}<table>{rows}</table></section>"
    )


def _frontier(seen: View) -> str:
    if not seen.frontier:
        what = "The program is long: ckad.memory_frontier lists other plans, which takes minutes."
    elif len(seen.frontier) == 1:
        what = "There is nothing to trade: no other plan needs less."
    else:
        least = seen.frontier[0]
        what = (
            f"Every plan worth taking; the least needs {amount(least.peak_bytes)}, with "
            f"{seen.percent(least.extra_flops):.1f} % extra work. A plan's limit is named where it is pointed at."
        )
    return f"<section><h2>Memory against extra work</h2><p>{what}</p>{charts.frontier(seen)}</section>"


def _table(seen: View) -> str:
    most = max((row.cost.peak_bytes for row in seen.rows), default=0) or 1
    saved = max((row.cost.saved_bytes for row in seen.rows), default=0) or 1
    rows = "".join(_table_row(row, most, saved, seen.plan.flops) for row in seen.rows[:ROWS])
    left = len(seen.rows) - ROWS
    more = f"<p>{left:,} more lines hold less.</p>" if left > 0 else ""
    return (
        "<section><h2>By source line</h2>"
        "<p>At the peak: bytes of the line's values that are alive when most are. Saved: those that wait for the "
        "backward part when it begins. Computed: how often some operation of the line runs.</p>"
        '<div class="scroll"><table><thead><tr><th>line</th><th>at the peak</th><th>saved</th><th>computed</th>'
        f"<th>operations</th></tr></thead><tbody>{rows}</tbody></table></div>{more}</section>"
    )


def _table_row(row: Row, most: int, saved: int, flops: int) -> str:
    cost = row.cost
    colour = "others" if row.colour is None else str(row.colour)
    many = ' class="many"' if cost.computed > 1 else ""
    return (
        f'<tr><td class="where"><span class="swatch s{colour}"></span>{escape(row.name)}'
        f"<code>{escape(row.source)}</code></td>"
        f"<td>{amount(cost.peak_bytes)}{charts.meter(cost.peak_bytes / most)}</td>"
        f"<td>{amount(cost.saved_bytes)}{charts.meter(cost.saved_bytes / saved)}</td>"
        f"<td><span{many}>{cost.computed}×</span></td><td>{100 * cost.flops / max(flops, 1):.1f} %</td></tr>"
    )
