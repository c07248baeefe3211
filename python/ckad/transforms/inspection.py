"""Looking before running: `trace` returns the recorded graph, `plan` the plan of a run, `memory_frontier` others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ckad import _core
from ckad.errors import CkadRuntimeError, CkadTypeError, MemoryLimitError, TracerError
from ckad.picture.data import FrontierPoint
from ckad.transforms.gradient import value_and_grad_for
from ckad.transforms.limit import MemoryLimit
from ckad.transforms.policy import INHERIT, Checkpoint
from ckad.transforms.recording import Recording, check_function, is_float_leaf, is_transform
from ckad.tree import flatten, unflatten

Graph = _core.Graph
Plan = _core.Plan


def trace(f: Callable[..., Any]) -> Callable[..., Graph]:
    """A function that records `f` and returns the graph instead of running it.

    Args:
        f: function of arrays (or pytrees of them).

    Returns:
        A function of the same arguments that returns a `Graph`: `print(graph)` has a line per node (name, operation,
        operands, dtype, shape, source line), the bodies of loops and branches below them; `to_dot()` and `to_svg()`
        draw it, the latter with Graphviz.

    Raises:
        TypeError: `f` is no function.

    Source: docs/design.md.

    >>> import numpy as np, ckad
    >>> len(ckad.trace(lambda x: np.sin(x) * 2.0)(1.0)) > 2
    True
    """

    check_function("trace", f)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Graph:
        with _FloatsOrNothing(f, args, kwargs) as recording:
            return recording.trace.graph(flatten(recording.call())[0])

    return wrapped


class _FloatsOrNothing(Recording):
    """A recording in which every argument is traced and none needs to be a float."""

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__("trace", f, args, kwargs, tuple(range(len(args))) if args else 0)

    def _trace_arguments(self) -> None:
        self._traced_args = []
        for argument in self._args:
            leaves, structure = flatten(argument)
            traced = [
                self.trace.argument(leaf, True) if is_float_leaf(leaf) else self._trace_constant(leaf)
                for leaf in leaves
            ]
            self._traced_args.append(unflatten(structure, traced))
        self._traced_kwargs = {name: self._trace_constant(value) for name, value in self._kwargs.items()}


def plan(
    f: Callable[..., Any],
    argnums: int | Sequence[int] | None = None,
    *,
    checkpoint: Checkpoint = INHERIT,
    memory_limit: MemoryLimit = None,
) -> Callable[..., Plan]:
    """A function that plans a run instead of doing it.

    Args:
        f: a transformed function such as `ckad.grad(loss)`, which is planned as it is; or a plain function, for
            which its `value_and_grad` is planned.
        argnums: for a plain function: position or positions of the arguments to differentiate; the first if left out.
        checkpoint: for a plain function: a policy, as `ckad.grad` takes it.
        memory_limit: for a plain function: the most bytes that the run may allocate, as in `grad`.

    Returns:
        A function of the same arguments that returns a `Plan`: `peak_bytes` and its parts, `planning_bytes`,
        `live_bytes`, `flops`, `forward_flops`, `extra_flops`, `segments`, and a table per source line: `lines`, or
        `print(plan)`. `timeline()` and `frontier()` are the data of its pictures.

    Raises:
        TypeError: `argnums`, `checkpoint` or `memory_limit` for a function that is transformed already.
        TracerError: the arguments are traced values, so that nothing would run.
        MemoryLimitError: no plan was found that keeps to `memory_limit`.

    Source: docs/checkpointing.md.

    >>> import numpy as np, ckad
    >>> p = ckad.plan(lambda x: np.sum(np.sin(x)))(np.ones(1000))
    >>> p.peak_bytes >= 8000
    True
    """
    check_function("plan", f)
    if not is_transform(f):
        transformed = value_and_grad_for(
            "plan", f, 0 if argnums is None else argnums, checkpoint=checkpoint, memory_limit=memory_limit
        )
    elif argnums is None and checkpoint is INHERIT and memory_limit is None:
        transformed = f
    else:
        hint = "give it to the transform: ckad.plan(ckad.grad(f, argnums=…, checkpoint=…, memory_limit=…))"
        what = "argnums" if argnums is not None else "checkpoint" if checkpoint is not INHERIT else "memory_limit"
        raise CkadTypeError.of("plan", f"{what}= of a transformed function is not used", hint)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Plan:
        with _core.Planning() as planning:
            try:
                transformed(*args, **kwargs)
            except _core.Planned:
                if planning.refused is None:
                    return planning.plan
            except MemoryLimitError as error:
                if planning.refused is None or planning.refused.minimum <= error.minimum:
                    raise
        if planning.refused is not None:
            raise planning.refused
        if any(isinstance(leaf, _core.Tracer) for leaf in flatten((args, kwargs))[0]):
            hint = "plan the outermost transform, or call plan outside of it"
            what = "the arguments are traced values: the call became part of the transform around it and ran nothing"
            raise TracerError.of("plan", what, hint)
        hint = "pass a transformed function, or a plain one of floats"
        raise CkadRuntimeError.of("plan", "the function ran nothing that ckad plans", hint)

    return wrapped


def memory_frontier(
    f: Callable[..., Any], argnums: int | Sequence[int] | None = None
) -> Callable[..., list[FrontierPoint]]:
    """A function that says what less memory would cost: every plan worth taking, and its extra work.

    Args:
        f: a transformed function such as `ckad.grad(loss)`; or a plain function, for which its `value_and_grad` is
            planned.
        argnums: for a plain function: position or positions of the arguments to differentiate; the first if left out.

    Returns:
        A function of the same arguments that returns a list of `(peak_bytes, extra_flops, policy)`, the least memory
        first: plans of which no other needs as few bytes and as little work, whatever policy `f` names. The first one's
        bytes are the least limit that any plan keeps. `memory_limit=peak_bytes` takes that plan; `policy` is a text
        that says how it came about. Nothing runs, but where control flow on values forces it; then the frontier is
        that of the last run.

    Raises:
        TypeError: `argnums` for a function that is transformed already.
        TracerError: the arguments are traced values, so that nothing would run.

    Source: docs/checkpointing.md.

    >>> import numpy as np, ckad
    >>> def loss(x):
    ...     for _ in range(20):
    ...         x = np.sin(x) * x
    ...     return np.sum(x)
    >>> least, *_, most = ckad.memory_frontier(loss)(np.ones(10_000))
    >>> least.peak_bytes < 0.9 * most.peak_bytes, most.extra_flops, most.policy
    (True, 0, 'none')
    """
    check_function("memory_frontier", f)
    if argnums is not None and is_transform(f):
        hint = "give it to the transform: ckad.memory_frontier(ckad.grad(f, argnums=…))"
        raise CkadTypeError.of("memory_frontier", "argnums= of a transformed function is not used", hint)
    planned = plan(f, argnums)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> list[FrontierPoint]:
        return planned(*args, **kwargs).frontier()

    return wrapped
