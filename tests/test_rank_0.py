"""Arrays of rank 0 stay arrays, and scalars scalars: in gradients, tangents and auxiliary outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

import ckad


def is_array(x: Any) -> bool:
    return type(x) is np.ndarray


def test_a_gradient_is_what_came_in() -> None:
    square = lambda a: a * a
    for point in (np.array(2.0), np.array(2.0, np.float32)):
        gradient = ckad.grad(square)(point)
        assert is_array(gradient)
        assert (gradient.shape, gradient.dtype) == ((), point.dtype)
    assert type(ckad.grad(square)(np.float64(2.0))) is np.float64
    assert type(ckad.grad(square)(2.0)) is np.float64
    nested = ckad.grad(lambda a: ckad.grad(lambda b: b**3)(a) * 2.0)
    assert is_array(nested(np.array(2.0)))
    assert type(nested(2.0)) is np.float64
    _, pullback = ckad.vjp(square, np.array(2.0))
    assert is_array(pullback(1.0)[0])
    constant = ckad.vjp(lambda a: a * 0.0 + 1.0, np.array(2.0))[1](1.0)[0]
    assert is_array(constant)


def test_outputs_are_numpys() -> None:
    outputs = lambda x: (x[0, ...], x[0], np.sum(x), np.where(x[0] > 0, x[0], 0.0), np.reshape(x[:1], ()))
    x = np.arange(1.0, 4.0)
    found = ckad.value_and_grad(lambda x: (np.sum(x), outputs(x)), has_aux=True)(x)[0][1]
    assert [is_array(y) for y in found] == [is_array(y) for y in outputs(x)]
    values, tangents = ckad.jvp(outputs, (x,), (x,))
    assert [is_array(y) for y in values] == [is_array(y) for y in tangents] == [is_array(y) for y in outputs(x)]
    values, linear = ckad.linearize(outputs, x)
    assert [is_array(y) for y in values] == [is_array(y) for y in linear(x)] == [is_array(y) for y in outputs(x)]


def test_a_gradient_of_rank_0_is_changed_in_place() -> None:
    """In a training step, `g = grad(…)(w); g *= lr` changes g where w is an array."""

    def f(w: Any) -> Any:
        g = ckad.grad(lambda v: v**2)(w)
        h = g
        g *= 0.5
        return h * 1.0

    assert ckad.value_and_grad(f)(np.array(3.0)) == (3.0, 1.0)
    assert ckad.value_and_grad(f)(3.0) == (6.0, 2.0)
