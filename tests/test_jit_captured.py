"""`ckad.jit` records anew when what a function takes from outside has changed."""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import warnings
import weakref
from collections import ChainMap, UserDict
from collections.abc import Callable
from contextvars import ContextVar
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jitted import Counted, assert_equal_bits
from test_functions import evaluated

import ckad
from ckad import _core

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


def test_large_arrays_that_the_walk_does_not_find_are_compared() -> None:
    space = SimpleNamespace(table=np.ones(100_000))
    name = "ta" + "ble"
    f = ckad.jit(lambda x: np.sum(x * getattr(space, name)))
    assert f(1.0) == 100_000
    space.table[:] = 2.0
    assert f(1.0) == 200_000


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
