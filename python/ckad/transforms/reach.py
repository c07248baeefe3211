"""What a function can reach beside its arguments: what `ckad.jit` compares before each call.

The walk starts at the function and goes through what its code names: cells of closures, globals, attributes of modules,
classes and instances, defaults, and the elements of containers. Modules of NumPy, ckad and the standard library are not
looked into; a function of theirs is, as far as its closure goes (`ckad.grad(loss)` holds `loss`). Names that a program
makes up as it runs (`getattr(config, name)`) are not found.
"""

from __future__ import annotations

import functools
import pickle
import random
import sys
import types
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import optree

from ckad import _core
from ckad.tree import NAMESPACE, is_leaf

_LIBRARIES: Final = frozenset({"numpy", "ckad", "optree", "builtins", *sys.stdlib_module_names}) - {"__main__"}

_VALUES: Final = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype, slice, range)
"""What cannot change: the place that holds it is watched."""


@functools.cache
def _generator_classes() -> tuple[type, ...]:
    # NumPy imports this part of it only when it is used.
    return (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)


def _is_library(module: Any) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _LIBRARIES


def _wrapped(found: Any) -> list[Any]:
    """What a wrapper says it wraps."""
    inner = getattr(found, "__wrapped__", None) if callable(found) else None
    return [] if inner is None else [inner]


class Reach:
    """What can be reached from some objects.

    Args:
        roots: a function, and values that it is given as they are.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self._roots = list(roots)
        self._names: set[str] = set()
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
        if isinstance(found, functools.partial):
            return found.func, *found.args, *found.keywords.values()
        if isinstance(found, types.ModuleType):
            return () if _is_library(found.__name__) else self._items(vars(found))
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
        if isinstance(found, (list, set)) or type(found).__module__ == "collections":
            self.places.append(("elements", found))
            return [*found, *self._inside_instance(found)]
        return self._inside_instance(found)

    def _inside_function(self, function: types.FunctionType) -> list[Any]:
        found = []
        for cell in function.__closure__ or ():
            self.places.append(("cell", cell))
            try:
                found.append(cell.cell_contents)
            except ValueError:  # Empty: the variable is assigned later.
                continue
        found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += _wrapped(function)
        if not _is_library(function.__globals__.get("__name__")):
            self._read_names(function.__code__)
            found += self._items(function.__globals__)
        return found

    def _read_names(self, code: types.CodeType) -> None:
        self._names.update(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._read_names(constant)

    def _items(self, namespace: dict[str, Any]) -> list[Any]:
        """Values of the names that were met, in a module or an instance."""
        names = [name for name in self._names if name in namespace]
        self.places += [("item", namespace, name) for name in names]
        return [namespace[name] for name in names]

    def _inside_class(self, found: type) -> list[Any]:
        inside = []
        for base in found.__mro__:
            if _is_library(base.__module__):
                continue
            for name, value in vars(base).items():
                special = name.startswith("__") and isinstance(value, types.FunctionType)
                if special:
                    inside.append(value)
                elif name in self._names:
                    self.places.append(("member", base, name))
                    inside.append(value)
        return inside

    def _inside_instance(self, found: Any) -> list[Any]:
        inside: list[Any] = [type(found)]
        namespace = getattr(found, "__dict__", None)
        if isinstance(namespace, dict):
            inside += self._items(namespace)
            # An attribute of the class, until the instance has one of its own.
            of_class = {name for base in type(found).__mro__ if not _is_library(base.__module__) for name in vars(base)}
            self.places += [("item", namespace, name) for name in self._names & of_class if name not in namespace]
        for base in type(found).__mro__:
            for name, member in list(vars(base).items()):
                if isinstance(member, types.MemberDescriptorType) and name in self._names and hasattr(found, name):
                    self.places.append(("attribute", found, name))
                    inside.append(getattr(found, name))
        if not is_leaf(found):  # Layers, and other containers that optree knows.
            inside += optree.tree_flatten_one_level(found, namespace=NAMESPACE)[0]
        return inside + _wrapped(found)

    def generator_states(self) -> dict[int, bytes]:
        """The state of each random generator that can be reached, the global ones included."""
        for generator in (np.random.mtrand._rand, random._inst):
            self._generators[id(generator)] = generator
        return {key: self.state_of(key) for key in self._generators}

    def state_of(self, key: int) -> bytes:
        """The state of a generator now."""
        generator = self._generators[key]
        if isinstance(generator, random.Random):
            state: Any = generator.getstate()
        elif isinstance(generator, np.random.RandomState):
            state = generator.get_state(legacy=False)
        elif isinstance(generator, np.random.Generator):
            state = generator.bit_generator.state
        else:
            state = generator.state
        return pickle.dumps(state)

    def name_of(self, key: int) -> str:
        """What a generator is called in an error."""
        generator = self._generators[key]
        if generator is np.random.mtrand._rand:
            return "NumPy's global generator (np.random)"
        return "Python's random module" if generator is random._inst else f"a {type(generator).__name__}"
