"""Forward or reverse? The time of a Jacobian by either mode, and which one `mode='auto'` chooses.

f(x) = A x with n = 100 inputs and m from 10 to 1000 outputs. Forward mode costs one run per input, reverse mode one
per output, so the better one changes where m = n. `auto` decides from the graph, before it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from output import output_path, print_table
from tqdm import tqdm

import ckad

mpl.use("Agg")

INPUTS = 100
OUTPUTS = (10, 18, 32, 56, 100, 180, 320, 560, 1000)
REPEATS = 7


def main() -> None:
    """Times both modes for each m, prints the table, draws it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(INPUTS)
    forward, reverse, chosen = [], [], []
    for outputs in tqdm(OUTPUTS, desc="Jacobians", unit="size", leave=False):
        a = rng.standard_normal((outputs, INPUTS))

        def f(x: Any, a: Any = a) -> Any:
            return a @ x

        if not np.allclose(ckad.jacobian(f)(x), a, rtol=1e-12):
            raise SystemExit("the Jacobian of A x is not A")
        chosen.append(ckad.jacobian_mode(f)(x))
        times = interleaved([ckad.jacobian(f, mode=mode) for mode in ("forward", "reverse")], x)
        forward.append(times[0])
        reverse.append(times[1])
    rows = [
        [str(m), f"{1e3 * t_forward:.2f} ms", f"{1e3 * t_reverse:.2f} ms", mode]
        for m, t_forward, t_reverse, mode in zip(OUTPUTS, forward, reverse, chosen, strict=True)
    ]
    print_table(f"Jacobian of A x, n = {INPUTS}: fastest of {REPEATS}", ["m", "forward", "reverse", "auto chose"], rows)
    print(f"  auto compares how many operations the modes need; at m = n = {INPUTS} that is a tie, decided for forward")
    draw(forward, reverse, chosen)


def interleaved(functions: list[Callable[[Any], Any]], x: np.ndarray) -> list[float]:
    """The fewest seconds each function took, called in turn so that a disturbance meets all of them."""
    best = [float("inf")] * len(functions)
    for repeat in range(REPEATS + 1):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            function(x)
            if repeat:  # the first one plans
                best[index] = min(best[index], time.perf_counter() - start)
    return best


def draw(forward: list[float], reverse: list[float], chosen: list[str]) -> None:
    """Both times over m; circles mark what auto chose."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.loglog(OUTPUTS, np.array(forward) * 1e3, "s-", label="forward mode")
    axes.loglog(OUTPUTS, np.array(reverse) * 1e3, "^-", label="reverse mode")
    picked = [f if mode == "forward" else r for f, r, mode in zip(forward, reverse, chosen, strict=True)]
    axes.loglog(OUTPUTS, np.array(picked) * 1e3, "o", ms=13, mfc="none", mec="black", label="chosen by mode='auto'")
    axes.axvline(INPUTS, color="grey", linestyle=":", label="m = n")
    axes.set(xlabel="outputs m", ylabel="Jacobian, ms", title=f"f(x) = A x, n = {INPUTS} inputs")
    axes.legend()
    figure.savefig(output_path("jacobian_mode.png"), dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
