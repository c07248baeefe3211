"""Products of arrays, all of them a general dot product of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ckad import _core
from ckad.errors import CkadTypeError, ShapeError
from ckad.numpy.axes import array, axis_index, cast, laid_out, strides
from ckad.numpy.einsum import contract
from ckad.numpy.registry import given, implements, refuse


def _same_dtype(a: Any, b: Any) -> tuple[Any, Any]:
    common = np.result_type(a.dtype, b.dtype)
    return cast(a, common), cast(b, common)


def _general(a: Any, b: Any, contract_a: Sequence[int], contract_b: Sequence[int], name: str) -> Any:
    """Contraction over the given axes: free axes of a, then of b."""
    if [a.shape[i] for i in contract_a] != [b.shape[i] for i in contract_b]:
        hint = "the contracted axes must have equal lengths"
        raise ShapeError.of(name, f"shapes {a.shape} and {b.shape} are not aligned", hint)
    a, b = _same_dtype(a, b)
    return _core.dot_general(a, b, (), (), tuple(contract_a), tuple(contract_b))


@implements(np.dot, method="dot")
def dot(a: Any, b: Any, out: Any = None) -> Any:
    refuse("dot", out=out)
    a, b = array(a), array(b)
    if a.ndim == 0 or b.ndim == 0:
        return _scaled(a, b)
    return _general(a, b, (a.ndim - 1,), (max(b.ndim - 2, 0),), "dot")


def _scaled(a: Any, b: Any) -> Any:
    """The product with a scalar; NumPy computes it as a matrix product where its library does those."""
    in_library = np.result_type(a.dtype, b.dtype).kind == "f" and max(a.ndim, b.ndim) <= 2
    return a.copy("C") * b.copy("C") if in_library else a * b


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    return _general(array(a).ravel(), array(b).ravel(), (0,), (0,), "vdot")


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    a, b = array(a), array(b)
    if a.ndim == 0 or b.ndim == 0:
        return _scaled(a, b)
    return _general(a, b, (a.ndim - 1,), (b.ndim - 1,), "inner")


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    refuse("outer", out=out)
    return array(a).ravel()[:, np.newaxis] * array(b).ravel()[np.newaxis, :]


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = array(a), array(b)
    if isinstance(axes, (int, np.integer)):
        of_a, of_b = list(range(a.ndim - int(axes), a.ndim)), list(range(int(axes)))
    else:
        of_a, of_b = ([part] if isinstance(part, (int, np.integer)) else list(part) for part in axes)
    if len(of_a) != len(of_b):
        what = f"axes {axes!r} name different numbers of axes: {len(of_a)} and {len(of_b)}"
        raise ShapeError.of("tensordot", what, "pair them: axes=([1, 0], [0, 1]) contracts 1 with 0 and 0 with 1")
    axes_of_a, axes_of_b = (
        [axis_index("tensordot", axis, x.shape) for axis in axes] for x, axes in ((a, of_a), (b, of_b))
    )
    product = _general(a, b, axes_of_a, axes_of_b, "tensordot")
    # An array even of rank 0.
    return _core.as_array(product) if product.ndim == 0 else product


@implements(np.einsum)
def einsum(*operands: Any, out: Any = None, optimize: Any = False, **keywords: Any) -> Any:
    refuse("einsum", out=out, **{name: given(value) for name, value in keywords.items()})
    if not operands or not isinstance(operands[0], str):
        what = f"the subscripts must be a string, not {type(operands[0]).__name__ if operands else 'missing'}"
        raise CkadTypeError.of("einsum", what, "write np.einsum('ij,jk->ik', a, b)")
    return contract(operands[0], [array(operand) for operand in operands[1:]], in_steps=optimize is not False)


def _require_matrix(name: str, a: Any) -> None:
    if np.ndim(a) < 2:
        what = f"the matrix has shape {np.shape(a)}, but needs two axes"
        raise ShapeError.of(name, what, "use np.vecdot for two vectors")


# NumPy's ufuncs for stacks of vectors and matrices arrive as methods of their first traced operand.
@implements(method="vecdot")
def vecdot(a: Any, b: Any) -> Any:
    product = np.einsum("...i,...i->...", a, b)
    # Laid out by the stacks alone.
    stacks = [[0] * (product.ndim + 1 - x.ndim) + strides(x)[:-1] for x in (array(a), array(b))]
    return laid_out(product, _core.iteration_order(product.ndim, stacks))


@implements(method="matvec")
def matvec(a: Any, x: Any) -> Any:
    _require_matrix("matvec", a)
    return np.matmul(a, array(x)[..., np.newaxis])[..., 0]


@implements(method="vecmat")
def vecmat(x: Any, a: Any) -> Any:
    _require_matrix("vecmat", a)
    return np.matmul(array(x)[..., np.newaxis, :], a)[..., 0, :]
