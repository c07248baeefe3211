"""Training that is interrupted and resumed gives the same curve, bit for bit.

A net with batch norm and dropout learns a function of two variables from noisy batches. What a step does is a function
of the model, the optimiser's state, a key and the number of the step: which examples it sees, what noise they have and
what is dropped is drawn from the key folded with that number. So these four, saved together in one file, which is
replaced as a whole, are all that there is to save.

Without arguments it shows so: 60 steps in one process, and in two, the first of which is killed on its way.
`resume.py FILE STEPS` trains up to so many steps, from FILE on where there is one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from output import print_table

import ckad
from ckad import nn, random
from ckad.optim import adam

STEPS = 60
SAVED_EVERY = 5
BATCH = 256
WIDTH = 64

init, update = adam(3e-3)


def beginning() -> dict[str, Any]:
    """What there is before the first step."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Linear(2, WIDTH, rng=rng, dtype=np.float32),
        nn.BatchNorm(WIDTH, dtype=np.float32),
        nn.gelu,
        nn.Dropout(0.1),
        nn.Linear(WIDTH, WIDTH, rng=rng, dtype=np.float32),
        nn.LayerNorm(WIDTH, dtype=np.float32),
        nn.gelu,
        nn.Dropout(0.1),
        nn.Linear(WIDTH, 1, rng=rng, dtype=np.float32),
    )
    return {"model": model, "optimizer": init(model), "key": random.key(1), "step": 0}


def loss(model: Any, x: Any, target: Any, key: Any) -> tuple[Any, Any]:
    """Mean squared error, and the model with the statistics of this batch."""
    y, model = model(x, train=True, key=key)
    return nn.mse_loss(y, target), model


@ckad.jit
def advance(training: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """One step of the training."""
    key = random.fold_in(training["key"], training["step"])
    place, noise, dropped = random.split(key, 3)
    x = random.uniform(place, (BATCH, 2), np.float32, -2.0, 2.0)
    target = np.sin(3.0 * x[:, :1]) * x[:, 1:] + 0.05 * random.normal(noise, (BATCH, 1), np.float32)
    (value, model), gradient = ckad.value_and_grad(loss, has_aux=True, checkpoint="sqrt")(
        training["model"], x, target, dropped
    )
    model, optimizer = update(gradient, training["optimizer"], model)
    return {"model": model, "optimizer": optimizer, "key": training["key"], "step": training["step"] + 1}, value


def train(file: Path, steps: int) -> None:
    """Trains up to the step, from the file on where there is one; prints each step's loss exactly."""
    training = beginning()
    if file.exists():
        training = nn.load(file, like=training)
    while training["step"] < steps:
        training, value = advance(training)
        print(training["step"], float(value).hex(), flush=True)
        if training["step"] % SAVED_EVERY == 0 or training["step"] == steps:
            nn.save(file, training)


# In processes of their own --------------------------------------------------------------------------------------------


def run(file: Path, steps: int, killed_after: int | None = None) -> dict[int, str]:
    """The losses by step of a process that trains, or is killed once it has printed that step."""
    losses = {}
    with subprocess.Popen(
        [sys.executable, __file__, str(file), str(steps)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            step, value = line.split()
            losses[int(step)] = value
            if int(step) == killed_after:
                process.kill()
                break
    if process.returncode != 0 and killed_after is None:
        raise SystemExit(f"training failed: {process.returncode}")
    return losses


def main() -> None:
    """Trains in one process and in two, and compares."""
    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder, "whole.npz"), STEPS)
        parts = run(Path(folder, "parts.npz"), STEPS, killed_after=33)
        resumed = run(Path(folder, "parts.npz"), STEPS)
    shown = [1, 10, 20, 30, 33, min(resumed), 40, 50, STEPS]
    rows = [
        [
            str(step),
            *(f"{float.fromhex(losses[step]):.6f}" if step in losses else "" for losses in (whole, parts, resumed)),
        ]
        for step in sorted(set(shown))
    ]
    print_table("Training with batch norm and dropout: the loss", ["step", "in one process", "killed", "resumed"], rows)
    if any(losses[step] != whole[step] for losses in (parts, resumed) for step in losses):
        raise SystemExit("the curves differ")
    print("  the curves are equal bit for bit")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        train(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
