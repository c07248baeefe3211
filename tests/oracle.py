"""Automatic differentiation of NumPy programs in three hundred lines of NumPy: what ckad computes, without the speed.

Read this file first. It runs the same programs as ckad, by the same mathematics, one array operation at a time, and the
random programs of `test_random_graphs.py` compare the two.

Reverse mode. A program is a sequence of operations z = f(x, y). Let x̄ be the derivative of the final result by x, the
*cotangent* of x. The chain rule carries cotangents backwards: an operation that finds z̄ adds z̄·∂f/∂x to x̄. So a `Node`
records, for each operand, the function z̄ ↦ z̄·∂f/∂x, and `vjp` walks the nodes from last to first.

Higher order. The rules are themselves programs on `Array`, so what they compute is recorded and can be differentiated
again. Forward mode is then reverse mode twice: u ↦ Jᵀu is linear, and its own transpose is J.

Writing in place. An `Array` is a piece of a `Memory` that other arrays may share, namely the elements at the positions
`where`. Slicing, transposing and reshaping apply NumPy's own operation to the array of positions, so NumPy itself
decides what is a view, what is a copy and what is a scalar. Reading gathers at the positions, writing replaces the
memory's node.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np

_clock = itertools.count()


class Node:
    """One entry of the tape: a value, and for each operand the rule that makes its cotangent of the value's."""

    def __init__(self, value: Any, rules: Sequence[tuple[Node, Callable[[Array], Any]]] = ()) -> None:
        self.value, self.rules, self.time = value, rules, next(_clock)


class Memory:
    """What arrays that are views of each other share: the node with its current content."""

    def __init__(self, node: Node) -> None:
        self.node = node
        positions = np.empty_like(node.value, dtype=np.int64)  # in the memory layout of the value
        positions[...] = np.arange(positions.size).reshape(positions.shape)
        self.whole: Any = positions[()] if isinstance(node.value, np.generic) else positions


