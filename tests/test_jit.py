"""`ckad.jit`: recorded once, run without Python, and never wrong about what it was recorded for."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import random
import sys
import threading
import warnings
import weakref
from collections import ChainMap, UserDict
from collections.abc import Callable
from contextvars import ContextVar
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from programs import PROGRAMS
from test_functions import EVERY, VARIABLES, evaluated, function_of, names_in

import ckad
from ckad import _core
from ckad.errors import CkadIndexError, CkadTypeError, CkadValueError, TracerError
from ckad.transforms.reach import Reach
from ckad.tree import flatten


def assert_equal_bits(found: Any, expected: Any) -> None:
    (found_leaves, found_structure), (leaves, structure) = flatten(found), flatten(expected)
    assert found_structure == structure
    for a, b in zip(found_leaves, leaves, strict=True):
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


class Counted:
    """A function that counts how often Python runs it."""

    def __init__(self, f: Callable[..., Any]) -> None:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.count_one()
            return f(*args, **kwargs)

        self.calls = calls = Calls()
        self.jitted = ckad.jit(counted)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.jitted(*args, **kwargs)

    @property
    def count(self) -> int:
        return self.calls.count


class Calls:
    """Counts under a name that no code names: a captured counter would change, and the function be recorded anew."""

    def __init__(self) -> None:
        self.__dict__["hidden count"] = 0

    def count_one(self) -> None:
        self.__dict__["hidden count"] += 1

    @property
    def count(self) -> int:
        return self.__dict__["hidden count"]


# What NumPy's functions say -----------------------------------------------------------------------------------------

VALUE_DEPENDENT = (
    "np.where(x > 1)",
    "np.allclose(x, y)",
    "np.array_equal(x, y)",
    "np.nonzero(x > 1)",
    "x.nonzero()",
    "x[x > 1]",
)
"""Their shape, or the flow of their own code, depends on values."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("expression", EVERY)
def test_every_function_under_jit(expression: str, dtype: str) -> None:
    f = function_of(expression)
    args = [np.asarray(VARIABLES[name]) for name in names_in(expression)]
    args = [x.astype(dtype) if x.dtype.kind == "f" else x for x in args]
    jitted = ckad.jit(f)
    if expression in VALUE_DEPENDENT:
        with pytest.raises(TracerError, match="stands for any value"):
            jitted(*args)
        return
    expected = evaluated(f, *args)
    assert_equal_bits(jitted(*args), expected)
    assert_equal_bits(jitted(*args), expected)


# Programs and transforms --------------------------------------------------------------------------------------------

NO_CONTROL_FLOW = [name for name in PROGRAMS if name != "while_loop"]


@pytest.mark.parametrize("name", NO_CONTROL_FLOW)
def test_programs_compose_with_transforms(name: str, policy: str | int) -> None:
    f, args = PROGRAMS[name]
    expected = ckad.value_and_grad(f, checkpoint=policy)(*args)
    inside = Counted(ckad.value_and_grad(f, checkpoint=policy))
    outside = ckad.value_and_grad(ckad.jit(f), checkpoint=policy)
    for _ in range(2):
        assert_equal_bits(inside(*args), expected)
        assert_equal_bits(outside(*args), expected)
    assert inside.count == 1


@pytest.mark.parametrize("name", ["layer_norm", "heat", "rolled", "matrix_products"])
def test_second_order(name: str) -> None:
    f, args = PROGRAMS[name]
    v = np.ones_like(args[0])
    expected = ckad.hvp(lambda x: f(x, *args[1:]), args[0], v)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(ckad.hvp(lambda x: ckad.jit(f)(x, *args[1:]), args[0], v), expected, **close)
    inner = ckad.jit(ckad.grad(f))
    np.testing.assert_allclose(ckad.jvp(lambda x: inner(x, *args[1:]), (args[0],), (v,))[1], expected, **close)
    both = ckad.jit(lambda x, v: ckad.hvp(lambda x: f(x, *args[1:]), x, v))
    np.testing.assert_allclose(both(args[0], v), expected, **close)


def test_jacobian_linearize_and_vjp_inside_and_outside() -> None:
    def f(x: Any) -> Any:
        return np.stack([np.sin(x[0]) * x[1], x[1] ** 2, x[0] - x[2]])

    x = np.array([0.3, 1.2, -0.7])
    expected = ckad.jacobian(f)(x)
    assert_equal_bits(ckad.jacobian(ckad.jit(f))(x), expected)
    assert_equal_bits(ckad.jit(ckad.jacobian(f))(x), expected)
    out, pullback = ckad.vjp(ckad.jit(f), x)
    assert_equal_bits(out, ckad.vjp(f, x)[0])
    np.testing.assert_allclose(pullback(np.ones(3))[0], np.ones(3) @ expected)
    np.testing.assert_allclose(ckad.linearize(ckad.jit(f), x)[1](x), expected @ x)
    ckad.check_grads(ckad.jit(f), (x,))


def test_a_jitted_function_in_a_jitted_function() -> None:
    inner = Counted(lambda x: np.tanh(x) * 2.0)
    outer = Counted(lambda x: inner(x) + inner(x + 1.0))
    x = np.linspace(-1, 1, 5)
    for _ in range(3):
        assert_equal_bits(outer(x), evaluated(lambda x: np.tanh(x) * 2.0 + np.tanh(x + 1.0) * 2.0, x))
    assert (inner.count, outer.count) == (1, 1)


