"""Memory against time: `python -m benches.against_torch` measures the gradient of the deep net of `benches.compare
deepmlp` under limits on memory, and what PyTorch reaches with segments placed by hand and with its own memory budget.

A point is a process of its own: the growth of its resident set's high-water mark and the fastest of its calls. Beside
them stands what is exact: ckad's planned bytes and operations against those of Rotor's dynamic program (`rotor.py`).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benches.compare import PEER_PYTHON, machine, measure
from benches.planned_programs import planned
from benches.rotor import extra_forwards

CKAD = ("none", "limit-80", "limit-65", "limit-50", "limit-35", "limit-25", "limit-1")
TORCH = ("", "segments-64", "segments-32", "segments-16", "segments-11", "segments-8", "segments-4", "segments-2")
BUDGETS = ("budget-80", "budget-50", "budget-25", "budget-10")


def points(labels: list[str], sizes: list[str], rounds: int, threads: int) -> list[dict[str, Any]]:
    """What each label took, the libraries in turn."""
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for _ in range(rounds):
        for label in labels:
            found[label].append(measure("deepmlp", label, sizes, threads))
    return [
        {
            "label": label,
            "seconds": min(result["min"] for result in results),
            "mib": min(result["peak_mib"] for result in results),
            "versions": results[0]["versions"],
        }
        for label, results in found.items()
    ]


def beaten(own: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """For each of the others, the time and the memory of our fastest point that takes no more memory, as ratios."""
    rows = []
    for other in others:
        within = [point for point in own if point["mib"] <= other["mib"]]
        best = min(within, key=lambda point: point["seconds"], default=None)
        if best is None:
            rows.append((other["label"], float("nan"), float("nan")))
        else:
            rows.append((other["label"], best["seconds"] / other["seconds"], best["mib"] / other["mib"]))
    return rows


def against_rotor(depth: int, width: int, batch: int) -> list[tuple[int, float, float]]:
    """Planned values in memory, planned extra work and Rotor's at as many values, work in parts of value and gradient.

    A plan holds, beside the outputs of layers, the derivative that is handed down and the one that is made of it; its
    outputs lie outside the arena.
    """
    library = planned("deepmlp", depth=depth, width=width, batch=batch)
    once = library.planned
    rotor = extra_forwards(depth, depth)
    product = 2 * batch * width * width
    beside = once.peak_bytes - once.parts["arena"]
    rows = []
    for bytes_, extra, _ in library.points:
        values = (bytes_ - beside) // (4 * batch * width)
        # The layer being reversed has its output, and two derivatives at a time.
        least = rotor[max(0, min(depth, values - 2))]
        rows.append((values, extra / once.flops, least * product / once.flops))
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.against_torch", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--size", action="append", default=[], help="a size of the net, such as depth=64")
    parser.add_argument("--no-budget", action="store_true", help="without PyTorch's compiler, which takes minutes")
    parser.add_argument("--json", type=Path, help="write the points to this file")
    options = parser.parse_args()
    sizes = {"depth": 128, "width": 256, "batch": 4096} | dict(size.split("=") for size in options.size)
    sizes = {name: int(size) for name, size in sizes.items()}

    print("values in memory, extra work of the plan, of Rotor's program")
    rotor = against_rotor(**sizes)
    for values, extra, least in rotor:
        print(f"{values:8}{extra:11.3f}{least:11.3f}")

    labels = [f"ckad:{variant}" for variant in CKAD]
    if PEER_PYTHON.exists():
        labels += [f"torch:{variant}" if variant else "torch" for variant in TORCH]
        labels += [] if options.no_budget else [f"torch:{variant}" for variant in BUDGETS]
    found = points(labels, [f"{name}={size}" for name, size in sizes.items()], options.rounds, options.threads)
    for point in found:
        print(f"{point['label']:18}{point['mib']:9.1f} MiB{1e3 * point['seconds']:9.0f} ms")
    own, others = found[: len(CKAD)], found[len(CKAD) :]
    compared = beaten(own, others)
    for label, seconds, mib in compared:
        print(f"within {label:18} time × {seconds:.2f}, memory × {mib:.2f}")
    if options.json:
        data = {
            "machine": machine(options.threads, options.rounds),
            "sizes": sizes,
            "points": found,
            "within": compared,
            "rotor": rotor,
        }
        options.json.write_text(json.dumps(data) + "\n")


if __name__ == "__main__":
    main()