class Array(np.lib.mixins.NDArrayOperatorsMixin):
    """A differentiable array: the elements of a memory at the positions `where`. An immutable scalar if that is one."""

    def __init__(self, content: Memory | Node | Any, where: Any = None) -> None:
        if not isinstance(content, Memory):
            content = Memory(content if isinstance(content, Node) else Node(content))
        self.memory, self.where = content, content.whole if where is None else where

    shape = property(lambda self: self.where.shape)
    ndim = property(lambda self: self.where.ndim)
    size = property(lambda self: self.where.size)
    T = property(lambda self: self._at(self.where.T))

    @property
    def value(self) -> Any:
        elements = self.memory.node.value.ravel()[self.where]
        return elements if isinstance(self.where, np.generic) else np.asarray(elements)

    def node(self) -> Node:
        """The current content as a node of this array's shape."""
        memory, where = self.memory, self.where
        if where is memory.whole:
            return memory.node
        shape = memory.node.value.shape
        return Node(self.value, [(memory.node, lambda g: scattered(g, where, shape))])

    def _at(self, where: Any) -> Array:
        """The elements at these positions: a view if NumPy made `where` a view of our positions, else a copy."""
        view = Array(self.memory, where)
        return view if np.may_share_memory(where, self.where) else Array(view.node())

    def __getitem__(self, key: Any) -> Array:
        return self._at(self.where[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        where, base = self.where[key], self.memory.node
        written = np.broadcast_to(value, np.shape(where))
        flat, content = base.value.flatten(), np.array(base.value)
        flat[where] = read(written)
        content[...] = flat.reshape(content.shape)
        last = np.full(content.size, -1)  # of several writes to one position the last one counts
        order = np.arange(np.size(where)).reshape(np.shape(where))
        last[where] = order
        wins = np.where(last[where] == order, 1.0, 0.0)
        gone = np.ones(content.size)
        gone[where] = 0.0
        rules: list[tuple[Node, Callable[[Array], Any]]] = [(base, lambda g: g * gone.reshape(g.shape))]
        if isinstance(written, Array):
            rules.append((written.node(), lambda g: g.reshape(-1)[where] * wins))
        self.memory.node = Node(content, rules)

    def __len__(self) -> int:
        return len(self.where)

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, out: Any = None, **unknown: Any) -> Any:
        if method != "__call__" or unknown:
            return NotImplemented
        result = matmul(*operands) if ufunc is np.matmul else elementwise(ufunc, *operands)
        if out is None or isinstance(out[0].where, np.generic):
            return result
        out[0][...] = result
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        return FUNCTIONS[function](*args, **keywords) if function in FUNCTIONS else NotImplemented

    def copy(self) -> Array:
        return Array(Node(self.value.copy(), [(self.node(), lambda g: g)]))

    def reshape(self, *shape: Any) -> Array:
        return self._at(self.where.reshape(*shape))

    def ravel(self) -> Array:
        return self._at(self.where.ravel())

    def transpose(self, *axes: Any) -> Array:
        return self._at(self.where.transpose(*axes))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Array:
        return total(self, axis, keepdims)


def read(x: Any) -> Any:
    """The numbers."""
    return x.value if isinstance(x, Array) else x


def primitive(value: Any, operands: Sequence[Any], rules: Sequence[Callable[..., Any]]) -> Array:
    """Records z = f(operands): rules[i](g, z, *operands) is the cotangent of operand i, where g is the one of z."""
    nodes = [x.node() if isinstance(x, Array) else None for x in operands]
    # The rules see the operands as they are now, whatever is written into them later.
    then = [x if node is None else Array(node) for node, x in zip(nodes, operands, strict=True)]
    z = Node(value)
    pairs = zip(nodes, rules, strict=True)
    z.rules = [(n, lambda g, rule=rule: rule(g, Array(z), *then)) for n, rule in pairs if n is not None]
    return Array(z)


# Elementwise: z = f(x, …), and the cotangent of each operand. NumPy broadcasts, so a cotangent is summed where it did.

RULES: dict[Any, list[Callable[..., Any]]] = {
    np.add: [lambda g, z, x, y: g, lambda g, z, x, y: g],
    np.subtract: [lambda g, z, x, y: g, lambda g, z, x, y: -g],
    np.multiply: [lambda g, z, x, y: g * y, lambda g, z, x, y: g * x],
    np.divide: [lambda g, z, x, y: g / y, lambda g, z, x, y: -g * z / y],
    np.power: [lambda g, z, x, y: g * y * x ** (y - 1.0), lambda g, z, x, y: g * z * np.log(x)],
    np.maximum: [lambda g, z, x, y: g * share(x, y, z), lambda g, z, x, y: g * share(y, x, z)],
    np.minimum: [lambda g, z, x, y: g * share(x, y, z), lambda g, z, x, y: g * share(y, x, z)],
    np.hypot: [lambda g, z, x, y: g * x / z, lambda g, z, x, y: g * y / z],
    np.arctan2: [lambda g, z, y, x: g * x / (x * x + y * y), lambda g, z, y, x: -g * y / (x * x + y * y)],
    np.logaddexp: [lambda g, z, x, y: g * np.exp(x - z), lambda g, z, x, y: g * np.exp(y - z)],
    np.positive: [lambda g, z, x: g],
    np.negative: [lambda g, z, x: -g],
    np.absolute: [lambda g, z, x: g * np.sign(x)],
    np.square: [lambda g, z, x: g * (2.0 * x)],
    np.sqrt: [lambda g, z, x: g * 0.5 / z],
    np.reciprocal: [lambda g, z, x: -g * z * z],
    np.exp: [lambda g, z, x: g * z],
    np.expm1: [lambda g, z, x: g * np.exp(x)],
    np.log: [lambda g, z, x: g / x],
    np.log1p: [lambda g, z, x: g / (1.0 + x)],
    np.sin: [lambda g, z, x: g * np.cos(x)],
    np.cos: [lambda g, z, x: -g * np.sin(x)],
    np.tanh: [lambda g, z, x: g * (1.0 - z * z)],
    np.arctan: [lambda g, z, x: g / (1.0 + x * x)],
    np.arcsinh: [lambda g, z, x: g / np.sqrt(1.0 + x * x)],
}


def share(x: Any, y: Any, z: Any) -> Any:
    """The part that x has in the extremum z of x and y: one half in a tie."""
    return np.where(read(x) == read(y), 0.5, np.where(read(x) == read(z), 1.0, 0.0))


def elementwise(ufunc: Any, *operands: Any) -> Any:
    value = ufunc(*map(read, operands))
    if ufunc not in RULES:
        return value  # comparisons, sign, floor: constant wherever they have a derivative
    rules = [
        lambda g, z, *xs, rule=rule, k=k: summed_to(xs[k].shape, rule(g, z, *xs)) for k, rule in enumerate(RULES[ufunc])
    ]
    return primitive(value, operands, rules)


def select(condition: Any, x: Any, y: Any) -> Array:
    chosen = np.asarray(read(condition), bool)
    rules = [
        lambda g, z, x, y: summed_to(x.shape, np.where(chosen, 1.0, 0.0) * g),
        lambda g, z, x, y: summed_to(y.shape, np.where(chosen, 0.0, 1.0) * g),
    ]
    return primitive(np.where(chosen, read(x), read(y)), [x, y], rules)


def summed_to(shape: tuple[int, ...], g: Any) -> Any:
    """The transpose of broadcasting from `shape`."""
    new = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < new or shape[i - new] == 1 != g.shape[i])
    return np.reshape(np.sum(g, axis=axes), shape) if axes else g


