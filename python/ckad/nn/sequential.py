"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree

from ckad import tree
from ckad.errors import CkadTypeError, CkadValueError


class Sequential:
    """Applies layers and functions, the first one first.

    Args:
        layers: layers (pytrees that can be called) and plain functions such as `numpy.tanh`. A function has no
            parameters and belongs to the structure; the place of a layer is its position, so its first weight is saved
            as '0/weight'.

    Raises:
        ValueError: a layer, or an array of one, appears twice. Such parameters would be updated apart from each other,
            and after one step no longer be shared.
        TypeError: something that cannot be called, or that holds arrays but is no pytree and so would not be trained.

    >>> from ckad.nn import Linear
    >>> model = Sequential(Linear(2, 4, rng=0), np.tanh, Linear(4, 1, rng=1))
    >>> tree.paths(model)
    ['0/weight', '0/bias', '2/weight', '2/bias']
    """

    layers: tuple[Callable[[Any], Any], ...]

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        owner: dict[int, int] = {}
        for position, layer in enumerate(layers):
            _check(layer, position)
            # Found by its arrays, a layer is seen twice also when it sits inside another one.
            for leaf in [] if tree.is_leaf(layer) else tree.flatten(layer)[0]:
                if np.ndim(leaf) == 0 and not isinstance(leaf, np.ndarray):
                    continue
                if id(leaf) in owner:
                    hint = "make a layer of its own for each place, or apply the shared one in a function of yours"
                    what = f"layer {position} shares parameters with layer {owner[id(leaf)]}; an update would part them"
                    raise CkadValueError.of("Sequential", what, hint)
                owner[id(leaf)] = position
        self.layers = layers

    def __call__(self, x: Any) -> Any:
        """Applies the layers, the first one first."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Callable[[Any], Any]]:
        return iter(self.layers)

    def __getitem__(self, position: int) -> Any:
        return self.layers[position]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(getattr(layer, '__name__', repr(layer)) for layer in self.layers)})"


def _check(layer: Any, position: int) -> None:
    if not callable(layer):
        what = f"layer {position} is {layer!r:.80}, which cannot be called"
        raise CkadTypeError.of(
            "Sequential", what, "pass layers and functions one by one: Sequential(layer, np.tanh, layer)"
        )
    if tree.is_leaf(layer) and any(isinstance(value, np.ndarray) for value in getattr(layer, "__dict__", {}).values()):
        hint = f"decorate the class with @ckad.nn.layer(…) and the names of the attributes to train, see {type(layer)}"
        what = f"layer {position} holds arrays but is no pytree, so it would not be trained"
        raise CkadTypeError.of("Sequential", what, hint)


def _to_children(model: Sequential) -> tuple[tuple[Any, ...], Any, tuple[int, ...]]:
    places = tuple(position for position, layer in enumerate(model.layers) if not tree.is_leaf(layer))
    functions = tuple(layer if tree.is_leaf(layer) else None for layer in model.layers)
    return tuple(model.layers[place] for place in places), functions, places


def _from_children(functions: Any, children: Any) -> Sequential:
    remaining = iter(children)
    model = object.__new__(Sequential)
    model.layers = tuple(next(remaining) if function is None else function for function in functions)
    return model


optree.register_pytree_node(Sequential, _to_children, _from_children, namespace=tree.NAMESPACE)  # type: ignore[arg-type]
