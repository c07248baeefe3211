"""Loops whose length nobody knows when they are recorded: states in a bounded number of slots, thinned on the way."""

import _thread
import threading

import numpy as np
import pytest

import ckad

SLOTS = 64


def generator():
    return np.random.default_rng(7)


def many_dtypes(w, x, n):
    """Carries of several dtypes and shapes, one that only the test reads, and one that changes every other time."""

    def step(i, state):
        u, v, count, odd, scale = state
        u = np.tanh(w @ u) * np.where(odd, 1.0, 0.9) + 0.01 * i
        v = (0.99 * v + 0.5 * u[0]).astype(np.float32)
        return u, v, count + 1, np.logical_not(odd), scale * np.float32(0.999)

    first = (x, np.ones(3, np.float32), np.int64(0), np.bool_(True), np.float32(2.0))
    u, v, count, _, scale = ckad.fori_loop(0, n, step, first)
    return np.sum(u) * np.sum(v) * scale + count


def arguments():
    g = generator()
    return g.normal(size=(3, 3)) / 2.0, g.normal(size=3)


def flat(tree):
    return ckad.tree.flatten(tree)[0]


@pytest.mark.parametrize("policy", ["auto", "sqrt", "log", 1, 3, ckad.Revolve(20), 1000])
def test_bits_are_those_of_a_known_length(policy):
    w, x = arguments()
    unknown = ckad.jit(ckad.value_and_grad(many_dtypes, (0, 1), checkpoint=policy))
    for n in (0, 1, 2, 3, 63, 64, 65, 66, 67, 127, 128, 129, 200, 500):
        known = ckad.value_and_grad(lambda w, x, n=n: many_dtypes(w, x, n), (0, 1), checkpoint="none")(w, x)
        pairs = zip(flat(known), flat(unknown(w, x, np.int64(n))), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("n", [0, 1, 5, 70, 200])
def test_forward_modes_of_the_way_back(n):
    w, x = arguments()
    tangents = (np.ones((3, 3)), np.linspace(0.5, 1.0, 3))
    jitted = ckad.jit(ckad.grad(many_dtypes, (0, 1)))

    def unknown(w, x):
        return jitted(w, x, np.int64(n))

    def known(w, x):
        return ckad.grad(many_dtypes, (0, 1))(w, x, n)

    def second(f):
        return lambda w, x: ckad.jvp(f, (w, x), tangents)[1]

    expected = flat(second(known)(w, x))
    linear = ckad.linearize(unknown, w, x)[1]
    for found in (second(unknown)(w, x), linear(*tangents)):
        for a, b in zip(flat(found), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    third = flat(second(second(unknown))(w, x))
    for a, b in zip(third, flat(second(second(known))(w, x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ckad.errors.TracerError, match=r"ckad\.hvp"):
        ckad.grad(lambda x: np.sum(unknown(w, x)[0]))(x)
    # A pullback keeps the slots, and may be called again.
    pullback = ckad.vjp(lambda w, x: ckad.jit(many_dtypes)(w, x, np.int64(n)), w, x)[1]
    for found in (pullback(1.0), pullback(1.0)):
        assert all(np.array_equal(a, b) for a, b in zip(flat(found), flat(known(w, x)), strict=True))


def diffused(u, n):
    return np.sum(ckad.fori_loop(0, n, lambda i, u: u + 0.1 * np.sin(u), u) ** 2)


def test_memory_is_bounded_and_known():
    u = np.linspace(0.0, 1.0, 20_000)
    state = u.nbytes

    def states(f, n=1000):
        profile = ckad.memory.profile(ckad.jit(f), u, np.int64(n))
        assert profile.planned_bytes == profile.executor_bytes
        return ckad.plan(ckad.jit(f))(u, np.int64(n)).peak_bytes / state

    # Where no derivative is taken in reverse mode, there are no slots.
    assert states(diffused) < 2
    assert states(lambda u, n: ckad.jvp(lambda u: diffused(u, n), (u,), (u,))[1]) < 6
    assert states(lambda u, n: ckad.linearize(lambda u: diffused(u, n), u)[1](u)) < 6
    assert SLOTS < states(ckad.grad(diffused)) < SLOTS + 6
    assert 2 * SLOTS < states(lambda u, n: ckad.hvp(lambda u: diffused(u, n), u, u)) < 2 * SLOTS + 14
    assert states(ckad.grad(diffused, checkpoint=5)) < 5 + 6


def test_a_limit_takes_fewer_slots():
    u = np.linspace(0.0, 1.0, 20_000)
    free = ckad.jit(ckad.grad(diffused))(u, np.int64(300))
    for slots in (50, 20, 10):
        limited = ckad.jit(ckad.grad(diffused), memory_limit=slots * u.nbytes)
        assert ckad.plan(limited)(u, np.int64(300)).peak_bytes <= slots * u.nbytes
        assert np.array_equal(limited(u, np.int64(300)), free)
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.jit(ckad.grad(diffused), memory_limit=u.nbytes)(u, np.int64(300))
    least = refused.value.minimum
    assert least < 10 * u.nbytes
    limited = ckad.jit(ckad.grad(diffused), memory_limit=least)
    assert np.array_equal(limited(u, np.int64(300)), free)
    with pytest.raises(ckad.errors.MemoryLimitError):
        ckad.jit(ckad.grad(diffused), memory_limit=least - 1)(u, np.int64(300))


def test_fewer_slots_are_more_work():
    """Nobody knows how much, but a frontier says that they cost, and has them all."""
    u, n = np.linspace(0.0, 1.0, 20_000), np.int64(300)
    points = ckad.memory_frontier(ckad.jit(ckad.grad(diffused)))(u, n)
    assert len(points) > 8
    for point in points:
        plan = ckad.plan(ckad.jit(ckad.grad(diffused), memory_limit=point.peak_bytes))(u, n)
        assert (plan.peak_bytes, plan.extra_flops) == (point.peak_bytes, point.extra_flops)
    everything = ckad.plan(ckad.jit(ckad.grad(diffused, checkpoint="none")))(u, n)
    assert (points[-1].peak_bytes, points[-1].extra_flops) == (everything.peak_bytes, 0)
    assert points[0].extra_flops > 30 * points[-2].extra_flops


def test_one_inside_the_other():
    def nested(a, n):
        def body(q):
            i, x = q
            return i + 1, np.tanh(a * ckad.fori_loop(0, i, lambda j, y: y + 0.01 * np.sin(y * a), x))

        return ckad.while_loop(lambda q: q[0] < n, body, (np.int64(0), a))[1]

    def plain(a, n):
        x = a
        for i in range(n):
            for _ in range(i):
                x = x + 0.01 * np.sin(x * a)
            x = np.tanh(a * x)
        return x

    for n in (0, 1, 10, 90):
        found = ckad.grad(ckad.jit(nested))(0.9, n)
        np.testing.assert_allclose(found, ckad.grad(plain)(0.9, n), rtol=1e-9, atol=1e-14)
    second = ckad.hvp(lambda a: ckad.jit(nested)(a, 12), 0.9, 1.0)
    np.testing.assert_allclose(second, ckad.hvp(lambda a: plain(a, 12), 0.9, 1.0), rtol=1e-8)

    # In a loop of known length, whose states are computed anew, and in a branch.
    def in_a_scan(a, ns):
        def body(x, n):
            inner = ckad.fori_loop(0, n, lambda j, y: y + 0.01 * np.sin(y * a), x)
            return ckad.cond(x > 0.0, lambda y: ckad.fori_loop(0, n, lambda j, y: 0.99 * y, y), np.sin, inner), None

        return ckad.scan(body, a, ns)[0]

    def plainly(a, ns):
        x = a
        for n in ns:
            y = x
            for _ in range(n):
                y = y + 0.01 * np.sin(y * a)
            if x > 0.0:
                for _ in range(n):
                    y = 0.99 * y
            else:
                y = np.sin(y)
            x = y
        return x

    ns = np.array([0, 3, 70, 130, 1])
    for policy in ("none", "sqrt", 1):
        found = ckad.grad(in_a_scan, checkpoint=policy)(0.9, ns)
        np.testing.assert_allclose(found, ckad.grad(plainly)(0.9, ns), rtol=1e-10)


def test_two_loops_after_each_other_have_slots_of_their_own():
    u = np.linspace(0.0, 1.0, 50)

    def f(u, n, m):
        first = ckad.fori_loop(0, n, lambda i, u: np.sin(u) + 0.1 * u, u)
        return np.sum(ckad.fori_loop(0, m, lambda i, v: v * first + 0.1, first))

    known = ckad.grad(f)(u, 70, 130)
    for policy in ("auto", "sqrt", 2, ckad.Revolve(7)):
        found = ckad.jit(ckad.grad(f, checkpoint=policy))(u, np.int64(70), np.int64(130))
        assert np.array_equal(found, known)


def test_interrupts_are_heard_on_either_way():
    def f(x, n):
        return np.sum(ckad.fori_loop(0, n, lambda i, x: np.sin(x * 1.01), x))

    # A first sweep, and a way back from one state, that would never end.
    x = np.full(1000, 0.5)
    for policy, n in (("auto", 10**15), (1, 10**5)):
        jitted = ckad.jit(ckad.grad(f, checkpoint=policy))
        before = jitted(x, np.int64(3))
        timer = threading.Timer(2.0, _thread.interrupt_main)
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                jitted(x, np.int64(n))
        finally:
            timer.cancel()
            timer.join()
        assert np.array_equal(jitted(x, np.int64(3)), before)
