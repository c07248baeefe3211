"""`ckad.memory.profile`: what is planned, what the executor counts and what the process allocates, line by line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import PROGRAMS

import ckad

WEIGHTS = [np.full((64, 64), 0.02) for _ in range(16)]


def net(x: Any) -> Any:
    for weight in WEIGHTS:
        x = np.tanh(x @ weight)
        x = x * 1.5
    return np.sum(x * x)


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_line_holds_what_was_planned(name: str, policy: str | int) -> None:
    f, args = PROGRAMS[name]
    report = ckad.memory.profile(ckad.grad(f, checkpoint=policy), *args)
    assert {row.line: row.executor for row in report.table if row.executor} == report.lines
    for row in report.table:
        assert row.planned == row.executor
    assert sum(row.planned for row in report.table) >= report.planned_bytes


def test_the_process_allocates_buffers_at_their_lines() -> None:
    x = np.ones((4096, 64))
    # Or the result has the memory of one that was dropped before.
    ckad.memory.release()
    report = ckad.memory.profile(ckad.grad(net, checkpoint="none"), x)
    by_line = {int(row.line.rpartition(":")[2]): row for row in report.table if row.line.startswith(__file__)}
    heavy = [row for row in by_line.values() if row.planned > x.nbytes]
    assert heavy
    for row in heavy:
        # At the high-water mark a line need not hold its most; copies of the weights are made at the line that reads.
        assert row.process is not None
        assert row.process <= row.executor + sum(weight.nbytes for weight in WEIGHTS) + 65536
    assert sum(row.process or 0 for row in heavy) > 0.9 * report.executor_bytes - x.nbytes
    assert sum(row.process or 0 for row in report.table) == report.process_bytes
    # The result belongs to the call, whose graph and tables are there, too.
    (rest,) = (row for row in report.table if row.line == "results, and the rest")
    assert rest.executor == rest.planned == 0
    assert x.nbytes <= (rest.process or 0) < x.nbytes + (1 << 20)
    text = str(report)
    assert text.splitlines()[0].split() == ["line", "planned", "executor", "process"]
    assert f"{report.planned_bytes:,}" in text
    assert all(row.line in text for row in report.table)


def test_several_runs_share_a_table() -> None:
    gradient = ckad.grad(net)
    small, large = np.ones((10, 64)), np.ones((500, 64))

    def both() -> Any:
        return gradient(large), gradient(small)

    report, alone = ckad.memory.profile(both), ckad.memory.profile(gradient, large)
    planned = {row.line: row.planned for row in alone.table if row.planned}
    assert {row.line: row.planned for row in report.table if row.planned} == planned
    assert all(row.planned == row.executor for row in report.table)


def test_without_memray_two_columns_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "memray", None)
    report = ckad.memory.profile(ckad.grad(net), np.ones((10, 64)))
    assert report.process_bytes is None
    assert all(row.process is None for row in report.table)
    assert "pip install memray" in str(report)


LIMITED = """
import numpy as np
import pytest
import ckad

WEIGHT = np.eye(256)


@pytest.mark.limit_memory("48 MB")
def test_gradient():
    def f(x):
        for _ in range(128):
            x = np.tanh(x @ WEIGHT)
        return np.sum(x)

    ckad.grad(f, checkpoint={policy!r})(np.full((512, 256), 0.1))
"""


@pytest.mark.parametrize(("policy", "passes"), [("none", False), ("auto", False), ("sqrt", True)])
def test_a_limit_of_pytest_memray_that_one_policy_keeps(policy: str, passes: bool, tmp_path: Path) -> None:
    # 128 values of 1 MiB each; a process of its own holds no arena of another test's.
    (tmp_path / "test_limited.py").write_text(LIMITED.format(policy=policy))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--memray", "test_limited.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CKAD_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
    assert ("1 passed" if passes else "1 failed") in done.stdout
    assert ("was limited to 48.0MiB" in done.stdout) is not passes
