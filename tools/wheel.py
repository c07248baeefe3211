"""Builds the wheel for release and proves that it is one: manylinux, abi3, and working in a clean environment.

Runs in .venv-wheel (see the Makefile). Zig links against an old glibc, so the wheel built here runs on any current
Linux; without it the wheel would ask for the glibc of this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
BIN = Path(sys.executable).parent
PLATFORM = "manylinux_2_28"
"""As NumPy's own wheels."""

SMOKE_TEST = """
import sys, numpy as np, ckad
assert "site-packages" in ckad.__file__, ckad.__file__
assert ckad.grad(lambda x: np.sum(np.sin(x)))(np.zeros(3)).tolist() == [1.0, 1.0, 1.0]
print("ckad", ckad.__version__, "works in Python", sys.version.split()[0])
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Runs a command with the tools of the environment first in its path."""
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}")


def main() -> None:
    """Builds, audits, installs and tries the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    run("maturin", "build", "--quiet", "--release", "--locked", "--zig", "--compatibility", PLATFORM, "--out", DIST)
    (wheel,) = DIST.glob("*.whl")
    if "-abi3-" not in wheel.name or PLATFORM not in wheel.name:
        raise SystemExit(f"{wheel.name} is no abi3 wheel for {PLATFORM}")
    run("auditwheel", "show", wheel)
    run("abi3audit", "--strict", "--report", wheel)
    with tempfile.TemporaryDirectory() as folder:
        # Far from the repository, whose python/ckad would hide the installed package.
        environment = Path(folder, "clean")
        run(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=Path(folder))
        run(python, "-c", SMOKE_TEST, cwd=Path(folder))
    print(f"dist/{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