# When it is recorded ------------------------------------------------------------------------------------------------


def test_once_per_shape_dtype_and_structure() -> None:
    f = Counted(lambda x, k=1.0: {"a": np.sum(x["a"]) * k, "b": x["b"] + 1})
    for _ in range(2):
        f({"a": np.ones(3), "b": 2.0})
        f({"a": np.zeros(3), "b": 5.0})
    assert f.count == 1
    f({"a": np.ones(4), "b": 2.0})
    f({"a": np.ones(3, np.float32), "b": 2.0})
    f({"a": np.ones(3), "b": 2})
    f({"a": np.ones(3), "b": np.float64(2)})
    f({"a": np.ones(3), "b": 2.0}, k=2.0)
    f({"a": np.asfortranarray(np.ones((3, 2))), "b": 2.0})
    assert f.count == 7
    f({"a": np.ones((3, 2)), "b": 2.0})
    assert f.count == 8
    f({"b": 1.0, "a": np.ones(3)})
    assert f.count == 8


def test_static_arguments_are_recorded_by_value() -> None:
    calls = Calls()

    def f(x: Any, n: int, how: str = "sum") -> Any:
        calls.count_one()
        total = x
        for _ in range(n):
            total = total * x
        return np.sum(total) if how == "sum" else np.max(total)

    jitted = ckad.jit(f, static_argnums=(1, -1))
    x = np.array([1.0, 2.0])
    assert [float(jitted(x, n)) for n in (1, 2, 1, 2)] == [5.0, 9.0, 5.0, 9.0]
    assert calls.count == 2
    assert float(jitted(x, n=2)) == 9.0
    assert float(jitted(x, 1, how="max")) == 4.0
    assert float(jitted(x, 1, "max")) == 4.0
    with pytest.raises(CkadTypeError, match="not hashable"):
        jitted(x, [1])
    assert [float(ckad.jit(lambda x, n: x * n, static_argnums=1)(x[0], n)) for n in (1, True, 1.0)] == [1.0] * 3
    for wrong in (3, -4, "1", None, True):
        with pytest.raises((CkadValueError, CkadTypeError), match="Hint"):
            ckad.jit(f, static_argnums=wrong)  # type: ignore[arg-type]


def test_other_leaves_are_compared() -> None:
    f = Counted(lambda x, mode, scale=None: x * 2 if mode == "double" else x if scale is None else x * scale)
    x = np.ones(2)
    assert f(x, "double")[0] == 2.0
    assert f(x, "no")[0] == 1.0
    assert f(x, "no", np.array([3.0, 3.0]))[0] == 3.0
    assert f(x, "double")[0] == 2.0
    assert f.count == 3
    unsupported = np.array([1j])
    g = Counted(lambda x, c: x * abs(c[0]))
    assert g(x, unsupported)[0] == 1.0
    unsupported[0] = 2j
    assert g(x, unsupported)[0] == 2.0


# What is captured ---------------------------------------------------------------------------------------------------

LEARNING_RATE = 0.5
NESTED = {"rate": [1.0, (2.0, 3.0)]}


def scaled(x: Any) -> Any:
    return x * LEARNING_RATE


def test_captured_numbers_are_compared_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    jitted = Counted(lambda x: scaled(x))
    assert jitted(2.0) == 1.0
    monkeypatch.setitem(globals(), "LEARNING_RATE", float("0.5"))
    assert (jitted(2.0), jitted.count) == (1.0, 1)
    monkeypatch.setitem(globals(), "LEARNING_RATE", 0.25)
    assert (jitted(2.0), jitted.count) == (0.5, 2)
    monkeypatch.setitem(globals(), "LEARNING_RATE", np.float32(0.25))
    assert (jitted(2.0), jitted.count) == (0.5, 3)


def test_captured_containers_and_attributes() -> None:
    class Model:
        rate = 2.0

        def __init__(self) -> None:
            self.bias = 1.0

        def __call__(self, x: Any) -> Any:
            return self.scale(x) + self.bias

        def scale(self, x: Any) -> Any:
            return x * self.rate

    class Slotted:
        __slots__ = ("w",)

        def __init__(self) -> None:
            self.w = 1.0

    model, slotted, space, box = Model(), Slotted(), SimpleNamespace(k=1.0), [1.0, {"a": 1.0}]

    def f(x: Any) -> Any:
        return model(x) * slotted.w * space.k * box[0] * box[1]["a"]

    jitted = ckad.jit(f)

    def changed(change: Callable[[], Any]) -> None:
        change()
        assert jitted(3.0) == f(3.0)

    changed(lambda: None)
    changed(lambda: setattr(model, "bias", 5.0))
    changed(lambda: setattr(Model, "rate", 7.0))
    changed(lambda: setattr(model, "rate", 11.0))
    changed(lambda: setattr(Model, "scale", lambda self, x: x - self.rate))
    changed(lambda: setattr(slotted, "w", 2.0))
    changed(lambda: setattr(space, "k", 3.0))
    changed(lambda: box.__setitem__(0, 4.0))
    changed(lambda: box[1].__setitem__("a", 5.0))


