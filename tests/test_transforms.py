"""The transforms' calling conventions: argnums, pytrees, has_aux, errors, what is owned by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import DTypeError, ShapeError


def test_argnums_and_pytrees() -> None:
    f = lambda p, x, scale=1.0: scale * np.sum(p["a"] * x + p["b"][0])
    params = {"a": np.array([1.0, 2.0]), "b": (np.float64(3.0),)}
    x = np.array([5.0, 7.0])
    gradient = ckad.grad(f)(params, x, scale=2.0)
    np.testing.assert_array_equal(gradient["a"], 2 * x)
    assert gradient["b"] == (4.0,)
    both = ckad.grad(f, argnums=(0, 1))(params, x)
    np.testing.assert_array_equal(both[1], params["a"])
    np.testing.assert_array_equal(ckad.grad(f, argnums=-1)(params, x), params["a"])


def test_has_aux() -> None:
    def f(x: Any) -> Any:
        y = np.sin(x)
        return np.sum(y), {"y": y, "note": "text"}

    (value, aux), gradient = ckad.value_and_grad(f, has_aux=True)(np.array([0.0, 1.0]))
    assert aux["note"] == "text"
    assert isinstance(aux["y"], np.ndarray)
    np.testing.assert_allclose(aux["y"], np.sin([0.0, 1.0]))
    np.testing.assert_allclose(gradient, np.cos([0.0, 1.0]))
    assert value == pytest.approx(np.sin(1.0))


@pytest.mark.parametrize("leaf", [3, np.arange(3), True, np.array([True])])
def test_leaves_that_are_no_floats_raise(leaf: Any) -> None:
    with pytest.raises(DTypeError, match=r"args\[0\]\['w'\]"):
        ckad.grad(lambda p: np.sum(p["w"]))({"w": leaf})


class Subclass(np.ndarray):
    pass


UNSUPPORTED = {
    "complex128": np.ones(2, complex),
    "complex64": np.ones(2, np.complex64),
    "float16": np.ones(2, np.float16),
    "longdouble": np.ones(2, np.longdouble),
    "object": np.ones(2, object),
    "datetime64": np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
    "timedelta64": np.ones(2, "timedelta64[s]"),
    "text": np.array(["a", "b"]),
    "structured": np.zeros(2, [("a", float)]),
    "masked": np.ma.ones(2),
    "subclass": np.ones(2).view(Subclass),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_arrays_raise(kind: str) -> None:
    array = UNSUPPORTED[kind]
    x = np.ones(2)
    uses: list[Any] = [
        lambda: ckad.grad(lambda x: np.sum(x * array))(x),
        lambda: ckad.grad(lambda x: np.sum(np.where(x > 0, x, array)))(x),
        lambda: ckad.grad(lambda x: np.sum(np.stack([x, array])))(x),
        lambda: ckad.grad(lambda x: np.sum(np.concatenate([array, x])))(x),
        lambda: ckad.grad(lambda x: np.dot(x, array))(x),
        lambda: ckad.grad(lambda x: (x * 1.0).__setitem__(slice(None), array))(x),
        lambda: ckad.grad(lambda x: np.sum(x))(array),
        lambda: ckad.grad(lambda x, y: np.sum(x * y))(x, array),
        lambda: ckad.grad(lambda x, y: np.sum(x * y))(x, y=array),
        lambda: ckad.grad(lambda x, y: np.sum(x * y["a"]))(x, {"a": array}),
        lambda: ckad.jvp(np.sum, (array,), (array,)),
    ]
    for use in uses:
        with pytest.raises(DTypeError, match=r"float64|asarray"):
            use()


@pytest.mark.parametrize("size", [10, 100_000])
def test_memory_mapped_arrays(size: int, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "a", np.float64, "w+", shape=(size,))
    mapped[:] = np.arange(size)
    read_only = np.memmap(tmp_path / "a", np.float64, "r", shape=(size,))
    for array in (mapped, read_only):
        gradient = ckad.grad(lambda x: np.sum(x * x))(array)
        assert type(gradient) is np.ndarray
        np.testing.assert_array_equal(gradient, 2.0 * np.arange(size))
        captured = ckad.grad(lambda x, array=array: np.sum(np.sin(array) * x))(np.ones(size))
        np.testing.assert_array_equal(captured, np.sin(np.arange(size)))
        other = ckad.grad(lambda x, y: np.sum(np.stack([x, y])[1] * x))(np.ones(size), array)
        np.testing.assert_array_equal(other, np.arange(size))
    assert mapped.flags.writeable
    assert not read_only.flags.writeable


def test_byte_swapped_arrays_are_converted() -> None:
    x = np.arange(3.0).astype(">f8")
    np.testing.assert_array_equal(ckad.grad(lambda x: np.sum(x * x))(x), [0.0, 2.0, 4.0])


def test_not_a_scalar() -> None:
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        ckad.grad(lambda x: x * 2)(np.ones(2))
    with pytest.raises(DTypeError):
        ckad.grad(lambda x: np.argmax(x))(np.ones(2))


@pytest.mark.parametrize("policy", [0, -1, "sqr", 1.5, True])
def test_unknown_policies_raise(policy: Any) -> None:
    with pytest.raises(ValueError, match="'sqrt'"):
        ckad.grad(np.sum, checkpoint=policy)


def test_pullback_and_linear_function_own_what_they_need() -> None:
    x = np.array([0.1, 0.2])
    _, pullback = ckad.vjp(lambda x: np.sin(x) * x, x)
    _, linear = ckad.linearize(lambda x: np.sin(x) * x, x)
    expected = np.cos([0.1, 0.2]) * [0.1, 0.2] + np.sin([0.1, 0.2])
    x[:] = 100.0
    np.testing.assert_allclose(pullback(np.ones(2))[0], expected)
    np.testing.assert_allclose(linear(np.ones(2)), expected)


def test_a_pullback_of_large_arguments_owns_them() -> None:
    x = np.full(20_000, 0.5)
    _, pullback = ckad.vjp(lambda x: x * x, x)
    x[:] = 100.0
    np.testing.assert_allclose(pullback(np.ones(20_000))[0], np.ones(20_000))


def test_jvp_checks_its_tangents() -> None:
    with pytest.raises(ShapeError):
        ckad.jvp(np.sin, (np.ones(2),), (np.ones(3),))
    with pytest.raises(TypeError):
        ckad.jvp(np.sin, np.ones(2), np.ones(2))


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
def test_jacobian(mode: Any, rng: np.random.Generator) -> None:
    a = rng.standard_normal((3, 5))
    x = rng.standard_normal(5)
    found = ckad.jacobian(lambda x: np.tanh(a @ x), mode=mode)(x)
    np.testing.assert_allclose(found, (1 - np.tanh(a @ x) ** 2)[:, None] * a, rtol=1e-12)


def test_jacobian_auto_takes_the_cheaper_mode(rng: np.random.Generator) -> None:
    for m, n, expected in [(200, 5, "forward"), (5, 200, "reverse")]:
        a = rng.standard_normal((m, n))
        f = lambda x, a=a: np.tanh(a @ x)
        assert ckad.jacobian_mode(f)(np.ones(n)) == expected
        x = rng.standard_normal(n)
        np.testing.assert_array_equal(ckad.jacobian(f)(x), ckad.jacobian(f, mode=expected)(x))
    with pytest.raises(DTypeError):
        ckad.jacobian_mode(lambda x: x > 0)(np.ones(2))


def test_jacobian_of_trees(rng: np.random.Generator) -> None:
    f = lambda p: {"u": p["a"] * p["b"], "v": np.sum(p["a"])}
    found = ckad.jacobian(f)({"a": np.array([1.0, 2.0]), "b": 3.0})
    np.testing.assert_array_equal(found["u"]["a"], 3 * np.eye(2))
    np.testing.assert_array_equal(found["u"]["b"], [1.0, 2.0])
    np.testing.assert_array_equal(found["v"]["a"], [1.0, 1.0])
    np.testing.assert_array_equal(found["v"]["b"], 0.0)


def test_functions_of_nothing_have_zero_gradients() -> None:
    np.testing.assert_array_equal(ckad.grad(lambda x: 1.0)(np.ones(3)), np.zeros(3))
    np.testing.assert_array_equal(ckad.grad(lambda x, y: np.sum(y))(np.ones(3), np.ones(2)), np.zeros(3))


def test_fortran_and_strided_arguments(rng: np.random.Generator) -> None:
    w = rng.standard_normal((4, 3))
    base = rng.standard_normal((8, 9))
    for x in [np.asfortranarray(rng.standard_normal((4, 3))), base[::2, ::3], base[3::-1, :3], base.T[:4, 7:4:-1]]:
        expected = w * np.cos(x * w)
        np.testing.assert_allclose(ckad.grad(lambda x: np.sum(np.sin(x * w)))(x), expected, rtol=1e-12)
        value, tangent = ckad.jvp(lambda x: np.sin(x * w), (x,), (w,))
        np.testing.assert_allclose(value, np.sin(x * w))
        np.testing.assert_allclose(tangent, expected * w)


def test_zero_size() -> None:
    assert ckad.grad(lambda x: np.sum(np.sin(x)))(np.ones((0, 3))).shape == (0, 3)


def test_check_grads_rejects_a_wrong_derivative() -> None:
    wrong = lambda x: np.sum(x * ckad.stop_gradient(x))
    with pytest.raises(AssertionError):
        ckad.check_grads(wrong, (np.ones(2),))


def test_results_are_writeable_and_in_the_layout_of_the_argument() -> None:
    x = np.asfortranarray(np.ones((30, 40)))
    gradient = ckad.grad(lambda x: np.sum(x * x))(x)
    assert gradient.flags.f_contiguous
    gradient[0, 0] = 7.0


def test_a_pullback_owns_large_captured_arrays() -> None:
    captured = np.full(20_000, 3.0)
    _, pullback = ckad.vjp(lambda x: x * captured, np.ones(20_000))
    captured[:] = 100.0
    np.testing.assert_array_equal(pullback(np.ones(20_000))[0], np.full(20_000, 3.0))


def test_arrays_of_an_inner_trace_stay_read_only_until_the_outer_one_ends() -> None:
    captured = np.full(20_000, 3.0)

    def f(x):  # type: ignore[no-untyped-def]
        inner = ckad.grad(lambda y: np.sum(y * y * captured))(x)
        with pytest.raises(ValueError, match="read-only"):
            captured[:] = 100.0
        return np.sum(inner)

    np.testing.assert_array_equal(ckad.grad(f)(np.ones(20_000)), np.full(20_000, 6.0))
    captured[:] = 1.0


@pytest.mark.parametrize("n", [3, 20_000], ids=["small", "large"])
def test_read_only_arguments_stay_read_only(n: int) -> None:
    def write(x: Any, y: Any) -> Any:
        assert not x.flags.writeable
        assert y.flags.writeable
        y[0] = 0.0
        x[:2][0] = 1.0

    frozen, free = np.ones(n), np.ones(n)
    frozen.flags.writeable = False
    for argnums in (0, 1, (0, 1)):
        with pytest.raises(ValueError, match="read-only"):
            ckad.grad(write, argnums)(frozen, free)
        # An inner transform is given the same array.
        with pytest.raises(ValueError, match="read-only"):
            ckad.grad(lambda x, y, argnums=argnums: np.sum(ckad.grad(write, argnums)(x, y)), argnums)(frozen, free)

    def twice(x: Any, y: Any) -> Any:
        x[0], y[0] = 2.0, 3.0
        return np.sum(x) + ckad.value_and_grad(both)(free)[0] * np.sum(y)

    def both(z: Any) -> Any:
        z[1] = 0.0
        return np.sum(z)

    # Large arrays are made read-only while they are read: that is not the caller's doing.
    assert ckad.grad(twice)(free, free).shape == (n,)
    assert free.flags.writeable
