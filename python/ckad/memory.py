"""Memory at run time: giving it back, and seeing where it goes.

`profile` runs a transformed function with every buffer allocated separately at its planned time, from a Python frame
that carries the file and line of the operation whose value it holds. So memray, which sees allocations and frames,
attributes each buffer to the user's own source line, beside what NumPy and Python allocate there.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import optree

from ckad import _core
from ckad.errors import CkadRuntimeError
from ckad.transforms.recording import check_function

__all__ = ["LineMemory", "Report", "profile", "release"]

_ALIGNMENT = 64
_REST = "results, and the rest"
"""The row of what the process holds and no line made."""


def release() -> None:
    """Frees the idle arena, the memory kept of a dropped result, and the cache of programs.

    >>> import ckad
    >>> ckad.memory.release()
    """
    _core.release()


class LineMemory(NamedTuple):
    """What one source line held in a profiled run.

    Attributes:
        line: `file:line`.
        planned: the most bytes of its values that one run was planned to hold at once.
        executor: the most bytes of its buffers that were held at once, as counted.
        process: bytes that memray saw allocated from the line at the process's high-water mark, by ckad, NumPy and
            Python alike; None where memray is not installed. Results are allocated by the call, and stand in a row of
            their own together with what ckad and Python hold for no line.
    """

    line: str
    planned: int
    executor: int
    process: int | None


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
        table: what each source line was planned to hold, what the executor counted and what the process allocated;
            `print(report)` shows it.
    """

    result: Any
    planned_bytes: int
    executor_bytes: int
    process_bytes: int | None
    timeline: list[int]
    lines: dict[str, int] = field(repr=False)
    table: list[LineMemory] = field(default_factory=list, repr=False)
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
        none = self.process_bytes is None
        width = max((len(row.line) for row in self.table), default=4)
        text = [f"{'line':<{width}}  {'planned':>15}  {'executor':>15}  {'process':>15}"]
        rows = [(row.line, row.planned, row.executor, row.process) for row in self.table]
        for line, planned, executor, process in [*rows, ("whole", *self._whole())]:
            seen = "–" if none else f"{process:,}"
            text.append(f"{line:<{width}}  {planned:>15,}  {executor:>15,}  {seen:>15}")
        return "\n".join([*text, _LEGEND if not none else _LEGEND_WITHOUT])

    def _whole(self) -> tuple[int, int, int | None]:
        return self.planned_bytes, self.executor_bytes, self.process_bytes


_LEGEND_WITHOUT = """
planned   bytes of the line's values, the most that the plan holds at once; of several runs that of the largest
executor  the same, as counted in a run that allocates each value by itself
process   memray is not installed: pip install memray"""

_LEGEND = """
planned   bytes of the line's values, the most that the plan holds at once; of several runs that of the largest
executor  the same, as counted in a run that allocates each value by itself
process   what memray saw allocated from the line when the process held most, by NumPy and Python too; results are
          allocated by the call and stand in the row of the rest"""


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


def _table(
    planned: list[tuple[str, int, int]], executor: dict[str, int], process: dict[str, int] | None
) -> list[LineMemory]:
    """One row for each line that any of the three names; those that hold most first."""
    by_plan = {f"{file}:{line}": size for file, line, size in planned}
    names: set[str] = {*by_plan, *executor, *(process or {})}
    rows = [
        LineMemory(name, by_plan.get(name, 0), executor.get(name, 0), None if process is None else process.get(name, 0))
        for name in names
    ]
    return sorted(rows, key=lambda row: (-row.planned, -row.executor, -(row.process or 0), row.line))


def _process(reader: Any) -> dict[str, int]:
    """What memray saw at the high-water mark, by the innermost line that is the user's."""
    modules = (_core, np, optree, sys.modules["memray"])
    folders = tuple(f"{os.path.dirname(str(module.__file__))}{os.sep}" for module in modules)
    standard = f"{os.path.dirname(os.__file__)}{os.sep}"
    found: dict[str, int] = {}
    for record in reader.get_high_watermark_allocation_records(merge_threads=True):
        where = _REST
        for _, file, line in record.stack_trace():
            is_standard = file.startswith(standard) and "site-packages" not in file
            if not (is_standard or file.startswith((*folders, "<frozen"))):
                where = f"{file}:{line}"
                break
        found[where] = found.get(where, 0) + record.size
    return found


def _bytes(size: int) -> Any:
    return np.empty(size, np.uint8)


def _capture(folder: str) -> str:
    """memray's file in the folder of a profile."""
    return os.path.join(folder, "capture.bin")


def _remove(folder: str) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)


def profile(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Report:
    """Runs a transformed function and reports where its memory goes.

    Args:
        fn: a function that a transform returned, such as `ckad.grad(loss, checkpoint='sqrt')`, or one that calls such.
        args, kwargs: its arguments.

    Returns:
        A `Report` of what ckad's runs in it held: printed, a table of source lines with what was planned, what the
        executor counted and what the process allocated. With memray installed it can write a flame graph in which
        every buffer stands at the source line of the operation that made it.

    Raises:
        TypeError: `fn` is no function. Whatever `fn` raises is raised.

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
    process = lines = None
    if memray is not None and folder is not None:
        with memray.FileReader(_capture(folder)) as reader:
            process = int(reader.metadata.peak_memory)
            lines = _process(reader)
    return Report(
        result=result,
        planned_bytes=profiling.planned_bytes,
        executor_bytes=allocator.peak,
        process_bytes=process,
        timeline=allocator.timeline,
        lines=allocator.lines,
        table=_table(profiling.planned_lines, allocator.lines, lines),
        _folder=folder,
    )
