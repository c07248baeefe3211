"""What the optimisers share: the pair they return, the checks of trees, the learning rate, and the dtype rule.

The rule: each parameter keeps its dtype. Python numbers are weak in NumPy and keep it by themselves; a NumPy scalar or
a gradient of another dtype is not, so both are brought to the parameter's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ckad import tree
from ckad.errors import CkadTypeError, CkadValueError, DTypeError, ShapeError
from ckad.transforms.jit import jit

Schedule = Callable[[int], Any]
"""The learning rate as a function of the number of updates done so far: 0, 1, 2, …"""

State = dict[str, Any]


class Optimizer(NamedTuple):
    """An optimiser as two functions.

    Attributes:
        init: `state = init(params)`.
        update: `params, state = update(grads, state, params)`.

    >>> import numpy as np
    >>> from ckad.optim import sgd
    >>> init, update = sgd(0.5)
    >>> params = np.array([1.0, 2.0])
    >>> params, state = update(np.array([1.0, 1.0]), init(params), params)
    >>> params
    array([0.5, 1.5])
    """

    init: Callable[[Any], State]
    update: Callable[[Any, State, Any], tuple[Any, State]]


def in_one_pass(advance: Callable[..., Any]) -> Callable[..., Any]:
    """`advance(numbers, *trees)` as one pass over memory where NumPy would make one for each operation.

    For trees of arrays of one axis or more; numbers, NumPy scalars and traced values are advanced as they are.
    """
    compiled = jit(advance)

    def run(numbers: tuple[Any, ...], *trees: Any) -> Any:
        leaves = tree.flatten(trees)[0]
        arrays = all(type(leaf) is np.ndarray and leaf.ndim and leaf.dtype.char in "fd" for leaf in leaves)
        known = all(type(number) is float for number in numbers)
        return (compiled if arrays and known else advance)(numbers, *trees)

    return run


def check_rate(op: str, lr: Any) -> None:
    """Refuses a constant learning rate that is not a finite number ≥ 0. Schedules and traced values pass."""
    if not callable(lr):
        _check_rate(op, "lr", lr)


def _check_rate(op: str, name: str, rate: Any) -> None:
    if isinstance(rate, bool) or not (isinstance(rate, (int, float, np.number)) or hasattr(rate, "dtype")):
        what = f"{name} must be a number or a function of the step that gives one, not {rate!r:.80}"
        raise CkadTypeError.of(op, what, "give a number such as 1e-3, or lambda step: 1e-3 / (1 + step)")
    if np.shape(rate) != ():
        what = f"{name} must be one number, not an array of shape {np.shape(rate)}"
        raise ShapeError.of(op, what, "give one number; scale the gradients for rates that differ by parameter")
    if isinstance(rate, (int, float, np.number, np.ndarray)):
        check_number(op, name, rate, below=math.inf)


def check_number(op: str, name: str, value: Any, below: float) -> None:
    """Refuses a number that is not in [0, below)."""
    if not 0 <= value < below:
        limit = "finite and at least 0" if below == math.inf else f"at least 0 and below {below:g}"
        hint = f"leave it at its default, or give {name.partition('(')[0]}={'1e-3' if below == math.inf else '0.9'}"
        raise CkadValueError.of(op, f"{name}={value!r} must be {limit}", hint)


def rate_at(op: str, lr: Any, step: int) -> Any:
    """The learning rate of a step: a Python number, or a traced one."""
    rate = lr
    if callable(lr):
        rate = lr(step)
        _check_rate(op, f"lr({step!r})", rate)
    return rate.item() if isinstance(rate, (np.generic, np.ndarray)) else rate


def check_params(op: str, params: Any) -> None:
    """Refuses parameters that are not floats."""
    for name, leaf in zip(tree.paths(params), tree.flatten(params)[0], strict=True):
        dtype = getattr(leaf, "dtype", None)
        if not isinstance(leaf, float) and (dtype is None or dtype.kind != "f"):
            kind = f"type {type(leaf).__name__}" if dtype is None else f"dtype {dtype}"
            hint = "keep it apart from the parameters, or convert it with np.asarray(value, float)"
            raise DTypeError.of(op, f"parameter {name!r} has {kind}; only floats can be updated", hint)


def check_update(op: str, grads: Any, state: State, params: Any, moments: tuple[str, ...]) -> None:
    """Refuses gradients or a state that are not of these parameters: they would broadcast, or be found out half way."""
    leaves, structure = tree.flatten(params)
    shapes = [np.shape(leaf) for leaf in leaves]
    order = "the order is update(grads, state, params)"
    grad_leaves, grad_structure = tree.flatten(grads)
    if structure != grad_structure:
        what = f"gradients and parameters differ in structure: {grad_structure} and {structure}"
        raise CkadValueError.of(op, what, order)
    _check_shapes(op, "gradient and", grad_leaves, shapes, params, f"{order}, with gradients at these parameters")

    hint = f"{order}, with the state that init(params) or the last update gave"
    if not isinstance(state, dict) or state.keys() != {"step", *moments}:
        given = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise CkadValueError.of(op, f"the state must hold {['step', *moments]}, not {given}", hint)
    for moment in moments:
        held, held_structure = tree.flatten(state[moment])
        if structure != held_structure:
            what = f"state {moment!r} and parameters differ in structure: {held_structure} and {structure}"
            raise CkadValueError.of(op, what, hint)
        _check_shapes(op, f"state {moment!r} and", held, shapes, params, hint)


def _check_shapes(op: str, what: str, leaves: list[Any], shapes: list[Any], params: Any, hint: str) -> None:
    for index, (leaf, shape) in enumerate(zip(leaves, shapes, strict=True)):
        if np.shape(leaf) != shape:
            name = tree.paths(params)[index]
            raise ShapeError.of(op, f"{what} parameter {name!r} differ in shape: {np.shape(leaf)} and {shape}", hint)


def cast_like(value: Any, param: Any) -> Any:
    """The value in the dtype of the parameter; a Python float where the parameter is one."""
    dtype = getattr(param, "dtype", None)
    if dtype is None:
        # np.float64 would no longer be weak and so would widen what it is combined with in the next step.
        return float(value) if isinstance(value, np.generic) else value
    if isinstance(param, np.ndarray) and isinstance(value, np.generic):
        return np.asarray(value, dtype)  # an array of rank 0 stays one
    if getattr(value, "dtype", None) == dtype:
        return value
    return value.astype(dtype) if hasattr(value, "astype") else dtype.type(value)


def zero_like(param: Any) -> Any:
    """Zero in the shape, dtype and kind (array, NumPy scalar, Python float) of the parameter."""
    if isinstance(param, float) and not isinstance(param, np.generic):
        return 0.0
    zero = np.zeros_like(param)
    return zero[()] if isinstance(param, np.generic) else zero
