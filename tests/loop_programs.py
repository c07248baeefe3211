"""Programs for the tests of loops as primitives, and the same loops written in Python."""

from __future__ import annotations

import numpy as np
import pytest

import ckad

POLICIES = ["none", "auto", "sqrt", 3, "log", ckad.Revolve(4), ckad.Mixed(3), ckad.Offload(min_bytes=1)]


def python_scan(f, init, xs=None, length=None, reverse=False):
    """What `ckad.scan` computes, step by step."""
    leaves = ckad.tree.flatten(xs)[0]
    count = len(leaves[0]) if leaves else length
    carry, ys = init, [None] * count
    for i in reversed(range(count)) if reverse else range(count):
        x = ckad.tree.map_leaves(lambda leaf, i=i: leaf[i], xs)
        carry, ys[i] = f(carry, x)
    return carry, ckad.tree.map_leaves(lambda *each: np.stack(each), *ys) if ys and ys[0] is not None else None


def rnn(scan, w, b, h0, xs):
    """Constants, a carry, slices, and something stacked."""

    def step(h, x):
        h = np.tanh(w @ h + x * b)
        return h, np.sum(h * h)

    h, ys = scan(step, h0, xs)
    return np.sum(h) + np.sum(ys * ys)


def pair(scan, a, x0, xs):
    """A pytree as carry, of which one leaf is an integer; slices of two arrays; an index; a number from outside."""

    def step(state, x):
        u, v, count = state["u"], state["v"], state["count"]
        u, v = u + 0.1 * v * x["c"], v - 0.1 * np.sin(u) + a * x["d"][count % 2]
        return {"u": u, "v": v, "count": count + 1}, (u * v, v[0])

    state, (products, first) = scan(step, {"u": x0, "v": 2.0 * x0, "count": np.int64(0)}, xs)
    return np.sum(state["u"] * state["v"]) + np.sum(products**2) + np.sum(np.cos(first))


def sliced(scan, u0, k):
    """A body that writes into a copy of its carry and reads slices."""

    def step(u, _):
        new = u.copy()
        new[1:-1] += k * (u[2:] - 2.0 * u[1:-1] + u[:-2])
        return new, u[3]

    u, trace = scan(step, u0, None, 7)
    return np.sum(u**3) + np.prod(trace)


def gathered(scan, table, order):
    """An array of which each iteration reads another element, handed on as it is."""

    def step(carry, i):
        s, table = carry
        return (s * 0.5 + table[i] ** 2, table), s * table[i]

    (s, _), ys = scan(step, (0.0, table), order)
    return s + np.sum(ys)


def backwards(scan, w, xs):
    def step(h, x):
        return np.tanh(h) * w + x, h

    h, ys = scan(step, np.zeros(3), xs, None, True)
    return np.sum(h * ys[2]) + np.sum(ys)


def nested(scan, w, xs):
    """A loop in a loop, whose body reads the outer carry."""

    def step(h, x):
        def inner(s, i):
            return s * np.cos(h[0]) + i * w[1], s

        s, all_s = scan(inner, x[0], np.arange(4.0))
        return h * 0.9 + w * s, np.sum(all_s)

    h, ys = scan(step, w, xs)
    return np.sum(h) + np.sum(ys * ys)


def generator():
    return np.random.default_rng(3)


def cases():
    g = generator()
    n = 6
    return [
        pytest.param(rnn, (g.normal(size=(3, 3)), g.normal(size=3), g.normal(size=3), g.normal(size=n)), id="rnn"),
        pytest.param(
            pair,
            (np.float64(0.7), g.normal(size=4), {"c": g.normal(size=(n, 4)), "d": g.normal(size=(n, 2, 4))}),
            id="pair",
        ),
        pytest.param(sliced, (g.normal(size=9), np.float64(0.1)), id="sliced"),
        pytest.param(gathered, (g.normal(size=5), np.array([3, 1, 4, 1, 0, 2])), id="gathered"),
        pytest.param(backwards, (g.normal(size=3), g.normal(size=(n, 3))), id="backwards"),
        pytest.param(nested, (g.normal(size=2), g.normal(size=(n, 2))), id="nested"),
    ]


def differentiable(args):
    is_float = [all(leaf.dtype.kind == "f" for leaf in ckad.tree.flatten(arg)[0]) for arg in args]
    return tuple(index for index, found in enumerate(is_float) if found)


def close(actual, expected, tolerance=1e-11):
    a, b = ckad.tree.flatten(actual)[0], ckad.tree.flatten(expected)[0]
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def tangent_like(args, argnums):
    g = np.random.default_rng(5)
    return tuple(ckad.tree.map_leaves(lambda leaf: g.normal(size=leaf.shape)[()], args[i]) for i in argnums)


def newton(while_loop, a):
    """The root of a, with the number of iterations beside it."""

    def goes_on(state):
        x, _ = state
        return np.abs(x * x - a) > 1e-9

    def step(state):
        x, count = state
        return (x + a / x) / 2.0, count + 1

    return while_loop(goes_on, step, (a, np.int64(0)))


def python_while(goes_on, step, value):
    while goes_on(value):
        value = step(value)
    return value


def of(dtype, value):
    return np.dtype(dtype), value


def described(tree):
    return [(np.asarray(leaf).dtype, np.asarray(leaf).tolist()) for leaf in ckad.tree.flatten(tree)[0]]
