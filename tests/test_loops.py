"""Loops as primitives against the same loops written in Python: values, and derivatives of every kind and order."""

from __future__ import annotations

import numpy as np
import pytest
from loop_programs import POLICIES, cases, close, described, differentiable, generator, of, python_scan, tangent_like

import ckad


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


def test_fori_loops():
    def power(n, lower=0):
        return lambda x: ckad.fori_loop(lower, n, lambda i, y: y * x + i, 1.0)

    def slow(n, lower=0):
        def f(x):
            y = 1.0
            for i in range(lower, n):
                y = y * x + i
            return y

        return f

    for n, lower in ((0, 0), (1, 0), (5, 0), (7, 3), (2, 5)):
        close(power(n, lower)(1.5), slow(n, lower)(1.5))
        close(ckad.value_and_grad(power(n, lower))(1.5), ckad.value_and_grad(slow(n, lower))(1.5))
    # A bound that jit traces makes the length unknown.
    jitted = ckad.jit(lambda n, x: power(n)(x))
    for n in (0, 3, 6):
        close(jitted(np.int64(n), 1.5), slow(n)(1.5))
        close(ckad.jvp(lambda x, n=n: jitted(np.int64(n), x), (1.5,), (1.0,))[1], ckad.grad(slow(n))(1.5))
    assert ckad.fori_loop(0, 3, lambda i, x: x, {"a": 1.0, "b": (2, None)}) == {"a": 1.0, "b": (2, None)}


def test_branches():
    def f(x, y):
        return ckad.cond(np.sum(x) > 0, lambda x: np.sum(np.sin(x) * y), lambda x: np.sum(x * x) - y[0], x)

    def slow(x, y):
        return np.sum(np.sin(x) * y) if np.sum(x) > 0 else np.sum(x * x) - y[0]

    g = generator()
    for sign in (1.0, -1.0):
        x, y, v = sign * np.abs(g.normal(size=4)), g.normal(size=4), g.normal(size=4)
        close(f(x, y), slow(x, y))
        close(ckad.value_and_grad(f, (0, 1))(x, y), ckad.value_and_grad(slow, (0, 1))(x, y))
        jitted = ckad.jit(f)
        close(jitted(x, y), slow(x, y))
        close(ckad.value_and_grad(jitted, (0, 1))(x, y), ckad.value_and_grad(slow, (0, 1))(x, y))
        close(ckad.jit(ckad.grad(f))(x, y), ckad.grad(slow)(x, y))
        close(ckad.jvp(jitted, (x, y), (v, v)), ckad.jvp(slow, (x, y), (v, v)))
        close(ckad.hvp(lambda x, y=y, f=jitted: f(x, y), x, v), ckad.hvp(lambda x, y=y: slow(x, y), x, v))
        along = ckad.grad(lambda x, y=y, v=v, f=jitted: np.sum(ckad.grad(lambda x: f(x, y))(x) * v))
        close(along(x), ckad.hvp(lambda x, y=y: slow(x, y), x, v))
        close(ckad.linearize(jitted, x, y)[1](v, v), ckad.jvp(slow, (x, y), (v, v))[1])


def test_a_branch_in_a_loop():
    def f(scan, choose):
        def g(x, ts):
            def step(s, t):
                return choose(s > 0.3, lambda s: np.sin(s) * t, lambda s: s * s + x * t, s), s

            s, ys = scan(step, x, ts)
            return s * np.sum(ys)

        return g

    def python_choose(pred, true, false, s):
        return true(s) if pred else false(s)

    ts = np.linspace(0.1, 1.9, 9)
    expected = ckad.value_and_grad(f(python_scan, python_choose), (0, 1))(0.7, ts)
    for policy in POLICIES:
        found = ckad.value_and_grad(f(ckad.scan, ckad.cond), (0, 1), checkpoint=policy)(0.7, ts)
        close(found, expected)
    for x in (0.2, 0.7):
        slow = ckad.grad(ckad.grad(lambda x: f(python_scan, python_choose)(x, ts)))(x)
        close(ckad.grad(ckad.grad(lambda x: f(ckad.scan, ckad.cond)(x, ts)))(x), slow, 1e-9)
        close(ckad.hvp(lambda x: f(ckad.scan, ckad.cond)(x, ts), x, 1.0), slow, 1e-9)


def test_a_known_choice_records_one_side():
    def never(x):
        raise AssertionError(x)

    assert ckad.cond(True, lambda x: x + 1, never, 1) == 2
    assert ckad.grad(lambda x: ckad.cond(x > 0, lambda x: x * x, never, x))(3.0) == 6.0


