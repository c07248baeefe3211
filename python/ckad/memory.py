"""Memory at run time: giving it back, and seeing where it goes.

`profile` runs a transformed function with every buffer allocated separately at its planned time, from a Python frame
that carries the file and line of the operation whose value it holds. So memray, which sees allocations and frames,
attributes each buffer to the user's own source line.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadRuntimeError
from ckad.transforms.recording import check_function

__all__ = ["Report", "profile", "release"]

_ALIGNMENT = 64


def release() -> None:
    """Frees the idle arena, the memory kept of a dropped result, and the cache of programs.

    >>> import ckad
    >>> ckad.memory.release()
    """
    _core.release()


@dataclass
class Report:
    """What a profiled run allocated.

    Attributes:
        result: what the function returned.
        planned_bytes: the planned most bytes of values live at once; of several runs (`if` on a value, transforms in
            a row) that of the largest.
        executor_bytes: the most bytes of buffers that one run held at once, outputs included.
        process_bytes: memray's high-water mark of the process during the run; None where memray is not installed.
        timeline: bytes of buffers held after each allocation and release, in order.
        lines: source line → most bytes of buffers it held at once.
    """

    result: Any
    planned_bytes: int
    executor_bytes: int
    process_bytes: int | None
    timeline: list[int]
    lines: dict[str, int] = field(repr=False)
    _folder: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self._folder is not None:
            # The report can draw from memray's file as long as it lives.
            weakref.finalize(self, _remove, self._folder)

    def save_flamegraph(self, path: str | os.PathLike[str]) -> None:
        """Writes memray's flame graph at the high-water mark as one HTML page.

        Args:
            path: the file to write; overwritten where it exists.

        Raises:
            RuntimeError: memray is not installed.
        """
        import subprocess

        if self._folder is None:
            raise CkadRuntimeError.of(
                "profile", "no flame graph without memray", "pip install memray, then profile again"
            )
        command = [
            sys.executable,
            "-m",
            "memray",
            "flamegraph",
            "--force",
            "-o",
            os.fspath(path),
            str(_capture(self._folder)),
        ]
        subprocess.run(command, check=True, capture_output=True)

    def __str__(self) -> str:
        rows = sorted(self.lines.items(), key=lambda row: -row[1])
        width = max((len(line) for line, _ in rows), default=4)
        text = [f"{'line':<{width}}  most bytes held"]
        text += [f"{line:<{width}}  {held:>15,}" for line, held in rows]
        text.append(f"planned {self.planned_bytes:,}, executor {self.executor_bytes:,} bytes")
        return "\n".join(text)


class _Allocator:
    """Allocates buffers from frames that carry the user's file and line, and counts what is held."""

    def __init__(self) -> None:
        self.timeline: list[int] = []
        self.lines: dict[str, int] = {}
        self._held_by_line: dict[str, int] = {}
        self._buffers: dict[int, tuple[Any, str, int]] = {}
        self._codes: dict[tuple[str, int], CodeType] = {}
        self._outputs: list[tuple[str, int]] = []
        self.held = 0
        self.peak = 0

    def begin(self) -> None:
        """A run begins: the results of earlier ones are the caller's, who may have dropped them."""
        for where, size in self._outputs:
            self._held_by_line[where] -= size
            self._count(-size)
        self._outputs.clear()

    def allocate(self, file: str, line: int, size: int) -> int:
        """The address of `size` fresh bytes, aligned for any kernel."""
        code = self._codes.get((file, line))
        if code is None:
            # A one-line program at the user's line: its frame is what memray shows.
            source = "\n" * max(line - 1, 0) + "buffer = allocate(size)"
            code = self._codes[file, line] = compile(source, file or "<unknown>", "exec")
        scope: dict[str, Any] = {"allocate": _bytes, "size": size + _ALIGNMENT}
        exec(code, scope)
        buffer = scope["buffer"]
        address = -(-buffer.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        where = f"{file}:{line}"
        self._buffers[address] = (buffer, where, size)
        held = self._held_by_line[where] = self._held_by_line.get(where, 0) + size
        self.lines[where] = max(self.lines.get(where, 0), held)
        self._count(size)
        return address

    def free(self, address: int) -> None:
        """Gives back what `allocate` returned."""
        _, where, size = self._buffers.pop(address)
        self._held_by_line[where] -= size
        self._count(-size)

    def output(self, file: str, line: int, size: int) -> None:
        """Counts a result, whose memory outlives the run."""
        where = f"{file}:{line}"
        held = self._held_by_line[where] = self._held_by_line.get(where, 0) + size
        self.lines[where] = max(self.lines.get(where, 0), held)
        self._outputs.append((where, size))
        self._count(size)

    def _count(self, change: int) -> None:
        self.held += change
        self.peak = max(self.peak, self.held)
        self.timeline.append(self.held)


def _bytes(size: int) -> Any:
    return np.empty(size, np.uint8)


def _capture(folder: str) -> Path:
    """memray's file in the folder of a profile."""
    return Path(folder, "capture.bin")


def _remove(folder: str) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)


def profile(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Runs a transformed function and reports where its memory goes.

    Args:
        fn: a function that a transform returned, such as `ckad.grad(loss, checkpoint='sqrt')`, or one that calls such.
        args, kwargs: its arguments.

    Returns:
        A `Report` of what ckad's runs in it held; with memray installed it can write a flame graph in which every
        buffer stands at the source line of the operation that made it.

    Source: docs/checkpointing.md; https://bloomberg.github.io/memray/.

    >>> import numpy as np, ckad
    >>> report = ckad.memory.profile(ckad.grad(lambda x: np.sum(np.sin(x))), np.ones(100))
    >>> report.executor_bytes == report.planned_bytes
    True
    """
    check_function("profile", fn)
    allocator = _Allocator()
    result: Any = None
    try:
        import memray
    except ImportError:
        memray = None
    folder = None
    with _core.Profiling(allocator) as profiling:
        if memray is None:
            result = fn(*args, **kwargs)
        else:
            from tempfile import mkdtemp

            folder = mkdtemp(prefix="ckad-profile-")
            try:
                with memray.Tracker(_capture(folder)):
                    result = fn(*args, **kwargs)
            except BaseException:
                _remove(folder)
                raise
    process = None
    if memray is not None and folder is not None:
        with memray.FileReader(_capture(folder)) as reader:
            process = int(reader.metadata.peak_memory)
    return Report(
        result=result,
        planned_bytes=profiling.planned_bytes,
        executor_bytes=allocator.peak,
        process_bytes=process,
        timeline=allocator.timeline,
        lines=allocator.lines,
        _folder=folder,
    )
