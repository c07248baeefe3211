"""Loops as primitives against the same loops written in Python: values, and derivatives of every kind and order."""

from __future__ import annotations

import numpy as np
import pytest

import ckad

POLICIES = ["none", "auto", "sqrt", 3]


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


@pytest.mark.parametrize(("f", "args"), cases())
def test_values(f, args):
    close(f(ckad.scan, *args), f(python_scan, *args))
    # Step by step, the same kernels run.
    unrolled = ckad.jit(lambda *args: f(python_scan, *args))(*args)
    assert ckad.jit(lambda *args: f(ckad.scan, *args))(*args) == unrolled


@pytest.mark.parametrize(("f", "args"), cases())
def test_gradients(f, args):
    argnums = differentiable(args)
    expected = ckad.value_and_grad(lambda *args: f(python_scan, *args), argnums, checkpoint="none")(*args)
    first = None
    for policy in POLICIES:
        found = ckad.value_and_grad(lambda *args: f(ckad.scan, *args), argnums, checkpoint=policy)(*args)
        close(found, expected)
        leaves = [np.asarray(leaf).tobytes() for leaf in ckad.tree.flatten(found)[0]]
        first = first or leaves
        assert leaves == first
    jitted = ckad.jit(ckad.value_and_grad(lambda *args: f(ckad.scan, *args), argnums))
    close(jitted(*args), expected)
    close(jitted(*args), expected)


@pytest.mark.parametrize(("f", "args"), cases())
def test_forward_mode(f, args):
    argnums = differentiable(args)
    tangents = tangent_like(args, argnums)

    def fixed(scan):
        def g(*given):
            full = list(args)
            for index, value in zip(argnums, given, strict=True):
                full[index] = value
            return f(scan, *full)

        return g

    point = tuple(args[i] for i in argnums)
    expected = ckad.jvp(fixed(python_scan), point, tangents)
    close(ckad.jvp(fixed(ckad.scan), point, tangents), expected)
    value, linear = ckad.linearize(fixed(ckad.scan), *point)
    close((value, linear(*tangents)), expected)
    value, pullback = ckad.vjp(fixed(ckad.scan), *point)
    close(pullback(1.0), ckad.vjp(fixed(python_scan), *point)[1](1.0))


@pytest.mark.parametrize(("f", "args"), cases())
def test_second_order(f, args):
    argnum = differentiable(args)[0]

    def fixed(scan):
        return lambda x: f(scan, *args[:argnum], x, *args[argnum + 1 :])

    x = args[argnum]
    (v,) = tangent_like(args, (argnum,))
    expected = ckad.hvp(fixed(python_scan), x, v)
    close(ckad.hvp(fixed(ckad.scan), x, v), expected, 1e-9)
    for policy in POLICIES:
        close(ckad.hvp(fixed(ckad.scan), x, v, checkpoint=policy), expected, 1e-9)

    def along(scan):
        return ckad.grad(lambda x: np.sum(ckad.grad(fixed(scan))(x) * v))

    close(along(ckad.scan)(x), expected, 1e-9)
    close(ckad.jit(along(ckad.scan))(x), expected, 1e-9)
    close(ckad.jacobian(ckad.grad(fixed(ckad.scan)))(x), ckad.jacobian(ckad.grad(fixed(python_scan)))(x), 1e-9)


@pytest.mark.parametrize(("f", "args"), cases())
def test_third_order(f, args):
    argnum = differentiable(args)[0]
    (v,) = tangent_like(args, (argnum,))

    def third(scan):
        def g(x):
            return f(scan, *args[:argnum], x, *args[argnum + 1 :])

        h = ckad.grad(lambda x: np.sum(ckad.grad(g)(x) * v))
        return ckad.grad(lambda x: np.sum(h(x) * v))(args[argnum])

    close(third(ckad.scan), third(python_scan), 1e-8)


@pytest.mark.parametrize(("f", "args"), cases())
def test_differences(f, args):
    argnums = differentiable(args)

    def g(*given):
        full = list(args)
        for index, value in zip(argnums, given, strict=True):
            full[index] = value
        return f(ckad.scan, *full)

    ckad.check_grads(g, tuple(args[i] for i in argnums))


@pytest.mark.parametrize(("f", "args"), cases())
def test_planned_bytes_are_what_a_run_holds(f, args):
    argnums = differentiable(args)
    for policy in POLICIES:
        gradient = ckad.value_and_grad(lambda *args: f(ckad.scan, *args), argnums, checkpoint=policy)
        profile = ckad.memory.profile(gradient, *args)
        assert profile.planned_bytes == profile.executor_bytes
