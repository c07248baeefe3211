"""Loops whose length nobody knows before they run: `while_loop`, and `fori_loop` with traced bounds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from loop_programs import POLICIES, close, generator, newton, python_while

import ckad


def test_while_loops():
    for a in (2.0, 10.0, np.float64(3.0)):
        close(newton(ckad.while_loop, a), newton(python_while, a))
        close(ckad.jit(lambda a: newton(ckad.while_loop, a))(a), newton(python_while, a))

        def root(a):
            return newton(ckad.while_loop, a)[0]

        close(ckad.grad(root)(a), 0.5 / np.sqrt(a), 1e-8)
        close(ckad.grad(ckad.grad(root))(a), -0.25 / a**1.5, 1e-5)
        close(ckad.hvp(root, a, 1.0), -0.25 / a**1.5, 1e-5)
        for policy in POLICIES:
            close(ckad.grad(root, checkpoint=policy)(a), ckad.grad(root)(a), 1e-15)
        # The length is not known.
        jitted = ckad.jit(root)
        close(ckad.jvp(jitted, (a,), (1.0,))[1], 0.5 / np.sqrt(a), 1e-8)
        close(ckad.jit(lambda a: ckad.jvp(root, (a,), (1.0,))[1])(a), 0.5 / np.sqrt(a), 1e-8)
        close(ckad.linearize(jitted, a)[1](1.0), 0.5 / np.sqrt(a), 1e-8)


def test_reverse_mode_of_an_unknown_length():
    def root(a):
        return newton(ckad.while_loop, a)[0]

    for gradient in (ckad.grad(ckad.jit(root)), ckad.jit(ckad.grad(root))):
        close(gradient(2.0), 0.5 / np.sqrt(2.0), 1e-8)
        close(gradient(9.0), 0.5 / 3.0, 1e-8)
        # Forward mode over it; reverse mode names that.
        close(ckad.jvp(gradient, (2.0,), (1.0,))[1], -0.25 / 2.0**1.5, 1e-5)
        close(ckad.linearize(gradient, 2.0)[1](1.0), -0.25 / 2.0**1.5, 1e-5)
        close(ckad.jacobian(gradient, mode="forward")(2.0), -0.25 / 2.0**1.5, 1e-5)
        with pytest.raises(ckad.errors.TracerError, match=r"ckad\.hvp"):
            ckad.grad(gradient)(2.0)
    close(ckad.hvp(ckad.jit(root), 2.0, 1.0), -0.25 / 2.0**1.5, 1e-5)
    close(ckad.vjp(ckad.jit(root), 2.0)[1](1.0), 0.5 / np.sqrt(2.0), 1e-8)


def test_what_reverse_over_reverse_names_instead_computes_it():
    def loop(c, a, trips):
        return ckad.while_loop(lambda q: q[0] < trips, lambda q: (q[0] + 1, np.sin(q[1]) * a), (0, c))[1]

    def unknown(a):
        return ckad.scan(lambda c, _: (loop(c, a, 3), None), a, length=2)[0]

    def known(a):
        return ckad.scan(lambda c, _: (ckad.fori_loop(0, 3, lambda i, c: np.sin(c) * a, c), None), a, length=2)[0]

    def outside_of_loops(a):
        c = a
        for _ in range(2):
            c = loop(c, a, 3)
        return c

    for second in (ckad.grad(ckad.grad(unknown)), ckad.jacobian(ckad.grad(unknown), mode="reverse")):
        with pytest.raises(ckad.errors.TracerError, match=r"test_loops_of_unknown_length\.py:\d+") as raised:
            second(1.1)
    for named in (
        r"ckad\.hvp",
        r"ckad\.jvp of a gradient",
        r"ckad\.jacobian of one with mode='forward'",
        r"ckad\.fori_loop or ckad\.scan with a length that Python knows",
        r"outside of ckad\.jit, ckad\.scan and other loops",
    ):
        assert re.search(named, str(raised.value))
    expected = ckad.grad(ckad.grad(outside_of_loops))(1.1)
    for found in (
        ckad.hvp(unknown, 1.1, 1.0),
        ckad.jvp(ckad.grad(unknown), (1.1,), (1.0,))[1],
        ckad.jacobian(ckad.grad(unknown), mode="forward")(1.1),
        ckad.jacobian(ckad.grad(unknown))(1.1),
        ckad.grad(lambda a: ckad.jvp(unknown, (a,), (1.0,))[1])(1.1),
        ckad.grad(ckad.grad(known))(1.1),
    ):
        close(found, expected)


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 66, 300, 2500])
def test_an_unknown_length_has_the_gradients_of_a_known_one(n):
    g = generator()
    w, x = g.normal(size=(3, 3)) / 2, g.normal(size=3)

    def f(w, x, n):
        def step(i, state):
            u, v, count = state
            return np.tanh(w @ u) + 0.01 * i, 0.99 * v + u * w[0], count + 1

        u, v, count = ckad.fori_loop(0, n, step, (x, x * 2.0, np.int64(0)))
        return np.sum(u * v) + count

    known = ckad.value_and_grad(lambda w, x: f(w, x, n), (0, 1), checkpoint="none")(w, x)
    unknown = ckad.jit(ckad.value_and_grad(f, (0, 1)))(w, x, np.int64(n))
    for a, b in zip(ckad.tree.flatten(known)[0], ckad.tree.flatten(unknown)[0], strict=True):
        assert np.array_equal(a, b)
    if n <= 66:
        v = g.normal(size=3)
        expected = ckad.hvp(lambda x: f(w, x, n), x, v)
        close(ckad.jit(lambda x, n: ckad.hvp(lambda x: f(w, x, n), x, v))(x, np.int64(n)), expected)


def test_a_while_loop_is_run_once_to_learn_its_length():
    plan = ckad.plan(ckad.grad(lambda a: newton(ckad.while_loop, a)[0]))(2.0)
    assert plan.forced_runs[0] == 1


def test_loops_of_unknown_length_inside_other_bodies():
    def until(trips, step, *first):
        return ckad.while_loop(lambda q: q[0] < trips, lambda q: (q[0] + 1, *step(*q[1:])), (0, *first))

    def in_a_scan(a):
        def body(c, _):
            return until(2, lambda y, c: (np.sin(y) * c, c), c, c)[1], None

        return ckad.scan(body, a, None, 3)[0]

    def plain(a):
        for _ in range(3):
            a = np.sin(np.sin(a) * a) * a
        return a

    np.testing.assert_allclose(ckad.grad(in_a_scan)(1.01), ckad.grad(plain)(1.01), rtol=1e-14)
    np.testing.assert_allclose(ckad.grad(ckad.jit(in_a_scan))(1.01), ckad.grad(plain)(1.01), rtol=1e-14)

    def chosen(a):
        return ckad.cond(a > 0.1, lambda a: until(2, lambda y: (np.tanh(y * a),), a)[1], lambda a: a, a)

    np.testing.assert_allclose(
        ckad.grad(ckad.jit(chosen))(0.7), ckad.grad(lambda a: np.tanh(np.tanh(a * a) * a))(0.7), rtol=1e-14
    )


def test_loops_inside_loops_of_unknown_length():
    def powers(a, n):
        return ckad.fori_loop(0, n, lambda i, c: ckad.scan(lambda d, _: (d * c, None), 1.0, None, 5)[0], a)

    np.testing.assert_allclose(ckad.grad(ckad.jit(powers))(1.1, 2), 25 * 1.1**24, rtol=1e-13)

    def nested(a, n):
        def body(q):
            return q[0] + 1, np.tanh(ckad.fori_loop(0, q[0], lambda i, y: y * 1.5, q[1]))

        return ckad.while_loop(lambda q: q[0] < n, body, (0, a))[1]

    def plain(a):
        return np.tanh(1.5 * np.tanh(a))

    np.testing.assert_allclose(ckad.grad(ckad.jit(nested))(0.3, 2), ckad.grad(plain)(0.3), rtol=1e-13)
