"""NumPy itself on traced values that depend on nothing differentiated, where ckad has no traced implementation.

`Tracer.__array_function__` and `Tracer.__array_ufunc__` ask here after the core's tables, before they refuse. There is
no gradient to lose: the values are converted, the function is called on them, and what it returns are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from ckad import _core
from ckad.tree import flatten, unflatten

_IN_PLACE: Final = frozenset({"at", "copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"})
"""They write into their first argument."""

_REFUSED: Final = frozenset({"isnat", "may_share_memory", "shares_memory"})
"""Where arrays lie, the converted ones do not say; and dates are never traced."""


def call_plainly(function: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """`function(*args, **keywords)` on ordinary values; NotImplemented where traced ones could not be such.

    A value may depend on an argument that an enclosing transform differentiates: then it is no constant here either.
    """
    name = function.__name__
    written = [args[:1] if name in _IN_PLACE else (), keywords.get("out")]
    if name in _REFUSED or any(isinstance(leaf, _core.Tracer) for leaf in flatten(written)[0]):
        return NotImplemented
    leaves, structure = flatten((tuple(args), dict(keywords)))
    traced = [leaf for leaf in leaves if isinstance(leaf, _core.Tracer)]
    if not traced or any(_core.is_active(leaf) for leaf in traced):
        return NotImplemented
    plain = [_constant(leaf) if isinstance(leaf, _core.Tracer) else leaf for leaf in leaves]
    args, keywords = unflatten(structure, plain)
    return function(*args, **keywords)


def _constant(value: Any) -> Any:
    """A scalar as NumPy's; an array read-only, since it may be the caller's own, and a view of it may be returned."""
    array = np.asarray(value)
    if _core.is_scalar(value):
        return array[()]
    array = array.view()
    array.flags.writeable = False
    return array


# The core finds it among the methods, under a name that no attribute can have.
_core.register_method("call on ordinary values", call_plainly)
