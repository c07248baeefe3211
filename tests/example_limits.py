"""The derivative of an example under its least limit on memory, in a process of its own (`test_example_limits.py`).

MALLOC_ARENA_MAX=1 python tests/example_limits.py NAME limited|memray
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ckad
from ckad.errors import MemoryLimitError

EXAMPLES = Path(__file__).parent.parent / "examples"

# What Python and the tables of a call take beside.
BESIDE = 4 << 20

Made = tuple[Callable[..., Callable[..., Any]], tuple[Any, ...]]


def deep_net(example: Any) -> Made:
    return lambda **options: ckad.grad(example.loss, **options), example.inputs()


def erosion(example: Any) -> Made:
    observed = example.elevations()
    return lambda **options: ckad.grad(example.misfit, **options), (observed.copy(), observed)


def iris(example: Any) -> Made:
    features, labels = example.read_irises()
    rng = np.random.default_rng(0)
    params = (rng.standard_normal((3, example.HIDDEN)), rng.standard_normal((example.HIDDEN, 3)))
    x = np.column_stack([features, np.ones(len(features))])
    return lambda **options: ckad.grad(example.loss, **options), (params, x, labels)


def jacobian_mode(example: Any) -> Made:
    a = np.random.default_rng(0).standard_normal((max(example.OUTPUTS), example.INPUTS))
    return lambda **options: ckad.jacobian(lambda x: a @ x, **options), (np.ones(example.INPUTS),)


def resume(example: Any) -> Made:
    training = example.beginning()
    x = np.linspace(-1.0, 1.0, 2 * example.BATCH, dtype=np.float32).reshape(-1, 2)
    gradient = lambda **options: ckad.grad(example.loss, has_aux=True, **options)
    return gradient, (training["model"], x, x[:, :1], training["key"])


MAKERS: dict[str, Callable[[Any], Made]] = {
    maker.__name__: maker for maker in (deep_net, erosion, iris, jacobian_mode, resume)
}


def made(name: str) -> Made:
    """A transform that takes `memory_limit=` or `checkpoint=`, and the arguments of what it returns."""
    sys.path.insert(0, str(EXAMPLES))
    return MAKERS[name](importlib.import_module(name))


def digest(result: Any) -> str:
    """Of all bits of a result."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in ckad.tree.flatten(result)[0])).hexdigest()


def memory(name: str) -> int:
    """A figure of this process in bytes: VmSize, VmRSS or VmHWM."""
    return 1024 * int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def main(name: str, how: str) -> dict[str, Any]:
    """Finds the least limit, runs within it, says what the process took."""
    transform, args = made(name)
    # What is loaded and started once is no part of what a call needs.
    warm = ckad.grad(lambda x: np.sum(np.tanh(x @ x)))
    for dtype in (np.float32, np.float64):
        warm(np.ones((256, 256), dtype))
    ckad.memory.release()
    # The base, the arguments in it.
    resident = memory("VmRSS")
    try:
        transform(memory_limit=1)(*args)
        raise SystemExit("a byte is no limit that a plan keeps")
    except MemoryLimitError as error:
        limit = error.minimum
    limited = transform(memory_limit=limit)
    planning = ckad.plan(limited)(*args).planning_bytes
    none = ckad.plan(transform(checkpoint="none"))(*args).peak_bytes
    ckad.memory.release()
    found = {"limit": limit, "none": none, "allowed": limit + planning + BESIDE}
    if how == "memray":
        import memray

        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder, "run.bin")
            result: Any = None
            with memray.Tracker(record):
                result = limited(*args)
            return found | {"peak": int(memray.FileReader(record).metadata.peak_memory), "digest": digest(result)}
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + found["allowed"], resource.RLIM_INFINITY))
    # The high-water mark from here on.
    Path("/proc/self/clear_refs").write_text("5")
    result = limited(*args)
    grown = memory("VmHWM") - resident
    refused = False
    if none > 2 * found["allowed"]:
        try:
            transform(checkpoint="none")(*args)
        except MemoryError:
            refused = True
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return found | {"grown": grown, "refused": refused, "digest": digest(result)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
