"""What the machine allows at best: `python -m benches.floors` measures its arithmetic and its memory, and asks ckad's
plans how much of either the workloads of large arrays need. Writes benches/floors.json, from which
`tools/generate.py` makes a table of docs/performance.md, beside the times of benches/results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benches.compare import ROOT, machine

RESULTS = ROOT / "benches" / "floors.json"

WORKLOADS = ("deepmlp:none", "elementwise", "matmul", "crossentropy", "layernorm")
"""Those whose time goes into arithmetic or memory, and not into single operations."""


def fastest(run: Callable[[], Any], seconds: float = 2.0) -> float:
    """Seconds of the fastest call of as many as there is time for."""
    times = []
    start = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def peak_flops(n: int = 2048) -> float:
    """Floating point operations a second in a product of square float32 matrices, by NumPy's BLAS."""
    import numpy as np

    a, b = (np.random.default_rng(seed).standard_normal((n, n)).astype(np.float32) for seed in range(2))
    out = np.empty_like(a)
    return 2 * n**3 / fastest(lambda: np.matmul(a, b, out=out))


def bandwidth(threads: int, mebibytes: int = 512) -> float:
    """Bytes a second, read and written, in a copy of an array far larger than the caches."""
    import numpy as np

    source, target = (np.ones(mebibytes << 18, np.float32) for _ in range(2))
    sources, targets = (np.array_split(array, threads) for array in (source, target))
    with ThreadPoolExecutor(threads) as pool:
        return 2 * source.nbytes / fastest(lambda: list(pool.map(np.copyto, targets, sources)))


def planned(label: str) -> dict[str, Any]:
    """Operations and bytes of a workload, as ckad plans it."""
    from benches.libraries import Ckad
    from benches.workloads import WORKLOADS as PROGRAMS
    from ckad import _core

    name, _, variant = label.partition(":")
    run = PROGRAMS[name](Ckad(variant))
    with _core.Planning() as planning:
        try:
            run()
        except _core.Planned:
            plan = planning.plan
            return {"workload": name, "variant": variant, "flops": plan.flops, "bytes": plan.bytes_moved}
    raise SystemExit(f"{label} runs nothing outside of a trace")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.floors", description=str(__doc__).splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    # Before NumPy loads its BLAS.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    found = {
        "machine": machine(options.threads, 1),
        "flops": peak_flops(),
        "bandwidth": bandwidth(options.threads),
        "workloads": [planned(label) for label in WORKLOADS],
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["workloads"], indent=1))
    print(f"{found['flops'] / 1e9:.0f} Gflop/s, {found['bandwidth'] / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
