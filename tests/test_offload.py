"""`ckad.Offload`: values wait on disk, results keep their bits, the planned peak is the one that is measured."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import optree
import pytest
from numpy.testing import assert_array_equal

import ckad
from ckad.errors import StorageError


def net(x: np.ndarray, weights: list[np.ndarray]) -> Any:
    for weight in weights:
        x = np.tanh(x @ weight)
    return (x * x).sum()


def layers(depth: int = 12, width: int = 128, batch: int = 256) -> tuple[np.ndarray, list[np.ndarray]]:
    generator = np.random.default_rng(3)
    weights = [generator.standard_normal((width, width)) / np.sqrt(width) for _ in range(depth)]
    return generator.standard_normal((batch, width)), weights


def rows(x: np.ndarray, weights: list[np.ndarray]) -> Any:
    """Normalised layers: several steps over the same rows that run as one."""
    for weight in weights:
        z = x @ weight
        z = z - z.mean(axis=1, keepdims=True)
        x = x + z / np.sqrt((z * z).mean(axis=1, keepdims=True) + 1e-5)
    return np.log(np.exp(x).sum(axis=1)).sum()


def state(x: np.ndarray, steps: int = 40) -> Any:
    u = x.copy()
    for _ in range(steps):
        u[1:-1] += 0.1 * (u[2:] - 2 * u[1:-1] + u[:-2]) * u[1:-1]
    return (u**2).sum()


@pytest.mark.parametrize("fn", [net, rows])
def test_gradients_have_the_same_bits(fn: Any) -> None:
    x, weights = layers()
    expected = ckad.value_and_grad(fn, argnums=(0, 1), checkpoint="none")(x, weights)
    found = ckad.value_and_grad(fn, argnums=(0, 1), checkpoint=ckad.Offload())(x, weights)
    for a, b in zip(optree.tree_leaves(expected), optree.tree_leaves(found), strict=True):
        assert_array_equal(a, b)
    plan = ckad.plan(fn, argnums=(0, 1), checkpoint=ckad.Offload())(x, weights)
    everything = ckad.plan(fn, argnums=(0, 1), checkpoint="none")(x, weights)
    assert plan.offloaded_bytes > 0
    # Cheap values may be rebuilt, as under 'auto'.
    assert plan.extra_flops <= 0.05 * plan.flops
    assert plan.parts["arena"] < everything.parts["arena"] / 2


def test_second_derivatives_and_loops_in_place() -> None:
    x = np.linspace(0.5, 1.0, 20_000)
    for policy in (ckad.Offload(), ckad.Offload(min_bytes=1)):
        assert_array_equal(ckad.grad(state, checkpoint=policy)(x), ckad.grad(state, checkpoint="none")(x))
        hvp = ckad.hvp(state, x, x, checkpoint=policy)
        for a, b in zip(
            optree.tree_leaves(hvp), optree.tree_leaves(ckad.hvp(state, x, x, checkpoint="none")), strict=True
        ):
            assert_array_equal(a, b)

        def twice(x: np.ndarray, policy: Any = policy) -> Any:
            return (ckad.grad(state)(x) ** 2).sum()

        assert_array_equal(ckad.grad(twice, checkpoint=policy)(x), ckad.grad(twice, checkpoint="none")(x))


def test_the_peak_is_the_planned_one() -> None:
    x, weights = layers()
    plan = ckad.plan(net, argnums=1, checkpoint=ckad.Offload())(x, weights)
    report = ckad.memory.profile(ckad.grad(net, argnums=1, checkpoint=ckad.Offload()), x, weights)
    assert report.executor_bytes == report.planned_bytes == plan.live_bytes


def test_forced_runs_need_no_file() -> None:
    def branching(x: np.ndarray, weights: list[np.ndarray]) -> Any:
        for weight in weights:
            x = np.tanh(x @ weight)
            if x.sum() > 0:
                x = x * 2.0
        return (x * x).sum()

    x, weights = layers(depth=4)
    expected = ckad.grad(branching, checkpoint="none")(x, weights)
    assert_array_equal(ckad.grad(branching, checkpoint=ckad.Offload())(x, weights), expected)


def open_files() -> dict[str, os.stat_result]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[os.readlink(entry)] = entry.stat()
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_the_file_has_no_name_and_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKAD_TMPDIR", str(tmp_path))
    x, weights = layers(depth=24, width=512, batch=2048)
    seen: list[os.stat_result] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.extend(found for name, found in open_files().items() if name.startswith(str(tmp_path)))
            assert not list(tmp_path.iterdir())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ckad.grad(net, argnums=1, checkpoint=ckad.Offload())(x, weights)
    finally:
        done.set()
        watcher.join()
    assert seen
    assert all(stat.S_IMODE(found.st_mode) == 0o600 and found.st_nlink == 0 for found in seen)
    assert not any(name.startswith(str(tmp_path)) for name in open_files())
    assert not list(tmp_path.iterdir())
    assert all(thread.name != "ckad-disk" for thread in threading.enumerate())


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(code)
    full = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", script], env=full, capture_output=True, text=True, timeout=300)


SETUP = """
import os, resource, signal, sys
import numpy as np, ckad
from ckad.errors import StorageError
weights = [np.eye(256) * 0.5 for _ in range(24)]
x = np.ones((1024, 256))
def net(x, weights):
    for weight in weights:
        x = np.tanh(x @ weight)
    return (x * x).sum()
gradient = ckad.grad(net, argnums=1, checkpoint=ckad.Offload())
"""


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    full = child(
        SETUP
        + """
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    gradient(x, weights)
except StorageError as error:
    assert isinstance(error, OSError) and "no room left in " in str(error) and "CKAD_TMPDIR" in error.hint, error
    # ckad goes on working.
    assert len(ckad.grad(net, argnums=1)(x, weights)) == 24
    print("refused")
""",
        CKAD_TMPDIR=str(tmp_path),
    )
    assert full.stdout.strip() == "refused", full.stderr


def test_a_folder_that_is_not_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CKAD_TMPDIR", str(tmp_path / "none"))
    x, weights = layers()
    with pytest.raises(StorageError, match="cannot make a file in .*none") as caught:
        ckad.grad(net, argnums=1, checkpoint=ckad.Offload())(x, weights)
    assert "CKAD_TMPDIR" in (caught.value.hint or "")


def test_ctrl_c_ends_a_run_and_its_file(tmp_path: Path) -> None:
    stopped = child(
        SETUP
        + """
import threading, time
weights = [np.eye(1024) * 0.5 for _ in range(64)]
x = np.ones((4096, 1024))
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    for _ in range(100):
        gradient(x, weights)
except KeyboardInterrupt:
    print("stopped", not any("(deleted)" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                             if os.path.exists(f"/proc/self/fd/{fd}")))
""",
        CKAD_TMPDIR=str(tmp_path),
    )
    assert stopped.stdout.strip() == "stopped True", stopped.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, -1, 2**32, 1.5, True, "64 KiB"])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="min_bytes must be an int"):
        ckad.Offload(min_bytes=size)


def test_the_policy_is_data() -> None:
    assert ckad.Offload() == ckad.Offload(min_bytes=65536)
