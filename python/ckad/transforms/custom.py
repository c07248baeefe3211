"""Derivatives of the user's own: `custom_jvp` gives a rule for tangents, `custom_vjp` one for cotangents."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NoReturn, TypeVar, cast

import numpy as np

from ckad import _core
from ckad.errors import CkadRuntimeError, CkadTypeError, CkadValueError, ShapeError
from ckad.transforms.leaf import Leaf
from ckad.transforms.recording import check_function
from ckad.tree import flatten, leaves_or_none, unflatten

Result = TypeVar("Result")


class _Custom(Generic[Result]):
    """What both kinds of functions share: which arguments the rule knows of, and where the rule goes."""

    name: str

    def __init__(self, fun: Callable[..., Result], nondiff_argnums: int | Sequence[int] = ()) -> None:
        check_function(self.name, fun)
        functools.update_wrapper(cast("Any", self), fun)
        self.fun = fun
        several = isinstance(nondiff_argnums, Iterable)
        numbers = tuple(nondiff_argnums) if several else (nondiff_argnums,)
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 0:
                hint = "give positions of arguments, counted from 0: nondiff_argnums=(1,)"
                raise CkadValueError.of(self.name, f"nondiff_argnums has {number!r:.40}", hint)
        self.nondiff_argnums = frozenset(int(number) for number in numbers)

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position, defaults filled in: what rules are called with."""
        try:
            bound = inspect.signature(self.fun).bind(*args, **kwargs)
        except ValueError:  # a function of C without a signature
            return args
        if bound.kwargs:
            hint = "let the function take all of its arguments by position"
            raise CkadTypeError.of(self.name, f"keyword-only arguments: {', '.join(bound.kwargs)}", hint)
        bound.apply_defaults()
        return bound.args

    def _split(self, args: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
        """The arguments that the rule is not asked about, and the others."""
        static = [arg for index, arg in enumerate(args) if index in self.nondiff_argnums]
        return static, [arg for index, arg in enumerate(args) if index not in self.nondiff_argnums]

    def _refuse(self, method: str) -> NoReturn:
        """Says that there is no rule, and what gives one."""
        what = f"{getattr(self.fun, '__name__', 'the function')} has no rule yet"
        raise CkadRuntimeError.of(self.name, what, f"give it one before it is called: f.{method}(…)")


def _is_float(leaf: Any) -> bool:
    return Leaf(leaf).dtype.kind == "f"


def _packed(leaf: Any) -> Any:
    """A traced array in C order: the rule's result and what reads it are then one node."""
    if not isinstance(leaf, _core.Tracer):
        return leaf
    stride = leaf.itemsize
    for extent, step in zip(reversed(leaf.shape), reversed(leaf.strides), strict=True):
        if extent != 1 and step != stride:
            return leaf.copy(order="C")
        stride *= extent
    return leaf


def _is_traced(tree: Any) -> bool:
    return any(isinstance(leaf, _core.Tracer) for leaf in flatten(tree)[0])


def _together(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of which some are traced, all as values of the innermost trace among them: what the function computes
    of others alone would be recorded around it, where the rule does not know of it."""
    leaves, structure = flatten(args)
    entered = _core.together(leaves)
    same = all(a is b for a, b in zip(entered, leaves, strict=True))
    return args if same else unflatten(structure, entered)


def _matching(name: str, what: str, value: Any, like: Leaf) -> Any:
    """A value that a rule gives, of the shape and dtype that it must have; numbers of Python's take the dtype."""
    given = Leaf(value)
    if given.shape == like.shape and given.weak and given.dtype != like.dtype:
        return _core.cast(value, like.dtype) if isinstance(value, _core.Tracer) else np.asarray(value, like.dtype)[()]
    if not given.is_like(like):
        raise ShapeError.of(
            name, f"the rule gives {given!r} for {what} of {like!r}", "let it have that shape and dtype"
        )
    return value


def _kind(value: Any) -> str:
    """What a function returned in place of a tuple."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None: it has no return" if value is None else f"a {type(value).__name__}"


class _Rule:
    """A rule that is being recorded: a body whose arguments are tangents or cotangents."""

    def __init__(self, name: str) -> None:
        self.trace = _core.Trace(name, rule=True)
        self.symbols = 0
        self.entered: dict[int, tuple[Any, Any]] = {}

    def symbol(self, like: Leaf) -> Any:
        """An argument of that shape and dtype; before anything is brought inside."""
        self.symbols += 1
        return self.trace.symbol(like.dtype, like.shape, like.is_array, False)

    def inside(self, tree: Any) -> Any:
        """A pytree of values from outside as values of the rule: it computes with them where it is used, can write what
        it computes beside them, and what it writes into them is its own."""
        leaves, structure = flatten(tree)
        if not any(isinstance(leaf, _core.Tracer) for leaf in leaves):
            return tree
        return unflatten(structure, [self._entered(leaf) for leaf in leaves])

    def _entered(self, leaf: Any) -> Any:
        if not isinstance(leaf, _core.Tracer):
            return leaf
        if id(leaf) not in self.entered:
            # With the leaf, so that no other one gets its id.
            self.entered[id(leaf)] = (leaf, self.trace.argument(leaf, False))
        return self.entered[id(leaf)][1]

    def body(self, outputs: list[Any]) -> _core.Body:
        """The recorded rule."""
        return self.trace.body(outputs, self.symbols)


def _attached(
    name: str,
    out: Any,
    arguments: list[Any],
    record: Callable[[_Rule, list[Any], Any, list[int]], tuple[list[Any], list[int]]],
    forward: bool,
) -> Any:
    """`out` with a rule behind it. `record` gives the rule's outputs and which of the arguments it knows of, from the
    leaves and the structure of `out` and the indices of its floats."""
    leaves, structure = flatten(out)
    leaves = [_packed(leaf) for leaf in leaves]
    floats = [index for index, leaf in enumerate(leaves) if _is_float(leaf)]
    if not floats:
        return out
    trace = _core.Trace(name)
    try:
        results = [trace.argument(leaves[index], False) for index in floats]
        for index, result in zip(floats, results, strict=True):
            leaves[index] = result
        rule = _Rule(name)
        try:
            outputs, known = record(rule, leaves, structure, floats)
            body = rule.body(outputs)
        finally:
            rule.trace.close()
        given = [trace.argument(arguments[index], False) for index in known]
        others = [leaf for index, leaf in enumerate(arguments) if index not in known]
        silent = [trace.argument(leaf, False) for leaf in others if isinstance(leaf, _core.Tracer) and _is_float(leaf)]
        are_arrays = [Leaf(leaves[index]).is_array for index in floats]
        values = trace.evaluate(_core.custom(trace, body, results, given, silent, forward, are_arrays))
    finally:
        trace.close()
    for index, value in zip(floats, values, strict=True):
        leaves[index] = value
    return unflatten(structure, leaves)


class custom_jvp(_Custom[Result]):
    """A function whose tangents are what a rule says.

    The rule holds in forward mode and, transposed, in reverse mode; its own operations are differentiated for higher
    orders. Inside the rule the function at the same arguments is the result that the rule is for, at other arguments it
    is what it computes. Conventions are those of `jax.custom_jvp`.

    Args:
        fun: the function. Outside of transforms it is called as it is.
        nondiff_argnums: positions of arguments that the rule is not asked about; it gets them first.

    Raises:
        RuntimeError: it is called without a rule.
        ShapeError: the rule's tangent has not the structure, shape or dtype of the result.

    Source: Radul, Paszke, Frostig, Johnson and Maclaurin, You only linearize once, 2023 (transposing tangents).

    >>> import numpy as np, ckad
    >>> @ckad.custom_jvp
    ... def log1pexp(x):
    ...     return np.log(1.0 + np.exp(x))
    >>> @log1pexp.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (dx,) = primals, tangents
    ...     return log1pexp(x), (1.0 - 1.0 / (1.0 + np.exp(x))) * dx
    >>> print(ckad.grad(log1pexp)(800.0))
    1.0
    """

    name = "custom_jvp"
    jvp: Callable[..., Any] | None = None

    def __init__(self, fun: Callable[..., Result], nondiff_argnums: int | Sequence[int] = ()) -> None:
        super().__init__(fun, nondiff_argnums)
        # By thread, the calls whose rule is being recorded: their arguments and results.
        self.open: dict[int, list[tuple[list[Any], Any]]] = {}

    def defjvp(self, jvp: Callable[..., Any]) -> Callable[..., Any]:
        """Gives the rule: from primals and tangents, two tuples, to the result and its tangent.

        Args:
            jvp: the rule. Arguments of `nondiff_argnums` come before the tuples.

        Returns:
            The rule, so that this is a decorator.

        Raises:
            TypeError: it is no function.

        >>> import numpy as np, ckad
        >>> @ckad.custom_jvp
        ... def root(x):
        ...     return np.sqrt(x)
        >>> @root.defjvp
        ... def rule(primals, tangents):
        ...     y = root(*primals)
        ...     return y, np.where(y > 0.0, tangents[0] / (2.0 * y), 0.0)
        >>> print(ckad.grad(root)(4.0), ckad.grad(root)(0.0))
        0.25 0.0
        """
        check_function("defjvp", jvp)
        self.jvp = jvp
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Gives a rule for each argument: from its tangent, the result and all arguments to a tangent of the result.

        Args:
            jvps: the rules; None for an argument without a derivative.

        Raises:
            TypeError: one is neither a function nor None.

        >>> import numpy as np, ckad
        >>> scaled = ckad.custom_jvp(lambda x, scale: x * scale)
        >>> scaled.defjvps(lambda tangent, result, x, scale: tangent * scale, None)
        >>> x, scale = ckad.grad(scaled, argnums=(0, 1))(2.0, 3.0)
        >>> print(x, scale)
        3.0 0.0
        """

        for rule in jvps:
            if rule is not None:
                check_function("defjvps", rule)

        def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            if len(jvps) != len(primals):
                hint = "give a rule for each argument, None for one without a derivative"
                what = f"{len(jvps)} rules for {len(primals)} arguments"
                raise CkadTypeError.of("defjvps", what, hint)
            out = self(*primals)
            parts = [
                rule(tangent, out, *primals) for rule, tangent in zip(jvps, tangents, strict=True) if rule is not None
            ]
            if not parts:
                return out, np.zeros_like(out)
            return out, functools.reduce(lambda a, b: a + b, parts)

        self.jvp = jvp

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        args = self._positional(args, kwargs)
        static, given = self._split(args)
        jvp = self.jvp
        if jvp is None:
            self._refuse("defjvp")
        if not _is_traced(given):
            return self.fun(*args)
        primals, structure = flatten(given)
        calls = self.open.get(threading.get_ident())
        if calls:
            leaves, out = calls[-1]
            same = len(leaves) == len(primals) and all(a is b for a, b in zip(leaves, primals, strict=True))
            return out if same else self.fun(*args)
        args = _together(args)
        static, given = self._split(args)
        primals = flatten(given)[0]
        known = [index for index, leaf in enumerate(primals) if isinstance(leaf, _core.Tracer) and _is_float(leaf)]

        def record(rule: _Rule, leaves: list[Any], out: Any, floats: list[int]) -> tuple[list[Any], list[int]]:
            tangents = [
                rule.symbol(Leaf(leaf)) if index in known else np.zeros(Leaf(leaf).shape, Leaf(leaf).dtype)
                for index, leaf in enumerate(primals)
            ]
            inside = rule.inside(given)
            calls = self.open.setdefault(threading.get_ident(), [])
            calls.append((flatten(inside)[0], rule.inside(unflatten(out, leaves))))
            try:
                answer = jvp(*rule.inside(static), tuple(inside), tuple(unflatten(structure, tangents)))
            finally:
                calls.pop()
                if not calls:
                    del self.open[threading.get_ident()]
            if not isinstance(answer, tuple) or len(answer) != 2:
                hint = "return (result, tangent of the result)"
                raise CkadTypeError.of(self.name, f"the rule must return a pair, not {_kind(answer)}", hint)
            like = [Leaf(leaf) for leaf in leaves]

            def matching(what: str, value: Any) -> list[Any]:
                found, found_structure = flatten(value)
                if found_structure != out:
                    hint = f"let {what} that it returns have the structure of the result"
                    raise CkadTypeError.of(self.name, f"the rule gives {found_structure} for a result of {out}", hint)
                return [_matching(self.name, what, found[index], like[index]) for index in floats]

            matching("the result", answer[0])
            return matching("the tangent", answer[1]), known

        return _attached(self.name, self.fun(*args), primals, record, True)


class custom_vjp(_Custom[Result]):
    """A function whose cotangents are what a rule says.

    The rule is for reverse mode: forward mode over the function (`ckad.jvp`, `ckad.linearize`) raises; over its
    gradient (`ckad.hvp`) it works. Conventions are those of `jax.custom_vjp`.

    Args:
        fun: the function. Outside of transforms it is called as it is; inside of them `fwd` is.
        nondiff_argnums: positions of arguments that the rule is not asked about; `bwd` gets them first.

    Raises:
        RuntimeError: it is called without a rule.
        ShapeError: a cotangent has not the structure, shape or dtype of its argument.

    Source: Griewank and Walther, Evaluating Derivatives, 2nd ed., section 3.2 (adjoints of elementary functions).

    >>> import numpy as np, ckad
    >>> @ckad.custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda residuals, g: (np.clip(g, -1.0, 1.0),))
    >>> print(ckad.grad(lambda x: np.sum(3.0 * clipped(x)))(np.zeros(2)))
    [1. 1.]
    """

    name = "custom_vjp"
    fwd: Callable[..., Any] | None = None
    bwd: Callable[..., Any] | None = None

    def __init__(self, fun: Callable[..., Result], nondiff_argnums: int | Sequence[int] = ()) -> None:
        super().__init__(fun, nondiff_argnums)
        # The threads in which the rule is recorded.
        self.open: list[int] = []

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Gives the rule.

        Args:
            fwd: function of all arguments to the result and residuals, any pytree. Where it or `bwd` calls the function
                itself, that is what the function computes.
            bwd: function of the residuals and a cotangent of the result to a tuple of cotangents, one for each argument
                but those of `nondiff_argnums`, which come first; None for an argument, or a part of one,
                without one.

        Raises:
            TypeError: one of them is no function.

        >>> import numpy as np, ckad
        >>> product = ckad.custom_vjp(lambda x, y: x * y)
        >>> product.defvjp(lambda x, y: (x * y, (x, y)), lambda saved, g: (g * saved[1], None))
        >>> x, y = ckad.grad(product, argnums=(0, 1))(2.0, 3.0)
        >>> print(x, y)
        3.0 0.0
        """
        check_function("defvjp", fwd)
        check_function("defvjp", bwd)
        self.fwd, self.bwd = fwd, bwd

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """A context in which the function, called in this thread, is what it computes: its rule is being recorded."""
        self.open.append(threading.get_ident())
        try:
            yield
        finally:
            self.open.remove(threading.get_ident())

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        args = self._positional(args, kwargs)
        static, given = self._split(args)
        fwd, bwd = self.fwd, self.bwd
        if fwd is None or bwd is None:
            self._refuse("defvjp")
        if not _is_traced(given) or threading.get_ident() in self.open:
            return self.fun(*args)
        args = _together(args)
        static, given = self._split(args)
        with self._recording():
            answer = fwd(*args)
        if not isinstance(answer, tuple) or len(answer) != 2:
            hint = "return (result, residuals)"
            raise CkadTypeError.of(self.name, f"fwd must return a pair, not {_kind(answer)}", hint)
        result, residuals = answer
        arguments = [flatten(arg) for arg in given]
        all_leaves = [leaf for leaves, _ in arguments for leaf in leaves]

        def record(rule: _Rule, leaves: list[Any], out: Any, floats: list[int]) -> tuple[list[Any], list[int]]:
            like = [Leaf(leaf) for leaf in leaves]
            cotangents = [
                rule.symbol(one) if index in floats else np.zeros(one.shape, one.dtype)
                for index, one in enumerate(like)
            ]
            with self._recording():
                found = bwd(*rule.inside(static), rule.inside(residuals), unflatten(out, cotangents))
            if not isinstance(found, tuple) or len(found) != len(given):
                kind = f"{len(found)} of them" if isinstance(found, tuple) else _kind(found)
                hint = "return a tuple, None for an argument without a cotangent"
                what = f"bwd must return a cotangent for each of {len(given)} arguments, not {kind}"
                raise CkadTypeError.of(self.name, what, hint)
            outputs, known, first = [], [], 0
            for (arg_leaves, structure), cotangent in zip(arguments, found, strict=True):
                gradients = leaves_or_none(structure, cotangent)
                if gradients is None:
                    hint = "let a cotangent have the structure of its argument, None for parts without one"
                    what = f"bwd gives {flatten(cotangent)[1]} for an argument of {structure}"
                    raise CkadTypeError.of(self.name, what, hint)
                for index, (leaf, gradient) in enumerate(zip(arg_leaves, gradients, strict=True)):
                    if gradient is not None and isinstance(leaf, _core.Tracer) and _is_float(leaf):
                        outputs.append(_matching(self.name, "the cotangent", gradient, Leaf(leaf)))
                        known.append(first + index)
                first += len(arg_leaves)
            return outputs, known

        return _attached(self.name, result, all_leaves, record, False)
