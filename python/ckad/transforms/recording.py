"""One traced call of a user's function: arguments in, traced values through, outputs out.

Every transform starts here. `Recording` flattens the arguments as pytrees, makes traced values of the array leaves,
calls the function, and leaves it to the transform to say what becomes of the recorded graph.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final

import numpy as np
import optree

from ckad import _core
from ckad.errors import CkadTypeError, CkadValueError, DTypeError
from ckad.tree import NAMESPACE, flatten, unflatten

# By identity: an attribute would be copied by functools.wraps to functions that are none.
_TRANSFORMED: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


# How the functions are called that are not transforms of one function: what to write in place of something else.
_CALLS: Final = {
    "jvp": "the function comes first: ckad.jvp(f, (x,), (v,))",
    "vjp": "the function comes first: ckad.vjp(f, x)",
    "linearize": "the function comes first: ckad.linearize(f, x)",
    "hvp": "the function comes first: ckad.hvp(f, x, v)",
    "check_grads": "the function comes first: ckad.check_grads(f, (x,))",
    "scan": "the function comes first: ckad.scan(f, init, xs), with carry, y = f(carry, x)",
    "fori_loop": "the function comes third: ckad.fori_loop(0, 10, body, init), with value = body(i, value)",
    "while_loop": "two functions come first: ckad.while_loop(cond_fun, body_fun, init)",
    "cond": "two functions come after the choice: ckad.cond(pred, true_fn, false_fn, *operands)",
    "defjvp": "give it the rule: f.defjvp(rule), with result, tangent = rule(primals, tangents)",
    "defjvps": "give it a rule for each argument, or None: f.defjvps(lambda tangent, result, x: …)",
    "defvjp": "give it two functions: f.defvjp(fwd, bwd)",
    "custom_jvp": "make it of a function: @ckad.custom_jvp above its def",
    "custom_vjp": "make it of a function: @ckad.custom_vjp above its def",
}


def mark_transform(function: Callable[..., Any]) -> Callable[..., Any]:
    """Notes a function that a transform returned, so that `ckad.plan` plans it as it is."""
    _TRANSFORMED.add(function)
    return function


def is_transform(function: Callable[..., Any]) -> bool:
    """Did a transform return it?"""
    return function in _TRANSFORMED


def check_function(name: str, f: Any) -> None:
    """Refuses what is no function where a transform is made of it, not where the result is called."""
    if callable(f):
        return
    of_result = isinstance(f, (np.ndarray, np.generic, float, int, tuple, list, dict, _core.Tracer))
    if name in ("plan", "profile", "debug_nans", "trace"):
        example = {
            "profile": "ckad.memory.profile(ckad.grad(f), x)",
            "trace": "ckad.trace(f)(x)",
        }.get(name, f"ckad.{name}(ckad.grad(f))(x)")
        hint = f"give it the function, not {'its result' if of_result else 'a name'}: {example}"
    elif name in _CALLS:
        hint = _CALLS[name]
    else:
        hint = f"give it a function: ckad.{name}(f)(x)"
    raise CkadTypeError.of(name, f"a function is wanted, not a value of type {type(f).__name__}", hint)


def check_argnums(name: str, argnums: Any) -> None:
    """Refuses what is neither an int nor several, where a transform is made."""
    several = isinstance(argnums, Iterable) and not isinstance(argnums, (str, bytes, dict, np.ndarray, _core.Tracer))
    for argnum in argnums if several else (argnums,):
        if not isinstance(argnum, (int, np.integer)) or isinstance(argnum, bool):
            given = repr(argnum) if isinstance(argnum, (int, float, str)) else f"of type {type(argnum).__name__}"
            hint = f"argnums=0, or argnums=(0, 2) for several; the point comes in a call of its own: ckad.{name}(f)(x)"
            raise CkadTypeError.of(name, f"argnums must be an int or a tuple of ints, not {given:.60}", hint)


def check_returned(name: str, out: Any) -> None:
    """Refuses None: the function's `return` was forgotten."""
    if out is None:
        raise CkadTypeError.of(name, "the function returned None: it has no return", "end the function in `return y`")


