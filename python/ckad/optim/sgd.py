"""Gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

from ckad import tree
from ckad.optim.optimizer import (
    Optimizer,
    Schedule,
    State,
    cast_like,
    check_number,
    check_params,
    check_rate,
    check_update,
    in_one_pass,
    rate_at,
    zero_like,
)


def sgd(lr: float | Schedule, momentum: float = 0.0) -> Optimizer:
    """Gradient descent: v ← momentum · v + g, p ← p − lr · v.

    Args:
        lr: the learning rate, or a function of the number of updates done so far.
        momentum: in [0, 1). At 0 the state holds no velocity.

    Returns:
        `(init, update)`: `state = init(params)`; `params, state = update(grads, state, params)`.

    Raises:
        ValueError: a number out of its range; from `update`, gradients or a state that do not fit the parameters, or a
            schedule's rate out of range.
        TypeError: from `init`, a parameter that is not a float.

    Source: Polyak, Some methods of speeding up the convergence of iteration methods (1964).

    >>> import numpy as np
    >>> init, update = sgd(0.1, momentum=0.9)
    >>> params = np.array([1.0, 2.0], np.float32)
    >>> params, state = update(np.ones(2, np.float32), init(params), params)
    >>> params, state["velocity"]
    (array([0.9, 1.9], dtype=float32), array([1., 1.], dtype=float32))
    """
    check_rate("sgd", lr)
    check_number("sgd", "momentum", momentum, below=1.0)
    momentum = float(momentum)

    def init(params: Any) -> State:
        check_params("sgd", params)
        return {"step": 0, "velocity": tree.map_leaves(zero_like, params)} if momentum else {"step": 0}

    @in_one_pass
    def advance(numbers: tuple[Any], direction: Any, params: Any) -> Any:
        (rate,) = numbers
        direction = tree.map_leaves(cast_like, direction, params)
        return tree.map_leaves(lambda p, d: cast_like(p - rate * d, p), params, direction)

    @in_one_pass
    def advance_with_velocity(numbers: tuple[Any], grads: Any, velocity: Any, params: Any) -> tuple[Any, Any]:
        (rate,) = numbers
        grads = tree.map_leaves(cast_like, grads, params)
        velocity = tree.map_leaves(lambda v, g: cast_like(momentum * v + g, g), velocity, grads)
        return tree.map_leaves(lambda p, v: cast_like(p - rate * v, p), params, velocity), velocity

    def update(grads: Any, state: State, params: Any) -> tuple[Any, State]:
        check_update("sgd", grads, state, params, ("velocity",) if momentum else ())
        rate = rate_at("sgd", lr, state["step"])
        advanced: State = {"step": state["step"] + 1}
        if not momentum:
            return advance((rate,), grads, params), advanced
        params, advanced["velocity"] = advance_with_velocity((rate,), grads, state["velocity"], params)
        return params, advanced

    return Optimizer(init, update)