def test_captured_arrays_are_compared_by_content() -> None:
    small, large = np.ones(4), np.ones((200, 100))
    fixed = np.ones((200, 100))
    fixed.flags.writeable = False
    view = large[10:20, ::2]
    f = Counted(lambda x: np.sum(x * small) + np.sum(large * x[0]) + np.sum(fixed) + np.sum(view))

    def expected(x: Any) -> Any:
        return np.sum(x * small) + np.sum(large * x[0]) + np.sum(fixed) + np.sum(view)

    x = np.arange(1.0, 5.0)
    for count, change in enumerate([lambda: None, lambda: small.fill(2), lambda: large.__setitem__((150, 7), 9)], 1):
        change()
        for _ in range(2):
            np.testing.assert_allclose(f(x), expected(x), rtol=1e-12)
        assert f.count == count
    view[3, 3] = 100.0
    np.testing.assert_allclose(f(x), expected(x), rtol=1e-12)
    assert large.flags.writeable
    assert small.flags.writeable


def test_what_python_computes_from_captured_arrays_follows_them() -> None:
    table = np.array([1.0, 2.0])
    f = ckad.jit(lambda x: x * float(np.linalg.norm(table)))
    assert f(1.0) == float(np.linalg.norm(table))
    table[0] = 5.0
    assert f(1.0) == float(np.linalg.norm(table))


def test_captured_functions_are_followed() -> None:
    helpers = {"activation": np.tanh}
    f = ckad.jit(lambda x: helpers["activation"](x))
    assert_equal_bits(f(np.ones(2)), evaluated(np.tanh, np.ones(2)))
    helpers["activation"] = np.sin
    assert_equal_bits(f(np.ones(2)), evaluated(np.sin, np.ones(2)))
    weight = 2.0
    loss = ckad.jit(ckad.grad(lambda x: weight * np.sum(x)))
    assert loss(np.ones(2))[0] == 2.0
    weight = 3.0
    assert loss(np.ones(2))[0] == 3.0


SCALE = 2.0


class Scaler:
    def __init__(self, w: Any) -> None:
        self.w = w

    def __call__(self, x: Any) -> Any:
        return x * self.w * SCALE


ckad.nn.layer("w")(Scaler)


def test_methods_of_arguments_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    f = Counted(lambda model, x: model(x))
    model, x = Scaler(np.ones(2)), np.ones(2)
    assert f(model, x)[0] == 2.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert f(model, x)[0] == 3.0
    monkeypatch.setattr(Scaler, "__call__", lambda self, x: x - self.w)
    assert f(model, x)[0] == 0.0
    assert f.count == 3


class Doubled(ckad.nn.Linear):
    def __call__(self, x: Any) -> Any:
        return super().__call__(x) * 2.0


@pytest.mark.parametrize("of_class", [ckad.nn.Linear, Doubled])
def test_captured_layers_are_compared(of_class: Callable[..., Any]) -> None:
    layer = of_class(2, 3, rng=0)
    f = Counted(lambda x: layer(x))
    x = np.ones((1, 2))
    f(x)
    layer.weight = np.ones((2, 3))
    for _ in range(2):
        assert_equal_bits(f(x), evaluated(layer, x))
    assert f.count == 2


def _changes() -> dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]]:
    """For each place that may be captured, a function and what changes its result."""

    def with_attribute(x: Any) -> Any:
        return x * with_attribute.rate  # type: ignore[attr-defined]

    with_attribute.rate = 2.0  # type: ignore[attr-defined]

    def with_default(x: Any, k: Any = 2.0) -> Any:
        return x * k

    def imports(x: Any) -> Any:
        import programs

        return x * programs.RATE  # type: ignore[attr-defined]

    programs_module = importlib.import_module("programs")
    programs_module.RATE = 2.0  # type: ignore[attr-defined]

    class Base:
        k = 2.0

        def __call__(self, x: Any) -> Any:
            return x * self.k

    class Derived(Base):
        pass

    class Slotted:
        __slots__ = ("k",)

    class Open:
        pass

    def or_else(x: Any) -> Any:
        try:
            return x * slotted.k
        except AttributeError:
            return x

    instance, exchanged, slotted, other, referred = Derived(), Open(), Slotted(), Derived(), Open()
    exchanged.k = referred.k = 2.0  # type: ignore[attr-defined]
    user_dict, chain, under = UserDict(k=2.0), ChainMap({"k": 2.0}), {"k": 2.0}
    proxy, raw, reference = MappingProxyType(under), bytearray(b"\x02"), weakref.ref(referred)
    variable: ContextVar[float] = ContextVar("variable", default=2.0)
    lookup, bound = under.get, [2.0].__getitem__
    table, objects = np.arange(6.0).reshape(2, 3), np.array([float("2.5"), None], object)
    empty = Open()

    def replace_object() -> None:
        for _ in range(3):  # The next object may get the memory of the last.
            objects[0] = None
            objects[0] = float("3.5")

    def reshape() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table.shape = (3, 2)

    return {
        "function attribute": (with_attribute, lambda: setattr(with_attribute, "rate", 3.0)),
        "defaults": (with_default, lambda: setattr(with_default, "__defaults__", (3.0,))),
        "imported where it runs": (imports, lambda: setattr(programs_module, "RATE", 3.0)),
        "class between": (lambda x: instance(x), lambda: setattr(Derived, "k", 3.0)),
        "special method": (lambda x: other(x), lambda: setattr(Base, "__call__", lambda self, x: x - 1)),
        "exchanged dict": (lambda x: x * exchanged.k, lambda: setattr(exchanged, "__dict__", {"k": 3.0})),  # type: ignore[attr-defined]
        "absent slot": (or_else, lambda: setattr(slotted, "k", 3.0)),
        "attribute in text": (lambda x: x * getattr(empty, "k", 2.0), lambda: setattr(empty, "k", 3.0)),
        "UserDict": (lambda x: x * user_dict["k"], lambda: user_dict.update(k=3.0)),
        "ChainMap": (lambda x: x * chain["k"], lambda: chain.update(k=3.0)),
        "mapping proxy": (lambda x: x * proxy["k"], lambda: under.update(k=3.0)),
        "bound builtin": (lambda x: x * lookup("k") * bound(0), lambda: under.update(k=4.0)),
        "bytearray": (lambda x: x * raw[0], lambda: raw.__setitem__(0, 3)),
        "weak reference": (lambda x: x * reference().k, lambda: setattr(referred, "k", 3.0)),  # type: ignore[union-attr]
        "context variable": (lambda x: x * variable.get(), lambda: variable.set(3.0)),
        "shape of an array": (lambda x: x * table[1].sum(), reshape),
        "array of objects": (lambda x: x * objects[0], replace_object),
    }


