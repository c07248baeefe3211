"""Transforms of transforms, closures over outer values, perturbation confusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckad


def test_second_derivative() -> None:
    assert ckad.grad(ckad.grad(np.sin))(0.3) == pytest.approx(-np.sin(0.3))


def test_fifth_derivative() -> None:
    f = np.tanh
    for _ in range(5):
        f = ckad.grad(f)
    t = np.tanh(0.3)
    expected = 16 * (1 - t**2) ** 3 - 88 * t**2 * (1 - t**2) ** 2 + 16 * t**4 * (1 - t**2)
    assert f(0.3) == pytest.approx(expected)


def test_perturbation_confusion() -> None:
    # d/dx [x · d/dy (x + y)] = 1: the inner derivative must not see the outer perturbation.
    assert ckad.grad(lambda x: x * ckad.grad(lambda y: x + y)(1.0))(2.0) == 1.0
    assert ckad.jvp(lambda x: x * ckad.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (2.0,), (1.0,))[1] == 1.0


def test_hessian_vector_product_of_a_gradient_norm(rng: np.random.Generator) -> None:
    a = rng.standard_normal((4, 4))
    h = a + a.T
    x, v = rng.standard_normal(4), rng.standard_normal(4)
    np.testing.assert_allclose(ckad.hvp(lambda x: 0.5 * x @ h @ x, x, v), h @ v, rtol=1e-12)
    gradient_norm = lambda x: np.sum(ckad.grad(lambda x: 0.5 * x @ h @ x)(x) ** 2)
    np.testing.assert_allclose(ckad.grad(gradient_norm)(x), 2 * h @ h @ x, rtol=1e-12)


def test_gradient_step_inside(policy: str | int) -> None:
    def inner(w: Any, rate: Any) -> Any:
        return np.sum(np.sin(rate * w) ** 2)

    def trained(rate: Any) -> Any:
        w = np.array([0.5, -0.3, 0.8], like=rate) if isinstance(rate, ckad.Tracer) else np.array([0.5, -0.3, 0.8])
        for _ in range(3):
            w = w - 0.1 * ckad.grad(inner, checkpoint=policy)(w, rate)
        return np.sum(w * w)

    ckad.check_grads(trained, (0.7,), order=2)


def test_closure_over_an_outer_value() -> None:
    def f(x: Any) -> Any:
        y = np.sin(x)
        return ckad.grad(lambda z: z * z * y)(x)

    assert ckad.grad(f)(0.4) == pytest.approx(2 * np.sin(0.4) + 2 * 0.4 * np.cos(0.4))


def test_jvp_of_vjp_and_linearize_inside(rng: np.random.Generator) -> None:
    x = rng.standard_normal(3)

    def f(x: Any) -> Any:
        _, pullback = ckad.vjp(np.sin, x)
        _, linear = ckad.linearize(lambda y: y * x, x)
        return np.sum(pullback(x)[0]) + np.sum(linear(x))

    ckad.check_grads(f, (x,), order=2)


def test_writing_an_inner_value_into_an_outer_array_raises() -> None:
    def f(x: Any) -> Any:
        buffer = np.zeros_like(x)

        def g(y: Any) -> Any:
            buffer[0] = y
            return y * y

        return np.sum(buffer) + ckad.grad(g)(x[0])

    with pytest.raises(ckad.errors.TracerError):
        ckad.grad(f)(np.ones(3))


def test_an_argument_that_is_not_differentiated_can_be_written_to_inside() -> None:
    """What the inner function makes of it is its own, as under one transform alone."""

    def f(x: Any, u: Any) -> Any:
        u = u * 1.0
        u[0] = x[1]
        return np.sum(u**2 * x)

    def in_place(x: Any, u: Any) -> Any:
        u["field"][0] = x[1]
        return np.sum(u["field"] ** 2 * x)

    x, u = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    gradient = np.array([4.0, 4.0 + 25.0, 36.0])
    np.testing.assert_array_equal(ckad.grad(f)(x, u), gradient)
    np.testing.assert_array_equal(ckad.jit(ckad.grad(f))(x, u), gradient)
    np.testing.assert_array_equal(ckad.grad(lambda x, u: np.sum(ckad.grad(f)(x, u)))(x, u), [4.0, 6.0, 0.0])
    np.testing.assert_array_equal(ckad.jvp(lambda u: ckad.grad(f)(x, u), (u,), (np.ones(3),))[1], [0.0, 10.0, 12.0])
    for transform in (
        ckad.grad(lambda x, u: np.sum(ckad.grad(in_place)(x, u)) + np.sum(u["field"])),
        ckad.jit(in_place),
    ):
        transform(x, {"field": u})
        np.testing.assert_array_equal(u, [4.0, 5.0, 6.0])

    def outer(u: Any, x: Any) -> Any:
        ckad.grad(in_place)(x, {"field": u})
        return np.sum(u * u)

    np.testing.assert_array_equal(ckad.grad(outer)(u, x), 2.0 * u)


def test_same_array_for_two_arguments() -> None:
    x = np.array([1.0, 2.0])
    a, b = ckad.grad(lambda p, q: np.sum(p * p * q), argnums=(0, 1))(x, x)
    np.testing.assert_array_equal(a, 2 * x * x)
    np.testing.assert_array_equal(b, x * x)


def test_one_outer_value_for_two_inner_arguments() -> None:
    def f(x: Any) -> Any:
        a, b = ckad.grad(lambda p, q: p * p * q, argnums=(0, 1))(x, x)
        return a + 10 * b

    assert ckad.grad(f)(3.0) == pytest.approx(2 * 2 * 3.0 + 20 * 3.0)


def test_linear_parts_that_are_known_belong_to_the_trace() -> None:
    x = np.ones(3)
    for inner in (
        lambda y: np.sum(ckad.vjp(lambda z: np.sum(np.sin(y)), y)[1](1.0)[0]),
        lambda y: np.sum(ckad.linearize(lambda z: np.sin(y), x)[1](x)),
        lambda y: np.sum(ckad.jacobian(lambda z: np.sin(y))(y)),
    ):
        np.testing.assert_array_equal(ckad.grad(inner)(x), np.zeros(3))
        assert ckad.jit(inner)(x) == 0.0
