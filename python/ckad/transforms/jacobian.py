"""Whole Jacobians, row by row or column by column, whichever costs less on the actual graph."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ckad.errors import CkadValueError, DTypeError
from ckad.transforms.limit import MemoryLimit
from ckad.transforms.limit import parse as parse_limit
from ckad.transforms.policy import INHERIT, Checkpoint, parse
from ckad.transforms.recording import Recording, check_argnums, check_function, check_returned, mark_transform
from ckad.tree import flatten, unflatten

Mode = Literal["forward", "reverse", "auto"]


def jacobian(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    mode: Mode = "auto",
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Callable[..., Any]:
    """A function that returns the Jacobian of `f`.

    Args:
        f: function of arrays (or pytrees of them) to an array (or a pytree of them).
        argnums: position or positions of the arguments to differentiate.
        mode: 'forward' runs the linearised program once per input element, 'reverse' its transpose once per
            output element, 'auto' the one for which count × flops is less where nothing is recomputed, or the only one
            that there is.
        checkpoint: a policy: 'none', 'auto', 'sqrt', 'log', a number of segments, or an object such as
            `ckad.Revolve(10)`: what is kept and what recomputed, in each row or column.
        memory_limit: the most bytes that the call may allocate, its result included, an int or a text such as '512MiB'.

    Returns:
        A function whose result has, for each output leaf and argument leaf, an array of shape `out.shape + arg.shape`
        and, like a gradient, of the argument leaf's dtype. `jacobian_mode` says which mode 'auto' takes.

    Raises:
        ValueError: an unknown mode.
        DTypeError: an argument leaf or an output is not a float.
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., chapters 3 and 4.

    >>> import numpy as np, ckad
    >>> print(ckad.jacobian(lambda x: x * x)(np.array([1.0, 2.0])))
    [[2. 0.]
     [0. 4.]]
    """
    if mode not in ("forward", "reverse", "auto"):
        raise CkadValueError.of("jacobian", f"unknown mode {mode!r}", "use 'forward', 'reverse' or 'auto'")
    check_function("jacobian", f)
    check_argnums("jacobian", argnums)
    policy, limit = parse(checkpoint), parse_limit(memory_limit)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with Recording("jacobian", f, args, kwargs, argnums, limit) as recording:
            out = recording.call()
            check_returned("jacobian", out)
            outputs, structure = flatten(out)
            for output in outputs:
                _check_float("jacobian", output)
            ins, outs = _sizes(recording.leaves), _sizes(outputs)
            # Before the trace is over: leaves are values of it.
            in_specs = [(np.shape(leaf), getattr(leaf, "dtype", np.dtype(np.float64))) for leaf in recording.leaves]
            out_specs = [(np.shape(leaf), getattr(leaf, "dtype", np.dtype(np.float64))) for leaf in outputs]
            chosen, linear = recording.trace.jacobian(outputs, mode, sum(ins), sum(outs), policy)
            assembled = _stacked if linear.is_traced else _filled
            blocks = assembled(linear, chosen == "reverse", in_specs, out_specs)
            return unflatten(structure, [recording.like_arguments(row) for row in blocks])

    return mark_transform(wrapped)


def jacobian_mode(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., str]:
    """A function that says which mode `jacobian(f, argnums)` takes for its arguments, and runs nothing.

    Args:
        f: function of arrays (or pytrees of them) to an array (or a pytree of them).
        argnums: position or positions of the arguments to differentiate.

    Returns:
        A function of the same arguments that returns 'forward' or 'reverse'.

    Raises:
        DTypeError: an argument leaf or an output is not a float.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., chapters 3 and 4.

    >>> import numpy as np, ckad
    >>> ckad.jacobian_mode(np.sum)(np.ones(100))
    'reverse'
    """

    check_function("jacobian_mode", f)
    check_argnums("jacobian_mode", argnums)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> str:
        with Recording("jacobian_mode", f, args, kwargs, argnums) as recording:
            out = recording.call()
            check_returned("jacobian_mode", out)
            outputs, _ = flatten(out)
            for output in outputs:
                _check_float("jacobian_mode", output)
            return recording.trace.jacobian_mode(outputs, sum(_sizes(recording.leaves)), sum(_sizes(outputs)))

    return wrapped


def _check_float(name: str, output: Any) -> None:
    dtype = getattr(output, "dtype", None)
    if not (isinstance(output, float) or dtype in (np.float64, np.float32)):
        kind = dtype if dtype is not None else type(output).__name__
        hint = "return floats only: y.astype(float), or take integers out of what is returned"
        raise DTypeError.of(name, f"the function returned {kind}, not a float", hint)


def _sizes(leaves: Sequence[Any]) -> list[int]:
    return [int(np.prod(np.shape(leaf), dtype=np.int64)) for leaf in leaves]


_Spec = tuple[tuple[int, ...], np.dtype[Any]]


def _filled(linear: Any, by_rows: bool, ins: Sequence[_Spec], outs: Sequence[_Spec]) -> list[list[Any]]:
    """Blocks [output leaf][input leaf], written as the linear function is applied: nothing else is held."""
    blocks = [[linear.room(arg[1], out[0] + arg[0]) for arg in ins] for out in outs]
    for leaf, (shape, _) in enumerate(outs if by_rows else ins):
        for position in range(math.prod(shape)):
            _store(linear.at_unit(leaf, position), blocks, by_rows, leaf, position, math.prod(shape))
    return blocks


def _store(
    results: list[Any], blocks: list[list[Any]], by_rows: bool, leaf: int, position: int, positions: int
) -> None:
    """Writes a row, or a column, of every block; what it is given is dropped before the next run."""
    for other, values in enumerate(results):
        block = blocks[leaf][other] if by_rows else blocks[other][leaf]
        if by_rows:
            block.reshape((positions, *np.shape(values)))[position] = values
        else:
            block.reshape((*np.shape(values), positions))[..., position] = values


def _stacked(linear: Any, by_rows: bool, ins: Sequence[_Spec], outs: Sequence[_Spec]) -> list[list[Any]]:
    """Blocks [output leaf][input leaf] of values of a trace."""
    pieces: list[list[list[Any]]] = [[[] for _ in ins] for _ in outs]
    for leaf, (shape, _) in enumerate(outs if by_rows else ins):
        for position in range(math.prod(shape)):
            for other, values in enumerate(linear.at_unit(leaf, position)):
                (pieces[leaf][other] if by_rows else pieces[other][leaf]).append(values)
    return [
        [_stack(pieces[i][j], 0 if by_rows else -1, out, arg).reshape(out[0] + arg[0]) for j, arg in enumerate(ins)]
        for i, out in enumerate(outs)
    ]


def _stack(pieces: list[Any], axis: int, out: _Spec, arg: _Spec) -> Any:
    if pieces:
        return np.stack(pieces, axis=axis).astype(arg[1], copy=False)
    return np.zeros(out[0] + arg[0], arg[1])
