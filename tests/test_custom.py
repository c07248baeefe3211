"""`custom_jvp` and `custom_vjp`: the rule holds in every mode and order, and the result is the function's own."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import ckad
from ckad.errors import CkadTypeError, ShapeError


@ckad.custom_jvp
def softplus(x: Any) -> Any:
    return np.log(1.0 + np.exp(x))


@softplus.defjvp
def softplus_rule(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    return softplus(x), dx / (1.0 + np.exp(-x))


@ckad.custom_vjp
def product(x: Any, y: Any) -> Any:
    return x * y


# Told from the true derivative by a factor.
product.defvjp(lambda x, y: (x * y, (x, y)), lambda residuals, g: (10.0 * g * residuals[1], 10.0 * g * residuals[0]))

X = np.linspace(-2.0, 2.0, 7)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def test_outside_of_transforms_it_is_the_function() -> None:
    assert_array_equal(softplus(X), np.log(1.0 + np.exp(X)))
    assert isinstance(softplus(X), np.ndarray)
    assert product(2.0, 3.0) == 6.0
    assert softplus.__name__ == "softplus"


def test_the_rule_holds_in_both_modes(policy: Any) -> None:
    f = lambda x: np.sum(softplus(x) ** 2)
    expected = 2.0 * np.log1p(np.exp(X)) * sigmoid(X)
    assert_allclose(ckad.grad(f, checkpoint=policy)(X), expected, rtol=1e-12)
    _, tangent = ckad.jvp(f, (X,), (np.ones_like(X),), checkpoint=policy)
    assert_allclose(tangent, expected.sum(), rtol=1e-12)
    # Where the operations themselves have overflown.
    assert ckad.grad(softplus)(800.0) == 1.0
    assert ckad.grad(lambda x: np.log(1.0 + np.exp(x)))(800.0) != 1.0


def test_higher_orders_go_through_the_rule() -> None:
    s = sigmoid(X)
    second = s * (1.0 - s)
    third = second * (1.0 - 2.0 * s)
    f = lambda x: np.sum(softplus(x))
    assert_allclose(ckad.hvp(f, X, np.ones_like(X)), second, rtol=1e-12)
    g = lambda x: np.sum(ckad.grad(f)(x))
    assert_allclose(ckad.grad(g)(X), second, rtol=1e-12)
    assert_allclose(ckad.grad(lambda x: np.sum(ckad.grad(g)(x)))(X), third, rtol=1e-10, atol=1e-15)
    assert_allclose(ckad.jacobian(softplus, mode="forward")(X), np.diag(s), rtol=1e-12)
    assert_allclose(ckad.jacobian(softplus, mode="reverse")(X), np.diag(s), rtol=1e-12)


def test_cotangents_are_those_of_the_rule(policy: Any) -> None:
    f = lambda x, y: np.sum(np.sin(product(x, y)))
    gx, gy = ckad.grad(f, (0, 1), checkpoint=policy)(X, 2.0 * X)
    outer = np.cos(2.0 * X * X)
    assert_allclose(gx, 10.0 * outer * 2.0 * X, rtol=1e-12)
    assert_allclose(gy, 10.0 * outer * X, rtol=1e-12)
    # One of the two alone, the other a plain array.
    assert_allclose(ckad.grad(f)(X, 2.0 * X), gx)
    value, pullback = ckad.vjp(lambda x: product(x, 3.0), X)
    assert_array_equal(value, 3.0 * X)
    assert_allclose(pullback(np.ones_like(X))[0], 30.0 * np.ones_like(X))


def test_second_order_goes_through_the_residuals() -> None:
    f = lambda x: np.sum(product(x, x))
    # d/dx 20 x, by the operations of the rule.
    assert_allclose(ckad.grad(lambda x: np.sum(ckad.grad(f)(x)))(X), np.full(7, 20.0))
    assert_allclose(ckad.hvp(f, X, np.ones_like(X)), np.full(7, 20.0))


def test_rules_need_not_be_linear() -> None:
    @ckad.custom_vjp
    def clip_gradient(low: float, high: float, x: Any) -> Any:
        return x

    clip_gradient.defvjp(lambda low, high, x: (x, (low, high)), lambda r, g: (None, None, np.clip(g, *r)))
    f = lambda x: np.sum(5.0 * clip_gradient(-1.0, 1.0, x) - 7.0 * clip_gradient(-2.0, 2.0, x))
    assert_array_equal(ckad.grad(f)(X), np.full(7, -1.0))


def test_several_results_and_pytrees() -> None:
    @ckad.custom_vjp
    def polar(z: dict[str, Any]) -> tuple[Any, Any, int]:
        return np.hypot(z["x"], z["y"]), np.arctan2(z["y"], z["x"]), 3

    def forward(z: dict[str, Any]) -> tuple[Any, Any]:
        return polar.fun(z), z

    def backward(z: dict[str, Any], g: Any) -> Any:
        radius, angle, _ = g
        return ({"x": radius + 2.0 * angle, "y": 3.0 * radius},)

    polar.defvjp(forward, backward)

    def f(z: dict[str, Any]) -> Any:
        radius, angle, three = polar(z)
        return np.sum(radius) + three * np.sum(angle)

    found = ckad.grad(f)({"x": X, "y": X + 5.0})
    assert_array_equal(found["x"], np.full(7, 7.0))
    assert_array_equal(found["y"], np.full(7, 3.0))
    # A result that nobody uses has a cotangent of zeros.
    found = ckad.grad(lambda z: np.sum(polar(z)[0]))({"x": X, "y": X + 5.0})
    assert_array_equal(found["x"], np.ones(7))


def test_rules_for_each_argument() -> None:
    @ckad.custom_jvp
    def f(x: Any, y: Any) -> Any:
        return x * np.sin(y)

    f.defjvps(lambda dx, out, x, y: 2.0 * dx, None)
    assert ckad.grad(f)(1.0, 2.0) == 2.0
    assert ckad.grad(f, argnums=1)(1.0, 2.0) == 0.0


def test_static_arguments_and_keywords() -> None:
    @ckad.custom_jvp
    def power(x: Any, n: int = 2) -> Any:
        return x**n

    power = ckad.custom_jvp(power.fun, nondiff_argnums=1)
    power.defjvp(lambda n, primals, tangents: (primals[0] ** n, 100.0 * n * tangents[0]))
    assert ckad.grad(lambda x: power(x, n=3))(2.0) == 300.0
    assert ckad.grad(power)(2.0) == 200.0


def test_in_loops_branches_and_under_jit(policy: Any) -> None:
    def looped(x: Any) -> Any:
        last, _ = ckad.scan(lambda c, _: (softplus(c) * 0.5, None), x, length=6)
        return np.sum(product(last, last))

    def plain(x: Any) -> Any:
        for _ in range(6):
            x = softplus(x) * 0.5
        return np.sum(product(x, x))

    expected = ckad.grad(plain)(X)
    assert_allclose(ckad.grad(looped, checkpoint=policy)(X), expected, rtol=1e-12)
    assert_allclose(ckad.jit(ckad.grad(looped, checkpoint=policy))(X), expected, rtol=1e-12)
    assert_allclose(ckad.grad(ckad.jit(looped))(X), expected, rtol=1e-12)
    chosen = ckad.jit(lambda x: ckad.cond(np.sum(x) > 0, lambda x: softplus(x), lambda x: product(x, x), x))
    assert_allclose(ckad.grad(lambda x: np.sum(chosen(x)))(X + 1.0), sigmoid(X + 1.0), rtol=1e-12)
    assert_allclose(ckad.grad(lambda x: np.sum(chosen(x)))(X - 1.0), 20.0 * (X - 1.0), rtol=1e-12)


def test_control_flow_on_values_looks_through() -> None:
    def f(x: Any) -> Any:
        y = softplus(x)
        return np.sum(y) if np.sum(y) > 0 else np.sum(-y)

    assert_allclose(ckad.grad(f)(X), sigmoid(X), rtol=1e-12)


def test_forward_mode_over_a_rule_for_cotangents_is_refused() -> None:
    with pytest.raises(CkadTypeError, match=r"\[custom_vjp\] forward mode .*custom_jvp"):
        ckad.jvp(lambda x: product(x, x), (X,), (X,))
    with pytest.raises(CkadTypeError, match="custom_vjp"):
        ckad.jacobian(lambda x: product(x, x), mode="forward")(X)
    assert_allclose(ckad.jacobian(lambda x: product(x, x))(X), np.diag(20.0 * X))


def test_arguments_may_come_from_around_a_loop() -> None:
    # What the function computes of those alone is computed in the loop, where the rule knows of it.
    of_cotangents = ckad.custom_vjp(lambda x, y: np.tanh(x) * np.cos(y))
    of_cotangents.defvjp(
        lambda x, y: (np.tanh(x) * np.cos(y), (np.tanh(x), y)),
        lambda r, g: (g * (1.0 - r[0] ** 2) * np.cos(r[1]), -g * r[0] * np.sin(r[1])),
    )
    of_tangents = ckad.custom_jvp(lambda x, y: np.tanh(x) * np.cos(y))

    @of_tangents.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x, y), (dx, dy) = primals, tangents
        slope = (1.0 - np.tanh(x) ** 2) * np.cos(y)
        return of_tangents(x, y), slope * dx - np.tanh(x) * np.sin(y) * dy

    def plain(v: Any) -> Any:
        c = v
        for _ in range(3):
            c = np.tanh(v) * np.cos(c) + np.tanh(c) * np.cos(v)
        return np.sum(c)

    expected, product_ = ckad.grad(plain)(X), ckad.hvp(plain, X, X)
    for f in (of_cotangents, of_tangents):
        step = lambda v, f=f: lambda i, c: f(v, c) + f(c, v)
        for g in (
            lambda v, step=step: np.sum(ckad.fori_loop(0, 3, step(v), v)),
            lambda v, step=step: np.sum(ckad.fori_loop(0, 3, ckad.checkpoint(step(v)), 1.0 * v)),
        ):
            for h in (g, ckad.jit(g)):
                assert_allclose(ckad.grad(h)(X), expected, rtol=1e-12)
                assert_allclose(ckad.hvp(h, X, X), product_, rtol=1e-10)

    def of_the_index(v: Any) -> Any:
        def step(i: Any, c: Any) -> Any:
            f = ckad.custom_jvp(lambda x: np.sin(x) * (i + 1))
            f.defjvp(lambda primals, tangents: (f(*primals), np.cos(primals[0]) * (i + 1) * tangents[0]))
            return f(v) + c

        return np.sum(ckad.fori_loop(0, 3, step, v))

    assert_allclose(ckad.grad(of_the_index)(X), 6.0 * np.cos(X) + 1.0, rtol=1e-12)


def test_rules_may_call_the_function() -> None:
    # As JAX's documentation has it: the rule of a fixed point solves the adjoint equation, which is one itself.
    @functools.partial(ckad.custom_vjp, nondiff_argnums=(0,))
    def fixed_point(f: Any, a: Any, x: Any) -> Any:
        goes_on = lambda pair: np.max(np.abs(pair[0] - pair[1])) > 1e-14
        return ckad.while_loop(goes_on, lambda pair: (pair[1], f(a, pair[1])), (x, f(a, x)))[1]

    def forward(f: Any, a: Any, x: Any) -> Any:
        x = fixed_point(f, a, x)
        return x, (a, x)

    def backward(f: Any, residuals: Any, g: Any) -> Any:
        a, x = residuals
        _, by_x = ckad.vjp(lambda x: f(a, x), x)
        _, by_a = ckad.vjp(lambda a: f(a, x), a)
        return by_a(fixed_point(lambda g, w: g + by_x(w)[0], g, g))[0], np.zeros_like(x)

    fixed_point.defvjp(forward, backward)
    at = lambda a, x: fixed_point(lambda a, x: np.cos(a * x), a, x)
    a = np.array([0.5, 0.7])
    x = at(a, np.ones(2))
    slope = -np.sin(a * x) * x / (1.0 + a * np.sin(a * x))
    f = lambda a: np.sum(at(a, np.ones(2)) ** 2)
    for g in (f, ckad.jit(f)):
        assert_allclose(ckad.grad(g)(a), 2.0 * x * slope, rtol=1e-10)
    # In a loop.
    looped = lambda a: np.sum(ckad.scan(lambda c, _: (c + at(a, c), None), np.ones(2), length=3)[0])
    assert_allclose(ckad.grad(looped)(a), 3.0 * slope, rtol=1e-10)


def test_what_is_wrong_is_said() -> None:
    bare = ckad.custom_jvp(np.sin)
    with pytest.raises(RuntimeError, match="has no rule yet"):
        bare(1.0)
    bare.defjvp(lambda primals, tangents: np.sin(primals[0]))
    with pytest.raises(CkadTypeError, match="must return a pair"):
        ckad.grad(lambda x: bare(x))(1.0)
    wrong = ckad.custom_jvp(np.sin)
    wrong.defjvp(lambda primals, tangents: (np.sin(primals[0]), np.zeros(3)))
    with pytest.raises(ShapeError, match="the rule gives"):
        ckad.grad(lambda x: wrong(x))(1.0)
    wrong.defjvp(lambda primals, tangents: (np.zeros(3), tangents[0]))
    with pytest.raises(ShapeError, match=r"the rule gives float64\(3,\) for the result of float64\(\)"):
        ckad.grad(lambda x: wrong(x))(1.0)
    wrong.defjvp(lambda primals, tangents: ((primals[0],), tangents[0]))
    with pytest.raises(CkadTypeError, match="let the result that it returns have the structure"):
        ckad.grad(lambda x: wrong(x))(1.0)
    two = ckad.custom_jvp(lambda x, y: x * y)
    two.defjvps(lambda dx, out, x, y: dx * y)
    with pytest.raises(CkadTypeError, match="1 rules for 2 arguments"):
        ckad.grad(two)(1.0, 2.0)
    with pytest.raises(CkadTypeError, match=r"\[defjvps\] a function is wanted"):
        two.defjvps(3.0, None)  # pyright: ignore[reportArgumentType]
    few = ckad.custom_vjp(lambda x, y: x + y)
    few.defvjp(lambda x, y: (x + y, None), lambda r, g: g)
    with pytest.raises(CkadTypeError, match="cotangent for each of 2 arguments"):
        ckad.grad(few)(1.0, 2.0)
    for numbers in (-1, 1.0, None, "x", (0, True)):
        with pytest.raises(ValueError, match="nondiff_argnums has"):
            ckad.custom_vjp(np.sin, nondiff_argnums=numbers)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="a function is wanted"):
        ckad.custom_jvp(3.0)  # pyright: ignore[reportArgumentType]


def test_second_order_of_a_rule_for_cotangents_in_loops_and_branches() -> None:
    # Told from the true derivative by a factor: higher orders go through the operations of fwd and bwd, everywhere.
    @ckad.custom_vjp
    def f(x: Any) -> Any:
        return np.tanh(x) * 2.0

    f.defvjp(lambda x: (np.tanh(x) * 2.0, {"x": x}), lambda r, g: (3.0 * g * np.cos(r["x"]),))

    def plain(x: Any) -> Any:
        c = x
        for _ in range(4):
            c = f(c) * 0.3 + x if np.sum(c) > -100 else c
        return np.sum(c * c)

    def scanned(x: Any) -> Any:
        return np.sum(ckad.scan(lambda c, _: (f(c) * 0.3 + x, f(c)), x, length=4)[0] ** 2)

    def repeated(x: Any) -> Any:
        step = lambda state: (state[0] + 1, f(state[1]) * 0.3 + x)
        return np.sum(ckad.while_loop(lambda state: state[0] < 4, step, (0, x))[1] ** 2)

    def chosen(x: Any) -> Any:
        step = lambda c, _: (ckad.cond(np.sum(c) > -100, lambda c: f(c) * 0.3 + x, lambda c: c, c), None)
        return np.sum(ckad.scan(step, x, length=4)[0] ** 2)

    v = np.cos(X)
    gradient, product_ = ckad.grad(plain)(X), ckad.hvp(plain, X, v)
    for g in (scanned, repeated, chosen, ckad.jit(scanned), ckad.jit(repeated), ckad.jit(chosen)):
        assert_allclose(ckad.grad(g)(X), gradient, rtol=1e-12)
        assert_allclose(ckad.hvp(g, X, v), product_, rtol=1e-12)
    for g in (plain, scanned, repeated, chosen, ckad.jit(scanned), ckad.jit(chosen)):
        assert_allclose(ckad.grad(lambda x, g=g: np.sum(ckad.grad(g)(x) * v))(X), product_, rtol=1e-12)
    with pytest.raises(CkadTypeError, match=r"forward mode reaches .*test_custom\.py:\d+"):
        ckad.jvp(scanned, (X,), (v,))


def test_a_rule_in_terms_of_the_result_holds_in_all_orders() -> None:
    def tripled(order: Any) -> Any:
        f = ckad.custom_jvp(lambda x: order(np.exp(x)))

        @f.defjvp
        def rule(primals: Any, tangents: Any) -> Any:
            y = f(*primals)
            return y, 3.0 * y * order(tangents[0])

        return f

    x = np.arange(6.0).reshape(2, 3) / 7.0
    for order in (lambda a: a, np.transpose, lambda a: a[:, ::-1], lambda a: a.T.copy().T):
        f = tripled(order)
        assert_allclose(ckad.hvp(lambda x, f=f: np.sum(f(x)), x, np.ones_like(x)), 9.0 * np.exp(x), rtol=1e-12)
        second = ckad.grad(lambda x, f=f: np.sum(ckad.grad(lambda x: np.sum(f(x)))(x)))
        assert_allclose(second(x), 9.0 * np.exp(x), rtol=1e-12)
        assert_allclose(ckad.grad(lambda x, second=second: np.sum(second(x)))(x), 27.0 * np.exp(x), rtol=1e-12)


def test_rules_are_programs_of_their_own() -> None:
    # They write into arrays made like arguments and residuals, and into these, and look at what has a value.
    @ckad.custom_vjp
    def f(x: Any, n: Any) -> Any:
        return x * n

    def backward(r: Any, g: Any) -> Any:
        x, n = r
        out = np.zeros_like(x)
        out[1:] += 2.0 * g[1:]
        out[0] = g[0] if n > 2.0 else -g[0]
        x *= 100.0
        if np.sum(x) > 0.0:
            out += x[::-1]
        return out, None

    f.defvjp(lambda x, n: (x * n, (x, n)), backward)
    y = np.arange(1.0, 4.0)
    for n, sign in ((3.0, 1.0), (1.0, -1.0)):
        found = ckad.grad(lambda x, n: np.sum(f(x, n) + x), (0, 1))(y, n)
        assert_array_equal(found[0], [sign + 301.0, 203.0, 103.0])
        assert found[1] == 0.0

    @ckad.custom_jvp
    def g(x: Any) -> Any:
        return x * x

    @g.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x,), (dx,) = primals, tangents
        out = np.zeros_like(x)
        out[:2] = 5.0 * dx[:2]
        if x[0] > 1.5:
            out[2] = x[1] * dx[2]
        x[0] = 100.0
        return g(x), out

    assert_array_equal(ckad.grad(lambda x: np.sum(g(x) + x))(y), [6.0, 6.0, 1.0])
    assert_array_equal(ckad.grad(lambda x: np.sum(g(x) + x))(y + 1.0), [6.0, 6.0, 4.0])
    with pytest.raises(ckad.errors.TracerError, match="in the rule of a ckad.custom_jvp"):
        ckad.grad(ckad.jit(lambda x: np.sum(g(x))))(y)
    h = ckad.custom_vjp(lambda x: x)
    h.defvjp(lambda x: (x, None), lambda r, g: (g if g > 0 else -g,))
    with pytest.raises(ckad.errors.TracerError, match="there cotangents have no values"):
        ckad.grad(lambda x: h(x))(1.0)


def test_none_in_place_of_a_part_of_a_cotangent() -> None:
    f = ckad.custom_vjp(lambda z: z["a"] * z["b"][0] + z["b"][1]["c"])
    x = {"a": 2.0, "b": (3.0, {"c": 4.0})}
    for parts, expected in (
        ({"a": 7.0, "b": None}, (7.0, 0.0, 0.0)),
        ({"a": None, "b": (8.0, None)}, (0.0, 8.0, 0.0)),
        ({"a": None, "b": (None, {"c": 9})}, (0.0, 0.0, 9.0)),
        (None, (0.0, 0.0, 0.0)),
    ):
        f.defvjp(lambda z: (f.fun(z), None), lambda r, g, parts=parts: (parts,))
        found = ckad.grad(f)(x)
        assert (found["a"], found["b"][0], found["b"][1]["c"]) == expected
    for parts in (1.0, {"a": 1.0}, {"a": 1.0, "b": 2.0}, {"a": (1.0,), "b": None}):
        f.defvjp(lambda z: (f.fun(z), None), lambda r, g, parts=parts: (parts,))
        with pytest.raises(CkadTypeError, match="bwd gives PyTreeSpec"):
            ckad.grad(f)(x)


def test_rules_for_tangents_are_linear() -> None:
    def ruled(rule: Any) -> Any:
        f = ckad.custom_jvp(lambda x: x * 2.0)
        f.defjvp(lambda primals, tangents: (primals[0] * 2.0, rule(primals[0], tangents[0])))
        return f

    for rule in (lambda x, t: t * t, lambda x, t: np.sin(t), lambda x, t: np.maximum(t, 0.0), lambda x, t: np.abs(t)):
        with pytest.raises(CkadTypeError, match="not linear in the tangents"):
            ckad.grad(ruled(rule))(1.0)
        with pytest.raises(CkadTypeError, match="not linear in the tangents"):
            ckad.jvp(ruled(rule), (1.0,), (3.0,))
    loop = lambda x, t: ckad.fori_loop(0, 3, lambda i, c: c * x, t)
    until = lambda x, t: ckad.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, t))[1]
    side = lambda x, t: ckad.cond(x > 0, lambda t: t * 8.0, lambda t: t, t)
    for rule in (
        lambda x, t: t * 8.0,
        lambda x, t: np.where(x > 0, 8.0 * t, t / x),
        loop,
        until,
        side,
        lambda x, t: ckad.jvp(lambda x: x**2 * 2.0, (x,), (t,))[1],
    ):
        assert_allclose(ckad.grad(ruled(rule))(2.0), 8.0)
        assert_allclose(ckad.jvp(ckad.jit(ruled(rule)), (2.0,), (3.0,))[1], 24.0)


@pytest.mark.parametrize("kind", ["custom_jvp", "custom_vjp"])
def test_no_gradient_is_lost_past_the_arguments(kind: str) -> None:
    def f(a: Any, x: Any) -> Any:
        if kind == "custom_jvp":
            scaled = ckad.custom_jvp(lambda x: x * a)
            scaled.defjvp(lambda primals, tangents: (primals[0] * a, 5.0 * tangents[0]))
        else:
            scaled = ckad.custom_vjp(lambda x: x * a)
            scaled.defvjp(lambda x: (x * a, None), lambda r, g: (5.0 * g,))
        return np.sum(scaled(x))

    looped = lambda a, x: ckad.scan(lambda c, _: (f(a, c * x), None), 1.0, length=2)[0]
    for g in (f, ckad.jit(f), looped, ckad.jit(looped)):
        ckad.grad(g, 1)(2.0, X)
        with pytest.raises(CkadTypeError, match=rf"\[{kind}\] .* would lose its gradient.*test_custom\.py:\d+"):
            ckad.grad(g)(2.0, X)
    # What its hint says.
    assert ckad.grad(lambda a: f(ckad.stop_gradient(a), X) + a)(2.0) == 1.0
    # An argument may be a part of what is differentiated.
    x = np.arange(6.0).reshape(2, 3)
    for view in (np.transpose, np.ravel, np.diagonal, lambda x: x[1:, ::2], lambda x: x[0, 1], lambda x: x[::-1]):
        found = ckad.grad(lambda x, view=view: f(2.0, view(x)))(x)
        assert_array_equal(found, 5.0 * ckad.grad(lambda x, view=view: np.sum(view(x)))(x))


def test_an_argument_without_a_cotangent_is_an_argument() -> None:
    f = ckad.custom_vjp(lambda x, n: x * n)
    f.defvjp(lambda x, n: (x * n, x), lambda r, g: (7.0 * g, None))
    assert ckad.grad(f, (0, 1))(3.0, 4.0) == (7.0, 0.0)
    assert ckad.grad(lambda n: ckad.scan(lambda c, _: (f(c, n), None), n, length=2)[0])(3.0) == 49.0