@pytest.mark.parametrize("place", sorted(_changes()))
def test_every_place_is_compared(place: str) -> None:
    f, change = _changes()[place]
    counted = Counted(f)
    for turn in (1, 2):
        for _ in range(3):
            assert counted(2.0) == f(2.0)
        assert counted.count == turn
        if turn == 1:
            before = f(2.0)
            change()
            assert f(2.0) != before


def test_a_function_whose_code_was_exchanged() -> None:
    def f(x: Any) -> Any:
        return x * 2.0

    jitted = ckad.jit(f)
    assert jitted(2.0) == 4.0
    f.__code__ = (lambda x: x * 3.0).__code__
    assert jitted(2.0) == 6.0


def test_values_that_a_program_keeps_do_no_harm() -> None:
    class Layer:
        def __call__(self, x: Any) -> Any:
            self.hidden = np.tanh(x)
            return self.hidden * 2.0

    layer = Layer()
    f = Counted(lambda x: layer(x))
    for _ in range(5):
        assert_equal_bits(f(np.ones(2)), evaluated(lambda x: np.tanh(x) * 2.0, np.ones(2)))
    assert f.count == 1
    log: list[Any] = []
    g = ckad.jit(lambda x: log.append(x) or x * 2.0)
    assert [g(2.0), g(3.0)] == [4.0, 6.0]


def test_objects_that_answer_to_every_name() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self) -> Any:
            return Anything()

    anything, system = Anything(), random.SystemRandom()
    f = ckad.jit(lambda x: x * 2.0 if anything is not None and system is not None else x)
    assert [f(1.0), f(2.0)] == [2.0, 4.0]


def test_static_numbers_in_tuples() -> None:
    f = ckad.jit(lambda x, k: x * k[0], static_argnums=1)
    for k in (1, 1.0, 0.0, -0.0, True):
        assert_equal_bits(f(np.arange(3), (k,)), np.arange(3) * k)


def test_values_of_a_trace_around_are_inputs_and_go_with_it() -> None:
    kept: list[Any] = []

    def outer(y: Any, z: Any) -> Any:
        jitted = Counted(lambda x: np.sin(x) * y + z[0])
        kept.append(jitted)
        a, b = jitted(2.0), jitted(3.0)
        assert jitted.count == 1
        z = z * 2.0
        c = jitted(4.0)
        assert jitted.count == 2
        return a * b * c

    def plainly(y: Any, z: Any) -> Any:
        return (np.sin(2.0) * y + z[0]) * (np.sin(3.0) * y + z[0]) * (np.sin(4.0) * y + 2 * z[0])

    args = 1.5, np.array([0.5])
    expected = ckad.value_and_grad(plainly, argnums=(0, 1))(*args)
    for _ in range(2):
        value, gradients = ckad.value_and_grad(outer, argnums=(0, 1))(*args)
        np.testing.assert_allclose(value, expected[0], rtol=1e-14)
        np.testing.assert_allclose(gradients[0], expected[1][0], rtol=1e-14)
        np.testing.assert_allclose(gradients[1], expected[1][1], rtol=1e-14)
    assert all(len(_recordings(jitted.jitted)) == 0 for jitted in kept)


def _recordings(jitted: Any) -> _core.Jitted:
    return next(cell.cell_contents for cell in jitted.__closure__ if isinstance(cell.cell_contents, _core.Jitted))


def test_an_array_of_the_trace_around_may_change_in_place() -> None:
    def f(y: Any) -> Any:
        state = y * 1.0
        jitted = ckad.jit(lambda x: x * state)
        total = np.sum(jitted(np.ones(2)))
        state[0] = 5.0
        return total + np.sum(jitted(np.ones(2)))

    def plainly(y: Any) -> Any:
        return np.sum(y) + 5.0 + y[1]

    y = np.array([1.0, 2.0])
    assert_equal_bits(ckad.grad(f)(y), ckad.grad(plainly)(y))


