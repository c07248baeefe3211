"""What a function can reach beside its arguments: what `ckad.jit` compares before each call.

The walk starts at the function and at the classes of its arguments, and goes through what code names: cells of
closures, globals, attributes of modules, classes and instances, defaults, and the elements of containers. Modules of
NumPy, ckad and the standard library are not looked into; a function of theirs is, as far as its closure goes
(`ckad.grad(loss)` holds `loss`), and so are their containers, layers and references. What is not there is watched where
the code asks whether it is.

Not found are names that a program makes up as it runs (`getattr(config, name)`, `operator.attrgetter`), the environment
of the process, how far an iterator has come, and a read-only array that is made writeable, changed and read-only again.
"""

from __future__ import annotations

import builtins
import contextvars
import enum
import functools
import pickle
import random
import sys
import threading
import types
import weakref
from array import array
from collections.abc import Iterable, Set
from typing import Any, Final

import numpy as np
import optree

from ckad import _core
from ckad.tree import NAMESPACE, is_leaf

_LIBRARIES: Final = frozenset({"numpy", "ckad", "optree", "builtins", *sys.stdlib_module_names}) - {"__main__"}

_VALUES: Final = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype, slice, range)
"""What cannot change: the place that holds it is watched."""

_CALLS: Final = (functools.partial, types.FunctionType, types.MethodType)
_BOUND: Final = (types.BuiltinMethodType, types.MethodWrapperType)

_ASKS_BY_TEXT: Final = frozenset({"getattr", "hasattr", "setattr", "vars", "globals", "attrgetter", "__dict__"})
"""Code that names one of these may name an attribute in a string."""

_ASKS_WHETHER: Final = frozenset({"AttributeError", "NameError", "suppress"})
"""Code that names one of these may look for what is not there."""


@functools.cache
def _generator_classes() -> tuple[type, ...]:
    # NumPy imports this part of it only when it is used.
    return (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)


