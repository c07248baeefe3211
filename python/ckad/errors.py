"""The exceptions that ckad raises.

Every class inherits from :class:`CkadError` and from the builtin exception that fits, so ``except ValueError``
catches a wrong shape and ``except ckad.CkadError`` catches every error of ckad's own. Where NumPy refuses the same
call, the class inherits from NumPy's and the message has NumPy's words.

A message reads ``[op] what is wrong: the actual shapes. Hint: what to do.``, and :meth:`CkadError.of` is what writes
it; ``op`` and ``hint`` repeat its parts for programs. The Rust core imports these classes by name and builds them in
one place (rust/python/src/errors.rs), so a new kind of its errors is also a new line there.
"""

from __future__ import annotations

import re
from typing import TypeVar

import numpy as np

__all__ = [
    "CkadAxisError",
    "CkadError",
    "CkadIndexError",
    "CkadMemoryError",
    "CkadRuntimeError",
    "CkadTypeError",
    "CkadValueError",
    "DTypeError",
    "InternalError",
    "MemoryLimitError",
    "ShapeError",
    "StorageError",
    "TracerError",
]


Class = TypeVar("Class", bound="CkadError")


class CkadError(Exception):
    """The base class of every error of ckad's own.

    Args:
        message: the complete text, as shown to the user.
        op: the operation in whose name the error is raised, "" where there is none.
        hint: what to do about it, also part of ``message``.

    >>> error = ShapeError.of("matmul", "inner sizes differ: (2, 3) @ (4, 5)", "one of them may need `.T`")
    >>> error.op, str(error), isinstance(error, ValueError)
    ('matmul', '[matmul] inner sizes differ: (2, 3) @ (4, 5). Hint: one of them may need `.T`', True)
    """

    op: str
    hint: str | None

    def __init__(self, message: str, *, op: str = "", hint: str | None = None) -> None:
        super().__init__(message)
        self.op = op
        self.hint = hint

    @classmethod
    def of(cls: type[Class], op: str, what: str, hint: str) -> Class:
        """The error with its text in ckad's form; a hint that was tried is part of every refusal."""
        return cls(f"[{op}] {what}. Hint: {hint}", op=op, hint=hint)

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException pickles `args` alone, which would drop the two fields.
        return (type(self), self.args, {"op": self.op, "hint": self.hint})


class ShapeError(CkadError, ValueError):
    """Shapes, axes or sizes that do not fit together."""


class CkadValueError(CkadError, ValueError):
    """An argument of the right type with a value that is not allowed."""


class DTypeError(CkadError, TypeError):
    """A dtype that is not supported, or not at this place."""


class CkadTypeError(CkadError, TypeError):
    """An argument of a type that is not supported at this place."""


class CkadIndexError(CkadError, IndexError):
    """An index outside of its axis."""


class CkadAxisError(ShapeError, CkadIndexError, np.exceptions.AxisError):
    """An axis that the array does not have; a ValueError and an IndexError, as NumPy's AxisError is.

    Attributes:
        axis: the axis, where it is one that is out of bounds.
        ndim: how many axes there are.
    """

    def __init__(self, message: str, *, op: str = "", hint: str | None = None) -> None:
        super().__init__(message, op=op, hint=hint)
        # In NumPy's words, which every such message has.
        named = re.search(r"axis (-?\d+) is out of bounds for array of dimension (\d+)", message)
        self.axis, self.ndim = (int(named[1]), int(named[2])) if named else (None, None)

    def __str__(self) -> str:
        return str(self.args[0])


class TracerError(CkadError, RuntimeError):
    """A traced value was used where a plain number or array is needed, by a function of NumPy that ckad does not
    support, or outside of its transform.

    It is a RuntimeError because NumPy swallows TypeErrors in places, and the gradient would be lost silently.
    """


class CkadMemoryError(CkadError, MemoryError):
    """The system had no memory for a tape or a buffer. ckad keeps working afterwards."""


class MemoryLimitError(CkadError, MemoryError):
    """No plan was found that keeps to `memory_limit=`. Nothing ran.

    Attributes:
        minimum: the smallest limit, in bytes, for which there is a plan. Where control flow on values forces runs, that
            of the run at hand; of `ckad.plan(f, memory_limit=…)(*args)`, that of all runs.
        lines: the source lines that hold most of that plan's values, as (file:line, bytes), the largest first.
    """

    minimum: int
    lines: list[tuple[str, int]]

    @classmethod
    def of_plan(
        cls,
        minimum: int,
        lines: list[tuple[str, int]],
        parts: tuple[int, int, int, int, int],
        asked: tuple[int | None, bool],
    ) -> MemoryLimitError:
        """The error for a least plan of so many bytes, of them so many for the graph and the program, values, scratch,
        captured arrays, and what is held beside the run; for a limit, and whether a policy was asked for. The core
        calls it."""
        recorded, values, _, _, held = parts
        limit, has_policy = asked
        wanted = "the limit" if limit is None else f"the limit of {limit} bytes"
        plan = "the policy's plan" if has_policy else "the least one that was found"
        what = (
            f"no plan keeps to {wanted}: {plan} needs {minimum} bytes ({in_units(minimum)}), "
            f"{in_units(recorded)} of them for the graph and the program, {in_units(values)} for values"
        )
        if lines:
            what += ", most of these of " + ", ".join(f"{place} ({in_units(share)})" for place, share in lines)
        names = ("kernels' scratch", "captured arrays", "copies of arguments and what the call makes beside its runs")
        others = [f"{in_units(part)} for {name}" for name, part in zip(names, parts[2:], strict=True) if part]
        what += "".join(f"; {other}" for other in others)
        # Where what was recorded is most of it, smaller arrays help little.
        fewer = "smaller arrays"
        if held > max(recorded, values):
            fewer = "a smaller result, or arguments that need no copy (np.ascontiguousarray)"
        elif recorded > values:
            fewer = "a loop that is recorded once (ckad.scan, ckad.fori_loop)"
        hint = f"memory_limit={minimum}, {'no checkpoint= beside it, ' if has_policy else ''}or {fewer}"
        error = cls.of("memory_limit", what, hint)
        error.minimum, error.lines = minimum, lines
        return error

    def __reduce__(self) -> tuple[object, ...]:
        fields = {"op": self.op, "hint": self.hint, "minimum": self.minimum, "lines": self.lines}
        return (type(self), self.args, fields)


def in_units(size: int) -> str:
    """Bytes to read: in the largest unit of which there is one."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


class StorageError(CkadError, OSError):
    """The disk refused a file, or had no room for values that wait there. ckad keeps working afterwards."""

    def __str__(self) -> str:
        return str(self.args[0])


class CkadRuntimeError(CkadError, RuntimeError):
    """What a call needs is not there: a program of the system, a package, something to plan."""


class InternalError(CkadError, RuntimeError):
    """A bug in ckad. Please report it with the message."""
