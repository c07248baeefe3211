"""Details in which NumPy's behaviour is easily missed, one test each."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckad
from ckad.errors import CkadTypeError, CkadValueError, TracerError


def computed(f: Any, *args: Any) -> Any:
    """What f gives on traced arguments, of which the first is differentiated."""
    with np.errstate(all="ignore"):
        return ckad.value_and_grad(lambda x, *rest: (np.sum(x) * 0.0, f(x, *rest)), has_aux=True)(*args)[0][1]


def same(f: Any, *args: Any) -> None:
    expected, found = f(*args), computed(f, *args)
    assert type(found) is type(expected)
    assert np.result_type(found) == np.result_type(expected)
    np.testing.assert_array_equal(found, expected)


F32 = np.array([1.0, 2.0, 4.0], np.float32)


def test_initial_has_the_dtype_of_the_accumulator() -> None:
    same(lambda x: np.sum(x, initial=np.float64(2)), F32)
    same(lambda x: np.prod(x, initial=np.float64(2)), F32)
    same(lambda x: np.sum((x * 2).astype(int), initial=2.5), F32)
    same(lambda x: np.sum((x * 2).astype(np.int8), initial=2), F32)
    same(lambda x: np.max(x, initial=np.float64(9)), F32)
    same(lambda x: np.min(x, axis=0, initial=-1), F32)


def test_methods_take_initial_and_where() -> None:
    same(lambda x: x.max(initial=0), F32)
    same(lambda x: x.max(initial=5.0, keepdims=True), F32)
    same(lambda x: x.min(0, initial=0), F32)
    same(lambda x: x.sum(initial=2.5), F32)
    same(lambda x: x.sum(where=True), F32)
    with pytest.raises(TypeError, match="where"):
        computed(lambda x: x.sum(where=x > 1), F32)
    with pytest.raises(TypeError):
        computed(lambda x: x.sum(wrong=1), F32)
    assert ckad.grad(lambda x: x.max(initial=9.0))(F32).tolist() == [0, 0, 0]


@pytest.mark.parametrize("order", [None, 1, 2, 3, np.inf, -np.inf, 0])
def test_the_norm_of_nothing_is_numpys(order: Any) -> None:
    for shape, axis in [((0,), None), ((0, 3), 0), ((0, 3), 1), ((3, 0), 0)]:
        f = lambda x, axis=axis: np.linalg.norm(x, order, axis)
        x = np.zeros(shape, np.float32)
        try:
            f(x)
        except ValueError as error:
            with pytest.raises(ValueError, match=str(error)):
                computed(f, x)
        else:
            same(f, x)


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
def test_a_jacobian_has_the_dtype_of_its_argument(mode: Any) -> None:
    x = np.ones(3)
    blocks = ckad.jacobian(lambda a, b: a * b, argnums=(0, 1), mode=mode)(x.astype(np.float32), x)
    assert [block.dtype for block in blocks] == [np.float32, np.float64]
    blocks = ckad.jacobian(lambda a: (a * x, a.astype(np.float32)), mode=mode)(x)
    assert [block.dtype for block in blocks] == [np.float64, np.float64]
    empty = ckad.jacobian(lambda a: a[:0] * x[:0], mode=mode)(x.astype(np.float32))
    assert (empty.dtype, empty.shape) == (np.float32, (0, 3))


def test_a_function_that_wraps_a_transform_is_planned_as_itself() -> None:
    g = ckad.grad(lambda x: np.sum(x**3))

    def plain(x: Any) -> Any:
        return np.sum(g(np.tanh(np.sin(x))) ** 2)

    wrapped = functools.wraps(g)(lambda x: plain(x))
    x = np.ones(1000)
    expected = ckad.plan(plain)(x)
    assert (ckad.plan(wrapped)(x).peak_bytes, ckad.plan(wrapped)(x).flops) == (expected.peak_bytes, expected.flops)


def test_plan_refuses_what_it_would_ignore() -> None:
    g = ckad.grad(np.sum)
    with pytest.raises(CkadTypeError, match=r"\[plan\] checkpoint= .*Hint.*ckad\.grad"):
        ckad.plan(g, checkpoint="none")
    with pytest.raises(CkadTypeError, match=r"\[plan\] argnums= .*Hint.*ckad\.grad"):
        ckad.plan(g, argnums=7)
    with pytest.raises(CkadTypeError, match="argnums="):
        ckad.plan(g, 0)


def test_plan_of_traced_arguments_says_so() -> None:
    inner = ckad.plan(ckad.grad(lambda b: np.sum(b * b)))
    with pytest.raises(TracerError, match=r"\[plan\] the arguments are traced values.*Hint"):
        ckad.grad(lambda a: (inner(a), np.sum(a))[1])(np.ones(3))


def test_forward_flops_count_the_gradient_inside_the_function() -> None:
    g = ckad.grad(lambda x: np.sum(np.sin(x) * x))
    x = np.ones(1000)
    plan = ckad.plan(lambda x: np.sum(g(np.tanh(x)) ** 2), checkpoint="none")(x)
    inner = ckad.plan(g)(x)
    assert inner.flops <= plan.forward_flops < plan.flops


def test_sizes_and_positions_may_be_traced_integers_of_rank_0() -> None:
    x = np.arange(1.0, 6.0)
    for make in (np.zeros, np.ones, lambda n, like: np.full(n, 2.0, like=like)):
        assert computed(lambda x, n, make=make: make(n, like=x), x, np.array(2)).shape == (2,)
        assert computed(lambda x, n, make=make: make((n, 3), like=x), x, np.array(2)).shape == (2, 3)
    with pytest.raises(TypeError):
        computed(lambda x: np.zeros(2.5, like=x), x)
    same(lambda x: np.take(x, [True, False]), x)


def test_layouts_may_be_asked_for() -> None:
    x = np.arange(12.0).reshape(3, 4)
    for make in (
        lambda x: np.zeros((2, 3), order="F", like=x),
        lambda x: np.full_like(x, 1, order="F"),
        lambda x: np.ones_like(x.T, order="A"),
        lambda x: np.array(x, order="F", like=x),
    ):
        strides: list[Any] = []
        computed(lambda x, make=make, strides=strides: strides.append(make(x).strides), x)
        assert strides == [make(x).strides]
    with pytest.raises(ValueError, match="order"):
        computed(lambda x: np.zeros(3, order="K", like=x), x)


def test_numpys_integers_are_policies() -> None:
    x = np.ones(3)
    f = lambda x: np.sum(np.sin(np.cumsum(np.sin(x))))
    np.testing.assert_array_equal(ckad.grad(f, checkpoint=np.int64(3))(x), ckad.grad(f, checkpoint=3)(x))
    for wrong in (np.int64(0), np.True_, 2.0, np.array([1, 2])):
        with pytest.raises(CkadValueError, match="'none', 'auto', 'sqrt'"):
            ckad.grad(f, checkpoint=wrong)


@pytest.mark.parametrize("wrong", [1.0, None, "0", (0.5,), [True]])
def test_wrong_argnums_are_explained(wrong: Any) -> None:
    with pytest.raises(CkadTypeError, match=r"argnums must be an int .* Hint: argnums=0"):
        ckad.grad(np.sum, argnums=wrong)(1.0)


def test_item_mt_and_conj() -> None:
    x = np.arange(6.0)
    indices = np.arange(6).reshape(2, 3)
    assert computed(lambda x, i: (i.item(4), i.item(1, 2), i[0, :1].item()), x, indices) == (4, 5, 0)
    with pytest.raises(TracerError, match="gradient"):
        computed(lambda x: x.item(0), x)
    same(lambda x: x.reshape(2, 3).mT @ x.reshape(2, 3), x)
    same(lambda x: x.conj() + x.conjugate(), x)
    with pytest.raises(ValueError, match="matrix transpose with ndim < 2"):
        computed(lambda x: x.mT, x)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_integers_compare_by_value_with_any_python_int(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    a = np.array([limits.min, 0, 1, limits.max], dtype)
    for far in (limits.max + 1, limits.min - 1, 2**80, -(2**80), limits.max, limits.min):
        for compare in (
            lambda a, far: a == far,
            lambda a, far: a != far,
            lambda a, far: a < far,
            lambda a, far: a <= far,
            lambda a, far: a > far,
            lambda a, far: a >= far,
        ):
            np.testing.assert_array_equal(
                computed(lambda x, a, compare=compare, far=far: compare(a, far), np.ones(1), a), compare(a, far)
            )


def test_a_name_with_a_null_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CkadValueError, match=r"\[save\].*null character.*Hint"):
        ckad.nn.save(tmp_path / "m.npz", {"a\0b": np.ones(2), "a": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_minus_zero_fills() -> None:
    for f in (
        lambda x: np.full(2, -0.0, like=x),
        lambda x: np.full_like(x, -0.0),
        lambda x: np.full_like(x, 0.0),
        lambda x: np.full(2, np.float64(-0.0), like=x),
    ):
        same(lambda x, f=f: np.copysign(1, f(x)), F32)


def test_a_root_of_scalars_is_their_power() -> None:
    x = np.array([-0.0, 0.0, -np.inf, np.inf, 4.0, -4.0])
    with np.errstate(invalid="ignore"):
        same(lambda x: x**0.5, x)
        same(lambda x: np.copysign(1, x**0.5), x[:2])
        for i in range(6):
            same(lambda x, i=i: x[i] ** 0.5, x)
        same(lambda x: np.copysign(1, x[0] ** 0.5), x)
    same(lambda a: a**0.5 * F32, 2.25)
    assert ckad.grad(lambda a: a**0.5)(4.0) == 0.25
    assert ckad.grad(ckad.grad(lambda a: a**0.5))(4.0) == -1 / 32
    assert ckad.grad(lambda a: a**0.5)(0.0) == np.inf


def test_parts_of_a_python_number_are_python_numbers() -> None:
    w = np.ones(2, np.float32)
    same(lambda a: np.real(a) * w, 2.5)
    same(lambda a: np.imag(a) + w, 2.5)
    same(lambda a: a.real * w, 2.5)
    same(lambda a: a.imag + w, 2.5)
    same(lambda x: np.real(x[0]) * w, np.array([2.5]))
    same(lambda x: np.imag(x[0]) + w, np.array([2.5]))
    assert ckad.grad(lambda a: np.sum(np.real(a) * w))(2.5) == 2


def test_an_axis_error_says_which_axis() -> None:
    x = np.ones(3)
    for f in (
        lambda x: x.sum(axis=5),
        lambda x: np.sum(x, axis=5),
        lambda x: np.flip(x, 5),
        lambda x: np.concatenate([x, x], 5),
        lambda x: np.hypot.reduce(x, axis=5),
    ):
        with pytest.raises(np.exceptions.AxisError) as caught:
            computed(f, x)
        assert (caught.value.axis, caught.value.ndim) == (5, 1)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (copy.axis, copy.ndim, str(copy)) == (5, 1, str(caught.value))
        assert str(caught.value).startswith("[")


def test_bools_are_no_axes_or_extents_where_numpy_takes_none() -> None:
    x = np.ones((2, 2))
    for f in (
        lambda x: np.sum(x, True),
        lambda x: x.max(axis=(True,)),
        lambda x: np.mean(x, True),
        lambda x: np.var(x, True),
        lambda x: np.prod(x, True),
        lambda x: np.add.reduce(x, axis=True),
        lambda x: np.cumsum(x, True),
        lambda x: np.argmax(x, True),
        lambda x: np.argsort(x, True),
        lambda x: np.concatenate([x, x], True),
        lambda x: np.take(x, [0], True),
        lambda x: np.repeat(x, 2, True),
        lambda x: np.transpose(x, (True, False)),
        lambda x: np.reshape(x, (True, -1)),
        lambda x: x.reshape(True, -1),
        lambda x: np.reshape(x[:1, 0], True),
        lambda x: np.broadcast_to(x[0, 0], True),
        lambda x: np.zeros((True, 2), like=x),
        lambda x: np.sum(x, np.True_),
        lambda x: np.round(x, 1.5),
    ):
        with pytest.raises(TypeError):
            f(x)
        with pytest.raises(TypeError, match="integer"):
            computed(f, x)
    for f in (
        lambda x: np.flip(x, True),
        lambda x: np.stack([x, x], True),
        lambda x: np.expand_dims(x, True),
        lambda x: np.swapaxes(x, True, False),
        lambda x: np.sort(x, True),
    ):
        same(f, x)


def test_shapes_that_reshape_takes() -> None:
    x = np.arange(4.0).reshape(2, 2)
    for shape in (None, [4], np.array([4, 1]), np.array(4), np.int8(4), 4):
        same(lambda x, shape=shape: np.reshape(x, shape), x)
    same(lambda x: np.reshape(x[:1, 0], ()), x)
    same(lambda x: x.reshape(None), x)
    for shape in (2**64, (2**64,), -(2**64), (2, 2**70)):
        with pytest.raises(CkadValueError, match="Maximum allowed dimension exceeded"):
            computed(lambda x, shape=shape: np.reshape(x, shape), x)
    for f in (
        lambda x: x.reshape(),
        lambda x: np.reshape(x, 4.0),
        lambda x: np.reshape(x, (4.0,)),
        lambda x: np.reshape(x, "a"),
        lambda x: x.reshape(4, None),
        lambda x: x.reshape((2, 2), 1),
    ):
        with pytest.raises(TypeError):
            f(x)
        with pytest.raises(CkadTypeError):
            computed(f, x)
