"""Errors of a first hour with the transforms: each names what was called and says what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import CkadError, DTypeError, TracerError

FORM = re.compile(r"^\[[^\]\n]+\] .+\. Hint: .+", re.DOTALL)


@pytest.mark.parametrize(
    "name", ["grad", "value_and_grad", "jacobian", "jacobian_mode", "plan", "debug_nans", "hvp", "jvp", "check_grads"]
)
def test_errors_name_the_transform_that_was_called(name: str) -> None:
    one = {"hvp": lambda f: ckad.hvp(f, 1, 1.0), "jvp": lambda f: ckad.jvp(f, (1,), (1.0,))}
    one["check_grads"] = lambda f: ckad.check_grads(f, (1,))
    call = one.get(name, lambda f: getattr(ckad, name)(f)(1))
    with pytest.raises(CkadError, match=rf"^\[{name}\] args\[0\] has type int.*Hint: ") as caught:
        call(lambda x: x)
    assert caught.value.op == name


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "plan", "debug_nans", "hvp"])
@pytest.mark.parametrize("result", [np.ones(2), (1.0, 2.0), "text"], ids=["array", "tuple", "text"])
def test_what_is_no_scalar_is_refused_in_the_name_of_the_transform(name: str, result: Any) -> None:
    f = lambda x: x * result if isinstance(result, np.ndarray) else result
    with pytest.raises(CkadError, match=rf"^\[{name}\] the function returned .*Hint: "):
        ckad.hvp(f, 1.0, 1.0) if name == "hvp" else getattr(ckad, name)(f)(1.0)


def test_a_function_that_calls_a_transform_is_told_to_pass_it() -> None:
    x, g = np.ones(3), ckad.grad(lambda x: np.sum(x**3))
    for look in (ckad.plan, ckad.debug_nans):
        with pytest.raises(CkadError, match=rf"Hint: .*ckad\.{look.__name__}\(ckad\.grad\(f\)\)"):
            look(lambda x: g(x))(x)
        assert look(g)(x) is not None


def test_nothing_to_differentiate() -> None:
    for call, hint in (
        (lambda: ckad.grad(np.sin, argnums=())(1.0), "argnums=0"),
        (lambda: ckad.jvp(lambda: 1.0, (), ()), "at least one argument"),
        (lambda: ckad.vjp(lambda: 1.0), "at least one argument"),
        (lambda: ckad.grad(lambda x: x)(x=1.0), "by position"),
        (lambda: ckad.grad(lambda x, y: x * y, argnums=(0, 0))(1.0, 2.0), "each argument once"),
    ):
        with pytest.raises(CkadError, match=FORM) as caught:
            call()
        assert hint in str(caught.value.hint)


def test_directions_that_do_not_fit() -> None:
    x = np.ones(3)
    _, linear = ckad.linearize(np.sin, x)
    _, pullback = ckad.vjp(np.sin, x)
    for call, right in (
        (lambda v: ckad.jvp(np.sin, (x,), (v,)), "jvp"),
        (lambda v: linear(v), "linearize"),
        (lambda v: pullback(v), "vjp"),
        (lambda v: ckad.hvp(lambda x: np.sum(x), x, v), "hvp"),
    ):
        for wrong in (np.ones(2), [x], x * 1j):
            with pytest.raises(CkadError, match=rf"^\[{right}\] .*(tangent|cotangent).*Hint: "):
                call(wrong)
        call(np.ones_like(x))


X = np.array([0.5, 1.5, 2.0])


def total(x: Any) -> Any:
    return np.sum(x**3)


def no_return(x: Any) -> None:
    np.sum(x)


@dataclass
class Weights:
    w: float = 1.0


# Of calls that take a function: what is refused before anything is called, and words of the hint.
BEFORE_THE_CALL: list[tuple[Callable[[], Any], str]] = [
    (lambda: ckad.plan(ckad.grad(total)(X)), "ckad.plan(ckad.grad(f))(x)"),
    (lambda: ckad.debug_nans(ckad.grad(total)(X)), "ckad.debug_nans(ckad.grad(f))(x)"),
    (lambda: ckad.memory.profile(ckad.grad(total)(X)), "ckad.memory.profile(ckad.grad(f), x)"),
    (lambda: ckad.grad(3), "ckad.grad(f)(x)"),
    (lambda: ckad.value_and_grad("f"), "ckad.value_and_grad(f)(x)"),
    (lambda: ckad.jacobian(X), "ckad.jacobian(f)(x)"),
    (lambda: ckad.jacobian_mode(X), "ckad.jacobian_mode(f)(x)"),
    (lambda: ckad.trace(X), "ckad.trace(f)(x)"),
    (lambda: ckad.checkpoint("sqrt"), "ckad.checkpoint(f)(x)"),
    (lambda: ckad.vjp(X, total), "ckad.vjp(f, x)"),
    (lambda: ckad.linearize(X, total), "ckad.linearize(f, x)"),
    (lambda: ckad.jvp(X, (total,), (X,)), "ckad.jvp(f, (x,), (v,))"),
    (lambda: ckad.hvp(X, total, X), "ckad.hvp(f, x, v)"),
    (lambda: ckad.check_grads(X, (X,)), "ckad.check_grads(f, (x,))"),
    (lambda: ckad.check_grads(total, X), "check_grads(f, (x,))"),
    (lambda: ckad.grad(total, np.zeros(300)), "ckad.grad(f)(x)"),
    (lambda: ckad.grad(total, 1.5), "ckad.grad(f)(x)"),
    (lambda: ckad.jacobian(total, (0, "x")), "ckad.jacobian(f)(x)"),
    (lambda: ckad.plan(total, X), "ckad.plan(f)(x)"),
    (lambda: ckad.grad(total, checkpoint=10**30), "'none'"),
    (lambda: ckad.grad(total, checkpoint=X), "'none'"),
    (lambda: ckad.grad(total, checkpoint=ckad.Offload), "ckad.Offload()"),
    (lambda: ckad.scan(X, 0.0, X), "ckad.scan(f, init, xs)"),
    (lambda: ckad.fori_loop(0, 3, 1.0, total), "ckad.fori_loop(0, 10, body, init)"),
    (lambda: ckad.while_loop(total, 1.0, X), "ckad.while_loop(cond_fun, body_fun, init)"),
    (lambda: ckad.cond(True, X, total), "ckad.cond(pred, true_fn, false_fn, *operands)"),
    (lambda: ckad.custom_jvp(X), "@ckad.custom_jvp above"),
    (lambda: ckad.custom_vjp(X), "@ckad.custom_vjp above"),
    (lambda: ckad.custom_jvp(total).defjvp(X), "f.defjvp(rule)"),
    (lambda: ckad.custom_jvp(total).defjvps(X), "f.defjvps(lambda tangent"),
    (lambda: ckad.custom_vjp(total).defvjp(total, X), "f.defvjp(fwd, bwd)"),
]


@pytest.mark.parametrize(("call", "words"), BEFORE_THE_CALL, ids=[words for _, words in BEFORE_THE_CALL])
def test_what_is_no_function_and_no_position_is_refused_at_once(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(CkadError, match=FORM) as caught:
        call()
    assert words in (caught.value.hint or "")
    assert len(str(caught.value)) < 300
    assert not re.search(r"array\(|0\. |10{9}", str(caught.value))


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "jacobian", "jacobian_mode", "plan", "debug_nans"])
def test_a_forgotten_return(name: str) -> None:
    with pytest.raises(CkadError, match=rf"^\[{name}\] the function returned None: it has no return\. Hint: .*return"):
        getattr(ckad, name)(no_return)(X)


def test_a_forgotten_return_under_the_linear_transforms() -> None:
    for name, call in (
        ("jvp", lambda: ckad.jvp(no_return, (X,), (X,))),
        ("vjp", lambda: ckad.vjp(no_return, X)),
        ("linearize", lambda: ckad.linearize(no_return, X)),
        ("hvp", lambda: ckad.hvp(no_return, X, X)),
        ("check_grads", lambda: ckad.check_grads(no_return, (X,))),
    ):
        with pytest.raises(CkadError, match=rf"^\[{name}\] the function returned None"):
            call()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (X.astype(np.float16), "x.astype(np.float32)"),
        (X.astype(np.longdouble), "x.astype(np.float64)"),
        (X * 1j, "real and the imaginary part"),
        (1j, "real and the imaginary part"),
        (Weights(), "@ckad.nn.layer"),
        ("text", "no derivative"),
        (np.array(["text"]), "no derivative"),
        (np.datetime64("2020-01-01"), "no derivative"),
        (np.array([1, 2]), "x.astype(float)"),
        (3, "float(x)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_argument_that_is_no_float_is_told_what_fits(argument: Any, words: str) -> None:
    with pytest.raises(DTypeError, match=r"^\[grad\] args\[0\] has (d?type) .*Hint: ") as caught:
        ckad.grad(lambda x: 1.0)(argument)
    assert words in (caught.value.hint or "")


def test_structures_are_said_in_words() -> None:
    with pytest.raises(CkadError, match=r"is \[number, number, number\], expected array of shape \(3,\)") as caught:
        ckad.hvp(total, X, [1, 0, 0])
    assert "np.array([1.0, 0.0])" in (caught.value.hint or "")
    with pytest.raises(CkadError, match=r"is \(\{'b': number\},\), expected \(\{'a': number\},\)"):
        ckad.jvp(lambda d: d["a"], ({"a": 1.0},), ({"b": 1.0},))
    assert "PyTreeSpec" not in str(caught.value)


def written(x: Any) -> Any:
    y = np.zeros(3)
    y[0] = x[0]
    return np.sum(y)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (written, "y = np.zeros(n, like=x)"),
        (lambda x: np.sum(np.full(3, x[0])), "x * np.ones(n) in place of np.full(n, x)"),
        (
            lambda x: np.sum(np.full_like(np.ones(3), x[0])),
            "in place of np.full_like(y, x) write `x * np.ones_like(y)`",
        ),
        (lambda x: np.float64(x[0]), "x in place of np.float64(x)"),
        (lambda x: np.random.default_rng(0).normal(x[0]), "x + s * rng.normal(size=n)"),
        (lambda x: np.sum(np.linspace(0, x[0], 5)), "a + (b - a) * np.arange(5) / 4"),
    ],
    ids=["write", "full", "full_like", "float64", "normal", "linspace"],
)
def test_where_an_ordinary_array_is_wanted_the_hint_fits(f: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(TracerError, match=FORM) as caught:
        ckad.grad(f)(X)
    assert words in (caught.value.hint or "")


@pytest.mark.parametrize("look", [ckad.plan, ckad.debug_nans], ids=lambda look: look.__name__)
def test_products_with_derivatives_are_looked_at_as_jit_has_them(look: Callable[..., Any]) -> None:
    v = np.array([1.0, 0.0, -1.0])
    calls: list[Callable[[Any], Any]] = [
        lambda x: ckad.hvp(total, x, v),
        lambda x: ckad.vjp(np.sin, x)[1](v),
        lambda x: ckad.jvp(np.sin, (x,), (v,)),
    ]
    for call in calls:
        with pytest.raises(CkadError) as caught:
            look(call)(X)
        assert f"ckad.{look.__name__}(ckad.jit(f))" in (caught.value.hint or "")
        look(ckad.jit(call))(X)


def test_products_with_derivatives_are_gradients() -> None:
    v = np.array([1.0, 0.0, -1.0])
    product = ckad.grad(lambda x: np.sum(ckad.grad(total)(x) * v))
    np.testing.assert_allclose(product(X), ckad.hvp(total, X, v))
    assert ckad.plan(product)(X).flops > 0
    pullback = ckad.grad(lambda x: np.sum(np.sin(x) * v))
    np.testing.assert_allclose(pullback(X), ckad.vjp(np.sin, X)[1](v)[0])
    assert ckad.plan(pullback)(X).flops > 0
