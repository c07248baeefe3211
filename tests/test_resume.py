"""A training that is stopped or killed and resumed from `nn.save` gives the curve of one that was not, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "resume.py"


def train(file: Path, steps: int, killed_after: int | None = None, **environment: str) -> dict[int, str]:
    """Loss by step, exactly, of a process that trains up to a step, from the file on."""
    losses = {}
    command = [sys.executable, str(EXAMPLE), str(file), str(steps)]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            step, loss = line.split()
            losses[int(step)] = loss
            if int(step) == killed_after:
                process.kill()
    assert killed_after is not None or process.returncode == 0
    return losses


def arrays(file: Path) -> dict[str, bytes]:
    with np.load(file) as found:
        return {name: found[name].tobytes() for name in found.files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, str], dict[str, bytes]]:
    file = tmp_path_factory.mktemp("whole") / "training.npz"
    losses = train(file, 40)
    assert list(losses) == list(range(1, 41))
    assert float.fromhex(losses[40]) < float.fromhex(losses[1])
    return losses, arrays(file)


def test_a_training_is_resumed(whole: tuple[dict[int, str], dict[str, bytes]], tmp_path: Path) -> None:
    losses, final = whole
    file = tmp_path / "training.npz"
    first = train(file, 17)
    assert list(first) == list(range(1, 18))
    # Another number of threads changes nothing either.
    rest = train(file, 40, CKAD_NUM_THREADS="3")
    assert list(rest) == list(range(18, 41))
    assert first | rest == losses
    assert arrays(file) == final
    assert {"key", "step", "optimizer/step", "model/1/mean", "optimizer/mean/0/weight"} <= final.keys()


@pytest.mark.parametrize("killed_after", [1, 15, 22])
def test_a_training_is_killed_and_resumed(
    whole: tuple[dict[int, str], dict[str, bytes]], tmp_path: Path, killed_after: int
) -> None:
    losses, final = whole
    file = tmp_path / "training.npz"
    first = train(file, 40, killed_after=killed_after)
    rest = train(file, 40)
    # Killed while it wrote, it may have saved or not; what it computed twice is the same twice.
    begins = min(rest, default=41)
    assert begins <= max(first) + 1
    assert begins % 5 == 1
    assert (first.items() | rest.items()) == losses.items()
    assert arrays(file) == final
