"""What loops as primitives refuse, and what the errors say."""

from __future__ import annotations

import linecache
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import TracerError


def test_random_numbers_in_bodies_raise() -> None:
    generator = np.random.default_rng(0)
    drawn = r"was drawn from while the function was recorded: every iteration would.*Hint: draw before the loop"
    loops: dict[str, Callable[[Any], Any]] = {
        "scan": lambda x: ckad.scan(lambda c, _: (c + generator.normal(), None), x, None, 3)[0],
        "fori_loop": lambda x: ckad.fori_loop(0, 3, lambda _, c: c + np.random.rand(), x),  # noqa: NPY002
        "while_loop": lambda x: ckad.while_loop(lambda c: c < random.random(), lambda c: c + 1.0, x),
        "cond": lambda x: ckad.cond(x > 0, lambda x: x * generator.normal(), lambda x: x, x),
    }
    for name, loop in loops.items():
        for f in [ckad.jit(loop)] + [loop, ckad.grad(loop)] * (name != "cond"):
            with pytest.raises(TracerError, match=rf"\[{name}\] .*{drawn}"):
                f(0.5)
    # Where the value is known one function is called, and once.
    assert loops["cond"](-1.0) == -1.0
    assert loops["cond"](1.0) != loops["cond"](1.0)
    # Drawn before.
    assert ckad.scan(lambda c, x: (c + x, None), 0.0, generator.random(3))[0] > 0


def test_loops_that_do_not_fit():
    errors = ckad.errors
    with pytest.raises(errors.ShapeError, match=r"goes in as float64\(2,\) and comes out as float64\(3,\)"):
        ckad.scan(lambda c, _: (np.zeros(3), None), np.zeros(2), length=2)
    with pytest.raises(errors.ShapeError, match=r"goes in as \(float64\(\), int64\(\)\)"):
        ckad.scan(lambda c, _: (c[0], None), (0.0, 1), length=2)
    with pytest.raises(errors.ShapeError, match="lengths of xs differ"):
        ckad.scan(lambda c, x: (c, None), 0.0, (np.zeros(2), np.zeros(3)))
    with pytest.raises(errors.CkadValueError, match="neither xs nor length"):
        ckad.scan(lambda c, x: (c, None), 0.0)
    with pytest.raises(errors.CkadTypeError, match="pair"):
        ckad.scan(lambda c, x: c, 0.0, length=2)
    with pytest.raises(errors.TracerError, match=r"stands for the values of all iterations"):
        ckad.scan(lambda c, x: (c if c > 0 else -c, None), 1.0, length=2)
    with pytest.raises(errors.ShapeError, match="not a bool"):
        ckad.while_loop(lambda x: x, lambda x: x, np.zeros(3))
    with pytest.raises(errors.ShapeError, match="true_fn returns"):
        ckad.jit(lambda x: ckad.cond(x > 0, lambda x: x, lambda x: (x, x), x))(1.0)
    with pytest.raises(errors.ShapeError, match="pred has shape"):
        ckad.cond(np.array([True, False]), lambda: 1, lambda: 2)
    for pred in ([True], None, "yes", (1, 2), {}):
        with pytest.raises(errors.CkadTypeError, match=rf"\[cond\] pred is of type {type(pred).__name__}"):
            ckad.cond(pred, lambda: 1, lambda: 2)
    for wrong in ("text", {1, 2}, object()):
        with pytest.raises(
            errors.CkadTypeError, match=rf"\[scan\] a leaf of the first carry .* {type(wrong).__name__}"
        ):
            ckad.scan(lambda c, _: (c, None), (1.0, wrong), length=2)
        with pytest.raises(
            errors.CkadTypeError, match=rf"\[scan\] a leaf of what is stacked .* {type(wrong).__name__}"
        ):
            ckad.scan(lambda c, _, wrong=wrong: (c, [wrong]), 1.0, length=2)
    with pytest.raises(errors.CkadTypeError, match="upper has dtype float64"):
        ckad.fori_loop(0, np.float64(3.0), lambda i, x: x, 0.0)


def test_writes_to_arrays_from_around_raise():
    # They would be done once, where a loop in Python does them in each iteration.
    def write(w, x):
        w[0] += 1.0
        return x + w[0]

    loops = {
        "scan": lambda w, x: ckad.scan(lambda c, _: (write(w, c), None), x, None, 3)[0],
        "fori_loop": lambda w, x: ckad.fori_loop(0, 3, lambda _, c: write(w[:1], c), x),
        "while_loop": lambda w, x: ckad.while_loop(lambda c: c < 9.0, lambda c: write(w, c), x),
        "jit": lambda w, x: ckad.jit(lambda x: write(w, x))(x),
    }
    for name, loop in loops.items():
        with pytest.raises(TracerError, match=rf"\[setitem\] .* ckad\.{name} records once"):
            ckad.grad(lambda x, loop=loop: np.sum(loop(x * np.ones(2), x)))(1.0)

    def chosen(x):
        w = x * np.ones(2)
        return ckad.cond(x > 0, lambda x: write(w, x), lambda x: x, x)

    with pytest.raises(TracerError, match=r"ckad\.cond records once"):
        ckad.jit(chosen)(1.0)
    # Where the choice is known, one function is called, and once.
    assert ckad.value_and_grad(chosen)(1.0) == (3.0, 2.0)
    # What a body makes of values from around is its own.
    own = lambda x: ckad.fori_loop(0, 3, lambda _, c: write(np.sin(x * np.ones(2)), c), x)
    assert ckad.grad(own)(0.0) == 4.0

    # What the hints say.
    def mixed(x, own):
        def step(_, c):
            w = own(np.sin(x * np.ones(2)))
            w[0] = c
            return np.sum(w)

        return ckad.fori_loop(0, 3, step, x)

    with pytest.raises(TracerError, match=r"Hint: write to x\.copy\(\)"):
        ckad.grad(mixed)(0.0, lambda w: w)
    assert ckad.grad(mixed)(0.0, lambda w: w.copy()) == 4.0


def test_lengths_that_are_too_long_raise():
    for bounds in ((0, 2**33), (-(2**63), 2**63 - 1)):
        with pytest.raises(ckad.errors.CkadValueError, match=r"\[fori_loop\] \d+ iterations .* loop of loops"):
            ckad.fori_loop(*bounds, lambda i, c: c, 0)
    for bounds in ((0, 2**70), (np.uint64(2**63), 2**63 + 1)):
        with pytest.raises(ckad.errors.CkadValueError, match=r"\[fori_loop\] .* is no int64"):
            ckad.fori_loop(*bounds, lambda i, c: c, 0)


def test_errors_of_a_run_name_the_line_in_the_body():
    def f(x, order):
        def step(s, i):
            return s + x[i], None  # the line at fault

        return ckad.scan(step, 0.0, order)[0]

    order = np.array([0, 1, 7])
    for g in (ckad.grad(f), ckad.grad(ckad.jit(f)), ckad.jit(f), ckad.grad(f, checkpoint="sqrt")):
        # A program that was made for another recording has the positions of that one.
        ckad.memory.release()
        with pytest.raises(IndexError, match=r"test_loop_errors\.py:\d+") as raised:
            g(np.ones(3), order)
        line = int(re.search(r"test_loop_errors\.py:(\d+)", str(raised.value))[1])
        assert "the line at fault" in linecache.getline(__file__, line)
