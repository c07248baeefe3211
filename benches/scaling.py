"""Time per operation against the size of the graph, and per element against the size of arrays.

`python -m benches.scaling` measures, in a process for each size, and writes benches/scaling.json and
docs/figures/scaling.svg; `tools/generate.py` makes the tables of docs/performance.md of the former. Sizes of graphs
that do not fit into the machine's memory are left out.

A graph is a chain of scalar operations and its gradient. A first call records, derives, plans and lowers, and runs;
those after it record, find the program and run it, but for programs beyond what the cache holds, which are made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benches.compare import ROOT, machine

RESULTS = ROOT / "benches" / "scaling.json"
FIGURE = ROOT / "docs" / "figures" / "scaling.svg"

OPERATIONS = [10**exponent for exponent in range(2, 8)]
ELEMENTS = [8, *(10**exponent for exponent in range(2, 9))]

STAGES = ("record", "derive", "plan", "run")
"""What a first call is made of: recording in Python, deriving the gradient, planning with lowering, and the rest."""

SECONDS = 1.0
"""How long calls of small sizes are repeated."""


# In a process of its own ---------------------------------------------------------------------------------------------


def graph_of(operations: int) -> dict[str, Any]:
    """Seconds of the stages of a first call, and of a later one; the fastest of some."""
    import ckad
    from ckad import _core

    recording = 0.0

    def program(length: int) -> Any:
        def f(x: Any) -> Any:
            nonlocal recording
            start = time.perf_counter()
            for _ in range(length // 2):
                x = x * 1.0000001 + 1e-9
            if length % 2:
                x = -x
            recording = time.perf_counter() - start
            return x

        return ckad.value_and_grad(f)

    def first(length: int) -> tuple[Any, dict[str, float]]:
        gradient = program(length)
        start = time.perf_counter()
        gradient(1.0)
        total = time.perf_counter() - start
        derive, plan, _ = _core.building()
        run = total - recording - derive - plan
        return gradient, {"first": total, "record": recording, "derive": derive, "plan": plan, "run": run}

    first(7)  # threads, tables and the interpreter's own first times
    before = resident("VmRSS")
    calls: list[dict[str, float]] = []
    later: list[float] = []
    start = time.perf_counter()
    # Each length is another structure, so each is a first call.
    while not calls or (len(calls) < 20 and time.perf_counter() - start < SECONDS):
        gradient, call = first(operations + len(calls))
        calls.append(call)
    start = time.perf_counter()
    while not later or (len(later) < 1000 and time.perf_counter() - start < SECONDS):
        begun = time.perf_counter()
        gradient(1.0)
        later.append(time.perf_counter() - begun)
    best = min(calls, key=lambda call: call["first"])
    return {"operations": operations, **best, "later": min(later), "peak_mib": resident("VmHWM") - before}


def array_of(elements: int) -> dict[str, Any]:
    """Seconds of a later call of the workload `elementwise`."""
    from benches.libraries import Ckad
    from benches.workloads import elementwise

    run = elementwise(Ckad(), elements)
    run()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 3 or (len(times) < 10_000 and time.perf_counter() - start < SECONDS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return {"elements": elements, "later": min(times)}


def resident(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    return _kibibytes("/proc/self/status", field) / 1024


def _kibibytes(path: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(path).read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{path} has no {field}")
    return int(found[1])


# In the process that was started -------------------------------------------------------------------------------------


def measured(kind: str, size: int, threads: int) -> dict[str, Any]:
    """One size, in a fresh process."""
    print(f"\r\033[K{kind} of {size:,}", end="", file=sys.stderr, flush=True)
    environment = os.environ | {"CKAD_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benches.scaling", "--measure", kind, str(size)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def graphs(threads: int) -> list[dict[str, Any]]:
    """All sizes of graphs that fit, by what the size before took."""
    found: list[dict[str, Any]] = []
    for operations in OPERATIONS:
        if found:
            growth = operations / found[-1]["operations"]
            if growth * found[-1]["peak_mib"] > 0.9 * _kibibytes("/proc/meminfo", "MemAvailable") / 1024:
                break
        found.append(measured("graph", operations, threads))
    return found


def draw(results: dict[str, Any]) -> None:
    """The figure: microseconds an operation on the left, nanoseconds an element on the right."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    # The same numbers give the same file.
    mpl.rcParams.update({"svg.hashsalt": "ckad", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = [result["operations"] for result in results["graphs"]]
    labels = {"record": "record", "derive": "derive", "plan": "plan and lower", "run": "run", "later": "later call"}
    for stage, label in {"first": "first call", **labels}.items():
        style = {"first": "k-", "later": "k:"}.get(stage, "-")
        values = [1e6 * result[stage] / result["operations"] for result in results["graphs"]]
        left.loglog(sizes, values, style, marker="o", markersize=3, label=label)
    left.set(xlabel="recorded operations", ylabel="µs an operation", title="chain of scalar operations, gradient")
    left.legend(fontsize=7)
    sizes = [result["elements"] for result in results["arrays"]]
    values = [1e9 * result["later"] / result["elements"] for result in results["arrays"]]
    right.loglog(sizes, values, "k:", marker="o", markersize=3, label="later call")
    right.set(xlabel="elements, float32", ylabel="ns an element", title="elementwise, value and gradient")
    right.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None, "Creator": None})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.scaling", description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "SIZE"), help="one size, in this process")
    parser.add_argument("--draw", action="store_true", help="only draw benches/scaling.json")
    options = parser.parse_args()
    if options.measure:
        kind, size = options.measure
        print(json.dumps({"graph": graph_of, "array": array_of}[kind](int(size))))
        return
    if not options.draw:
        found = {
            "machine": machine(options.threads, 1),
            "graphs": graphs(options.threads),
            "arrays": [measured("array", elements, options.threads) for elements in ELEMENTS],
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    draw(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