def test_one_structure_with_different_numbers_of_scalars() -> None:
    """What the gradient does not need goes, and leaves graphs that differ only in what was recorded with them."""
    x = np.array([0.3, 1.2, -0.7])

    def linear(y: Any, count: int) -> Any:
        return sum(np.sum(x * y) * (k + 1.0) for k in range(count))

    for count in (5, 3, 4, 2, 1):
        f = ckad.grad(lambda z, n=count: np.sum(ckad.grad(linear)(z, n) ** 2))
        assert_equal_bits(ckad.jit(f)(x), np.zeros(3))


# What it refuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x if x > 0 else -x,
        lambda x: float(x),
        lambda x: np.zeros(int(x)),
        lambda x: f"{x}",
        lambda x: np.asarray(x),
        lambda x: [i * x for i in range(x.astype(int))],
        lambda x: max(x, 2.0),
        lambda x: ckad.grad(lambda y: y * 2 if x > 0 else y)(x),
        lambda x: ckad.grad(lambda y: y * 2 if y > 0 else y)(x),
    ],
)
def test_control_flow_on_values_raises(f: Callable[[Any], Any]) -> None:
    with pytest.raises(TracerError, match=r"while ckad\.jit records.*Hint: .*static_argnums"):
        ckad.jit(f)(np.float64(1.0))


def test_a_value_of_the_trace_around_is_not_looked_at() -> None:
    def f(y: Any) -> Any:
        return ckad.jit(lambda x: x * y if y > 0 else x)(2.0)

    with pytest.raises(TracerError, match=r"while ckad\.jit records"):
        ckad.grad(f)(1.0)


def test_constants_may_be_looked_at() -> None:
    def f(x: Any) -> Any:
        steps = np.zeros(3, like=x) + 2.0
        return x * 2 if np.sum(steps) > 5 else x

    assert ckad.jit(f)(np.ones(2))[0] == 2.0
    assert ckad.grad(lambda x: np.sum(ckad.jit(f)(x)))(np.ones(2))[0] == 2.0


class Drawing:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)


def test_random_numbers_raise() -> None:
    generator = np.random.default_rng(0)
    legacy = np.random.RandomState(0)
    held = {"rng": [generator]}
    holder = Drawing()
    reference, draw = weakref.ref(holder), random.Random(0).random

    def drawn(rng: Any) -> Any:
        while True:
            yield rng.normal()

    numbers = drawn(np.random.default_rng(1))
    functions: list[Callable[[Any], Any]] = [
        lambda x: x + generator.normal(),
        lambda x: x + legacy.rand(),
        lambda x: x + held["rng"][0].random(),
        lambda x: x + np.random.rand(),  # noqa: NPY002
        lambda x: x + random.random(),
        lambda x: x + reference().rng.normal(),  # type: ignore[union-attr]
        lambda x: x + draw(),
        lambda x: x + next(numbers),
        lambda x: x + generator.spawn(1)[0].normal(),
    ]
    for f in functions:
        with pytest.raises(TracerError, match=r"drawn from.*Hint: draw outside"):
            ckad.jit(f)(1.0)
    with pytest.raises(TracerError, match="Generator was drawn from"):
        ckad.jit(lambda x, rng: x + rng.normal())(1.0, generator)
    with pytest.raises(TracerError, match="Generator was drawn from"):
        ckad.jit(lambda x, rng: x + rng.normal(), static_argnums=1)(1.0, generator)
    assert ckad.jit(lambda x, rng: x * 2)(1.0, generator) == 2.0


