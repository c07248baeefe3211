"""Random NumPy programs for Hypothesis: each is Python source, so a failing one prints as a program to paste and run.

A program is built line by line and run with NumPy while it grows. That keeps it away from places where derivatives are
delicate (those have a test of their own, row by row): each kind of line says what its operands must be like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

import ckad
from ckad import random

Draw = Callable[[st.SearchStrategy[Any]], Any]

GAP = 1e-6  # values that are compared are equal or at least so far apart
LARGEST = 30.0

# Functions of one operand, and where they are smooth and moderate.
UNARY: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("sin", "cos", "tanh", "arctan", "arcsinh", "negative", "square"), lambda x: True),
    **dict.fromkeys(("exp", "expm1"), lambda x: _all(x < 3.0)),
    **dict.fromkeys(("log", "sqrt", "reciprocal"), lambda x: _all(x > 0.2)),
    "log1p": lambda x: _all(x > -0.7),
    "absolute": lambda x: _apart(x, 0.0),
}

# Functions of two operands, and where they are smooth and moderate.
BINARY: dict[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "logaddexp"), lambda x, y: True),
    "divide": lambda x, y: _all(np.abs(y) > 0.3),
    "power": lambda x, y: _all(x > 0.2) and _all(np.abs(y) < 3.0),
    "hypot": lambda x, y: _all(x * x + y * y > 0.1),
    "arctan2": lambda x, y: _all(x * x + y * y > 0.1),
    "maximum": lambda x, y: _apart(x, y),
    "minimum": lambda x, y: _apart(x, y),
}


def _all(condition: Any) -> bool:
    return bool(np.all(condition))


def _apart(x: Any, y: Any) -> bool:
    distance = np.abs(x - y)
    return _all((distance == 0.0) | (distance > GAP))


def _no_ties(x: Any, axis: int | None) -> bool:
    ordered = np.sort(x, axis=axis)
    return _all(np.diff(ordered, axis=axis if axis is not None else 0) > GAP)


class Plain:
    """What ckad's functions in a program compute, for NumPy and for the oracle: steps as a Python loop, and so on.

    Results of loops lie in memory as ckad's do, as that decides which views can be taken of them.
    """

    @staticmethod
    def checkpoint(function: Any) -> Any:
        return function

    @staticmethod
    def save(x: Any) -> Any:
        return x

    @staticmethod
    def cond(pred: Any, true_fn: Any, false_fn: Any, *operands: Any) -> Any:
        return true_fn(*operands) if pred else false_fn(*operands)

    @staticmethod
    def fori_loop(lower: int, upper: int, body: Any, init: Any) -> Any:
        for i in range(lower, upper):
            init = body(i, init)
        return init.copy() if init.ndim else init

    @staticmethod
    def scan(f: Any, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False) -> Any:
        count = int(length or 0) if xs is None else len(xs)
        given: list[Any] = [None] * count
        for i in reversed(range(count)) if reverse else range(count):
            init, given[i] = f(init, None if xs is None else xs[i])
        stacked = None if not count or given[0] is None else np.stack(given).copy()
        return init.copy() if init.ndim else init, stacked


# What a line may name beside variables.
MODULES: dict[str, Any] = {"np": np, "random": random, "ckad": Plain}


@dataclass
class Program:
    """A function of arrays to a scalar, as source and ready to call, and a point to differentiate it at."""

    source: str
    args: tuple[Any, ...]

    def __call__(self, *args: Any) -> Any:
        traced = any(isinstance(x, ckad.Tracer) for x in args)
        namespace: dict[str, Any] = {"np": np, "random": random, "ckad": ckad if traced else Plain}
        exec(compile(self.source, "<program>", "exec"), namespace)
        return namespace["f"](*args)

    def __repr__(self) -> str:
        args = ", ".join(f"np.array({x.tolist()}, order={_order(x)!r}).reshape{x.shape}" for x in self.args)
        return f"\n{self.source}\nargs = ({args},)"


def _order(x: Any) -> str:
    return "C" if x.flags.c_contiguous else "F"


@dataclass
class Builder:
    """A program under construction: its lines, and what its variables hold after them."""

    draw: Draw
    lines: list[str] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)

    def pick(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.draw(strategy)

    def choose(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self, wanted: Callable[[Any], bool] = lambda x: True) -> str | None:
        """A variable that fulfils the condition, if there is one."""
        names = [name for name, value in self.variables.items() if wanted(value)]
        return self.draw(st.sampled_from(names)) if names else None

    def run(self, line: str) -> bool:
        """Appends the line, if what it computes stays finite and moderate."""
        before = {name: np.array(value) for name, value in self.variables.items()}
        scope = {**MODULES, **self.variables}
        with np.errstate(all="raise", under="ignore"):
            try:
                exec(line, scope)
            except FloatingPointError:
                line = ""
        values = {name: value for name, value in scope.items() if name not in {*MODULES, "__builtins__", "_"}}
        if line and all(_all(np.abs(value) < LARGEST) for value in values.values()):
            self.variables = values
            self.lines.append(line)
            return True
        # A line that wrote in place before it turned out bad is undone.
        for name, value in self.variables.items():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value[...] = before[name]
        return False

    def assign(self, expression: str) -> None:
        """A new variable, or an old one bound anew."""
        fresh = f"v{sum(name.startswith('v') for name in self.variables)}"
        self.run(f"{self.choose(fresh, fresh, self.name())} = {expression}")

    def axis(self, x: Any) -> int:
        return self.pick(st.integers(-x.ndim, x.ndim - 1))

    def index(self, shape: tuple[int, ...], *, fancy: bool = False) -> str:
        """An index into an array of that shape: integers, slices, an ellipsis, index arrays, masks, new axes."""
        parts = [self._along(extent) for extent in shape]
        long = [axis for axis, extent in enumerate(shape) if extent]
        if fancy and long:
            axis = self.choose(*long)
            rows = self.pick(st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=1, max_size=4))
            mask = [bool(self.pick(st.booleans())) for _ in range(shape[axis])]
            parts[axis] = f"np.array({self.choose(rows, mask)})"
            return ", ".join(parts)
        cut = self.pick(st.integers(0, len(parts)))
        shortened = parts[:cut] + self.choose([], ["..."]) if cut < len(parts) else parts
        return ", ".join(shortened) or "..."

    def _along(self, extent: int) -> str:
        bound = st.none() | st.integers(-extent, extent)
        start, stop, step = self.pick(bound), self.pick(bound), self.choose(None, 1, 2, -1, -2)
        ends = ["" if part is None else str(part) for part in (start, stop)]
        cut = ":".join(ends if step is None else [*ends, str(step)])
        whole = str(self.pick(st.integers(-extent, extent - 1))) if extent else ":"
        return self.choose(":", whole, cut)


# The kinds of lines.


def unary(b: Builder) -> None:
    function = b.choose(*UNARY)
    if (x := b.name(UNARY[function])) is not None:
        b.assign(f"np.{function}({x})")


def binary(b: Builder) -> None:
    function = b.choose(*BINARY)
    x = b.name()
    y = b.name(lambda y: _broadcast(b.variables[x], y) and BINARY[function](b.variables[x], y))
    if y is not None:
        b.assign(f"np.{function}({x}, {y})")


def _broadcast(x: Any, y: Any) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(np.shape(x), np.shape(y)))) <= 60
    except ValueError:
        return False


def constant(b: Builder) -> None:
    x, number = b.name(), b.choose(0.5, -1.25, 2, 0, 1)
    b.assign(b.choose(f"{x} * {number}", f"{number} - {x}", f"{x} + {number}", f"{x} ** 2", f"{x} ** 3", f"{x} / 1.5"))


def reduction(b: Builder) -> None:
    function = b.choose("sum", "mean", "max", "min", "prod")
    x = b.name(lambda x: np.size(x) > 0 and np.ndim(x) > 0)
    if x is None:
        return
    value = b.variables[x]
    axis = b.choose(None, b.axis(value))
    if function in ("max", "min") and not _no_ties(value, axis):
        return
    keep = f", keepdims={b.pick(st.booleans())}" if function != "prod" else ""
    b.assign(f"np.{function}({x}, axis={axis}{keep})")


def running(b: Builder) -> None:
    x = b.name(lambda x: np.size(x) > 0 and np.ndim(x) > 0)
    if x is not None:
        b.assign(f"np.{b.choose('cumsum', 'cumprod')}({x}, axis={b.axis(b.variables[x])})")


def product(b: Builder) -> None:
    x = b.name(lambda x: np.ndim(x) in (1, 2))
    if x is None:
        return
    a = b.variables[x]
    y = b.name(lambda y: np.ndim(y) in (1, 2) and y.shape[0] == a.shape[-1])
    z = b.name(lambda z: np.ndim(z) == 2 and a.ndim == 2 and z.shape == a.shape)
    if y is not None and (z is None or b.pick(st.booleans())):
        b.assign(b.choose(f"{x} @ {y}", f"np.dot({x}, {y})"))
    elif z is not None:
        b.assign(f"np.einsum({b.choose('ij,ij->i', 'ij,kj->ik', 'ij,ij->', 'ij,ik->jk')!r}, {x}, {z})")


def view(b: Builder) -> None:
    x = b.name(lambda x: isinstance(x, np.ndarray))
    if x is None:
        return
    value = b.variables[x]
    options = [f"{x}.T", f"{x}.copy()", f"{x}.ravel()", f"{x}.reshape(-1)" if value.size else f"{x}.T", f"{x}[None]"]
    if value.ndim:
        k = b.axis(value)
        options += [
            f"np.flip({x}, {k})",
            f"np.roll({x}, {b.pick(st.integers(-3, 3))}, {k})",
            f"np.swapaxes({x}, 0, {k})",
        ]
        options += [f"np.expand_dims({x}, {k})", f"np.moveaxis({x}, {k}, 0)", f"np.broadcast_to({x}, (2, *{x}.shape))"]
    if value.ndim >= 2:
        first, second, *rest = value.shape
        options += [f"np.diagonal({x})", f"{x}.reshape({(first * second, *rest)})"]
    if value.size and value.size % 2 == 0:
        options += [f"{x}.reshape(2, {value.size // 2})", f"{x}.reshape({value.size // 2}, 2)"]
    if value.size <= 30:
        b.assign(b.choose(*options))


def read(b: Builder) -> None:
    x = b.name(lambda x: isinstance(x, np.ndarray) and x.ndim > 0)
    if x is not None:
        b.assign(f"{x}[{b.index(b.variables[x].shape, fancy=b.pick(st.booleans()))}]")


def write(b: Builder) -> None:
    x = b.name(lambda x: isinstance(x, np.ndarray) and x.flags.writeable)
    if x is None:
        return
    target = f"{x}[{b.index(b.variables[x].shape, fancy=b.pick(st.booleans()))}]"
    shape = np.shape(eval(target, {"np": np, **b.variables}))
    sources = ["0.5", f"np.sin({target})"]
    y = b.name(lambda y: _fits_into(y, shape))
    if y is not None:
        sources += [y, f"0.5 * {y}", y]
    b.run(f"{target} {b.choose('=', '=', '+=', '-=', '*=')} {b.choose(*sources)}")


def _fits_into(x: Any, shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(np.shape(x), shape) == shape
    except ValueError:
        return False


def augmented(b: Builder) -> None:
    x = b.name(lambda x: not isinstance(x, np.ndarray) or x.flags.writeable)
    y = b.name(lambda y: x is not None and _fits_into(y, np.shape(b.variables[x])))
    if y is not None:
        b.run(f"{x} {b.choose('+=', '-=', '*=')} {b.choose(y, f'np.cos({y})', '0.75')}")


def choice(b: Builder) -> None:
    x = b.name()
    level = b.choose(0.0, 0.3)
    if not _apart(b.variables[x], level):
        return
    y = b.name(lambda y: _broadcast(b.variables[x], y)) or x
    b.assign(f"np.where({x} {b.choose('>', '<=')} {level}, {b.choose(y, f'np.sin({x})')}, {b.choose(y, x, '1.0')})")


def branch(b: Builder) -> None:
    x = b.name(lambda x: np.size(x) > 0)
    if x is not None and abs(float(np.sum(b.variables[x])) - 0.1) > 1e-4:
        b.assign(f"np.sin({x}) if np.sum({x}) > 0.1 else np.cos({x}) * {x}")


def joined(b: Builder) -> None:
    x = b.name(lambda x: np.ndim(x) > 0)
    if x is None:
        return
    value = b.variables[x]
    y = b.name(lambda y: np.shape(y) == value.shape)
    k = b.axis(value)
    b.assign(b.choose(f"np.concatenate([{x}, {y}, {x}], {k})", f"np.stack([{x}, {y}], {k})"))


def order(b: Builder) -> None:
    x = b.name(lambda x: np.ndim(x) > 0 and _no_ties(x, -1))
    if x is not None:
        b.assign(f"np.sort({x}, axis=-1)")


def loop(b: Builder) -> None:
    """Steps that keep shapes and bounds, repeated: what checkpointing is for."""
    x = b.name(lambda x: isinstance(x, np.ndarray) and x.ndim > 0 and x.flags.writeable and min(x.shape) > 1)
    if x is None:
        return
    y = b.name(lambda y: _fits_into(y, b.variables[x].shape))
    steps = [f"{x} = np.tanh({x} + 0.3 * {y})" if y else f"{x} = np.tanh({x})"]
    steps += [f"{x}[1:] += 0.1 * np.sin({x}[:-1])", f"{x}[0] = 0.5 * {x}[-1]", f"{x}[::2] *= 0.9"]
    steps += [
        f"{x} = 0.5 * ({x} + np.roll({x}, 1, 0))",
        f"{x} = np.sin({x}.copy())",
        f"_ = {x}[::-1]; _ += 0.1 * {x}[0]",
    ]
    body = b.pick(st.lists(st.sampled_from(steps), min_size=1, max_size=3))
    b.run(f"for _ in range({b.pick(st.integers(2, 9))}):\n    " + "\n    ".join(body))


def drawn(b: Builder) -> None:
    """Noise and masks of the shape of a variable: drawn again where they are recomputed."""
    if (x := b.name(lambda x: True)) is None:
        return
    key = f"random.key({b.pick(st.integers(0, 3))})"
    shape = np.shape(b.variables[x])
    noise = b.choose(f"random.uniform({key}, {shape})", f"random.normal(random.fold_in({key}, 1), {shape})")
    b.assign(b.choose(f"{x} * {noise}", f"np.where(random.bernoulli({key}, 0.7, {shape}), {x}, 0.5)"))


SMOOTH = ("np.sin({})", "np.tanh({})", "0.5 * {}", "np.cos({}) * {}")


def region(b: Builder) -> None:
    """A part that keeps only what enters it, alone or within another one."""
    if (x := b.name(lambda x: True)) is None:
        return
    y = b.name(lambda y: _broadcast(b.variables[x], y)) or x
    body = f"np.sin({b.choose(*SMOOTH).format(*['u'] * 2)} + {y})"
    inner = f"ckad.checkpoint(lambda u: {body})"
    b.assign(f"{b.choose(inner, f'ckad.checkpoint(lambda u: np.tanh({inner}(u)))')}({x})")


def saved(b: Builder) -> None:
    """A value that every policy keeps, itself or on the way to another."""
    if (x := b.name(lambda x: True)) is not None:
        b.assign(b.choose(f"ckad.save({x}) * 0.5", f"np.sin(ckad.save(np.sin({x})))", f"ckad.save(({x},))[0] + 0.0"))


def scanned(b: Builder) -> None:
    """A loop that is recorded once: over a number of steps, or over the slices of a variable, which it stacks."""
    if (x := b.name(lambda x: True)) is None:
        return
    step = b.choose(*SMOOTH).format(*["c"] * 2)
    y = b.name(lambda y: _fits_into(y, np.shape(b.variables[x])))
    around = f" + 0.1 * {y}" if y is not None and b.pick(st.booleans()) else ""
    if b.pick(st.booleans()):
        steps, which = b.pick(st.integers(0, 5)), b.choose("scan", "fori")
        if which == "fori":
            b.assign(f"ckad.fori_loop(0, {steps}, lambda i, c: {step}{around} + 0.01 * i, {x} * 1.0)")
        else:
            b.assign(f"ckad.scan(lambda c, _: ({step}{around}, None), {x} * 1.0, None, {steps})[0]")
        return
    xs = b.name(lambda xs: np.ndim(xs) > 0 and len(xs) > 0 and np.shape(xs)[1:] == np.shape(b.variables[x]))
    if xs is not None:
        part, reverse = b.choose(0, 1), b.pick(st.booleans())
        b.assign(
            f"ckad.scan(lambda c, s: ({step} + 0.5 * s, np.sin(c) * s), {x} * 1.0, {xs}, reverse={reverse})[{part}]"
        )


def chosen(b: Builder) -> None:
    """One of two functions, as a value says; within a loop it is chosen while the loop runs."""
    x = b.name(lambda x: np.size(x) > 0)
    if x is None or abs(float(np.sum(b.variables[x])) - 0.1) < 1e-4:
        return
    sides = "lambda u: np.sin(u), lambda u: np.cos(u) * u"
    outside = f"ckad.cond(np.sum({x}) > 0.1, {sides}, {x})"
    inside = (
        f"ckad.scan(lambda c, s: (ckad.cond(s > 0.5, {sides}, c), None), {x} * 1.0, np.array([0.2, 0.9, 0.6, 0.1]))[0]"
    )
    b.assign(b.choose(outside, inside))


KINDS = (
    *(unary, unary, binary, binary, constant, reduction, running, product, view, view, read),
    *(write, write, augmented, choice, branch, joined, order, loop, drawn, region, saved, scanned, chosen),
)


@st.composite
def programs(draw: Draw, longest: int = 12) -> Program:
    """A random program and a point to differentiate it at."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    side = st.sampled_from([1, 2, 3, 4, 4, 5, 0])
    args = []
    for _ in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(side, max_size=2)))
        x = rng.uniform(0.4, 1.6, shape) * rng.choice([1.0, 1.0, -1.0], shape)
        args.append(np.asarray(x, order=draw(st.sampled_from("CF"))) if shape else np.float64(x))
    names = "abc"[: len(args)]
    builder = Builder(draw, variables={name: x.copy("K") for name, x in zip(names, args, strict=True)})
    for _ in range(draw(st.integers(1, longest))):
        draw(st.sampled_from(KINDS))(builder)
    # Every variable counts, and each element differently.
    lines = ["total = 0.0"]
    for k, name in enumerate(builder.variables):
        lines.append(f"total = total + np.sum(np.sin({name} + {k}))")
    body = "\n".join([*builder.lines, *lines, "return total"]).replace("\n", "\n    ")
    return Program(f"def f({', '.join(names)}):\n    {body}\n", tuple(args))