# Structure: the few operations that all others are composed of.


def scattered(x: Array, where: Any, shape: tuple[int, ...]) -> Array:
    """Zeros to which the elements of x are added at `where`: the transpose of reading there."""
    flat = np.zeros(int(np.prod(shape)))
    np.add.at(flat, where, read(x))
    return primitive(flat.reshape(shape), [x], [lambda g, z, x: g.reshape(-1)[where]])


def total(x: Any, axis: Any = None, keepdims: bool = False) -> Array:
    kept = np.sum(read(x), axis=axis, keepdims=True).shape
    value = np.sum(read(x), axis=axis, keepdims=keepdims)
    return primitive(value, [x], [lambda g, z, x: np.broadcast_to(np.reshape(g, kept), x.shape)])


def einsum(subscripts: str, a: Any, b: Any) -> Array:
    """A product of two in which every index stands in two of the three terms: so do the transposes."""
    (of_a, of_b), out = subscripts.split("->")[0].split(","), subscripts.split("->")[1]
    rules = [
        lambda g, z, a, b: np.einsum(f"{out},{of_b}->{of_a}", g, b),
        lambda g, z, a, b: np.einsum(f"{out},{of_a}->{of_b}", g, a),
    ]
    return primitive(np.einsum(subscripts, read(a), read(b)), [a, b], rules)


def matmul(a: Any, b: Any) -> Array:
    terms = {(1, 1): "i,i->", (1, 2): "i,ij->j", (2, 1): "ij,j->i", (2, 2): "ij,jk->ik", (3, 3): "bij,bjk->bik"}
    return np.einsum(terms[a.ndim, b.ndim], a, b)


def extremum(function: Any) -> Callable[..., Array]:
    def of(x: Any, axis: Any = None, keepdims: bool = False) -> Array:
        peak = function(read(x), axis=axis, keepdims=True)
        tied = read(x) == peak
        shares = tied / np.sum(tied, axis=axis, keepdims=True)
        value = function(read(x), axis=axis, keepdims=keepdims)
        return primitive(value, [x], [lambda g, z, x: np.reshape(g, peak.shape) * shares])

    return of


# Everything else is a NumPy program of these.


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Array:
    sums = total(x, axis, keepdims)
    return sums * (sums.size / x.size)


def cumulative(ufunc: Any) -> Callable[..., Any]:
    return lambda x, axis: np.stack(list(itertools.accumulate(np.moveaxis(x, axis, 0), ufunc)), axis)


