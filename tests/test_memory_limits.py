"""Refused memory is a MemoryError, wherever it is refused, and never the end of the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ALL = [
    *("record", "text", "dot", "force", "none", "auto", "sqrt", "jacobian", "vjp", "hvp", "concatenate", "stack"),
    *("looking", "plan", "limit", "evictions", "policy", "products"),
]
VERIFIED = ["force", "none", "sqrt", "jacobian", "stack", "looking"]


# Larger blocks are refused: so the lists of 4,000 operations are, as those of long programs are above 1 MiB.
RESERVED = "4096"


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited where Linux limits it")
@pytest.mark.parametrize(("verify", "names"), [("0", ALL), ("1", VERIFIED)])
def test_memory_refused_anywhere_is_an_error_after_which_all_works(verify: str, names: list[str]) -> None:
    sweep = Path(__file__).with_name("memory_limits.py")
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "CKAD_VERIFY": verify, "CKAD_RESERVED_BYTES": RESERVED}
    done = subprocess.run([sys.executable, sweep, *names], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        line.partition(":")[0]: {what: int(count) for count, what in re.findall(r"(\d+) ([a-z][a-z ]+),", line)}
        for line in done.stdout.splitlines()
    }
    assert list(counts) == names
    for name, seen in counts.items():
        assert sum(seen.get(what, 0) for what in ("value", "ckad", "python")) == 41, name
        # Something was refused, and in the end nothing; whose memory it was depends on the system's allocator.
        assert 1 <= seen.get("value", 0) <= 40, name
    # In all the programs together much is refused to ckad, and the line is named.
    for what in ("ckad", "with a line"):
        assert sum(seen.get(what, 0) for seen in counts.values()) >= 3 * len(names), what
