"""`ckad.jit`: a function recorded once per shapes and dtypes, and run without Python from then on."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError
from ckad.transforms.limit import MemoryLimit
from ckad.transforms.limit import parse as parse_limit
from ckad.transforms.recording import check_function, check_returned, mark_transform
from ckad.tree import flatten, is_leaf


def jit(
    f: Callable[..., Any],
    *,
    static_argnums: int | Sequence[int] = (),
    donate_argnums: int | Sequence[int] = (),
    memory_limit: MemoryLimit = None,
) -> Callable[..., Any]:
    """A function that records `f` once per shapes and dtypes of its arguments, and then runs without calling it.

    Numbers and arrays in the arguments are traced: Python cannot look at their values, and `if x > 0` raises. What `f`
    takes from outside (closures, globals, attributes) is compared before each call, numbers by value, arrays by
    identity and content; a change records anew. Make a large array that never changes read-only, which saves comparing
    it: `array.flags.writeable = False`, for good.

    Args:
        f: function of arrays (or pytrees of them) to a pytree.
        static_argnums: position or positions of arguments that Python needs as they are (sizes, flags): hashable, and
            recorded anew for each value.
        donate_argnums: position or positions of arguments whose memory the results may take over. Their arrays cannot
            be used afterwards.
        memory_limit: the most bytes that the run may allocate (arrays, scratch, program), an int or a text such as
            '512MiB': of the plans tried, the one with the least work that keeps to it is taken. What planning holds
            before the run (`plan.planning_bytes`) does not count.

    Returns:
        A function of the same arguments with the same results. Inside other transforms it becomes part of what they
        record.

    Raises:
        TracerError: `f` looks at a value, or drew random numbers while it was recorded.
        TypeError: a static argument is not hashable.
        MemoryLimitError: no plan was found that keeps to `memory_limit`.
        ValueError: a donated array is used twice in the call, read-only, or a part of another array.

    Source: Frostig, Johnson and Leary, Compiling machine learning programs via high-level tracing, 2018.

    >>> import numpy as np, ckad
    >>> step = ckad.jit(lambda x: np.sum(np.sin(x) ** 2))
    >>> print(step(np.zeros(3)), step(np.zeros(3)))
    0.0 0.0
    """
    check_function("jit", f)
    limit = parse_limit(memory_limit)
    statics = _Marked("static_argnums", f, static_argnums)
    donated = _Marked("donate_argnums", f, donate_argnums)
    both = set(statics.positions) & set(donated.positions)
    if both:
        what = f"argument {min(both)} is named in static_argnums and in donate_argnums"
        raise CkadValueError.of("jit", what, "donate arrays; static arguments are not traced")
    recordings = _core.Jitted(statics.positions, statics.names, donated.positions, donated.names)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = recordings.call(args, kwargs)
        return result if result is not _core.NotRecorded else _record(recordings, f, statics, args, kwargs, limit)

    return mark_transform(wrapped)


def _record(
    recordings: _core.Jitted,
    f: Callable[..., Any],
    statics: _Marked,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    limit: int | None,
) -> Any:
    # Only here: who jits nothing need not wait for it.
    from ckad.transforms.drawn import check_drawn
    from ckad.transforms.reach import Reach

    given = statics.given(args, kwargs)
    for value in given:
        _check_hashable(value)
    call = recordings.bind(args, kwargs)
    reach = Reach([f, *given, *call.held], [*args, *kwargs.values()])
    watches = _core.JitWatches(reach.places)
    before = reach.generator_states()
    modules = len(sys.modules)
    trace = _core.Trace("jit", jitted=True, memory_limit=limit)
    try:
        traced_args, traced_kwargs = call.traced(trace)
        result = f(*traced_args, **traced_kwargs)
        hint = "draw outside, and pass the array as an argument; or draw with ckad.random and a key that is one"
        check_drawn("jit", reach, before, "later call", hint)
        check_returned("jit", result)
        if len(sys.modules) != modules:  # What it imported where it ran was not there to be found.
            now = Reach([f, *given, *call.held], [*args, *kwargs.values()])
            known = {_place_key(place) for place in reach.places}
            watches.add([place for place in now.places if _place_key(place) not in known])
        leaves, structure = ([result], None) if is_leaf(result) else flatten(result)
        return recordings.record(call, trace, leaves, structure, watches)
    finally:
        trace.close()


def _place_key(place: tuple[Any, ...]) -> tuple[Any, ...]:
    return (place[0], id(place[1]), *place[2:])


class _Marked:
    """The arguments that `static_argnums` or `donate_argnums` name: by position, and by name where they have one."""

    def __init__(self, name: str, f: Callable[..., Any], argnums: int | Sequence[int]) -> None:
        wanted: list[Any] = list(argnums) if isinstance(argnums, (tuple, list, range)) else [argnums]
        parameters, any_number = _parameters(f)
        self.positions: list[int] = []
        self.names: list[str] = []
        for argnum in wanted:
            if not isinstance(argnum, (int, np.integer)) or isinstance(argnum, bool):
                what = f"{name} must be an int or a tuple of ints, not {argnum!r:.60}"
                raise CkadTypeError.of("jit", what, f"{name}=0, or {name}=(0, 2) for several")
            count = None if any_number else len(parameters)
            if count is not None and not -count <= argnum < count:
                has = f"{count} positional parameter{'' if count == 1 else 's'}"
                raise CkadValueError.of("jit", f"{name}={argnums!r}, but the function has {has}", "count from 0")
            if argnum < 0 and count is None:
                what = f"{name}={argnums!r} of a function of any number of arguments"
                raise CkadValueError.of("jit", what, "count from the first argument")
            position = int(argnum) % count if count else int(argnum)
            self.positions.append(position)
            if position < len(parameters) and (parameter := parameters[position]) is not None:
                self.names.append(parameter)

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The marked arguments of a call."""
        by_position = [args[position] for position in self.positions if position < len(args)]
        return by_position + [kwargs[name] for name in self.names if name in kwargs]


def _parameters(f: Callable[..., Any]) -> tuple[list[str | None], bool]:
    """Names of the positional parameters, None where one has none, and whether there may be any number of others."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return [], True
    any_number = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = [parameter for parameter in parameters if parameter.kind in positional]
    return [parameter.name if parameter.kind is positional[1] else None for parameter in kinds], any_number


def _check_hashable(value: Any) -> None:
    try:
        hash(value)
    except TypeError:
        hint = "pass a tuple in place of a list; arrays are traced, not static"
        raise CkadTypeError.of("jit", f"a static argument is a {type(value).__name__}, not hashable", hint) from None
