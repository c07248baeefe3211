"""Every example's derivative runs within its least limit on memory, in a process that may not map more, and so does a
long loop over an array in place under 'sqrt' within its plan."""

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


def check(name: str) -> dict[str, Any]:
    """What the limited process says, which was held to what is allowed."""
    limited, traced = child(name, "limited"), child(name, "memray")
    # Without address space for more; above its base, which holds the arguments, the process was not larger.
    assert limited["grown"] <= limited["allowed"]
    # By memray's count, too, which does not count what an allocator keeps after planning.
    assert traced["limit"] == limited["limit"] <= limited["none"]
    assert traced["peak"] <= traced["held"]
    transform, args = example_limits.made(name)
    assert {limited["digest"], traced["digest"]} == {example_limits.digest(transform()(*args))}
    return limited


linux = pytest.mark.skipif(sys.platform != "linux", reason="address space is limited where Linux limits it")


@linux
@pytest.mark.parametrize("name", sorted(example_limits.MAKERS))
def test_an_example_keeps_to_its_least_limit(name: str) -> None:
    limited = check(name)
    if name in example_limits.LINEAR:
        assert limited["none"] == limited["limit"]
        return
    # Keeping everything needs far more, and the same process was refused it.
    assert limited["none"] >= 64 << 20
    assert limited["none"] > 2 * limited["allowed"]
    assert limited["refused"]


@linux
def test_a_loop_over_an_array_in_place_keeps_to_its_plan() -> None:
    limited = check("state_loop")
    assert limited["none"] > 10 * limited["allowed"]
    assert limited["refused"]


def test_the_large_examples_save_much() -> None:
    # What the two tests above mean: the limits are far below what keeping everything needs.
    import ckad

    for name, share in (("deep_net", 0.35), ("erosion", 0.12)):
        transform, args = example_limits.made(name)
        least, *_, most = ckad.memory_frontier(transform())(*args)
        assert least.peak_bytes < share * most.peak_bytes
