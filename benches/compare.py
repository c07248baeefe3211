"""Compares ckad with other libraries: `python -m benches.compare WORKLOAD… [--against torch,jax,autograd]`.

Each measurement is a process of its own; the libraries take turns, round after round, so that a disturbance of the
machine meets all of them. Printed are the fastest first call, and of the calls after the first ones the fastest and
the median of the rounds' medians. The other libraries are found in .venv-bench (`make bench-env`); ckad runs in the
environment that runs this.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"

CONTESTANTS: dict[str, tuple[str, ...]] = {
    "deepmlp": ("ckad:none", "ckad:auto", "ckad:sqrt", "torch", "torch:sqrt", "jax", "jax:sqrt"),
    "gelunet": ("ckad:none", "ckad:auto", "ckad:sqrt", "torch"),
    "oploop": ("ckad", "torch", "autograd"),  # JAX compiles for minutes
    "chain": ("ckad", "torch", "autograd"),
    "record": ("ckad",),
    "elementwise": ("ckad", "torch", "jax", "autograd"),
    "matmul": ("ckad", "torch", "jax"),
    "product": ("ckad:jit", "numpy", "torch", "jax"),
    "jacobian": ("ckad", "torch:forward", "torch:reverse", "jax:forward", "jax:reverse"),
    "fluid": ("ckad:none", "ckad:auto", "ckad:sqrt", "ckad:jit", "ckad:jit-sqrt", "torch", "autograd"),
    "stencil": ("ckad:scan-30", "ckad:revolve-50", "ckad:sqrt", "jax:sqrt"),
    "smallnet": ("ckad", "ckad:jit", "torch", "jax"),
    "crossentropy": ("ckad", "torch", "jax"),
    "layernorm": ("ckad", "torch", "jax"),
}


def measure(workload: str, label: str, sizes: list[str], threads: int) -> dict[str, Any]:
    """One measurement in a fresh process."""
    python = sys.executable if label.startswith(("ckad", "numpy")) else str(PEER_PYTHON)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CKAD_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    command = [python, "-m", "benches.worker", workload, label, *sizes]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(workload: str, labels: list[str], sizes: list[str], rounds: int, threads: int) -> list[dict[str, Any]]:
    """The libraries in turn, round after round; one summary for each."""
    results: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for number in range(rounds):
        for label in labels:
            print(f"\r\033[K{workload}: {label}, round {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            results[label].append(measure(workload, label, sizes, threads))
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    return [
        {
            "workload": workload,
            "library": label,
            "first": min(result["first"] for result in found),
            "min": min(result["min"] for result in found),
            "median": statistics.median(result["median"] for result in found),
            "peak_mib": min(result["peak_mib"] for result in found),
            "check": found[0]["check"],
            "versions": found[0]["versions"],
        }
        for label, found in results.items()
    ]


def table(summaries: list[dict[str, Any]]) -> str:
    """A workload's summaries as text, times also relative to the first line."""
    base = summaries[0]
    lines = [f"{'':14}{'first':>11}{'min':>11}{'median':>11}{'peak':>12}{'× min':>9}{'× peak':>9}"]
    for s in summaries:
        times = "".join(f"{1e3 * s[key]:8.2f} ms" for key in ("first", "min", "median"))
        relative = f"{s['min'] / base['min']:9.2f}" + (
            f"{s['peak_mib'] / base['peak_mib']:9.2f}" if base["peak_mib"] else f"{'':9}"
        )
        differs = abs(s["check"] - base["check"]) > 1e-3 * abs(base["check"])
        lines.append(f"{s['library']:14}{times}{s['peak_mib']:8.1f} MiB{relative}{'  DIFFERS' if differs else ''}")
    return "\n".join(lines)


def machine(threads: int, rounds: int) -> dict[str, Any]:
    """What the numbers were measured on, and how."""
    cpu: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        cpu.setdefault(name.strip(), value.strip())
    return {
        "cpu": cpu.get("model name", platform.machine()),
        # A virtual machine's model name may say little.
        "model": ", ".join(f"{name} {cpu[name]}" for name in ("cpu family", "model", "stepping") if name in cpu),
        "isa": [name for name in ("avx2", "avx512f") if name in cpu.get("flags", "").split()],
        "caches": caches(),
        "cores": os.cpu_count(),
        "threads": threads,
        "rounds": rounds,
        "python": platform.python_version(),
    }


def caches() -> dict[str, str]:
    """Level → size of the first core's caches for data, such as {"L2": "2048K"}; nothing where the system is silent."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            found[f"L{(folder / 'level').read_text().strip()}"] = (folder / "size").read_text().strip()
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.compare", description=str(__doc__).splitlines()[0])
    parser.add_argument("workloads", nargs="+", choices=[*CONTESTANTS, "all"], metavar="WORKLOAD")
    parser.add_argument("--against", default="torch,jax,autograd", help="libraries, separated by commas; '' for none")
    parser.add_argument("--libraries", help="exactly these, such as ckad:none,ckad:sqrt,torch:compile")
    parser.add_argument("--size", action="append", default=[], help="a size of the workload, such as depth=64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the summaries to this file")
    options = parser.parse_args()
    peers = set(filter(None, options.against.split(",")))
    if peers and not PEER_PYTHON.exists():
        print("ckad alone: `make bench-env` installs PyTorch, JAX and autograd to compare with", file=sys.stderr)
        peers = set()
    summaries: list[dict[str, Any]] = []
    for workload in CONTESTANTS if "all" in options.workloads else options.workloads:
        labels = [label for label in CONTESTANTS[workload] if label.partition(":")[0] in peers | {"ckad", "numpy"}]
        if options.libraries:
            labels = options.libraries.split(",")
        found = compare(workload, labels, options.size, options.rounds, options.threads)
        print(f"\n{workload}\n{table(found)}", flush=True)
        summaries += found
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"machine": machine(options.threads, options.rounds), "results": summaries}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
