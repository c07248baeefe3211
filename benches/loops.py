"""Loops of tiny bodies: `python -m benches.loops [--iterations N]`.

Prints operations of the body a second, for a scan and for its gradient: what is recorded of one iteration, and of the
value and gradient of one, times the iterations, by the seconds of the fastest of some calls. What the gradient computes
of an iteration a second time is not counted. Beside it nanoseconds for an iteration.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LEAVES = (" input(", " scalar(", " literal(", " constant(")
"""What a printed graph names that is no operation."""

MATRIX = np.random.default_rng(0).normal(size=(16, 16)) / 5.0


def logistic(x: Any) -> Any:
    return 3.7 * x * (1.0 - x)


def lorenz(state: Any) -> Any:
    """A step of the classical Runge-Kutta method."""

    def change(x: Any, y: Any, z: Any) -> Any:
        return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z

    def moved(by: Any, h: float) -> Any:
        return tuple(value + h * part for value, part in zip(state, by, strict=True))

    h = 0.001
    first = change(*state)
    second = change(*moved(first, h / 2.0))
    third = change(*moved(second, h / 2.0))
    fourth = change(*moved(third, h))
    parts = zip(first, second, third, fourth, strict=True)
    return moved([(a + 2.0 * b + 2.0 * c + d) / 6.0 for a, b, c, d in parts], h)


def stencil(u: Any) -> Any:
    """Diffusion, with a slice written in place."""
    u = u.copy()
    u[1:-1] += 0.1 * (u[2:] - 2.0 * u[1:-1] + u[:-2])
    return u


def dense(x: Any) -> Any:
    return np.tanh(MATRIX @ x + 0.1)


BODIES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "logistic map": (logistic, 0.3),
    "Lorenz, Runge-Kutta": (lorenz, (1.0, 1.0, 1.0)),
    "stencil of 8": (stencil, np.linspace(0.0, 1.0, 8) ** 2),
    "layer of 16": (dense, np.ones(16)),
}


def total(tree: Any) -> Any:
    import ckad

    return sum(np.sum(leaf) for leaf in ckad.tree.flatten(tree)[0])


def operations(f: Callable[[Any], Any], first: Any) -> int:
    """How many operations are recorded."""
    import ckad

    lines = str(ckad.trace(f)(first)).splitlines()
    return sum(" = " in line and not any(leaf in line for leaf in LEAVES) for line in lines)


def seconds(run: Callable[[], Any], times: int = 5) -> float:
    """The fastest of some calls, after two that record and plan."""
    run()
    run()
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return min(found)


def measure(step: Callable[[Any], Any], first: Any, iterations: int) -> dict[str, tuple[float, float]]:
    """Millions of operations a second and nanoseconds for an iteration, forward and with the gradient."""
    import ckad

    def looped(state: Any) -> Any:
        return total(ckad.scan(lambda state, _: (step(state), None), state, None, iterations)[0])

    def once(state: Any) -> Any:
        return total(step(state))

    forward, gradient = ckad.jit(looped), ckad.jit(ckad.value_and_grad(looped))
    found = {}
    for name, run, count in (
        ("forward", forward, operations(step, first)),
        ("gradient", gradient, operations(ckad.value_and_grad(once), first)),
    ):
        taken = seconds(lambda run=run: run(first)) / iterations
        found[name] = (count / taken / 1e6, taken * 1e9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=100_000)
    iterations = parser.parse_args().iterations
    for name, (step, first) in BODIES.items():
        found = measure(step, first, iterations)
        columns = [f"{kind} {rate:6.1f} M/s {each:7.0f} ns" for kind, (rate, each) in found.items()]
        print(f"{name:20}  " + "   ".join(columns))


if __name__ == "__main__":
    main()
