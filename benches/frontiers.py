"""Memory against extra work, of programs whose shapes differ: what each limit costs, as planned.

`python -m benches.frontiers` plans and runs nothing, so its figures are counts and the same on any machine with as many
threads. It writes benches/frontiers.json and docs/figures/frontiers.svg; `tools/generate.py` makes the table of
docs/how-checkpointing-works.md of the former. Names on the command line measure those programs only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benches.compare import ROOT

RESULTS = ROOT / "benches" / "frontiers.json"
FIGURE = ROOT / "docs" / "figures" / "frontiers.svg"

# Plans have few columns in the figure.
COLUMNS = 400

Program = tuple[Callable[..., Any], tuple[Any, ...]]


def zeros(*shape: int) -> np.ndarray:
    """Nothing runs: only shapes and dtypes matter."""
    return np.zeros(shape, np.float32)


def deepmlp(depth: int = 128, width: int = 256, batch: int = 4096) -> Program:
    """Layers of tanh(x @ w + b), float32."""
    params = [(zeros(width, width), zeros(width)) for _ in range(depth)]

    def loss(params: Any, x: Any) -> Any:
        for weight, bias in params:
            x = np.tanh(x @ weight + bias)
        return np.mean(x * x)

    return loss, (params, zeros(batch, width))


def residual(depth: int = 40, width: int = 128, batch: int = 1024) -> Program:
    """Blocks of x + tanh(x @ w + b), float32."""
    params = [(zeros(width, width), zeros(width)) for _ in range(depth)]

    def loss(params: Any, x: Any) -> Any:
        for weight, bias in params:
            x = x + np.tanh(x @ weight + bias)
        return np.mean(x * x)

    return loss, (params, zeros(batch, width))


def _layer(x: Any, weight: Any) -> Any:
    z = x @ weight
    return np.tanh(z) * z


def _u_net(widths: list[int], batch: int) -> Program:
    params = []
    for wide, narrow in itertools.pairwise(widths):
        params.append((zeros(wide, wide), zeros(wide, narrow), zeros(narrow, wide), zeros(wide, wide)))

    def loss(params: Any, x: Any) -> Any:
        skips = []
        for own, down, _, _ in params:
            skips.append(_layer(x, own))
            x = _layer(skips[-1], down)
        for _, _, up, own in reversed(params):
            x = _layer(_layer(x, up) + skips.pop(), own)
        return np.mean(x * x)

    return loss, (params, zeros(batch, widths[0]))


def pyramid(levels: int = 5, width: int = 512, batch: int = 4096) -> Program:
    """A U-Net of dense layers whose widths halve from level to level, float32."""
    return _u_net([width >> level for level in range(levels + 1)], batch)


def unet(levels: int = 5, width: int = 256, batch: int = 4096) -> Program:
    """The same, all levels of equal width."""
    return _u_net([width] * (levels + 1), batch)


def stencil(steps: int = 1000, n: int = 100_000) -> Program:
    """A one-dimensional reaction and diffusion, a plain Python loop over states of float64."""

    def loss(u: Any) -> Any:
        for _ in range(steps):
            u = u + 0.1 * (np.roll(u, 1) - 2.0 * u + np.roll(u, -1)) + 0.01 * (u - u**3)
        return np.mean(u * u)

    return loss, (np.zeros(n),)


PROGRAMS: dict[str, Callable[[], Program]] = {
    make.__name__: make for make in (deepmlp, residual, pyramid, unet, stencil)
}


def measured(name: str) -> dict[str, Any]:
    """The frontier of a program, and what 'sqrt' makes of it."""
    import ckad

    f, args = PROGRAMS[name]()
    begun = time.perf_counter()
    none = ckad.plan(f, checkpoint="none")(*args)
    planned = time.perf_counter()
    points = none.frontier()
    seconds = time.perf_counter() - planned
    sqrt = ckad.plan(f, checkpoint="sqrt")(*args)
    state = max(np.asarray(leaf).nbytes for leaf in ckad.tree.flatten(args)[0])
    print(f"{name}: {planned - begun:.2f} s, its frontier of {len(points)} plans {seconds:.2f} s", file=sys.stderr)
    return {
        "program": name,
        "none": none.peak_bytes,
        "flops": none.flops,
        "forward_flops": none.forward_flops,
        "largest_argument": state,
        "sqrt": [sqrt.peak_bytes, sqrt.extra_flops, sqrt.segments],
        "frontier": [list(point) for point in points],
    }


def outline(options: dict[str, Any]) -> dict[str, Any]:
    """The figure's curves: bytes live over the steps of one plan of `deepmlp`."""
    import ckad

    f, args = deepmlp()
    plan = ckad.plan(f, **options)(*args)
    timeline = plan.timeline(columns=COLUMNS)
    return {"first_step": timeline["first_step"], "live": timeline["live"], "steps": timeline["steps"]}


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
        half = known["deepmlp"]["none"] // 2
        plans: dict[str, dict[str, Any]] = {
            "'none'": {"checkpoint": "none"},
            "half of it": {"memory_limit": half},
            "'sqrt'": {"checkpoint": "sqrt"},
        }
        found = {
            "programs": [known[name] for name in PROGRAMS if name in known],
            "outlines": {name: outline(asked) for name, asked in plans.items()},
        }
        RESULTS.write_text(json.dumps(found) + "\n")
    draw(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
