"""Every example's derivative runs within its least limit on memory, in a process that may not map more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_limits
import pytest


def test_every_example_is_here() -> None:
    named = {path.stem for path in example_limits.EXAMPLES.glob("*.py")} - {"output"}
    assert set(example_limits.MAKERS) == named


def child(name: str, how: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "1",
        "CKAD_NUM_THREADS": "2",
        "CKAD_VERIFY": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, str(Path(example_limits.__file__)), name, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited where Linux limits it")
@pytest.mark.parametrize("name", sorted(example_limits.MAKERS))
def test_an_example_keeps_to_its_least_limit(name: str) -> None:
    limited, traced = child(name, "limited"), child(name, "memray")
    # Without address space for more; above its base, which holds the arguments, the process was not larger.
    assert limited["grown"] <= limited["allowed"] + example_limits.BESIDE
    # Where keeping everything needs far more, the same process was refused it.
    assert limited["refused"] == (limited["none"] > 2 * limited["allowed"])
    # By memray's count, too.
    assert traced["limit"] == limited["limit"] <= limited["none"]
    assert traced["peak"] <= traced["allowed"]
    transform, args = example_limits.made(name)
    assert {limited["digest"], traced["digest"]} == {example_limits.digest(transform()(*args))}


def test_the_large_examples_save_much() -> None:
    # What the two tests above mean: the limits are far below what keeping everything needs.
    import ckad

    for name, share in (("deep_net", 0.35), ("erosion", 0.12)):
        transform, args = example_limits.made(name)
        least, *_, most = ckad.memory_frontier(transform())(*args)
        assert least.peak_bytes < share * most.peak_bytes
