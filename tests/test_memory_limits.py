"""Refused memory is a MemoryError, wherever it is refused, and never the end of the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ALL = [
    *("record", "text", "none", "auto", "sqrt", "jacobian", "vjp", "hvp", "concatenate", "stack", "looking", "plan"),
    "products",
]
VERIFIED = ["none", "sqrt", "jacobian", "stack", "looking"]


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited where Linux limits it")
@pytest.mark.parametrize(("verify", "names"), [("0", ALL), ("1", VERIFIED)])
def test_memory_refused_anywhere_is_an_error_after_which_all_works(verify: str, names: list[str]) -> None:
    sweep = Path(__file__).with_name("refusals.py")
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "CKAD_VERIFY": verify}
    done = subprocess.run([sys.executable, sweep, *names], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        line.partition(":")[0]: {what: int(count) for count, what in re.findall(r"(\d+) ([a-z][a-z ]+),", line)}
        for line in done.stdout.splitlines()
    }
    assert list(counts) == names
    for name, seen in counts.items():
        assert seen["value"] + seen.get("ckad", 0) + seen.get("python", 0) == 41, name
        assert seen["value"] >= 1, name
    # Limits that refuse everything, all but everything, and much between; after the recording the line is named.
    for name in {"record", "none", "auto", "sqrt", "concatenate", "stack"} & set(names):
        assert counts[name]["ckad"] >= 20, name
    for name in ("none", "sqrt"):
        assert counts[name]["with a line"] > 0, name