@pytest.mark.parametrize("n", [1, 2, 3, 10, 57])
@pytest.mark.parametrize("policy", ["sqrt", 1, 2, 5])
def test_recomputed_states_change_no_bit(n, policy):
    g = generator()
    w, x0, xs = g.normal(size=(3, 3)) / 3, g.normal(size=3), g.normal(size=(n, 3))

    def f(w, x0, xs, reverse=False):
        def step(state, x):
            u, v = state
            return (np.tanh(w @ u + v * x), v + 0.1 * u), u * x

        (u, v), ys = ckad.scan(step, (x0, x0 * 2.0), xs, reverse=reverse)
        return np.sum(u * v) + np.sum(ys * ys)

    for reverse in (False, True):

        def gradient(policy, reverse=reverse):
            return ckad.value_and_grad(lambda w, x0, xs: f(w, x0, xs, reverse), (0, 1, 2), checkpoint=policy)

        kept, found = gradient("none")(w, x0, xs), gradient(policy)(w, x0, xs)
        pairs = zip(ckad.tree.flatten(kept)[0], ckad.tree.flatten(found)[0], strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_memory_of_checkpointed_loops():
    n, size = 1000, 1000
    u0 = np.linspace(0.0, 1.0, size)

    def f(u0):
        def step(u, _):
            return u + 0.1 * np.sin(u), None

        return np.sum(ckad.scan(step, u0, length=n)[0] ** 2)

    def plan(**how):
        return ckad.plan(ckad.grad(f, **how))(u0)

    state = u0.nbytes
    none, sqrt = plan(checkpoint="none"), plan(checkpoint="sqrt")
    assert none.peak_bytes > n * state
    # C(44 + 2, 2) ≥ 1000: 44 states, a few more for the adjoint and on the way.
    assert sqrt.peak_bytes < 60 * state
    # Steps computed again: what the binomial schedule needs, beyond the first sweep.
    again = sqrt.extra_flops / (sqrt.forward_flops / n)
    assert again < 1000
    limited = plan(memory_limit=30 * state)
    assert limited.peak_bytes <= 30 * state
    first = ckad.grad(f, checkpoint="none")(u0)
    for how in ({"checkpoint": "sqrt"}, {"memory_limit": 30 * state}, {"checkpoint": 10}):
        assert np.array_equal(ckad.grad(f, **how)(u0), first)
    with pytest.raises(ckad.errors.MemoryLimitError) as refused:
        ckad.grad(f, memory_limit=state)(u0)
    least = refused.value.minimum
    assert plan(memory_limit=least).peak_bytes <= least
    with pytest.raises(ckad.errors.MemoryLimitError):
        ckad.grad(f, memory_limit=least - 1)(u0)


def test_odd_loops():
    # Nothing to do.
    carry, ys = ckad.scan(lambda c, x: (c + x, c * x), 1.5, np.zeros(0))
    assert carry == 1.5
    assert ys.shape == (0,)
    assert ckad.grad(lambda a: ckad.scan(lambda c, x: (c * a + x, c), a, np.zeros(0))[0])(2.0) == 1.0
    carry, ys = ckad.scan(lambda c, x: (c, x * 2), np.zeros((0, 3)), np.zeros((4, 0)))
    assert carry.shape == (0, 3)
    assert ys.shape == (4, 0)
    # A carry alone, stacked values alone, nothing at all.
    assert ckad.scan(lambda c, _: (c + 1, None), 0, length=4) == (4, None)
    assert np.array_equal(ckad.scan(lambda _, x: (None, x * x), None, np.arange(3.0))[1], [0.0, 1.0, 4.0])
    assert ckad.scan(lambda _, __: (None, None), None, length=3) == (None, None)
    # Two carries that change places.
    (a, b), _ = ckad.scan(lambda c, _: ((c[1], c[0] * 2.0), None), (np.ones(2), np.full(2, 3.0)), length=5)
    assert np.array_equal(a, [12.0, 12.0])
    assert np.array_equal(b, [8.0, 8.0])
    # A Python number takes the dtype that the body gives it.
    total, _ = ckad.scan(lambda s, x: (s + x, None), 0.0, np.ones(3, np.float32))
    assert total.dtype == np.float32
    assert total == 3.0
    # Results are the caller's own.
    x = np.ones(3)
    out, _ = ckad.scan(lambda c, _: (c, None), x, length=2)
    out[0] = 5.0
    assert x[0] == 1.0


def test_loops_without_carries_and_slices():
    # Of each of these the derivative has constants alone to read.
    def stacked(scan):
        return lambda v: np.sum(scan(lambda c, _: (c, np.sin(v) * v), 0.0, None, 3)[1] ** 2)

    def empty(scan):
        return lambda v: np.sum(scan(lambda c, _: (c * v[:0], np.cos(v)), v[1:1], None, 3)[1] ** 2)

    x = np.array([0.3, -0.4])
    for f in (stacked, empty):
        known, found = f(python_scan), f(ckad.scan)
        for g in (found, ckad.jit(found)):
            close(ckad.value_and_grad(g)(x), ckad.value_and_grad(known)(x))
            close(ckad.jvp(g, (x,), (x,)), ckad.jvp(known, (x,), (x,)))
            close(ckad.linearize(g, x)[1](x), ckad.linearize(known, x)[1](x))
            close(ckad.hvp(g, x, x), ckad.hvp(known, x, x))
            square = lambda g: ckad.grad(lambda x: np.sum(ckad.grad(g)(x) ** 2))(x)
            close(square(g), square(known))


def test_a_body_writes_into_arrays_that_it_makes():
    def program(scan, make):
        def f(v):
            m = np.outer(v, v)

            def step(c, x):
                new = make(v, m)
                new[1:3] += c[:2] * x
                other = make(v, m)[::-1]
                other[0] = np.sum(c)
                return np.sin(new) + 0.1 * other, new[1]

            c, ys = scan(step, v, v)
            return np.sum(c) + np.sum(ys)

        return f

    x = np.array([0.1, 0.4, -0.3, 0.7])
    for make in (
        lambda v, m: v.copy(),
        lambda v, m: np.copy(m[1]),
        lambda v, m: m.T.copy()[:, 0],
        lambda v, m: np.sin(v).copy(),
        lambda v, m: np.zeros_like(v),
        lambda v, m: np.full_like(m, 2.0)[0],
        lambda v, m: np.ones(4, like=v),
        lambda v, m: np.array(m[2], like=v),
    ):
        known, found = program(python_scan, make), program(ckad.scan, make)
        for g in (found, ckad.jit(found)):
            close(ckad.value_and_grad(g)(x), ckad.value_and_grad(known)(x))
        close(ckad.hvp(found, x, x), ckad.hvp(known, x, x))


def test_numbers_of_pythons_take_the_dtype_that_the_body_gives_them():
    f32, i32 = np.float32, np.int32
    scan, add = ckad.scan, lambda c, x: (c + x, None)
    for dtype in (f32, i32, np.uint8, np.float64):
        for first in (0, True, False, 2):
            expected = of(dtype, 3 + first)
            assert described(scan(add, first, np.arange(3, dtype=dtype))) == [expected]
            assert described(ckad.jit(lambda c, x: scan(add, c, x))(first, np.arange(3, dtype=dtype))) == [expected]
    assert described(ckad.fori_loop(0, 3, lambda i, c: c * 0.5, 1)) == [of(float, 0.125)]
    assert described(ckad.fori_loop(0, 3, lambda i, c: c * f32(0.5), 1)) == [of(f32, 0.125)]
    assert described(ckad.while_loop(lambda c: c > 0.1, lambda c: c * 0.5, 1)) == [of(float, 0.0625)]
    assert described(ckad.jit(lambda x: ckad.while_loop(lambda c: c > x, lambda c: c * 0.5, 1))(0.1)) == [
        of(float, 0.0625)
    ]
    assert described(ckad.fori_loop(0, 3, lambda i, c: c + i, 0)) == [of(int, 3)]
    # One after another; a number that has become another number of Python's widens nothing.
    assert described(ckad.fori_loop(0, 3, lambda i, c: (c[1], c[0]), (0, 1.0))) == [of(float, 1.0), of(float, 0.0)]
    halves = scan(lambda c, x: ((c[0] * 0.5, c[1] + c[0] * x), None), (1, 1), np.arange(3, dtype=f32))
    assert described(halves) == [of(float, 0.125), of(f32, 2.0)]
    # What the body returns takes the carry's.
    assert described(scan(lambda c, _: (0, c), f32(1), length=2)) == [of(f32, 0.0), of(f32, [1.0, 0.0])]
    gradient = ckad.grad(lambda a: scan(lambda c, x: (c + a * x, None), 0, np.arange(3, dtype=f32))[0])(f32(2))
    assert gradient.dtype == f32
    assert gradient == 3.0
    # But not the other way round.
    with pytest.raises(ckad.errors.ShapeError, match=r"goes in as int32\(\) and comes out as float64\(\)"):
        scan(lambda c, _: (0.5, None), i32(1), length=2)
    with pytest.raises(ckad.errors.ShapeError, match=r"goes in as int64\(\) and comes out as bool\(\)"):
        scan(lambda c, _: (np.isnan(c), None), 1, length=2)
    with pytest.raises(OverflowError, match=r"\[scan\] Python integer 300 out of bounds for uint8"):
        scan(add, 300, np.arange(3, dtype=np.uint8))


def test_numbers_of_pythons_take_the_dtype_of_the_other_side():
    f32, i32 = np.float32, np.int32

    def chosen(true_fn, false_fn, *operands):
        given = [described(ckad.jit(lambda p: ckad.cond(p > 0, true_fn, false_fn, *operands))(p)) for p in (1.0, -1.0)]
        return [leaf for leaves in given for leaf in leaves]

    for number in (lambda x: 0.0, lambda x: 0, lambda x: False):
        assert chosen(lambda x: x, number, f32(2)) == [of(f32, 2.0), of(f32, 0.0)]
        assert chosen(number, lambda x: x, f32(2)) == [of(f32, 0.0), of(f32, 2.0)]
    assert chosen(lambda x: 3, lambda x: x, i32(2)) == [of(i32, 3), of(i32, 2)]
    assert chosen(lambda x: x * f32(2), lambda x: x, 3) == [of(f32, 6.0), of(f32, 3.0)]
    assert chosen(lambda: 1, lambda: 0.5) == [of(float, 1.0), of(float, 0.5)]
    both = chosen(lambda x: (0, x), lambda x: (x, 1), f32(2))
    assert both == [of(f32, 0.0), of(f32, 2.0), of(f32, 2.0), of(f32, 1.0)]
    slope = ckad.grad(ckad.jit(lambda x: ckad.cond(x > 0, lambda x: x * x, lambda x: 0, x)))
    assert described((slope(f32(3)), slope(f32(-3)))) == [of(f32, 6.0), of(f32, 0.0)]
    with pytest.raises(ckad.errors.ShapeError, match=r"true_fn returns int32\(\) and false_fn float64\(\)"):
        chosen(lambda x: x, lambda x: 0.5, i32(2))


def test_programs_are_found_again():

    def f(x, scale):
        return ckad.scan(lambda s, t: (np.sin(s * scale) + t * 0.3, s), x, np.linspace(0.0, 1.0, 5))[0]

    gradient = ckad.grad(f)
    gradient(0.5, 2.0)
    before = ckad._core.building()
    for scale in (3.0, 4.0):
        gradient(0.7, scale)
    assert ckad._core.building() == before


def test_regions_in_bodies_know_of_no_others():
    """Verified at every step, as all tests are."""
    c = ckad.checkpoint

    def side(a):
        return ckad.cond(a > 0.1, lambda b: c(lambda b: np.sin(a) * b)(b), lambda b: b, a)

    close(ckad.value_and_grad(ckad.jit(side))(0.7), ckad.value_and_grad(lambda a: np.sin(a) * a)(0.7))

    def sides_in_a_scan(a):
        def step(q, _):
            return ckad.cond(q > 0.1, lambda q: c(lambda q: np.sin(q) * a)(q), lambda q: q, q), None

        return ckad.scan(step, a, length=3)[0]

    def plain(a):
        q = a
        for _ in range(3):
            q = np.sin(q) * a
        return q

    close(ckad.value_and_grad(sides_in_a_scan)(1.0), ckad.value_and_grad(plain)(1.0))
    close(ckad.hvp(sides_in_a_scan, 1.0, 1.0), ckad.hvp(plain, 1.0, 1.0))

    def unknown(a):
        return c(lambda a: ckad.while_loop(lambda q: q[0] < 3, lambda q: (q[0] + 1, np.sin(q[1]) * a), (0, a))[1])(a)

    jitted = ckad.jit(unknown)
    for f in (jitted, lambda a: c(jitted)(a)):
        close(ckad.jvp(f, (1.0,), (1.0,)), ckad.value_and_grad(plain)(1.0))
        close(ckad.value_and_grad(f)(1.0), ckad.value_and_grad(plain)(1.0))
        close(ckad.hvp(f, 1.0, 1.0), ckad.hvp(plain, 1.0, 1.0))
