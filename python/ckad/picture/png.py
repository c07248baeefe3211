"""A plan as a PNG file, drawn by matplotlib: the timeline by source line, and the frontier with this plan on it."""

from __future__ import annotations

import os
from typing import Any

from ckad._core import Plan
from ckad.errors import CkadRuntimeError
from ckad.picture.ticks import MANY_TIMES, round_amount, ticks
from ckad.picture.view import COLOURS, OTHERS, View, amount, view


def write_png(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Writes the file. Nothing of the user's own matplotlib (its backend, its current figure) is touched.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        what = "a PNG file is drawn by matplotlib, which is not installed"
        raise CkadRuntimeError.of("to_png", what, "pip install 'ckad[plot]', or use to_html()") from None
    seen = view(plan)
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    run, trade = figure.subplots(1, 2, width_ratios=(5, 3))
    _run(run, seen)
    _trade(trade, seen)
    figure.legend(*run.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=144, format="png")


def _run(axes: Any, seen: View) -> None:
    data, plan = seen.timeline, seen.plan
    edges = [*data["first_step"], data["steps"]]
    lower = [0] * len(data["step"])
    names, colours = [*seen.names, "all other lines"], [*COLOURS[: len(seen.names)], OTHERS]
    for held, name, colour in zip(data["held"], names, colours, strict=True):
        if any(held):
            upper = [under + own for under, own in zip(lower, held, strict=True)]
            axes.stairs(upper, edges, baseline=lower, fill=True, color=colour, label=_plain(name))
            lower = upper
    axes.stairs(data["allocated"], edges, color="black", linewidth=0.8, label="with all results")
    for first, end in seen.recomputed:
        axes.axvspan(edges[first], edges[end], color=COLOURS[1], alpha=0.12, zorder=0, linewidth=0)
    for size, name, style in ((plan.peak_bytes, "peak", "--"), (plan.memory_limit, "limit", ":")):
        if size is not None and size <= seen.top:
            axes.axhline(size, color="black", linestyle=style, linewidth=1, label=f"{name} {amount(size)}")
    axes.set(xlabel="step of the run", title="live bytes by source line", ylim=(0, seen.top), xlim=(0, data["steps"]))
    at = ticks(seen.top, 5, binary=True)
    axes.set_yticks(at, [round_amount(tick) for tick in at])


def _trade(axes: Any, seen: View) -> None:
    sizes = [point.peak_bytes for point in seen.frontier]
    extra = [seen.percent(point.extra_flops) for point in seen.frontier]
    axes.step(sizes, extra, where="post", color="grey", linewidth=1, marker="o", markersize=3)
    own = amount(seen.plan.peak_bytes)
    axes.plot(
        [seen.plan.peak_bytes], [seen.share], "o", color=COLOURS[0], label=f"this plan: {own}, {seen.share:.1f} %"
    )
    most = 1.06 * max([seen.plan.peak_bytes, *sizes])
    at = ticks(most, 4, binary=True)
    axes.set_xticks(at, [round_amount(tick) for tick in at])
    axes.set(xlabel="peak", ylabel="extra work, %", title="memory against extra work", xlim=(0, most), ylim=(0, None))
    if max([seen.share, *extra]) > MANY_TIMES:
        axes.set_yscale("symlog", linthresh=1.0)
    axes.legend(fontsize=8, frameon=False)


def _plain(text: str) -> str:
    """Text that matplotlib takes for no formula, and for no hidden label."""
    return " " + text.replace("$", r"\$")
