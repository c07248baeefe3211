"""`layer`: makes a class of the user's a pytree.

The attributes that are named hold what is trained, or kept up to date in training (arrays, or pytrees of them), and
become children; every other attribute is part of the structure and must compare by value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import optree

from ckad.tree import NAMESPACE

T = TypeVar("T")


def layer(*fields: str, state: tuple[str, ...] = ()) -> Callable[[type[T]], type[T]]:
    """A class decorator that registers a class as a pytree whose children are the attributes named.

    Args:
        fields: names of the attributes that hold arrays or pytrees and are trained.
        state: names of those that hold some which are not, such as running means. Calling such a layer returns
            `(y, layer)`, the layer with its new state; no derivative should go into the old one
            (`ckad.stop_gradient`).

    Returns:
        The decorator. Instances made from leaves do not go through `__init__`.

    >>> import numpy as np
    >>> @layer("scale")
    ... class Scale:
    ...     def __init__(self, n):
    ...         self.scale = np.ones(n)
    ...
    ...     def __call__(self, x):
    ...         return x * self.scale
    >>> import ckad.tree
    >>> ckad.tree.paths([Scale(3)])
    ['0/scale']
    """

    children = (*fields, *state)

    def register(cls: type[T]) -> type[T]:
        cls.has_state = bool(state)  # type: ignore[attr-defined]

        def to_children(instance: Any) -> tuple[tuple[Any, ...], Any, tuple[str, ...]]:
            values = tuple(getattr(instance, name) for name in children)
            rest = tuple((name, value) for name, value in sorted(vars(instance).items()) if name not in children)
            return values, rest, children

        def from_children(rest: Any, values: Any) -> T:
            instance = object.__new__(cls)
            for name, value in (*rest, *zip(children, values, strict=True)):
                object.__setattr__(instance, name, value)
            return instance

        optree.register_pytree_node(cls, to_children, from_children, namespace=NAMESPACE)  # type: ignore[arg-type]
        return cls

    return register
