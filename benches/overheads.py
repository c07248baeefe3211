"""What single operations and calls cost: `python -m benches.overheads`.

Microseconds to record one operation of a kind, its source line included; of one call of a jitted function; of an
operation with its backward part; seconds to import ckad; and products of small matrices beside NumPy's, each size in
processes of its own, in turn. Writes benches/overheads.json, from which `tools/generate.py` makes tables of
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benches.compare import ROOT, compare, machine

RESULTS = ROOT / "benches" / "overheads.json"

OPERATIONS = ("x * y", "x + 1.0", "x[3]", "x @ w", "np.sin(x)", "np.sum(x)", "np.mean(x)", "np.dot(x, x)")
"""Recorded on arrays of 8; w is a captured matrix."""

PRODUCTS = [(n, bits) for bits in (32, 64) for n in (64, 128, 256, 512, 2048)]


def fastest(run: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return min(found)


def recording(expression: str, count: int = 20_000) -> float:
    """Seconds to record the operation once, beside an empty loop."""
    import ckad

    x, y, w = np.ones(8), np.full(8, 2.0), np.ones((8, 8))
    program = "def f(x, y):\n    for _ in range({count}):\n        {body}\n    return x"

    def seconds(body: str) -> float:
        names: dict[str, Any] = {"np": np, "w": w}
        exec(program.format(count=count, body=body), names)  # a loop of nothing but the operation
        recorded = ckad.trace(names["f"])
        return fastest(lambda: recorded(x, y), 7)

    return (seconds(expression) - seconds("pass")) / count


def jitted_call(operations: int = 10, calls: int = 20_000) -> float:
    """Seconds of a call of a jitted function of so many scalar operations."""
    import ckad

    def f(x: Any) -> Any:
        for index in range(operations):
            x = np.tanh(x) if index % 2 else x * 1.1
        return x

    jitted = ckad.jit(f)
    jitted(0.3)

    def run() -> None:
        for _ in range(calls):
            jitted(0.3)

    return fastest(run, 9) / calls


def with_backward(steps: int = 3000) -> float:
    """Seconds for each recorded operation of a cached gradient, arrays of 8."""
    import ckad

    def simulate(rate: Any, x: Any) -> Any:
        for _ in range(steps):
            x = x + 0.01 * (rate * x * (1.0 - x) - 0.1 * np.sin(x))
        return np.sum(x)

    gradient = ckad.value_and_grad(simulate)
    x = np.linspace(0.1, 0.9, 8)
    gradient(3.2, x)
    return fastest(lambda: gradient(3.2, x), 20) / (8 * steps)


def importing(processes: int = 9) -> float:
    """Seconds that importing ckad takes where NumPy is imported."""
    program = "import numpy, time\nbegun = time.perf_counter()\nimport ckad\nprint(time.perf_counter() - begun)"
    run = [sys.executable, "-c", program]
    return min(float(subprocess.run(run, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout) for _ in range(processes))


def products(rounds: int, threads: int) -> list[dict[str, Any]]:
    """Fastest products of each size, by ckad under `jit` and by NumPy."""
    found = []
    for n, bits in PRODUCTS:
        sizes = [f"n={n}", f"bits={bits}"]
        ours, numpy = compare("product", ["ckad:jit", "numpy"], sizes, rounds, threads)
        found.append({"n": n, "bits": bits, "ckad": ours["min"], "numpy": numpy["min"]})
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.overheads", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    measured = {
        "recording": {expression: recording(expression) for expression in OPERATIONS},
        "jitted_call": jitted_call(),
        "with_backward": with_backward(),
        "import": importing(),
        "products": products(options.rounds, options.threads),
        "machine": machine(options.threads, options.rounds),
    }
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
