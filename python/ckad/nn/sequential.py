"""Layers one after the other."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree

from ckad import tree
from ckad.errors import CkadTypeError, CkadValueError
from ckad.random import split


class Sequential:
    """Applies layers and functions, the first one first.

    Args:
        layers: layers (pytrees that can be called) and plain functions such as `numpy.tanh`. A function has no
            parameters and belongs to the structure; the place of a layer is its position, so its first weight is saved
            as '0/weight'.

    A layer with a state, such as `BatchNorm`, returns `(y, layer)`, and so does a Sequential that holds one:
    `(y, model)`, the model with the layers as they are from then on.

    Raises:
        ValueError: a layer, or an array of one, appears twice. Such parameters would be updated apart from each other,
            and after one step no longer be shared.
        TypeError: something that cannot be called, or that holds arrays but is no pytree and so would not be trained.

    >>> from ckad.nn import Linear
    >>> model = Sequential(Linear(2, 4, rng=0), np.tanh, Linear(4, 1, rng=1))
    >>> tree.paths(model)
    ['0/weight', '0/bias', '2/weight', '2/bias']
    """

    layers: tuple[Callable[..., Any], ...]

    def __init__(self, *layers: Callable[..., Any]) -> None:
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

    @property
    def has_state(self) -> bool:
        """Whether a layer has a state, so that a call returns a pair."""
        return any(_has_state(layer) for layer in self.layers)

    def __call__(self, x: Any, *, train: bool = False, key: Any = None) -> Any:
        """Applies the layers, the first one first.

        Args:
            x: what the first layer takes.
            train: given to the layers and functions that name it among their parameters.
            key: a key of `ckad.random`; each layer that names it gets one of its own, the one of its position in
                `ckad.random.split(key, len(model))`.

        Returns:
            What the last layer returns; where a layer has a state `(y, model)`.
        """
        asked = [_asks(layer) for layer in self.layers]
        keys = split(key, len(asked)) if key is not None and any("key" in names for names in asked) else None
        layers = []
        for position, (layer, names) in enumerate(zip(self.layers, asked, strict=True)):
            given: dict[str, Any] = {"train": train} if "train" in names else {}
            if keys is not None and "key" in names:
                given["key"] = keys[position]
            x = layer(x, **given)
            if _has_state(layer):
                x, layer = x
            layers.append(layer)
        return (x, _of(tuple(layers))) if self.has_state else x

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self.layers)

    def __getitem__(self, position: int) -> Any:
        return self.layers[position]

    def __repr__(self) -> str:
        return f"Sequential({', '.join(getattr(layer, '__name__', repr(layer)) for layer in self.layers)})"


def _has_state(layer: Any) -> bool:
    return not tree.is_leaf(layer) and getattr(layer, "has_state", False)


def _asks(layer: Any) -> tuple[str, ...]:
    """Which of `train` and `key` a layer or function names among its parameters."""
    call = layer if isinstance(layer, (types.FunctionType, types.MethodType)) else type(layer).__call__
    code = getattr(call, "__code__", None)
    names: Any = ()
    if code is not None and not hasattr(call, "__wrapped__"):
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    elif isinstance(layer, functools.partial) or code is not None:
        names = inspect.signature(layer).parameters
    return tuple(name for name in ("train", "key") if name in names)


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
    return _of(tuple(next(remaining) if function is None else function for function in functions))


def _of(layers: tuple[Callable[..., Any], ...]) -> Sequential:
    """A model of layers that were checked before."""
    model = object.__new__(Sequential)
    model.layers = layers
    return model


optree.register_pytree_node(Sequential, _to_children, _from_children, namespace=tree.NAMESPACE)  # type: ignore[arg-type]
