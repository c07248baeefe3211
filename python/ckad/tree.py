"""Pytrees: nested containers of arrays, as optree reads them.

Tuples, named tuples, lists, dicts and the layers of `ckad.nn` are containers; everything else but None is a leaf, and
None is a container without leaves. Classes of the user's join through :func:`ckad.nn.layer` or through
``optree.register_pytree_node(..., namespace=ckad.tree.NAMESPACE)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import optree

__all__ = ["NAMESPACE", "flatten", "is_leaf", "map_leaves", "paths", "unflatten"]

NAMESPACE: Final = "ckad"
"""The namespace in which classes are registered with optree."""


def flatten(tree: Any) -> tuple[list[Any], optree.PyTreeSpec]:
    """Leaves of a pytree, in order, and its structure.

    Args:
        tree: any pytree.

    Returns:
        The leaves, and what `unflatten` makes the tree of again.

    >>> flatten({"b": [1, 2], "a": 3})[0]
    [3, 1, 2]
    """
    leaves, structure = optree.tree_flatten(tree, namespace=NAMESPACE)
    return leaves, structure


def unflatten(structure: optree.PyTreeSpec, leaves: Sequence[Any]) -> Any:
    """The pytree of that structure with these leaves.

    Args:
        structure: what `flatten` gave beside the leaves.
        leaves: as many as the structure has.

    Returns:
        The pytree.

    Raises:
        ValueError: too few or too many leaves.

    >>> leaves, structure = flatten((1, [2, 3]))
    >>> unflatten(structure, [10 * leaf for leaf in leaves])
    (10, [20, 30])
    """
    return optree.tree_unflatten(structure, leaves)


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function` of each leaf of `tree`, and of the leaves at the same place of trees with the same structure.

    Args:
        function: function of a leaf of each tree.
        tree: any pytree.
        others: pytrees of the same structure.

    Returns:
        A pytree of that structure.

    Raises:
        ValueError: the structures differ.

    >>> map_leaves(lambda x, y: x + y, {"a": 1, "b": (2,)}, {"a": 10, "b": (20,)})
    {'a': 11, 'b': (22,)}
    """
    return optree.tree_map(function, tree, *others, namespace=NAMESPACE)


def leaves_or_none(structure: optree.PyTreeSpec, tree: Any) -> list[Any] | None:
    """Leaves of a tree of that structure, in which None may stand in place of any part: None for each leaf there.

    None where it has another structure.
    """
    leaves, prefix = optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)
    found: list[Any] = [None] * structure.num_leaves
    try:
        places = prefix.flatten_up_to(unflatten(structure, range(structure.num_leaves)))
    except ValueError:
        return None
    for leaf, place in zip(leaves, places, strict=True):
        if leaf is not None:
            if not isinstance(place, int):
                return None
            found[place] = leaf
    return found


def is_leaf(tree: Any) -> bool:
    """Is it a leaf, not a container?

    Args:
        tree: any object.

    Returns:
        Whether `flatten` would give it as it is.

    >>> is_leaf(1.0), is_leaf([1.0]), is_leaf(None)
    (True, False, False)
    """
    return optree.tree_is_leaf(tree, namespace=NAMESPACE)


def paths(tree: Any) -> list[str]:
    """The place of each leaf, such as 'a/0/b'; the empty string when the tree itself is a leaf.

    Args:
        tree: any pytree.

    Returns:
        A text for each leaf, in the order of `flatten`.

    >>> paths({"a": [1, {"b": 2}]})
    ['a/0', 'a/1/b']
    """
    return ["/".join(map(str, path)) for path in optree.tree_paths(tree, namespace=NAMESPACE)]