def concatenate(pieces: Sequence[Any], axis: int = 0) -> Array:
    ends = list(itertools.accumulate(piece.shape[axis] for piece in pieces))
    joined = Array(np.concatenate([np.zeros(piece.shape) for piece in pieces], axis))
    for piece, end in zip(pieces, ends, strict=True):
        np.moveaxis(joined, axis, 0)[end - piece.shape[axis] : end] = np.moveaxis(piece, axis, 0)
    return joined


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: total,
    np.max: extremum(np.max),
    np.min: extremum(np.min),
    np.mean: mean,
    np.prod: lambda x, axis=None: reduce(np.multiply, x.ravel() if axis is None else np.moveaxis(x, axis, 0), 1.0),
    np.cumsum: cumulative(np.add),
    np.cumprod: cumulative(np.multiply),
    np.einsum: einsum,
    np.dot: matmul,
    np.where: select,
    np.concatenate: concatenate,
    np.stack: lambda pieces, axis=0: concatenate([np.expand_dims(piece, axis) for piece in pieces], axis),
    np.sort: lambda x, axis=-1: x._at(np.take_along_axis(x.where, np.argsort(x.value, axis), axis)),
    np.zeros_like: lambda x: Array(np.zeros_like(x.value)),
    np.shape: lambda x: x.shape,
    np.reshape: lambda x, shape: x.reshape(shape),
    np.transpose: lambda x, axes=None: x.transpose(axes),
    **{
        move: lambda x, *args, move=move, **keywords: x._at(move(x.where, *args, **keywords))
        for move in (
            np.broadcast_to,
            np.moveaxis,
            np.swapaxes,
            np.expand_dims,
            np.squeeze,
            np.flip,
            np.diagonal,
            np.roll,
        )
    },
}


# The transforms.


def vjp(f: Callable[..., Array], *args: Any) -> tuple[Array, Callable[[Any], tuple[Any, ...]]]:
    """f's value, and the map from a cotangent of the value to the cotangents of the arguments."""
    inputs = [elementwise(np.positive, x) if isinstance(x, Array) else Array(x.copy("K")) for x in map(_array, args)]
    nodes = [x.node() for x in inputs]
    out = f(*inputs)
    last = out.node()

    def pullback(g: Any) -> tuple[Any, ...]:
        cotangents: dict[Node, Any] = {last: g if isinstance(g, Array) else Array(np.asarray(g, np.float64))}
        for node in sorted(_ancestors(last), key=lambda node: -node.time):
            if node in cotangents:
                for operand, rule in node.rules:
                    g = rule(cotangents[node])
                    cotangents[operand] = cotangents[operand] + g if operand in cotangents else g
        return tuple(cotangents.get(node, Array(np.zeros(np.shape(node.value)))) for node in nodes)

    return Array(last), pullback


def _array(x: Any) -> Any:
    return x if isinstance(x, Array | np.ndarray) else np.float64(x)


def _ancestors(last: Node) -> set[Node]:
    found, pending = {last}, [last]
    while pending:
        new = {operand for operand, _ in pending.pop().rules} - found
        found |= new
        pending += new
    return found


def grad(f: Callable[..., Array]) -> Callable[..., Any]:
    """The gradient by the first argument."""
    return lambda *args: vjp(f, *args)[1](1.0)[0]


def jvp(f: Callable[..., Array], args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Array, Array]:
    """f's value and its derivative in a direction: the transpose of the transpose."""
    out, pullback = vjp(f, *args)
    return out, grad(lambda u: inner(pullback(u), tangents))(np.zeros(out.shape))


def hvp(f: Callable[..., Array], args: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The Hessian times a direction v: the gradient of ⟨∇f, v⟩."""
    return vjp(lambda *args: inner(vjp(f, *args)[1](1.0), tangents), *args)[1](1.0)


def inner(a: Sequence[Any], b: Sequence[Any]) -> Any:
    return sum(np.sum(x * y) for x, y in zip(a, b, strict=True))
