"""`layer`: makes a class of the user's a pytree.

The attributes that are named hold what is trained (arrays, or pytrees of them) and become children; every other
attribute is part of the structure and must compare by value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import optree

from ckad.tree import NAMESPACE

T = TypeVar("T")


def layer(*fields: str) -> Callable[[type[T]], type[T]]:
    """A class decorator that registers a class as a pytree whose children are the attributes named.

    Args:
        fields: names of the attributes that hold arrays or pytrees.

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

    def register(cls: type[T]) -> type[T]:
        def to_children(instance: Any) -> tuple[tuple[Any, ...], Any, tuple[str, ...]]:
            children = tuple(getattr(instance, name) for name in fields)
            rest = tuple((name, value) for name, value in sorted(vars(instance).items()) if name not in fields)
            return children, rest, fields

        def from_children(rest: Any, children: Any) -> T:
            instance = object.__new__(cls)
            for name, value in (*rest, *zip(fields, children, strict=True)):
                object.__setattr__(instance, name, value)
            return instance

        optree.register_pytree_node(cls, to_children, from_children, namespace=NAMESPACE)  # type: ignore[arg-type]
        return cls

    return register