def _is_library(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


def _holds(module: str) -> bool:
    """Do a library module's classes hold what is the user's? So do ckad's layers, and what is derived from them."""
    return module in ("collections", "weakref") or module.startswith("ckad.")


def _namespace(found: Any) -> dict[str, Any] | None:
    """The attributes that an object has of its own."""
    try:
        namespace = found.__dict__
    except Exception:  # The user's code may be asked, and may raise anything.
        return None
    return namespace if isinstance(namespace, dict) else None


def _wrapped(found: Any, namespace: dict[str, Any] | None) -> list[Any]:
    """What a wrapper says it wraps. An object that has an answer to every name is not asked."""
    if namespace is not None and "__wrapped__" in namespace:
        return [namespace["__wrapped__"]]
    if any("__wrapped__" in vars(base) for base in type(found).__mro__):
        inner = getattr(found, "__wrapped__", None)
        return [] if inner is None else [inner]
    return []


def _structure(arguments: Iterable[Any]) -> list[Any]:
    """What the containers among arguments are beside their leaves: their classes, and attributes that are no leaves."""
    found: list[Any] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop()
        if is_leaf(argument):
            continue
        children, fixed, *_ = optree.tree_flatten_one_level(argument, namespace=NAMESPACE)
        pending.extend(children)
        if type(argument) not in (list, tuple, dict):
            found += [type(argument), fixed]
    return found


class Reach:
    """What can be reached from some objects.

    Args:
        roots: a function, and values that it is given as they are.
        arguments: what it is given with traced leaves: the containers have methods and attributes that are not traced.
    """

    def __init__(self, roots: Iterable[Any], arguments: Iterable[Any] = ()) -> None:
        self._roots = [*roots, *_structure(arguments)]
        self._names: set[str] = set()
        self._asked: set[str] = set()
        """Names whose absence the code may notice."""
        known = -1
        # A name that one function reads may be an attribute of what was met before.
        while known != len(self._names):
            known = len(self._names)
            self.places: list[tuple[Any, ...]] = []
            """Where something was found: `(kind, object)` or `(kind, object, name)`, as `_core.JitWatches` takes it."""
            self._generators: dict[int, Any] = {}
            self._seen: dict[int, Any] = {}
            self._walk()

    def _walk(self) -> None:
        pending = list(self._roots)
        while pending:
            found = pending.pop()
            if isinstance(found, _VALUES) or id(found) in self._seen:
                continue
            self._seen[id(found)] = found
            pending.extend(self._inside(found))

    def _inside(self, found: Any) -> Iterable[Any]:
        """What an object leads to; its places are noted."""
        if isinstance(found, _core.Tracer):
            self.places.append(("traced", found))
            return ()
        if isinstance(found, np.ndarray):
            self.places.append(("array", found))
            return found.ravel().tolist() if found.dtype == object else ()
        if isinstance(found, _generator_classes()):
            self._generators[id(found)] = found
            return ()
        if isinstance(found, types.FunctionType):
            return self._inside_function(found)
        if isinstance(found, types.MethodType):
            return found.__self__, found.__func__
        if isinstance(found, _BOUND):
            return () if isinstance(found.__self__, types.ModuleType) else (found.__self__,)
        if isinstance(found, functools.partial):
            return found.func, *found.args, *found.keywords.values()
        if isinstance(found, types.ModuleType):
            return () if _is_library(found.__name__) else self._items(vars(found), self._asked)
        if isinstance(found, type):
            return self._inside_class(found)
        if isinstance(found, (staticmethod, classmethod)):
            return (found.__func__,)
        if isinstance(found, property):
            return [accessor for accessor in (found.fget, found.fset) if accessor is not None]
        if isinstance(found, (tuple, frozenset)):
            return [*found, *self._inside_instance(found)]
        if isinstance(found, dict):
            self.places.append(("entries", found))
            return [*found.values(), *self._inside_instance(found)]
        if isinstance(found, (list, set, bytearray, array)) or type(found).__module__ == "collections":
            self.places.append(("elements", found))
            return [*found, *self._inside_instance(found)]
        if isinstance(found, types.MappingProxyType):
            self.places.append(("elements", found.items()))
            return found.values()
        if isinstance(found, memoryview):
            return (found.obj,)
        if isinstance(found, types.GeneratorType):
            return () if found.gi_frame is None else found.gi_frame.f_locals.values()
        if isinstance(found, (contextvars.ContextVar, weakref.ref, threading.local)):
            return self._inside_holder(found)
        if isinstance(found, functools.partialmethod):
            return found.func, *found.args, *found.keywords.values()
        return self._inside_instance(found)

    def _inside_holder(self, found: Any) -> list[Any]:
        """What an object gives out where it is asked, depending on who asks and when."""
        if isinstance(found, contextvars.ContextVar):
            ask: Any = functools.partial(found.get, None)
        elif isinstance(found, weakref.ref):
            ask = found
        else:
            ask = functools.partial(getattr, found, "__dict__")
        self.places.append(("answer", ask))
        return [ask()] if ask is found or isinstance(found, contextvars.ContextVar) else self._inside_instance(found)

    def _inside_function(self, function: types.FunctionType) -> list[Any]:
        found = []
        for cell in function.__closure__ or ():
            self.places.append(("cell", cell))
            try:
                found.append(cell.cell_contents)
            except ValueError:  # Empty: the variable is assigned later.
                continue
        found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += _wrapped(function, vars(function))
        if not _is_library(function.__globals__.get("__name__")):
            # Reloading in a notebook changes a function in place.
            self.places += [("attribute", function, name) for name in ("__code__", "__defaults__", "__kwdefaults__")]
            self.places += [("entries", function.__kwdefaults__)] if function.__kwdefaults__ else []
            self._read_names(function.__code__)
            found += self._items(vars(function), self._asked)
            found += self._items(function.__globals__, self._asked | vars(builtins).keys())
            found += self._imported(function)
        return found

    def _read_names(self, code: types.CodeType) -> None:
        self._names.update(code.co_names)
        if not _ASKS_BY_TEXT.isdisjoint(code.co_names):
            texts = {text for text in code.co_consts if isinstance(text, str) and text.isidentifier()}
            self._names |= texts
            self._asked |= texts
        if not _ASKS_WHETHER.isdisjoint(code.co_names):
            self._asked.update(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._read_names(constant)

    def _imported(self, function: types.FunctionType) -> list[Any]:
        """Modules that the function may import where it runs."""
        package = function.__globals__.get("__package__")
        names = [(name, f"{package}.{name}") for name in self._names]
        modules = [sys.modules[name] for either in names for name in either if name in sys.modules]
        return [module for module in modules if isinstance(module, types.ModuleType)]

    def _items(self, namespace: dict[str, Any], missed: Set[str] = frozenset()) -> list[Any]:
        """Values of the names that were met, in a module or an instance. Of `missed` also those that are not there."""
        names = [name for name in self._names if name in namespace]
        self.places += [("item", namespace, name) for name in names]
        self.places += [("item", namespace, name) for name in self._names & missed if name not in namespace]
        return [namespace[name] for name in names]

    def _inside_class(self, found: type) -> list[Any]:
        users = [base for base in found.__mro__ if not _is_library(base.__module__)]
        inside: list[Any] = [type(found)] if users else []
        sought = {name for base in users for name in vars(base) if name in self._names}
        for base in users:
            for name, value in vars(base).items():
                if name in self._names or (name.startswith("__") and isinstance(value, types.FunctionType)):
                    self.places.append(("member", base, name))
                    inside.append(value)
            # Up to the class that has it, one before may get one of its own.
            sought -= vars(base).keys()
            self.places += [("member", base, name) for name in sought | (self._asked - vars(base).keys())]
        return inside

    def _inside_instance(self, found: Any) -> list[Any]:
        inside: list[Any] = [type(found)]
        namespace = _namespace(found)
        of_library = _is_library(type(found).__module__)
        if not of_library:
            self.places.append(("instance", found))
        if namespace is not None:
            # An attribute of the class, until the instance has one of its own.
            of_class = {name for base in type(found).__mro__ if not _is_library(base.__module__) for name in vars(base)}
            inside += self._items(namespace, of_class | self._asked)
            if of_library:
                inside += [value for value in namespace.values() if isinstance(value, _CALLS)]
            if not is_leaf(found) or any(_holds(base.__module__) for base in type(found).__mro__):
                # Read by code that is not looked into.
                self.places.append(("entries", namespace))
                inside += namespace.values()
        if isinstance(found, enum.Enum):
            inside.append(found._value_)
        for base in type(found).__mro__:
            for name, member in list(vars(base).items()):
                if isinstance(member, types.MemberDescriptorType) and name in self._names:
                    self.places.append(("attribute", found, name))
                    inside += [getattr(found, name)] if hasattr(found, name) else []
        if not is_leaf(found):  # Layers, and other containers that optree knows.
            container: Any = found
            inside += optree.tree_flatten_one_level(container, namespace=NAMESPACE)[0]
        return inside + _wrapped(found, namespace)

    def generator_states(self) -> dict[int, object]:
        """The state of each random generator that can be reached, the global ones included."""
        for generator in (np.random.mtrand._rand, random._inst):
            self._generators[id(generator)] = generator
        return {key: self.state_of(key) for key in self._generators}

    def state_of(self, key: int) -> object:
        """The state of a generator now, as something that can be compared."""
        generator = self._generators[key]
        if isinstance(generator, random.SystemRandom):  # It has none.
            return None
        if isinstance(generator, random.Random):
            return generator.getstate()
        if isinstance(generator, np.random.RandomState):
            state: Any = generator.get_state(legacy=False)
        else:
            bits: Any = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
            # Generators that are spawned are numbered by the seed.
            state = bits.state, getattr(getattr(bits, "seed_seq", None), "n_children_spawned", 0)
        return pickle.dumps(state)

    def name_of(self, key: int) -> str:
        """What a generator is called in an error."""
        generator = self._generators[key]
        if generator is np.random.mtrand._rand:
            return "NumPy's global generator (np.random)"
        return "Python's random module" if generator is random._inst else f"a {type(generator).__name__}"
