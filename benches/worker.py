"""Measures one workload with one library in this process, and prints a line of JSON.

usage: python -m benches.worker WORKLOAD LIBRARY[:VARIANT] [size=number …]

Seconds of the first call and of those after it, how much the high-water mark of the resident set grew while all of them
ran, the sum of the absolute values of the results, by which wrong answers show, and the versions of what was measured.
"""

from __future__ import annotations

import gc
import json
import re
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benches.libraries import LIBRARIES
from benches.workloads import WORKLOADS

REPEATS = 300
SECONDS = 5.0
"""Calls are repeated until either is reached, at least twice."""


def measure(run: Any) -> dict[str, Any]:
    """Runs it again and again."""
    gc.collect()
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM anew
    seconds, out = _timed(run)
    first = seconds
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < 2 or (len(times) < REPEATS and time.perf_counter() - start < SECONDS):
        del out
        seconds, out = _timed(run)
        times.append(seconds)
    return {
        "first": first,
        "min": min(times),
        "median": statistics.median(times),
        "peak_mib": max(0.0, _resident("VmHWM") - before),
        "check": sum(float(np.sum(np.abs(np.asarray(array, dtype=np.float64)))) for array in out),
    }


def versions(library: str) -> dict[str, str]:
    """The versions of NumPy and of the library in this process. ckad may run from its source tree, not installed."""
    found = {"numpy": np.__version__}
    module = sys.modules[library]
    found[library] = getattr(module, "__version__", None) or metadata.version(library)
    return found


def _timed(run: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    out = run()
    return time.perf_counter() - start, out


def _resident(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/self/status has no {field}")
    return int(found[1]) / 1024


def main(arguments: list[str]) -> None:
    """Parses the command line, measures, prints."""
    workload, label, *sizes = arguments
    name, _, variant = label.partition(":")
    run = WORKLOADS[workload](LIBRARIES[name](variant), **{k: int(v) for k, v in (s.split("=") for s in sizes)})
    print(json.dumps(measure(run) | {"versions": versions(name)}))


if __name__ == "__main__":
    main(sys.argv[1:])
