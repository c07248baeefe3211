"""A sweep of memory limits, run in a process of its own: a call under each gives the right value or raises
MemoryError, and right after it the process computes on.

Run by `test_memory_limits.py` in small, with a reserve that serves small blocks only, so that the lists of short
programs are refused as those of long ones are; by hand in large:

    MALLOC_ARENA_MAX=1 python tests/memory_limits.py large
"""

import os
import pickle
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import ckad


def limit(extra: int | None) -> None:
    """Lets the process map `extra` bytes more than it has; None lifts the limit."""
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    soft = resource.RLIM_INFINITY if extra is None else mapped + extra
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))


def chain(x: Any, operations: int) -> Any:
    for _ in range(operations // 2):
        x = x * 1.0000001 + 1e-9
    return x


def sines(x: Any, operations: int) -> Any:
    y = x
    for _ in range(operations // 2):
        y = np.sin(y) * x
    return y


def looking(x: Any, steps: int) -> Any:
    for _ in range(steps):
        x = x * 1.001 + 0.01
        if x > 100.0:
            x = x * 0.5
    return x


def looking_late(x: Any, operations: int) -> Any:
    y = chain(x, operations)
    return y * 2.0 if y > 100.0 else y


POINT = np.linspace(0.1, 1.0, 8)
MATRIX = np.full((200, 200), 0.01)


class EveryFifth:
    """A policy of the user's."""

    def choose(self, clusters: ckad.Clusters) -> Any:
        return {"borders": range(0, clusters.positions, 5)}


EVERY_FIFTH = EveryFifth()


def programs(large: bool) -> dict[str, Callable[[], Any]]:
    """By name, calls whose results compare by ==."""
    long, pieces = (400_000, 30_000) if large else (4_000, 600)

    def products(x: Any) -> Any:
        y = x
        for _ in range(30):
            y = np.tanh(y @ x)
        return np.sum(y)

    return {
        "record": lambda: len(ckad.trace(lambda x: chain(x, 400_000 if large else 20_000))(1.0)),
        "text": lambda: len(str(ckad.trace(lambda x: chain(x, long))(1.0))),
        "dot": lambda: len(ckad.trace(lambda x: chain(x, long))(1.0).to_dot()),
        "force": lambda: ckad.grad(lambda x: looking_late(x, long))(1.0),
        "none": lambda: ckad.grad(lambda x: chain(x, long), checkpoint="none")(1.0),
        "auto": lambda: ckad.grad(lambda x: np.sum(sines(x, long // 2)))(POINT).tolist(),
        "sqrt": lambda: ckad.grad(lambda x: chain(x, long), checkpoint="sqrt")(1.0),
        "jacobian": lambda: ckad.jacobian(lambda x: sines(x, 2000))(POINT).tolist(),
        "vjp": lambda: ckad.vjp(lambda x: sines(x, long // 2), POINT)[1](POINT)[0].tolist(),
        "hvp": lambda: ckad.hvp(lambda x: np.sum(sines(x, 600)), POINT, POINT).tolist(),
        "concatenate": lambda: ckad.grad(lambda x: np.sum(np.concatenate([x] * 30_000) ** 2))(POINT).tolist(),
        "stack": lambda: ckad.grad(lambda x: np.sum(np.stack([x * float(i) for i in range(pieces)])))(1.0),
        "looking": lambda: ckad.grad(lambda x: looking(x, 2000))(1.0),
        "plan": lambda: ckad.plan(ckad.grad(lambda x: chain(x, long)))(1.0).peak_bytes,
        "limit": lambda: ckad.grad(lambda x: chain(x, long), memory_limit="1GiB")(1.0),
        "evictions": lambda: ckad.grad(products, memory_limit="7.9MB")(MATRIX).tolist(),
        "policy": lambda: ckad.grad(products, checkpoint=EVERY_FIFTH)(MATRIX).tolist(),
        "products": lambda: ckad.grad(products)(MATRIX).tolist(),
    }


def refused(call: Callable[[], Any], extra: int) -> tuple[str, Any]:
    """What comes of the call under a limit: "value" with it, "ckad" or "python" for whose memory error it was."""
    limit(extra)
    try:
        return "value", call()
    except ckad.errors.CkadMemoryError as error:
        limit(None)
        return "ckad", str(error)
    except MemoryError:
        return "python", ""
    finally:
        limit(None)


def attempt(call: Callable[[], Any], extra: int) -> tuple[str, Any]:
    """`refused` in a process of its own, which starts with a small heap and no threads, and computes on."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        outcome = refused(call, extra)
        assert ckad.grad(np.sin)(0.0) == 1.0
        with os.fdopen(sending, "wb") as stream:
            pickle.dump(outcome, stream)
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the process ended with status {status}"
    return pickle.loads(answer)


def sweep(name: str, call: Callable[[], Any], steps: int) -> Counter[str]:
    """Attempts from no memory at all to as much as the call wants, in so many steps."""
    enough = 1 << 18
    while (wanted := attempt(call, enough))[0] != "value":
        enough *= 2
    for part in (4, 8, 16):
        if attempt(call, enough - enough // part)[0] == "value":
            enough -= enough // part
    seen: Counter[str] = Counter()
    for step in range(steps + 1):
        # Not whole pages, so that refusals do not fall into the same requests. Two threads at work do not always need
        # the same: the last limit leaves room.
        extra = enough * step // steps + step * 331 if step < steps else 2 * enough
        outcome, result = attempt(call, extra)
        seen[outcome] += 1
        if outcome == "value":
            assert result == wanted[1], name
        elif outcome == "ckad":
            assert "bytes" in result, (name, result)
            # What is refused while the function runs has the line in its traceback.
            seen["with a line"] += "memory_limits.py:" in result
    # All of it in one process, too.
    for step in range(0, steps, 16):
        outcome, result = refused(call, enough * step // steps)
        assert outcome != "value" or result == wanted[1], name
        ckad.memory.release()
    assert call() == wanted[1], name
    return seen


def report(name: str, call: Callable[[], Any], steps: int) -> None:
    began = time.perf_counter()
    seen = sweep(name, call, steps)
    counts = ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))
    print(f"{name}: {counts}, {time.perf_counter() - began:.1f} s", flush=True)


def alone(work: Callable[[], None]) -> None:
    """Works in a process of its own, so that no program has what another has freed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit(1)


def main() -> None:
    large = "large" in sys.argv
    chosen = [name for name in sys.argv[1:] if name != "large"]
    # What is loaded and started once is no part of what a call needs.
    ckad.grad(lambda x: np.sum(np.tanh(x @ x)))(MATRIX)
    str(ckad.trace(np.sin)(1.0))
    ckad.trace(np.sin)(1.0).to_dot()
    ckad.plan(np.sin)(1.0)
    ckad.jacobian(np.sin)(POINT)
    for name, call in programs(large).items():
        if chosen and name not in chosen:
            continue
        alone(lambda name=name, call=call: report(name, call, 60 if large else 40))


if __name__ == "__main__":
    main()
