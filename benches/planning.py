"""Seconds of planning against the size of the graph: `python -m benches.planning [PROGRAM …]`.

Gradients of long Python loops are planned under several policies and limits, and none is run. Measured is what follows
deriving: clustering, the policy's attempts, lowering, offsets. Sizes are nodes of the planned graph. Without arguments
it measures all programs and writes benches/planning.json. Each figure is of a process of its own, which plans small
graphs as often as there is time for; one that takes longer than `--patience` is left out.
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

from benches.compare import ROOT, machine

RESULTS = ROOT / "benches" / "planning.json"

SIZES = [10**exponent for exponent in (4, 5, 6)]

ELEMENTS = 1024
"""Of a state: enough that values outweigh the graph, so that half of the memory is a limit that means something."""

SECONDS = 0.5
"""How long plans of small graphs are repeated."""


def chain(x: Any, steps: int) -> Any:
    """Elementwise steps."""
    for _ in range(steps):
        x = np.sin(x) * 1.5 + 0.1
    return np.sum(x)


def residual(x: Any, steps: int) -> Any:
    """Residual steps with a product."""
    h, w = np.reshape(x, (-1, 8)), np.eye(8)
    for _ in range(steps):
        h = np.tanh(h @ w) + h
    return np.sum(h)


def stencil(x: Any, steps: int) -> Any:
    """Diffusion in place."""
    u = np.copy(x)
    for _ in range(steps):
        u[1:-1] += 0.1 * (1.0 + u[1:-1] ** 2) * (u[2:] - 2.0 * u[1:-1] + u[:-2])
    return np.sum(u * u)


def saved(x: Any, steps: int) -> Any:
    """Steps whose results the user saves."""
    import ckad

    for _ in range(steps):
        x = ckad.save(np.sin(x) * x + 0.1)
    return np.sum(x)


PROGRAMS: dict[str, Callable[[Any, int], Any]] = {
    "chain": chain,
    "residual": residual,
    "stencil": stencil,
    "saved": saved,
}

POLICIES = ("none", "sqrt", "log", "Revolve(50)", "half", "least")
"""What is planned: policies, and limits of half of what 'none' needs and of 1 byte, for which all plans are tried."""


# In a process of its own ---------------------------------------------------------------------------------------------


def options(policy: str, none: Callable[[], int]) -> dict[str, Any]:
    """The arguments of a transform; `none` says what keeping everything needs."""
    import ckad

    match policy:
        case "half":
            return {"memory_limit": none() // 2}
        case "least":
            return {"memory_limit": 1}
        case "Revolve(50)":
            return {"checkpoint": ckad.Revolve(50)}
        case _:
            return {"checkpoint": policy}


def planned(program: Callable[[Any, int], Any], steps: int, **how: Any) -> dict[str, Any]:
    """One plan: its figures, or the least limit where there is none."""
    import ckad
    from ckad import _core

    recording = 0.0

    def loss(x: Any) -> Any:
        nonlocal recording
        begun = time.process_time()
        y = program(x, steps)
        recording = time.process_time() - begun
        return y

    begun = time.process_time()
    try:
        plan = ckad.plan(ckad.grad(loss, **how))(np.linspace(0.1, 1.0, ELEMENTS))
        found = {"bytes": plan.peak_bytes, "extra_flops": plan.extra_flops, "flops": plan.flops}
    except ckad.errors.MemoryLimitError as refused:
        found = {"minimum": refused.minimum}
    total = time.process_time() - begun
    deriving, planning, nodes = _core.building()
    # What the processors did meanwhile, the tables of `plan` included, is more where two threads lower.
    return {"nodes": nodes, "seconds": planning, "cpu": total - recording - deriving, **found}


def steps_of(program: Callable[[Any, int], Any], nodes: int) -> int:
    """With how many steps the planned graph has about so many nodes."""
    few, many = 10, 30
    less, more = (planned(program, steps, checkpoint="none")["nodes"] for steps in (few, many))
    return max(1, round(few + (nodes - less) * (many - few) / (more - less)))


def measured(name: str, policy: str, nodes: int) -> dict[str, Any]:
    """The fastest of some plans."""
    program = PROGRAMS[name]
    steps = steps_of(program, nodes)
    how = options(policy, lambda: planned(program, steps, checkpoint="none")["bytes"])
    found: list[dict[str, Any]] = []
    begun = time.perf_counter()
    while not found or (len(found) < 20 and time.perf_counter() - begun < SECONDS):
        # Other lengths are other programs, so none is found in the cache.
        found.append(planned(program, steps + len(found), **how))
    return {"program": name, "policy": policy, "steps": steps, **min(found, key=lambda one: one["seconds"])}


# In the process that was started -------------------------------------------------------------------------------------


def in_a_process(name: str, policy: str, nodes: int, threads: int, patience: float) -> dict[str, Any] | None:
    """The figures of one plan; none where that takes too long."""
    command = [sys.executable, "-m", "benches.planning", "--measure", name, policy, str(nodes)]
    environment = os.environ | {"CKAD_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=patience, check=True
        )
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benches.planning", description=str(__doc__).splitlines()[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--nodes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--patience", type=float, default=120.0, help="seconds for one figure")
    parser.add_argument("--measure", nargs=3, metavar=("PROGRAM", "POLICY", "NODES"), help="one, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        name, policy, nodes = arguments.measure
        print(json.dumps(measured(name, policy, int(nodes))))
        return
    if unknown := [name for name in arguments.programs if name not in PROGRAMS]:
        raise SystemExit(f"there is no program {unknown[0]!r}, but {', '.join(PROGRAMS)}")
    print("seconds of planning".ljust(24), *(f"{nodes:>12,} nodes" for nodes in arguments.nodes))
    plans = []
    for name in arguments.programs or PROGRAMS:
        for policy in arguments.policies:
            print(f"{name}, {policy}".ljust(24), end="", flush=True)
            for nodes in arguments.nodes:
                found = in_a_process(name, policy, nodes, arguments.threads, arguments.patience)
                print(" ", ("too long" if found is None else f"{found['seconds']:.3f}").rjust(16), end="", flush=True)
                plans += [found] if found else []
            print(flush=True)
    if not arguments.programs and list(arguments.nodes) == SIZES and tuple(arguments.policies) == POLICIES:
        results = {"machine": machine(arguments.threads, 1), "plans": plans}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
