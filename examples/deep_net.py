"""The gradient of a deep net in little memory: what each checkpoint policy costs and saves.

64 layers of 256 units, batch 4096, float32. Each policy is measured in fresh processes: one runs the gradient under
memray and then against the clock, another profiles it (each buffer allocated by itself, from the user's source line).
The plan says the peak before the run; the table shows both. The gradients must agree bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from output import mebibytes, output_path, print_table
from tqdm import tqdm

import ckad

LAYERS = 64
WIDTH = 256
BATCH = 4096
POLICIES = ("none", "auto", "sqrt")
TIMED_RUNS = 3

CAPTION = """\
  planned peak  what ckad.plan says that the call allocates
  memray        the most that was allocated while the gradient ran: also the call's Python objects, hence a little more
  planned live  the bytes of values alive at one time, each as a whole; ckad.plan's parts say what the peak consists of
  executor      the same, as counted in a run that allocates each value by itself
  extra work    operations computed again, in percent of the others"""


def loss(params: Any, x: Any, target: Any) -> Any:
    """Mean squared error of a net with tanh units."""
    h = x
    for weight, bias in params:
        h = np.tanh(h @ weight + bias)
    return np.mean((h - target) ** 2)


def inputs() -> tuple[Any, ...]:
    """Random parameters, inputs and targets, the same in each process."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    params = [(normal(WIDTH, WIDTH) / np.float32(WIDTH**0.5), np.zeros(WIDTH, np.float32)) for _ in range(LAYERS)]
    return params, normal(BATCH, WIDTH), normal(BATCH, WIDTH)


# In the fresh processes -----------------------------------------------------------------------------------------------


def measure_run(policy: str) -> dict[str, Any]:
    """The plan; then the peak that memray sees in one run, the seconds of others, and a hash of the gradient."""
    import memray

    args = inputs()
    gradient = ckad.grad(loss, checkpoint=policy)  # type: ignore[arg-type]
    plan = ckad.plan(gradient)(*args)
    ckad.memory.release()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "run.bin")
        result: Any = None
        with memray.Tracker(record):
            result = gradient(*args)
        traced_peak = memray.FileReader(record).metadata.peak_memory
    digest = hashlib.sha256(b"".join(array.tobytes() for pair in result for array in pair)).hexdigest()
    del result
    seconds = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        gradient(*args)
        seconds.append(time.perf_counter() - start)
    return {
        "planned_peak": plan.peak_bytes,
        "planned_live": plan.live_bytes,
        "extra": plan.extra_flops / (plan.flops - plan.extra_flops),
        "memray_peak": traced_peak,
        "seconds": min(seconds),
        "digest": digest,
    }


def measure_profile(policy: str) -> dict[str, Any]:
    """The bytes alive at each step of the run, as the executor allocates them, and memray's flame graph of the peak."""
    report = ckad.memory.profile(ckad.grad(loss, checkpoint=policy), *inputs())  # type: ignore[arg-type]
    report.save_flamegraph(output_path(f"deep_net-{policy}-flamegraph.html"))
    return {"timeline": report.timeline, "executor_peak": report.executor_bytes}


# In the parent --------------------------------------------------------------------------------------------------------


def in_fresh_process(what: str, policy: str) -> dict[str, Any]:
    """The result of `measure_WHAT(policy)` in a process of its own."""
    command = [sys.executable, __file__, what, policy]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout)


def main() -> None:
    """Measures each policy, prints the table, draws the bytes over the run."""
    results: dict[str, dict[str, Any]] = {policy: {} for policy in POLICIES}
    jobs = [(what, policy) for policy in POLICIES for what in ("run", "profile")]
    for what, policy in tqdm(jobs, desc="deep net", unit="process", leave=False):
        results[policy] |= in_fresh_process(what, policy)
    rows = [
        [
            policy,
            mebibytes(result["planned_peak"]),
            mebibytes(result["memray_peak"]),
            mebibytes(result["planned_live"]),
            mebibytes(result["executor_peak"]),
            f"{result['seconds']:.2f} s",
            f"{result['extra']:.0%}",
            result["digest"][:8],
        ]
        for policy, result in results.items()
    ]
    head = ["checkpoint=", "planned peak", "memray", "planned live", "executor", "gradient in", "extra work", "sha256"]
    print_table(f"Deep net: {LAYERS} layers × {WIDTH}, batch {BATCH}, float32", head, rows)
    print(CAPTION)
    draw(results)
    if any(result["planned_live"] != result["executor_peak"] for result in results.values()):
        raise SystemExit("the executor did not measure the live bytes that were planned")
    if len({result["digest"] for result in results.values()}) != 1:
        raise SystemExit("the gradients differ")
    print("  the three gradients are equal bit for bit")


def draw(results: dict[str, dict[str, Any]]) -> None:
    """Live bytes over the run and the planned peaks, three policies in one figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    # 'none' and 'auto' nearly coincide here: the wide line shows on both sides of the narrow one.
    looks = {"none": ("tab:blue", 7.0, 0.35), "auto": ("tab:red", 1.5, 1.0), "sqrt": ("tab:green", 1.5, 1.0)}
    for policy, result in results.items():
        colour, width, opacity = looks[policy]
        held = np.array(result["timeline"]) / 2**20
        progress = np.linspace(0, 100, len(held))
        axes.step(progress, held, where="post", color=colour, lw=width, alpha=opacity, label=f"checkpoint={policy!r}")
        peak = result["planned_peak"]
        label = f"planned peak of {policy!r}: {mebibytes(peak)}"
        axes.axhline(peak / 2**20, color=colour, lw=1.2, linestyle=":" if policy == "none" else "--", label=label)
    axes.set(xlabel="allocations and releases of buffers done, % of those of the run", ylabel="MiB", ylim=(0, None))
    axes.set_title(f"bytes of live values: gradient of {LAYERS} layers × {WIDTH}, batch {BATCH}, float32")
    figure.legend(loc="outside lower center", ncols=len(results))
    figure.savefig(output_path("deep_net-memory.png"), dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps({"run": measure_run, "profile": measure_profile}[sys.argv[1]](sys.argv[2])))
    else:
        main()