def normalise_argnums(name: str, argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Positions of the differentiated arguments, non-negative and distinct."""
    wanted = tuple(argnums) if isinstance(argnums, Iterable) else (argnums,)
    positions = []
    for argnum in wanted:
        if not -count <= argnum < count:
            hint = "pass differentiated arguments by position"
            have = f"{count} positional argument{'' if count == 1 else 's'}"
            raise CkadValueError.of(name, f"argnums={argnums!r}, but the call has {have}", hint)
        positions.append(int(argnum) % count)
    if len(set(positions)) != len(positions):
        raise CkadValueError.of(name, f"argnums={argnums!r} names an argument twice", "name each argument once")
    if not positions:
        hint = "name at least one argument: argnums=0" if count else "call it with at least one argument"
        raise CkadValueError.of(name, f"there is no argument to differentiate: argnums={argnums!r}", hint)
    return tuple(positions)


def is_float_leaf(leaf: Any) -> bool:
    """Can the leaf be differentiated: a Python float, or a NumPy or traced value of dtype float64 or float32?"""
    if isinstance(leaf, float):
        return True
    dtype = getattr(leaf, "dtype", None)
    is_array = isinstance(leaf, (np.ndarray, np.generic, _core.Tracer))
    # Byte order is converted; what counts is the kind and the size.
    return is_array and dtype is not None and dtype.kind == "f" and dtype.itemsize in (4, 8)


def _can_be_traced(leaf: Any) -> bool:
    """Is it an array of a dtype that ckad computes with? Others (text, dates, complex) stay the caller's arrays.

    Values of a trace around are: what the function makes of them is its own, and can be written to.
    """
    if not isinstance(leaf, np.ndarray):
        return isinstance(leaf, _core.Tracer)
    return leaf.dtype.kind in "iub" or (leaf.dtype.kind == "f" and leaf.dtype.itemsize in (4, 8))


def _float_hint(leaf: Any, dtype: Any) -> str:
    """What to do with an argument that is no float."""
    out = "leave the argument out of argnums"
    kind = "c" if isinstance(leaf, complex) else getattr(dtype, "kind", "")
    if kind == "f":
        return f"convert it: x.astype(np.{'float32' if dtype.itemsize < 4 else 'float64'}), or {out}"
    if kind == "c":
        return "complex numbers are not supported yet: pass the real and the imaginary part as two arguments"
    if kind in ("S", "U", "M", "m") or isinstance(leaf, (str, bytes)):
        return f"text and dates have no derivative: {out}"
    if dtype is None and not isinstance(leaf, int):
        register = "make the class a container of its arrays with @ckad.nn.layer"
        return f"{register}, or pass a tuple, list or dict of floats, or {out}"
    return f"pass a float, such as {'float(x)' if dtype is None else 'x.astype(float)'}, or {out}"


class Recording:
    """A context in which a function is called on traced values.

    Args:
        name: the transform's name, for errors.
        f: the function.
        args, kwargs: its arguments; leaves of `args[i]` for i in `argnums` are differentiated.
        argnums: positions of the differentiated arguments.
        memory_limit: the most bytes that a run may allocate.
    """

    def __init__(
        self,
        name: str,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        argnums: int | Sequence[int],
        memory_limit: int | None = None,
    ) -> None:
        check_function(name, f)
        self.name = name
        self._f = f
        self._args = args
        self._kwargs = kwargs
        self._memory_limit = memory_limit
        self._single = isinstance(argnums, (int, np.integer))
        self._argnums = normalise_argnums(name, argnums, len(args))
        self.structures: list[Any] = []
        """Structures of the differentiated arguments, in the order of `argnums`."""
        self.leaves: list[Any] = []
        """Their leaves, as the caller gave them."""

    def __enter__(self) -> Recording:
        self.trace = _core.Trace(self.name, memory_limit=self._memory_limit)
        try:
            self._trace_arguments()
        except BaseException:
            self.trace.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.trace.close()

    def _trace_arguments(self) -> None:
        traced = list(self._args)
        # Differentiated arguments come first, so that the graph's first inputs are theirs.
        for argnum in self._argnums:
            paths, leaves, structure = optree.tree_flatten_with_path(self._args[argnum], namespace=NAMESPACE)
            for path, leaf in zip(paths, leaves, strict=True):
                if not is_float_leaf(leaf):
                    raise self._not_float(argnum, path, leaf)
            self.structures.append(structure)
            self.leaves.extend(leaves)
            traced[argnum] = unflatten(structure, [self.trace.argument(leaf, True) for leaf in leaves])
        for position, argument in enumerate(self._args):
            if position not in self._argnums:
                traced[position] = self._trace_constant(argument)
        self._traced_args = traced
        self._traced_kwargs = {name: self._trace_constant(value) for name, value in self._kwargs.items()}

    def _trace_constant(self, argument: Any) -> Any:
        """The argument with its array leaves traced as values that depend on nothing differentiated."""
        if type(argument) is np.ndarray:
            return self.trace.argument(argument, False) if _can_be_traced(argument) else argument
        if isinstance(argument, _core.Tracer):
            return self.trace.argument(argument, False)
        if isinstance(argument, (int, float, str, bytes, type(None), np.generic)):
            return argument
        leaves, structure = flatten(argument)
        if not any(_can_be_traced(leaf) for leaf in leaves):
            return argument
        return unflatten(
            structure, [self.trace.argument(leaf, False) if _can_be_traced(leaf) else leaf for leaf in leaves]
        )

    def _not_float(self, argnum: int, path: tuple[Any, ...], leaf: Any) -> DTypeError:
        where = f"args[{argnum}]" + "".join(f"[{key!r}]" for key in path)
        dtype = getattr(leaf, "dtype", None)
        kind = f"dtype {dtype}" if dtype is not None else f"type {type(leaf).__name__}"
        hint = _float_hint(leaf, dtype)
        return DTypeError.of(self.name, f"{where} has {kind}; only float64 and float32 can be differentiated", hint)

    def call(self) -> Any:
        """The function's result on traced values."""
        return self._f(*self._traced_args, **self._traced_kwargs)

    def like_arguments(self, leaves: Sequence[Any]) -> Any:
        """One value per differentiated leaf → the pytree(s) of the differentiated argument(s)."""
        trees = []
        start = 0
        for structure in self.structures:
            stop = start + structure.num_leaves
            trees.append(unflatten(structure, leaves[start:stop]))
            start = stop
        return trees[0] if self._single else tuple(trees)


class AuxiliaryOutput:
    """The second output under `has_aux`: traced leaves are evaluated with the run, others pass through."""

    def __init__(self, tree: Any) -> None:
        self._leaves, self._structure = flatten(tree)
        self._traced = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, _core.Tracer)]

    @property
    def traced(self) -> list[Any]:
        """The leaves to evaluate."""
        return [self._leaves[i] for i in self._traced]

    def with_values(self, values: Sequence[Any]) -> Any:
        """The pytree with the traced leaves' values in place."""
        leaves = list(self._leaves)
        for i, value in zip(self._traced, values, strict=True):
            leaves[i] = value
        return unflatten(self._structure, leaves)


def split_auxiliary(name: str, result: Any, has_aux: bool) -> tuple[Any, AuxiliaryOutput]:
    """`(out, aux)` of a function called under `has_aux`."""
    if not has_aux:
        check_returned(name, result)
        return result, AuxiliaryOutput(())
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = "None: it has no return" if result is None else f"a {type(result).__name__}"
        what = f"with has_aux=True the function must return a pair (out, aux), not {kind}"
        raise CkadTypeError.of(name, what, "return (out, aux), or leave has_aux out")
    return result[0], AuxiliaryOutput(result[1])