def test_errors_are_at_the_users_line_and_leave_nothing_behind() -> None:
    f = ckad.jit(lambda x, i: x[i])
    with pytest.raises(CkadIndexError, match=r"out of bounds.*test_jit\.py"):
        f(np.ones(3), 7)
    assert f(np.ones(3), 2) == 1.0

    def broken(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ckad.jit(broken)(1.0)
    with pytest.raises(CkadTypeError, match="no return"):
        ckad.jit(lambda x: None)(1.0)
    leaked: list[Any] = []
    ckad.jit(lambda x: leaked.append(x) or x * 1.0)(1.0)
    with pytest.raises(TracerError, match="after the transform"):
        leaked[0] + 1.0
    assert ckad.grad(np.sin)(0.0) == 1.0


# Values that Python needs -------------------------------------------------------------------------------------------


def test_numbers_come_back_as_they_would_without() -> None:
    def f(x: Any, n: Any, flag: Any) -> Any:
        return x * 2, n + 1, n / 2, np.sin(x), x > 1, np.where(flag, x, n), "text", 3, None

    for x in (1.5, np.float64(1.5), np.float32(1.5), np.array(1.5), np.array([1.5])):
        found = ckad.jit(f)(x, 3, True)
        expected = f(x, 3, True)
        for a, b in zip(found, expected, strict=True):
            assert type(a) is type(b), (x, a, b)
            assert a is b or np.array_equal(a, b)


def test_integers_beyond_64_bits() -> None:
    f = ckad.jit(lambda x, n: (x * (n // 2**60), n + 1))
    for n in (2**70, 2**80, -(2**90), 2**61):
        assert f(1.5, n) == (1.5 * (n // 2**60), n + 1)


def test_indices_that_are_arguments() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    cases: list[Callable[[Any, Any], Any]] = [
        lambda x, i: x[i],
        lambda x, i: x[:, i],
        lambda x, i: x[i, :, i],
        lambda x, i: x[-i, 2, i],
        lambda x, i: x[i, None, ..., 0],
        lambda x, i: x[i, [0, 1]],
        lambda x, i: x[i][0],
        lambda x, i: np.take(x, i, axis=1),
    ]
    for f in cases:
        assert_equal_bits(ckad.jit(f)(x, 1), f(x, 1))
        gradient = ckad.grad(lambda x, i, f=f: np.sum(np.sin(f(x, i))))
        assert_equal_bits(ckad.jit(gradient)(x, 1), gradient(x, 1))

    def write(x: Any, i: Any) -> Any:
        x = x.copy()
        x[i] = x[i] * 2
        x[0, i, i] = -1.0
        return x

    assert_equal_bits(ckad.jit(write)(x, 1), write(x, 1))

    def through_a_view(x: Any, i: Any) -> Any:
        row = x.copy()[i]
        row += 1.0
        return row

    with pytest.raises(CkadValueError, match=r"x\[i\] = x\[i\] \+ 1"):
        ckad.jit(through_a_view)(x, 1)


def test_results_are_fresh() -> None:
    constant = np.ones(3)
    f = ckad.jit(lambda x: (x, constant, x.T, np.zeros(2)))
    x = np.ones((2, 2))
    first = f(x)
    for array in first:
        array[...] = 7.0
    assert x[0, 0] == constant[0] == 1.0
    assert [float(array.ravel()[0]) for array in f(x)] == [1.0, 1.0, 1.0, 0.0]
    names = ckad.jit(lambda x: (x, np.array(["a", "b"])))
    names(x)[1][0] = "changed"
    assert names(x)[1].tolist() == ["a", "b"]


def test_layouts_and_empty_arrays() -> None:
    base = np.arange(24.0).reshape(4, 6)
    f = ckad.jit(lambda x: (x * 2.0, x.T, x[::-1].copy(), x.ravel(), np.sum(x, axis=0)))
    for x in (base, base.T, base[::2, 1::2], base[::-1], np.asfortranarray(base), base[:, :0], base[:1]):
        for _ in range(2):
            found, expected = f(x), evaluated(f.__wrapped__, x)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.strides == b.strides or a.size < 2


# Looking at it ------------------------------------------------------------------------------------------------------


def test_plan_profile_trace_and_debugging() -> None:
    f = ckad.jit(lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0.0)))
    x = np.array([0.0, 1.0, 4.0])
    assert f(x) == 3.0
    plan = ckad.plan(f)(x)
    assert plan.parts["outputs"] == 8
    assert plan.forced_runs == (0, 0)
    assert "test_jit.py" in str(plan)
    assert len(ckad.trace(f)(x)) > 2
    assert len(ckad.debug_nans(ckad.jit(ckad.grad(f)))(x)) == 1
    report = ckad.memory.profile(ckad.jit(ckad.grad(f)), x)
    assert report.executor_bytes == report.planned_bytes


def test_recordings_are_collected() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.rate = 0.1
            self.step = ckad.jit(self.plain)

        def plain(self, x: Any) -> Any:
            return x - self.rate * x

    trainer = Trainer()
    trainer.step(np.ones(3))
    watch = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert watch() is None


def test_as_a_decorator_and_as_a_method() -> None:
    class Layer:
        def __init__(self, w: Any) -> None:
            self.w = w

        @ckad.jit
        def free(x: Any, w: Any) -> Any:
            return x * w

    assert Layer.free(2.0, 3.0) == 6.0

    @ckad.jit
    def documented(x: Any) -> Any:
        """Doubles."""
        return x * 2

    assert documented.__doc__ == "Doubles."
    assert documented(2.0) == 4.0


def test_what_a_function_can_reach() -> None:
    class Node:
        def __init__(self) -> None:
            self.next: Any = self
            self.value = 1.0

    node = Node()
    cyclic: list[Any] = [node]
    cyclic.append(cyclic)

    def f() -> Any:
        return cyclic, node.value, node.next

    places = Reach([f]).places
    assert sum(place[0] == "elements" and place[1] is cyclic for place in places) == 1
    assert any(place[0] == "item" and place[2] == "value" for place in places)


# Donation -----------------------------------------------------------------------------------------------------------


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def adam_problem(layers: int = 6, width: int = 128) -> tuple[Any, Any, Any, Callable[..., Any]]:
    rng = np.random.default_rng(0)
    shapes = [(width, width)] * layers
    params = [(rng.standard_normal(s).astype(np.float32) / 8, np.zeros(s[1], np.float32)) for s in shapes]
    x = rng.standard_normal((256, width)).astype(np.float32)
    init, update = ckad.optim.adam(1e-3)

    def loss(params: Any, x: Any) -> Any:
        for w, b in params:
            x = np.tanh(x @ w + b)
        return np.mean(x * x)

    gradient = ckad.value_and_grad(loss, checkpoint="sqrt")

    def step(params: Any, state: Any, x: Any) -> Any:
        value, grads = gradient(params, x)
        params, state = update(grads, state, params)
        return value, params, state

    return params, init(params), x, step


def copied(tree: Any) -> Any:
    return ckad.tree.map_leaves(np.copy, tree)


def test_a_donated_training_step() -> None:
    params, state, x, step = adam_problem()
    jitted = ckad.jit(step, donate_argnums=(0, 1))
    ours = copied(params), copied(state) | {"step": 0}
    theirs = params, state
    places = {address(leaf) for leaf in flatten(ours)[0] if np.ndim(leaf) == 2}
    for _ in range(4):
        value, *ours = jitted(*ours, x)
        expected, *theirs = step(*theirs, x)
        assert value == expected
    assert_equal_bits(tuple(ours), tuple(theirs))
    now = [address(leaf) for leaf in flatten(ours)[0] if np.ndim(leaf) == 2]
    assert len(places & set(now)) >= len(now) - 1


def test_the_plan_counts_donation() -> None:
    params, state, x, step = adam_problem(16)
    held = sum(leaf.nbytes for leaf in flatten((params, state))[0] if isinstance(leaf, np.ndarray))
    kept = ckad.plan(ckad.jit(step))(params, state, x)
    given = ckad.plan(ckad.jit(step, donate_argnums=(0, 1)))(params, state, x)
    assert kept.parts["outputs"] >= held
    assert given.parts["outputs"] <= 0.03 * held
    assert given.parts["arena"] == kept.parts["arena"]
    # Planned only: nothing was used up.
    assert params[0][0].dtype == np.float32


def test_donated_arrays_are_unusable() -> None:
    f = ckad.jit(lambda x, y: x * 2 + y, donate_argnums=0)
    x, y = np.ones(100_000), np.ones(100_000)
    place = address(x)
    result = f(x, y)
    assert address(result) == place
    assert result[0] == 3.0
    for use in (
        lambda: x + 1,
        lambda: np.sin(x),
        lambda: x.sum(),
        lambda: float(x[0]),
        lambda: f(x, y),
        lambda: ckad.grad(np.sum)(x),
        lambda: x.__setitem__(0, 1.0),
    ):
        with pytest.raises((TypeError, ValueError)):
            use()
    assert "donated_to_ckad_jit" in repr(x.dtype)
    gc.collect()
    assert result[999] == 3.0
    again = f(result, y)
    assert address(again) == place
    assert again[999] == 7.0


def test_what_cannot_be_donated() -> None:
    f = ckad.jit(lambda x, y: x * 2 + y, donate_argnums=0)
    base, other = np.ones((10, 100)), np.ones((10, 100))
    read_only = np.ones((10, 100))
    read_only.flags.writeable = False
    captured = np.ones((10, 100))
    result = f(np.ones((10, 100)), other)
    for array, y, what in [
        (base[:5], other[:5], "view of memory"),
        (base, base, "shares memory"),
        (base, base[::-1], "shares memory"),
        (read_only, other, "read-only"),
        (result[:], other, "view of memory"),
        (np.broadcast_to(1.0, (10, 100)), other, "read-only"),
    ]:
        with pytest.raises(CkadValueError, match=what):
            f(array, y)
    large = np.ones((100, 200))
    g = ckad.jit(lambda x: x * large, donate_argnums=0)
    with pytest.raises(CkadValueError, match="shares memory"):
        g(large)
    assert base[0, 0] == result[0, 0] / 3 == captured[0, 0] == large[0, 0] == 1.0
    with pytest.raises(CkadValueError, match="static_argnums and in donate_argnums"):
        ckad.jit(lambda x: x, static_argnums=0, donate_argnums=0)


def test_a_failed_call_gives_nothing_up() -> None:
    def f(x: Any, i: Any) -> Any:
        picked = x[i]
        return x * 2 + picked

    jitted = ckad.jit(f, donate_argnums=0)
    x = np.ones(1000)
    with pytest.raises(CkadIndexError):
        jitted(x, 5000)
    assert x[0] == 1.0
    assert jitted(x, 5)[0] == 3.0


def test_threads_cannot_give_up_the_same_array() -> None:
    f = ckad.jit(lambda x: x * 2.0, donate_argnums=0)
    f(np.ones(200_000))
    for _ in range(20):
        x = np.ones(200_000)
        found: list[float] = []

        def give_up(x: Any = x, found: list[float] = found) -> None:
            with contextlib.suppress(TypeError, ValueError):
                found.append(float(f(x)[0]))

        threads = [threading.Thread(target=give_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [2.0]


def test_donation_inside_another_transform_is_no_donation() -> None:
    f = ckad.jit(lambda x: x * x, donate_argnums=0)
    x = np.ones(1000)
    assert ckad.grad(lambda x: np.sum(f(x)))(x)[0] == 2.0
    assert x[0] == 1.0


@pytest.mark.parametrize("seed", range(30))
def test_donation_changes_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, n = 4, int(rng.choice([40, 3000, 70000]))
    shape = (n,) if rng.random() < 0.5 else (n // 10, 10)
    choices = rng.integers(0, 9, 14)
    picks = rng.integers(0, 1 << 30, (14, 2))

    def program(values: Any) -> Any:
        values = list(values)
        for choice, (i, j) in zip(choices, picks, strict=True):
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(
                [
                    lambda a, b: a + b,
                    lambda a, b: a * b,
                    lambda a, b: np.tanh(a) - b,
                    lambda a, b: a[::-1] * 0.5,
                    lambda a, b: np.roll(a, 3, axis=0) + b,
                    lambda a, b: a - np.mean(b),
                    lambda a, b: a * np.sum(b, axis=-1, keepdims=True),
                    lambda a, b: np.cumsum(a, axis=0) * 1e-3,
                    lambda a, b: np.where(a > b, a, b),
                ][choice](a, b)
            )
        order = picks[:, 0] % len(values)
        return [values[k] for k in order[:5]] + [np.sum(values[-1]), values[0], values[1]]

    arrays = [rng.standard_normal(shape) for _ in range(count)]
    kept = ckad.jit(program)(arrays)
    given = ckad.jit(program, donate_argnums=0)(copied(arrays))
    assert_equal_bits(given, kept)


def test_arrays_that_a_trace_around_reads_are_compared_and_not_donated() -> None:
    a = np.ones(100_000)
    g = ckad.jit(lambda x: np.sum(x * (a * 2.0)))

    def outer(x: Any) -> Any:
        return np.sum(x * a) + g(x)

    assert ckad.value_and_grad(outer)(1.0)[1] == 300_000
    a[:] = 2.0
    assert ckad.value_and_grad(outer)(1.0)[1] == 600_000

    step = ckad.jit(lambda y, i: y[i] + y * 2.0, donate_argnums=0)

    def donating(x: Any) -> Any:
        y = np.sum(x * a)
        with pytest.raises(CkadValueError, match="still to be read"):
            step(a, 0)
        with pytest.raises(CkadValueError, match="still to be read"):
            step(a, 200_000)
        assert not a.flags.writeable
        return y

    assert ckad.grad(donating)(1.0) == 200_000
    assert a.flags.writeable


def test_large_arrays_that_the_walk_does_not_find_are_compared() -> None:
    space = SimpleNamespace(table=np.ones(100_000))
    name = "ta" + "ble"
    f = ckad.jit(lambda x: np.sum(x * getattr(space, name)))
    assert f(1.0) == 100_000
    space.table[:] = 2.0
    assert f(1.0) == 200_000


def test_memory_of_others_is_not_donated() -> None:
    buffer = bytearray(80_000)
    f = ckad.jit(lambda x: x + 1.0, donate_argnums=0)
    for array in (np.frombuffer(buffer), np.frombuffer(buffer).reshape(100, 100)):
        with pytest.raises(CkadValueError, match="belongs to something else"):
            f(array)
    with pytest.raises(CkadValueError, match="byte order"):
        f(np.ones(1000, ">f8"))
    assert bytes(buffer) == bytes(80_000)
    assert f(np.ones(10_000).reshape(100, 100))[0, 0] == 2.0


def test_release_frees_the_programs_of_recordings() -> None:
    def f(x: Any) -> Any:
        for _ in range(300):
            x = np.sin(x) * 1.1
        return x

    jitted = Counted(f)
    first = jitted(np.ones(5))
    ckad.memory.release()
    assert_equal_bits(jitted(np.ones(5)), first)
    assert jitted.count == 1


def test_static_and_donated_arguments_by_keyword_beside_any_number() -> None:
    def f(x: Any, n: int, *rest: Any) -> Any:
        return x * sum(1.0 for _ in range(n))

    assert ckad.jit(f, static_argnums=1)(1.0, n=2) == 2.0
    assert ckad.jit(f, static_argnums=(1, 2))(1.0, 3, "rest") == 3.0


def test_true_and_false_are_pythons() -> None:
    f = Counted(lambda a, b: (a + b, ~a, -a, a * 1.5))
    assert f(True, True) == (2, -2, -1, 1.5)
    assert f(False, True) == (1, -1, 0, 0.0)
    assert f(True, True) == (2, -2, -1, 1.5)
    assert f.count == 2
    assert ckad.jit(lambda x, flag: x if flag else -x)(2.0, False) == -2.0


def test_what_a_function_changes_while_it_imports_is_seen() -> None:
    count = [0]

    def f(x: Any) -> Any:
        import this_module_is_not_there_before_test_jit as module

        count[0] += 1
        return x * count[0] * module.FACTOR

    module = ModuleType("this_module_is_not_there_before_test_jit")
    module.FACTOR = 2.0  # type: ignore[attr-defined]

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return importlib.util.spec_from_loader(name, Finder) if name == module.__name__ else None

        @staticmethod
        def create_module(spec: Any) -> Any:
            return module

        @staticmethod
        def exec_module(module: Any) -> None:
            """It is as it is."""

    sys.meta_path.append(Finder)  # type: ignore[arg-type]
    try:
        jitted = ckad.jit(f)
        assert [float(jitted(1.0)) for _ in range(3)] == [2.0, 4.0, 6.0]
    finally:
        sys.meta_path.remove(Finder)  # type: ignore[arg-type]
        sys.modules.pop(module.__name__, None)
