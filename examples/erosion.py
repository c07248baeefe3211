"""What did a landscape look like before it eroded? A gradient through a simulation, within a limit on memory.

Elevations around the Jacksboro fault in Tennessee (measured from orbit by SRTM, part of matplotlib's sample data) are
what 150 steps of hillslope diffusion have left. Which terrain did they leave it from? Gradient descent on the misfit
answers, through a plain loop of NumPy that updates an array in place. Keeping all that its backward part reads takes
almost a GiB; `memory_limit=` runs it in an eighth, and the plan, known before the run, is written as a page to look at.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from output import mebibytes, output_path, print_table
from tqdm import trange

import ckad

STEPS = 150
DESCENT = 6
CELL = 90.0  # metres
RATE = 0.04  # of diffusion, in cells² a step
CRITICAL = 0.8  # the slope at which soil moves twice as fast as by diffusion alone
LIMIT = "128MiB"


def elevations() -> np.ndarray:
    """Metres above the sea, 344 × 403."""
    from matplotlib.cbook import get_sample_data

    measured: Any = get_sample_data("jacksboro_fault_dem.npz")
    return measured["elevation"].astype(float)


def eroded(z: Any) -> Any:
    """The terrain after the simulated time: soil creeps downhill, the steeper the faster."""
    z = z.copy()
    for _ in range(STEPS):
        east = z[:, 1:] - z[:, :-1]
        south = z[1:, :] - z[:-1, :]
        east = RATE * east * (1.0 + (east / (CELL * CRITICAL)) ** 2)
        south = RATE * south * (1.0 + (south / (CELL * CRITICAL)) ** 2)
        z[:, :-1] += east
        z[:, 1:] -= east
        z[:-1, :] += south
        z[1:, :] -= south
    return z


def misfit(z: Any, observed: Any) -> Any:
    """Half the sum of squares of what is left to explain, in m²."""
    return 0.5 * np.sum((eroded(z) - observed) ** 2)


def main() -> None:
    """Plans under several limits, keeps to one of them, descends, writes the plan's page."""
    observed = elevations()
    start = observed.copy()
    none = ckad.plan(misfit, checkpoint="none")(start, observed)
    try:
        ckad.plan(misfit, memory_limit=1)(start, observed)
        raise SystemExit("a byte is no limit that a plan keeps")
    except ckad.errors.MemoryLimitError as error:
        least = error.minimum
    rows = []
    digests = set()
    gradients = {
        "none": ckad.value_and_grad(misfit, checkpoint="none"),
        LIMIT: ckad.value_and_grad(misfit, memory_limit=LIMIT),
        "the least": ckad.value_and_grad(misfit, memory_limit=least),
    }
    for name, gradient in gradients.items():
        plan = ckad.plan(gradient)(start, observed)
        peak, seconds, digest = measured(gradient, start, observed)
        digests.add(digest)
        extra = plan.extra_flops / (plan.flops - plan.extra_flops)
        rows.append([name, mebibytes(plan.peak_bytes), mebibytes(peak), f"{extra:.0%}", f"{seconds:.2f} s", digest[:8]])
    head = ["memory_limit=", "planned peak", "memray", "extra work", "gradient in", "sha256"]
    height, width = observed.shape
    print_table(f"Erosion: {STEPS} steps on {height} × {width} cells, in place", head, rows)
    if len(digests) != 1:
        raise SystemExit("the gradients differ")
    plan = ckad.plan(misfit, memory_limit=LIMIT)(start, observed)
    page = output_path("erosion-plan.html")
    plan.to_html(page)
    plan.to_png(output_path("erosion-plan.png"))
    if plan.peak_bytes > plan.memory_limit or plan.peak_bytes > none.peak_bytes:  # type: ignore[operator]
        raise SystemExit("the plan does not keep to its limit")
    descend(start, observed)
    print(f"  the plan as a page: {page}")


def measured(gradient: Any, *args: Any) -> tuple[int, float, str]:
    """memray's peak of one call, the seconds of another, and a hash of the gradient."""
    import memray

    gradient(*args)
    began = time.perf_counter()
    gradient(*args)
    seconds = time.perf_counter() - began
    ckad.memory.release()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "run.bin")
        found: Any = None
        with memray.Tracker(record):
            _, found = gradient(*args)
        peak = memray.FileReader(record).metadata.peak_memory
    return peak, seconds, hashlib.sha256(found.tobytes()).hexdigest()


def descend(start: np.ndarray, observed: np.ndarray) -> None:
    """Finds the earlier terrain, draws it."""
    value_and_grad = ckad.value_and_grad(misfit, memory_limit=LIMIT)
    z, errors = start, []
    for _ in trange(DESCENT, desc="erosion backwards", unit="step", leave=False):
        value, gradient = value_and_grad(z, observed)
        errors.append(float(np.sqrt(2.0 * value / observed.size)))
        z = z - gradient
    print(f"  root mean square misfit {errors[0]:.2f} m → {errors[-1]:.2f} m in {DESCENT} steps of descent")
    draw(observed, z)


def draw(observed: np.ndarray, before: np.ndarray) -> None:
    """Today's terrain and the earlier one, shaded."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LightSource

    sun = LightSource(azdeg=315, altdeg=45)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for pane, (title, z) in zip(axes, {"as measured": observed, "before, as found": before}.items(), strict=True):
        shaded = sun.shade(z, cmap=plt.get_cmap("gist_earth"), vert_exag=3, dx=CELL, dy=CELL, blend_mode="overlay")
        pane.imshow(shaded)
        pane.set(title=title, xticks=[], yticks=[])
    figure.savefig(output_path("erosion.png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
