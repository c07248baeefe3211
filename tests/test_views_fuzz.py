"""Random programs of slices, transposes, reshapes, iteration and writes: the same on traced values as in NumPy.

Hypothesis draws a program step by step while NumPy runs it; the program is then run again on traced arguments. Each
step must give the same shape, dtype, strides, writeability, and scalar or array; at the end every array is written to
once more, so that two names of one memory are seen to be that, and all values are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import ckad
from ckad import _core

Step = Callable[[list[Any]], Any]
MAX_STEPS = 10
SHAPES = [(4,), (6,), (2, 3), (3, 4), (1, 4), (3, 1), (2, 3, 2), (2, 2, 3), (0, 3), ()]


def layouts(base: np.ndarray) -> dict[str, np.ndarray]:
    """The same values laid out in memory in every way that a caller might."""
    rank = base.ndim
    if rank == 0:
        return {"C": base}
    backwards = (slice(None, None, -1),) * rank
    every_second = np.zeros(tuple(2 * extent for extent in base.shape))[(slice(None, None, 2),) * rank]
    every_second[...] = base
    rolled = np.moveaxis(np.ascontiguousarray(np.moveaxis(base, 0, -1)), -1, 0)
    return {
        "C": base.copy(),
        "F": np.asfortranarray(base),
        "backwards": np.ascontiguousarray(base[backwards])[backwards],
        "first axis backwards": np.ascontiguousarray(base[::-1])[::-1],
        "every second": every_second,
        "first axis innermost": rolled,
    }


class Drawn:
    """Draws steps that fit the arrays at hand."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))

    def choice(self, options: Any) -> Any:
        return self._data.draw(st.sampled_from(list(options)))

    def basic_index(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        items: list[Any] = []
        taken = self.integer(0, len(shape))
        for extent in shape[:taken]:
            kind = self.integer(0, 4)
            if kind == 0 and extent:
                items.append(self.integer(-extent, extent - 1))
            elif kind == 1:
                items.append(slice(None, None, -1))
            else:
                start, stop = sorted((self.integer(0, extent), self.integer(0, extent)))
                items.append(slice(start, stop, self.choice([None, 1, 2])))
        if self.integer(0, 3) == 0:
            items.insert(self.integer(0, len(items)), None)
        if taken < len(shape) and self.integer(0, 2) == 0:
            # What is left out may stand anywhere, as an ellipsis, if the axes in front fit: at the end they do.
            items.append(Ellipsis)
        elif taken == len(shape) and self.integer(0, 3) == 0:
            items.insert(self.integer(0, len(items)), Ellipsis)
        return tuple(items)

    def fancy_index(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """At least one integer array or mask, with slices and integers around it."""
        items: list[Any] = []
        count = self.integer(1, 3)
        chosen = self.integer(0, len(shape) - 1)
        for axis, extent in enumerate(shape):
            kind = 0 if axis == chosen else self.integer(0, 4)
            if kind == 0 and extent == 0:
                items.append(np.zeros((count,), bool)[:0] if self.integer(0, 1) else np.zeros((0,), np.int64))
            elif kind == 0:
                index = np.array([self.integer(-extent, extent - 1) for _ in range(count)])
                form = self.integer(0, 3)
                items.append(index[:, None] if form == 0 else index.tolist() if form == 1 else index)
            elif kind == 1 and extent:
                items.append(self.integer(-extent, extent - 1))
            elif kind == 2:
                items.append(slice(None, None, self.choice([None, -1, 2])))
            else:
                items.append(slice(None))
        return tuple(items)

    def factors(self, size: int) -> tuple[int, ...]:
        shape: list[int] = []
        rest = size
        for _ in range(self.integer(0, 2)):
            divisors = [d for d in range(1, rest + 1) if rest % d == 0] or [0]
            shape.append(self.choice(divisors))
            rest = rest // shape[-1] if shape[-1] else 0
        shape.insert(self.integer(0, len(shape)), rest)
        return tuple(shape) if math.prod(shape) == size else (size,)

    def step(self, env: list[Any]) -> tuple[str, Step]:
        at = self.integer(0, len(env) - 1)
        x = env[at]
        kind = self.choice(["view", "view", "view", "compute", "write", "write", "fancy"])
        if kind == "fancy" and x.ndim == 0:
            kind = "compute"
        return getattr(self, "_" + kind)(at, x, env)

    def _view(self, at: int, x: Any, env: list[Any]) -> tuple[str, Step]:
        kind = self.choice(
            [
                "index",
                "index",
                "index",
                "T",
                "reshape",
                "reshape F",
                "flat",
                "ravel",
                "transpose",
                "swap",
                "squeeze",
                "iterate",
                "copy",
                "flatten",
                "diagonal",
                "astype",
                "broadcast",
            ]
        )
        rank = x.ndim
        if kind == "T":
            return f"v{at}.T", lambda env: env[at].T
        if kind in ("reshape", "reshape F"):
            shape, order = self.factors(x.size), "F" if kind == "reshape F" else "C"
            return f"v{at}.reshape({shape}, order={order!r})", lambda env: env[at].reshape(shape, order=order)
        if kind == "flat":
            return f"v{at}.reshape(-1)", lambda env: env[at].reshape(-1)
        if kind == "ravel":
            order = self.choice("CFAK")
            return f"v{at}.ravel({order!r})", lambda env: env[at].ravel(order)
        if kind == "flatten":
            order = self.choice("CF")
            return f"v{at}.flatten({order!r})", lambda env: env[at].flatten(order)
        if kind == "transpose":
            axes = tuple(self._data.draw(st.permutations(range(rank))))
            return f"v{at}.transpose({axes})", lambda env: env[at].transpose(axes)
        if kind == "swap" and rank:
            first, second = self.integer(-rank, rank - 1), self.integer(0, rank - 1)
            return f"v{at}.swapaxes({first}, {second})", lambda env: env[at].swapaxes(first, second)
        if kind == "squeeze":
            return f"v{at}.squeeze()", lambda env: env[at].squeeze()
        if kind == "iterate" and rank and x.shape[0]:
            position = self.integer(0, x.shape[0] - 1)
            return f"list(v{at})[{position}]", lambda env: list(env[at])[position]
        if kind == "copy":
            order = self.choice("CFAK")
            return f"v{at}.copy({order!r})", lambda env: env[at].copy(order) if isarray(env[at]) else env[at].copy()
        if kind == "diagonal" and rank >= 2:
            shift = self.integer(-2, 2)
            return f"v{at}.diagonal({shift})", lambda env: env[at].diagonal(shift)
        if kind == "astype":
            dtype = self.choice(["float32", "float64", "int64"])
            return f"v{at}.astype({dtype})", lambda env: env[at].astype(dtype)
        if kind == "broadcast" and rank:
            shape = (2, *x.shape)
            return f"np.broadcast_to(v{at}, {shape})", lambda env: np.broadcast_to(env[at], shape)
        if not isarray(x):
            return f"v{at}[...]", lambda env: env[at][...]
        index = self.basic_index(x.shape)
        return f"v{at}[{index}]", lambda env: env[at][index]

    def _compute(self, at: int, x: Any, env: list[Any]) -> tuple[str, Step]:
        kind = self.choice(["scale", "add", "sum", "max", "where", "concatenate", "stack", "compare", "subtract"])
        if kind == "scale":
            return f"v{at} * 2.0 + 1", lambda env: env[at] * 2.0 + 1
        if kind == "sum":
            axis = self.choice([None, *range(x.ndim)])
            keepdims = self.choice([False, True])
            return f"v{at}.sum({axis}, {keepdims})", lambda env: env[at].sum(axis=axis, keepdims=keepdims)
        if kind == "max" and x.size:
            axis = self.choice([None, *range(x.ndim)])
            return f"np.max(v{at}, {axis})", lambda env: np.max(env[at], axis=axis)
        if kind == "compare":
            return f"v{at} > 3", lambda env: (env[at] > 3) * 1.0
        other = self.choice([i for i, y in enumerate(env) if broadcasts(x, y)])
        if kind == "where":
            return f"np.where(v{at} > 2, v{at}, v{other})", lambda env: np.where(env[at] > 2, env[at], env[other])
        if kind in ("concatenate", "stack") and isarray(x) and x.ndim:
            same = [i for i, y in enumerate(env) if y.shape == x.shape]
            other = self.choice(same)
            axis = self.integer(0, x.ndim - 1)
            if kind == "stack":
                return f"np.stack([v{at}, v{other}], {axis})", lambda env: np.stack([env[at], env[other]], axis=axis)
            return (
                f"np.concatenate([v{at}, v{other}], {axis})",
                lambda env: np.concatenate([env[at], env[other]], axis=axis),
            )
        if kind == "subtract":
            return f"np.subtract(v{at}, v{other})", lambda env: np.subtract(env[at], env[other])
        return f"v{at} + v{other}", lambda env: env[at] + env[other]

    def _write(self, at: int, x: Any, env: list[Any]) -> tuple[str, Step]:
        if not isarray(x):
            return f"v{at} += 1", scalar_increment(at)
        kind = self.choice(["set", "add to", "in place", "set view", "in place view", "mask", "out"])
        index = self.basic_index(x.shape)
        target = x[index]
        other = self.choice([i for i, y in enumerate(env) if fits_into(y, target)] or [None])
        fits = [i for i, y in enumerate(env) if fits_into(y, x)]
        if kind == "set view" and other is not None:
            return f"v{at}[{index}] = v{other}", writer(lambda env: env[at].__setitem__(index, env[other]))
        if kind == "add to":
            return f"v{at}[{index}] += 2", increment(at, index)
        if kind == "in place":
            return f"v{at} += 1", in_place(at, lambda env: 1)
        if kind == "in place view" and fits:
            source = self.choice(fits)
            return f"v{at} -= v{source}", in_place(at, lambda env: -env[source])
        if kind == "mask" and x.ndim:
            return f"v{at}[v{at} > 4] = 3", writer(lambda env: env[at].__setitem__(env[at] > 4, 3))
        if kind == "out" and x.dtype == np.float64:
            return f"np.multiply(v{at}, 2, out=v{at})", writer(lambda env: np.multiply(env[at], 2, out=env[at]))
        value = self.integer(-9, 9)
        return f"v{at}[{index}] = {value}", writer(lambda env: env[at].__setitem__(index, value))

    def _fancy(self, at: int, x: Any, env: list[Any]) -> tuple[str, Step]:
        index = self.fancy_index(x.shape)
        try:
            shape = x[index].shape
        except IndexError:
            return f"v{at}[{index}]", lambda env: env[at][index]
        kind = self.choice(["get", "get", "set", "add"])
        if kind == "get" or not isarray(x):
            return f"v{at}[{index}]", lambda env: env[at][index]
        if kind == "add":
            return f"v{at}[{index}] += 5", increment(at, index)
        value = np.arange(float(math.prod(shape))).reshape(shape)
        return f"v{at}[{index}] = arange", writer(lambda env: env[at].__setitem__(index, value))


def isarray(x: Any) -> bool:
    """Is it what NumPy would return as an array, not as a scalar?"""
    return isinstance(x, np.ndarray) or (isinstance(x, _core.Tracer) and not _core.is_scalar(x))


def writer(write: Step) -> Step:
    def step(env: list[Any]) -> None:
        write(env)

    return step


def scalar_increment(at: int) -> Step:
    def step(env: list[Any]) -> Any:
        s = env[at]
        s += 1
        return s

    return step


def increment(at: int, index: Any) -> Step:
    def step(env: list[Any]) -> None:
        env[at][index] += 2

    return step


def in_place(at: int, value: Step) -> Step:
    def step(env: list[Any]) -> None:
        x = env[at]
        x += value(env)

    return step


def broadcasts(x: Any, y: Any) -> bool:
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return False
    return math.prod(np.broadcast_shapes(x.shape, y.shape)) <= 500


def fits_into(y: Any, x: Any) -> bool:
    try:
        return np.broadcast_shapes(y.shape, x.shape) == x.shape and np.can_cast(y.dtype, x.dtype, "same_kind")
    except ValueError:
        return False


def facts(x: Any) -> tuple[Any, ...]:
    """What a program can see of an array besides its values. Strides of axes of length 1 mean nothing."""
    array = isarray(x)
    strides = tuple(s for s, n in zip(x.strides, x.shape, strict=True) if n > 1) if x.size else ()
    writeable = x.flags.writeable if array else None
    return array, x.shape, np.dtype(x.dtype).name, strides, writeable


def run(env: list[Any], steps: list[Step]) -> tuple[list[Any], list[Any]]:
    """The facts after each step (or the error's kind) and the arrays after a last write to each."""
    seen = [facts(x) for x in env]
    for step in steps:
        try:
            made = step(env)
        except (ValueError, IndexError, TypeError) as error:
            kind = next(kind for kind in (IndexError, ValueError, TypeError) if isinstance(error, kind))
            seen.append(kind.__name__)
            continue
        if made is None:
            seen.append(None)
        else:
            env.append(made)
            seen.append(facts(made))
    for number, x in enumerate(env):
        if isarray(x) and x.flags.writeable and x.size:
            x[(0,) * x.ndim if x.ndim else ()] = 1000 + number
    return seen, env


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_views_are_numpys(data: st.DataObject) -> None:
    check(data)


def check(data: st.DataObject) -> None:
    drawn = Drawn(data)
    arguments = []
    for number in range(drawn.integer(1, 2)):
        shape = drawn.choice(SHAPES)
        base = np.asarray(np.arange(float(math.prod(shape))).reshape(shape) + 10 * number)
        name = drawn.choice(layouts(base))
        arguments.append(layouts(base)[name])
        note(f"v{number} = {shape} {name}")

    steps: list[Step] = []
    # Drawn while NumPy runs it on copies that keep strides.
    env: list[Any] = [same_layout(x) for x in arguments]
    for _ in range(drawn.integer(1, MAX_STEPS)):
        text, step = drawn.step(env)
        steps.append(step)
        try:
            made = step(env)
        except (ValueError, IndexError, TypeError) as error:
            note(f"{text}   # {type(error).__name__}")
            continue
        note(f"v{len(env)} = {text}" if made is not None else text)
        if made is not None:
            env.append(made)

    expected_facts, expected = run([same_layout(x) for x in arguments], steps)
    found_facts: list[Any] = []

    def program(*args: Any) -> Any:
        seen, values = run(list(args), steps)
        found_facts.extend(seen)
        return values

    before = [x.copy() for x in arguments]
    found, _ = ckad.vjp(program, *arguments)
    for number, (a, b) in enumerate(zip(expected_facts, found_facts, strict=True)):
        assert a == b, f"step {number - len(arguments)}: NumPy {a}, traced {b}"
    for number, (a, b) in enumerate(zip(expected, found, strict=True)):
        np.testing.assert_allclose(b, a, rtol=1e-6, err_msg=f"v{number}")
    for x, kept in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(x, kept)


def same_layout(x: np.ndarray) -> np.ndarray:
    """A copy with the very strides of x."""
    low = sum(min(0, s * (n - 1)) for s, n in zip(x.strides, x.shape, strict=True))
    high = sum(max(0, s * (n - 1)) for s, n in zip(x.strides, x.shape, strict=True))
    memory = np.zeros((high - low) // x.itemsize + 1 if x.size else 1, x.dtype)
    copy = np.ndarray(x.shape, x.dtype, memory, -low if x.size else 0, x.strides)
    copy[...] = x
    return copy
