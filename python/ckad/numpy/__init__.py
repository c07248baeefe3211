"""NumPy's functions for traced values.

Importing this package registers them; a user calls NumPy itself. One file per kind of function; what a file composes
comes from the core's primitives, so that no derivative is written here.
"""

from ckad.numpy import (
    creation,
    folds,
    loops,
    padding,
    parts,
    plain,
    products,
    reductions,
    selection,
    shaping,
    tiling,
    ways,
)

__all__ = [
    "creation",
    "folds",
    "loops",
    "padding",
    "parts",
    "plain",
    "products",
    "reductions",
    "selection",
    "shaping",
    "tiling",
    "ways",
]
