"""The charts of a page as SVG: the timeline by source line, where in the program the run is, the frontier.

Nothing of the user's text is in them: lines are numbers here, and the page names them. Layers are opaque and painted
from the top of the stack down, so that no seams show between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from ckad.picture.ticks import percent_ticks, round_amount, spread, ticks
from ckad.picture.view import View, amount

WIDTH: Final = 1000.0
LEFT: Final = 74.0
RIGHT: Final = 986.0
_TIMELINE: Final = 330.0
_PLACES: Final = 150.0


def x_of(seen: View, step: float) -> float:
    """Where a step begins."""
    return LEFT + (RIGHT - LEFT) * step / seen.timeline["steps"]


def timeline(seen: View) -> str:
    """Live bytes over the steps, stacked by line; what is allocated; the peak and the limit."""
    height, bottom, upper = _TIMELINE, _TIMELINE - 28, 10.0
    top = seen.top
    data = seen.timeline
    edges = [x_of(seen, step) for step in [*data["first_step"], data["steps"]]]

    def y_of(size: float) -> float:
        return bottom - (bottom - upper) * size / top

    parts = [_open("timeline", height, "bytes of live values over the steps of the run, by source line")]
    for tick in ticks(top, 5, binary=True):
        parts.append(_grid(y_of(tick), round_amount(tick)))
    # Behind the stack, whose colours stay what they are.
    parts += [
        f'<rect class="again" x="{edges[first]:.1f}" y="{upper:.1f}" width="{edges[end] - edges[first]:.1f}" '
        f'height="{bottom - upper:.1f}"/>'
        for first, end in seen.recomputed
    ]
    total = list(data["live"])
    held: list[list[int]] = data["held"]
    for row in reversed(range(len(held))):
        if any(held[row]):
            name = f"line l{row}" if row < len(seen.names) else "line others"
            parts.append(f'<path class="{name}" data-row="{row}" d="{_area(edges, map(y_of, total), bottom)}"/>')
        total = [sum_ - own for sum_, own in zip(total, held[row], strict=True)]
    parts.append(f'<path class="allocated" d="{_steps(edges, map(y_of, data["allocated"]))}"/>')
    for name, size in (("peak", seen.plan.peak_bytes), ("limit", seen.plan.memory_limit)):
        if size is not None and size <= top:
            above = name == "limit" or seen.plan.memory_limit is None
            y = y_of(size)
            parts.append(f'<line class="{name}" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            place = f'x="{RIGHT - 6}" y="{y - 5 if above else y + 14:.1f}" text-anchor="end"'
            parts.append(f'<text class="name" {place}>{name} {amount(size)}</text>')
    parts += _x_axis(seen, bottom)
    return "".join([*parts, _CROSS.format(upper=upper, bottom=bottom), "</svg>"])


def places(seen: View) -> str:
    """Where in the recorded program the run is: forward it climbs, backward it falls, and what is computed again are
    the short climbs between."""
    height, bottom, upper = _PLACES, _PLACES - 28, 8.0
    data = seen.timeline
    kinds = ("forward", "backward", "recomputed")
    low, high = 0, max((reach[1] for kind in kinds for reach in data[kind] if reach), default=0) or 1
    edges = [x_of(seen, step) for step in [*data["first_step"], data["steps"]]]
    unit = (bottom - upper) / (high - low + 1)
    parts = [_open("places", height, "the place in the recorded program at each step of the run")]
    parts += [_grid(bottom, "start"), _grid(upper, "end")]
    for kind in kinds:
        path = []
        for column, reach in enumerate(data[kind]):
            if reach is None:
                continue
            y = bottom - (reach[1] - low + 1) * unit
            tall = max((reach[1] - reach[0] + 1) * unit, 2.2)
            wide = max(edges[column + 1] - edges[column], 1.2)
            path.append(f"M{edges[column]:.1f} {y:.1f}h{wide:.1f}v{tall:.1f}h-{wide:.1f}z")
        if path:
            parts.append(f'<path class="{kind}" d="{"".join(path)}"/>')
    parts += _x_axis(seen, bottom)
    return "".join([*parts, _CROSS.format(upper=upper, bottom=bottom), "</svg>"])


def frontier(seen: View) -> str:
    """Every plan worth taking by its bytes and its extra work, and where this one stands."""
    width, height, left, right, bottom, upper = 560.0, 280.0, 70.0, 545.0, 236.0, 14.0
    points = seen.frontier
    plan = seen.plan
    most = 1.06 * max([plan.peak_bytes, *(point.peak_bytes for point in points)])
    work = max(1.1 * max([seen.share, *(seen.percent(point.extra_flops) for point in points)]), 1.0)

    def x_at(size: float) -> float:
        return left + (right - left) * size / most

    high = spread(work)

    def y_at(extra: float) -> float:
        return bottom - (bottom - upper) * (high(extra) / high(work))

    parts = [
        f'<svg class="frontier" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="memory against extra work: every plan worth taking">'
    ]
    for tick in percent_ticks(work):
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    for tick in ticks(most, 5, binary=True):
        place = f'x="{x_at(tick):.1f}" y="{bottom + 18}" text-anchor="middle"'
        parts.append(f'<text class="tick" {place}>{round_amount(tick)}</text>')
    parts.append(f'<text class="axis" x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle">peak</text>')
    turn = f'transform="rotate(-90 13 {(bottom + upper) / 2})"'
    parts.append(f'<text class="axis" x="13" y="{(bottom + upper) / 2}" {turn} text-anchor="middle">extra work</text>')
    if plan.memory_limit is not None and plan.memory_limit <= most:
        x = x_at(plan.memory_limit)
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{upper}" y2="{bottom}"/>')
    # A limit is kept by the plan to its left: the curve is a staircase.
    if points:
        path = f"M{x_at(points[0].peak_bytes):.1f} {upper:.1f}"
        for point in points:
            path += f"H{x_at(point.peak_bytes):.1f}V{y_at(seen.percent(point.extra_flops)):.1f}"
        parts.append(f'<path class="curve" d="{path}H{right}"/>')
    x, y = x_at(plan.peak_bytes), y_at(seen.share)
    text = f"this plan: {amount(plan.peak_bytes)}, {seen.share:.1f} % extra, memory_limit={plan.peak_bytes}"
    parts.append(
        f'<circle class="own" cx="{x:.1f}" cy="{y:.1f}" r="7.5" data-text="{escape(text)}">'
        f"<title>{escape(text)}</title></circle>"
    )
    for point in points:
        percent = seen.percent(point.extra_flops)
        text = f"{point.policy}: {amount(point.peak_bytes)}, {percent:.1f} % extra, memory_limit={point.peak_bytes}"
        parts.append(
            f'<circle class="point" cx="{x_at(point.peak_bytes):.1f}" cy="{y_at(percent):.1f}" r="4" '
            f'data-text="{escape(text)}"><title>{escape(text)}</title></circle>'
        )
    side = "end" if x > (left + right) / 2 else "start"
    shift = -12 if side == "end" else 12
    parts.append(
        f'<text class="name" x="{x + shift:.1f}" y="{max(y - 9, 12):.1f}" text-anchor="{side}">this plan</text>'
    )
    return "".join([*parts, "</svg>"])


def bar(sizes: Sequence[int]) -> str:
    """Parts of a whole beside each other."""
    total = max(sum(sizes), 1)
    parts = ['<svg class="bar" viewBox="0 0 1000 26" preserveAspectRatio="none" aria-hidden="true">']
    x = 0.0
    for index, size in enumerate(sizes):
        wide = 1000.0 * size / total
        parts.append(f'<rect class="part p{index}" x="{x:.2f}" y="0" width="{wide:.2f}" height="26"/>')
        x += wide
    return "".join([*parts, "</svg>"])


def meter(share: float) -> str:
    """A part of the largest as a bar under a number."""
    return (
        '<svg class="meter" viewBox="0 0 100 3" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * share:.1f}" height="3"/></svg>'
    )


_CROSS: Final = '<line class="cross" x1="0" x2="0" y1="{upper}" y2="{bottom}"/>'


def _open(name: str, height: float, label: str) -> str:
    return f'<svg class="{name}" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{label}" tabindex="0">'


def _grid(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _x_axis(seen: View, bottom: float) -> list[str]:
    marks = [f'<text class="tick" x="{RIGHT}" y="{bottom + 18:.1f}" text-anchor="end">steps</text>']
    marks += [
        f'<text class="tick" x="{x_of(seen, tick):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{tick:,.0f}</text>'
        for tick in ticks(seen.timeline["steps"], 8)
        if tick == int(tick) and x_of(seen, tick) < RIGHT - 60
    ]
    return marks


def _area(edges: Sequence[float], heights: Iterable[float], bottom: float) -> str:
    return f"M{edges[0]:.1f} {bottom:.1f}{_outline(edges, heights)}V{bottom:.1f}Z"


def _steps(edges: Sequence[float], heights: Iterable[float]) -> str:
    outline = _outline(edges, heights)
    first, _, rest = outline.removeprefix("V").partition("H")
    return f"M{edges[0]:.1f} {first}H{rest}"


def _outline(edges: Sequence[float], heights: Iterable[float]) -> str:
    """Level stretches from edge to edge; those of one height are one."""
    found: list[tuple[str, str]] = []
    for height, end in zip(heights, edges[1:], strict=True):
        y, x = f"V{height:.1f}", f"H{end:.1f}"
        if found and found[-1][0] == y:
            found[-1] = (y, x)
        else:
            found.append((y, x))
    return "".join(y + x for y, x in found)
