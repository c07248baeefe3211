"""The page on checkpointing in figures: what less memory costs, and what three plans of one net hold.

`python -m benches.frontiers` plans the programs of `planned_programs.py` and runs nothing, so its figures are
counts and the same on any machine with as many threads. It writes benches/frontiers.json and
docs/figures/frontiers.svg; `tools/generate.py` makes the table of docs/how-checkpointing-works.md of the former. Names
on the command line plan those programs only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from benches.compare import ROOT
from benches.planned_programs import PROGRAMS, planned

RESULTS = ROOT / "benches" / "frontiers.json"
FIGURE = ROOT / "docs" / "figures" / "frontiers.svg"

# Plans have few columns in the figure.
COLUMNS = 400


def measured(name: str) -> dict[str, Any]:
    """The frontier of a program, and what 'sqrt' makes of it."""
    begun = time.perf_counter()
    library = planned(name)
    none, points, sqrt = library.planned, library.points, library.plan(checkpoint="sqrt")
    print(f"{name}: {len(points)} plans, {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    return {
        "program": name,
        "none": none.peak_bytes,
        "flops": none.flops,
        "sqrt": [sqrt.peak_bytes, sqrt.extra_flops, sqrt.segments],
        "frontier": [list(point) for point in points],
    }


def outlines(half: int) -> dict[str, dict[str, Any]]:
    """The figure's curves: bytes live over the steps of three plans of one net."""
    library = planned("deepmlp")
    plans: dict[str, dict[str, Any]] = {
        "'none'": {"checkpoint": "none"},
        "half of it": {"memory_limit": half},
        "'sqrt'": {"checkpoint": "sqrt"},
    }
    found = {}
    for name, options in plans.items():
        timeline = library.plan(**options).timeline(columns=COLUMNS)
        found[name] = {part: timeline[part] for part in ("first_step", "live", "steps")}
    return found


def draw(results: dict[str, Any]) -> None:
    """Live bytes of three plans of one net on the left, the frontiers of all programs on the right."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    # The same numbers give the same file.
    mpl.rcParams.update({"svg.hashsalt": "ckad", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    for (name, run), colour in zip(results["outlines"].items(), ("tab:blue", "tab:green", "tab:red"), strict=True):
        held = [size / 2**20 for size in run["live"]]
        edges = [*run["first_step"], run["steps"]]
        left.stairs(held, edges, color=colour, label=name, baseline=None, linewidth=1.3)
    left.set(xlabel="steps of the run", ylabel="live MiB", title="deepmlp: three plans", ylim=(0, None), xlim=(0, None))
    left.legend(fontsize=8)
    for result in results["programs"]:
        sizes = [point[0] / result["none"] for point in result["frontier"]]
        extra = [100 * point[1] / result["flops"] for point in result["frontier"]]
        right.step(sizes, extra, where="post", marker="o", markersize=2.5, linewidth=1.2, label=result["program"])
    right.set(xlabel="share of the memory of 'none'", ylabel="extra work, %", title="what less memory costs")
    right.set(ylim=(0, 100), xlim=(0, 1.02))
    right.legend(fontsize=8)
    right.grid(alpha=0.3)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None, "Creator": None})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.frontiers", description=str(__doc__).splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="only draw benches/frontiers.json")
    parser.add_argument("programs", nargs="*", help=f"some of {', '.join(PROGRAMS)}; all if none is named")
    options = parser.parse_args()
    if not options.draw:
        earlier = json.loads(RESULTS.read_text())["programs"] if RESULTS.exists() else []
        known = {result["program"]: result for result in earlier}
        known |= {name: measured(name) for name in options.programs or PROGRAMS}
        found = {
            "programs": [known[name] for name in PROGRAMS if name in known],
            "outlines": outlines(known["deepmlp"]["none"] // 2),
        }
        RESULTS.write_text(json.dumps(found) + "\n")
    draw(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
