"""A derivative within few bytes, in a process of its own (`test_example_limits.py`): every example's under its least
limit on memory, and a long loop over an array in place under 'sqrt'.

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

# A transform that takes `memory_limit=` or `checkpoint=`, and the arguments of what it returns: so large that keeping
# everything takes far more than `BESIDE`, but for the linear example.
Made = tuple[Callable[..., Callable[..., Any]], tuple[Any, ...]]


def deep_net(example: Any) -> Made:
    return lambda **options: ckad.grad(example.loss, **options), example.inputs()


def erosion(example: Any) -> Made:
    observed = example.elevations()
    return lambda **options: ckad.grad(example.misfit, **options), (observed.copy(), observed)


def iris(example: Any) -> Made:
    """One gradient keeps too little to save, whatever the number of flowers: the gradient of a whole training."""
    features, labels = example.read_irises()
    x = np.tile(np.column_stack([features, np.ones(len(features))]), (20, 1))
    rng = np.random.default_rng(0)
    params = (rng.standard_normal((3, example.HIDDEN)), rng.standard_normal((example.HIDDEN, 3)))

    def trained(params: Any, x: Any, labels: Any) -> Any:
        for _ in range(29):
            gradient = ckad.grad(example.loss)(params, x, labels)
            params = tuple(p - example.LEARNING_RATE * g for p, g in zip(params, gradient, strict=True))
        return example.loss(params, x, labels)

    return lambda **options: ckad.grad(trained, **options), (params, x, np.tile(labels, 20))


def jacobian_mode(example: Any) -> Made:
    a = np.random.default_rng(0).standard_normal((max(example.OUTPUTS), example.INPUTS))
    return lambda **options: ckad.jacobian(lambda x: a @ x, **options), (np.ones(example.INPUTS),)


def resume(example: Any) -> Made:
    training = example.beginning()
    x = np.linspace(-1.0, 1.0, 2 * 64 * example.BATCH, dtype=np.float32).reshape(-1, 2)
    gradient = lambda **options: ckad.grad(example.loss, has_aux=True, **options)
    return gradient, (training["model"], x, x[:, :1], training["key"])


def state_loop(_: Any) -> Made:
    """Not an example: a thousand steps that update their state in place."""

    def energy(u: Any) -> Any:
        u = u.copy()
        for _ in range(1000):
            u[1:-1] += 0.1 * (u[2:] - 2.0 * u[1:-1] + u[:-2]) * u[1:-1]
        return np.sum(u * u)

    return lambda **options: ckad.grad(energy, **options), (np.linspace(0.0, 1.0, 50_000),)


MAKERS: dict[str, Callable[[Any], Made]] = {
    maker.__name__: maker for maker in (deep_net, erosion, iris, jacobian_mode, resume)
}

LINEAR = {"jacobian_mode"}
"""Nothing is kept for a derivative of A x, so no plan of it is smaller than another."""

UNDER_SQRT = {"state_loop": state_loop}
"""Not within a limit but under 'sqrt', whose plan says what is allowed."""


def made(name: str) -> Made:
    """What is measured."""
    if name in UNDER_SQRT:
        return UNDER_SQRT[name](None)
    sys.path.insert(0, str(EXAMPLES))
    return MAKERS[name](importlib.import_module(name))


def within(name: str, transform: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Callable[..., Any], int]:
    """The function that is measured, and the bytes that its plan says."""
    if name in UNDER_SQRT:
        function = transform(checkpoint="sqrt")
        return function, ckad.plan(function)(*args).peak_bytes
    try:
        transform(memory_limit=1)(*args)
    except MemoryLimitError as error:
        return transform(memory_limit=error.minimum), error.minimum
    raise SystemExit("a byte is no limit that a plan keeps")


def digest(result: Any) -> str:
    """Of all bits of a result."""
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in ckad.tree.flatten(result)[0])).hexdigest()


def memory(name: str) -> int:
    """A figure of this process in bytes: VmSize, VmRSS or VmHWM."""
    return 1024 * int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])


def main(name: str, how: str) -> dict[str, Any]:
    """Finds how few bytes do, runs within them, says what the process took."""
    transform, args = made(name)
    # What is loaded and started once is no part of what a call needs.
    warm = ckad.grad(lambda x: np.sum(np.tanh(x @ x)))
    for dtype in (np.float32, np.float64):
        warm(np.ones((256, 256), dtype))
    # The base, the arguments in it.
    resident = memory("VmRSS")
    function, limit = within(name, transform, args)
    everything = transform(checkpoint="none")
    planning = ckad.plan(function)(*args).planning_bytes
    none = ckad.plan(everything)(*args).peak_bytes
    ckad.memory.release()
    found = {"limit": limit, "none": none, "allowed": limit + planning + BESIDE, "held": max(limit, planning) + BESIDE}
    if how == "memray":
        import memray

        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder, "run.bin")
            result: Any = None
            with memray.Tracker(record):
                result = function(*args)
            return found | {"peak": int(memray.FileReader(record).metadata.peak_memory), "digest": digest(result)}
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + found["allowed"], resource.RLIM_INFINITY))
    # The high-water mark from here on.
    Path("/proc/self/clear_refs").write_text("5")
    result = function(*args)
    grown = memory("VmHWM") - resident
    refused = False
    try:
        everything(*args)
    except MemoryError:
        refused = True
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return found | {"grown": grown, "refused": refused, "digest": digest(result)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
